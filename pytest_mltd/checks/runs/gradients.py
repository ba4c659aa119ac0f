"""Questions about the gradients of a recorded run: not finite, exploding, vanishing, left over from the step before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, Floats, curves, no_steps, no_training, too_short, trailing_median
from pytest_mltd.checks.runs.places import (
    at_site,
    counted,
    held_by,
    listed,
    norm_rows,
    not_recorded,
    optimizer_label,
    site_of,
    stepping,
)
from pytest_mltd.checks.runs.scales import first_gradient
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Fact, Trace, as_trace


@check("run", explains=("*",), rank=30)
def check_nonfinite(run: Any, *, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether a loss or a gradient that an optimizer used was NaN or infinite.

    What a guard kept from the weights does not count: a step that a GradScaler skipped, a batch left out before the step, an
    optimizer that declines (later steps and weights are finite then).

    Args:
        run: a recording, a run or a trace.
        allow: reasons by place (a loss stream, parameter or module).

    Raises:
        TypeError: ``run`` is no recorded run.
    """
    trace = as_trace(run)
    if reason := no_training(trace):
        return not_asked(reason)
    step = _first_nonfinite(trace)
    if step is None:
        counts = f"{counted(trace.n_steps, 'step')}, {counted(trace.losses['step'].size, 'loss', 'losses')}"
        return Finding(ok=True, headline=f"all losses and gradients are finite ({counts})", looked_at=counts)
    return _nonfinite_finding(trace, step)


@check("run", explains=("losses.*", "gradients.nonfinite", "gradients.vanishing", "updates.update_scale"), rank=25)
def check_explosion(
    run: Any, *, max_growth: float = 50.0, warmup: int = 5, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether a gradient, as the step used it, left its own level far behind and did harm.

    The norm over all parameters is held against the lower of its early level and the median of the 25 steps before, so that a
    regression that starts with huge gradients is measured by what it came down to. Harm means that the losses after the
    jump are no longer finite, or three times what they were. Gradients that clipping cut down count as cut. Where steps follow
    the gradient (plain SGD), a first gradient far larger than the weights themselves is an explosion as well, if it harms.

    Args:
        run: a recording, a run or a trace.
        max_growth: the highest ratio of the norm to its own level (AutoTrainer, ICSE 2021, takes 70 between layers; healthy
            programs of tests/faulty stay under 30 where the loss is harmed too).
        warmup: steps whose median is the early level, and the fewest that are needed; a guess.
        allow: reasons by parameter.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    _positive(max_growth=max_growth, warmup=warmup)
    if reason := no_steps(trace) or too_short(trace, trace.busiest, warmup + 1):
        return not_asked(reason)
    if not np.isfinite(trace.steps["grad_norm_used"]).any():
        return not_asked(not_recorded(trace, "gradient norms", "parameter_norms") or "no gradient norm is known")
    worst, failed = 1.0, []
    for optimizer in stepping(trace):
        if (finding := _explodes_at_once(trace, optimizer, max_growth)) is not None:
            return finding
        growth, onset, passed = _explosion(trace, optimizer, max_growth, warmup)
        worst = max(worst, growth)
        if onset is not None:
            failed.append((onset, passed, growth, optimizer))
    looked = f"{counted(trace.n_steps, 'step')} of {listed([optimizer_label(trace, i) for i in stepping(trace)])}"
    if not failed:
        return Finding(
            ok=True,
            headline=f"gradient norms stay within {number(worst)} times their own level where the loss suffers "
            f"(max_growth={max_growth:g})",
            amount=worst,
            limit=("max_growth", max_growth),
            looked_at=looked,
        )
    onset, passed, growth, optimizer = min(failed)
    return _explosion_finding(trace, onset, passed, growth, optimizer, max_growth)


@check("run", explains=("losses.plateau",), rank=35)
def check_vanishing(
    run: Any, *, min_ratio: float = 1e-4, min_steps: int = 20, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether the gradient dies on its way to the first layers while the loss is still high.

    A layer is held against the net's other layers (weights of two or more axes; biases before a normalisation have no gradient
    by construction) and the net against its own early steps. A loss that has come down to a fifth of its start is
    allowed small gradients.

    Args:
        run: a recording, a run or a trace.
        min_ratio: the lowest ratio of the first layer's gradient, relative to its weights, to the largest of the others
            (AutoTrainer, ICSE 2021, takes 1e-3 together with an absolute floor; a tenth of it here instead of the floor).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by parameter.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    _positive(min_ratio=min_ratio, min_steps=min_steps)
    if reason := no_steps(trace) or not_recorded(trace, "gradients by parameter", "parameter_norms"):
        return not_asked(reason)
    if reason := too_short(trace, trace.busiest, min_steps):
        return not_asked(reason)
    looked: list[str] = []
    lowest = math.inf
    allowed: tuple[tuple[str, str], ...] = ()
    for optimizer in stepping(trace):
        columns = [i for i in held_by(trace, optimizer) if len(trace.parameters[i].shape) >= 2]
        kept, allowed = sift(allow, [trace.parameters[i].name for i in columns])
        columns = [i for i in columns if trace.parameters[i].name in set(kept)]
        finding, ratio = _vanishing(trace, optimizer, np.array(columns, np.int64), min_ratio, min_steps)
        if finding is not None:
            return finding
        lowest = min(lowest, ratio)
        looked.append(f"{counted(len(columns), 'weight')} of {optimizer_label(trace, optimizer)}")
    measured = "" if math.isinf(lowest) else f": the first layer's is at least {number(lowest)} of the largest"
    return Finding(
        ok=True,
        headline=f"gradients reach the first layers{measured} (min_ratio={min_ratio:g})",
        amount=None if math.isinf(lowest) else lowest,
        limit=("min_ratio", min_ratio),
        looked_at=", ".join(looked),
        allowed=allowed,
    )


@check(
    "run",
    explains=(
        "losses.*",
        "gradients.explosion",
        "gradients.nonfinite",
        "gradients.vanishing",
        "updates.update_scale",
    ),
    rank=10,
)
def check_stale_gradients(run: Any, *, max_share: float = 0.05, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether an optimizer stepped on gradients that were left over from before its last step and grew.

    That is a missing, misplaced or wrongly addressed `zero_grad`. Accumulation is not: its gradients grow between two steps,
    and are cleared after each.

    Args:
        run: a recording, a run or a trace.
        max_share: the highest share of an optimizer's steps on such gradients (a missing call makes it all but 1.0; healthy
            programs measured in tests/faulty have 0, so a guess between).
        allow: reasons by optimizer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_share`` is no share.
    """
    trace = as_trace(run)
    if not 0 <= max_share < 1:
        raise ValueError(f"max_share: a share from 0 up to 1 is needed, not {max_share!r}")
    if reason := no_steps(trace) or too_short(trace, trace.busiest, 4):
        return not_asked(reason)
    if trace.level == "scalars":
        return not_asked("gradients were not recorded (level 'scalars')")
    worst, culprit = 0.0, -1
    for optimizer in stepping(trace):
        stale = trace.steps["stale"][trace.steps["optimizer"] == optimizer]
        share = float((stale > 0).mean())
        if share > worst and (stale > 0).sum() >= 3:
            worst, culprit = share, optimizer
    looked = f"{counted(trace.n_steps, 'step')} of {listed([optimizer_label(trace, i) for i in stepping(trace)])}"
    if worst <= max_share:
        return Finding(
            ok=True,
            headline=f"gradients are cleared between steps: {worst:.1%} of steps used old ones (max_share={max_share:g})",
            amount=worst,
            limit=("max_share", max_share),
            looked_at=looked,
        )
    return _stale_finding(trace, culprit, worst, max_share)


assert_no_nonfinite = asserting(check_nonfinite)
assert_no_explosion = asserting(check_explosion)
assert_no_vanishing = asserting(check_vanishing)
assert_no_stale_gradients = asserting(check_stale_gradients)


# -- nonfinite


def _first_nonfinite(trace: Trace) -> int | None:
    """Return the first step whose loss or used gradient is not finite, unless something kept it from the weights."""
    loss, owners = trace.steps["loss"], trace.steps["optimizer"]
    had_loss = trace.steps["backwards"] > 0
    bad = (trace.steps["nonfinite"] > 0) | (had_loss & ~np.isfinite(loss))
    if not trace.n_steps or trace.level == "scalars":
        values, at = trace.losses["value"], trace.losses["step"]
        wrong = np.flatnonzero(~np.isfinite(values))
        return int(at[wrong[0]]) if wrong.size else None
    if not bad.any():
        return None
    for optimizer in np.unique(owners[bad]):
        mine = np.flatnonzero(owners == optimizer)
        wrong = mine[bad[mine]]
        if wrong.size and not _recovered(trace, bad, mine, int(wrong[0])):
            return int(np.flatnonzero(bad & np.isin(owners, owners[wrong]))[0])
    return None


def _recovered(trace: Trace, bad: Any, mine: Any, first: int) -> bool:
    """Whether the steps after a bad one are good again, and the weights finite: the step was kept from them."""
    after = mine[mine > first]
    if after.size < 3 or bad[after[-3:]].any() or bad[mine].mean() > 0.1:
        return False
    later = trace.updates["step"] > first
    return bool(later.any() and np.isfinite(trace.updates["weight"][later]).all())


def _nonfinite_finding(trace: Trace, step: int) -> Finding:
    born = next((f for f in trace.facts if f.kind == "nonfinite" and f.step <= step + 1), None)
    curve = _curve_at(trace, step)
    value = trace.steps["loss"][step] if step < trace.n_steps else math.nan
    if trace.level == "scalars" or not trace.n_steps:
        value = trace.losses["value"][np.flatnonzero(trace.losses["step"] == step)[-1]]
    place, where = _birthplace(trace, step, born, bool(np.isfinite(value)), curve)
    if np.isfinite(value):
        what = f"the gradient of '{place}' is not finite from step {step} on, while the loss there is {number(value)}"
    else:
        what = f"the loss is {number(value)} from step {step} on{where}"
    before = curve.value[curve.step < step] if curve else np.zeros(0)
    before = before[np.isfinite(before)]
    if before.size and not np.isfinite(value):
        what += f"; the last finite one was {number(before[-1])}"
    return Finding(
        ok=False,
        headline=what,
        culprit=place,
        step=step,
        table=_steps_table(trace, step, curve),
        shows=_nonfinite_shows(before, bool(np.isfinite(value)), born),
        next_step=f"run step {step} under torch.autograd.set_detect_anomaly(True): it names the operation",
    )


def _birthplace(trace: Trace, step: int, born: Fact | None, loss_finite: bool, curve: Curve | None) -> tuple[str, str]:
    """Return the plain name of the place, and the words that say it after "from step n on"."""
    if born is not None and not loss_finite:
        operation = str(born.details.get("operation", "")).removesuffix("Backward0")
        site = str(born.details.get("site", ""))
        place = born.who or operation or "loss"
        made = f"made by {operation}" if operation and operation != place else "made"
        return place, f", {made} in '{place}'{at_site(site)}"
    if loss_finite:
        norms = trace.parameter_norms
        row = np.flatnonzero(norms["step"] == step)
        if row.size:
            wrong = np.flatnonzero(~np.isfinite(norms["grad_used"][row[0]]))
            if wrong.size:
                return trace.parameters[wrong[-1]].name, ""
        return "gradient", ""
    module = _first_bad_module(trace, step)
    if module:
        return module, f", first in the output of '{module}'"
    name = curve.name if curve else "loss"
    return name, f" in '{name}'" if curve else ""


def _first_bad_module(trace: Trace, step: int) -> str:
    row = np.flatnonzero(trace.outputs["step"] == step)
    if not row.size:
        return ""
    here = row[0]
    called = trace.outputs["rows"][here] >= 0
    finite = np.isfinite(trace.outputs["mean"][here]) & np.isfinite(trace.outputs["max"][here])
    wrong = np.flatnonzero(called & ~finite)
    return trace.modules[wrong[0]].name if wrong.size else ""


def _nonfinite_shows(before: Floats, loss_finite: bool, born: Fact | None) -> str:
    half = "float16" in str(born.details.get("dtype", "")) if born is not None else False
    if half:
        return "The operation ran in float16, which ends at 65,504: larger values overflow to inf there, and inf - inf is NaN."
    if loss_finite:
        return (
            "A finite loss has a gradient that is not: sqrt or norm at zero, a division or log behind "
            "torch.where, an overflow."
        )
    if before.size >= 4 and before[-1] > 10 * np.median(before):
        return f"The loss had grown from {number(float(np.median(before)))} before: it overflowed."
    if before.size:
        return "Losses were ordinary until then: one operation made it (log of zero, 0/0, an overflow), or the batch held it."
    return "The first loss already is: the inputs, the initial weights or the loss function hold it."


# -- explosion


def _explosion(trace: Trace, optimizer: int, max_growth: float, warmup: int) -> tuple[float, int | None, int]:
    """Return the highest harmful growth, and the steps at which the one beyond the limit began and passed it."""
    at = np.flatnonzero(trace.steps["optimizer"] == optimizer)
    norm = trace.steps["grad_norm_used"][at]
    bad = np.flatnonzero(~np.isfinite(norm))
    if bad.size:
        norm = norm[: bad[0]]
    if norm.size < warmup + 1:
        return 1.0, None, 0
    early = float(np.median(norm[:warmup]))
    level = np.fmin(np.fmax(trailing_median(norm), 1e-30), early)
    level[0] = math.inf
    with np.errstate(divide="ignore", over="ignore"):
        growth = np.where(level > 1e-12 * max(early, 1e-30), norm / np.fmax(level, 1e-30), 1.0)
    growth[:2] = np.minimum(growth[:2], 1.0)
    loss = trace.steps["loss"][at]
    candidates = np.flatnonzero(growth > min(max_growth, 4.0))
    highest = 1.0
    for i in candidates[_first_of_runs(candidates)][:200]:
        if not _harmed(loss, int(i)):
            continue
        peak = float(growth[i : i + 10].max())
        highest = max(highest, peak)
        over = np.flatnonzero(growth[i : i + 200] > max_growth)
        if over.size:
            onset = int(i)
            while (
                onset > 0 and growth[onset - 1] > 1.5
            ):  # it began where the norm left its level, not where it passed a limit
                onset -= 1
            return float(growth[i : i + 200].max()), int(at[onset]), int(at[i + over[0]])
    return highest, None, 0


def _explodes_at_once(trace: Trace, optimizer: int, max_growth: float) -> Finding | None:
    """Return the finding of a first gradient far larger than the weights, where steps follow it and the loss suffers."""
    ratio = first_gradient(trace, optimizer)
    mine = np.flatnonzero(trace.steps["optimizer"] == optimizer)
    loss = trace.steps["loss"][mine]
    after = loss[1:11]
    harmed = after.size and (not np.isfinite(after).all() or float(after[:3].max()) > 3 * abs(float(loss[0])))
    if not ratio > max_growth or not harmed:
        return None
    return _explosion_finding(
        trace, int(mine[0]), int(mine[0]), ratio, optimizer, max_growth, "the norm of the weights, at once"
    )


def _first_of_runs(indexes: Any) -> Any:
    return np.concatenate([[True], np.diff(indexes) > 10]) if indexes.size else np.zeros(0, bool)


def _harmed(loss: Floats, at: int) -> bool:
    """Whether the losses after a step are not finite, or three times what they were, and no mere wiggle near zero."""
    before = loss[max(0, at - 25) : at]
    before = before[np.isfinite(before)]
    after = loss[at + 1 : at + 51]
    if not before.size or not after.size:
        return False
    if not np.isfinite(after).all():
        return True
    start = float(np.median(np.abs(loss[:3])))
    level = float(np.median(np.abs(before)))
    worst = max(float(np.median(after[i : i + 5])) for i in range(0, max(1, after.size - 4), 5))
    return worst > 3 * level and worst > 0.5 * start


def _explosion_finding(
    trace: Trace,
    step: int,
    passed: int,
    growth: float,
    optimizer: int,
    max_growth: float,
    against: str = "its own level",
) -> Finding:
    columns = held_by(trace, optimizer)
    rows = norm_rows(trace, optimizer)
    here = rows[trace.parameter_norms["step"][rows] == passed]
    before = rows[trace.parameter_norms["step"][rows] < step][-25:]
    culprit, table = optimizer_label(trace, optimizer), _steps_table(trace, step, _curve_at(trace, step))
    if here.size and columns.size and not before.size:
        now = trace.parameter_norms["grad_used"][here[0], columns].astype(np.float64)
        largest = np.argsort(-now)[:5]
        culprit = trace.parameters[columns[largest[0]]].name
        norms = tuple((trace.parameters[columns[i]].name, float(now[i])) for i in largest)
        table = Table(("parameter", f"gradient norm at step {passed}"), norms, culprit=0)
    elif here.size and columns.size:
        now = trace.parameter_norms["grad_used"][here[0], columns].astype(np.float64)
        then = np.median(trace.parameter_norms["grad_used"][np.ix_(before, columns)].astype(np.float64), axis=0)
        ratio = np.where((then > 0) & (now > 0), now / np.fmax(then, 1e-30), 0.0)
        # the parameter that carries the explosion: among those that grew beyond all others, the one with the largest norm
        grew = ratio >= 0.3 * ratio.max()
        worst = int(np.argmax(np.where(grew, now, -1.0)))
        order = [worst, *(i for i in np.argsort(-now) if i != worst)][:5]
        culprit = trace.parameters[columns[worst]].name
        table = Table(
            ("parameter", "norm before", f"norm at step {passed}", "growth"),
            tuple((trace.parameters[columns[i]].name, float(then[i]), float(now[i]), float(ratio[i])) for i in order),
            culprit=0,
        )
    peak = f"{number(growth)} times {against} (max_growth={max_growth:g})"
    clipped = trace.of("clip").any()
    return Finding(
        ok=False,
        headline=f"the gradient of '{culprit}' explodes from step {step} on: the norm used by "
        f"{optimizer_label(trace, optimizer)} "
        f"reaches {peak}",
        culprit=culprit,
        amount=growth,
        limit=("max_growth", max_growth),
        step=step,
        table=table,
        shows="The losses after it are no longer finite or above three times what they were: these gradients "
        "harmed the weights." + ("" if clipped else " No gradient clipping was seen."),
        next_step="clip the norm between backward and step (torch.nn.utils.clip_grad_norm_), or lower what multiplies: "
        "recurrent weights, initialisation, learning rate"
        if not clipped
        else "lower the clip limit or the learning rate; clipping was called and did not hold the norm",
    )


# -- vanishing


def _vanishing(
    trace: Trace, optimizer: int, columns: Any, min_ratio: float, min_steps: int
) -> tuple[Finding | None, float]:
    rows = norm_rows(trace, optimizer, most=400)
    curve = _curve_of(trace, optimizer)
    if columns.size < 2 or rows.size < min_steps or curve is None:
        return None, math.inf
    if curve.signed or not curve.late > 0.2 * curve.start:
        return None, math.inf
    grad = trace.parameter_norms["grad"][np.ix_(rows, columns)].astype(np.float64)
    at = trace.parameter_norms["step"][rows]
    silent = _silent(trace, grad, at, columns, min_ratio)
    if silent is not None:
        return silent, 0.0
    return _fading(trace, grad, columns, curve, min_ratio)


def _silent(trace: Trace, grad: Floats, at: Any, columns: Any, min_ratio: float) -> Finding | None:
    """Return the finding of gradients that are exactly zero, for at least half the run, in at least half the weights."""
    arrives = grad >= 0
    zero = grad == 0
    last_alive = np.where((grad > 0).any(axis=0), grad.shape[0] - 1 - np.argmax((grad > 0)[::-1], axis=0), -1)
    tail = grad.shape[0] - 1 - last_alive
    dead = (tail >= max(10, 0.5 * grad.shape[0])) & zero.any(axis=0) & arrives.any(axis=0)
    considered = arrives.any(axis=0)
    if not considered.any() or dead.sum() < 2 or dead.sum() < 0.5 * considered.sum():
        return None
    index = int(np.flatnonzero(dead)[0])
    name = trace.parameters[columns[index]].name
    since = int(at[last_alive[index] + 1])
    names = [trace.parameters[i].name for i in columns[dead]]
    share = f"{int(dead.sum())} of {int(considered.sum())} weights"
    return Finding(
        ok=False,
        headline=f"the gradient of '{name}' is exactly zero {_from(since)}, as it is in {share} (min_ratio={min_ratio:g}), "
        "while the loss is still high",
        culprit=name,
        amount=0.0,
        limit=("min_ratio", min_ratio),
        step=since,
        table=Table(
            ("weight", "median norm", "steps with zero"),
            tuple(
                (
                    trace.parameters[columns[i]].name,
                    float(np.median(grad[:, i])),
                    f"{zero[:, i].mean():.0%}",
                )
                for i in range(min(columns.size, 10))
            ),
            culprit=index if index < 10 else None,
        ),
        shows=f"Gradients arrive and are zero in {listed(names)}: hidden layers whose units are all off pass "
        "nothing on (dead ReLU "
        "units, a saturated gate).",
        next_step="look at the outputs of the hidden layers there: all zero means dead units (initial bias, one huge step)",
    )


def _from(step: int) -> str:
    return "in every step" if step == 0 else f"from step {step} on"


def _fading(trace: Trace, grad: Floats, columns: Any, curve: Curve, min_ratio: float) -> tuple[Finding | None, float]:
    """Return the finding of gradients that shrink from layer to layer on their way back, and the ratio measured."""
    usable = (grad > 0).mean(axis=0) > 0.5
    columns, grad = columns[usable], grad[:, usable]
    if columns.size < 4:
        return None, math.inf
    early = np.median(np.where(grad >= 0, grad, np.nan)[: max(5, grad.shape[0] // 10)], axis=0)
    scale = _weight_norms(trace, columns)
    relative = early / scale
    first = float(np.nanmedian(relative[: max(1, columns.size // 6)]))
    ratio = first / float(np.nanmax(relative))
    rises = float((np.diff(np.log(np.fmax(relative, 1e-300))) > 0).mean())
    stuck = curve.late > 0.8 * curve.start
    if not (ratio < min_ratio and rises >= 0.6 and stuck):
        return None, ratio
    shown = np.unique(np.linspace(0, columns.size - 1, min(columns.size, 8)).astype(int))
    name = trace.parameters[columns[0]].name
    return (
        Finding(
            ok=False,
            headline=f"the gradient of '{name}' vanishes: relative to its weights it is {number(ratio)} of the largest among "
            f"{columns.size} layers (min_ratio={min_ratio:g})",
            culprit=name,
            amount=ratio,
            limit=("min_ratio", min_ratio),
            step=0,
            table=Table(
                ("weight", "gradient norm", "relative to its weights"),
                tuple((trace.parameters[columns[i]].name, float(early[i]), float(relative[i])) for i in shown),
                culprit=0,
            ),
            shows=f"It shrinks from layer to layer on the way back, and the loss ends at {number(curve.late)} "
            f"after {number(curve.start)} at the start: the first layers do not learn.",
            next_step="use activations that do not saturate, normalisation, skip connections, or an initialisation that keeps "
            "the spread",
        ),
        ratio,
    )


def _weight_norms(trace: Trace, columns: Any) -> Floats:
    if trace.updates["step"].size:
        norms = trace.updates["weight"][:, columns].astype(np.float64)
        norms = np.where(norms > 0, norms, np.nan)
        known = ~np.isnan(norms)
        first = norms[np.argmax(known, axis=0), np.arange(columns.size)]
        if np.isfinite(first).all():
            return np.asarray(first, dtype=np.float64)
    return np.sqrt([max(1, math.prod(trace.parameters[i].shape)) for i in columns])


# -- stale


def _stale_finding(trace: Trace, optimizer: int, share: float, max_share: float) -> Finding:
    mine = np.flatnonzero(trace.steps["optimizer"] == optimizer)
    stale = trace.steps["stale"][mine]
    label = optimizer_label(trace, optimizer)
    count = int((stale > 0).sum())
    cleared = int(trace.of("zero_grad").sum())
    facts = [f for f in trace.facts if f.kind == "stale"]
    held = len(held_by(trace, optimizer))
    part = int(np.median(stale[stale > 0]))
    culprit = facts[0].who if facts and held and part < held else label
    call = (
        "zero_grad is never called"
        if not cleared
        else f"zero_grad ran {counted(cleared, 'time')}{at_site(site_of(trace, 'zero_grad'))}"
    )
    some = f" ({part} of its {held} parameters: {listed([f.who for f in facts])})" if facts and part < held else ""
    backward = _backward_site(trace, int(mine[np.flatnonzero(stale > 0)[0]]))
    first = int(mine[np.flatnonzero(stale > 0)[0]])
    return Finding(
        ok=False,
        headline=f"{label} steps on stale gradients, left over from the step before, in {count:,} of "
        f"{counted(mine.size, 'step')}"
        f"{some} (max_share={max_share:g}): {call}",
        culprit=culprit,
        amount=share,
        limit=("max_share", max_share),
        step=first,
        table=_steps_table(trace, first, _curve_at(trace, first), ahead=4),
        shows="Each step adds this batch's gradients to those of all batches before; nothing cleared them in between.",
        next_step=f"call optimizer.zero_grad() once before each backward{at_site(backward)}; to accumulate on "
        "purpose, clear after each step",
    )


def _backward_site(trace: Trace, step: int) -> str:
    stream = int(trace.steps["stream"][step])
    return trace.streams[stream] if 0 <= stream < len(trace.streams) else ""


# -- shared


def _curve_at(trace: Trace, step: int) -> Curve | None:
    """Return the curve of the stream that the step belongs to, else the longest."""
    found = curves(trace)
    if step < trace.n_steps:
        name = _backward_site(trace, step)
        found = tuple(c for c in found if c.name == name) or found
    return found[0] if found else None


def _curve_of(trace: Trace, optimizer: int) -> Curve | None:
    """Return the loss as one optimizer's steps saw it."""
    at = np.flatnonzero((trace.steps["optimizer"] == optimizer) & (trace.steps["backwards"] > 0))
    if not at.size:
        return None
    return Curve(_backward_site(trace, int(at[-1])), at.astype(np.int64), trace.steps["loss"][at])


def _steps_table(trace: Trace, step: int, curve: Curve | None, ahead: int = 0) -> Table | None:
    """Return the steps around one, with loss, learning rate and gradient norm, for what is known of them."""
    if not trace.n_steps or step >= trace.n_steps:
        return None
    mine = np.flatnonzero(trace.steps["optimizer"] == trace.steps["optimizer"][step])
    place = int(np.searchsorted(mine, step))
    shown = mine[max(0, place - 3) : place + 1 + ahead]
    rows = tuple(
        (int(i), float(trace.steps["loss"][i]), float(trace.steps["grad_norm_used"][i]), float(trace.steps["lr"][i]))
        for i in shown
    )
    return Table(("step", "loss", "gradient norm", "lr"), rows, culprit=int(np.searchsorted(shown, step)))


def _positive(**limits: float) -> None:
    for name, value in limits.items():
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
