"""The marker `mltd` and `--mltd-incident`: one record for each test, written by one process, none lost."""

import json
import time

import pytest

MARKED = """
import pytest
from fake import record

@pytest.mark.mltd("loan-leak/H1", claim="the label leaks", family="label leakage")
def test_one():
    record(1)
    assert 0

@pytest.mark.mltd("loan-leak/H2", claim="the seed does not hold", family="nondeterminism")
def test_two():
    record(1)

@pytest.mark.mltd("other/H1")
def test_other():
    record(1)

def test_plain():
    record(1)
"""


def records(project):
    return [
        json.loads(line)["evidence"] for path in project.path.rglob("*.jsonl") for line in path.read_text().splitlines()
    ]


class TestRecords:
    def test_one_for_each_test_of_the_incident(self, project, three_ways):
        """Tests marked with the incident leave one record each, with what is known of them; others leave none."""
        project.makepyfile(test_marked=MARKED)
        result = three_ways("--mltd-incident", "loan-leak", "--mltd-seed=3")
        result.assert_outcomes(passed=3, failed=1)
        found = {r["hypothesis"]: r for r in records(project)}
        assert found.keys() == {"H1", "H2"}
        assert {k: r["kind"] for k, r in found.items()} == {"H1": "failed", "H2": "passed"}
        one = found["H1"]
        assert one["claim"] == "the label leaks"
        assert one["nodeid"] == "test_marked.py::test_one"
        assert one["seed"] == 3
        assert one["fingerprint"]
        assert one["test_digest"]
        assert one["environment"]
        result.stdout.fnmatch_lines(["2 evidence records appended to *loan-leak.jsonl"])

    def test_under_repro_a_record_says_that_both_runs_agreed(self, project, three_ways):
        """Twice the same is one record of two runs; a difference is a record of runs that disagree."""
        body = MARKED + ("\nimport os\n@pytest.mark.mltd('loan-leak/H3')\ndef test_three():\n    record(os.getpid())\n")
        project.makepyfile(test_marked=body)
        three_ways("--mltd-incident", "loan-leak", "--mltd-repro")
        found = {r["hypothesis"]: (r["runs"], r["agreed"]) for r in records(project)}
        assert found == {"H1": (2, True), "H2": (2, True), "H3": (2, False)}

    @pytest.mark.parametrize("flags", [(), ("--mltd-repro", "-o", "mltd_repro_scope=all")])
    def test_a_passing_test_that_asked_nothing_is_marked(self, project, plainly, flags):
        """An empty body proves nothing; a plain assert, a check or a recorded run does."""
        project.makepyfile(
            test_a="""
            import unittest
            import pytest
            from fake import record
            pytestmark = pytest.mark.mltd("loan-leak/H1")
            def test_empty():
                # no body yet
                pass
            def test_assert():
                assert 1
            def test_recorded():
                record(1)
            def test_raises():
                with pytest.raises(ValueError):
                    int("a")
            def test_fails():
                int("a")
            class TestOld(unittest.TestCase):
                def test_method(self):
                    self.assertTrue(1)
            """
        )
        plainly("--mltd-incident", "loan-leak", *flags)
        assert [r["nodeid"].rpartition("::")[2] for r in records(project) if r["asked_nothing"]] == ["test_empty"]

    def test_a_run_that_was_stopped_is_no_evidence_either_way(self, project, plainly):
        """A test whose run was kept from changing a file did not end by itself: undecided, with the reason."""
        (project.path / "best.txt").write_text("precious")
        time.sleep(0.1)
        project.makepyfile(
            test_a="""
            import pytest
            from fake import record
            @pytest.mark.mltd("loan-leak/H1")
            def test_it():
                record(1)
                try:
                    open("best.txt", "w")
                except BaseException:
                    pass
            """
        )
        plainly("--mltd-incident", "loan-leak", "--mltd-repro").assert_outcomes(failed=1)
        assert [r["kind"] for r in records(project)] == ["undecided"]
        assert "best.txt" in records(project)[0]["reason"]

    def test_records_are_appended(self, project, plainly):
        """A second session adds to the first; nothing is replaced."""
        project.makepyfile(test_marked=MARKED)
        plainly("--mltd-incident", "loan-leak")
        plainly("--mltd-incident", "loan-leak", "-k", "test_two")
        assert [r["hypothesis"] for r in records(project)] == ["H1", "H2", "H2"]

    def test_nothing_is_written_without_the_option(self, project, plainly):
        """The marker alone writes nothing."""
        project.makepyfile(test_marked=MARKED)
        plainly().assert_outcomes(passed=3, failed=1)
        assert records(project) == []

    def test_a_session_that_is_killed_keeps_what_it_had(self, project):
        """A record is on disk as soon as its test is over."""
        killed = "\n@pytest.mark.mltd('loan-leak/H9')\ndef test_z():\n    import os\n    os.kill(os.getpid(), 9)\n"
        project.makepyfile(test_marked=MARKED + killed)
        project.runpytest_subprocess("-p", "no:randomly", "-p", "no:xdist", "--mltd-incident", "loan-leak")
        assert [r["hypothesis"] for r in records(project)] == ["H1", "H2"]

    def test_a_skipped_and_a_broken_test_leave_a_record_too(self, project, plainly):
        """A monitor that is skipped, or whose fixture fails, is noticed."""
        project.makepyfile(
            """
            import pytest
            pytestmark = pytest.mark.mltd("loan-leak/H1")
            def test_skipped():
                pytest.skip("no data")
            def test_broken(missing):
                pass
            """
        )
        plainly("--mltd-incident", "loan-leak")
        assert [(r["kind"], r["reason"]) for r in records(project)] == [("skipped", "no data"), ("failed", "")]

    def test_no_marked_test_is_said(self, project, plainly):
        """A session that recorded nothing says so: the incident's name may be misspelt."""
        project.makepyfile("def test_a(): pass\n")
        result = plainly("--mltd-incident", "loan-lek")
        result.stdout.fnmatch_lines(["0 evidence records appended: no test that ran is marked mltd('loan-lek/...')"])

    def test_a_folder_that_cannot_be_written_fails_the_session(self, project, plainly):
        """What could not be kept is named, and the session does not pass."""
        project.makepyfile(test_marked=MARKED)
        (project.path / "incidents").write_text("a file where the folder should be")
        result = plainly("--mltd-incident", "loan-leak", "-k", "test_two")
        assert result.ret == 1
        assert "--mltd-incident: the record of test_marked.py::test_two is not kept" in result.stdout.str()
        assert "0 evidence records appended\n" in result.stdout.str()
        assert "no test that ran is marked" not in result.stdout.str()

    @pytest.mark.parametrize("flags", [(), ("--mltd-repro",)])
    def test_numbers_of_a_recorded_run_are_kept(self, project, plainly, flags):
        """A report can show what a run measured before the fix and after it."""
        project.makepyfile(test_marked=MARKED.replace("record(1)", "record(1, 0.25)"))
        plainly("--mltd-incident", "loan-leak", "-k", "test_two", *flags)
        assert [r["metrics"] for r in records(project)] == [{"train/loss": 0.25}]


class TestWrongMarkers:
    @pytest.mark.parametrize(
        ("marker", "said"),
        [
            ('mltd("loan leak")', 'id: "incident/hypothesis" is needed'),
            ("mltd()", 'id: one is needed, as in mltd("loan-leak/H1"), not 0'),
            ('mltd("a/b", clam="x")', "clam: no such argument; it takes claim and family"),
            ('mltd("a/b", claim=3)', "claim: text is needed, not 3"),
            ('mltd("../../etc/H1")', 'id: "incident/hypothesis" is needed'),
        ],
    )
    def test_it_is_an_error_of_collection(self, project, plainly, marker, said):
        """A wrong marker stops the session before a test runs, and names the test and the argument."""
        project.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_a(): pass\n")
        result = plainly()
        result.assert_outcomes(errors=1)
        assert f"::test_a: @pytest.mark.mltd: {said}" in result.stdout.str()

    def test_it_is_with_workers_too(self, project, three_ways):
        """The error reaches the person through xdist."""
        project.makepyfile('import pytest\n@pytest.mark.mltd("bad")\nclass TestA:\n    def test_a(self): pass\n')
        result = three_ways()
        assert '@pytest.mark.mltd: id: "incident/hypothesis" is needed' in result.stdout.str()
        assert result.ret != 0

    def test_the_marker_is_declared(self, project, plainly):
        """`--strict-markers` knows it."""
        project.makepyfile('import pytest\n@pytest.mark.mltd("a/H1")\ndef test_a(): pass\n')
        plainly("--strict-markers").assert_outcomes(passed=1)
