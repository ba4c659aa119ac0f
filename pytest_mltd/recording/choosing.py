"""Which samples a slice keeps: chosen by seed, the same on every platform, in their own order."""

from __future__ import annotations

import operator
import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex


@dataclass(frozen=True, slots=True)
class Choice:
    """How ``n`` of some positions are chosen: by ``seed``, and where ``labels`` are given, with the share of each kept."""

    n: int
    seed: int = 0
    labels: Sequence[Any] | None = None

    def of(self, positions: Sequence[int]) -> list[int]:
        """Return the positions to keep, in the order in which they were given; all of them if there are no more."""
        if len(positions) <= self.n:
            return list(positions)
        if self.labels is None:
            return [positions[i] for i in _floyd(len(positions), self.n, random.Random(self.seed))]
        labels = [self.labels[p] for p in positions]
        return [positions[i] for i in _stratified(labels, self.n, random.Random(self.seed))]


def at_least_one(n: SupportsIndex, name: str = "n") -> int:
    """Return a count as an int.

    Raises:
        TypeError: it is no integer.
        ValueError: it is below one.
    """
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"{name}: an integer is needed, not {n!r}") from None
    if count < 1:
        raise ValueError(f"{name}: at least 1 is needed, not {count}")
    return count


def _stratified(labels: Iterable[Any], n: int, generator: random.Random) -> list[int]:
    members: dict[Hashable, list[int]] = {}
    for at, label in enumerate(labels):
        members.setdefault(key_of(label), []).append(at)
    if len(members) > n:
        raise ValueError(f"n: {n} samples cannot hold all {len(members)} labels of stratify")
    shares = _shares([len(m) for m in members.values()], n)
    chosen: list[int] = []
    for group, share in zip(members.values(), shares, strict=True):
        chosen += [group[i] for i in _floyd(len(group), share, generator)]
    return sorted(chosen)


def _floyd(total: int, n: int, generator: random.Random) -> list[int]:
    """Return ``n`` positions below ``total``, ascending, all sets equally likely (Floyd 1987)."""
    # Of Python's generator only `random()` is promised to stay the same in later versions, so nothing else is used of it.
    chosen: set[int] = set()
    for top in range(total - n, total):
        at = int(generator.random() * (top + 1))
        chosen.add(top if at in chosen else at)
    return sorted(chosen)


def _shares(sizes: Sequence[int], n: int) -> list[int]:
    """Split ``n`` over groups in proportion to their sizes, the rest by largest remainder; none empty, none above its size."""
    total = sum(sizes)
    exact = [size * n / total for size in sizes]
    shares = [max(1, int(e)) for e in exact]
    order = sorted(range(len(sizes)), key=lambda i: (shares[i] - exact[i], i))
    while sum(shares) < n:
        fitting = next(i for i in order if shares[i] < sizes[i])
        shares[fitting] += 1
        order.append(order.pop(order.index(fitting)))
    while sum(shares) > n:  # groups that were raised to one are paid for by the largest
        shares[shares.index(max(shares))] -= 1
    return shares


def key_of(label: Any) -> Hashable:
    """Return a label or an index as something to compare: a tensor's number; one key, None, for all that is missing."""
    if hasattr(label, "tolist"):
        label = label.tolist()
    if isinstance(label, list):
        return tuple(key_of(part) for part in label)
    try:
        return None if label != label else label  # NaN
    except TypeError:  # pandas.NA will not say
        return None
