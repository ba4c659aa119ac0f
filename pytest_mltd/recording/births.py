"""The message about an operation that made a value that is not finite."""

from __future__ import annotations

from typing import Final

from pytest_mltd.core.findings import Finding, Plain, Table
from pytest_mltd.core.rendering import number
from pytest_mltd.recording.operations import Event, Extremes


def finding_of(event: Event, step: int, reaches: str) -> Finding:
    """Return the finding of a birth.

    Args:
        event: where the value was born.
        step: how many steps were over.
        reaches: what it made not finite: "loss", "gradients".
    """
    rows = [_row(e) for e in event.inputs[:_MOST_ROWS]] + ([_row(event.output)] if event.output is not None else [])
    operation = event.operation or "data"
    return Finding(
        ok=False,
        headline=f"{_what(event)}{_where(event)}, step {step}",
        culprit=operation,
        amount=None if event.output is None else float(event.output.bad),
        step=step,
        table=Table(_COLUMNS, tuple(rows), len(rows) - 1) if rows else None,
        shows=_shows(event, reaches),
        next_step=_next(event),
        explains=("gradients.nonfinite", "losses.*"),
        rank=5,
        details={
            "operation": operation,
            "phase": event.phase,
            "site": event.site,
            "module": event.module,
            "reaches": reaches,
            "dtype": "" if event.output is None else event.output.dtype,
            "inputs": [
                {"shape": list(e.shape), "min": e.low, "max": e.high, "smallest": e.smallest} for e in event.inputs
            ],
        },
    )


def _what(event: Event) -> str:
    made = "values that are not finite" if event.output is None else _bad(event.output)
    if event.outside:
        held = "a parameter" if event.parameter else "the data"
        return f"{held} held {made} before any operation was run on it"
    who = f"the backward of {event.operation}" if event.phase == "backward" else event.operation
    if event.intended:
        return f"{who} wrote {made}, as a value that was given to it"
    if infinite := _infinite_inputs(event):
        return f"{who} made {made} of the {_kind(infinite[0])} that it was given"
    zeros = sum(e.zeros for e in event.inputs)
    count = f", {zeros:,} of them 0," if zeros and event.operation in _AT_ZERO else ""
    largest = max((max(abs(e.low or 0.0), abs(e.high or 0.0)) for e in event.inputs), default=0.0)
    size = f" as large as {number(largest)}" if largest > _LARGE and not count else ""
    return f"{who} made {made} out of finite numbers{count}{size}"


def _bad(held: Extremes) -> str:
    """Return how many values are what: ``NaN in 3 of 640 values``."""
    kinds = [name for name, count in (("NaN", held.nans), (_kind(held), held.infinities)) if count]
    if held.size == 1:
        return kinds[0]
    return f"{' and '.join(kinds)} in {held.bad:,} of {held.size:,} values"


def _kind(held: Extremes) -> str:
    return "-inf" if held.only_negative else "inf"


def _where(event: Event) -> str:
    if event.outside and event.site:
        return f"; first used{_place_of(event)}"
    return _place_of(event)


def _place_of(event: Event) -> str:
    module = f" in '{event.module}'" if event.module else ""
    return module + (f" at {event.site}" if event.site else "")


def _row(held: Extremes) -> tuple[Plain, ...]:
    shape = "×".join(map(str, held.shape)) or "scalar"
    return held.name, shape, held.dtype, held.low, held.high, held.smallest, held.bad


def _shows(event: Event, reaches: str) -> str:
    goal = {
        "loss": "It reaches the loss.",
        "gradients": "The loss is finite; it reaches gradients that a step was to use.",
    }
    end = goal.get(reaches, f"It reaches {reaches}.")
    half = next((e.dtype for e in event.inputs if e.dtype in _ENDS), "")
    if event.output is not None and event.output.dtype in _ENDS and event.output.infinities and half:
        return f"{half} ends at {_ENDS[half]}: what is larger is inf there. {end}"
    if event.phase == "step":
        return f"The optimizer's own step made it, of finite gradients. {end}"
    return end


def _next(event: Event) -> str:
    if event.outside:
        return _ADVICE_FOR_PARAMETERS if event.parameter else _ADVICE_FOR_DATA
    if event.phase == "step":
        return "look at the optimizer's settings: learning rate, eps, betas"
    if event.intended or _infinite_inputs(event):
        return _ADVICE_FOR_MASKS
    if event.phase == "forward" and event.operation in _OF_NOTHING:
        return _OF_NOTHING[event.operation]
    return _ADVICE.get(event.operation, _ADVICE_ELSE.format(name=event.operation))


def _infinite_inputs(event: Event) -> list[Extremes]:
    return [e for e in event.inputs if e.infinities]


_COLUMNS: Final = ("tensor", "shape", "dtype", "min", "max", "smallest |x|", "not finite")
_MOST_ROWS: Final = 6
_LARGE: Final = 1e4  # worth telling; float16 ends at 65,504
_ENDS: Final = {"float16": "65,504", "bfloat16": "3.39e+38"}
_AT_ZERO: Final = frozenset(
    {"log", "log2", "log10", "sqrt", "rsqrt", "div", "reciprocal", "pow", "norm", "linalg_vector_norm"}
)
_ADVICE_FOR_PARAMETERS: Final = "look at its initial values, or at the checkpoint that it was loaded from"
_ADVICE_FOR_DATA: Final = (
    "look for it where the data is read: x.isfinite().all() of each column, and what fills missing values"
)
_ADVICE_FOR_MASKS: Final = (
    "leave at least one entry of each row unmasked, or fill the mask with torch.finfo(x.dtype).min instead of -inf"
)
_OF_LOG: Final = (
    "keep its argument above 0, as in x.clamp_min(1e-8).log(), also behind a torch.where; log_softmax and "
    "logsigmoid need no such care"
)
_OF_ROOT: Final = (
    "its slope at 0 is infinite: add a small number inside, as in (x + 1e-8).sqrt(), also behind a torch.where"
)
_OF_RATIO: Final = "keep the divisor from 0: add a small number to it, or leave constant columns and empty groups out"
_OF_EXP: Final = (
    "keep its argument small: subtract the maximum (log_softmax and logsumexp do), clamp it, or run it in float32"
)
_OF_SIZE: Final = (
    "its numbers grew too large for their dtype: look at the learning rate, at the steps before, or use float32"
)
_OF_NOTHING: Final = {
    **dict.fromkeys(
        ("std", "var"),
        "the spread of a single value is 0/0: give it two rows or more, as drop_last=True does, or correction=0",
    ),
    **dict.fromkeys(
        ("nll_loss", "nll_loss2d", "nll_loss_nd", "mean", "nanmean"),
        "a mean over nothing is 0/0: leave out batches that are empty or whose labels are all ignored",
    ),
}
_ADVICE: Final = {
    **dict.fromkeys(("log", "log2", "log10", "log1p", "xlogy"), _OF_LOG),
    **dict.fromkeys(("sqrt", "rsqrt", "pow", "norm", "linalg_vector_norm", "std", "var"), _OF_ROOT),
    **dict.fromkeys(("div", "reciprocal"), _OF_RATIO),
    **dict.fromkeys(("exp", "expm1", "exp2", "sinh", "cosh"), _OF_EXP),
    **dict.fromkeys(
        ("addmm", "mm", "bmm", "baddbmm", "convolution", "mul", "add", "sum", "mse_loss", "square"), _OF_SIZE
    ),
    **dict.fromkeys(
        ("asin", "acos", "atanh", "acosh"), "its slope at the ends of its range is infinite: clamp its argument"
    ),
}
_ADVICE_ELSE: Final = "print what {name} is given at that line, and keep it where {name} is defined"
