"""Where the NaN or infinity in a loss was made, as far as the graph of that loss still knows.

The operations of a graph keep some of what they were given and gave. The earliest that shows a number out of order, while what
it was given is in order, is named; a logarithm or a division by what it cannot take is named by that. Nothing is run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from pytest_mltd.recording import graph
from pytest_mltd.recording.graph import Node
from pytest_mltd.recording.terms import origin_of

_LEAF: Final = "torch::autograd::AccumulateGrad"
_MOST_NODES: Final = 5_000
_MOST_VALUES: Final = 1 << 22  # of one tensor that are looked at
_GIVEN: Final = ("self", "other", "mat1", "mat2", "input", "mat2_t", "query", "key", "value")
_GAVE: Final = ("result", "output", "result1")
_AT: Final = {"self": 0, "input": 0, "other": 1, "mat1": 1, "query": 0, "key": 1, "value": 2}


@dataclass(frozen=True, slots=True)
class Source:
    """An operation (torch's name without "Backward0"), the type of its numbers, and the extremes of what it was given."""

    operation: str
    dtype: str = ""
    low: float | None = None
    high: float | None = None

    def details(self) -> dict[str, Any]:
        """Return it as plain values."""
        found: dict[str, Any] = {"operation": self.operation, "dtype": self.dtype}
        return found | ({"low": self.low, "high": self.high} if self.low is not None else {})


def source_of(outputs: tuple[Any, ...]) -> Source | None:
    """Return where the first number that is not finite was made, None where the graph does not tell.

    It does not where that came in from outside of the graph: with the batch, or with what was computed of it alone.
    """
    for node in _oldest_first(outputs):
        source = _refused(node) or _made(node)
        if source is not None:
            return source if source.operation else None
    return None


def _refused(node: Node) -> Source | None:
    """Return the source where an operation was given what it cannot take: log of 0, division by 0."""
    name = node.name()
    given = graph.saved(node, _REFUSING[name]) if name in _REFUSING else None
    if given is None or not given.numel() or not given.is_floating_point() or not bool(torch.isfinite(given).all()):
        return None
    low, high = float(given.min()), float(given.max())
    if not (low <= 0 if name != "DivBackward0" else bool((given == 0).any())):
        return None
    return Source(_plain(name), str(given.dtype), low, high)


def _made(node: Node) -> Source | None:
    """Return the source where what a node was given, or what it gave, is not finite."""
    edges = graph.inputs_of(node)
    for name in _GIVEN:
        given = graph.saved(node, name)
        if given is None or not _is_broken(given):
            continue
        at = _AT.get(name, 0) if name != "mat2" else len(edges) - 1
        maker, _ = origin_of(edges[at] if at < len(edges) else None)
        return Source("" if maker is None or maker.name() == _LEAF else _plain(maker.name()), str(given.dtype))
    for name in _GAVE:
        gave = graph.saved(node, name)
        if gave is not None and _is_broken(gave):
            return Source(_plain(node.name()), str(gave.dtype))
    return None


def _is_broken(tensor: Tensor) -> bool:
    """Whether it holds a NaN or +inf; minus infinity is how scores are masked."""
    if not tensor.is_floating_point() or not 0 < tensor.numel() <= _MOST_VALUES:
        return False
    return bool(torch.isnan(tensor).any() or torch.isposinf(tensor).any())


def _oldest_first(outputs: tuple[Any, ...]) -> list[Node]:
    waiting = [o.grad_fn for o in outputs if isinstance(o, Tensor) and o.grad_fn is not None]
    seen = set(waiting)
    while waiting and len(seen) < _MOST_NODES:
        for following in graph.inputs_of(waiting.pop()):
            if following is not None and following not in seen and following.name() != _LEAF:
                seen.add(following)
                waiting.append(following)
    return sorted(seen, key=lambda node: node._sequence_nr())


def _plain(name: str) -> str:
    return name.partition("Backward")[0]


_REFUSING: Final = {"LogBackward0": "self", "Log2Backward0": "self", "Log10Backward0": "self", "DivBackward0": "other"}
