"""Where two runs first differ: digests in the order in which a step computes them, and the numbers kept at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.runs.places import at_site
from pytest_mltd.core.traces import NO_DIGEST, Trace

# Columns of `digests` in the order in which a step computes them: (column, phase, name where it is a single value).
PHASES = (
    ("python", "random state", "Python"),
    ("numpy", "random state", "numpy"),
    ("torch", "random state", "torch"),
    ("inputs", "batch", "inputs"),
    ("output", "forward", ""),
    ("loss", "loss", "loss"),
    ("grad", "backward", ""),
    ("grad_used", "gradient as used", ""),
    ("optimizer_state", "update", "optimizer state"),
    ("weight", "weights", ""),
)
STATES = ("python", "numpy", "torch")
_SCALARS = (
    ("lr", "learning rate"),
    ("loss", "loss"),
    ("grad_norm", "gradient norm"),
    ("grad_norm_used", "gradient norm as used"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """The first difference: a column of a table at a step. ``agreed`` counts the equal values before it."""

    step: int
    after: int  # the last step that was equal in all that was compared, -1 for none
    column: str
    phase: str
    name: str
    agreed: int
    norms: tuple[float | None, float | None] = (None, None)

    @property
    def exact(self) -> bool:
        """Whether no step lies between the last equal one and this."""
        return self.step <= self.after + 1


def from_random_state(one: Trace, two: Trace, place: Place) -> Place | None:
    """Return the random state that this difference can have come from: one that differs from that very sample on.

    A state that differed long before, or is never drawn from (Python's in a fresh process that seeds torch only), did no harm.
    Only torch's can reach a forward whose inputs are equal.
    """
    steps, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    row = int(np.searchsorted(steps, place.step))
    if row >= steps.size or steps[row] != place.step or place.column not in {c for c, _, _ in PHASES}:
        return None
    drawn: list[Place] = []
    idle: list[Place] = []
    for index, column in enumerate(STATES):
        unequal = paired(one, two, column, left, right)[0][:, 0]
        if not unequal[row] or int(np.argmax(unequal)) < row - 1 or (place.column != "inputs" and column != "torch"):
            continue
        moves = np.unique(one.digests[column][left]).size > 1
        found = Place(place.step, place.after, column, "random state", PHASES[index][2], place.agreed, (None, None))
        (drawn if moves else idle).append(found)
    return next(iter([*drawn, *([] if unseeded_generator(one) else idle)]), None)


def earlier(digest: Place | None, scalar: Place | None) -> Place | None:
    """Return the earlier of two places; a digest wins within a step, for it says more."""
    if digest is None or scalar is None:
        return digest or scalar
    if scalar.step < digest.step:
        after = min(digest.after, scalar.after) if digest.after < scalar.step else scalar.after
        return Place(scalar.step, after, scalar.column, scalar.phase, scalar.name, digest.agreed, scalar.norms)
    return digest


def in_digests(one: Trace, two: Trace) -> Place | None:
    """Return the first difference among digests that both runs took, at steps that both sampled, random states left out."""
    steps, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    if not steps.size:
        return None
    differ = np.zeros(steps.size, dtype=bool)
    taken = np.zeros(steps.size, dtype=np.int64)
    pairs = {column: paired(one, two, column, left, right) for column, _, _ in PHASES}
    for column, (unequal, both) in pairs.items():
        differ |= unequal.any(axis=1) & (column not in STATES)
        taken += (both & ~unequal if column in STATES else both).sum(axis=1)
    if not differ.any():
        return None
    row = int(np.argmax(differ))
    agreed = int(taken[:row].sum())
    after = int(steps[row - 1]) if row else -1
    for column, phase, name in PHASES:
        unequal, both = pairs[column][0][row], pairs[column][1][row]
        if column in STATES:
            agreed += int((both & ~unequal).sum())
            continue
        if unequal.any():
            order = np.arange(unequal.size)[
                :: -1 if phase in ("backward", "gradient as used") else 1
            ]  # backward runs from the loss down
            at = int(next(i for i in order if unequal[i]))
            agreed += int(both[order[: int(np.flatnonzero(order == at)[0])]].sum())
            names = names_of(one, two, column)
            return Place(
                int(steps[row]),
                after,
                column,
                phase,
                name or names[at],
                agreed,
                norms_of(one, two, column, int(steps[row]), name or names[at]),
            )
        agreed += int(both.sum())
    return None


def paired(one: Trace, two: Trace, column: str, left: Any, right: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (unequal, taken in both) of one column, rows × names, in the order of the first run's names."""
    a, b = one.digests[column], two.digests[column]
    if a.ndim == 1:
        a, b = a[:, None], b[:, None]
    else:
        mine, theirs = columns_of(one, two, column)
        a, b = a[:, mine], b[:, theirs]
    a, b = a[left], b[right]
    both = (a != NO_DIGEST) & (b != NO_DIGEST)
    return both & (a != b), both


def names_of(one: Trace, two: Trace, column: str) -> list[str]:
    if one.digests[column].ndim == 1:
        return [column]
    names = _all_names(one, column)
    return [names[i] for i in columns_of(one, two, column)[0]]


def _all_names(trace: Trace, column: str) -> list[str]:
    return [m.name for m in trace.modules] if column == "output" else [p.name for p in trace.parameters]


def columns_of(one: Trace, two: Trace, column: str) -> tuple[list[int], list[int]]:
    """Return the columns of both runs that have the same name."""
    mine, theirs = _all_names(one, column), _all_names(two, column)
    places = {name: i for i, name in enumerate(theirs)}
    pairs = [(i, places[name]) for i, name in enumerate(mine) if name in places]
    return [i for i, _ in pairs], [j for _, j in pairs]


def norms_of(one: Trace, two: Trace, column: str, step: int, name: str) -> tuple[float | None, float | None]:
    """Return the norm that goes with a digest in both runs, where one was recorded."""
    table, kept = {
        "grad": ("parameter_norms", "grad"),
        "grad_used": ("parameter_norms", "grad_used"),
        "weight": ("updates", "weight"),
    }.get(column, ("", ""))
    if column == "loss":
        values = [float(t.steps["loss"][step]) if step < t.n_steps else None for t in (one, two)]
        return values[0], values[1]
    if not table or column == "weight":  # that norm is the one before the step
        return None, None
    found: list[float | None] = []
    for trace in (one, two):
        rows = getattr(trace, table)
        row = np.flatnonzero(rows["step"] == step)
        index = next((i for i, p in enumerate(trace.parameters) if p.name == name), -1)
        value = float(rows[kept][row[0], index]) if row.size and index >= 0 else -1.0
        found.append(value if value >= 0 or np.isnan(value) else None)
    return found[0], found[1]


def in_scalars(one: Trace, two: Trace) -> Place | None:
    """Return the first difference among the numbers that are kept at each step."""
    length = min(one.n_steps, two.n_steps)
    if not length:
        return _in_losses(one, two)
    best: Place | None = None
    for column, name in _SCALARS:
        a, b = one.steps[column][:length], two.steps[column][:length]
        unequal = (a != b) & ~(np.isnan(a) | np.isnan(b))
        unequal |= np.isnan(a) != np.isnan(b) if column == "loss" else False
        at = int(np.argmax(unequal)) if unequal.any() else -1
        if at >= 0 and (best is None or at < best.step):
            phase = {"lr": "learning rate", "loss": "loss"}.get(column, "backward")
            best = Place(at, at - 1, column, phase, name, at * len(_SCALARS), (float(a[at]), float(b[at])))
    return best


def _in_losses(one: Trace, two: Trace) -> Place | None:
    length = min(one.losses["value"].size, two.losses["value"].size)
    a, b = one.losses["value"][:length], two.losses["value"][:length]
    unequal = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not unequal.any():
        return None
    at = int(np.argmax(unequal))
    return Place(at, at - 1, "loss", "loss", "loss", at, (float(a[at]), float(b[at])))


def states_differ(one: Trace, two: Trace, column: str) -> bool:
    _, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    return bool(paired(one, two, column, left, right)[0].any())


def count_events(one: Trace, two: Trace) -> int:
    """Return how many values were there to compare."""
    _, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    total = sum(int(paired(one, two, column, left, right)[1].sum()) for column, _, _ in PHASES) if left.size else 0
    length = min(one.n_steps, two.n_steps)
    for column, _ in _SCALARS:
        total += int((~np.isnan(one.steps[column][:length]) & ~np.isnan(two.steps[column][:length])).sum())
    return total if length else min(one.losses["value"].size, two.losses["value"].size)


def compared(one: Trace, two: Trace, column: str) -> bool:
    _, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    return bool(left.size and paired(one, two, column, left, right)[1].any())


def unseeded_generator(trace: Trace) -> str:
    found = [s for s in trace.seeds if s.value is None]
    return f" {found[0].what}() was made without a seed{at_site(found[0].site)}." if found else ""
