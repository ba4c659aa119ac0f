"""Questions about nets that give up: one answer for every sample, a discriminator that leaves nothing to learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, Floats, curves, no_steps, no_training, too_short
from pytest_mltd.checks.runs.places import counted, not_recorded, root_of, stepping
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace


@check("run", explains=("losses.plateau", "gradients.vanishing"), rank=33, family="activations")
def check_collapsed_batch(
    run: Any, *, min_spread: float = 0.01, min_steps: int = 50, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether a net came to give every sample of a batch the same output.

    The spread between the samples is held against the size of the output, and against what it was in the first steps: a net
    that begins with zeros has no spread to lose. A layer inside it has to tell the samples apart still: else they are alike
    themselves. Generators that know one answer, representations that fell to a point, nets that no longer look at their
    inputs.

    Args:
        run: a recording, a run or a trace.
        min_spread: the lowest ratio of the standard deviation between samples to the RMS of the output, in the later half of
            the run, where it also fell tenfold (a guess; healthy programs of tests/faulty stay above 0.03).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by module.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    for name, value in (("min_spread", min_spread), ("min_steps", min_steps)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    reason = no_steps(trace) or not_recorded(trace, "outputs of modules", "outputs")
    if reason or (reason := too_short(trace, trace.busiest, min_steps)):
        return not_asked(reason)
    roots = {m.name: i for i, m in enumerate(trace.modules) if m.root}
    kept, allowed = sift(allow, roots)
    measured = {name: seen for name in kept if (seen := _alikeness(trace, roots[name]))[0].size >= 6}
    if not measured:
        return not_asked("no output of a whole net was seen six times, with four rows or more and numbers above zero")
    levels = {n: (float(np.median(s[:3])), float(np.median(s[s.size // 2 :]))) for n, (_, s) in measured.items()}
    low = [n for n, (early, late) in levels.items() if late < min_spread and late < 0.1 * early]
    fallen = [n for n in low if _told_apart_inside(trace, n)]
    if fallen:
        name = min(fallen, key=lambda n: levels[n][1])
        return _collapsed_finding(name, *measured[name], levels[name], min_spread, allowed)
    lowest = min(late for _, late in levels.values())
    return Finding(
        ok=True,
        headline=f"outputs differ between samples by {number(lowest)} of their size or more, or always were alike "
        f"(min_spread={min_spread:g})",
        amount=lowest,
        limit=("min_spread", min_spread),
        looked_at=f"the outputs of {counted(len(levels), 'net')}",
        allowed=allowed,
    )


@check("run", explains=("gradients.vanishing",), rank=68, family="losses")
def check_discriminator_won(
    run: Any,
    *,
    min_share: float = 0.05,
    max_rise: float = 3.0,
    min_gradient: float = 1e-3,
    min_steps: int = 100,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether one of two nets that train against each other has won: the other has nothing left to learn from.

    Asked of two losses stepped by two optimizers, where both are made of binary cross entropies, or one is that of a net that
    judges two kinds of samples in its own steps and, in the other's, what the other made. In a balance both stay near their
    start (ln 2 a term); won is won where, over the later half, one is all but zero and the other far above its start, or worse
    than there with no gradient left (a generator that minimises log(1 - D) ends so).

    Args:
        run: a recording, a run or a trace.
        min_share: the lowest share of its start at which the winner's loss may lie (a guess; balanced programs of tests/faulty
            stay above 0.2, also on the way).
        max_rise: the highest ratio of the loser's loss to its start; a guess, likewise.
        min_gradient: the lowest share of its first gradients that the loser may keep (a guess; balanced programs of
            tests/faulty keep 0.01 or more).
        min_steps: the fewest steps of each that are needed; a guess.
        allow: reasons by loss stream of the winner.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive, or ``max_rise`` not above 1.
    """
    trace = as_trace(run)
    for name, value in (("min_share", min_share), ("min_gradient", min_gradient), ("min_steps", min_steps)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    if not max_rise > 1:
        raise ValueError(f"max_rise: a ratio above 1 is needed, not {max_rise!r}")
    if reason := no_training(trace):
        return not_asked(reason)
    duels = _duels(trace)
    if not duels or len(stepping(trace)) < 2:
        return no_occasion(
            "there are no two losses, stepped by two optimizers, of binary cross entropies or of a net that judges another's"
        )
    duels = [(c, other) for c, other in duels if min(c.step.size, other.step.size) >= min_steps]
    if not duels:
        return not_asked(f"a loss has fewer than {min_steps} steps")
    kept, allowed = sift(allow, list(dict.fromkeys(c.name for c, _ in duels)))
    won = [(c, other) for c, other in duels if c.name in set(kept) and _held(c) < min_share]
    for winner, loser in sorted(won, key=lambda pair: _held(pair[0])):
        if lost := _lost(trace, loser, max_rise, min_gradient):
            return _won_finding(winner, loser, lost, min_share, allowed)
    lowest = min(_held(c) for c, _ in duels)
    return Finding(
        ok=True,
        headline=f"neither has won: the lower loss holds {number(lowest)} of its start (min_share={min_share:g})",
        amount=lowest,
        limit=("min_share", min_share),
        looked_at=", ".join(dict.fromkeys(f"{counted(c.step.size, 'value')} of {c.name}" for c, _ in duels[:5])),
        allowed=allowed,
    )


assert_no_collapsed_batch = asserting(check_collapsed_batch)
assert_no_discriminator_won = asserting(check_discriminator_won)


def _alikeness(trace: Trace, index: int) -> tuple[Any, Floats]:
    """Return the sampled steps at which a module's output was above zero, and the spread between samples over its
    size."""
    mean, std, across = (trace.outputs[c][:, index].astype(np.float64) for c in ("mean", "std", "across"))
    size = np.hypot(mean, std)
    at = np.flatnonzero(np.isfinite(across) & (size > 0))
    return trace.outputs["step"][at], np.asarray(across[at] / size[at], dtype=np.float64)


def _told_apart_inside(trace: Trace, root: str) -> bool:
    """Whether the outputs of a layer of the net still differ by a tenth between samples, in the later half of the
    run."""
    layers = [i for i, m in enumerate(trace.modules) if not m.root and m.kind.startswith(("Linear", "Conv"))]
    inside = (_alikeness(trace, i)[1] for i in layers if root_of(trace, trace.modules[i].name) == root)
    return any(s.size >= 6 and float(np.median(s[s.size // 2 :])) > 0.1 for s in inside)


def _collapsed_finding(
    name: str,
    steps: Any,
    spread: Floats,
    levels: tuple[float, float],
    min_spread: float,
    allowed: tuple[tuple[str, str], ...],
) -> Finding:
    early, late = levels
    over = np.flatnonzero(spread >= min(min_spread, 0.1 * early))
    first = min(int(over[-1]) + 1 if over.size else 0, spread.size - 1)
    shown = np.unique([*np.linspace(0, spread.size - 1, min(6, spread.size)).astype(int), first])
    return Finding(
        ok=False,
        headline=f"'{name}' gives all samples of a batch the same output from step {int(steps[first])} on: they "
        "differ by "
        f"{number(late, 2)} of its size, after {number(early, 2)} at the start (min_spread={min_spread:g})",
        culprit=name,
        amount=late,
        limit=("min_spread", min_spread),
        step=int(steps[first]),
        table=Table(
            ("step", "difference between samples"),
            tuple((int(steps[i]), float(spread[i])) for i in shown),
            culprit=int(np.searchsorted(shown, first)),
        ),
        shows="It no longer looks at its inputs: the outputs have collapsed to a constant.",
        next_step="look for what rewards one answer: a loss without a term that holds samples apart (negatives, "
        "stop-gradient, "
        "variance), units that are all off, a step too long",
        allowed=allowed,
    )


def _duels(trace: Trace) -> list[tuple[Curve, Curve]]:
    """Return the losses that can be won, each with one that would be lost."""
    told = {f.who for f in trace.facts if f.kind in ("term", "targets") and "binary" in str(f.details.get("loss"))}
    found = [c for c in curves(trace) if c.step.size and c.finite.size == c.value.size]
    return [
        (c, other)
        for c in found
        for other in found
        if c is not other
        and not c.signed
        and ((c.name in told and other.name in told and not other.signed) or _judges(trace, c, other))
    ]


def _judges(trace: Trace, judge: Curve, maker: Curve) -> bool:
    """Whether one loss trains a net that looks at two kinds of samples a step, and is given, in the other's, what that made.

    A critic of actor and critic looks at one kind of its own; an advantage is computed without it.
    """
    own, others = _owners(trace, judge), _owners(trace, maker)
    if own & others:
        return False
    for root in (m.name for m in trace.modules if m.root):
        held = {o for p in trace.parameters if root_of(trace, p.name) == root for o in p.optimizers}
        if not held or not held <= own:
            continue
        called = np.isin(trace.calls["who"], [i for i, n in enumerate(trace.names) if n == root])
        tracked = called & (trace.calls["grad"] == 1)
        given = tracked & trace.of("batch")
        at_home, abroad = (np.isin(trace.calls["step"], c.step) for c in (judge, maker))
        fed = int((tracked & trace.of("forward") & abroad).sum()) >= 0.9 * maker.step.size
        if fed and (given & abroad).sum() <= 0.1 * maker.step.size and (given & at_home).sum() >= 1.5 * judge.step.size:
            return True
    return False


def _owners(trace: Trace, curve: Curve) -> set[int]:
    return {int(i) for i in np.unique(trace.steps["optimizer"][curve.step[curve.step < trace.n_steps]])}


def _lost(trace: Trace, loser: Curve, max_rise: float, min_gradient: float) -> str:
    """Say in what a loss is lost over the later half of the run, or return ""."""
    if not loser.signed and _held(loser) > max_rise:
        return f"that of '{loser.name}' stands at {number(_held(loser), 2)} times its own"
    at = loser.step[loser.step < trace.n_steps]
    norms = trace.steps["grad_norm_used"][at].astype(np.float64)
    norms = norms[np.isfinite(norms)]
    if norms.size < 10 or not float(np.median(loser.value[loser.value.size // 2 :])) > loser.value[0]:
        return ""
    left = float(np.median(norms[norms.size // 2 :])) / max(float(np.median(norms[:5])), 1e-300)
    if left >= min_gradient:
        return ""
    return f"the gradient of '{loser.name}' vanishes: {number(left, 2)} of its first is left (min_gradient={min_gradient:g})"


def _held(curve: Curve) -> float:
    """Return the level over the later half of the run, as a share of the start."""
    half = curve.value[curve.value.size // 2 :]
    return float(np.median(half)) / curve.start if curve.start > 0 else math.nan


def _won_finding(
    winner: Curve, loser: Curve, lost: str, min_share: float, allowed: tuple[tuple[str, str], ...]
) -> Finding:
    shown = np.unique(np.linspace(0, min(winner.step.size, loser.step.size) - 1, 6).astype(int))
    low = np.flatnonzero(winner.value >= min_share * winner.start)
    step = int(winner.step[min(int(low[-1]) + 1 if low.size else 0, winner.step.size - 1)])
    return Finding(
        ok=False,
        headline=f"the loss of '{winner.name}' has won: it holds {number(_held(winner), 2)} of its start "
        f"(min_share={min_share:g}), while {lost}",
        culprit=winner.name,
        amount=_held(winner),
        limit=("min_share", min_share),
        step=step,
        table=Table(
            ("step", winner.name, loser.name),
            tuple((int(winner.step[i]), float(winner.value[i]), float(loser.value[i])) for i in shown),
            culprit=len(shown) - 1,
        ),
        shows="The discriminator tells every sample without a doubt: its gradient tells the generator next to nothing.",
        next_step="lower the winner's learning rate or raise the loser's, step the winner less often, smooth its "
        "labels",
        allowed=allowed,
    )
