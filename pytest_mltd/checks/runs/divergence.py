"""The question about two recorded runs: where is the first thing in which they differ, and what was still equal before it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import no_training
from pytest_mltd.checks.runs.first_difference import (
    PHASES,
    STATES,
    Place,
    columns_of,
    compared,
    count_events,
    earlier,
    from_random_state,
    in_digests,
    in_scalars,
    names_of,
    norms_of,
    paired,
    states_differ,
    unseeded_generator,
)
from pytest_mltd.checks.runs.places import at_site, counted
from pytest_mltd.core.asking import asserting, check
from pytest_mltd.core.findings import Finding, Plain, Table, not_asked
from pytest_mltd.core.traces import NO_DIGEST, SeedCall, Trace, as_trace


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
    return models_differ(one, two) or _first_difference(one, two) or _ends_differ(one, two) or _equal(one, two)


assert_no_divergence = asserting(check_divergence)


def _settings_that_differ(one: Trace, two: Trace) -> str:
    keys = sorted(one.settings.keys() | two.settings.keys())
    changed = [k for k in keys if k in one.settings and k in two.settings and one.settings[k] != two.settings[k]]
    return ", ".join(f"{k} ({one.settings[k]} and {two.settings[k]})" for k in changed[:5])


def models_differ(one: Trace, two: Trace) -> Finding | None:
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
    place = earlier(in_digests(one, two), in_scalars(one, two))
    if place is None:
        return None
    return _difference_finding(one, two, from_random_state(one, two, place) or place)


def _difference_finding(one: Trace, two: Trace, place: Place) -> Finding:
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


def _table(one: Trace, two: Trace, place: Place) -> Table:
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


def _rows(one: Trace, two: Trace, place: Place) -> Iterator[tuple[Plain, ...]]:
    """Yield what was compared at the step: single values by name, many of one phase as their count while they are equal."""
    at = [np.flatnonzero(t.digests["step"] == place.step) for t in (one, two)]
    if not at[0].size or not at[1].size or place.column not in {c for c, _, _ in PHASES}:
        return
    for column, phase, name in PHASES:
        unequal, both = (m[0] for m in paired(one, two, column, at[0][:1], at[1][:1]))
        if not both.any():
            continue
        if name:
            yield (
                place.step,
                phase,
                name,
                *norms_of(one, two, column, place.step, name),
                "differ" if unequal.any() else "same",
            )
            continue
        names = names_of(one, two, column)
        same = int((both & ~unequal).sum())
        if not unequal.any():
            yield (place.step, phase, f"all {same:,}", None, None, "same")
            continue
        order = list(range(len(names)))[:: -1 if phase in ("backward", "gradient as used") else 1]
        for i in [i for i in order if unequal[i]][:3]:
            yield (place.step, phase, names[i], *norms_of(one, two, column, place.step, names[i]), "differ")


def _cause(one: Trace, two: Trace, place: Place) -> tuple[str, str, str]:
    """Return the class of cause, what the evidence shows, and the next step."""
    unseeded = unseeded_generator(one)
    if place.column in STATES:
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
    compared = place.column in {c for c, _, _ in PHASES}
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


def _random_cause(one: Trace, two: Trace, place: Place) -> tuple[str, str, str]:
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


def _seed_words(one: Trace, two: Trace) -> str:
    """Say which seed call was given two values, if one was."""
    for a, b in zip(one.seeds, two.seeds, strict=False):
        if a.what == b.what and a.value != b.value:
            return f" {a.what} was given {a.value} in run 1 and {b.value} in run 2{at_site(a.site)}."
    return ""


def _states_seen(one: Trace, two: Trace) -> str:
    seen = [c for c in STATES if (one.digests[c] != NO_DIGEST).any() and (two.digests[c] != NO_DIGEST).any()]
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
    mine, theirs = columns_of(one, two, "weight")
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
    events = count_events(one, two)
    if not events:
        return not_asked("the runs have nothing recorded in common (digests at no common step)")
    looked = [f"{counted(common, 'step')} of both", f"digests at {steps:,} of them"]
    if one.n_steps != two.n_steps:
        looked.append(f"the shorter {min((one, two), key=lambda t: t.n_steps).ending} after {common:,}")
    odd = [name for column, _, name in PHASES[:3] if states_differ(one, two, column)]
    if odd:
        looked.append(f"the random state of {' and '.join(odd)} differed, and nothing followed from it")
    skipped = [phase for column, phase, _ in PHASES if not compared(one, two, column)]
    if skipped:
        looked.append("not compared: " + ", ".join(dict.fromkeys(skipped)))
    return Finding(
        ok=True,
        headline=f"runs are equal, bit for bit, in {counted(events, 'event')}",
        amount=events,
        looked_at="; ".join(looked),
    )
