"""What a constant answer would cost: the level a loss has to leave before anything was learned."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pytest_mltd.checks.runs.curves import Curve, block_medians, curves, moving_target
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace


@dataclass(frozen=True, slots=True)
class Baseline:
    """The loss of a constant answer, in words that stand after "of" and in a sentence that says where it comes from."""

    level: float
    words: str
    shows: str


def constant_answer(trace: Trace, curve: Curve) -> Baseline | None:
    """Return the loss that a constant answer would have, if it is known."""
    facts = [f for f in trace.facts if f.kind == "targets" and f.who in ("", curve.name)]
    for fact in facts:
        name = str(fact.details.get("loss", ""))
        if fact.details.get("reduction", "mean") != "mean":
            continue
        if (entropy := fact.details.get("entropy")) is not None and entropy > 0.01:
            return Baseline(
                float(entropy),
                f"{number(float(entropy), 3)}, the entropy of the labels",
                "What the label frequencies alone give, without a look at the inputs",
            )
        if "mse" in name and (spread := fact.details.get("var")) and spread > 0:
            return Baseline(
                float(spread),
                f"{number(float(spread), 3)}, the variance of the targets",
                "What the mean of the targets alone gives",
            )
    if facts or not fresh(trace):
        return None
    blocks = block_medians(curve.finite, blocks=10)
    first = max(curve.start, float(blocks[0]))
    settled = float(blocks[1:4].mean()) if blocks.size >= 10 else first
    if 0.94 * first < settled < first:  # an untrained net begins a few percent above what the frequencies alone give
        first = settled
    return Baseline(first, f"{number(first, 3)}, the first level", "What the untrained weights gave")


def gain_over(curve: Curve, level: float) -> float:
    """Return the share of a constant answer's loss that was gained at the best level held for a tenth of the run."""
    return 1.0 - float(block_medians(curve.finite, blocks=10).min()) / level


def fresh(trace: Trace) -> bool:
    """Whether every linear and convolution weight began with the norm that torch's default initialisation gives it.

    Uniform within 1/sqrt(fan_in): the norm is sqrt(outputs / 3), with a relative standard deviation of 0.45/sqrt(weights).
    """
    if any(trace.of("load")) or not trace.updates["step"].size or trace.updates["step"][0] > 1:
        return False
    known = 0
    for i, p in enumerate(trace.parameters):
        if not p.optimizers or len(p.shape) < 2 or not p.module.startswith(("Linear", "Conv")):
            continue
        size, norm = math.prod(p.shape), float(trace.updates["weight"][0, i])
        if size < 32 or norm < 0:
            continue
        expected = math.sqrt(p.shape[0] / 3)
        if abs(norm / expected - 1) > 1.4 / math.sqrt(size) + 0.005:  # three standard deviations of such a norm
            return False
        known += size
    return known >= 150


def still_high(trace: Trace, share: float = 0.5) -> bool:
    """Whether the main loss shows that little was learned: it ends above this share of its level, or is not finite.

    The level is a constant answer's where that is known, else its own start. A loss that changes sign, or whose target moves,
    tells nothing.
    """
    found = curves(trace)
    if not found or moving_target(trace):
        return False
    curve = found[0]
    if curve.finite.size < curve.value.size:
        return True
    if curve.signed:
        return False
    base = constant_answer(trace, curve)
    level = min(base.level, curve.start) if base is not None else curve.start
    return curve.late > share * level
