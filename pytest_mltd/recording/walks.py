"""What the autograd graph of a loss tells before its backward: looked at in the first backwards, then once in each fifty.

Facts are stated at once and kept true as the run goes on, so that a killed job leaves them too. `core.traces.Fact` lists their
kinds.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from pytest_mltd.core.traces import Fact
from pytest_mltd.recording import digests, graph, lanes, rectified, sources, targets, terms
from pytest_mltd.recording.naming import Identities, Names
from pytest_mltd.recording.spool import Spool

_MOST_BYTES: Final = 64 << 20  # of a leaf whose bytes are compared between walks; a guess
_MOST_TERMS: Final = 16  # of one loss that are looked at, and kinds of them that a stream keeps; a guess
_MOST_PRODUCTS: Final = 16  # batched products that are looked at in one walk; a guess
_MOST_MARKS: Final = 64  # losses of a stream whose graphs are followed; a guess
_COLLECTED: Final = 10  # marks after which what only waits for the garbage collector is told from what is held
_SCALE: Final = (
    256.0  # a factor that is a power of two from here on is a loss scale, which no recorded loss has in it; a guess
)
_KEPT: Final = 12  # counts of nodes that a fact keeps
_WANTED: Final = frozenset({"BmmBackward0", rectified.RELU})
_MOST_RELUS: Final = 32  # that are looked at in one walk; a guess
_MOST_TARGETS: Final = 16 << 20  # bytes of targets that are kept for the probes; a guess


class Walks:
    """Walks from losses back to their leaves, and keeps what it finds on the way."""

    def __init__(self, names: Names, spool: Spool) -> None:
        self._names = names
        self._spool = spool
        self._leaves: Identities[tuple[int, int]] = Identities()
        self._moved: set[int] = set()  # parameters that moved between two walks
        self._streams: dict[str, _Stream] = {}
        self._silences: dict[str, rectified.Silence] = {}
        self._told: dict[tuple[object, ...], int] = {}  # where a fact stands
        # What the first loss was held against, with the name of its function and a "+" where other terms stand beside it.
        self.first_targets: tuple[str, Tensor] | None = None
        self.wants_nonfinite = True  # whether the graph of a loss that is not finite is still to be looked at

    def walk(self, losses: Any, stream: str = "", step: int = 0, nonfinite: bool = False) -> None:
        """Look at the graph of these losses, on which backward is about to be called.

        Args:
            losses: the outputs that backward is called on.
            stream: the line that calls it.
            step: how many steps are over.
            nonfinite: whether the loss is a NaN or an infinity; where the first such was made is told.
        """
        first = not self._streams
        known = self._streams.setdefault(stream, _Stream())
        found = graph.walk(losses, known.since, _WANTED)
        self._look_at_leaves(found.leaves)
        if nonfinite and self.wants_nonfinite:
            self._look_for_source(losses, found.leaves, stream, step)
        self._look_at_size(losses, known, found, stream, step)
        self._look_at_terms(terms.terms_of(tuple(losses)), known, stream, step, first)
        self._look_at_attention(found, stream, step)
        self._look_at_relus(found, step)

    def end(self, step: int) -> None:
        """State what can only be said after ``step`` steps."""
        for index in sorted(self._moved):
            if not self._names.parameters[index].optimizers:
                who = self._names.parameters[index].name
                self._spool.facts.append(Fact(kind="manual_update", step=step, who=who))
        if self._moved and step == 0:
            self._spool.notes.append(
                f"{len(self._moved)} parameters moved without an optimizer (updated by hand): 0 steps were recorded"
            )

    def _look_at_leaves(self, leaves: list[Tensor]) -> None:
        """Find leaves that belong to no known module or optimizer, and those that move without one."""
        names = self._names
        for leaf in leaves:
            index = names.parameter(leaf)
            if index is not None and names.parameters[index].optimizers:
                continue
            if index is None and graph.is_parameter(leaf):
                index = names.add_parameter(leaf)
            moved = self._has_moved(leaf)
            if moved and index is None:
                index = names.add_parameter(leaf)
            if moved and index is not None:
                self._moved.add(index)

    def _look_for_source(self, losses: Any, leaves: list[Tensor], stream: str, step: int) -> None:
        """Tell what made the first number that is not finite; where the weights hold it already, an earlier step did."""
        self.wants_nonfinite = False
        if any(
            lanes.readable(leaf) and leaf.is_cpu and not bool(torch.isfinite(leaf.detach()).all()) for leaf in leaves
        ):
            return
        source = sources.source_of(tuple(losses))
        if source is not None:
            details = {**source.details(), "stream": stream}
            self._spool.facts.append(Fact(kind="nonfinite", step=step, details=details))

    def _look_at_size(self, losses: Any, known: _Stream, found: graph.Graph, stream: str, step: int) -> None:
        """Tell how large the graph is, how much of it an earlier backward has been through, and which graphs are still held."""
        roots = [o.grad_fn for o in losses if isinstance(o, Tensor) and o.grad_fn is not None]
        if not roots:
            return
        known.sizes = [*known.sizes, (found.nodes, found.old)][-_KEPT:]
        known.since = max(root._sequence_nr() for root in roots) + 1
        held, followed = known.held(), len(known.marks)
        known.mark(roots[0])
        details = {
            "nodes": [nodes for nodes, _ in known.sizes],
            "old": [old for _, old in known.sizes],
            "held": held,
            "followed": followed,
        }
        self._tell(("graph", stream), "graph", step, stream, details)

    def _look_at_terms(self, found: list[terms.Term], known: _Stream, stream: str, step: int, first: bool) -> None:
        """Tell which loss functions a loss is made of, what they are given and what their targets are like."""
        if first:
            self._keep_targets(found)
        for term in found[:_MOST_TERMS]:
            classes = terms.classes_of(term)
            key = (term.loss, classes)
            kept = known.terms.get(key)
            if not term.loss or (kept is None and len(known.terms) >= _MOST_TERMS):
                continue
            if kept is None:
                kept = known.terms[key] = _Kept(term, classes)
            kept.add(term, alone=len(found) == 1 and term.is_loss)
            if not kept.worth_telling:
                continue
            details = kept.details()
            whole = details["alone"] and "level" in details and abs(details["factor"] - 1) < 1e-6
            self._tell(("term", stream, key), "targets" if whole else "term", step, stream, details)

    def _keep_targets(self, found: list[terms.Term]) -> None:
        kept = [(term, target) for term in found if (target := graph.saved(term.node, "target")) is not None]
        if len(kept) == 1 and kept[0][1].numel() * kept[0][1].element_size() <= _MOST_TARGETS:
            term, target = kept[0]
            self.first_targets = (term.loss + ("+" if len(found) > 1 else ""), target.clone())

    def _look_at_relus(self, found: graph.Graph, step: int) -> None:
        """Tell which units behind each layer's ReLU are zero for all rows."""
        for node in found.named.get(rectified.RELU, ())[:_MOST_RELUS]:
            layer = rectified.layer_before(node)
            index = self._names.parameter(layer) if layer is not None else None
            looked = rectified.silent_units(node, layer) if layer is not None and index is not None else None
            if index is None or looked is None:
                continue
            who = self._names.parameters[index].name.rpartition(".")[0] or self._names.parameters[index].name
            silence = self._silences.setdefault(who, rectified.Silence(looked[0].size))
            if silence.units == looked[0].size:
                silence.add(*looked)
                self._tell(("relu", who), "relu", step, who, silence.details())

    def _look_at_attention(self, found: graph.Graph, stream: str, step: int) -> None:
        """Tell of weights in a batched product that were normalised along another axis than the one they weigh."""
        for product in found.named.get("BmmBackward0", ())[:_MOST_PRODUCTS]:
            axis = terms.attention_axis(product)
            if axis is not None:
                details = {"shape": list(axis[0]), "axis": axis[1]}
                self._tell(("attention", stream, *axis), "attention_axis", step, stream, details)

    def _tell(self, key: tuple[object, ...], kind: str, step: int, who: str, details: Mapping[str, Any]) -> None:
        """State a fact, or mend one that was stated before; its step stays that of the first time."""
        facts = self._spool.facts
        at = self._told.get(key)
        if at is None:
            self._told[key] = len(facts)
            facts.append(Fact(kind=kind, step=step, who=who, details=details))
        elif facts[at].details != details or facts[at].kind != kind:
            facts[at] = Fact(kind=kind, step=facts[at].step, who=who, details=details)
            self._names.changed.add(("facts", at))

    def _has_moved(self, leaf: Tensor) -> bool:
        """Whether a leaf is another than at the last walk, by its version or, on the CPU, by its bytes."""
        small = leaf.device.type == "cpu" and leaf.numel() * leaf.element_size() <= _MOST_BYTES
        digest = digests.of_tensor(leaf) if small and lanes.readable(leaf) else 0
        now = (leaf._version if not leaf.is_inference() else 0, digest)
        before = self._leaves.get(leaf)
        self._leaves.put(leaf, now)
        return before is not None and before != now


class _Mark:
    """Lives as long as the node that it is put on."""

    __slots__ = ("__weakref__",)


class _Stream:
    """What is known of the losses that one line calls backward on."""

    def __init__(self) -> None:
        self.since = -1  # nodes with a lower sequence number were there at the walk before
        self.sizes: list[tuple[int, int]] = []
        self.marks: list[weakref.ref[_Mark]] = []
        self.terms: dict[tuple[str, int], _Kept] = {}

    def held(self) -> int:
        """Return how many of the marked graphs the program still holds."""
        alive = sum(mark() is not None for mark in self.marks)
        if len(self.marks) == alive == _COLLECTED:
            gc.collect()
            alive = sum(mark() is not None for mark in self.marks)
        return alive

    def mark(self, root: graph.Node) -> None:
        """Follow this graph; a node's metadata are for everyone and have no part in backward."""
        if len(self.marks) < _MOST_MARKS:
            mark = root.metadata[_Mark] = _Mark()
            self.marks.append(weakref.ref(mark))


class _Kept:
    """One kind of term of a stream, over the walks."""

    def __init__(self, term: terms.Term, classes: int) -> None:
        self._first = term.loss
        self._classes = classes
        self._looks = 0
        self._alone = True
        self._factor: float | None = None
        self._reduction = ""
        self._rows = 0
        self._weighted = False
        self._fed: Counter[str] = Counter()
        self._given = ""
        self._sums: list[float] = []
        self._broadcast: terms.Broadcast | None = None
        self._scrambled: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._gatherer = targets.gatherer(term, classes)

    @property
    def worth_telling(self) -> bool:
        """Whether it is more than some product."""
        return self._first != "product" or self._broadcast is not None

    def add(self, term: terms.Term, alone: bool) -> None:
        """Take one look at a term of this kind; no node of it is kept."""
        self._looks += 1
        self._alone = self._alone and alone
        self._factor, self._reduction = _unscaled(term.factor), term.reduction
        self._rows = max(self._rows, terms.rows_of(term))
        self._weighted = self._weighted or any(graph.saved(term.node, w) is not None for w in ("weight", "pos_weight"))
        if fed := terms.fed_by(term):
            self._fed[fed] += 1
        if self._classes:
            self._given = terms.given_to(term)
            self._sums = [*self._sums, *terms.row_sums(term)][-_MOST_SUMS:]
        self._broadcast = terms.broadcast_of(term) or self._broadcast
        self._scrambled = terms.scrambled(term) or self._scrambled
        if self._gatherer is not None:
            self._gatherer.add(term)

    def details(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        found: dict[str, Any] = {
            "loss": self._first,
            "looks": self._looks,
            "alone": self._alone,
            "reduction": self._reduction,
            "factor": self._factor,
            "rows": self._rows,
            "weighted": self._weighted,
        }
        if self._classes:
            found |= {"classes": self._classes, "given": self._given}
        if self._fed:
            found["fed_by"], found["fed"] = self._fed.most_common(1)[0]
        if self._sums:
            ordered = sorted(self._sums)
            off = sum(not abs(s - 1) < 0.1 for s in ordered)
            found |= {"row_sum": ordered[len(ordered) // 2], "rows_off": off, "rows_summed": len(ordered)}
        if self._broadcast is not None:
            found |= {name: list(getattr(self._broadcast, name)) for name in self._broadcast.__slots__}
        if self._scrambled is not None:
            found["viewed"] = [list(shape) for shape in self._scrambled]
        if self._gatherer is not None:
            found |= self._gatherer.details()
        return found | self._level(found)

    def _level(self, found: Mapping[str, Any]) -> dict[str, float]:
        """Return the loss that the best constant answer has, as the program's own loss would show it."""
        each = found.get("var") if self._first == "mse_loss" else found.get("entropy")
        binary = self._first.startswith("binary")
        if each is None or self._factor is None or self._reduction != "mean" or (binary and self._weighted):
            return {}
        return {"level": each * self._factor}


def _unscaled(factor: float | None) -> float | None:
    """Return a factor without the loss scale in it."""
    if factor is not None and factor >= _SCALE and math.log2(factor).is_integer():
        return 1.0
    return factor


_MOST_SUMS: Final = 256
