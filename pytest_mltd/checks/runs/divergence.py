"""The question about two recorded runs: where is the first thing in which they differ, and what was still equal before it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.runs.curves import no_training
from pytest_mltd.checks.runs.places import at_site, counted
from pytest_mltd.core.asking import asserting, check
from pytest_mltd.core.findings import Finding, Plain, Table, not_asked
from pytest_mltd.core.traces import NO_DIGEST, SeedCall, Trace, as_trace

# Columns of `digests` in the order in which a step computes them: (column, phase, name where it is a single value).
_PHASES = (
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
_STATES = ("python", "numpy", "torch")
_SCALARS = (
    ("lr", "learning rate"),
    ("loss", "loss"),
    ("grad_norm", "gradient norm"),
    ("grad_norm_used", "gradient norm as used"),
)


@check("two runs", explains=("*",), rank=5, family="runs")
def check_divergence(first: Any, second: Any, *, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether two runs of the same training are equal bit for bit, and name the first thing in which they are not.

    Within a step the order is: random state, batch, forward, loss, backward, gradient as used, update, weights. Digests
    that were taken at every n-th step give a bracket; numbers kept at each step (loss, norms) narrow it.

    Args:
        first: a recording, a run or a trace.
        second: another one.
        allow: reasons by place (a parameter, module, generator or column).

    Raises:
        TypeError: one of them is no recorded run; the message begins with its argument's name.
    """
    one, two = as_trace(first, "first"), as_trace(second, "second")
    for name, trace in (("first", one), ("second", two)):
        if reason := no_training(trace):
            return not_asked(f"the {name} run: {reason}")
    if changed := _settings_that_differ(one, two):
        return not_asked(
            f"bits cannot be compared, settings that change them differ: {changed}",
            next_step="run both under the same settings",
        )
    return _models_differ(one, two) or _first_difference(one, two) or _ends_differ(one, two) or _equal(one, two)


assert_no_divergence = asserting(check_divergence)


@dataclass(frozen=True, slots=True)
class _Place:
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


def _settings_that_differ(one: Trace, two: Trace) -> str:
    keys = sorted(one.settings.keys() | two.settings.keys())
    changed = [k for k in keys if k in one.settings and k in two.settings and one.settings[k] != two.settings[k]]
    return ", ".join(f"{k} ({one.settings[k]} and {two.settings[k]})" for k in changed[:5])


def _models_differ(one: Trace, two: Trace) -> Finding | None:
    """Return the finding of two runs that do not even train the same parameters."""
    left, right = ({p.name: p.shape for p in t.parameters if p.optimizers} for t in (one, two))
    if not left or not right or left == right:
        return None
    odd = sorted(n for n in left.keys() | right.keys() if left.get(n) != right.get(n))
    name = odd[0]
    have = [str(list(side[name])) if name in side else "missing" for side in (left, right)]
    return Finding(
        ok=False,
        headline=f"runs train different parameters: '{name}' is {have[0]} in run 1 and {have[1]} in run 2",
        culprit=name,
        step=0,
        table=Table(
            ("parameter", "shape, run 1", "shape, run 2"),
            tuple((n, str(left.get(n, "missing")), str(right.get(n, "missing"))) for n in odd[:10]),
            0,
        ),
        shows=f"{counted(len(odd), 'parameter')} differ before the first step: these are two models.",
        next_step="compare the configuration that builds the model",
        details={"cause": "model"},
    )


def _first_difference(one: Trace, two: Trace) -> Finding | None:
    place = _earlier(_in_digests(one, two), _in_scalars(one, two))
    if place is None:
        return None
    return _difference_finding(one, two, _from_random_state(one, two, place) or place)


def _from_random_state(one: Trace, two: Trace, place: _Place) -> _Place | None:
    """Return the random state that this difference can have come from: one that differs from that very sample on.

    A state that differed long before, or is never drawn from (Python's in a fresh process that seeds torch only), did no harm.
    Only torch's can reach a forward whose inputs are equal.
    """
    steps, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    row = int(np.searchsorted(steps, place.step))
    if row >= steps.size or steps[row] != place.step or place.column not in {c for c, _, _ in _PHASES}:
        return None
    drawn: list[_Place] = []
    idle: list[_Place] = []
    for index, column in enumerate(_STATES):
        unequal = _paired(one, two, column, left, right)[0][:, 0]
        if not unequal[row] or int(np.argmax(unequal)) < row - 1 or (place.column != "inputs" and column != "torch"):
            continue
        moves = np.unique(one.digests[column][left]).size > 1
        found = _Place(place.step, place.after, column, "random state", _PHASES[index][2], place.agreed, (None, None))
        (drawn if moves else idle).append(found)
    return next(iter([*drawn, *([] if _unseeded(one) else idle)]), None)


def _earlier(digest: _Place | None, scalar: _Place | None) -> _Place | None:
    """Return the earlier of two places; a digest wins within a step, for it says more."""
    if digest is None or scalar is None:
        return digest or scalar
    if scalar.step < digest.step:
        after = min(digest.after, scalar.after) if digest.after < scalar.step else scalar.after
        return _Place(scalar.step, after, scalar.column, scalar.phase, scalar.name, digest.agreed, scalar.norms)
    return digest


def _in_digests(one: Trace, two: Trace) -> _Place | None:
    """Return the first difference among digests that both runs took, at steps that both sampled, random states left out."""
    steps, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    if not steps.size:
        return None
    differ = np.zeros(steps.size, dtype=bool)
    taken = np.zeros(steps.size, dtype=np.int64)
    pairs = {column: _paired(one, two, column, left, right) for column, _, _ in _PHASES}
    for column, (unequal, both) in pairs.items():
        differ |= unequal.any(axis=1) & (column not in _STATES)
        taken += (both & ~unequal if column in _STATES else both).sum(axis=1)
    if not differ.any():
        return None
    row = int(np.argmax(differ))
    agreed = int(taken[:row].sum())
    after = int(steps[row - 1]) if row else -1
    for column, phase, name in _PHASES:
        unequal, both = pairs[column][0][row], pairs[column][1][row]
        if column in _STATES:
            agreed += int((both & ~unequal).sum())
            continue
        if unequal.any():
            order = np.arange(unequal.size)[
                :: -1 if phase in ("backward", "gradient as used") else 1
            ]  # backward runs from the loss down
            at = int(next(i for i in order if unequal[i]))
            agreed += int(both[order[: int(np.flatnonzero(order == at)[0])]].sum())
            names = _names(one, two, column)
            return _Place(
                int(steps[row]),
                after,
                column,
                phase,
                name or names[at],
                agreed,
                _norms(one, two, column, int(steps[row]), name or names[at]),
            )
        agreed += int(both.sum())
    return None


def _paired(one: Trace, two: Trace, column: str, left: Any, right: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (unequal, taken in both) of one column, rows × names, in the order of the first run's names."""
    a, b = one.digests[column], two.digests[column]
    if a.ndim == 1:
        a, b = a[:, None], b[:, None]
    else:
        mine, theirs = _columns(one, two, column)
        a, b = a[:, mine], b[:, theirs]
    a, b = a[left], b[right]
    both = (a != NO_DIGEST) & (b != NO_DIGEST)
    return both & (a != b), both


def _names(one: Trace, two: Trace, column: str) -> list[str]:
    if one.digests[column].ndim == 1:
        return [column]
    names = _all_names(one, column)
    return [names[i] for i in _columns(one, two, column)[0]]


def _all_names(trace: Trace, column: str) -> list[str]:
    return [m.name for m in trace.modules] if column == "output" else [p.name for p in trace.parameters]


def _columns(one: Trace, two: Trace, column: str) -> tuple[list[int], list[int]]:
    """Return the columns of both runs that have the same name."""
    mine, theirs = _all_names(one, column), _all_names(two, column)
    places = {name: i for i, name in enumerate(theirs)}
    pairs = [(i, places[name]) for i, name in enumerate(mine) if name in places]
    return [i for i, _ in pairs], [j for _, j in pairs]


def _norms(one: Trace, two: Trace, column: str, step: int, name: str) -> tuple[float | None, float | None]:
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


def _in_scalars(one: Trace, two: Trace) -> _Place | None:
    """Return the first difference among the numbers that are kept at each step."""
    length = min(one.n_steps, two.n_steps)
    if not length:
        return _in_losses(one, two)
    best: _Place | None = None
    for column, name in _SCALARS:
        a, b = one.steps[column][:length], two.steps[column][:length]
        unequal = (a != b) & ~(np.isnan(a) | np.isnan(b))
        unequal |= np.isnan(a) != np.isnan(b) if column == "loss" else False
        at = int(np.argmax(unequal)) if unequal.any() else -1
        if at >= 0 and (best is None or at < best.step):
            phase = {"lr": "learning rate", "loss": "loss"}.get(column, "backward")
            best = _Place(at, at - 1, column, phase, name, at * len(_SCALARS), (float(a[at]), float(b[at])))
    return best


def _in_losses(one: Trace, two: Trace) -> _Place | None:
    length = min(one.losses["value"].size, two.losses["value"].size)
    a, b = one.losses["value"][:length], two.losses["value"][:length]
    unequal = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not unequal.any():
        return None
    at = int(np.argmax(unequal))
    return _Place(at, at - 1, "loss", "loss", "loss", at, (float(a[at]), float(b[at])))


def _difference_finding(one: Trace, two: Trace, place: _Place) -> Finding:
    cause, shows, next_step = _cause(one, two, place)
    where = f"{place.phase} of '{place.name}'" if place.name not in (place.phase, "inputs") else f"the {place.name}"
    if place.exact:
        when = f"then differ in {where} at step {place.step}"
    elif place.after < 0:
        when = f"then differ by step {place.step}, seen in {where} (sampled digests; exact with level everything)"
    else:
        when = (
            f"then differ between steps {place.after} and {place.step}, first seen in {where} "
            "(sampled digests; exact with level everything)"
        )
    agree = f"runs agree for {counted(place.agreed, 'event')}, " if place.agreed else "runs never agree: they "
    headline = agree + (when if place.agreed else when.removeprefix("then "))
    return Finding(
        ok=False,
        headline=headline,
        culprit=place.name,
        amount=place.agreed,
        step=place.step,
        table=_table(one, two, place),
        shows=shows,
        next_step=next_step,
        details={"cause": cause, "phase": place.phase, "exact": place.exact, "after": place.after},
    )


def _table(one: Trace, two: Trace, place: _Place) -> Table:
    rows = list(_rows(one, two, place))
    culprit = next((i for i, row in enumerate(rows) if row[2] == place.name and row[1] == place.phase), None)
    if culprit is None:
        rows = rows[-6:]
        rows.append((place.step, place.phase, place.name, *place.norms, "differ"))
        culprit = len(rows) - 1
    first = max(0, culprit - 6)
    return Table(
        ("step", "phase", "name", "run 1", "run 2", "bytes"), tuple(rows[first : culprit + 3]), culprit - first
    )


def _rows(one: Trace, two: Trace, place: _Place) -> Iterator[tuple[Plain, ...]]:
    """Yield what was compared at the step: single values by name, many of one phase as their count while they are equal."""
    at = [np.flatnonzero(t.digests["step"] == place.step) for t in (one, two)]
    if not at[0].size or not at[1].size or place.column not in {c for c, _, _ in _PHASES}:
        return
    for column, phase, name in _PHASES:
        unequal, both = (m[0] for m in _paired(one, two, column, at[0][:1], at[1][:1]))
        if not both.any():
            continue
        if name:
            yield (
                place.step,
                phase,
                name,
                *_norms(one, two, column, place.step, name),
                "differ" if unequal.any() else "same",
            )
            continue
        names = _names(one, two, column)
        same = int((both & ~unequal).sum())
        if not unequal.any():
            yield (place.step, phase, f"all {same:,}", None, None, "same")
            continue
        order = list(range(len(names)))[:: -1 if phase in ("backward", "gradient as used") else 1]
        for i in [i for i in order if unequal[i]][:3]:
            yield (place.step, phase, names[i], *_norms(one, two, column, place.step, names[i]), "differ")


def _cause(one: Trace, two: Trace, place: _Place) -> tuple[str, str, str]:
    """Return the class of cause, what the evidence shows, and the next step."""
    unseeded = _unseeded(one)
    if place.column in _STATES:
        return _random_cause(one, two, place)
    if place.column == "inputs":
        if _reordered(one, two):
            return (
                "input order",
                f"The same batches come in another order, while {_states_seen(one, two)} agree before it." + unseeded,
                "seed what shuffles: pass a seeded torch.Generator to the DataLoader, or sort what lists files",
            )
        return (
            "inputs",
            f"Recorded {_states_seen(one, two)} match before the batch, so it comes from elsewhere: a "
            "generator of its own, the clock, "
            "worker processes, files." + unseeded,
            "seed that generator; look at what makes the batch and does not use the global random state",
        )
    if place.phase == "learning rate":
        return (
            "settings",
            "The learning rate differs before anything else: these are two configurations.",
            "compare the settings of both runs",
        )
    compared = place.column in {c for c, _, _ in _PHASES}
    weights = _initial_weights(one, two) if place.step == 0 else ""
    if weights:
        return (
            "initial weights",
            f"The norm of '{weights}' before the first step differs already: the models were built differently."
            + _seed_words(one, two),
            "seed before the model is built",
        )
    if not compared or not place.exact:
        return (
            "unknown",
            "Only sampled digests and the numbers of each step were compared; what differs first lies between."
            + _seed_words(one, two)
            + unseeded,
            "record both runs with level='everything': digests are then taken at every step",
        )
    return (
        "result",
        "Recorded inputs, weights and random state match up to the marked row: the same work gave another result.",
        "rerun under torch.use_deterministic_algorithms(True); it names the operation if it is a known one",
    )


def _random_cause(one: Trace, two: Trace, place: _Place) -> tuple[str, str, str]:
    who = {"python": "random", "numpy": "numpy", "torch": "torch"}[place.column]
    a, b = (_last_seed(t, who, place.step) for t in (one, two))
    if a is not None and b is not None and a.value != b.value:
        return (
            "seed",
            (
                f"{a.what} was given {a.value} in run 1 and {b.value} in run 2{at_site(a.site)}: the seed itself "
                "changes from run to run."
            ),
            "seed from a constant or an argument, not from the clock, the process or another generator",
        )
    if a is None:
        return (
            "random state",
            f"The random state of {place.name} differed before the step, and nothing seeded it while recording.",
            f"seed it first: mltd.seed_everything(0) covers Python, numpy and torch, or call {_SEEDING[place.column]}",
        )
    return (
        "random state",
        (
            f"The random state of {place.name} differed before the step although {a.what} was given {a.value} in "
            f"both{at_site(a.site)}: "
            "something drew from it a different number of times."
        ),
        "look for draws whose number depends on time, threads, set order or files; give them a generator of their own",
    )


_SEEDING = {"python": "random.seed", "numpy": "numpy.random.seed", "torch": "torch.manual_seed"}


def _last_seed(trace: Trace, who: str, step: int) -> SeedCall | None:
    """Return the last call that seeded a global generator up to a step."""
    mine = [
        s
        for s in trace.seeds
        if s.step <= step and s.what.split(".")[0] == who and "default_rng" not in s.what and "Generator" not in s.what
    ]
    return mine[-1] if mine else None


def _unseeded(trace: Trace) -> str:
    found = [s for s in trace.seeds if s.value is None]
    return f" {found[0].what}() was made without a seed{at_site(found[0].site)}." if found else ""


def _seed_words(one: Trace, two: Trace) -> str:
    """Say which seed call was given two values, if one was."""
    for a, b in zip(one.seeds, two.seeds, strict=False):
        if a.what == b.what and a.value != b.value:
            return f" {a.what} was given {a.value} in run 1 and {b.value} in run 2{at_site(a.site)}."
    return ""


def _states_seen(one: Trace, two: Trace) -> str:
    seen = [c for c in _STATES if (one.digests[c] != NO_DIGEST).any() and (two.digests[c] != NO_DIGEST).any()]
    words = [{"python": "Python's", "numpy": "numpy's", "torch": "torch's"}[c] for c in seen]
    joined = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return f"{joined} random states" if words else "the numbers"


def _reordered(one: Trace, two: Trace) -> bool:
    """Whether the batches that differ are mostly the same ones as a set, so that only their order differs."""
    batches = []
    for trace in (one, two):
        seen = trace.calls["digest"][trace.of("batch")]
        batches.append(seen if seen.any() else trace.digests["inputs"])
    length = min(b.size for b in batches)
    moved = batches[0][:length] != batches[1][:length]
    left, right = ({int(d) for d in b[:length][moved] if d != NO_DIGEST} for b in batches)
    return len(left) > 1 and len(left & right) >= 0.5 * min(len(left), len(right))


def _initial_weights(one: Trace, two: Trace) -> str:
    """Return the first parameter whose norm before step 0 differs."""
    if not all(t.updates["step"].size and t.updates["step"][0] == 0 for t in (one, two)):
        return ""
    mine, theirs = _columns(one, two, "weight")
    a, b = one.updates["weight"][0, mine], two.updates["weight"][0, theirs]
    unequal = (a >= 0) & (b >= 0) & (a != b)
    return one.parameters[mine[int(np.argmax(unequal))]].name if unequal.any() else ""


def _ends_differ(one: Trace, two: Trace) -> Finding | None:
    """Return the finding of runs of which one goes on longer, unless that one was cut short by us or by a kill."""
    if one.n_steps == two.n_steps and (one.n_steps or one.losses["step"].size == two.losses["step"].size):
        return None
    shorter, longer = sorted((one, two), key=lambda t: (t.n_steps, t.losses["step"].size))
    if shorter.cut:
        return None
    which = 1 if shorter is one else 2
    return Finding(
        ok=False,
        headline=f"runs agree up to step {shorter.n_steps}, where run {which} ends; the other goes on to step {longer.n_steps}",
        culprit=f"step {shorter.n_steps}",
        amount=shorter.n_steps,
        step=shorter.n_steps,
        shows="All that was recorded of the common steps is equal; the number of steps is not.",
        next_step="look at what decides when training stops: early stopping, time limits, the length of the data",
        details={"cause": "length"},
    )


def _equal(one: Trace, two: Trace) -> Finding:
    steps = np.intersect1d(one.digests["step"], two.digests["step"]).size
    common = min(one.n_steps, two.n_steps)
    events = _events(one, two)
    if not events:
        return not_asked("the runs have nothing recorded in common (digests at no common step)")
    looked = [f"{counted(common, 'step')} of both", f"digests at {steps:,} of them"]
    if one.n_steps != two.n_steps:
        looked.append(f"the shorter was {min((one, two), key=lambda t: t.n_steps).ended} after {common:,}")
    odd = [name for column, _, name in _PHASES[:3] if _states_differ(one, two, column)]
    if odd:
        looked.append(f"the random state of {' and '.join(odd)} differed, and nothing followed from it")
    skipped = [phase for column, phase, _ in _PHASES if not _compared(one, two, column)]
    if skipped:
        looked.append("not compared: " + ", ".join(dict.fromkeys(skipped)))
    return Finding(
        ok=True,
        headline=f"runs are equal, bit for bit, in {counted(events, 'event')}",
        amount=events,
        looked_at="; ".join(looked),
    )


def _states_differ(one: Trace, two: Trace, column: str) -> bool:
    _, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    return bool(_paired(one, two, column, left, right)[0].any())


def _events(one: Trace, two: Trace) -> int:
    """Return how many values were there to compare."""
    _, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    total = sum(int(_paired(one, two, column, left, right)[1].sum()) for column, _, _ in _PHASES) if left.size else 0
    length = min(one.n_steps, two.n_steps)
    for column, _ in _SCALARS:
        total += int((~np.isnan(one.steps[column][:length]) & ~np.isnan(two.steps[column][:length])).sum())
    return total if length else min(one.losses["value"].size, two.losses["value"].size)


def _compared(one: Trace, two: Trace, column: str) -> bool:
    _, left, right = np.intersect1d(one.digests["step"], two.digests["step"], return_indices=True)
    return bool(left.size and _paired(one, two, column, left, right)[1].any())
