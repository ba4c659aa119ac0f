"""How findings about a loss read: what a loss function is called, what is shown beside it, what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, curves
from pytest_mltd.checks.runs.places import counted
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Fact, Trace

Allowed = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Start:
    """How a loss began against what an even guess among its classes gives."""

    curve: Curve
    classes: int
    even: float

    @property
    def ratio(self) -> float:
        """The first loss over an even guess's."""
        return float(self.curve.finite[0]) / self.even

    @property
    def waited(self) -> int:
        """After how many steps the loss (the median of five) first came down to an even guess's."""
        v = self.curve.finite
        if v.size < 5:
            return v.size
        held = np.median(np.lib.stride_tricks.sliding_window_view(v, 5), axis=1)
        below = np.flatnonzero(held <= self.even)
        return int(below[0]) + 2 if below.size else v.size


def start_finding(start: Start, max_start: float, allowed: Allowed) -> Finding:
    curve, v = start.curve, start.curve.finite
    shown = np.unique(np.linspace(0, v.size - 1, 5).astype(int))
    steps = counted(v.size, "step")
    down = (
        f"comes down to that in {start.waited:,} of {steps}" if start.waited < v.size else f"stays above it for {steps}"
    )
    return Finding(
        ok=False,
        headline=f"the initial loss of '{curve.name}' is {number(float(v[0]))}, {number(start.ratio, 3)} times the "
        f"{number(start.even)} of an even guess among {start.classes:,} classes, and {down} (max_start={max_start:g})",
        culprit=curve.name,
        amount=start.ratio,
        limit=("max_start", max_start),
        step=int(curve.step[0]),
        table=Table(("step", "loss"), tuple((int(curve.step[i]), float(v[i])) for i in shown), culprit=0),
        shows="The untrained net is sure, and wrong: its outputs are far too large, by inputs that were not scaled or by "
        "initial weights that are too large.",
        next_step="scale the inputs to a spread of 1, or begin with small weights in the last layer",
        allowed=allowed,
    )


def named(loss: str) -> str:
    """Return what a person calls a loss that was recognised by its graph."""
    return {
        "difference": "the difference",
        "product": "a product",
        "softmax": "another softmax",
        "sigmoid": "another sigmoid",
        "log_softmax": "log_softmax (a cross entropy by hand)",
        "logsumexp": "logsumexp (a distribution's logits)",
        "log_sigmoid": "logsigmoid",
    }.get(loss, loss)


def applied(loss: str) -> str:
    return "a sigmoid" if "logits" in loss or "sigmoid" in loss else "a softmax"


def floor_of(first: str, loss: str, classes: Any) -> float | None:
    """Return the lowest loss that probabilities as logits can reach: the right class at 1, all others at 0."""
    if loss == "cross_entropy" and isinstance(classes, int) and classes > 1:
        return math.log(1 + (classes - 1) / math.e)
    if loss == "binary_cross_entropy_with_logits" and first == "sigmoid":
        return math.log1p(math.exp(-1))
    return None


def level_table(trace: Trace, stream: str, floor: float | None) -> Table | None:
    """Show the loss's course beside the level that it cannot fall below."""
    curve = next((c for c in curves(trace) if c.name == stream and c.finite.size), None)
    if curve is None or floor is None:
        return None
    v = curve.finite
    rows = (("first", float(v[0])), ("last", curve.late), ("lowest that it can reach", floor))
    return Table(("loss", "value"), rows, culprit=2)


def only_module(trace: Trace, kind: str) -> str:
    """Return the name of the module that is the softmax (or sigmoid) in question, "" where it may be another or a function."""
    leaves = [m for m in trace.modules if not m.root]
    found = [m.name for m in leaves if m.kind == kind]
    return found[0] if len(found) == 1 and leaves[-1].kind == kind else ""


def broadcast_finding(fact: Fact, allowed: Allowed) -> Finding:
    d = fact.details
    first, second, both = (_shape(d[name]) for name in ("prediction", "target", "compared"))
    n = int(d["compared"][0])
    one, other = ("value", "factor") if d["loss"] == "product" else ("prediction", "target")
    shows = {
        "product": "each value is weighed with the sum of all factors, and those of its own row count for nothing.",
    }.get(str(d["loss"]), "a constant near the mean of the targets is the best answer to all of them.")
    return Finding(
        ok=False,
        headline=f"broadcasting in the loss of '{fact.who}': a {one} of shape {first} against a {other} of shape {second} "
        f"becomes {both} in {named(str(d['loss']))}, every one against every other",
        culprit=fact.who,
        amount=float(n * n),
        step=fact.step,
        table=Table(
            ("", "shape", "numbers"),
            ((one, first, n), (other, second, n), ("what the loss sees", both, n * n)),
            culprit=2,
        ),
        shows=f"The shapes differ, so {n:,} numbers became {n * n:,}: rows no longer belong together, {shows}",
        next_step=f"give both one shape: {one}.squeeze(-1), or {other}.unsqueeze(-1)",
        allowed=allowed,
    )


def kept_finding(fact: Fact, min_followed: int, reaches_back: bool, allowed: Allowed) -> Finding:
    d = fact.details
    nodes, old = ([int(n) for n in d[name]] for name in ("nodes", "old"))
    held, followed = int(d["held"]), int(d["followed"])
    table = None
    if reaches_back:
        what = f"reaches back into earlier steps, further each time: from {nodes[0]:,} to {nodes[-1]:,} operations"
        shows = "Backward runs through the old steps again and again; time and memory grow with each."
        next_step = (
            "detach what is carried to the next step (h = h.detach()), and call backward on one step's loss only"
        )
        rows = tuple(enumerate(zip(nodes, old, strict=True)))[-6:]
        table = Table(("look", "operations", "of earlier steps"), tuple((i, *pair) for i, pair in rows), len(rows) - 1)
    else:
        what = f"is kept after its step: {held:,} of {counted(followed, 'loss', 'losses')} followed are still held"
        shows = "Something holds each loss together with its graph, as total += loss or losses.append(loss) does: memory grows."
        next_step = "keep numbers instead of tensors: loss.item(), or loss.detach()"
    return Finding(
        ok=False,
        headline=f"the graph of the loss of '{fact.who}' {what} (min_followed={min_followed})",
        culprit=fact.who,
        amount=float(nodes[-1] if table else held),
        limit=("min_followed", float(min_followed)),
        step=fact.step,
        table=table,
        shows=shows,
        next_step=next_step,
        allowed=allowed,
    )


def _shape(numbers: Any) -> str:
    return str(tuple(int(n) for n in numbers))


def axis_words(details: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what is wrong, what it shows, and the next step."""
    if details.get("classes") == 1:
        return (
            f"{details['loss']} has one class only, and over one class every probability is 1",
            "The loss is 0 whatever the net answers, and so are its gradients.",
            "use binary_cross_entropy_with_logits for one output, or give the last layer an output for each class",
        )
    if details.get("viewed"):
        old, new = (_shape(shape) for shape in details["viewed"])
        return (
            f"a view makes {new} of {old}, which mixes up places and classes",
            "A view keeps the order of the numbers in memory: what lies along the class axis afterwards are other places.",
            "use transpose(1, 2) or permute instead of view or reshape",
        )
    rows = f"{int(details['rows_off']):,} of {counted(int(details['rows_summed']), 'row')}"
    total = number(float(details["row_sum"]))
    return (
        f"in {rows} the probabilities of the {details['classes']} classes sum to {total} instead of 1",
        "It was normalised over another axis, the batch perhaps: rows compete with each other instead of classes.",
        "apply softmax or log_softmax over the class axis (dim=1, or dim=-1 where classes come last)",
    )


def attention_finding(fact: Fact, max_rows_off: float, allowed: Allowed) -> Finding:
    shape, axis = _shape(fact.details["shape"]), int(fact.details["axis"])
    over = "the batch" if axis == 0 else "the queries"
    return Finding(
        ok=False,
        headline=f"softmax over the wrong axis within the loss of '{fact.who}': attention weights of shape {shape} are "
        f"normalised over axis {axis}, {over}, and sum over the last one (max_rows_off={max_rows_off:g})",
        culprit=fact.who,
        limit=("max_rows_off", max_rows_off),
        step=fact.step,
        shows="What a query takes from the keys does not sum to 1: "
        + ("samples of a batch share their weights." if axis == 0 else "queries compete for each key."),
        next_step="use softmax(dim=-1) on the scores",
        allowed=allowed,
    )
