"""The autograd graph behind a loss, walked before backward: what it reaches, and how to read one of its nodes.

The structure is free to read. A saved value is read only where no hook would run the program's own code for it: under
checkpointing, unpacking one runs the forward again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from pytest_mltd.recording import lanes

Node = Any  # torch.autograd.graph.Node

_MOST: Final = 50_000  # nodes; a kept graph grows without end and the walk must not
_MOST_ALIKE: Final = 64  # nodes of one name that a walk keeps; a guess
_LEAF: Final = "torch::autograd::AccumulateGrad"
_UNSIGNED: Final = 1 << 63  # dims come back unsigned: 18446744073709551615 is -1


@dataclass(slots=True)
class Graph:
    """What a walk met: leaf tensors, how many nodes, how many of an earlier backward's, and the nodes of wanted names."""

    leaves: list[Tensor]
    nodes: int = 0
    old: int = 0
    named: dict[str, list[Node]] = field(default_factory=dict)


def walk(outputs: Iterable[Any], since: int = -1, wanted: Collection[str] = ()) -> Graph:
    """Walk from these outputs to the leaves that backward will give a gradient to, in the order they are met.

    Args:
        outputs: what backward is called on.
        since: a sequence number; nodes made before it are counted as old.
        wanted: names of nodes to keep.
    """
    outputs = tuple(outputs)
    waiting = [o.grad_fn for o in outputs if isinstance(o, Tensor) and o.grad_fn is not None]
    seen = set(waiting)  # nodes are kept alive by it, so that none is met twice under a new wrapper
    found = Graph([o for o in outputs if isinstance(o, Tensor) and o.grad_fn is None and o.requires_grad])
    while waiting and len(seen) < _MOST:
        node = waiting.pop()
        name = node.name()
        if name == _LEAF:
            if isinstance(variable := getattr(node, "variable", None), Tensor):
                found.leaves.append(variable)
            continue
        if name in wanted and len(alike := found.named.setdefault(name, [])) < _MOST_ALIKE:
            alike.append(node)
        if node._sequence_nr() < since:
            found.old += 1
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    found.nodes = len(seen)
    return found


def leaves(outputs: Iterable[Any]) -> list[Tensor]:
    """Return the leaf tensors that backward from these outputs will give a gradient to."""
    return walk(outputs).leaves


def is_parameter(tensor: Tensor) -> bool:
    """Whether a leaf is a parameter by its type; an input that asks for its gradient is a leaf too."""
    return isinstance(tensor, torch.nn.Parameter)


def inputs_of(node: Node) -> list[Node | None]:
    """Return the node behind each input of a node, None for those that need no gradient."""
    return [following for following, _ in node.next_functions]


def sole_input(node: Node) -> Node | None:
    """Return the one node behind a node, None where there is none or several."""
    found = [following for following in inputs_of(node) if following is not None]
    return found[0] if len(found) == 1 else None


def shape_of(node: Node, output: int = 0) -> tuple[int, ...]:
    """Return the shape of what a node's operation gave, () where torch does not tell."""
    known = getattr(node, "_input_metadata", None)
    return tuple(int(n) for n in known[output].shape) if known is not None and len(known) > output else ()


def setting(node: Node, name: str) -> int | None:
    """Return a whole number that a node saved, such as ``dim``; None where it has none of that name."""
    value = getattr(node, f"_saved_{name}", None)
    if type(value) is not int:
        return None
    return value - (1 << 64) if value >= _UNSIGNED else value


def constant(node: Node) -> float | None:
    """Return the number that an operation multiplied or divided by, None where it is no single number at hand."""
    try:
        value = getattr(node, "_saved_other", None) if readable(node, "other") else None
    except RuntimeError:
        return None
    if isinstance(value, Tensor):
        return float(value.detach()) if lanes.readable(value) and value.is_cpu and value.numel() == 1 else None
    return float(value) if isinstance(value, int | float) else None


def readable(node: Node, name: str) -> bool:
    """Whether unpacking a saved value runs nothing of the program's; a torch that cannot tell counts as no."""
    raw = getattr(node, f"_raw_saved_{name}", None)
    return raw is None or getattr(raw, "unpack_hook", node) is None


def saved(node: Node, name: str) -> Tensor | None:
    """Return a tensor that a node saved, None where it must not or cannot be read: hooks, a device, changed in place."""
    try:
        value = getattr(node, f"_saved_{name}", None) if readable(node, name) else None
    except RuntimeError:  # changed in place since, or freed by a backward before
        return None
    if not isinstance(value, Tensor) or (value := lanes.plain(value)) is None:
        return None
    return value.detach() if value.is_cpu and value.layout is torch.strided else None
