"""Judgement of how a model's answers move: with later inputs, with the other samples of a batch, with the seed.

Imported once torch is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pytest_mltd.core.asking import sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.probes import copies, moving, sequences
from pytest_mltd.probes.copies import Arguments, CannotAsk, Copy
from pytest_mltd.probes.moving import Place
from pytest_mltd.probes.sequences import Sequence


def leak(copy: Copy, sequence: Sequence, max_move: float, allow: Mapping[str, str] | None) -> Finding:
    """Judge whether answers of a copy move when later elements of the sequence do."""
    value = copies.named_tensors(copy.arguments)[sequence.argument]
    answers = moving.steady(copy)
    limit = moving.limit_for(answers, max_move)
    by_moment = [sequences.by_moment(a, value, sequence.axis) for a in answers]
    output = next((i for i, a in enumerate(by_moment) if a is not None), None)
    moments = value.shape[sequence.axis]
    if output is None:
        return not_asked(f"no output has the {moments} moments of {sequence.argument}")
    tries = [_tried(copy, sequence, output, said, first) for said, first in _beginnings(sequence)]
    worst = max(tries, key=lambda t: t.moved)
    if worst.moved > limit:
        return _leaking(copy, sequence, tries, worst, limit, allow)
    rows = value.shape[1 - sequence.axis]
    return Finding(
        ok=True,
        headline=f"earlier outputs do not see later inputs (max_move={limit:g})",
        amount=worst.moved,
        limit=("max_move", limit),
        looked_at=f"{rows} sequences of {moments}; earlier outputs moved by {number(worst.moved, 2)} of their spread",
    )


@dataclass(frozen=True, slots=True)
class _Try:
    """Later inputs were changed from a moment on (told for each sample): how far earlier outputs moved, and which most."""

    said: str
    first: Tensor
    other: Arguments
    moved: float
    at: int


def _beginnings(sequence: Sequence) -> Iterator[tuple[str, Tensor]]:
    if bool(sequence.counts.all()):
        yield "the second half", torch.full_like(sequence.last, sequence.counts.shape[1] // 2)
    yield "the last one", sequence.last


def _tried(copy: Copy, sequence: Sequence, output: int, said: str, first: Tensor) -> _Try:
    value = copies.named_tensors(copy.arguments)[sequence.argument]
    other = sequences.later_changed(copy.arguments, sequence, first)
    again = copy.answers(other)
    before = sequences.by_moment(copy.plain()[output], value, sequence.axis)
    after = sequences.by_moment(again[output], value, sequence.axis) if output < len(again) else None
    if before is None or after is None or before.shape != after.shape:
        raise CannotAsk("the shape of the answer goes with the inputs")
    return _Try(said, first, other, *_moved_earlier(before, after, sequence, first))


def _leaking(
    copy: Copy, sequence: Sequence, tries: list[_Try], worst: _Try, limit: float, allow: Mapping[str, str] | None
) -> Finding:
    value = copies.named_tensors(copy.arguments)[sequence.argument]
    part = _earlier(value, sequence.axis, int(worst.first.min()))
    place = moving.first_moved(copy, worst.other, part, limit, _kinds(copy))
    culprit = (place.name if place is not None else "") or type(copy.model).__name__
    kept, allowed = sift(allow, [culprit])
    rows = [(t.said, "the moments before it", t.moved) for t in tries]
    return Finding(
        ok=not kept,
        headline=(
            f"outputs of {type(copy.model).__name__} see later inputs: that of moment {worst.at} moved by "
            f"{number(worst.moved, 3)} of the spread when only later ones changed{_said(place)} (max_move={limit:g})"
        ),
        culprit=culprit,
        amount=worst.moved,
        limit=("max_move", limit),
        table=Table(("inputs that changed", "outputs that must stay", "moved by"), tuple(rows), _largest(rows)),
        shows="What is to be predicted, the next input, can be read off the inputs; at use it is not there yet.",
        next_step=f"mask the future {_where(place)}: is_causal=True, a triangular mask, padding on the left only",
        allowed=allowed,
    )


def mixing(copy: Copy, axis: int, max_move: float, allow: Mapping[str, str] | None) -> Finding:
    """Judge whether the last sample's answer moves when the others are replaced."""
    tensors = copies.named_tensors(copy.arguments)
    sizes = [t.shape[axis] for t in tensors.values() if t.dim() > axis]
    rows = max(sizes, default=0)
    if rows < 2:
        return not_asked("a batch of at least 2 samples is needed")
    other = copy.arguments
    for name, value in tensors.items():
        if value.dim() > axis and value.shape[axis] == rows:
            other = copies.with_argument(other, name, _others_replaced(value, axis))
    replaced = copies.named_tensors(other)
    if all(bool((replaced[n] == t).all()) for n, t in tensors.items()):
        return not_asked("all samples but the last are the same")
    answers = moving.steady(copy)
    limit = moving.limit_for(answers, max_move)
    again = copy.answers(other)
    judged = [
        (i, a.select(axis, -1), b.select(axis, -1), a)
        for i, (a, b) in enumerate(zip(answers, again, strict=False))
        if a.dim() > axis and a.shape[axis] == rows == b.shape[axis] and a.shape == b.shape
    ]
    if not judged:
        return not_asked(f"no output has the {rows} samples along axis {axis}")
    moves = [(f"output {i}", str(tuple(whole.shape)), _moved(a, b, whole)) for i, a, b, whole in judged]
    moved = max(moved for _, _, moved in moves)
    if moved <= limit:
        return Finding(
            ok=True,
            headline=f"the last sample's answer stays when the {rows - 1} others are replaced (max_move={limit:g})",
            amount=moved,
            limit=("max_move", limit),
            looked_at=f"{rows} samples, {len(moves)} {'output' if len(moves) == 1 else 'outputs'}",
        )
    return _mixed(copy, other, axis, rows, moves, limit, allow)


def _mixed(
    copy: Copy,
    other: Arguments,
    axis: int,
    rows: int,
    moves: list[tuple[str, str, float]],
    limit: float,
    allow: Mapping[str, str] | None,
) -> Finding:
    def part(tensor: Tensor) -> Tensor | None:
        return tensor.select(axis, -1) if tensor.dim() > axis and tensor.shape[axis] == rows else None

    at = _largest(moves)
    moved = moves[at][2]
    place = moving.first_moved(copy, other, part, limit, _kinds(copy))
    culprit = (place.name if place is not None else "") or type(copy.model).__name__
    kept, allowed = sift(allow, [culprit])
    return Finding(
        ok=not kept,
        headline=(
            f"the answer of {type(copy.model).__name__} for one sample moved by {number(moved, 3)} of the spread when only "
            f"the other {rows - 1} in the batch changed{_said(place)} (max_move={limit:g})"
        ),
        culprit=culprit,
        amount=moved,
        limit=("max_move", limit),
        table=Table(("output", "shape", "moved by"), tuple(moves), at),
        shows="In eval mode too a sample's answer goes with its neighbours: a batch of one will be answered differently.",
        next_step=f"look for the wrong axis {_where(place)}: batch_first=False, softmax, mean or norm over dim=0",
        allowed=allowed,
    )


def noise(copy: Copy, max_move: float, allow: Mapping[str, str] | None) -> Finding:
    """Judge whether answers differ between two seeds."""
    answers, again = moving.finite(copy.plain()), copy.plain(seed=1)
    if [a.shape for a in answers] != [b.shape for b in again]:
        return not_asked("the shape of the answer differs each time")
    limit = moving.limit_for(answers, max_move)
    moves = [
        (f"output {i}", str(tuple(a.shape)), moving.move(a, b))
        for i, (a, b) in enumerate(zip(answers, again, strict=True))
    ]
    at = _largest(moves)
    moved = moves[at][2]
    if moved <= limit:
        return Finding(
            ok=True,
            headline=f"the same input is answered the same under two seeds (max_move={limit:g})",
            amount=moved,
            limit=("max_move", limit),
            looked_at=f"{len(moves)} {'output' if len(moves) == 1 else 'outputs'}, in eval mode",
        )
    place = moving.first_moved(copy, copy.arguments, lambda t: t, limit, _kinds(copy), seeds=(0, 1))
    culprit = (place.name if place is not None else "") or type(copy.model).__name__
    kept, allowed = sift(allow, [culprit])
    return Finding(
        ok=not kept,
        headline=(
            f"{type(copy.model).__name__} in eval mode answers the same input differently: moved by {number(moved, 3)} of "
            f"the spread between two seeds{_said(place)} (max_move={limit:g})"
        ),
        culprit=culprit,
        amount=moved,
        limit=("max_move", limit),
        table=Table(("output", "shape", "moved by"), tuple(moves), at),
        shows="Something draws random numbers although the model is in eval mode.",
        next_step=f"look {_where(place)} for F.dropout(x) without training=self.training, or allow it if it samples on purpose",
        allowed=allowed,
    )


def _moved_earlier(before: Tensor, after: Tensor, sequence: Sequence, first: Tensor) -> tuple[float, int]:
    """Return how far the counting outputs before the changed moments moved, and the moment of the largest move."""
    length = before.shape[1]
    at = torch.arange(length, device=before.device)
    judged = (at[None, :] < first.to(before.device)[:, None]) & sequence.counts[:, :length].to(before.device)
    if before.shape != after.shape or not bool(judged.any()):
        return 0.0, 0
    spread = float(before.double().std(correction=0)) or float(before.double().abs().max()) or 1.0
    change = (before.double() - after.double()).abs().nan_to_num(nan=math.inf).reshape(*before.shape[:2], -1).amax(-1)
    change = torch.where(judged, change, torch.zeros_like(change))
    largest = change.max(0).values
    return float(largest.max()) / spread, int(largest.argmax())


def _earlier(value: Tensor, axis: int, first: int) -> moving.Part:
    """Return the part of a module's tensor that is about the moments before ``first``."""
    rows, moments = value.shape[1 - axis], value.shape[axis]

    def part(tensor: Tensor) -> Tensor | None:
        shape = tuple(tensor.shape)
        if shape[:2] == (rows, moments):
            return tensor.narrow(1, 0, first)
        if shape[:2] == (moments, rows):
            return tensor.narrow(0, 0, first)
        if len(shape) == 3 and shape[0] == rows and shape[2] == moments:  # convolutions have their channels first
            return tensor.narrow(2, 0, first)
        return None

    return part


def _others_replaced(value: Tensor, axis: int) -> Tensor:
    """Return the batch with each sample but the last replaced: all by the second, that by the first; of two, by the last."""
    rows = value.shape[axis]
    chosen = [*((0 if i == 1 else 1) for i in range(rows - 1)), rows - 1]
    return value.index_select(axis, torch.tensor(chosen, device=value.device))


def _moved(before: Tensor, after: Tensor, whole: Tensor) -> float:
    spread = float(whole.double().std(correction=0)) or float(whole.double().abs().max()) or 1.0
    return float((before.double() - after.double()).abs().nan_to_num(nan=math.inf).max()) / spread


def _largest(rows: list[tuple[Any, Any, float]]) -> int:
    return max(range(len(rows)), key=lambda i: rows[i][2])


def _kinds(copy: Copy) -> dict[str, str]:
    return {name: type(module).__name__ for name, module in copy.model.named_modules()}


def _said(place: Place | None) -> str:
    return f", first {place.said}" if place is not None else ""


def _where(place: Place | None) -> str:
    return f"in {place.name!r}" if place is not None and place.name else "in forward"
