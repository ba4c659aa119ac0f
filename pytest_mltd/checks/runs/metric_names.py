"""What a metric's name says of it: which direction is better, whether it wanders like a loss, whether it is a cost."""

from __future__ import annotations

import re
from typing import Literal

Direction = Literal["higher", "lower"]
Cost = Literal["latency", "memory", "throughput"]

HIGHER = frozenset(
    "auc auroc auprc ap map accuracy acc top1 top5 f1 f2 fbeta fscore precision recall sensitivity specificity tpr tnr ppv npv "
    "iou miou jaccard dice bleu rouge meteor chrf r2 ndcg mrr psnr ssim correlation corr pearson spearman kappa mcc "
    "agreement likelihood elbo reward return returns win winrate hits hit success purity silhouette gini true "
    "exactmatch em throughput bertscore fps qps".split()
)
LOWER = frozenset(
    "loss losses error err errors errorrate mse rmse mae mape smape rmsle msle nll bce ce crossentropy perplexity ppl "
    "bpc wer cer eer ter fid kid lpips brier ece mce logloss kl divergence regret fpr fnr fdr miss misses distance hinge "
    "latency memory duration time seconds gap false".split()
)
# "score" alone, or with a word that only says which one, is better when higher; an "anomaly_score" is not guessed.
WHICH = frozenset(
    "score scores val valid validation test train dev eval cv oof mean avg average macro micro best final".split()
)
# Between two seeds of one program these move by tens of percent where an accuracy moves by one (measured:
# benchmarks/metric_regression.py), since they are near zero or not bounded.
WANDERING = frozenset(
    "loss losses nll bce ce crossentropy error err errors errorrate perplexity ppl brier ece mce logloss kl divergence "
    "hinge r2 wer cer eer fpr fnr fdr false miss misses regret mse msle likelihood elbo gap".split()
)
LATENCY = frozenset("latency duration time runtime elapsed seconds walltime".split())
MEMORY = frozenset("memory mem ram vram rss".split())
THROUGHPUT = frozenset("throughput fps qps".split())
# The factor to milliseconds. As a name's last word a unit makes it a latency: "step_ms" is one, "ms_ssim" is not.
UNITS = {
    "ms": 1.0,
    "s": 1000.0,
    "sec": 1000.0,
    "secs": 1000.0,
    "second": 1000.0,
    "seconds": 1000.0,
    "us": 1e-3,
    "ns": 1e-6,
}


def direction_of(name: str) -> Direction | None:
    """Return which direction of a metric is better by its name, or None where the name does not tell.

    The last known word counts ("precision_loss" is a loss), up to one like "at" or "per" ("recall_at_5"). A negated
    metric ("neg_mean_squared_error") turns round.
    """
    cost = cost_of(name)
    if cost is not None:
        return "higher" if cost == "throughput" else "lower"
    found = _telling_word(name)
    if found is None:
        own = set(words(name))
        return "higher" if own & {"score", "scores"} and own <= WHICH else None
    negated = bool({"neg", "negative"} & set(words(name))) and found != "nll"
    return "higher" if (found in HIGHER) != negated else "lower"


def wanders(name: str) -> bool:
    """Tell whether a metric moves by tens of percent from seed to seed, as losses do."""
    return _telling_word(name) in WANDERING


def cost_of(name: str) -> Cost | None:
    """Return which cost a name stands for, if one: they are compared as ratios."""
    found = words(name)
    own = _before_at(found)
    if THROUGHPUT & set(own) or ("per" in found[:-1] and found[found.index("per") + 1] in UNITS):
        return "throughput"
    if MEMORY & set(own):
        return "memory"
    return "latency" if LATENCY & set(own) or ((len(own) > 1 or "per" in found) and own[-1] in UNITS) else None


def milliseconds(name: str) -> float:
    """Return the factor that makes a latency's number milliseconds, by the unit in its name; 1 without one."""
    return next((UNITS[w] for w in reversed(words(name)) if w in UNITS), 1.0)


def words(name: str) -> tuple[str, ...]:
    """Return the words of a metric's own name, small letters, split at signs and capitals: "valROC-AUC" → val, roc, auc."""
    own = name.rpartition("/")[2]
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", " ", own)
    joined = split.lower().replace("m ap", "map").replace("io u", "iou").replace("r 2", "r2")
    joined = re.sub("cross[-_ ]entropy", "crossentropy", joined)
    return tuple(re.findall(r"[a-z]+[0-9]*", joined.replace("r^2", "r2").replace("r²", "r2")))


def _telling_word(name: str) -> str | None:
    known = [w if w in HIGHER | LOWER else w.rstrip("0123456789") for w in _before_at(words(name))]
    return next((w for w in reversed(known) if w in HIGHER | LOWER), None)


def _before_at(found: tuple[str, ...]) -> tuple[str, ...]:
    cut = next((i for i, w in enumerate(found) if i and w in ("at", "by", "for", "on", "per", "under")), len(found))
    return found[:cut]
