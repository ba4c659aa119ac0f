"""Inputs that are sequences whose targets are the next element: which axis is time, and what of an answer belongs to a moment.

Imported once torch is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from pytest_mltd.probes.copies import Arguments, CannotAsk, named_tensors, with_argument
from pytest_mltd.probes.moving import next_values

_SAME: Final = 0.99  # share of the targets that are the next input; a guess: an end or a pad in between
_ENOUGH: Final = 8  # targets that are looked at, at the least; a guess
_LOOKED: Final = 4096  # values that are looked at for their variety
_TARGETS: Final = ("label", "target", "tgt_out", "y")  # names of arguments that only the loss inside of a model reads


@dataclass(frozen=True, slots=True)
class Sequence:
    """An argument that is a sequence. ``axis`` is its time; ``last`` the last moment of each sample whose target counts,
    and ``counts`` which do (samples × moments)."""

    argument: str
    axis: int
    counts: Tensor

    @property
    def last(self) -> Tensor:
        """The last moment that counts, for each sample."""
        at = torch.arange(self.counts.shape[1], device=self.counts.device)
        return torch.where(self.counts, at, -1).max(1).values


def sequence_in(arguments: Arguments, targets: Tensor) -> Sequence | None:
    """Return the argument whose next elements the targets are, None where there is none. The last one, if there are more:
    what is decoded comes after what is encoded."""
    found = None
    for name, value in named_tensors(arguments).items():
        if any(name == t or t in name for t in _TARGETS if len(t) > 1) or name == "y":
            continue
        for axis in (1, 0):
            counts = _next_of(value, targets, axis)
            if counts is not None:
                found = Sequence(name, axis, counts)
                break
    return found


def plain_sequence(arguments: Arguments, argument: str, axis: int) -> Sequence:
    """Return the argument of that name (the first that is long enough, if it is "") as a sequence all of whose moments count.

    Raises:
        ValueError: there is no such argument, or it has no such axis.
    """
    tensors = named_tensors(arguments)
    if argument and argument not in tensors:
        raise ValueError(f"argument: no tensor {argument!r} among the inputs; there are {', '.join(tensors)}")
    for name, value in tensors.items():
        if argument in ("", name) and value.dim() >= 2 and value.shape[axis] >= 2:
            rows = value.shape[1 - axis]
            counts = torch.ones(rows, value.shape[axis], dtype=torch.bool, device=value.device)
            return Sequence(name, axis, counts)
    raise ValueError(f"axis: no input has two moments along axis {axis}; shapes are {_shapes(tensors)}")


def later_changed(arguments: Arguments, sequence: Sequence, first: Tensor) -> Arguments:
    """Return the arguments with the sequence changed from a moment on, which is told for each sample.

    Raises:
        CannotAsk: all its values are the same.
    """
    value = named_tensors(arguments)[sequence.argument]
    at = torch.arange(value.shape[sequence.axis], device=value.device)
    later = at[None, :] >= first[:, None]
    if sequence.axis == 0:
        later = later.T
    later = later.reshape(later.shape + (1,) * (value.dim() - 2))
    for other in _others(value, sequence.axis):
        changed = torch.where(later, other, value)
        if not torch.equal(changed, value):
            return with_argument(arguments, sequence.argument, changed)
    raise CannotAsk("all inputs of the sequence are the same")


def by_moment(answer: Tensor, value: Tensor, axis: int) -> Tensor | None:
    """Return an answer as samples × moments × what it says of them; None where it has no moments.

    An answer may be one moment shorter than the sequence, its rows may be all moments of all samples, and its classes may
    stand before its moments.
    """
    rows, moments = value.shape[1 - axis], value.shape[axis]
    for length in (moments, moments - 1):
        if length < 1:
            continue
        lead = (rows, length) if axis == 1 else (length, rows)
        if answer.dim() >= 2 and tuple(answer.shape[:2]) == lead:
            found = answer
        elif answer.dim() == 2 and answer.shape[0] == rows * length and answer.shape[0] != rows:
            found = answer.reshape(*lead, -1)
        elif axis == 1 and answer.dim() == 3 and answer.shape[0] == rows and answer.shape[2] == length:
            found = answer.transpose(1, 2)
        else:
            continue
        return found if axis == 1 else found.transpose(0, 1)
    return None


def _others(value: Tensor, axis: int) -> Iterator[Tensor]:
    """Yield other values for a sequence: of the next sample, of other moments; of these kinds the model has seen some."""
    yield value.roll(1, 1 - axis)
    yield value.flip(axis)
    if not value.is_floating_point() and (following := next_values(value)) is not None:
        yield following


def _next_of(value: Tensor, targets: Tensor, axis: int) -> Tensor | None:
    """Return which targets (samples × moments) count, if they are the next elements along the axis."""
    if value.dim() < 2 or value.shape[axis] < 3 or value.dtype == torch.bool or targets.device != value.device:
        return None
    if value.is_floating_point() != targets.is_floating_point():
        return None
    whole = value if axis == 1 else value.transpose(0, 1)
    rows, moments, rest = whole.shape[0], whole.shape[1], tuple(whole.shape[2:])
    size = whole[0, 0].numel()
    length = targets.numel() // (rows * size) if targets.numel() % (rows * size) == 0 else 0
    if length not in (moments, moments - 1):
        return None
    shaped = targets.reshape((rows, length, *rest) if axis == 1 else (length, rows, *rest))
    shaped = shaped if axis == 1 else shaped.transpose(0, 1)
    counts = torch.ones(rows, length, dtype=torch.bool) if targets.is_floating_point() else shaped >= 0
    if counts.dim() != 2:
        return None
    following = whole[:, 1:]
    ahead, now = shaped[:, : moments - 1], whole[:, : moments - 1]
    same, still = _equal(ahead, following), _equal(now, following)
    looked = counts[:, : moments - 1]
    if int(looked.sum()) < _ENOUGH or len(set(whole.flatten()[:_LOOKED].tolist())) < 3:
        return None
    if float(same[looked].double().mean()) < _SAME or float(still[looked].double().mean()) > 0.5:
        return None
    return counts


def _equal(first: Tensor, second: Tensor) -> Tensor:
    same = torch.isclose(first.double(), second.double(), rtol=1e-5, atol=1e-7)
    return same.reshape(*same.shape[:2], -1).all(-1)


def _shapes(tensors: dict[str, Tensor]) -> str:
    return ", ".join(str(tuple(t.shape)) for t in tensors.values())
