"""Batches sorted by label, and generators seeded anew at each step."""

import dataclasses

import numpy as np
import pytest

from pytest_mltd.checks.runs.batches import (
    assert_no_reseeding,
    assert_no_sorted_labels,
    check_reseeding,
    check_sorted_labels,
)
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import CALLS, Fact, Module, SeedCall, Trace


def labelled(made, *, within=0.15, looks=9, seen=7, rows=40, samples=40, period=0):
    """Return a run whose batches' labels have this entropy, and come again after a number of batches."""
    run = made()
    run.order = [("batch", "forward", "zero_grad", "backward", "step")] * 200
    run.values["batch"] = samples
    details = {
        "loss": "cross_entropy",
        "looks": looks,
        "rows": rows,
        "labels": looks * rows,
        "labels_seen": seen,
        "entropy": 1.73,
        "batch_entropy": within,
    }
    run.kept["facts"] = (Fact(kind="targets", who="train.py:12", details=details),)
    trace = run.trace()
    turn = np.arange(200) % period + 1 if period else np.arange(200) + 1
    digest = np.zeros(trace.calls["kind"].size, np.uint64)
    digest[trace.of("batch")] = turn
    grad = np.where(trace.of("batch"), 1, trace.calls["grad"])
    return dataclasses.replace(trace, calls={**trace.calls, "digest": digest, "grad": grad})


def test_labels_that_arrive_sorted(made):
    """How mixed a batch is against all labels, and after how many batches the same come again."""
    finding = check_sorted_labels(labelled(made, period=35))
    assert str(finding) == (
        "batches.sorted_labels: labels arrive sorted, not shuffled: a batch of 'train.py:12' has 0.087 of the entropy of all "
        "labels (min_mixture=0.25), about 1.2 of 7 classes\n"
        "\n"
        "    labels          batches  classes  entropy (nats)\n"
        "  > within a batch  9        1.16     0.15\n"
        "    all together    9        7        1.73\n"
        "\n"
        "    Most batches contain a single class: each step pulls the model towards the class of the moment, and it forgets "
        "the others. The same 35 batches come in the same order in each pass.\n"
        "    next: shuffle the training data (DataLoader(..., shuffle=True)), or permute it once before it is cut into batches"
    )


def test_an_order_that_does_not_come_again(made):
    """One pass only: the sentence about the order is left out."""
    finding = check_sorted_labels(labelled(made))
    assert finding.failed
    assert finding.shows.endswith("it forgets the others.")


def test_shuffled_labels(made):
    """A batch has nearly the entropy of all."""
    finding = check_sorted_labels(labelled(made, within=1.65))
    assert finding.ok
    assert finding.looked_at == "360 labels in 9 batches"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seen": 2}, "too few labels to judge their order: 2 of at least 3 classes"),
        ({"looks": 3}, "3 of at least 5 batches"),
        ({"rows": 4}, "4 of at least 8 rows"),
        ({"samples": 1}, "batches of 1 samples say little"),
    ],
)
def test_too_few_labels(made, change, reason):
    """Two domains by turns, few looks, small batches, one long sequence: not judged."""
    finding = check_sorted_labels(labelled(made, **change))
    assert not finding.asked
    assert reason in finding.headline


def test_a_run_without_labels(made):
    """Regression, or a trace of scalars."""
    assert check_sorted_labels(made().trace()).headline == "no labels of a classification were seen"
    assert not check_sorted_labels(Trace()).asked


def test_sorted_labels_may_be_allowed_and_the_twin_raises(made):
    """The place is the line of the loss."""
    trace = labelled(made)
    assert check_sorted_labels(trace, allow={"train.py:12": "classes one after the other, on purpose"}).ok
    with pytest.raises(CheckFailed, match="labels arrive sorted"):
        assert_no_sorted_labels(trace)
    with pytest.raises(ValueError, match="^min_mixture: "):
        check_sorted_labels(trace, min_mixture=2)


def seeded(made, *, values=("0",), dropout=True, state="same", batches="new", before=("seed", "batch", "forward")):
    """Return a run that seeds in each step, with the random state before the forward, and the batches, that come of it."""
    run = made()
    run.order = [(*before, "zero_grad", "backward", "step")] * 200
    if dropout:
        run.modules = (*run.modules, Module(name="drop", kind="Dropout"))
    calls = tuple(
        SeedCall(what="torch.manual_seed", value=values[i % len(values)], site="train.py:10", step=i)
        for i in range(200)
    )
    run.kept["seeds"] = calls
    trace = run.trace()
    digest = np.zeros(trace.calls["kind"].size, np.uint64)
    digest[trace.of("batch")] = 7 if batches == "same" else np.arange(trace.of("batch").sum()) + 1
    columns = {
        **trace.calls,
        "digest": digest,
        "grad": np.where(trace.of("batch"), 1, trace.calls["grad"]),
        "who": np.where(trace.calls["kind"] == CALLS.index("seed"), 1, 0),
    }
    at = trace.updates["step"]
    states = np.full(at.size, 5, np.uint64) if state == "same" else np.arange(at.size).astype(np.uint64) + 5
    return dataclasses.replace(
        trace, calls=columns, names=("net", "torch.manual_seed"), digests={"step": at, "torch": states}
    )


def test_a_seed_in_the_loop_gives_one_batch(made):
    """The generator, its value and line, and what comes again."""
    finding = check_reseeding(seeded(made, batches="same"))
    assert str(finding) == (
        "batches.reseeding: torch.manual_seed(0) is called again before 100% of steps (train.py:10) (max_share=0.5): each "
        "draws the same random numbers\n"
        "    The 200 training batches are one and the same. What is drawn after that call, batches, noise or dropout, is no "
        "sample any more.\n"
        "    next: seed once, before the loop"
    )
    assert finding.culprit == "torch.manual_seed"


def test_a_seed_in_the_loop_gives_one_dropout_mask(made):
    """Batches differ; the random state before each forward does not."""
    finding = check_reseeding(seeded(made))
    assert finding.shows.startswith("The random state before the forward is the same in 23 sampled steps.")


@pytest.mark.parametrize(
    "change",
    [
        {"values": tuple(map(str, range(200)))},
        {"state": "new"},
        {"dropout": False},
        {"before": ("batch", "forward", "seed", "forward")},
    ],
)
def test_a_seed_in_the_loop_that_does_no_harm(made, change):
    """It changes with the step; the state is put back; nothing is drawn; it is for an evaluation."""
    trace = seeded(made, **change)
    if "before" in change:  # seed, evaluation, then the training forward
        grad = trace.calls["grad"].copy()
        grad[np.flatnonzero(trace.of("forward"))[1::2]] = 0
        grad[np.flatnonzero(trace.of("forward"))[0::2]] = 1
        trace = dataclasses.replace(trace, calls={**trace.calls, "grad": grad})
    finding = check_reseeding(trace)
    assert finding.ok
    assert finding.looked_at == "200 calls of a seed, 200 steps"


def test_a_run_that_seeds_once(made):
    """Nothing in the loop; too short a run is not asked."""
    assert check_reseeding(made().trace()).ok
    assert not check_reseeding(made(4).trace()).asked


def test_reseeding_may_be_allowed_and_the_twin_raises(made):
    """The place is the generator."""
    trace = seeded(made)
    assert check_reseeding(trace, allow={"torch.manual_seed": "one mask is studied"}).ok
    with pytest.raises(CheckFailed, match="is called again"):
        assert_no_reseeding(trace)
    with pytest.raises(ValueError, match="^max_share: "):
        check_reseeding(trace, max_share=0)
