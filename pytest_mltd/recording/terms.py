"""What a loss is made of: its terms, and what each was given, read from the last few nodes of the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from pytest_mltd.recording import graph
from pytest_mltd.recording.graph import Node, inputs_of, setting, shape_of, sole_input

LOSSES: Final = {
    "NllLossBackward0": "nll_loss",
    "NllLoss2DBackward0": "nll_loss",
    "BinaryCrossEntropyBackward0": "binary_cross_entropy",
    "BinaryCrossEntropyWithLogitsBackward0": "binary_cross_entropy_with_logits",
    "MseLossBackward0": "mse_loss",
    "SmoothL1LossBackward0": "smooth_l1_loss",
    "HuberLossBackward0": "huber_loss",
    "CtcLossBackward0": "ctc_loss",
}
NORMALISERS: Final = {
    "SoftmaxBackward0": "softmax",
    "LogSoftmaxBackward0": "log_softmax",
    "SigmoidBackward0": "sigmoid",
    "LogSigmoidBackward0": "log_sigmoid",
    "LogsumexpBackward0": "logsumexp",
}


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a loss that is a sum.

    ``loss`` is torch's name of a loss function; ``difference`` for a squared or absolute difference by hand; ``product`` for
    a constant times a value; the name of a softmax and its like for a likelihood by hand; "" for anything else. ``factor`` is
    what it is multiplied by, None where that is no one number. ``reduction`` is "none", "mean" or "sum".
    """

    loss: str
    node: Node
    factor: float | None
    reduction: str

    @property
    def is_loss(self) -> bool:
        """Whether it is one of torch's own loss functions, or a difference by hand."""
        return self.loss in _KNOWN


def terms_of(outputs: tuple[Any, ...]) -> list[Term]:
    """Return the terms that these losses are the sum of, seen through sums, means, factors, logarithms and choices of rows."""
    roots = [o.grad_fn for o in outputs if isinstance(o, Tensor) and o.grad_fn is not None]
    waiting: list[tuple[Node, float | None, str]] = [(root, 1.0, "") for root in roots]
    seen = set(roots)
    found: list[Term] = []
    for node, factor, reduction in waiting:  # grows while it is read
        name = node.name()
        kind = _kind_of(node, name)
        if kind or name not in _COMBINING:
            own = setting(node, "reduction") or 0
            found.append(Term(kind, node, factor, _REDUCTIONS[own] or reduction or "none"))
        if (kind and kind != "product") or name not in _COMBINING:
            continue
        factor, reduction = _times(node, name, factor), reduction or _REDUCING.get(name, "")
        for following in inputs_of(node):
            if following is not None and following not in seen and len(seen) < _MOST:
                seen.add(following)
                waiting.append((following, factor, reduction))
    return found


def origin_of(node: Node | None) -> tuple[Node | None, frozenset[str]]:
    """Return what made the values that pass through a node which only moves, cuts or shifts them, and what they passed."""
    passed = set()
    for _ in range(_MOST_HOPS):
        if node is None:
            break
        name = node.name()
        if name in _SHIFTING:
            following = sole_input(node)
        elif name in _MOVING:
            following = inputs_of(node)[0]
        elif name in _JOINING and len({f.name() if f is not None else "" for f in inputs_of(node)}) == 1:
            following = inputs_of(node)[0]  # one part stands for all
        else:
            break
        passed.add(name)
        node = following
    return node, frozenset(passed)


def fed_by(term: Term) -> str:
    """Return which softmax or sigmoid a term is given that normalises by itself, "" where there is none in between.

    A log_softmax may be normalised twice, it stays what it is; a logarithm in between makes logits of probabilities.
    """
    behind: Node | None = term.node
    if term.loss in ("cross_entropy", "nll_loss"):
        behind = origin_of(inputs_of(term.node)[0])[0] if term.loss == "cross_entropy" else None
    if term.loss not in _NORMALISING or behind is None:
        return ""
    origin, _ = origin_of(inputs_of(behind)[0])
    first = NORMALISERS.get(origin.name(), "") if origin is not None else ""
    return first if first in ("softmax", "sigmoid") else ""


def rows_of(term: Term) -> int:
    """Return how long the first axis is of what a term was given; 0 where it is not known."""
    behind = inputs_of(term.node)[:1]
    shape = shape_of(behind[0], _output(term.node, 0)) if behind and behind[0] is not None else ()
    return shape[0] if shape else 0


def classes_of(term: Term) -> int:
    """Return the length of the class axis of a likelihood of labels, 0 for other terms."""
    behind = inputs_of(term.node)[0] if term.loss in ("cross_entropy", "nll_loss") else None
    shape = shape_of(behind) if behind is not None else ()
    return shape[1] if len(shape) > 1 else 0


def row_sums(term: Term) -> list[float]:
    """Return what the probabilities of some rows sum to, where the graph alone does not tell that it is 1.

    Only for a negative log likelihood: the axis that its labels choose from must be the one that was normalised.
    """
    if term.loss not in ("cross_entropy", "nll_loss"):
        return []
    behind = inputs_of(term.node)[0]
    if behind is not None and behind.name() == "LogSoftmaxBackward0" and _axis(behind, shape_of(behind)) == 1:
        return []
    values = graph.saved(term.node, "self")
    if values is None or values.dim() < 2 or not values.numel() or not values.dtype.is_floating_point:
        return []
    values = values if values.dim() == 2 else values.movedim(1, -1).reshape(-1, values.shape[1])
    some = values[: max(4, min(_MOST_ROWS, _MOST_VALUES // values.shape[1]))]
    sums: list[float] = some.double().exp().sum(1).tolist()
    return sums


def given_to(term: Term) -> str:
    """Return what a negative log likelihood was given: "log", "log_softmax", a softmax's or sigmoid's name, or ""."""
    origin, _ = origin_of(inputs_of(term.node)[0])
    name = origin.name() if origin is not None else ""
    return "log" if name == "LogBackward0" else NORMALISERS.get(name, "")


def scrambled(term: Term) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the two shapes where a view was taken for a transposition, so that the classes of rows are mixed up."""
    if term.loss not in ("cross_entropy", "nll_loss"):
        return None
    behind = origin_of(inputs_of(term.node)[0])[0] if term.loss == "cross_entropy" else term.node
    view = inputs_of(behind)[0] if behind is not None else None
    if view is None or view.name() not in _VIEWS or (before := inputs_of(view)[0]) is None:
        return None
    old, new = shape_of(before), shape_of(view)
    if before.name() in _VIEWS and (first := inputs_of(before)[0]) is not None and shape_of(first) == new:
        return None  # there and back
    swapped = len(old) == 3 and new == (old[0], old[2], old[1]) and old[1] != old[2] and min(old[1:]) > 1
    return (old, new) if swapped else None


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Shapes of a prediction and its target that were stretched against each other, each along the other's axis."""

    prediction: tuple[int, ...]
    target: tuple[int, ...]
    compared: tuple[int, ...]


def broadcast_of(term: Term) -> Broadcast | None:
    """Return the shapes where each of n predictions was held against each of n targets, though none was lined up for it.

    An axis that the program itself put in (``x[:, None]``) says that all pairs are meant.
    """
    if term.loss in _ELEMENTWISE:
        found = _stretched(term)
    elif term.loss == "difference":
        found = _subtracted(term)
    elif term.loss == "product":
        found = _multiplied(term)
    else:
        found = None
    return found


def attention_axis(product: Node) -> tuple[tuple[int, ...], int] | None:
    """Return shape and axis of a softmax whose result weighs the rows of a batched product along another axis.

    Told only where no one could mean it: over the batch, or over the queries of a square one.
    """
    first = inputs_of(product)[0]
    softmax, passed = origin_of(first)
    if softmax is not None and softmax.name() in _DROPPING:
        softmax, more = origin_of(sole_input(softmax))
        passed |= more
    if softmax is None or softmax.name() != "SoftmaxBackward0" or passed & _TURNING:
        return None
    shape = shape_of(softmax)
    axis = _axis(softmax, shape)
    if len(shape) < 3 or axis is None or shape[axis] < 2:
        return None
    over_queries = axis == len(shape) - 2 and shape[-1] == shape[-2]
    over_batch = axis == 0
    return (shape, axis) if over_queries or over_batch else None


def _kind_of(node: Node, name: str) -> str:
    if name in LOSSES:
        kind = LOSSES[name]
        origin, passed = origin_of(inputs_of(node)[0]) if kind == "nll_loss" else (None, frozenset())
        normal = origin is not None and origin.name() == "LogSoftmaxBackward0" and passed <= _VIEWS
        return "cross_entropy" if normal else kind
    if name in NORMALISERS:
        return NORMALISERS[name]
    if name in _DIFFERING and _difference_in(node) is not None:
        return "difference"
    if name in _SUBTRACTING and sole_input(node) is not None and _taken_from(node) is not None:
        return "difference"
    if name == "MulBackward0" and sole_input(node) is not None and len(shape_of(node)) > 1:
        return "product"
    return ""


def _difference_in(node: Node) -> Node | None:
    """Return the subtraction of a constant under a square or an absolute value, None where there is no such thing."""
    behind = inputs_of(node)
    if node.name() == "MulBackward0" and (len(behind) != 2 or behind[0] is not behind[1]):
        return None
    found = behind[0]
    for _ in range(_MOST_HOPS):
        if found is None or found.name() in _SUBTRACTING:
            break
        found = sole_input(found) if found.name() in _SCALING else None
    return found if found is not None and sole_input(found) is not None else None


def _stretched(term: Term) -> Broadcast | None:
    expand = inputs_of(term.node)[0]
    if expand is None or expand.name() != "ExpandBackward0" or (before := inputs_of(expand)[0]) is None:
        return None
    target = graph.saved(term.node, "target")
    if target is None or not any(n > 1 and s == 0 for n, s in zip(target.shape, target.stride(), strict=True)):
        return None
    return _outer(before, shape_of(before, _output(expand, 0)), shape_of(expand))


def _subtracted(term: Term) -> Broadcast | None:
    difference = term.node if term.node.name() in _SUBTRACTING else _difference_in(term.node)
    return _taken_from(difference) if difference is not None else None


def _taken_from(difference: Node) -> Broadcast | None:
    """Return the shapes where a constant was subtracted, or subtracted from, and both were stretched."""
    at = next(i for i, following in enumerate(inputs_of(difference)) if following is not None)
    before, output = inputs_of(difference)[at], _output(difference, at)
    if before is not None and before.name() == "ExpandBackward0":  # torch's own l1_loss
        before, output = inputs_of(before)[0], _output(before, 0)
    return _outer(before, shape_of(before, output), shape_of(difference)) if before is not None else None


def _multiplied(term: Term) -> Broadcast | None:
    at = next(i for i, following in enumerate(inputs_of(term.node)) if following is not None)
    before = inputs_of(term.node)[at]
    other = graph.saved(term.node, "self" if at else "other")
    if before is None or other is None or other.dim() != 1:  # a constant with axes of its own was lined up by hand
        return None
    return _outer(before, shape_of(before, _output(term.node, at)), shape_of(term.node))


def _outer(before: Node, prediction: tuple[int, ...], compared: tuple[int, ...]) -> Broadcast | None:
    if len(compared) < 2 or before.name() in _LINING_UP or before.name() == _LEAF:
        return None
    n = math.prod(prediction)
    if n < 2 or math.prod(compared) != n * compared[-1] or compared[-1] != compared[-2]:
        return None
    if prediction == (*compared[:-1], 1) and len(compared) == 2:
        return Broadcast(prediction, compared[1:], compared)
    if prediction == compared[1:] and len(compared) == 2:
        return Broadcast(prediction, (compared[0], 1), compared)
    return None


def _times(node: Node, name: str, factor: float | None) -> float | None:
    """Return a factor after a node of the sum was passed."""
    if factor is None or name in _JOINING:
        return factor
    if name == "NegBackward0":
        return -factor
    if name not in _SCALING:
        return factor if name in _ADDING else None
    other = graph.constant(node)
    if other is None or (name.startswith("Div") and other == 0):
        return None
    return factor / other if name.startswith("Div") else factor * other


def _axis(node: Node, shape: tuple[int, ...]) -> int | None:
    dim = setting(node, "dim")
    return None if dim is None or not shape else dim % len(shape)


def _output(node: Node, at: int) -> int:
    return int(node.next_functions[at][1])


_KNOWN: Final = frozenset({"cross_entropy", "difference", *LOSSES.values()})
_NORMALISING: Final = frozenset({"cross_entropy", "binary_cross_entropy_with_logits", *NORMALISERS.values()})
_ELEMENTWISE: Final = ("mse_loss", "smooth_l1_loss", "huber_loss")
_REDUCTIONS: Final = ("", "mean", "sum")
_REDUCING: Final = {"MeanBackward0": "mean", "MeanBackward1": "mean", "SumBackward0": "sum", "SumBackward1": "sum"}
_LEAF: Final = "torch::autograd::AccumulateGrad"
_VIEWS: Final = frozenset({"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"})
_TURNING: Final = frozenset({"TransposeBackward0", "TBackward0", "PermuteBackward0", "MovedimBackward0"})
_LINING_UP: Final = frozenset({"UnsqueezeBackward0"})
_MOVING: Final = (
    _VIEWS
    | _TURNING
    | {
        "SqueezeBackward0",
        "SqueezeBackward1",
        "SqueezeBackward2",
        "UnsqueezeBackward0",
        "CloneBackward0",
        "AliasBackward0",
        "ToCopyBackward0",
        "ExpandBackward0",
        "SliceBackward0",
        "SelectBackward0",
        "IndexBackward0",
        "IndexSelectBackward0",
        "MaskedFillBackward0",
        "ClampBackward0",
        "ClampBackward1",
        "ClampMinBackward0",
        "ClampMaxBackward0",
    }
)
_SHIFTING: Final = frozenset({"AddBackward0"})  # of a constant, such as an epsilon
_DROPPING: Final = frozenset({"MulBackward0", "NativeDropoutBackward0"})
_ADDING: Final = frozenset({"AddBackward0", "MeanBackward0", "SumBackward0", *_MOVING}) - {"MaskedFillBackward0"}
_SCALING: Final = frozenset({"MulBackward0", "MulBackward1", "DivBackward0", "DivBackward1"})
_SUBTRACTING: Final = frozenset({"SubBackward0", "RsubBackward1"})
_DIFFERING: Final = frozenset(
    {"PowBackward0", "AbsBackward0", "MulBackward0", "CoshBackward0", "LinalgVectorNormBackward0", "NormBackward1"}
)
_JOINING: Final = frozenset({"StackBackward0", "CatBackward0"})
_COMBINING: Final = (
    _MOVING
    | _SCALING
    | _SUBTRACTING
    | _JOINING
    | {
        "AddBackward0",
        "NegBackward0",
        "MeanBackward0",
        "MeanBackward1",
        "SumBackward0",
        "SumBackward1",
        "SqrtBackward0",
        "LogBackward0",
        "GatherBackward0",
        "MaskedSelectBackward0",
        "WhereBackward0",
        "ReluBackward0",
        "MaximumBackward0",
        "MinimumBackward0",
    }
)
_MOST: Final = (
    256  # nodes between a loss and its terms; one summed over more time steps is known by its first ones; a guess
)
_MOST_HOPS: Final = 12  # nodes that only move values, in a row; a guess
_MOST_ROWS: Final = 64
_MOST_VALUES: Final = 1 << 14
