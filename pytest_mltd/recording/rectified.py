"""Which units behind a ReLU are zero for every row: told from the graph, so that ``F.relu`` is seen as ``nn.ReLU`` is."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pytest_mltd.recording import graph, memory
from pytest_mltd.recording.graph import Node

RELU: Final = "ReluBackward0"
_LEAF: Final = "torch::autograd::AccumulateGrad"
_MOST_VALUES: Final = 1 << 18  # of one output that are looked at
_MOST_HOPS: Final = 8  # nodes between a ReLU and the layer before it; a guess
_KEPT: Final = 12


class Silence:
    """The units behind the ReLUs of one layer, over the walks."""

    def __init__(self, units: int) -> None:
        self.units = units
        self._always = np.ones(units, dtype=np.bool_)  # zero in every look
        self._counts: list[int] = []  # of silent units, in each of the last looks
        self._looks = 0
        self._rows = 0

    def add(self, silent: NDArray[np.bool_], rows: int) -> None:
        """Take one look."""
        self._always &= silent
        self._counts = [*self._counts, int(silent.sum())][-_KEPT:]
        self._looks += 1
        self._rows = max(self._rows, rows)

    def details(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "units": self.units,
            "silent": list(self._counts),
            "always_silent": int(self._always.sum()),
            "looks": self._looks,
            "rows": self._rows,
        }


def silent_units(node: Node, layer: Tensor) -> tuple[NDArray[np.bool_], int] | None:
    """Return which units behind a ReLU are zero for every row (and place) looked at, and how many rows those are.

    Args:
        node: a ReLU's.
        layer: a parameter of the layer before it; its first axis is as long as there are units.
    """
    result = graph.saved(node, "result")
    if result is None or result.dim() < 2 or not result.numel() or not layer.dim():
        return None
    units = layer.shape[0]
    axis = next((a for a in (1, result.dim() - 1) if result.shape[a] == units), None)
    if axis is None:
        return None
    each = result.numel() // result.shape[0]
    some = result[: max(1, _MOST_VALUES // each)]
    values = memory.floats(some.float().contiguous()).reshape(some.shape)
    highest = np.maximum.reduce(values, axis=tuple(a for a in range(values.ndim) if a != axis))
    return highest <= 0, values.shape[0]


def layer_before(node: Node) -> Tensor | None:
    """Return a parameter of the layer that feeds a node, None where none is near."""
    current: Node | None = graph.inputs_of(node)[0]
    for _ in range(_MOST_HOPS):
        if current is None:
            return None
        behind = [f for f in graph.inputs_of(current) if f is not None]
        for following in behind:
            leaf = graph.sole_input(following) if following.name() == "TBackward0" else following
            if leaf is not None and leaf.name() == _LEAF:
                variable = getattr(leaf, "variable", None)
                return variable if isinstance(variable, Tensor) else None
        current = behind[0] if behind else None
    return None
