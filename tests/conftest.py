"""The contract of every message, held against every finding that a check's own tests produce.

Each finding asked in `tests/checks`, `tests/probes` and `tests/test_diagnosis.py` is overheard. An incomplete message fails
the test that produced it; a check that the whole suite never saw red, or never saw green, fails the run.
"""

import json
import pickle
import re
from pathlib import Path

import pytest

from pytest_mltd.core.asking import discover, info, listening
from pytest_mltd.core.findings import Diagnosis, finding_from_dict
from pytest_mltd.core.rendering import clean

HERE = Path(__file__).parent
ROOMS_THAT_ASK = ("pytest_mltd.checks", "pytest_mltd.probes")
JUDGED = ("checks", "probes", "test_diagnosis.py")
SEEN = pytest.StashKey[set[tuple[str, str]]]()


def every_check():
    """Return every check of the package by its id."""
    return {info(f).id: f for package in ROOMS_THAT_ASK for f in discover(package)}


def complaints(finding, limits=()):
    """Return what is missing from a finding's message, one line each. ``limits`` are the check's own, by name."""
    text, found = str(finding), []

    def want(condition, what):
        if not condition:
            found.append(f"{finding.id or 'unnamed'}: {what}: {finding.headline!r}")

    want(re.fullmatch(r"[a-z_]+\.[a-z_]+", finding.id), "the id is family.fault")
    want(finding.headline.strip() and "\n" not in finding.headline, "the headline is one line")
    want(len(clean(finding.headline, 10_000)) <= 240, "the headline fits the short summary (240 characters)")
    if finding.failed:
        thresholds = [name for name in limits if re.match(r"(max|min)_|[ra]tol$", name)]
        want(not thresholds or any(f"{n}=" in finding.headline for n in thresholds), f"a limit of {thresholds} by name")
        want(not finding.limit or f"{finding.limit[0]}=" in finding.headline, "the limit it was held against, by name")
        want(finding.culprit, "the culprit is named")
        want(clean(finding.culprit) in clean(finding.headline), f"the culprit {finding.culprit!r} is in the headline")
        want(finding.shows or finding.table, "a table or a sentence shows the evidence")
        want(finding.next_step, "there is one next step")
        want(len(text.splitlines()) <= 20, "the message is short")
    elif finding.asked:
        want(finding.looked_at or finding.allowed, "a pass says what was looked at")
    want(str(pickle.loads(pickle.dumps(finding))) == text, "it survives pickling")
    again = finding_from_dict(json.loads(json.dumps(finding.as_dict(), allow_nan=False)))
    want(str(again) == text, "it survives JSON")
    return found


def unproved(checks, seen):
    """Return one line for each check that no test saw fail, or none saw pass."""
    return [
        f"{name}: no test of its own room saw it {colour}"
        for name in sorted(checks)
        for colour in ("red", "green")
        if (name, colour) not in seen
    ]


@pytest.fixture(name="complaints")
def _complaints():
    return complaints


@pytest.fixture(name="unproved")
def _unproved():
    return unproved


@pytest.fixture(name="every_check", scope="session")
def _every_check():
    return every_check()


@pytest.fixture(autouse=True)
def messages_are_complete(request):
    """Fail the test that produced an incomplete message."""
    if not _is_judged(request.path):
        yield
        return
    heard = []
    with listening(heard):
        yield
    findings = [f for h in heard for f in ((*h.findings, *h.not_asked) if isinstance(h, Diagnosis) else (h,))]
    known = every_check() if findings else {}
    findings = [f for f in findings if f.id in known]  # a test may ask a check of its own making
    seen = request.config.stash[SEEN]
    seen.update((f.id, "red" if f.failed else "green") for f in findings if f.asked)
    found = [line for f in findings for line in complaints(f, info(known[f.id]).limits)]
    if found:
        pytest.fail("\n".join(dict.fromkeys(found)), pytrace=False)


def _is_judged(path):
    try:
        return path.relative_to(HERE).parts[0] in JUDGED
    except ValueError:
        return False


def pytest_configure(config):
    config.stash[SEEN] = set()
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(FromWorkers(config))


class FromWorkers:
    """Gather what the workers saw."""

    def __init__(self, config):
        self.seen = config.stash[SEEN]

    def pytest_testnodedown(self, node, error):
        self.seen.update(map(tuple, getattr(node, "workeroutput", {}).get("mltd_seen", ())))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["mltd_seen"] = sorted(config.stash[SEEN])
    elif exitstatus == 0 and _whole_suite(config):
        config.stash[MISSING] = unproved(every_check(), config.stash[SEEN])
        if config.stash[MISSING]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


MISSING = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(MISSING, ()):
        terminalreporter.write_line(f"CONTRACT {line}", red=True)


def _whole_suite(config):
    option = config.option
    whole = {HERE, HERE.parent}
    named = {(config.invocation_params.dir / a).resolve() for a in config.args}
    narrowed = (
        option.keyword or getattr(option, "lf", False) or option.collectonly or option.markexpr not in ("", "not slow")
    )
    return bool(named & whole) and not narrowed
