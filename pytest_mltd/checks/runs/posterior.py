"""A question about autoencoders that sample their code: does the code still tell the samples apart?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Floats, moving_target, no_steps, too_short
from pytest_mltd.checks.runs.places import counted, not_recorded
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace


@check("run", explains=("losses.plateau", "gradients.vanishing"), rank=31, family="activations")
def check_posterior_collapse(
    run: Any, *, min_code: float = 0.05, min_steps: int = 100, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether a variational encoder came to answer with its prior, so that the code tells nothing about the samples.

    Such an encoder ends in two layers of one shape side by side, for mean and width of the code. Where it collapsed, the means
    are zero for every sample, the widths are one number, and both told the samples apart better before training, as what enters
    them still does: the KL term outweighs the reconstruction.

    Args:
        run: a recording, a run or a trace.
        min_code: the lowest RMS of the means, median over the later half of the run, in standard deviations of the prior
            (a guess: the KL divergence is then about 0.001 nats a value of the code). It counts where the difference
            between samples fell to a third of the first steps', of both layers.
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by layer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    for name, value in (("min_code", min_code), ("min_steps", min_steps)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    reason = no_steps(trace) or not_recorded(trace, "outputs of modules", "outputs")
    if reason or (reason := too_short(trace, trace.busiest, min_steps)):
        return not_asked(reason)
    if moving := moving_target(trace):
        return not_asked(f"two such layers may be those of a policy, and an action may be right everywhere: {moving}")
    pairs = _pairs(trace)
    if not pairs:
        return no_occasion("no two layers of one shape were seen side by side, as for mean and width of a code")
    kept, allowed = sift(allow, list(dict.fromkeys(mean.name for mean, _ in pairs)))
    judged = [(mean, width) for mean, width in pairs if mean.name in set(kept)]
    collapsed = [(mean, width) for mean, width in judged if mean.size < min_code and mean.faded and width.faded]
    if collapsed:
        return _posterior_finding(*collapsed[0], min_code, allowed)  # means come first by habit; both may be zero
    lowest = min((mean.size for mean, _ in judged), default=float("inf"))
    return Finding(
        ok=True,
        headline=f"codes keep a size of {number(lowest)} or more, or were never larger (min_code={min_code:g})",
        amount=lowest,
        limit=("min_code", min_code),
        looked_at=counted(len(pairs) // 2, "pair of layers", "pairs of layers"),
        allowed=allowed,
    )


assert_no_posterior_collapse = asserting(check_posterior_collapse)


@dataclass(frozen=True, slots=True)
class _Head:
    """A layer: the RMS of its outputs late in the run, and how far they differed between samples, first and late."""

    name: str
    size: float
    first: float
    late: float

    @property
    def faded(self) -> bool:
        return self.late < self.first / 3


def _pairs(trace: Trace) -> list[tuple[_Head, _Head]]:
    """Return neighbours of one shape that cannot feed each other, both ways round, behind what tells samples apart."""
    shapes = {p.name.removesuffix(".weight"): p.shape for p in trace.parameters if p.name.endswith(".weight")}
    found: list[tuple[_Head, _Head]] = []
    for i in range(1, len(trace.modules) - 1):
        one, other = trace.modules[i], trace.modules[i + 1]
        shape = shapes.get(one.name, ())
        if one.kind != other.kind or not one.kind.startswith(("Linear", "Conv")) or shape != shapes.get(other.name):
            continue
        if len(shape) < 2 or shape[0] == shape[1]:
            continue
        heads = _head(trace, i), _head(trace, i + 1)
        entering = _head(trace, i - 1)
        if heads[0] is None or heads[1] is None or entering is None or entering.late < 0.1 * entering.size:
            continue
        found += [(heads[0], heads[1]), (heads[1], heads[0])]
    return found


def _head(trace: Trace, index: int) -> _Head | None:
    mean, std, across = (trace.outputs[c][:, index].astype(np.float64) for c in ("mean", "std", "across"))
    known = np.isfinite(mean) & np.isfinite(std) & np.isfinite(across)
    if known.sum() < 10:
        return None
    size, spread = np.hypot(mean, std)[known], across[known]
    return _Head(trace.modules[index].name, _later(size), float(np.median(spread[:3])), _later(spread))


def _later(values: Floats) -> float:
    return float(np.median(values[values.size // 2 :]))


def _posterior_finding(mean: _Head, width: _Head, min_code: float, allowed: tuple[tuple[str, str], ...]) -> Finding:
    return Finding(
        ok=False,
        headline=f"the posterior collapsed: the code is ignored, '{mean.name}' is {number(mean.size, 2)} for every sample "
        f"(min_code={min_code:g}), and '{width.name}' one number",
        culprit=mean.name,
        amount=mean.size,
        limit=("min_code", min_code),
        table=Table(
            ("layer", "samples differ by, first", "samples differ by, later", "size, later"),
            tuple((h.name, h.first, h.late, h.size) for h in (mean, width)),
            culprit=0,
        ),
        shows="The KL term is too strong: it collapses to zero with the code, and all samples are reconstructed as one "
        "mean sample.",
        next_step="sum the reconstruction over pixels as the KL is summed over the code (not a mean beside a sum), or "
        "weigh the KL less and raise its weight slowly",
        allowed=allowed,
    )
