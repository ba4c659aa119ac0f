"""The fixture ``mltd_baseline`` and ``--mltd-update``: a thin face over `ledger.baselines` and `checks.runs.metrics`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from pytest_mltd.plugin.options import SETTINGS
from pytest_mltd.plugin.trial import TRIAL


class BaselineOf:
    """Holds a test's metrics against its baseline, or under ``--mltd-update`` keeps them as the new one."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(
        self, current: Mapping[str, Any], *, name: str = "", max_latency_ms: float | None = None, **limits: Any
    ) -> None:
        """Hold metrics against the test's baseline.

        Args:
            current: split → (subgroup →) metric → number, or the numbers of several seeds: ``{"val": {"auc": 0.91}}``.
            name: tells several baselines of one test apart.
            max_latency_ms: an absolute limit in milliseconds for every latency in ``current``; where there is none, for the
                test's own body up to this call.
            limits: the other limits of `check_regression`: ``minimum={"val/auc": 0.9}``, ``rtol``, ``direction``, …

        Raises:
            CheckFailed: a metric is worse than its baseline allows, or misses an absolute target.
            LedgerError: there is no baseline (the text has the command that makes it), or it cannot be read.
            ValueError: ``current`` is no such mapping, or under ``--mltd-update`` the run was cut or sliced.
        """
        __tracebackhide__ = True
        from pytest_mltd.checks.runs.metrics import check_regression, has_latency
        from pytest_mltd.core.findings import raise_if_failed
        from pytest_mltd.ledger import baselines
        from pytest_mltd.ledger.provenance import provenance

        trial, root = self._item.stash[TRIAL], self._item.config.rootpath
        facts = provenance(root)
        held = dict(current)
        if max_latency_ms is not None and not has_latency(current):
            held["test body"] = {"latency_ms": (time.perf_counter() - trial.call_began) * 1000}
        if self._item.config.stash[SETTINGS].update:
            # Held against themselves, so that an unknown direction is told now and not when they are first compared.
            raise_if_failed(check_regression(held, current, max_latency_ms=max_latency_ms, **limits))
            new = baselines.baseline(self._item.nodeid, current, facts, trial.condition, name=name)
            trial.baselines.append(new.as_dict())
        else:
            known, notes = baselines.read(root, self._item.nodeid, name=name).comparable(facts)
            trial.notes += notes
            raise_if_failed(check_regression(held, known, max_latency_ms=max_latency_ms, **limits))


class Writer:
    """Writes the baselines of tests that passed. Only one process of a session has one."""

    def __init__(self, config: pytest.Config) -> None:
        from pytest_mltd.ledger.baselines import Pending

        self.config = config
        self.written: list[str] = []
        self.forgotten = 0
        self.complaints: list[str] = []
        self._pending = Pending(config.rootpath)

    def settle(self, records: Iterable[Mapping[str, Any]], *, passed: bool) -> None:
        """Write what a test gave, if it passed."""
        from pytest_mltd.ledger.baselines import baseline_from_dict
        from pytest_mltd.ledger.files import LedgerError

        try:
            news = [baseline_from_dict(record) for record in records]
            for new in news:
                self._pending.add(new)
            for nodeid in {new.nodeid for new in news}:
                paths = self._pending.settle(nodeid, passed=passed)
                self.written += [str(path) for path in paths]
                self.forgotten += not paths
        except (LedgerError, ValueError) as error:
            self.complaints.append(f"--mltd-update: {error}")

    def lines(self) -> list[str]:
        root = f"{self.config.invocation_params.dir}/"
        noun = "baseline" if len(self.written) == 1 else "baselines"
        names = ", ".join(path.removeprefix(root) for path in self.written[:5])
        more = f", {len(self.written) - 5} more" if len(self.written) > 5 else ""
        lines = [f"{len(self.written)} {noun} written{': ' if names else ''}{names}{more}"]
        if self.forgotten:
            lines.append(f"{self.forgotten} not written: the test did not pass")
        return [*lines, *self.complaints]
