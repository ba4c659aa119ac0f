"""Does a training in another precision go the same way, as far as rounding lets it?"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from pytest_mltd.checks.runs.curves import curves
from pytest_mltd.core.asking import asserting, check
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.probes.attempts import Around, Attempt, attempts, raise_if_broken, refuse_small, refuse_unfit

Precision = Literal["bfloat16", "float16", "float64"]

# Half the distance of two neighbouring numbers, relative: what one rounding changes at most. Float64 is compared with what
# rounding to float32 does to the run as it is. By the definition of the formats.
UNIT = {"bfloat16": 2.0**-9, "float16": 2.0**-12, "float64": 2.0**-24}
SHAKEN = 2  # runs with rounding imitated; a guess


@check("training", family="training")
def check_precision_agrees(
    train: Callable[..., Any],
    other: Callable[..., Any] | None = None,
    *,
    precision: Precision = "bfloat16",
    steps: int = 20,
    max_drift: float = 20.0,
    seed: int = 0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a training in another precision has the same losses, within what rounding explains.

    ``train`` is run as it is and once more with its models under autocast (bfloat16, float16) or in float64. How far
    rounding alone can drive the losses apart is measured on the program itself: it is run again with what goes into each
    module and comes out of it changed at random by as much as one rounding would. What goes far beyond that is not rounding
    but overflow, a sum that swallows its small terms, an epsilon that is zero in half precision. Dropout is switched off in
    all runs.

    Args:
        train: the training; given ``seed`` if it has a parameter of that name, and nothing else.
        other: the same training in the other precision, where it sets that itself; it is run as it is.
        precision: what the second run computes in, and whose rounding is imitated.
        steps: how many steps are compared; a guess.
        max_drift: how many times as far as with imitated rounding the losses may drift apart; a guess: four healthy
            programs in bfloat16 reached up to 7.5 times.
        seed: set before each run; by convention 0.
        allow: a reason by place: the line of the backward.

    Raises:
        TypeError: ``train`` or ``other`` is no function.
        ValueError: ``train`` raised, or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> check_precision_agrees(lambda: None).asked
        False
    """
    __tracebackhide__ = True
    refuse_unfit(train, "check_precision_agrees(train)")
    if other is not None:
        refuse_unfit(other, "check_precision_agrees(train, train_in_half)", name="other")
    refuse_small(steps=steps)
    if precision not in get_args(Precision):
        raise ValueError(f"precision: {precision!r} is none of {', '.join(get_args(Precision))}")
    if not max_drift > 0:
        raise ValueError(f"max_drift: a number above 0 is needed, not {max_drift!r}")
    need("torch", "check_precision_agrees")
    with attempts(seed=seed, steps=steps) as tries:
        plain = tries.run(train, around=_plainly)
        raise_if_broken(plain)
        lower = tries.run(other or train, around=_plainly if other is not None else _in(precision))
        shaken = [tries.run(train, around=_shaken(UNIT[precision], turn)) for turn in range(SHAKEN)]
    if lower.raised:
        return _raised(lower, precision, max_drift)
    return _judge(plain, lower, shaken, precision, max_drift)


assert_precision_agrees = asserting(check_precision_agrees, name="assert_precision_agrees")


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    from pytest_mltd.probes.snapshots import without_dropout

    with without_dropout():
        yield


def _in(precision: Precision) -> Around:
    @contextlib.contextmanager
    def around() -> Iterator[None]:
        import torch

        with _plainly():
            if precision == "float64":
                with _doubled():
                    yield
                return
            with _autocast_models(getattr(torch, precision)):
                yield

    return around


@contextlib.contextmanager
def _autocast_models(dtype: Any) -> Iterator[None]:
    """Put each outermost call of a module under autocast. Not the whole training: it may make its data by a product too."""
    import torch

    kind: Any = torch.nn.Module
    call, inside = kind.__call__, False

    def call_rounded(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        if inside:
            return call(self, *args, **kwargs)
        inside = True
        try:
            first = next(itertools.chain(self.parameters(), self.buffers()), None)
            with torch.autocast("cpu" if first is None else first.device.type, dtype=dtype):
                return call(self, *args, **kwargs)
        finally:
            inside = False

    kind.__call__ = call_rounded
    try:
        yield
    finally:
        kind.__call__ = call


@contextlib.contextmanager
def _doubled() -> Iterator[None]:
    """Let modules compute in float64. Not through torch's default type: the same seed draws other numbers then."""
    from torch.nn.modules import module

    def double(called: Any, args: Any) -> Any:
        called.double()  # in place: the parameters stay who they are, for the optimizer that holds them
        return tuple(map(_as_double, args))

    handle = module.register_module_forward_pre_hook(double)
    try:
        yield
    finally:
        handle.remove()


def _as_double(value: Any) -> Any:
    import torch

    return value.double() if isinstance(value, torch.Tensor) and value.dtype is torch.float32 else value


def _shaken(unit: float, turn: int) -> Around:
    """Return what changes each floating-point input and output of a module at random by up to ``unit``, relatively."""

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        import torch
        from torch.nn.modules import module

        own = torch.Generator().manual_seed(turn)

        def shake(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                return value
            noise = torch.rand(value.shape, generator=own, dtype=torch.float32).mul_(2).sub_(1).mul_(unit)
            return value * (1 + noise.to(value))

        def shake_all(_: Any, args: Any) -> Any:
            return tuple(map(shake, args))

        with _plainly(), contextlib.ExitStack() as undo:
            before = module.register_module_forward_pre_hook(shake_all)
            undo.callback(before.remove)
            after = module.register_module_forward_hook(lambda _, args, output: shake(output))
            undo.callback(after.remove)
            yield

    return around


def _raised(lower: Attempt, precision: str, max_drift: float) -> Finding:
    error = lower.raised.partition(":")[0].rpartition(".")[2]
    if precision == "float64":
        return not_asked(
            f"with its modules in float64 it raised {lower.raised}",
            next_step="give the training in float64 itself, as in check_precision_agrees(train, train_in_double)",
        )
    return Finding(
        ok=False,
        headline=f"in {precision} the training raised {error} (max_drift={max_drift:g})",
        culprit=error,
        shows=lower.raised,
        next_step="look at what is computed outside of autocast's reach: values stored into a tensor of another type",
    )


def _judge(plain: Attempt, lower: Attempt, shaken: list[Attempt], precision: Precision, max_drift: float) -> Finding:
    found, theirs = curves(plain.trace), curves(lower.trace)
    if not found or not theirs:
        return not_asked("no training was seen: no backward was called")
    curve = found[0]
    mine, low = _losses(plain, curve.name), _losses(lower, theirs[0].name)
    if not all(map(math.isfinite, mine)):
        return not_asked(
            "the losses of the run as it is are not finite", next_step="ask mltd.assert_no_nonfinite(run) of it"
        )
    others = [_losses(run, curve.name) for run in shaken]
    level = max(abs(value) for value in mine)
    reached, rows = UNIT[precision], []
    for step in range(min(len(mine), len(low))):
        # Rounding in what is no module (the loss, a sum by hand) is not imitated: one rounding of the loss is always granted.
        reached = max([reached, *(_drift(run[step], mine[step], level) for run in others if step < len(run))])
        drift = _drift(low[step], mine[step], level)
        rows.append((step, mine[step], low[step], drift / reached))
        if not drift <= max_drift * reached:
            return _too_far(curve.name, rows, precision, max_drift)
    if not rows:
        return not_asked("no step in common")
    worst = max(row[3] for row in rows)
    return Finding(
        ok=True,
        headline=(
            f"in {precision} the losses drift {worst:.2g} times as far as rounding alone explains (max_drift={max_drift:g})"
        ),
        amount=worst,
        limit=("max_drift", max_drift),
        looked_at=f"the losses {curve.name} of {len(rows)} steps, and {len(others)} runs with rounding imitated",
    )


def _losses(attempt: Attempt, name: str) -> list[float]:
    return next((list(map(float, c.value)) for c in curves(attempt.trace) if c.name == name), [])


def _drift(value: float, other: float, level: float) -> float:
    distance = abs(value - other) / level if level else abs(value - other)
    return distance if math.isfinite(distance) else math.inf


def _too_far(name: str, rows: list[tuple[int, float, float, float]], precision: str, max_drift: float) -> Finding:
    step, mine, low, times = rows[-1]
    finite = math.isfinite(low)
    became = f"{times:.3g} times as far off as rounding explains" if finite else "not finite"
    return Finding(
        ok=False,
        headline=(
            f"in {precision} the loss {name} is {became} at step {step}: {low:.6g} instead of {mine:.6g} "
            f"(max_drift={max_drift:g})"
        ),
        culprit=name,
        amount=times,
        limit=("max_drift", max_drift),
        step=step,
        table=Table(("step", "loss as it is", precision, "times rounding"), tuple(rows[-6:]), len(rows[-6:]) - 1),
        shows="Rounding what goes into each module and comes out of it as that precision does moves the losses by far less."
        if finite
        else "As it is the run stays finite: something exceeds what that precision can hold, or becomes zero in it.",
        next_step="look for large sums, masks of -1e9, an epsilon below 1e-7, a softmax or norm by hand; keep those in float32",
    )
