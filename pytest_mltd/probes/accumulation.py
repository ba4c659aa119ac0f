"""Do micro-batches whose gradients are accumulated train as the one batch that they are parts of?"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, Plain, Table, not_asked
from pytest_mltd.core.traces import Trace
from pytest_mltd.probes.attempts import attempts, raise_if_broken, refuse_small, refuse_unfit

Row = dict[str, Any]

STEADY = 0.02  # relative spread over parameters of a factor that scaling alone explains; a guess


@check("training", family="training")
def check_accumulation_agrees(
    train: Callable[..., Any],
    *,
    parts: int = 4,
    steps: int = 3,
    rtol: float = 1e-3,
    seed: int = 0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a step on a batch is the same when the batch is taken in parts, whose gradients are accumulated.

    ``train(1)`` and ``train(parts)`` are run from one state: the argument says into how many micro-batches each batch is
    split, as in ``lambda parts: fit(batch_size=64 // parts, accumulate=parts)``. The gradients that each step used are
    compared parameter by parameter. Dropout is switched off in both, since its masks differ by nature. A model with batch
    norm sees other statistics in each part: there only the scale of the gradients is asked.

    Args:
        train: the training; given the number of parts, and ``seed`` if it has a parameter of that name.
        parts: how many micro-batches make a batch; a guess.
        steps: how many steps are compared; a guess: a fault in the last part of a step shows in the next one.
        rtol: the highest relative difference of a gradient's norm; a guess, a hundred times what the order of sums changes
            in float32.
        seed: set before both runs; by convention 0.
        allow: reasons by place (a parameter).

    Raises:
        TypeError: ``train`` is no function.
        ValueError: ``train`` raised, or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> check_accumulation_agrees(lambda parts: None).asked
        False
    """
    __tracebackhide__ = True
    refuse_unfit(train, "check_accumulation_agrees(lambda parts: fit(batch_size=64 // parts, accumulate=parts))")
    refuse_small(parts=parts, steps=steps)
    if parts < 2:
        raise ValueError(f"parts: at least 2 are needed, not {parts}")
    need("torch", "check_accumulation_agrees")
    with attempts(seed=seed, steps=steps) as tries:
        whole = tries.run(train, 1, around=_around)
        raise_if_broken(whole)
        split = tries.run(train, parts, around=_around)
        raise_if_broken(split, f"train: with {parts} parts")
    runs = _Runs(whole.noted or [], split.noted or [], parts, _has_batch_norm(whole.trace), _cleared(split.trace))
    return _unlike(runs.whole, runs.split, parts) or _judge(runs, rtol, allow)


assert_accumulation_agrees = asserting(check_accumulation_agrees, name="assert_accumulation_agrees")


@dataclass(frozen=True, slots=True)
class _Runs:
    """The rows of the run in one part and of that in several, and what was seen of the second."""

    whole: list[Row]
    split: list[Row]
    parts: int
    batch_norm: bool
    cleared: int


@contextlib.contextmanager
def _around() -> Iterator[Callable[[], list[Row]]]:
    from pytest_mltd.probes.snapshots import snapshots, without_dropout

    with without_dropout(), snapshots() as rows:
        yield rows


def _unlike(whole: list[Row], split: list[Row], parts: int) -> Finding | None:
    """Return why the two runs cannot be compared."""
    if not whole or not split:
        return not_asked("no optimizer step was seen")
    counts = [len(row["samples"]) for row in (whole[0], split[0])]
    if counts[0] and counts[1] == counts[0]:
        return not_asked(
            f"with {parts} parts a step makes as many forward passes as with one ({counts[0]})",
            next_step="let train take the number of parts: lambda parts: fit(batch_size=64 // parts, accumulate=parts)",
        )
    one, many = (sorted(s for batch in row["samples"] for s in batch) for row in (whole[0], split[0]))
    if len(one) != len(many):
        return not_asked(
            f"a step saw {len(one)} samples in one part and {len(many)} in {parts}",
            next_step=f"give each part 1/{parts} of the batch",
        )
    if one != many:
        return not_asked(
            "the first step did not see the same samples in both runs",
            next_step="keep their order: it must not depend on the size of the parts",
        )
    return None


def _has_batch_norm(trace: Trace) -> bool:
    return any("BatchNorm" in module.kind for module in trace.modules)


def _cleared(trace: Trace) -> int:
    """Return how often gradients were set to zero between two backwards of the first step."""
    first = trace.calls["step"] == 0
    zeros, backwards = trace.of("zero_grad")[first], trace.of("backward")[first]
    order = ["z" if zero else "b" for zero, back in zip(zeros, backwards, strict=True) if zero or back]
    return "".join(order).strip("z").count("zb")


def _judge(runs: _Runs, rtol: float, allow: Mapping[str, str] | None) -> Finding:
    worst = 0.0
    allowed: dict[str, str] = {}
    for step, (one, many) in enumerate(zip(runs.whole, runs.split, strict=False)):
        kept, silenced = sift(allow, one["norms"])
        allowed |= dict(silenced)
        factors = _factors({n: one["norms"][n] for n in kept}, many["norms"])
        if not factors:
            continue
        name = max(factors, key=lambda n: abs(math.log(factors[n])) if factors[n] > 0 else math.inf)
        off = abs(statistics.median(factors.values()) - 1) > 0.5 if runs.batch_norm else abs(factors[name] - 1) > rtol
        if off or not math.isfinite(factors[name]):
            return _disagrees(runs, step, name, factors, rtol)
        worst = max(worst, abs(factors[name] - 1))
    said = "; batch norm sees each part by itself, so only the scale was asked" if runs.batch_norm else ""
    return Finding(
        ok=True,
        headline=f"{runs.parts} parts train as one batch: gradients differ by {worst:.2g} at most (rtol={rtol:g})",
        amount=worst,
        limit=("rtol", rtol),
        looked_at=(
            f"gradient norms of {len(runs.whole[0]['norms'])} parameters at {min(len(runs.whole), len(runs.split))} steps, "
            f"dropout off{said}"
        ),
        allowed=tuple(allowed.items()),
    )


def _factors(one: Mapping[str, float], many: Mapping[str, float]) -> dict[str, float]:
    """Return by what each gradient's norm is multiplied. Where one is next to nothing (a bias before a norm) it is left out."""
    largest = max(one.values(), default=0.0)
    return {n: many.get(n, 0.0) / v for n, v in one.items() if v > 1e-6 * largest}


def _disagrees(runs: _Runs, step: int, name: str, factors: Mapping[str, float], rtol: float) -> Finding:
    shows, next_step = _reading(runs, step, factors)
    names = [name, *(n for n in sorted(factors, key=lambda n: -abs(factors[n] - 1)) if n != name)][:5]
    one, many = runs.whole[step]["norms"], runs.split[step]["norms"]
    rows: tuple[tuple[Plain, ...], ...] = tuple((n, one[n], many.get(n, 0.0), factors[n]) for n in names)
    return Finding(
        ok=False,
        headline=(
            f"the gradient of '{name}' is {factors[name]:.4g} times as large in {runs.parts} parts as in one batch at step "
            f"{step} (rtol={rtol:g})"
        ),
        culprit=name,
        amount=abs(factors[name] - 1),
        limit=("rtol", rtol),
        step=step,
        table=Table(("parameter", "one batch", f"{runs.parts} parts", "times"), rows, 0),
        shows=shows,
        next_step=next_step,
    )


def _reading(runs: _Runs, step: int, factors: Mapping[str, float]) -> tuple[str, str]:
    """Return what the factors of all parameters together say, and what to do."""
    parts, common = runs.parts, statistics.median(factors.values())
    if runs.cleared:
        return (
            f"Gradients are set to zero between the parts ({runs.cleared} times in the first step): only the last part counts.",
            "call zero_grad once, after the step",
        )
    spread = 0.5 if runs.batch_norm else STEADY
    even = common > 0 and all(abs(f / common - 1) < spread for f in factors.values())
    if even and abs(common / parts - 1) < spread:
        return (
            f"All gradients are {parts} times as large: they were added up, and not averaged.",
            "divide the loss of each part by the number of parts",
        )
    if even and abs(common * parts - 1) < spread:
        return (
            f"All gradients are 1/{parts} of what they should be: they were divided twice.",
            "divide once: either the loss of each part, or the gradients before the step",
        )
    if even:
        return (
            f"All gradients are {common:.4g} times as large, which is not the number of parts: they share another scale.",
            "look at what the loss of a part is divided by; for parts of unequal length, divide their sums by the whole",
        )
    if step:
        return (
            "The steps before agree; what one step leaves behind for the next does not.",
            "look at when gradients are set to zero, and at the samples of the last part",
        )
    return (
        "The parameters differ by unequal factors: the parts are weighed unequally, say by means over unequal numbers.",
        "divide the sum of each part's losses by the number of samples or tokens in the whole batch",
    )
