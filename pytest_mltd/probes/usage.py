"""Judgement of what a model uses: its parameters, its arguments, the columns of its features.

Imported once torch is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from pytest_mltd.core.asking import sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.probes import copies, moving
from pytest_mltd.probes.copies import CannotAsk, Copy

_SHOWN: Final = 10  # rows of a table
_COLUMNS: Final = 32  # columns that are tried one by one


def unused(copy: Copy, allow: Mapping[str, str] | None) -> Finding:
    named = {n: p for n, p in copy.model.named_parameters() if p.is_floating_point() or p.is_complex()}
    if not named:
        return not_asked("the model has no parameters")
    copy.plain()  # it must at least run
    used: set[str] = set()
    for train in (False, True):
        try:
            used |= _reached(copy, named, train)
        except CannotAsk:
            if not train:
                raise
    unused = [name for name in named if name not in used]
    if not used:
        return not_asked("no gradient leads from any output to a parameter")
    kept, allowed = sift(allow, unused)
    looked_at = f"{len(named)} parameters"
    if not kept:
        return Finding(
            ok=True, headline="some output depends on each parameter", looked_at=looked_at, allowed=allowed, amount=0
        )
    rows = tuple((n, str(tuple(named[n].shape)), named[n].numel()) for n in kept[: _SHOWN + 1])
    more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
    return Finding(
        ok=False,
        headline=f"no output depends on {kept[0]}{more}, of {len(named)} parameters",
        culprit=kept[0],
        amount=len(kept),
        table=Table(("parameter", "shape", "values"), rows, 0),
        shows="No gradient leads there from any output, neither in train nor in eval mode.",
        next_step=f"use {kept[0].rpartition('.')[0] or kept[0]} in forward, or remove it",
        allowed=allowed,
    )


def _reached(copy: Copy, named: Mapping[str, Any], train: bool) -> set[str]:
    with torch.enable_grad():
        for parameter in named.values():
            parameter.requires_grad_(True)
        outputs = [o for o in copy.outputs(copy.arguments, train=train) if o.requires_grad]
        if not outputs:
            return set()
        total = torch.stack([o.double().sum() for o in outputs]).sum()
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}


def ignored(copy: Copy, allow: Mapping[str, str] | None) -> Finding:
    answers = moving.steady(copy)
    tensors = copies.named_tensors(copy.arguments)
    places: list[tuple[str, str]] = []
    asked = []
    for name, value in tensors.items():
        other = moving.changed(value)
        if other is None or not value.numel():
            continue
        asked.append(name)
        if not _answers_move(copy, answers, name, other):
            places.append((name, str(tuple(value.shape))))
        elif value.is_floating_point() and value.dim() == 2:
            places += [(f"{name}[{c}]", "one column") for c in _ignored_columns(copy, answers, name, value, other)]
    if not asked:
        return not_asked("no input has values that could be replaced")
    kept, allowed = sift(allow, [place for place, _ in places])
    if not kept:
        return Finding(
            ok=True, headline="each input changes an output", looked_at=", ".join(asked), allowed=allowed, amount=0
        )
    rows = tuple((place, shape, "no") for place, shape in places if place in kept)[: _SHOWN + 1]
    more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
    return Finding(
        ok=False,
        headline=f"{type(copy.model).__name__} ignores {kept[0]}{more}: no output changes with it",
        culprit=kept[0],
        amount=len(kept),
        table=Table(("input", "shape", "any output changed"), rows, 0),
        shows="Its values were replaced by those of other samples, and every output stayed the same.",
        next_step=f"see where forward loses {kept[0]}, or do not pass it",
        allowed=allowed,
    )


def _ignored_columns(copy: Copy, answers: list[Any], name: str, value: Any, other: Any) -> list[int]:
    """Return the columns that no gradient comes back to and that change nothing when they are replaced."""
    with torch.enable_grad():
        leaf = value.detach().clone().requires_grad_(True)
        args, kwargs = copies.with_argument(copy.arguments, name, leaf)
        gradient = copy.gradient((args, kwargs), leaf)
    if gradient is None:
        suspects = list(range(value.shape[1]))
    else:
        suspects = [int(i) for i in (gradient == 0).all(0).nonzero().flatten()]
    silent = []
    for column in suspects[:_COLUMNS]:
        one = value.clone()
        one[:, column] = other[:, column] + other[:, column].abs().max().clamp(min=1.0)
        if not _answers_move(copy, answers, name, one):
            silent.append(column)
    return silent


def _answers_move(copy: Copy, answers: list[Any], name: str, other: Any) -> bool:
    """Whether an output changes; a model that refuses the other values has looked at them."""
    try:
        again = copy.answers(copies.with_argument(copy.arguments, name, other))
    except copies.CannotAsk:
        return True
    return len(again) != len(answers) or any(
        a.shape != b.shape or not bool((a == b).all()) for a, b in zip(answers, again, strict=True)
    )
