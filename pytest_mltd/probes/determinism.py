"""Is a training the same twice, bit for bit? Run twice from one state, compared event by event, and the cause named."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pytest_mltd.checks.runs.divergence import check_divergence
from pytest_mltd.core.asking import asserting, umbrella
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.trials import Condition
from pytest_mltd.probes import carrying, causes
from pytest_mltd.probes.hashes import depends_on_hashes
from pytest_mltd.probes.repeating import Ran, Runs, Where, own_folder, parameters_of, state_put_back
from pytest_mltd.probes.results import Leaf, compared, first_difference

ID = "runs.divergence"


@umbrella
def check_reproducible(
    train: Callable[..., Any],
    *,
    seed: int = 0,
    steps: int | None = None,
    interpreter: Where | None = None,
    in_process: bool = False,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a training function does the same twice, bit for bit, and name the cause where it does not.

    Both runs start from the state that this process is in, each in a forked child, so that a generator made at import is the
    same for both; nothing they do reaches this process. Before each, Python, numpy and torch are seeded. Compared are random
    states, batches, outputs, losses, gradients and weights at each step, and the numbers that ``train`` returns. If the code
    lets the order of a set out or calls ``hash``, two fresh interpreters with different hash seeds are compared as well
    (seconds each).

    Where a fork is not possible the runs are made in fresh interpreters if the function can be found there again, else one
    after the other in this process with random states put back; the finding says so, and what could not be told apart then.
    A run that is about to change a file that was there before is stopped.

    Args:
        train: the training; given ``seed`` if it has a parameter of that name, and nothing else.
        seed: set before each run.
        steps: end each run after so many steps of the busiest optimizer; None lets them run to their end.
        interpreter: "fork", "fresh" or "here" to insist on one; None takes the first that is possible.
        in_process: run it twice in one child instead, so that what the first run leaves behind (a cache, a counter, a model
            that is trained further) shows.
        allow: reasons by place, as for `check_divergence`.

    Raises:
        TypeError: ``train`` is not a function that can be called so.
        ValueError: ``train`` raised; the text has its traceback. Or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> check_reproducible(lambda: 0.5).ok
        True
    """
    __tracebackhide__ = True
    _check_arguments(train, seed, steps, interpreter)
    need("torch", "check_reproducible")
    # Here and not in each child: what the children share they need not load, and both see the same of it.
    import pytest_mltd.recording.recorder
    import pytest_mltd.recording.watching  # noqa: F401

    with own_folder() as folder:
        runs = Runs(train, Condition(seed=seed, steps=steps, exact=True), folder, interpreter)
        if in_process:
            return _named(_carried_over(runs, allow), seed)
        finding = _twice(runs, runs.once, allow)
        if finding.ok and finding.asked and runs.where == "fork" and depends_on_hashes(train):
            finding = _across_hash_seeds(runs, finding, allow)
        return _named(_with_notes(finding, runs.notes), seed)


assert_reproducible = asserting(check_reproducible)


def _twice(runs: Runs, once: Callable[[], Ran], allow: Mapping[str, str] | None) -> Finding:
    __tracebackhide__ = True
    with state_put_back(runs.where == "here"):
        first = once()
    if first.raised:
        raise ValueError(f"train: it raised\n{first.raised}")
    if first.wrote:
        return _stopped(first.wrote)
    return _compared(first, once(), allow)


def _compared(first: Ran, second: Ran, allow: Mapping[str, str] | None) -> Finding:
    if second.wrote:
        return _stopped(second.wrote)
    if second.raised:
        return _only_second_raised(second, first)
    finding = check_divergence(causes.comparable(first.trace), causes.comparable(second.trace), allow=allow)
    if finding.failed:
        return causes.explained(
            finding, first.trace, second.trace, dataclasses.replace(second.beside, drawn=first.beside.drawn)
        )
    if finding.allowed:
        return finding
    different = first_difference(first.leaves, second.leaves, clocks=_reads_clock(first))
    if different is not None:
        finding = _results_differ(*different, finding)
        return causes.explained(
            finding, first.trace, second.trace, dataclasses.replace(second.beside, drawn=first.beside.drawn)
        )
    return _equal(finding, first)


def _equal(finding: Finding, first: Ran) -> Finding:
    count = len(compared(first.leaves, clocks=_reads_clock(first)))
    returned = f"{count} returned {'number' if count == 1 else 'numbers'}" if count else ""
    if finding.asked:
        looked = f"{finding.looked_at}; {returned}" if returned else finding.looked_at
        return dataclasses.replace(finding, looked_at=looked)
    if not count:
        return not_asked(
            f"nothing to compare: {finding.headline}, and it returned no number",
            next_step="let the training take an optimizer step, or return what it measured",
        )
    return Finding(
        ok=True,
        headline=f"two runs return the same, bit for bit, in {returned}",
        looked_at=f"{returned}; {finding.headline}",
    )


def _results_differ(one: Leaf, two: Leaf, equal: Finding) -> Finding:
    place = one.path or "the result"
    trained = f"the training is equal ({equal.headline}), and" if equal.asked else "nothing was recorded, and"
    return Finding(
        ok=False,
        id=ID,
        headline=f"{trained} what it returned differs at '{place}': {one.text} and {two.text}",
        culprit=place,
        table=Table(("returned", "run 1", "run 2"), ((place, one.text, two.text),), 0),
        shows="Everything recorded up to the last step agrees; what is computed after it, or beside it, does not.",
        next_step="look at the evaluation: dropout that is active, a sample drawn without a seed, a clock",
        details={"cause": "result", "phase": "returned value"},
    )


def _only_second_raised(second: Ran, first: Ran) -> Finding:
    line = second.raised.strip().splitlines()[-1][:120]
    finding = Finding(
        ok=False,
        id=ID,
        headline=f"run 1 came to its end, run 2 raised {line}",
        culprit="run 2",
        shows="Both runs began in the same state; the second did not get through.",
        next_step="look at what the first run left: files, ports, locks",
        details={"cause": "raised"},
    )
    return causes.explained(finding, first.trace, second.trace, second.beside)


def _stopped(name: str) -> Finding:
    return not_asked(
        f"a run was stopped before it changed {name!r}, a file that was there before",
        next_step="give the training a folder of its own to write to (writes from C code are not seen by this)",
    )


def _across_hash_seeds(runs: Runs, finding: Finding, allow: Mapping[str, str] | None) -> Finding:
    """Ask two fresh interpreters with different hash seeds, where the function can be found again there."""
    cannot = carrying.forbids(runs.train)
    if cannot:
        runs.notes.append(f"hash seed not asked, though the code lets the order of a set out or calls hash(): {cannot}")
        return finding
    first = runs.fresh(hash_seed=1)
    if first.raised:
        runs.notes.append(
            f"hash seed not asked: in a fresh interpreter it raised {first.raised.strip().splitlines()[-1]}"
        )
        return finding
    across = _compared(first, runs.fresh(hash_seed=2), allow)
    if not across.failed:
        runs.notes.append("also equal in fresh interpreters under two hash seeds")
        return finding
    if _compared(first, runs.fresh(hash_seed=1), allow).failed:
        # Forks of one process agree, so the seed reaches all that the function draws. That is what was asked.
        runs.notes.append(
            "fresh interpreters differ also under one hash seed: something is drawn while modules are imported, before "
            "the seed is set"
        )
        return finding
    return causes.follows_hash_seed(across)


def _carried_over(runs: Runs, allow: Mapping[str, str] | None) -> Finding:
    """Compare a run with the second run of another process."""
    __tracebackhide__ = True
    first, later = runs.forked(1), runs.forked(2)
    for ran in (first, later):
        if ran.raised:
            raise ValueError(f"train: it raised\n{ran.raised}")
    finding = _compared(first, later, allow)
    if not finding.failed:
        return dataclasses.replace(
            finding, looked_at=f"{finding.looked_at}; the second ran in a process that had run it once"
        )
    if _compared(first, runs.forked(1), allow).failed:
        return finding  # it differs between processes as well
    return causes.carried_over(finding, later.changed)


def _with_notes(finding: Finding, notes: list[str]) -> Finding:
    if not notes:
        return finding
    said = "; ".join(notes)
    if finding.failed:
        return dataclasses.replace(finding, shows=f"{finding.shows} ({said})".strip())
    return dataclasses.replace(finding, looked_at=f"{finding.looked_at}; {said}".strip("; "))


def _named(finding: Finding, seed: int) -> Finding:
    return dataclasses.replace(finding, id=ID, details={**finding.details, "seed": seed})


def _reads_clock(ran: Ran) -> bool:
    return any(what in causes.CLOCKS for what, _ in ran.beside.drawn)


def _check_arguments(train: Any, seed: Any, steps: Any, interpreter: Any) -> None:
    __tracebackhide__ = True
    if not callable(train) or inspect.isclass(train):
        raise TypeError(f"train: a function is needed, as in check_reproducible(lambda: fit(model)), not {train!r}")
    if inspect.isgeneratorfunction(train) or inspect.iscoroutinefunction(train):
        raise TypeError(
            "train: a plain function is needed; a generator or coroutine function does nothing when it is called"
        )
    missing = [
        p.name
        for p in parameters_of(train).values()
        if p.default is p.empty and p.name != "seed" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if missing:
        raise TypeError(f"train: it needs {', '.join(missing)}; wrap the call: lambda: train({', '.join(missing)})")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: a whole number from 0 to {2**32 - 1} is needed, not {seed!r}")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ValueError(f"steps: at least 1 is needed, not {steps!r}")
    if interpreter not in (None, "fork", "fresh", "here"):
        raise ValueError(f"interpreter: 'fork', 'fresh', 'here' or None is needed, not {interpreter!r}")
