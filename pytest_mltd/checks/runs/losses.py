"""Questions about the losses of a recorded run: divergence, spike, plateau."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.constant_answers import Baseline, constant_answer, gain_over
from pytest_mltd.checks.runs.curves import (
    Curve,
    curves,
    moving_target,
    no_training,
    too_short,
    trailing_high,
)
from pytest_mltd.checks.runs.places import counted, listed, middle
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace


@check("run", explains=("losses.loss_spike", "losses.plateau"), rank=60)
def check_loss_divergence(
    run: Any, *, max_rise: float = 10.0, min_steps: int = 20, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether a training loss ended far above the level at which it began.

    Not asked where the loss may honestly rise, because what it is measured against moves (networks that train against each
    other, target networks), unless it ends beyond a thousand times the limit.

    Args:
        run: a recording, a run or a trace.
        max_rise: the highest ratio of the last level (median of the last twentieth) to the first (a guess; an annealed
            regulariser in tests/faulty raises a healthy loss less than three times).
        min_steps: the fewest steps that are needed, where the loss stays finite; a guess.
        allow: reasons by loss stream.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_rise`` is not above 1.
    """
    trace = as_trace(run)
    if not max_rise > 1:
        raise ValueError(f"max_rise: a ratio above 1 is needed, not {max_rise!r}")
    if reason := no_training(trace):
        return not_asked(reason)
    judged, allowed, reason = _to_judge(trace, allow, min_steps)
    if (sinking := _sinking(trace, allow, max_rise)) is not None:
        return _divergence_finding(*sinking, max_rise, allowed)
    if not judged:
        return not_asked(reason)
    moving = moving_target(trace)
    limit = max_rise * 1000 if moving else max_rise
    rises = [(_rise(c), c) for c in judged]
    worst, curve = max(rises, key=lambda pair: pair[0])
    if not worst <= limit:
        return _divergence_finding(curve, worst, max_rise, allowed)
    if moving:
        return not_asked(f"losses may honestly rise here: {moving}")
    return Finding(
        ok=True,
        headline=f"losses end at {number(worst)} times their first level or less (max_rise={max_rise:g})",
        amount=worst,
        limit=("max_rise", max_rise),
        looked_at=_looked(judged),
        allowed=allowed,
    )


@check("run", rank=65)
def check_loss_spike(
    run: Any,
    *,
    max_rise: float = 3.0,
    max_outlier: float = 1000.0,
    min_steps: int = 30,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a training loss jumped far above everything it had been, and stayed up for some steps.

    A spike rises above ``max_rise`` times both the first level and the second highest of the 25 steps before, and leaves the
    five steps after its peak at twice their median, and half the first level, or more: the weights were damaged. One hard
    batch that the net shrugs off is no spike, nor is a new task or schedule that begins no higher than the net began, nor a
    loss that is lifted in one step, with no large step of the optimizer before, and stays: a term joined it, or other data.
    A batch that no hardness explains (a code for missing among the labels, an input left unscaled) is one even when clipping
    saved the weights: ``max_outlier`` times those levels.

    Args:
        run: a recording, a run or a trace.
        max_rise: the highest ratio to those levels (llm-foundry takes 2 times the mean, five steps in a row).
        max_outlier: the highest ratio to those levels for one step without an aftermath (a guess; measured on 220 healthy
            programs and mended twins of tests/faulty, a curriculum of hard batches reaches 176 times, the next 8).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by loss stream.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_rise`` is not above 1.
    """
    trace = as_trace(run)
    if not max_rise > 1:
        raise ValueError(f"max_rise: a ratio above 1 is needed, not {max_rise!r}")
    if not max_outlier >= max_rise:
        raise ValueError(f"max_outlier: a ratio of max_rise or more is needed, not {max_outlier!r}")
    if reason := no_training(trace):
        return not_asked(reason)
    judged, allowed, reason = _to_judge(trace, allow, min_steps, finite=True)
    if not judged:
        return not_asked(reason)
    if moving := moving_target(trace):
        return not_asked(f"losses may honestly jump here: {moving}")
    found = [(_spikes(trace, c, max_rise, max_outlier), c) for c in judged]
    spikes = [(s, c) for (s, _), c in found if s]
    if spikes:
        return _spike_finding(*min(spikes, key=lambda pair: pair[0][0].step), (max_rise, max_outlier), allowed)
    highest = max(h for (_, h), _ in found)
    return Finding(
        ok=True,
        headline=f"no step leaves the loss damaged: peaks with an aftermath reach {number(highest)} times the "
        "level before "
        f"(max_rise={max_rise:g})",
        amount=highest,
        limit=("max_rise", max_rise),
        looked_at=_looked(judged),
        allowed=allowed,
    )


@check("run", rank=70)
def check_plateau(
    run: Any, *, min_gain: float = 0.03, min_steps: int = 100, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether the net never learned: the loss stays at what a constant answer would give.

    The level of a constant answer is known where torch's own loss functions were used (the entropy of the labels, the spread of
    the targets). Elsewhere the loss is held against its own start, and only for a net that begins with torch's default
    weights: a loaded or pretrained one may begin at its floor. A floor that was reached by learning is no plateau.

    Args:
        run: a recording, a run or a trace.
        min_gain: the smallest share of that level that must be gained (a guess; healthy programs of tests/faulty gain
            0.2 or more).
        min_steps: the fewest steps that are needed, five times as many for a run that was cut or whose loss began above three
            times that level (a guess; warm-up and slow beginnings last about that long).
        allow: reasons by loss stream.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``min_gain`` is no share.
    """
    trace = as_trace(run)
    if not 0 < min_gain < 1:
        raise ValueError(f"min_gain: a share between 0 and 1 is needed, not {min_gain!r}")
    if reason := no_training(trace):
        return not_asked(reason)
    judged, allowed, reason = _to_judge(trace, allow, min_steps * (5 if trace.cut else 1), finite=True)
    if not judged:
        return not_asked(reason)
    if moving := moving_target(trace):
        return not_asked(f"a flat loss may be a balance here: {moving}")
    asked = [(c, base) for c in judged if (base := constant_answer(trace, c)) is not None]
    if not asked:
        return not_asked(
            "what a constant answer would give is not known for this loss, and the weights did not begin fresh"
        )
    asked = [(c, base) for c, base in asked if c.start <= 3 * base.level or c.finite.size >= 5 * min_steps]
    if not asked:
        return not_asked(f"the loss first had to fall to that level: {too_short(trace, trace.busiest, 5 * min_steps)}")
    gains = [(gain_over(c, base.level), c, base) for c, base in asked]
    gain, curve, base = min(gains, key=lambda entry: entry[0])
    if gain < min_gain:
        return _plateau_finding(curve, base, gain, min_gain, allowed)
    return Finding(
        ok=True,
        headline=f"losses came down by {gain:.0%} of {base.words} or more (min_gain={min_gain:g})",
        amount=gain,
        limit=("min_gain", min_gain),
        looked_at=_looked([c for c, _ in asked]),
        allowed=allowed,
    )


assert_no_loss_divergence = asserting(check_loss_divergence)
assert_no_loss_spike = asserting(check_loss_spike)
assert_no_plateau = asserting(check_plateau)


def _to_judge(
    trace: Trace, allow: Mapping[str, str] | None, min_steps: int, *, finite: bool = False
) -> tuple[list[Curve], tuple[tuple[str, str], ...], str]:
    """Return the curves that can be judged, what was allowed, and why there is none. ``finite``: only finite
    values count."""
    everything = curves(trace)
    kept, allowed = sift(allow, [c.name for c in everything])
    usable = [c for c in everything if c.name in set(kept) and c.finite.size]
    if not usable:
        return [], allowed, "no loss was finite" if everything else "no loss was recorded: backward was never called"
    plain = [c for c in usable if not c.signed]
    if not plain:
        return (
            [],
            allowed,
            f"the loss of {listed([c.name for c in usable])} changes sign: it has no level to compare with",
        )
    sizes = [c.finite.size if finite else c.step.size for c in plain]
    long = [c for c, size in zip(plain, sizes, strict=True) if size >= min_steps]
    what = "finite steps" if finite and max(c.step.size for c in plain) >= min_steps else "steps"
    return long, allowed, too_short(trace, max(sizes), min_steps, what)


def _looked(judged: list[Curve]) -> str:
    return ", ".join(f"{counted(c.step.size, 'value')} of {c.name}" for c in judged[:5])


def _rise(curve: Curve) -> float:
    """Return the last level over the first; before a value that is not finite, the highest of the last three counts."""
    ended_finite = curve.finite.size == curve.value.size
    late = curve.late if ended_finite else float(curve.finite[-3:].max())
    return late / max(curve.start, 1e-300)


def _sinking(trace: Trace, allow: Mapping[str, str] | None, max_rise: float) -> tuple[Curve, float] | None:
    """Return a loss that runs to minus infinity: a thousand times the limit below zero, seen from where it began."""
    if moving_target(trace):
        return None
    kept, _ = sift(allow, [c.name for c in curves(trace)])
    for curve in curves(trace):
        first = (
            float(np.abs(curve.finite[: max(5, curve.finite.size // 20)]).max())
            if curve.finite.size >= 20
            else math.inf
        )
        if curve.name in kept and curve.late < -100 * max_rise * first:
            return curve, -curve.late / first
    return None


def _divergence_finding(curve: Curve, rise: float, max_rise: float, allowed: tuple[tuple[str, str], ...]) -> Finding:
    v = curve.finite
    size, level = np.abs(v), max_rise * abs(curve.start)
    over, below = np.flatnonzero(size > level), np.flatnonzero(size <= level)
    lasting = over[0] if over.size else v.size - 1
    if over.size and below.size and below[-1] + 1 < v.size:
        lasting = below[-1] + 1
    step = int(curve.step[lasting])
    end = "" if v.size == curve.value.size else f", and is not finite from step {int(curve.step[v.size])} on"
    late = curve.late if not end else float(v[-3:].max())
    shown = np.unique(np.linspace(0, v.size - 1, min(8, v.size)).astype(int))
    return Finding(
        ok=False,
        headline=f"the loss of '{curve.name}' diverges: from {number(curve.start)} at the start to {number(late)}, "
        f"{number(rise)} times (max_rise={max_rise:g}){end}",
        culprit=curve.name,
        amount=rise,
        limit=("max_rise", max_rise),
        step=step,
        table=Table(("step", "loss"), tuple((int(curve.step[i]), float(v[i])) for i in shown), culprit=len(shown) - 1),
        shows=f"It stays above {max_rise:g} times its first level from step {step} on: the steps lead away from a "
        "minimum.",
        next_step="try a tenth of the learning rate; if it still rises, look at the batch and the gradients just "
        "before "
        f"step {step}",
        allowed=allowed,
    )


@dataclass(frozen=True, slots=True)
class _Spike:
    step: int
    peak: float
    before: float
    lasted: int
    index: int
    lone: bool = False  # one step high, with no aftermath: the batch, not the weights


def _spikes(trace: Trace, curve: Curve, max_rise: float, max_outlier: float) -> tuple[list[_Spike], float]:
    """Return the spikes, and the highest ratio that any peak with an aftermath reached."""
    v = curve.finite
    if v.size < 12:
        return [], 1.0
    level = np.fmax(trailing_high(v), curve.start)
    level[: 25 if curve.noisy else 5] = math.inf  # a few values of a noisy loss are no level
    ratio = v / level
    found: list[_Spike] = []
    highest = 1.0
    skip = -1
    for i in np.flatnonzero(ratio > 1.2):
        if i <= skip:
            continue
        until = min(i + 10, v.size)
        peak = int(i + np.argmax(v[i:until]))
        before = float(np.median(v[max(0, i - 25) : i]))
        after = v[peak + 1 : peak + 6]
        if after.size < 3 or float(np.median(after)) < max(2 * before, 0.5 * curve.start):
            if v[peak] > max_outlier * level[i]:
                found.append(_Spike(int(curve.step[peak]), float(v[peak]), before, 1, peak, lone=True))
                break
            continue
        skip = peak + 5
        if _another_objective(trace, curve, int(i), peak, before):
            skip = peak + 25  # until the median of the steps before has followed
            continue
        highest = max(highest, float(v[peak] / level[i]))
        if v[peak] > max_rise * level[i]:
            back = np.flatnonzero(v[peak:] < 1.5 * before)
            found.append(
                _Spike(int(curve.step[i]), float(v[peak]), before, int(back[0]) if back.size else v.size - peak, int(i))
            )
            break
    return found, highest


def _another_objective(trace: Trace, curve: Curve, onset: int, peak: int, before: float) -> bool:
    """Whether the loss jumped in one step, stayed, and no large step came before: it measures something else from there on.

    Weights change a loss only through a step. A term that joins, or other data, lift it without one, and later losses stay near
    the first lifted one; an outlying batch does not.
    """
    v = curve.finite
    lifted = onset + int(np.argmax(v[onset : peak + 1] > 2 * before))
    stayed = float(np.median(v[lifted + 1 : lifted + 6])) > v[lifted] / 3
    if v[peak] > 2 * v[lifted] or not stayed:
        return False
    at = int(curve.step[lifted]) - 1
    if not 0 < at < trace.n_steps:
        return False
    push = trace.steps["lr"][: at + 1] * trace.steps["grad_norm_used"][: at + 1]
    usual = middle(push[-26:-1])
    return bool(push[-1] < 5 * usual)


def _spike_finding(
    spikes: list[_Spike], curve: Curve, limits: tuple[float, float], allowed: tuple[tuple[str, str], ...]
) -> Finding:
    spike = spikes[0]
    level = max(spike.before, curve.start)
    v = curve.finite
    shown = range(max(0, spike.index - 2), min(v.size, spike.index + 6))
    name, limit = ("max_outlier", limits[1]) if spike.lone else ("max_rise", limits[0])
    shows, next_step = _about_batch(spike) if spike.lone else _about_weights(spike, v.size)
    return Finding(
        ok=False,
        headline=f"the loss of '{curve.name}' spikes at step {spike.step}: from {number(spike.before)} to "
        f"{number(spike.peak)}, {number(spike.peak / level)} times its highest level before ({name}={limit:g})",
        culprit=curve.name,
        amount=spike.peak / level,
        limit=(name, limit),
        step=spike.step,
        table=Table(
            ("step", "loss"), tuple((int(curve.step[i]), float(v[i])) for i in shown), culprit=spike.index - shown[0]
        ),
        shows=shows,
        next_step=next_step,
        allowed=allowed,
    )


def _about_batch(spike: _Spike) -> tuple[str, str]:
    shows = (
        "The losses before and after are of the usual size: it comes from the batch of that step, not from the weights."
    )
    next_step = (
        f"look at the inputs and labels of the batch of step {spike.step}: a code for missing such as -9999, an input "
    )
    return shows, next_step + "that was not scaled, another unit"


def _about_weights(spike: _Spike, length: int) -> tuple[str, str]:
    back = "It does not come back to that level"
    if spike.index + spike.lasted < length - 1:
        back = f"It takes {counted(spike.lasted, 'step')} to come back to that level"
    next_step = f"look at the batch and the learning rate of step {max(0, spike.step - 1)} and {spike.step}; "
    return (
        f"{back}: the step damaged the weights, it was not one hard batch only.",
        next_step + "clipping the gradient norm bounds what one batch can do",
    )


def _plateau_finding(
    curve: Curve, base: Baseline, gain: float, min_gain: float, allowed: tuple[tuple[str, str], ...]
) -> Finding:
    v = curve.finite
    shown = np.unique(np.linspace(0, v.size - 1, 6).astype(int))
    gained = f"within {max(gain, 0):.1%} of" if gain >= 0 else f"{-gain:.0%} above"
    return Finding(
        ok=False,
        headline=f"the loss of '{curve.name}' stays on a plateau for {counted(curve.step.size, 'step')}: it ends at "
        f"{number(curve.late)}, {gained} {base.words} (min_gain={min_gain:g})",
        culprit=curve.name,
        amount=gain,
        limit=("min_gain", min_gain),
        table=Table(("step", "loss"), tuple((int(curve.step[i]), float(v[i])) for i in shown), culprit=len(shown) - 1),
        shows=f"{base.shows}: the net is not learning.",
        next_step="check that inputs and labels still belong together, then overfit one small batch: it should go "
        "to zero",
        allowed=allowed,
    )
