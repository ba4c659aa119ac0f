"""The autograd graph behind a loss, walked before backward: which leaves it reaches. No saved value is read here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor

_MOST: Final = 50_000  # nodes; a kept graph grows without end and the walk must not


def leaves(outputs: Iterable[Any]) -> list[Tensor]:
    """Return the leaf tensors that backward from these outputs will give a gradient to, in the order they are met."""
    waiting = [o.grad_fn for o in outputs if isinstance(o, Tensor) and o.grad_fn is not None]
    seen = set(waiting)  # nodes are kept alive by it, so that none is met twice under a new wrapper
    found: list[Tensor] = [o for o in outputs if isinstance(o, Tensor) and o.grad_fn is None and o.requires_grad]
    while waiting and len(seen) < _MOST:
        node = waiting.pop()
        variable = getattr(node, "variable", None) if node.name() == _LEAF else None
        if isinstance(variable, Tensor):
            found.append(variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def is_parameter(tensor: Tensor) -> bool:
    """Whether a leaf is a parameter by its type; an input that asks for its gradient is a leaf too."""
    return isinstance(tensor, torch.nn.Parameter)


_LEAF: Final = "torch::autograd::AccumulateGrad"
