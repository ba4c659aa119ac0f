"""Why two runs from one state differ: the class of cause that fits what was recorded of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pytest_mltd.core.findings import Finding
from pytest_mltd.core.traces import SeedCall, Trace

CLOCKS = ("time.time", "time.time_ns", "time.perf_counter", "time.perf_counter_ns")
ENTROPY = (
    "numpy.random.default_rng() without a seed",
    "random.Random() without a seed",
    "the system's entropy",
    "uuid.uuid4",
    "uuid.uuid1",
    "torch.seed",
)
# What a run may have asked for that is another thing each time, the likeliest reason for a difference first.
SUSPICION = (
    "random.Random() without a seed",
    "the system's entropy",
    "uuid.uuid4",
    "uuid.uuid1",
    "torch.seed",
    *CLOCKS,
    "os.getpid",
)


@dataclass(frozen=True, slots=True)
class Beside:
    """What was seen of two runs beside their traces; see `witness.Witness`."""

    reread: Sequence[str] = ()
    drawn: Sequence[tuple[str, str]] = ()


def explained(finding: Finding, first: Trace, second: Trace, beside: Beside) -> Finding:
    """Return the finding of a difference with the cause that fits best, strongest evidence first."""
    if not finding.failed:
        return finding
    return (
        _another_seed(finding, first, second, beside)
        or _a_file(finding, beside)
        or _an_unseeded_generator(finding, first, second)
        or _something_drawn(finding, beside)
        or finding
    )


def comparable(trace: Trace) -> Trace:
    """Return the trace without the setting that two runs are given differently on purpose."""
    return replace(trace, settings={k: v for k, v in trace.settings.items() if k != "PYTHONHASHSEED"})


def follows_hash_seed(finding: Finding) -> Finding:
    """Return the finding of a difference that came and went with Python's hash seed."""
    return _because(
        finding,
        "hash seed",
        "it follows Python's hash seed (the order of a set, or hash() of a text)",
        "Two processes with one PYTHONHASHSEED agree, two with different ones do not; Python picks another for each process.",
        "sort what comes out of a set before it decides anything, and do not use hash() of text",
    )


def follows_the_process(finding: Finding) -> Finding:
    """Return the finding of a difference between fresh processes that a common hash seed does not take away."""
    return finding if finding.details.get("cause") not in (None, "unknown") else _because(
        finding,
        "process",
        "it changes from process to process, also under one hash seed",
        "Each run had an interpreter of its own; what is drawn while modules are imported differs then.",
        "look at what is computed at import: generators, timestamps, identifiers",
    )  # fmt: skip


def carried_over(finding: Finding, names: Sequence[str]) -> Finding:
    """Return the finding of a difference that shows only when one process runs the training twice."""
    where = f": {', '.join(names[:3])} changed" if names else ""
    return _because(
        finding,
        "carried over",
        f"state is carried over in the process{where}",
        "Two processes agree; the second run in one process starts from what the first left behind.",
        "make that state inside the training function, or reset it there",
        culprit=names[0] if names else "",
    )


def _another_seed(finding: Finding, first: Trace, second: Trace, beside: Beside) -> Finding | None:
    pair = _seeds_that_differ(first.seeds, second.seeds)
    if pair is None:
        return None
    one, two = pair
    clock = next((_at(what, line, one.site) for what, line in beside.drawn if what in CLOCKS), "")
    from_where = f"seed taken from the clock ({clock})" if clock else "the seed itself changes from run to run"
    if not clock and one.clock and two.clock:  # of saved runs only the values are known
        from_where = "seed taken from the clock"
    return _because(
        finding,
        "seed",
        f"{one.what} is given another value each run at {one.site}, {from_where}",
        f"{one.what} was given {one.value} in run 1 and {two.value} in run 2, so the random state was overwritten after "
        "seeding and differed before the marked row.",
        "seed from an argument or a constant, not from the clock, the process or the system",
        culprit=one.site,
    )


def _at(what: str, line: str, site: str) -> str:
    return f"{what} at the same line" if line == site else f"{what} at {line}"


def _a_file(finding: Finding, beside: Beside) -> Finding | None:
    if not beside.reread:
        return None
    file = beside.reread[0]
    more = f" (and {len(beside.reread) - 1} more)" if len(beside.reread) > 1 else ""
    return _because(
        finding,
        "file",
        f"run 2 read {file!r}, which run 1 wrote{more}",
        "The file was made or changed after run 1 began and was opened for reading by run 2: the second run does not start "
        "from where the first did.",
        "give each run a folder of its own, or do not resume from or cache into a file that outlives the run",
        culprit=file,
    )


def _an_unseeded_generator(finding: Finding, first: Trace, second: Trace) -> Finding | None:
    made = _unseeded(first.seeds, second.seeds)
    if made is None:
        return None
    return _because(
        finding,
        "unseeded generator",
        f"unseeded random generator: {made.what}() without a seed at {made.site}",
        f"{made.what}() without a seed takes the system's entropy and is not reached by seeding Python, numpy or torch; "
        f"{_phase(finding)} is the first thing that differs.",
        "hand it a seed derived from the run's own, or a generator that was made with one",
        culprit=made.site,
    )


def _something_drawn(finding: Finding, beside: Beside) -> Finding | None:
    """Name what the run asked that is another thing each time: that it was asked is seen, that it matters is a suspicion."""
    suspects = sorted(beside.drawn, key=lambda pair: _rank(pair[0]))
    if not suspects:
        return None
    what, line = suspects[0]
    if what in ENTROPY:
        made = what.endswith("without a seed")
        return _because(
            finding,
            "unseeded generator" if made else "entropy",
            f"unseeded random generator: {what} at {line}" if made else f"it draws on {what} at {line}",
            f"{finding.shows} {what[0].upper()}{what[1:]} gives another value each time, and no seed reaches it.".strip(),
            "draw it from a generator that is made with the run's seed",
            culprit=line,
        )
    # Honest programs print times. That is worth a look where random numbers or inputs differ, and only a mention elsewhere.
    idle = finding.details.get("cause") == "result" and what in (*CLOCKS, "os.getpid")
    look = f"look at {line} first: {what} differs from run to run, and no seed reaches it"
    return replace(
        finding,
        shows=f"{finding.shows} The run asked {what} at {line}, which is another value each time.".strip(),
        next_step=finding.next_step if idle else look,
        details={**finding.details, "suspect": f"{what} at {line}"},
    )


def _because(finding: Finding, cause: str, said: str, shows: str, next_step: str, culprit: str = "") -> Finding:
    """Return the finding with a cause in its headline; where it shows first stays there."""
    headline = f"not reproducible: {said}; {finding.headline}"
    if len(headline) > 235:  # the short summary has one line
        headline = f"not reproducible: {said}; first seen in {_phase(finding)}"
    culprit = culprit if culprit and culprit in headline else finding.culprit
    if culprit not in headline:
        culprit = cause
        headline = f"not reproducible ({cause}): {said}"
    return replace(
        finding,
        headline=headline,
        culprit=culprit,
        shows=shows,
        next_step=next_step,
        details={**finding.details, "cause": cause, "place": finding.culprit},
    )


def _phase(finding: Finding) -> str:
    phase, step = finding.details.get("phase", ""), finding.step
    where = f"{phase} of '{finding.culprit}'" if phase and phase != finding.culprit else f"'{finding.culprit}'"
    return f"{where} at step {step}" if step is not None else where


def _seeds_that_differ(first: Iterable[SeedCall], second: Iterable[SeedCall]) -> tuple[SeedCall, SeedCall] | None:
    """Return the first call that seeded a generator with another value in each run: the same line, the same turn."""
    for one, two in zip(first, second, strict=False):
        if (one.what, one.site) != (two.what, two.site):
            return None  # from here on the runs go different ways
        if one.value is not None and two.value is not None and _bare(one.value) != _bare(two.value):
            return one, two
    return None


def _unseeded(first: Iterable[SeedCall], second: Iterable[SeedCall]) -> SeedCall | None:
    theirs = {(s.what, s.site) for s in second if s.value is None}
    return next((s for s in first if s.value is None and (s.what, s.site) in theirs), None)


def _bare(value: str) -> str:
    return re.sub(r"0x[0-9a-fA-F]+", "0x", value)


def _rank(what: str) -> int:
    return SUSPICION.index(what) if what in SUSPICION else len(SUSPICION)
