"""What a forward does to the axis of the samples that nobody does on purpose. Imported once torch is.

A model may mix the samples of a batch because it should: graphs, sets, clips. These ways to mix are mistakes where each sample
is a sequence with an answer of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_mltd.probes.copies import Copy


def misread(copy: Copy, value: Tensor) -> str:
    """Return a sentence on what takes the first axis of the inputs, the samples', for another; "" where nothing does.

    Args:
        copy: the model, which is run once.
        value: its inputs, samples × elements of a sequence × what else there is.

    Raises:
        CannotAsk: the model raised.
    """
    second = {n: m for n, m in copy.model.named_modules() if getattr(m, "batch_first", None) is False}
    rows = value.shape[0]
    found: list[str] = []

    def watch(name: str, side: str, given: Tensor) -> None:
        if side == "in" and name in second:
            found.append(_on_second(name, second[name], given, rows))

    with torch.no_grad(), _Operations(value) as operations:
        answers = copy.outputs(copy.arguments, watch=watch)
    # where there are as many answers for each sample as elements, or the table's columns are no elements, who shares out
    # samples among answers has a softmax like that
    elements = (value.dim() > 2 or not value.is_floating_point()) and all(
        a.dim() < 2 or a.shape[1] != value.shape[1] for a in answers
    )
    return next(filter(None, (*found, *operations.views, *(operations.softmaxes if elements else ()))), "")


def _on_second(name: str, module: nn.Module, given: Tensor, rows: int) -> str:
    if given.dim() != 3 or given.shape[0] != rows or given.shape[1] == 1:
        return ""
    kind = type(module).__name__
    return (
        f"{name!r} ({kind}, batch_first=False) wants the {rows} samples on its second axis and is given {_size(given)}."
    )


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hears softmaxes over the samples, and views that cut across them, as no view does that keeps samples whole."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.softmaxes: list[str] = []
        self.views: list[str] = []
        self._shape = value.shape[:2]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func._schema.name
        if name in _SOFTMAXES and len(args) > 1 and self._is_over_samples(*args[:2]):
            self.softmaxes.append(f"A softmax runs over the first axis of {_size(args[0])}, which counts the samples.")
        if name in _VIEWS and self._cuts_across(args[0], output):
            self.views.append(
                f"{_size(args[0])} is viewed as {_size(output)}, which mixes the {self._shape[0]} samples: "
                "transpose(0, 1) would not."
            )
        return output

    def _is_over_samples(self, given: Tensor, dim: int) -> bool:
        return given.dim() > 1 and dim % given.dim() == 0 and given.shape[:2] == self._shape

    def _cuts_across(self, before: Tensor, after: Tensor) -> bool:
        """Whether the samples' axis, first or second of three or more, seems to have moved: in a view it cannot."""
        rows = self._shape[0]
        if before.dim() < 3 or after.dim() < 2:
            return False
        first, second = before.shape[:2]
        if first == rows:
            return second not in (1, rows) and after.shape[:2] == (second, rows)
        # of patches of samples × channels, as many as there are samples, the first axis is a multiple
        return second == rows and first > 1 and first % rows != 0 and after.shape[0] == rows


_SOFTMAXES = ("aten::_softmax", "aten::_log_softmax", "aten::_safe_softmax")
_VIEWS = ("aten::view", "aten::_unsafe_view")


def _size(tensor: Tensor) -> str:
    return " × ".join(str(n) for n in tensor.shape)
