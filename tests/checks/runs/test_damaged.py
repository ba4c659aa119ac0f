"""No trace breaks a question: missing tables, unknown names, infinities, shuffled calls are answered in sentences."""

import dataclasses
import random
import warnings

import numpy as np
import pytest

from pytest_mltd.checks.runs.divergence import check_divergence
from pytest_mltd.core.traces import CALLS, TABLES, OptimizerInfo, Trace
from pytest_mltd.diagnosis import diagnose

ODD = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30)


def damaged(made, seed):
    """Return a run in which a seed decides what is missing or odd."""
    rnd, rng = random.Random(seed), np.random.default_rng(seed)
    n = rnd.choice([1, 2, 3, 6, 12, 25, 26, 40, 120])
    run = made(steps=n, seed=seed)
    for column in (run.loss, run.grad):
        if rnd.random() < 0.4:
            column[rng.integers(0, n, 3)] = rnd.choice(ODD)
        if rnd.random() < 0.2:
            column[:] = rnd.choice(ODD)
    if rnd.random() < 0.2:
        run.owner = rng.integers(-1, 3, n)
    if rnd.random() < 0.2:
        run.lr[:] = rnd.choice(ODD)
    if rnd.random() < 0.2:
        run.weight[:] = rnd.choice(ODD)
    if rnd.random() < 0.3:
        run.order = [tuple(rnd.choices(CALLS, k=rnd.randrange(6))) for _ in range(n)]
    if rnd.random() < 0.3:
        settings = {"lr": 0.1, "weight_decay": rnd.choice([1e-4, 1.0])}
        run.optimizers = (OptimizerInfo(name=rnd.choice(["SGD", "AdamW"]), parameters=4, settings=settings),)
    if rnd.random() < 0.3:
        run.parameters = tuple(dataclasses.replace(p, dtype="bfloat16") for p in run.parameters)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the cast of 1e30 to float32 is the test's own doing
        trace = run.trace()
    missing = {name: {} for name in TABLES if rnd.random() < 0.15}
    if rnd.random() < 0.3:  # a process that was killed between two writes
        lost = rnd.randrange(n)
        missing.setdefault("parameter_norms", {k: v[:lost] for k, v in trace.parameter_norms.items()})
    missing |= {name: () for name in ("streams", "names", "sites", "optimizers") if rnd.random() < 0.15}
    whole = {f.name: getattr(trace, f.name) for f in dataclasses.fields(trace)}
    return Trace(**{**whole, **missing, "ended": rnd.choice(["completed", "cut", "torn"])})


@pytest.mark.parametrize("block", range(10))
def test_every_question_is_answered_or_refused_in_words(made, block):
    """None of them fails itself."""
    for seed in range(block * 20, block * 20 + 20):
        diagnosis = diagnose(damaged(made, seed))
        assert str(diagnosis)
        assert not [f.headline for f in diagnosis.not_asked if "itself failed" in f.headline]


@pytest.mark.parametrize("block", range(5))
def test_a_damaged_run_is_equal_to_itself(made, block):
    """The comparison of a run with itself finds no difference, whatever is missing."""
    for seed in range(block * 20, block * 20 + 20):
        trace = damaged(made, seed)
        assert check_divergence(trace, trace).ok
