"""The pytest plugin. Loading it imports nothing heavy, and a session that does not use it pays for reading its options only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_mltd.plugin import fixtures, options, planting
from pytest_mltd.plugin.incidents import MARKER, Markers
from pytest_mltd.plugin.options import SETTINGS
from pytest_mltd.plugin.summary import Summary, comparing
from pytest_mltd.plugin.trial import POLICY, Parts
from pytest_mltd.plugin.workers import Once

if TYPE_CHECKING:
    from pytest_mltd.probes.children import Threads

THREADS: pytest.StashKey[Threads] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    options.add(parser)
    folder = os.environ.pop("MLTD_TRIAL", "")  # taken away, so that a pytest started by the test is not a guest as well
    if folder:
        from pytest_mltd.plugin.runners import Guest

        pluginmanager.register(Guest(folder), "mltd-guest")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Keep torch on one thread in this process before any conftest can run it on more: the children would hang."""
    if options.wants_repro(early_config):
        from pytest_mltd.probes.children import Threads

        early_config.stash[THREADS] = Threads()


def pytest_unconfigure(config: pytest.Config) -> None:
    threads = config.stash.get(THREADS, None)
    if threads is not None:
        threads.close()


def pytest_configure(config: pytest.Config) -> None:
    settings = config.stash[SETTINGS] = options.parse(config)
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", planting.MARKER)
    register = config.pluginmanager.register
    register(fixtures, "mltd-fixtures")
    register(Markers(), "mltd-markers")
    register(planting.Checked(), "mltd-faults")
    register(Parts(), "mltd-parts")
    if settings.allow or settings.limits:
        config.stash[POLICY] = options.policy_of(settings)
    if settings.incident:
        from pytest_mltd.plugin.incidents import learn_facts

        learn_facts(config)
    if not hasattr(config, "workerinput"):
        register(Summary(config), "mltd-summary")
    if config.pluginmanager.hasplugin("mltd-guest"):
        return
    if comparing(settings, config):
        from pytest_mltd.plugin.repro import Twice

        register(Twice(config, config.stash.get(THREADS, None)), "mltd-twice")
    else:
        once = Once(config)
        register(once, "mltd-once")
        register(planting.Proofs(once.current), "mltd-proofs")
