"""A question about units that are all the same: layers that were filled with one number, and act as one unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import no_steps
from pytest_mltd.checks.runs.places import counted, not_recorded
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace

_SYMPTOMS = (
    "activations.saturation",
    "activations.spread",
    "activations.collapsed_batch",
    "gradients.vanishing",
    "losses.*",
)


@check("run", explains=(*_SYMPTOMS, "updates.update_scale"), rank=17, family="activations")
def check_identical_units(
    run: Any, *, min_difference: float = 1e-4, min_looks: int = 4, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether all units of a hidden layer are the same, because its weights were filled with one number.

    Such units get the same gradient, so they stay the same: the layer is one unit wide. A linear layer of n inputs then puts
    out n times its mean weight times what the one unit before it does, spread for spread; units that differ cancel each other
    and miss that by far. Asked of linear layers that follow a module, where both were looked at in the same steps.

    Args:
        run: a recording, a run or a trace.
        min_difference: the lowest relative distance of a layer's spread from that, the largest over all looks (measured: 1e-7
            to 1e-6 for filled layers, 0.12 or more for the 489 other runs in which it was asked).
        min_looks: the fewest steps that were looked at; a guess.
        allow: reasons by layer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    for name, value in (("min_difference", min_difference), ("min_looks", min_looks)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    reason = no_steps(trace) or not_recorded(trace, "outputs of modules", "outputs")
    if reason or (reason := not_recorded(trace, "updates", "updates")):
        return not_asked(reason)
    layers = _layers(trace)
    if not layers:
        return no_occasion("no linear layer of four inputs or more was seen behind another module")
    layers = [layer for layer in layers if layer.looks >= min_looks]
    if not layers:
        return not_asked(f"no linear layer was looked at {min_looks} times")
    kept, allowed = sift(allow, [layer.name for layer in layers])
    judged = [layer for layer in layers if layer.name in set(kept)]
    same = [layer for layer in judged if layer.difference < min_difference]
    if same:
        return _identical_finding(same, min_difference, allowed)
    lowest = min((layer.difference for layer in judged), default=math.inf)
    return Finding(
        ok=True,
        headline=f"units differ within every layer: spreads are {number(lowest)} or more from those of one unit "
        f"(min_difference={min_difference:g})",
        amount=lowest,
        limit=("min_difference", min_difference),
        looked_at=f"the units before {counted(len(layers), 'layer')}",
        allowed=allowed,
    )


assert_no_identical_units = asserting(check_identical_units)


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    before: str  # the module whose units are its inputs
    inputs: int
    looks: int
    difference: float


def _layers(trace: Trace) -> list[_Layer]:
    """Return the linear layers behind another module, and how far each is from one whose inputs are one unit."""
    _, seen, weighed = np.intersect1d(trace.outputs["step"], trace.updates["step"], return_indices=True)
    weights = {p.name: i for i, p in enumerate(trace.parameters)}
    found = []
    for i, module in enumerate(trace.modules[1:], 1):
        before, column = trace.modules[i - 1], weights.get(f"{module.name}.weight")
        if column is None or not module.kind.startswith("Linear") or before.root:
            continue
        shape = trace.parameters[column].shape
        if len(shape) != 2 or shape[1] < 4:
            continue
        entering, leaving = (trace.outputs["std"][seen, j].astype(np.float64) for j in (i - 1, i))
        weight = trace.updates["weight"][weighed, column].astype(np.float64) / math.sqrt(math.prod(shape))
        known = np.all([np.isfinite(v) & (v > 0) for v in (entering, leaving, weight)], axis=0)
        ratio = leaving[known] / (shape[1] * weight[known] * entering[known])
        difference = float(np.abs(ratio - 1).max()) if ratio.size else math.inf
        found.append(_Layer(module.name, before.name, shape[1], ratio.size, difference))
    return found


def _identical_finding(same: list[_Layer], min_difference: float, allowed: tuple[tuple[str, str], ...]) -> Finding:
    layer = same[0]
    return Finding(
        ok=False,
        headline=f"all {layer.inputs} hidden units of '{layer.before}' are identical, in all {layer.looks} looks: "
        f"'{layer.name}' spreads as if they were one, to {number(layer.difference, 2)} (min_difference={min_difference:g})",
        culprit=layer.before,
        amount=layer.difference,
        limit=("min_difference", min_difference),
        step=0,
        table=Table(
            ("units of", "units", "into", "distance from one unit"),
            tuple((x.before, x.inputs, x.name, x.difference) for x in same[:8]),
            culprit=0,
        ),
        shows="The initialisation is symmetric: weights filled with one constant get the same gradients, so the symmetry is "
        "not broken, and each such layer acts as one unit.",
        next_step="initialise the weights at random (kaiming or xavier); only biases may start with one constant",
        allowed=allowed,
    )
