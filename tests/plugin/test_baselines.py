"""`mltd_baseline` and `--mltd-update`: written by tests that passed, and by no others."""

import json

import pytest


def auc_test(auc, extra="", keywords=""):
    return f"def test_auc(mltd_baseline):\n    mltd_baseline({{'val': {{'auc': {auc}}}}}{keywords})\n{extra}"


def baselines(project):
    return {p.name: json.loads(p.read_text()) for p in project.path.rglob("baselines/*.json")}


def test_missing_then_made_then_held(project, three_ways):
    """A missing baseline fails with the command that makes it; that command makes it; then a worse metric fails."""
    project.makepyfile(test_it=auc_test(0.91))
    result = three_ways()
    result.assert_outcomes(failed=1)
    assert "pytest 'test_it.py::test_auc' --mltd-update" in result.stdout.str()
    assert not baselines(project)

    result = three_ways("--mltd-update")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 baseline written: baselines/*.json"])
    assert [b["metrics"] for b in baselines(project).values()] == [{"val": {"auc": 0.91}}]

    three_ways().assert_outcomes(passed=1)
    project.makepyfile(test_it=auc_test(0.5))
    result = three_ways()
    result.assert_outcomes(failed=1)
    assert "CheckFailed: metrics.regression" in result.stdout.str()


def test_a_failing_test_writes_nothing(project, plainly):
    """A test that fails after it gave its metrics keeps the old baseline, and that is said."""
    project.makepyfile(test_it=auc_test(0.91))
    plainly("--mltd-update").assert_outcomes(passed=1)
    project.makepyfile(test_it=auc_test(0.2, "    assert 0\n"))
    result = plainly("--mltd-update")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["0 baselines written", "1 not written: the test did not pass"])
    assert [b["metrics"]["val"]["auc"] for b in baselines(project).values()] == [0.91]


def test_a_test_whose_tear_down_fails_writes_nothing(project, plainly):
    """Passing means all of the test, its tear-down too."""
    body = "import pytest\n@pytest.fixture\ndef late():\n    yield\n    assert 0\n" + auc_test(0.9).replace(
        "mltd_baseline):", "late, mltd_baseline):"
    )
    project.makepyfile(test_it=body)
    plainly("--mltd-update").assert_outcomes(passed=1, errors=1)
    assert not baselines(project)


def test_an_absolute_target_that_is_missed_writes_nothing(project, plainly):
    """`--mltd-update` does not make a baseline of numbers below the stated target."""
    project.makepyfile(test_it=auc_test(0.5, keywords=", minimum={'val/auc': 0.9}"))
    plainly("--mltd-update").assert_outcomes(failed=1)
    assert not baselines(project)


@pytest.mark.parametrize("option", ["--mltd-steps=5", "--mltd-slice=8", "--mltd-repro"])
def test_a_partial_run_writes_nothing(project, plainly, option):
    """Numbers of a run that was cut or sliced are no baseline; the refusal names what to leave out."""
    project.makepyfile(test_it=auc_test(0.9))
    result = plainly("--mltd-update", option)
    result.assert_outcomes(failed=1)
    assert "condition: a partial run makes no baseline" in result.stdout.str()
    assert not baselines(project)


def test_another_tests_baseline_is_left_alone(project, plainly):
    """Updating one test does not touch, and does not remove, what others wrote."""
    other = auc_test(0.7).replace("test_auc", "test_other")
    project.makepyfile(test_it=auc_test(0.9) + other)
    plainly("--mltd-update")
    before = baselines(project)
    project.makepyfile(test_it=auc_test(0.8) + other)
    plainly("--mltd-update", "-k", "test_auc")
    after = baselines(project)
    assert before.keys() == after.keys()
    changed = [name for name in before if before[name] != after[name]]
    assert len(changed) == 1
    assert "auc" in changed[0]


def test_latency_of_the_test_body(project, plainly):
    """An absolute latency limit without a latency given is held against the test's own body."""
    body = auc_test(0.9, keywords=", max_latency_ms=0.001").replace("\n    mltd", "\n    sum(range(10**6))\n    mltd")
    project.makepyfile(test_it=body)
    result = plainly("--mltd-update")
    result.assert_outcomes(failed=1)
    assert "max_latency_ms=0.001" in result.stdout.str()


def test_a_torn_baseline_is_named(project, plainly):
    """A file that cannot be read is one sentence with its path and the remedy."""
    project.makepyfile(test_it=auc_test(0.9))
    plainly("--mltd-update")
    path = next(project.path.rglob("baselines/*.json"))
    path.write_text(path.read_text()[:40])
    result = plainly()
    result.assert_outcomes(failed=1)
    assert path.name in result.stdout.str()


def test_under_repro_a_baseline_is_held_in_both_runs(project, plainly):
    """Metrics that agree with the baseline pass twice."""
    project.makepyfile(test_it=auc_test(0.9))
    plainly("--mltd-update").assert_outcomes(passed=1)
    result = plainly("--mltd-repro")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 of 1 tests run twice*"])


def test_an_unknown_direction_is_told_when_the_baseline_is_made(project, plainly):
    """`--mltd-update` does not keep a metric of which the next run could not tell better from worse."""
    project.makepyfile(test_it=auc_test(0.9).replace("'auc'", "'wobble'"))
    result = plainly("--mltd-update")
    result.assert_outcomes(failed=1)
    assert "ValueError: direction: " in result.stdout.str()
    assert not baselines(project)


def test_what_is_not_compared_is_said(project, plainly):
    """A baseline of another machine leaves latency out, and the summary has a line about it."""
    project.makepyfile(test_it=auc_test(0.9).replace("0.9}", "0.9, 'latency_ms': 5.0}"))
    plainly("--mltd-update").assert_outcomes(passed=1)
    path = next(project.path.rglob("baselines/*.json"))
    made = json.loads(path.read_text())
    made["environment"] = {**made["environment"], "machine": "another"}
    path.write_text(json.dumps(made))
    result = plainly()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*latency and memory are not compared: *"])
