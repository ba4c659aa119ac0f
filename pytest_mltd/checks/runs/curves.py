"""What the losses of a run did, as the questions need it: one `Curve` for each place where backward was called."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.runs.places import name_at
from pytest_mltd.core.traces import Trace

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Curve:
    """One loss stream, one value a step: the mean of the step's backwards (accumulation, closures)."""

    name: str
    step: Steps
    value: Floats

    @property
    def finite(self) -> Floats:
        """The values before the first that is not finite."""
        bad = np.flatnonzero(~np.isfinite(self.value))
        return self.value[: bad[0]] if bad.size else self.value

    @property
    def noisy(self) -> bool:
        """Whether it changes by half or more from step to step throughout, as with batches of one row."""
        jumps = np.abs(np.diff(np.log(np.fmax(np.abs(self.finite[:1000]), 1e-30))))
        return bool(jumps.size >= 10 and float(np.median(jumps)) > 0.5)

    @property
    def start(self) -> float:
        """The level at which the loss began: its first value, or the median of the first ten where it is noisy and higher.

        Elsewhere the first value counts alone: a loss may fall fourfold, or explode, in the very first step.
        """
        v = self.finite
        if not v.size:
            return math.nan
        return float(max(v[0], np.median(v[:10])) if self.noisy else v[0])

    @property
    def late(self) -> float:
        """The level at which the loss ended: the median of its last twentieth, at least five values."""
        tail = self.finite[-max(5, self.finite.size // 20) :]
        return float(np.median(tail)) if tail.size else math.nan

    @property
    def lowest(self) -> float:
        """The lowest level it held: the least of the medians of up to a hundred blocks of at least five values."""
        return float(block_medians(self.finite).min()) if self.finite.size else math.nan

    @property
    def signed(self) -> bool:
        """Whether it takes both signs, or is zero at the start: there is no level then to multiply."""
        v = self.finite
        return bool(v.size and (float(np.quantile(v, 0.02)) < 0 or self.start <= 0))


def curves(trace: Trace) -> tuple[Curve, ...]:
    """Return the training losses of a run, the longest stream first; where none was recorded, those that were
    logged."""
    stream, step, value = trace.losses["stream"], trace.losses["step"], trace.losses["value"]
    if not step.size:
        return _logged(trace, held_out=False)
    found = []
    for index in np.unique(stream):
        here = stream == index
        # Without steps (weights updated by hand, a scaler that skips them all) each backward stands for one.
        at, mean = _mean_by_step(step[here] if trace.n_steps else np.arange(here.sum()), value[here])
        name = trace.streams[index] if 0 <= index < len(trace.streams) else f"stream {index}"
        found.append(Curve(name, at, mean))
    return tuple(sorted(found, key=lambda c: -c.step.size))


def validations(trace: Trace) -> tuple[Curve, ...]:
    """Return the validation losses of a run, one value a pass (all batches between two steps), the most passes first.

    Where none was recorded, those that were logged under a name such as ``val/loss`` or ``eval_loss``.
    """
    stream, step, value = trace.val["stream"], trace.val["step"], trace.val["value"]
    if not step.size:
        return _logged(trace, held_out=True)
    found = []
    for index in np.unique(stream):
        here = stream == index
        name = trace.streams[index] if 0 <= index < len(trace.streams) else "validation"
        found.append(Curve("val/loss" if name == "scalars" else name, *_mean_by_step(step[here], value[here])))
    return tuple(sorted(found, key=lambda c: -c.step.size))


def block_medians(values: Floats, blocks: int = 100, shortest: int = 5) -> Floats:
    """Return the medians of up to ``blocks`` equal blocks, each of at least ``shortest`` values."""
    length = max(shortest, -(-values.size // blocks))
    whole = values[: values.size // length * length]
    if not whole.size:
        return np.array([np.median(values)])
    return np.asarray(np.median(whole.reshape(-1, length), axis=1), dtype=np.float64)


def trailing_median(values: Floats, width: int = 25) -> Floats:
    """Return at each place the median of the ``width`` values before it (fewer at the start, NaN where there is
    none)."""
    return _trailing(values, width, 0.5)


def trailing_high(values: Floats, width: int = 25) -> Floats:
    """Return at each place the second highest of the ``width`` values before it: a high that one odd value does
    not make."""
    return _trailing(values, width, 1 - 1 / (width - 1))


def _trailing(values: Floats, width: int, quantile: float) -> Floats:
    found = np.full(values.size, np.nan)
    if values.size > width:
        windows = np.lib.stride_tricks.sliding_window_view(values[:-1], width)
        rank = round(quantile * (width - 1))
        found[width:] = np.partition(windows, rank, axis=1)[:, rank]
    for i in range(1, min(width + 1, values.size)):
        found[i] = np.quantile(values[:i], quantile, method="nearest") if i < width else found[i]
    return found


def moving_target(trace: Trace) -> str:
    """Say why the loss of this run may honestly rise or stay flat, or return "".

    A second optimizer that trains against the first (GAN, actor and critic), and a network that is evaluated without
    gradients in most steps (target network, teacher, bootstrapped values), move what the loss is measured against.
    """
    owners = trace.steps["optimizer"]
    busy = [i for i in np.unique(owners) if i >= 0 and (owners == i).sum() >= 0.1 * owners.size]
    if len(busy) > 1 and len({c.name for c in curves(trace)}) > 1:
        return f"{len(busy)} optimizers train against {len(trace.streams)} losses"
    teacher = _teacher(trace)
    return f"'{teacher}' is evaluated without gradients in most steps: the loss may follow it" if teacher else ""


def no_training(trace: Trace) -> str:
    """Say in one sentence why there is nothing to ask of this run's training, or return ""."""
    if trace.n_steps or trace.losses["step"].size or _logged(trace, held_out=False):
        return ""
    off = next((note for note in trace.notes if "MLTD_OFF" in note), "")
    if off:
        return off
    return "nothing was trained while recording: no backward and no optimizer step (is the training inside the block?)"


def no_steps(trace: Trace) -> str:
    """Say in one sentence why questions about optimizer steps cannot be asked, or return ""."""
    if trace.n_steps:
        return ""
    backwards = trace.losses["step"].size
    if trace.level == "scalars" and backwards:
        return f"the log has {backwards:,} losses, and nothing of the steps behind them"
    return no_training(trace) or (
        f"backward ran {backwards:,} times, but no optimizer step was seen (weights updated by hand are not watched)"
    )


def too_short(trace: Trace, have: int, need: int, what: str = "steps") -> str:
    """Say how many steps there were and how many it takes, or return "" when there were enough."""
    if have >= need:
        return ""
    return f"{have:,} of at least {need:,} {what}" + (f"; the run {trace.ending}" if trace.cut else "")


def _mean_by_step(step: Steps, value: Floats) -> tuple[Steps, Floats]:
    at, index = np.unique(step, return_inverse=True)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.bincount(index, weights=value, minlength=at.size)
    return at.astype(np.int64), total / np.bincount(index, minlength=max(at.size, 1))[: at.size]


_HELD_OUT: Final = frozenset({"val", "valid", "validation", "eval", "evaluation", "test", "dev", "heldout"})
_TRAINING: Final = frozenset({"train", "training", "trn", "tr"})
_BESIDE: Final = frozenset({"epoch", "step", "batch", "iter", "avg", "mean", "running", "total", "smooth", "loss"})


def _logged(trace: Trace, *, held_out: bool) -> tuple[Curve, ...]:
    """Return the logged numbers whose names say that they are a loss: of training, or of held-out samples."""
    if "log" in trace.provenance:
        return ()  # what was read from another tool's log was chosen by name already, and left out what cannot be judged
    found = []
    for name in dict.fromkeys(trace.names[i] for i in np.unique(trace.logged["name"]) if 0 <= i < len(trace.names)):
        words = set(re.split("[^a-z]+", re.sub("([a-z])([A-Z])", r"\1_\2", name).lower())) - {""}
        part = words & (_HELD_OUT if held_out else _TRAINING)
        if "loss" in words and words <= part | _BESIDE and (part or not held_out):
            found.append(Curve(name, *_mean_by_step(*trace.scalars(name))))
    return tuple(sorted(found, key=lambda c: -c.step.size))


def _teacher(trace: Trace) -> str:
    """Return the root module that runs without gradients in at least half of the steps, where that is no validation."""
    calls = trace.of("forward") & (trace.calls["grad"] == 0)
    if not trace.n_steps or not calls.any():
        return ""
    validated = np.unique(trace.val["step"])
    for who in np.unique(trace.calls["who"][calls]):
        steps = np.setdiff1d(trace.calls["step"][calls & (trace.calls["who"] == who)], validated)
        if who >= 0 and steps.size >= 0.5 * trace.n_steps:
            return name_at(trace, int(who))
    return ""
