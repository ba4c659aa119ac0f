"""Both error rates of `check_regression` on metrics of real programs: `python benchmarks/metric_regression.py`.

Ten small programs (nets and forests, classification and regression, on data that ships with scikit-learn) are trained with 40
seeds each; only the seed changes, so that every alarm between them is false. Then a fall is planted: 2% and 5% of an accuracy,
F1 or AUC, an RMSE larger by 5% and 10%, a loss larger by half and doubled. Takes about a minute on two cores.
"""

from __future__ import annotations

import statistics
import sys
import warnings

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import f1_score, log_loss, r2_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from pytest_mltd.checks.runs.metrics import check_regression

SEEDS, DRAWS = 40, 150
# (seeds of the baseline, seeds now)
SIZES = ((1, 1), (3, 1), (3, 3), (5, 1), (5, 5), (10, 1))
PLANTED = {"accuracy": (0.98, 0.95), "rmse": (1.05, 1.10), "loss": (1.5, 2.0)}


def main() -> None:
    """Print the share of alarms for each kind of metric and each number of seeds."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    seen = {name: [program(seed) for seed in range(SEEDS)] for name, program in PROGRAMS.items()}
    values = {(n, m): np.array([run[m] for run in runs]) for n, runs in seen.items() for m in runs[0]}
    print(f"{'metric':<10}{'seeds':>8}  {'false alarms':>12}  {'worst program':>13}  planted and seen")
    for kind, members in (("accuracy", ("accuracy", "f1", "auc")), ("rmse", ("rmse",)), ("loss", ("loss", "r2"))):
        ours = {k: v for k, v in values.items() if k[1] in members}
        for before, now in SIZES:
            alarms = [_rate(v, k[1], before, now, 1.0) for k, v in ours.items()]
            power = []
            for factor in PLANTED[kind]:
                fallen = {k: v for k, v in ours.items() if k[1] != "r2"}
                power.append(statistics.fmean(_rate(v, k[1], before, now, factor) for k, v in fallen.items()))
            planted = ", ".join(f"x{f}: {p:.0%}" for f, p in zip(PLANTED[kind], power, strict=True))
            print(
                f"{kind:<10}{f'{before}/{now}':>8}  {statistics.fmean(alarms):>12.1%}  {max(alarms):>13.1%}  {planted}"
            )


def _rate(values: np.ndarray, metric: str, before: int, now: int, factor: float) -> float:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(DRAWS):
        order = rng.permutation(len(values))
        then, current = values[order[:before]], values[order[before : before + now]] * factor
        alarms += check_regression({"val": {metric: current}}, {"val": {metric: then}}).failed
    return alarms / DRAWS


def _data(load):
    features, labels = load(return_X_y=True)
    train, test, y, z = train_test_split(features, labels, test_size=0.3, random_state=0)
    scaler = StandardScaler().fit(train)
    return scaler.transform(train).astype("float32"), scaler.transform(test).astype("float32"), y, z


def _net(load, *, width=64, epochs=20, lr=1e-3, drop=0.0, regression=False):
    def program(seed):
        train, test, y, z = _data(load)
        torch.manual_seed(seed)
        classes = 1 if regression else int(y.max()) + 1
        model = torch.nn.Sequential(
            torch.nn.Linear(train.shape[1], width),
            torch.nn.ReLU(),
            torch.nn.Dropout(drop),
            torch.nn.Linear(width, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, classes),
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr)
        inputs = torch.tensor(train)
        target = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32) if regression else torch.tensor(y)
        for _ in range(epochs):
            for batch in torch.randperm(len(inputs)).split(32):
                out = model(inputs[batch])
                loss = (
                    functional.mse_loss(out[:, 0], target[batch])
                    if regression
                    else functional.cross_entropy(out, target[batch])
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        model.eval()
        with torch.no_grad():
            out = model(torch.tensor(test))
        if regression:
            return _regression(out[:, 0].numpy() * y.std() + y.mean(), z)
        return _classification(out.double().softmax(1).numpy(), z)

    return program


def _forest(load, *, regression=False):
    def program(seed):
        train, test, y, z = _data(load)
        kind = RandomForestRegressor if regression else RandomForestClassifier
        model = kind(100, random_state=seed).fit(train, y)
        return _regression(model.predict(test), z) if regression else _classification(model.predict_proba(test), z)

    return program


def _classification(shares, labels):
    shares = np.clip(shares, 1e-3, None)
    shares /= shares.sum(1, keepdims=True)
    best = shares.argmax(1)
    auc = (
        roc_auc_score(labels, shares[:, 1])
        if shares.shape[1] == 2
        else roc_auc_score(labels, shares, multi_class="ovr")
    )
    return {
        "accuracy": float((best == labels).mean()),
        "f1": float(f1_score(labels, best, average="macro")),
        "auc": float(auc),
        "loss": float(log_loss(labels, shares)),
    }


def _regression(predicted, labels):
    return {
        "rmse": float(np.sqrt(((predicted - labels) ** 2).mean())),
        "r2": float(r2_score(labels, predicted)),
    }


PROGRAMS = {
    "digits, net": _net(load_digits, epochs=8),
    "digits, net with dropout": _net(load_digits, epochs=8, drop=0.3),
    "digits, net, high rate": _net(load_digits, epochs=5, lr=1e-2),
    "digits, forest": _forest(load_digits),
    "cancer, net": _net(load_breast_cancer),
    "cancer, small net": _net(load_breast_cancer, width=8, epochs=10),
    "cancer, forest": _forest(load_breast_cancer),
    "wine, net": _net(load_wine),
    "diabetes, net": _net(load_diabetes, epochs=30, regression=True),
    "diabetes, forest": _forest(load_diabetes, regression=True),
}

if __name__ == "__main__":
    sys.exit(main())
