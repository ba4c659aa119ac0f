"""Questions about what the layers of a net put out: units that are off, units at their limits, spread that is
lost in depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.constant_answers import still_high
from pytest_mltd.checks.runs.curves import no_steps, too_short
from pytest_mltd.checks.runs.places import counted, middle, not_recorded
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Fact, Trace, as_trace

_SLOPES = {
    "Tanh": (-1.0, 1.0),
    "Sigmoid": (0.0, 1.0),
}  # the limits of an activation whose slope is known from its output


@check("run", explains=("gradients.vanishing", "activations.*", "losses.plateau"), rank=28)
def check_dead_units(
    run: Any, *, max_dead: float = 0.9, min_looks: int = 3, min_rows: int = 8, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether nearly all units behind a ReLU are zero for every sample, while the loss is still high.

    Such units pass no gradient on, so nothing revives them. Counted at the looks that a recording takes at the graph (the first
    five steps, then one in each fifty); the median of the later half counts. A net whose loss came down by a tenth may have as
    many as it likes: sparse codes, wide layers.

    Args:
        run: a recording, a run or a trace.
        max_dead: the highest share of a layer's units (a guess; TheDeepChecker, TOSEM 2022, takes 50%, but healthy deep and
            recurrent nets of tests/faulty reach 80%: the deeper, the more alike their samples are).
        min_looks: the fewest steps that were looked at; a guess.
        min_rows: the fewest rows of a batch: few rows leave many units off honestly; a guess.
        allow: reasons by layer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive, or ``max_dead`` not below 1.
    """
    trace = as_trace(run)
    if not 0 < max_dead < 1:
        raise ValueError(f"max_dead: a share between 0 and 1 is needed, not {max_dead!r}")
    for name, value in (("min_looks", min_looks), ("min_rows", min_rows)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    if reason := no_steps(trace):
        return not_asked(reason)
    facts = [f for f in trace.facts if f.kind == "relu" and f.details.get("units")]
    if not facts:
        return no_occasion("no ReLU was seen behind a layer with weights")
    facts = [f for f in facts if f.details["looks"] >= min_looks and f.details["rows"] >= min_rows]
    if not facts:
        return not_asked(f"no ReLU was looked at {min_looks} times, with {min_rows} rows or more")
    kept, allowed = sift(allow, [f.who for f in facts])
    shares = {f.who: _dead_share(f) for f in facts if f.who in set(kept)}
    over = [f for f in facts if shares.get(f.who, 0.0) > max_dead]
    if over and still_high(trace, 0.9):
        return _dead_finding(over, shares, max_dead, allowed)
    highest = max(shares.values(), default=0.0)
    return Finding(
        ok=True,
        headline=f"{highest:.0%} of the units of a layer are dead at most, or the loss came down "
        f"(max_dead={max_dead:g})",
        amount=highest,
        limit=("max_dead", max_dead),
        looked_at=f"the ReLUs behind {counted(len(facts), 'layer')}",
        allowed=allowed,
    )


@check("run", explains=("gradients.vanishing", "losses.plateau"), rank=29)
def check_saturation(
    run: Any, *, min_slope: float = 0.1, min_steps: int = 20, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether tanh or sigmoid units sit at their limits, where the slope is nil, while the loss is still high.

    The mean slope of a layer follows from mean and spread of its outputs: 1 - y² for tanh, 4 y (1 - y) for a sigmoid, both 1 at
    most. The output of the net itself, and layers of a net whose loss came down by a quarter, may be as sure as they like.

    Args:
        run: a recording, a run or a trace.
        min_slope: the lowest mean slope in the later half of the run, as a share of the steepest (a guess; TheDeepChecker,
            TOSEM 2022, takes outputs beyond 0.85 in half of the units, which is a slope near 0.28).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by module.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``min_slope`` is not between 0 and 1, or ``min_steps`` not positive.
    """
    trace = as_trace(run)
    if not 0 < min_slope < 1:
        raise ValueError(f"min_slope: a share between 0 and 1 is needed, not {min_slope!r}")
    if not min_steps > 0:
        raise ValueError(f"min_steps: a number above zero is needed, not {min_steps!r}")
    reason = no_steps(trace) or not_recorded(trace, "outputs of modules", "outputs")
    if reason or (reason := too_short(trace, trace.busiest, min_steps)):
        return not_asked(reason)
    hidden = [i for i, m in enumerate(trace.modules) if m.kind in _SLOPES and not _is_output(trace, i)]
    slopes = {trace.modules[i].name: s for i in hidden if not math.isnan(s := _slope(trace, i))}
    if not slopes:
        return no_occasion("the net has no tanh or sigmoid module inside (functions such as torch.tanh are not seen)")
    kept, allowed = sift(allow, slopes)
    flat = [name for name in kept if slopes[name] < min_slope]
    if flat and still_high(trace, 0.75):
        return _saturation_finding(trace, slopes, flat, min_slope, allowed)
    lowest = min((slopes[name] for name in kept), default=1.0)
    return Finding(
        ok=True,
        headline=f"activations keep {number(lowest, 2)} of their steepest slope or more, or the loss came down "
        f"(min_slope={min_slope:g})",
        amount=lowest,
        limit=("min_slope", min_slope),
        looked_at=counted(len(slopes), "module"),
        allowed=allowed,
    )


@check(
    "run",
    explains=("gradients.*", "losses.*", "updates.update_scale", "activations.saturation", "activations.dead_units"),
    rank=18,
)
def check_spread(run: Any, *, max_ratio: float = 1000.0, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether the spread of the outputs explodes or vanishes from layer to layer, in the very first step.

    That is the initialisation, before anything was learned. The standard deviation of the outputs of linear and convolution
    layers is held against that of the first or second, whichever is nearer: inputs of any unit enter the first. The last
    layer may be small, and a layer of zeros is meant. It counts only where
    the loss did not come down by half, or is not finite.

    Args:
        run: a recording, a run or a trace.
        max_ratio: the highest ratio, either way (a guess; healthy nets of tests/faulty reach 120, one of 50 residual blocks
            with small branches; faulty ones 30,000).
        allow: reasons by module.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_ratio`` is not above 1.
    """
    trace = as_trace(run)
    if not max_ratio > 1:
        raise ValueError(f"max_ratio: a ratio above 1 is needed, not {max_ratio!r}")
    if reason := no_steps(trace) or not_recorded(trace, "outputs of modules", "outputs"):
        return not_asked(reason)
    layers = _first_spreads(trace)
    if len(layers) < 3:
        return no_occasion(f"{len(layers)} of at least 3 linear or convolution layers were seen at the first step")
    kept, allowed = sift(allow, [layer.name for layer in layers[1:]])
    judged = [x for x in layers[1:] if x.name in set(kept) and not (x is layers[-1] and x.std < layers[0].std)]
    worst = max(judged, key=lambda x: abs(math.log(_ratio(layers, x))), default=layers[0])
    ratio = _ratio(layers, worst)
    if max(ratio, 1 / ratio) > max_ratio and still_high(trace):
        return _spread_finding(layers, worst, ratio, max_ratio, allowed)
    return Finding(
        ok=True,
        headline=f"the spread of the outputs stays within {number(max(ratio, 1 / ratio))} times the first layers' "
        "at the start, "
        f"or the loss came down (max_ratio={max_ratio:g})",
        amount=max(ratio, 1 / ratio),
        limit=("max_ratio", max_ratio),
        looked_at=counted(len(layers), "layer"),
        allowed=allowed,
    )


assert_no_dead_units = asserting(check_dead_units)
assert_no_saturation = asserting(check_saturation)
assert_no_spread = asserting(check_spread)


def _dead_share(fact: Fact) -> float:
    silent = list(fact.details.get("silent", ()))
    return middle(np.asarray(silent[len(silent) // 2 :], dtype=np.float64)) / float(fact.details["units"])


def _dead_finding(
    over: Sequence[Fact], shares: Mapping[str, float], max_dead: float, allowed: Iterable[tuple[str, str]]
) -> Finding:
    fact = max(over, key=lambda f: shares[f.who])
    silent = fact.details["silent"]
    shown = list(over)[:8]
    from_start = silent[0] > max_dead * fact.details["units"] and fact.details["looks"] == len(silent)
    return Finding(
        ok=False,
        headline=f"{shares[fact.who]:.0%} of the units of '{fact.who}' are dead: the ReLU behind it is zero for "
        "every sample "
        f"(max_dead={max_dead:g}), while the loss is still high",
        culprit=fact.who,
        amount=shares[fact.who],
        limit=("max_dead", max_dead),
        table=Table(
            ("layer", "units", "dead, first look", "dead, last look", "rows looked at"),
            tuple(
                (f.who, f.details["units"], f.details["silent"][0], f.details["silent"][-1], f.details["rows"])
                for f in shown
            ),
            culprit=shown.index(fact) if fact in shown else None,
        ),
        shows="A hidden unit whose activation is zero for all samples has zero gradients: it cannot come back.",
        next_step="look at the initial biases and weights of that layer: they are off from the first step on"
        if from_start
        else "look at the step before they died: a learning rate too high throws the biases far below zero",
        allowed=tuple(allowed),
    )


def _is_output(trace: Trace, index: int) -> bool:
    """Whether a module's output is that of a root: the same numbers at the same steps."""
    mine = trace.outputs["mean"][:, index]
    known = np.isfinite(mine)
    roots = [i for i, m in enumerate(trace.modules) if m.root and i != index]
    same = (
        known.any() and (trace.outputs[c][known, i] == trace.outputs[c][known, index]).all()
        for i in roots
        for c in ("max",)
    )
    return trace.modules[index].root or any(same)


def _slope(trace: Trace, index: int) -> float:
    """Return the mean slope over the later half of the run, as a share of the steepest, NaN where it is not known."""
    low, high = _SLOPES[trace.modules[index].kind]
    mean, std = (trace.outputs[c][:, index].astype(np.float64) for c in ("mean", "std"))
    known = np.isfinite(mean) & np.isfinite(std) & (trace.outputs["rows"][:, index] >= 0)
    if known.sum() < 3:
        return math.nan
    centre, reach = (low + high) / 2, (high - low) / 2
    slope = 1 - ((mean[known] - centre) ** 2 + std[known] ** 2) / reach**2
    return middle(slope[slope.size // 2 :])


def _saturation_finding(
    trace: Trace, slopes: Mapping[str, float], flat: Sequence[str], min_slope: float, allowed: Iterable[tuple[str, str]]
) -> Finding:
    name = min(flat, key=lambda n: slopes[n])
    index = next(i for i, m in enumerate(trace.modules) if m.name == name)
    kind = trace.modules[index].kind.lower()
    shown = [name, *sorted((n for n in slopes if n != name), key=lambda n: slopes[n])][:6]
    return Finding(
        ok=False,
        headline=f"'{name}', a {kind}, is saturated: its mean slope is {number(max(slopes[name], 0.0), 2)} of the "
        "steepest "
        f"(min_slope={min_slope:g}), while the loss is still high",
        culprit=name,
        amount=slopes[name],
        limit=("min_slope", min_slope),
        table=Table(("module", "mean slope"), tuple((n, float(max(slopes[n], 0.0))) for n in shown), culprit=0),
        shows=f"Nearly all its outputs are at the limits of the {kind}, where it is flat: gradients vanish there.",
        next_step="scale the inputs, and the weights before it (initialisation), so that what enters lies mostly "
        "within ±2",
        allowed=tuple(allowed),
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    std: float


def _first_spreads(trace: Trace) -> list[_Layer]:
    """Return the layers seen at the first sampled step with a spread above zero, in the order of the net."""
    found = []
    for i, module in enumerate(trace.modules):
        std = float(trace.outputs["std"][0, i])
        if module.kind.startswith(("Linear", "Conv")) and std > 0 and math.isfinite(std):
            found.append(_Layer(module.name, std))
    return found if trace.outputs["step"][0] == 0 else []


def _ratio(layers: Sequence[_Layer], layer: _Layer) -> float:
    """Return its spread over that of the first or second layer, whichever is nearer."""
    return min((layer.std / base.std for base in layers[:2]), key=lambda ratio: abs(math.log(ratio)))


def _spread_finding(
    layers: Sequence[_Layer], worst: _Layer, ratio: float, max_ratio: float, allowed: Iterable[tuple[str, str]]
) -> Finding:
    chosen = sorted({*np.linspace(0, len(layers) - 1, min(7, len(layers))).astype(int).tolist(), layers.index(worst)})
    shown = [layers[i] for i in chosen]
    up = ratio > 1
    base = min(layers[:2], key=lambda x: abs(math.log(worst.std / x.std))).name
    verb, factor = ("explodes", ratio) if up else ("vanishes", 1 / ratio)
    shows = (
        "The weights are initialised too large: activations grow from layer to layer, and on their way back so do "
        "gradients: they explode."
        if up
        else "The weights are initialised too small: activations shrink to nothing from layer to layer, and on their way "
        "back gradients vanish too."
    )
    return Finding(
        ok=False,
        headline=f"the spread of the activations {verb} with depth: at the start the outputs of '{worst.name}' spread "
        f"{number(factor)} times {'more' if up else 'less'} than those of '{base}' (max_ratio={max_ratio:g})",
        culprit=worst.name,
        amount=ratio,
        limit=("max_ratio", max_ratio),
        step=0,
        table=Table(("layer", "spread of outputs"), tuple((x.name, x.std) for x in shown), culprit=shown.index(worst)),
        shows=shows,
        next_step="initialise so that the spread is kept (kaiming or xavier), or normalise between the layers",
        allowed=tuple(allowed),
    )
