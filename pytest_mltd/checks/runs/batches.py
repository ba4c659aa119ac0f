"""Questions about the batches of a recorded run: sorted by label, or drawn from the same random numbers each time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import no_steps, too_short
from pytest_mltd.checks.runs.places import at_site, counted, middle
from pytest_mltd.checks.runs.sequence import at, last_before
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import NO_DIGEST, Fact, SeedCall, Trace, as_trace

_CLASSES = 3  # that were seen: of two, one a batch may be meant so (real and generated, two domains)
_LOOKS = 5  # at the targets; a guess
_ROWS = 8  # labels in a batch: fewer say little of its mixture; a guess


@check("run", explains=("losses.*", "activations.*", "gradients.explosion"), rank=11)
def check_sorted_labels(run: Any, *, min_mixture: float = 0.25, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether batches hold one class each, because the data is sorted by label and not shuffled.

    The mixture is the entropy of the labels within a batch over that of all labels that were seen; shuffled batches have nearly
    1. Asked of classifications of three classes or more, in batches of eight labels or more.

    Args:
        run: a recording, a run or a trace.
        min_mixture: the lowest ratio of the two entropies (measured on tests/faulty: 0.95 to 1 where data is shuffled, up to
            0.09 where it is sorted; two classes of ten at a time, on purpose, have 0.3).
        allow: reasons by loss (the line that calls backward).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``min_mixture`` is no share.
    """
    trace = as_trace(run)
    if not 0 < min_mixture < 1:
        raise ValueError(f"min_mixture: a share between 0 and 1 is needed, not {min_mixture!r}")
    if reason := no_steps(trace):
        return not_asked(reason)
    seen = [f for f in trace.facts if f.kind in ("targets", "term") and "batch_entropy" in f.details]
    usable = list({f.who: f for f in reversed(seen) if _tells(f)}.values())
    if not usable:
        return no_occasion(_too_few(seen))
    rows = middle(trace.calls["value"][trace.of("batch") & (trace.calls["grad"] == 1)])
    if rows < _ROWS:  # one sequence, or one image, whose positions all have its label
        return not_asked(f"batches of {rows:g} samples say little of their mixture ({_ROWS} are the fewest)")
    kept, allowed = sift(allow, [f.who for f in usable])
    worst = min(usable, key=_mixture)
    broken = [f for f in usable if f.who in kept and _mixture(f) < min_mixture]
    if broken:
        return _sorted_finding(trace, min(broken, key=_mixture), min_mixture, allowed)
    return Finding(
        ok=True,
        headline=f"batches mix the labels: {number(_mixture(worst), 2)} of the entropy of all (min_mixture={min_mixture:g})",
        amount=_mixture(worst),
        limit=("min_mixture", min_mixture),
        looked_at=", ".join(
            f"{counted(int(f.details['labels']), 'label')} in {counted(int(f.details['looks']), 'batch', 'batches')}"
            for f in usable
        ),
        allowed=allowed,
    )


@check("run", explains=("losses.*",), rank=11)
def check_reseeding(run: Any, *, max_share: float = 0.5, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether a generator is seeded anew with the same value at most steps, so that each step draws the same numbers.

    The same batch, the same dropout mask, the same noise come again and again then. It fails only where that shows: the random
    state before each step, or the batch, is the same. Seeds that change with the step, and those within `fork_rng`, are fine.

    Args:
        run: a recording, a run or a trace.
        max_share: the highest share of steps before which the same seed is set again (once an epoch is a habit, each step is
            not; a guess).
        allow: reasons by generator (``torch.manual_seed``, ``numpy.random.seed``, ``random.seed``).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_share`` is no share.
    """
    trace = as_trace(run)
    if not 0 < max_share < 1:
        raise ValueError(f"max_share: a share between 0 and 1 is needed, not {max_share!r}")
    if reason := no_steps(trace) or too_short(trace, trace.busiest, 10):
        return not_asked(reason)
    again = [(call, share) for call in _repeated(trace) if (share := _share_of_steps(trace, call)) > max_share]
    kept, allowed = sift(allow, [call.what for call, _ in again])
    for call, share in again:
        if call.what in kept and (shown := _same_again(trace, call)):
            return _reseeded(trace, call, share, shown, max_share, allowed)
    return Finding(
        ok=True,
        headline=f"no generator is seeded anew with the same value at most steps (max_share={max_share:g})",
        limit=("max_share", max_share),
        looked_at=f"{counted(int(trace.of('seed').sum()), 'call of a seed', 'calls of a seed')}, "
        f"{counted(trace.n_steps, 'step')}",
        allowed=allowed,
    )


assert_no_sorted_labels = asserting(check_sorted_labels)
assert_no_reseeding = asserting(check_reseeding)


# -- sorted labels


def _tells(fact: Fact) -> bool:
    """Whether enough labels were seen, in batches large enough to be a mixture."""
    d = fact.details
    labels, looks = float(d.get("labels", 0)), float(d.get("looks", 0))
    enough = looks >= _LOOKS and d.get("labels_seen", 0) >= _CLASSES
    return enough and min(float(d.get("rows", 0)), labels / looks) >= _ROWS and float(d.get("entropy", 0)) > 0


def _mixture(fact: Fact) -> float:
    d = fact.details
    possible = min(float(d["entropy"]), math.log(float(d["labels"]) / float(d["looks"])))
    return float(d["batch_entropy"]) / possible


def _too_few(seen: list[Fact]) -> str:
    if not seen:
        return "no labels of a classification were seen"
    d = seen[0].details
    return (
        f"too few labels to judge their order: {int(d.get('labels_seen', 0))} of at least {_CLASSES} classes, "
        f"{int(d.get('looks', 0))} of at least {_LOOKS} batches, {int(d.get('rows', 0))} of at least {_ROWS} rows"
    )


def _sorted_finding(trace: Trace, fact: Fact, min_mixture: float, allowed: tuple[tuple[str, str], ...]) -> Finding:
    d = fact.details
    classes = math.exp(float(d["batch_entropy"]))
    return Finding(
        ok=False,
        headline=f"labels arrive sorted, not shuffled: a batch of '{fact.who}' has {number(_mixture(fact), 2)} of the entropy "
        f"of all labels (min_mixture={min_mixture:g}), about {number(classes, 2)} of {int(d['labels_seen'])} classes",
        culprit=fact.who,
        amount=_mixture(fact),
        limit=("min_mixture", min_mixture),
        step=0,
        table=Table(
            ("labels", "batches", "classes", "entropy (nats)"),
            (
                ("within a batch", int(d["looks"]), round(classes, 2), float(d["batch_entropy"])),
                ("all together", int(d["looks"]), int(d["labels_seen"]), float(d["entropy"])),
            ),
            culprit=0,
        ),
        shows="Most batches contain a single class: each step pulls the model towards the class of the moment, and it forgets "
        f"the others. {_same_order(trace)}".rstrip(),
        next_step="shuffle the training data (DataLoader(..., shuffle=True)), or permute it once before it is cut into batches",
        allowed=allowed,
    )


def _same_order(trace: Trace) -> str:
    """Say after how many batches the same ones come again in the same order, "" where they do not."""
    batches = trace.calls["digest"][trace.of("batch") & (trace.calls["grad"] == 1)]
    again = np.flatnonzero(batches[1:] == batches[0]) + 1 if batches.size else np.zeros(0, int)
    if not again.size or batches[0] == NO_DIGEST or again[0] < 2:
        return ""
    period = int(again[0])
    same = bool((batches[period:] == batches[:-period]).all())
    return f"The same {period:,} batches come in the same order in each pass." if same else ""


# -- seeds


def _repeated(trace: Trace) -> list[SeedCall]:
    """Return, for each line that seeds one generator always with the same value, one of its calls."""
    by_line: dict[tuple[str, str], set[str | None]] = {}
    for call in trace.seeds:
        by_line.setdefault((call.what, call.site), set()).add(call.value)
    first = {(c.what, c.site): c for c in reversed(trace.seeds)}
    # A generator of its own is made by default_rng; only the global ones are shared with what comes after.
    return [
        first[key] for key, values in by_line.items() if len(values) == 1 and None not in values and key[0] in _GLOBAL
    ]


_GLOBAL = ("torch.manual_seed", "numpy.random.seed", "random.seed")


def _share_of_steps(trace: Trace, call: SeedCall) -> float:
    """Return the share of steps whose training forward comes right after this line has seeded.

    Not meant: a seed for an evaluation (the next forward has no gradient), one that another line sets anew before training.
    """
    who = [i for i, n in enumerate(trace.names) if n == call.what]
    site = [i for i, s in enumerate(trace.sites) if s == call.site]
    seeds = np.flatnonzero(trace.of("seed") & np.isin(trace.calls["who"], who)).astype(np.int64)
    forward = at(trace, "forward")
    trained = forward[trace.calls["grad"][forward] == 1]
    last, before = last_before(trained, seeds), last_before(trained, forward)
    mine = (last > before) & np.isin(trace.calls["site"][np.maximum(last, 0)], site)
    return float(np.unique(trace.calls["step"][trained[mine]]).size / max(trace.n_steps, 1))


def _same_again(trace: Trace, call: SeedCall) -> str:
    """Say what comes again at each step because of it, "" where nothing shows."""
    tracked = trace.of("batch") & (trace.calls["grad"] == 1)
    batches = trace.calls["digest"][tracked]
    known = batches[batches != NO_DIGEST]
    distinct = np.unique(known).size
    if known.size >= 10 and distinct <= 0.1 * known.size and distinct <= 2:
        only = "are one and the same" if distinct == 1 else f"are only {distinct} different ones"
        return f"The {counted(known.size, 'training batch', 'training batches')} {only}."
    states = trace.digests[_STATES[call.what]]
    states = states[states != NO_DIGEST][1:]  # the first comes before the loop has seeded, perhaps
    if states.size >= 5 and np.unique(states).size == 1 and _draws(trace, call):
        return f"The random state before the forward is the same in {counted(states.size, 'sampled step')}."
    return ""


_STATES = {"torch.manual_seed": "torch", "numpy.random.seed": "numpy", "random.seed": "python"}


def _draws(trace: Trace, call: SeedCall) -> bool:
    """Whether the training itself draws random numbers from that generator, as far as its layers tell."""
    return call.what == "torch.manual_seed" and any("Dropout" in m.kind for m in trace.modules)


def _reseeded(
    trace: Trace, call: SeedCall, share: float, shown: str, max_share: float, allowed: tuple[tuple[str, str], ...]
) -> Finding:
    return Finding(
        ok=False,
        headline=f"{call.what}({call.value}) is called again before {share:.0%} of steps{at_site(call.site)} "
        f"(max_share={max_share:g}): each draws the same random numbers",
        culprit=call.what,
        amount=share,
        limit=("max_share", max_share),
        step=0,
        shows=f"{shown} What is drawn after that call, batches, noise or dropout, is no sample any more.",
        next_step="seed once, before the loop",
        allowed=allowed,
    )
