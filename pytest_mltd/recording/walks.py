"""What the autograd graph of a loss tells before its backward: looked at in the first backwards, then at each 50th."""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor

from pytest_mltd.core.traces import Fact
from pytest_mltd.recording import digests, graph, lanes
from pytest_mltd.recording.naming import Identities, Names
from pytest_mltd.recording.spool import Spool

_MOST_BYTES: Final = 64 << 20  # of a leaf whose bytes are compared between walks; a guess


class Walks:
    """Walks from losses back to their leaves, and keeps what it finds on the way."""

    def __init__(self, names: Names, spool: Spool) -> None:
        self._names = names
        self._spool = spool
        self._leaves: Identities[tuple[int, int]] = Identities()
        self._moved: set[int] = set()  # parameters that moved between two walks

    def walk(self, losses: Any) -> None:
        """Find leaves that belong to no known module or optimizer, and those that move without one."""
        names = self._names
        for leaf in graph.leaves(losses):
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

    def _has_moved(self, leaf: Tensor) -> bool:
        """Whether a leaf is another than at the last walk, by its version or, on the CPU, by its bytes."""
        small = leaf.device.type == "cpu" and leaf.numel() * leaf.element_size() <= _MOST_BYTES
        digest = digests.of_tensor(leaf) if small and lanes.readable(leaf) else 0
        now = (leaf._version if not leaf.is_inference() else 0, digest)
        before = self._leaves.get(leaf)
        self._leaves.put(leaf, now)
        return before is not None and before != now
