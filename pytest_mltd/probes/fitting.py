"""Judgement of a model's answers against its targets, by the loss: the first loss, and shapes that stretch each other.

Imported once torch is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from pytest_mltd.core.asking import sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.probes.copies import Copy


def initial(
    copy: Copy, loss: Callable[..., Any], targets: Any, max_ratio: float, allow: Mapping[str, str] | None
) -> Finding:
    answer = copy.plain()[0]
    value, nothing = _loss(loss, answer, targets), _loss(loss, torch.zeros_like(answer), targets)
    if not (math.isfinite(nothing) and nothing > 0):
        return not_asked(f"the loss of an answer of zeros is {number(nothing)}: there is nothing to compare with")
    ratio = value / nothing
    kept, allowed = sift(allow, ["loss"])
    ok = ratio <= max_ratio
    return Finding(
        ok=ok or not kept,
        headline=(
            f"the loss of {type(copy.model).__name__} is {number(value)}, {number(ratio, 3)} times that of an answer of "
            f"zeros (max_ratio={max_ratio:g})"
        ),
        culprit="loss",
        amount=ratio,
        limit=("max_ratio", max_ratio),
        table=Table(("answer", "loss"), ((type(copy.model).__name__, value), ("zeros", nothing)), 0),
        shows="A model that has learned nothing yet is surer of its answers than one that knows nothing.",
        next_step="scale the inputs, or the initial weights of the last layer, down",
        looked_at=f"answers of shape {tuple(answer.shape)}",
        allowed=() if ok else allowed,
    )


def broadcast(copy: Copy, loss: Callable[..., Any], targets: Any, allow: Mapping[str, str] | None) -> Finding:
    answer = copy.plain()[0]
    shape, given = tuple(answer.shape), tuple(getattr(targets, "shape", ()))
    value = _loss(loss, answer, targets)
    looked_at = f"answers of shape {shape}, targets of shape {given}"
    passed = Finding(
        ok=True, headline="answers and targets are held against each other one to one", looked_at=looked_at
    )
    if not isinstance(targets, torch.Tensor) or shape == given or answer.numel() != targets.numel():
        return passed
    try:
        stretched = tuple(torch.broadcast_shapes(shape, given))  # type: ignore[no-untyped-call]
        straight = _loss(loss, answer, targets.reshape(shape))
    except (RuntimeError, ValueError):
        return passed
    if math.prod(stretched) <= answer.numel() or math.isclose(value, straight, rel_tol=1e-5):
        return passed
    kept, allowed = sift(allow, ["loss"])
    return Finding(
        ok=not kept,
        headline=f"the loss compares answers of shape {shape} with targets of shape {given}: {stretched}, all with all",
        culprit="loss",
        amount=math.prod(stretched),
        table=Table(("compared", "loss"), (("all with all", value), ("one to one", straight)), 0),
        shows="Each answer is held against every target, so the best answer is the targets' mean.",
        next_step=f"give both one shape: answers.reshape({given}), or targets.reshape({shape})",
        allowed=allowed,
    )


def _loss(loss: Callable[..., Any], answer: Any, targets: Any) -> float:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(torch.as_tensor(loss(answer.clone(), targets)).double().mean())
    except Exception as error:
        raise ValueError(f"loss: it refused the model's answer of shape {tuple(answer.shape)}: {error}") from error
