"""One test under one condition, in this process: what is imposed on it, and what was seen of it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_mltd.core.findings import Finding
    from pytest_mltd.core.trials import Condition, Observed, Outcome, OutcomeKind

MAX_TEXT = 20_000


@dataclass(slots=True)
class Trial:
    """What was seen of a test so far. Filled while it runs."""

    condition: Condition
    observed: Observed
    prints: list[str] = field(default_factory=list)  # a fingerprint for each part that failed, in order
    texts: list[str] = field(default_factory=list)
    kind: OutcomeKind = "passed"
    reason: str = ""
    seconds: float = 0.0
    calls: int = 0  # the test's own and those of its subtests
    call_began: float = 0.0
    slicing: Any = None  # what became of the DataLoaders, where a slice was asked for
    took_slice: bool = False  # the test asked for the slice itself and cuts its data by hand
    baselines: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # worth a line of the summary
    planting: Any = None  # of the fault, where the condition names one
    raised: list[Finding] = field(default_factory=list)  # what its CheckFailed held
    asserted: bool = False  # it failed by an assertion

    @property
    def used(self) -> bool:
        """The test recorded a run or asked a check."""
        return bool(self.observed.asked or self.observed.traces)

    @property
    def sliced(self) -> bool:
        """A DataLoader was cut, or the test was handed the slice and sees to it."""
        return self.took_slice or (self.slicing is not None and (self.slicing.used > 0 or self.slicing.by_hand))

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers of the runs that it recorded."""
        if not self.observed.traces:
            return {}
        from pytest_mltd.core.summaries import metrics_of

        return dict(metrics_of(self.observed.traces))

    def note(self, item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport) -> None:
        """Take one part of the test (set-up, call, a subtest, tear-down) into account. The call follows its subtests."""
        self.seconds += report.duration
        self.calls += report.when == "call"
        expected = hasattr(report, "wasxfail")
        if report.failed or expected:
            self.prints.append(_fingerprint(item, call, report))
        if report.failed:
            self.kind = "failed"
            self.texts.append(_text(call, report))
            error = None if call.excinfo is None else call.excinfo.value
            self.raised += getattr(error, "findings", ())
            self.asserted |= isinstance(error, AssertionError)
        elif report.skipped and not expected and self.kind == "passed":
            self.kind, self.reason = "skipped", _reason(report)
        elif report.passed and report.when == "call" and self.kind == "skipped":  # only a subtest was skipped
            self.kind, self.reason = "passed", ""

    def outcome(self, traces: tuple[str, ...] = (), wrote: str = "", changed: tuple[str, ...] = ()) -> Outcome:
        """Return how the test ended."""
        from pytest_mltd.core.trials import Outcome, fingerprint

        # A subtest that only one of two runs had must not go unseen, though it passed. (Numbers are no part of a fingerprint.)
        prints = [*self.prints, "part " * self.calls] if self.calls > 1 else self.prints
        one = fingerprint("several", "\n".join(prints), "") if len(prints) > 1 else "".join(prints)
        return Outcome(
            kind=self.kind,
            fingerprint=one,
            reason=self.reason,
            text="\n\n".join(self.texts)[:MAX_TEXT],
            findings=self.observed.findings,
            traces=traces,
            asked=len(self.observed.asked),
            wrote=wrote,
            changed=changed,
            seconds=self.seconds,
        )


TRIAL = pytest.StashKey[Trial]()
POLICY = pytest.StashKey[Any]()


@contextlib.contextmanager
def trying(item: pytest.Item, condition: Condition) -> Iterator[Trial]:
    """Put a condition and the project's policy in force around a test, and overhear it."""
    from pytest_mltd.core.asking import policy
    from pytest_mltd.core.trials import observing, under

    with contextlib.ExitStack() as stack:
        stack.enter_context(under(condition))
        decided = item.config.stash.get(POLICY, None)
        if decided is not None:
            stack.enter_context(policy(decided))
        trial = Trial(condition, stack.enter_context(observing()))
        if condition.fault is not None:
            trial.planting = stack.enter_context(_planted(condition.fault))
        if condition.slice is not None:
            from pytest_mltd.recording.slices import slicing

            trial.slicing = stack.enter_context(slicing(condition.slice))
        item.stash[TRIAL] = trial
        try:
            yield trial
        finally:
            del item.stash[TRIAL]


@contextlib.contextmanager
def _planted(name: str) -> Iterator[Any]:
    """Plant a fault; what torch then warns of is no failure of its own."""
    from pytest_mltd.faults import planted

    with warnings.catch_warnings(), planted(name) as planting:
        warnings.simplefilter("ignore")
        yield planting


class Parts:
    """Hooks around the parts of a test: the seed before each, and what came of each. Costs nothing where there is no trial."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        with _seeding(item, "setup"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        trial = item.stash.get(TRIAL, None)
        if trial is None:
            return (yield)
        with _seeding(item, "runtest"):
            trial.call_began = time.perf_counter()
            result = yield
        # A table's test has nothing to slice; a test that trains, and of which nothing was cut, is not what was asked for.
        if trial.slicing is not None and trial.observed.traces and not trial.took_slice:
            trial.slicing.refuse_if_idle()
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        trial = item.stash.get(TRIAL, None)
        if trial is not None:
            trial.note(item, call, report)
        return report


@contextlib.contextmanager
def _seeding(item: pytest.Item, part: str) -> Iterator[None]:
    """Set the random state right before a part of the item runs: after every other hook, pytest-randomly's too."""
    trial = item.stash.get(TRIAL, None)
    seed = None if trial is None else trial.condition.seed
    if seed is None:
        yield
        return
    real = getattr(item, part)

    def seeded() -> None:
        from pytest_mltd.recording.seeds import seed_everything

        __tracebackhide__ = True
        with _hypothesis_seed(seed), seed_everything(seed, deterministic=None):
            real()

    with _instead(item, part, seeded):
        yield


@contextlib.contextmanager
def _hypothesis_seed(seed: int) -> Iterator[None]:
    """Make Hypothesis draw the same examples, as its own ``--hypothesis-seed`` does; that option wins."""
    core = sys.modules.get("hypothesis.core")
    if core is None or getattr(core, "global_force_seed", 0) is not None:
        yield
        return
    with _instead(core, "global_force_seed", seed):
        yield


@contextlib.contextmanager
def _instead(holder: Any, name: str, value: Any) -> Iterator[None]:
    mine = vars(holder).get(name, _instead)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if mine is _instead:
            delattr(holder, name)
        else:
            setattr(holder, name, mine)


def _fingerprint(item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport) -> str:
    from pytest_mltd.core.trials import fingerprint, words_of

    if call.excinfo is None:
        return fingerprint("failed", str(report.longrepr), report.nodeid)
    error = call.excinfo.value
    findings = getattr(error, "findings", ())
    said = " ".join(f"{f.id}:{f.culprit}" for f in findings) or words_of(error)
    return fingerprint(type(error).__name__, said, _place(item, call.excinfo))


def _place(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    """Return ``path::function`` of the innermost frame in the user's own code."""
    root = os.path.join(str(item.config.rootpath), "")
    place = item.nodeid
    for entry in excinfo.traceback:
        path = str(entry.path)
        if path.startswith(root) and "site-packages" not in path:
            place = f"{path[len(root) :]}::{entry.frame.code.name}"
    return place


def _text(call: pytest.CallInfo[Any], report: pytest.TestReport) -> str:
    if call.excinfo is None:
        return report.longreprtext
    from pytest_mltd.core.trials import words_of

    error = call.excinfo.value
    return ": ".join(filter(None, (type(error).__name__, words_of(error))))


def _reason(report: pytest.TestReport) -> str:
    text = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else report.longreprtext
    return text.removeprefix("Skipped: ")
