"""Small sessions to try the plugin on: without xdist, with `-n 0` and with `-n 2`. None of them imports torch."""

import hypothesis.core  # noqa: F401 - its plugin imports it at each session's end, half a second
import numpy.random  # noqa: F401 - a session in this process must find it imported: it cannot be imported twice
import pytest

import pytest_mltd.checks.runs.divergence
import pytest_mltd.core.incidents
import pytest_mltd.core.trials
import pytest_mltd.probes.causes
import pytest_mltd.recording.seeds  # noqa: F401 - imported once here instead of once in every small session

# A test that "records a run" without torch: the recorder hands its trace over in just this way.
FAKE = """
from pytest_mltd.core import trials
from pytest_mltd.core.traces import Trace

def record(*losses):
    trials.note_trace(Trace.from_scalars({"loss": [float(x) for x in losses]}))
"""


@pytest.fixture
def project(pytester, monkeypatch):
    """An empty project with `record` to import."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(fake=FAKE)
    pytester.syspathinsert()
    return pytester


@pytest.fixture(params=["", "-n0", "-n2"], ids=["plain", "n0", "n2"])
def three_ways(request, project):
    """Run a session without xdist, with no worker and with two."""

    def run(*arguments):
        way = [request.param] if request.param else ["-p", "no:xdist"]
        return project.runpytest_inprocess("-p", "no:randomly", *way, *arguments)

    run.way = request.param
    return run


@pytest.fixture
def plainly(project):
    """Run a session in this process, without xdist and pytest-randomly."""

    def run(*arguments):
        return project.runpytest_inprocess("-p", "no:randomly", "-p", "no:xdist", *arguments)

    return run
