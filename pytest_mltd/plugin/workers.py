"""Runs the tests of an ordinary session: each under the session's condition, and with what it did told to the summary.

Under xdist this happens in the workers; the account travels on the test's last report, and only the controller writes files.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mltd.plugin import planting
from pytest_mltd.plugin.options import SETTINGS, Settings
from pytest_mltd.plugin.trial import POLICY, TRIAL, trying

if TYPE_CHECKING:
    from pytest_mltd.core.trials import Condition

OURS = ("mltd_train", "mltd_seed", "mltd_slice", "mltd_baseline")


class Once:
    """Watches each test run once. A test that has nothing to do with mltd, in a session without options, is left alone."""

    def __init__(self, config: pytest.Config) -> None:
        self.settings: Settings = config.stash[SETTINGS]
        self.condition: Condition | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if not self._concerns(item):
            return (yield)
        with trying(item, self.current()):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        trial = item.stash.get(TRIAL, None)
        if trial is not None and report.when == "teardown":
            report.mltd = self._account(item)  # type: ignore[attr-defined]
        elif trial is None and report.failed and "pytest_mltd.core.findings" in sys.modules:
            report.mltd = _barely(call)  # type: ignore[attr-defined]
        return report

    def _concerns(self, item: pytest.Item) -> bool:
        """Whether to watch. The vocabulary is not imported for tests that have no use for it: start-up would pay for it.

        A test that is marked with a fault is watched where its runs are made.
        """
        if planting.faults_of(item):
            return False
        s = self.settings
        asked = s.repro or s.seed is not None or s.steps is not None or s.slice is not None or s.incident or s.update
        names = getattr(item, "fixturenames", ())
        return bool(
            asked or POLICY in item.config.stash or "pytest_mltd.core.trials" in sys.modules or set(OURS) & set(names)
        )

    def current(self) -> Condition:
        from pytest_mltd.core.trials import Condition

        if self.condition is None:
            s = self.settings
            # Under --mltd-repro a test is here only while somebody debugs it: it must be the same test.
            seed, steps = (s.seed or 0, s.rerun_steps) if s.repro else (s.seed, s.steps)
            self.condition = Condition(seed=seed, steps=steps, slice=s.slice)
        return self.condition

    def _account(self, item: pytest.Item) -> dict[str, Any]:
        from pytest_mltd.plugin.incidents import evidence_for

        trial = item.stash[TRIAL]
        outcome = trial.outcome()
        names = getattr(item, "fixturenames", ())
        return {
            "used": trial.used,
            "runs": [outcome.kind],
            "sliced": trial.sliced,
            "seeded": "mltd_train" in names or "mltd_seed" in names,
            "baselines": list(trial.baselines),
            "notes": list(trial.notes),
            "evidence": evidence_for(
                item,
                outcome,
                trial.condition,
                metrics=trial.metrics if self.settings.incident else None,
                used=trial.used,
            ),
        }


def _barely(call: pytest.CallInfo[Any]) -> dict[str, Any]:
    """Return the account of a test that was the first to import mltd, in its own body: nobody watched it."""
    return {"used": call.excinfo is not None and bool(getattr(call.excinfo.value, "findings", ()))}
