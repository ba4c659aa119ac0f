"""How far answers move when a part of what a model was given is changed, and where in the model they begin to.

Imported once torch is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from pytest_mltd.probes.copies import Arguments, CannotAsk, Copy

Part = Callable[[Tensor], Tensor | None]  # the part of a tensor that must not move, None where it has no such part

_COARSE: Final = 0.05  # of the spread: rounding in half precision is thousands of times coarser; a guess
_KEPT: Final = 1 << 18  # values of each module's part that are compared


@dataclass(frozen=True, slots=True)
class Place:
    """Where answers begin to move: a module's name ("" for the model itself), and what to say of it."""

    name: str
    said: str


def move(before: Tensor, after: Tensor) -> float:
    """Return the largest change as a share of the spread (standard deviation) of what was before.

    Raises:
        CannotAsk: the shapes differ.
    """
    if before.shape != after.shape:
        raise CannotAsk(
            f"the shape of the answer goes with the inputs: {tuple(before.shape)}, then {tuple(after.shape)}"
        )
    if not before.numel():
        return 0.0
    first, second = before.double(), after.double()
    spread = float(first.std(correction=0)) or float(first.abs().max()) or 1.0
    return float((first - second).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max()) / spread


def limit_for(answers: list[Tensor], max_move: float) -> float:
    """Return a limit that the rounding of these answers' type cannot pass."""
    return max(max_move, _COARSE) if any(t.dtype in (torch.float16, torch.bfloat16) for t in answers) else max_move


def steady(copy: Copy) -> list[Tensor]:
    """Return the answers, which are finite and the same twice with one seed.

    Raises:
        CannotAsk: they are not.
    """
    answers = finite(copy.plain())
    if copy.steady:
        return answers
    again = copy.answers(copy.arguments)
    if any(a.shape != b.shape or move(a, b) > limit_for(answers, 1e-4) for a, b in zip(answers, again, strict=False)):
        raise CannotAsk("the model answers differently each time, also with one seed")
    copy.steady = True
    return answers


def finite(answers: list[Tensor]) -> list[Tensor]:
    """Return the answers.

    Raises:
        CannotAsk: they are not finite.
    """
    if not all(bool(torch.isfinite(t).all()) for t in answers):
        raise CannotAsk("the model's answers are not finite")
    return answers


def changed(values: Tensor) -> Tensor | None:
    """Return other values of the same kind: those of the next sample, else the next of the values that there are.

    None where there is no other value that is known to be a fair one.
    """
    if values.dtype == torch.bool:
        return ~values
    if values.dim() and values.shape[0] > 1 and not torch.equal(rolled := values.roll(1, 0), values):
        return rolled
    if values.is_floating_point():
        return values + values.abs().max().clamp(min=1.0)
    return next_values(values)


def next_values(values: Tensor) -> Tensor | None:
    """Return each value replaced by the next larger of the values that there are, the largest by the smallest."""
    known: Tensor = torch.unique(values)
    if known.numel() < 2:
        return None
    following: Tensor = known[(torch.searchsorted(known, values.contiguous()) + 1) % known.numel()]
    return following


def first_moved(
    copy: Copy, other: Arguments, part: Part, max_move: float, kinds: dict[str, str], seeds: tuple[int, int] = (0, 0)
) -> Place | None:
    """Return where the part of some tensor first moves, between the copy's own arguments and others. Two forwards.

    Args:
        copy: the model.
        other: the other arguments.
        part: what must not move.
        max_move: as a share of the spread.
        kinds: the class of each module, by its name.
        seeds: of the two forwards.
    """
    try:
        runs = [_parts(copy, a, part, seed) for a, seed in zip((copy.arguments, other), seeds, strict=True)]
    except CannotAsk:  # a scripted module takes no such hooks; that answers moved is known without the place
        return None
    return _first(runs, max_move, kinds)


def _parts(copy: Copy, arguments: Arguments, part: Part, seed: int) -> list[tuple[str, str, Tensor | None]]:
    seen: list[tuple[str, str, Tensor | None]] = []

    def watch(name: str, side: str, value: Tensor) -> None:
        seen.append((name, side, _some(part(value))))

    with torch.no_grad():
        copy.outputs(arguments, seed, watch)
    return seen


def _first(runs: list[list[tuple[str, str, Tensor | None]]], max_move: float, kinds: dict[str, str]) -> Place | None:
    for (name, side, before), (other, _, after) in zip(*runs, strict=False):
        if name != other:
            return None  # the modules are called in another order
        if before is None or after is None or not before.is_floating_point() or before.shape != after.shape:
            continue
        if move(before, after) <= max_move:
            continue
        if side == "out":
            return Place(name, f"in {name!r} ({kinds.get(name, '')})") if name else None
        above = name.rpartition(".")[0]
        code = f"the code of {above!r} ({kinds.get(above, '')})" if above else "the code of the model itself"
        return Place(above, f"in {code}, before {name!r}") if name else None
    return None


def _some(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.reshape(-1)[:_KEPT].clone()
