"""`--mltd-repro`: what runs twice, what is compared, and what is said of it."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

SAME = "from fake import record\nimport random\ndef test_same():\n    record(random.random(), random.random())\n"


def said(result, *fragments):
    """Assert that some one line of the output holds all of the fragments."""
    text = result.stdout.str()
    assert any(all(f in line for f in fragments) for line in text.splitlines()), f"{fragments} in\n{text}"


class TestVerdicts:
    def test_the_same_twice_passes(self, project, three_ways):
        """A test whose two runs agree bit for bit passes, once, and is counted."""
        project.makepyfile(SAME)
        result = three_ways("--mltd-repro")
        result.assert_outcomes(passed=1)
        said(result, "test_same", "passed 2 of 2, bit for bit")
        said(result, "1 of 1 tests run twice")
        assert result.ret == 0

    def test_another_trace_fails_and_names_the_first_difference(self, project, three_ways):
        """A test that passed twice with different traces fails, and its first line is complete by itself."""
        project.makepyfile(test_a="import os\nfrom fake import record\ndef test_it():\n    record(1, 2, os.getpid())\n")
        result = three_ways("--mltd-repro")
        result.assert_outcomes(failed=1)
        said(result, "CheckFailed: runs.divergence: runs agree for", "differ in the loss at step 2")
        said(result, "FAILED test_a.py::test_it - CheckFailed: runs.divergence: runs agree for")
        said(result, "passed 2 of 2, but not bit for bit")
        said(result, "rerun: pytest '", "::test_it' --mltd-seed=0 --mltd-steps=200 --mltd-repro")
        assert result.ret == 1

    def test_a_failure_is_reproduced(self, project, three_ways):
        """A test that fails twice in the same way is one failure, said to be reproduced, with the line that reruns it."""
        project.makepyfile("from fake import record\ndef test_it():\n    record(1, 2)\n    assert 1 == 2\n")
        result = three_ways("--mltd-repro", "--mltd-seed=7")
        result.assert_outcomes(failed=1)
        said(result, "reproduced 2 of 2, bit for bit")
        said(result, "rerun: pytest 'test_a_failure_is_reproduced.py::test_it' --mltd-seed=7")

    def test_a_failure_without_a_recorded_run_claims_no_bits(self, project, plainly):
        """Where only findings could be compared, that is what is said."""
        project.makepyfile(
            """
            from pytest_mltd.core.asking import check
            from pytest_mltd.core.findings import Finding

            @check("table", family="overlap")
            def check_row_overlap(data, *, allow=None):
                return Finding(ok=False, headline="rows", culprit="rows")

            def test_it():
                assert check_row_overlap([]).ok
            """
        )
        result = plainly("--mltd-repro")
        said(result, "reproduced 2 of 2, outcome and findings; no run was recorded")

    @pytest.mark.parametrize("passes_first", [True, False])
    def test_a_flaky_test_fails(self, project, plainly, passes_first):
        """A test that passes once and fails once fails, whichever comes first, and says so in the short summary."""
        project.makepyfile(
            f"""
            import pathlib
            from fake import record
            mark = pathlib.Path(__file__).with_name("ran")

            def test_it():
                first = not mark.exists()
                mark.touch()
                record(1, 2)
                assert first is {passes_first}
            """
        )
        result = plainly("--mltd-repro")
        result.assert_outcomes(failed=1)
        said(result, "flaky: passed then failed" if passes_first else "flaky: failed then passed")
        said(result, "FAILED", "flaky")

    def test_two_different_failures_are_flaky(self, project, plainly):
        """Failing twice is not enough: it must be the same failure."""
        project.makepyfile(
            """
            import pathlib
            from fake import record
            mark = pathlib.Path(__file__).with_name("ran")

            def test_it():
                record(1)
                if mark.exists():
                    raise KeyError("a")
                mark.touch()
                raise ValueError("b")
            """
        )
        said(plainly("--mltd-repro"), "flaky: failed twice, not with the same failure")

    def test_measurements_in_the_message_do_not_make_it_another_failure(self, project, plainly):
        """Process numbers, times and temporary paths do not make another failure; a number that differs is said."""
        project.makepyfile(
            """
            import os, time
            from fake import record
            def test_it(tmp_path):
                record(1)
                print(time.time(), tmp_path)
                raise ValueError(f"{os.getpid()} {time.time()} {tmp_path / 'x'}")
            def test_settled(tmp_path):
                record(1)
                raise ValueError(f"{time.time()} {tmp_path / 'x'} {object()}")
            """
        )
        result = plainly("--mltd-repro")
        said(
            result,
            "::test_it",
            "reproduced 2 of 2; the recorded runs agree bit for bit, the numbers in the message differ",
        )
        said(result, "::test_settled", "reproduced 2 of 2, bit for bit")

    def test_findings_that_differ_fail_where_nothing_was_recorded(self, project, plainly):
        """A check that sees another number in the second run is a difference too."""
        project.makepyfile(
            """
            import os
            from pytest_mltd.core.asking import check
            from pytest_mltd.core.findings import Finding

            @check("table", family="overlap")
            def check_row_overlap(data, *, allow=None):
                return Finding(ok=True, headline="none", looked_at="rows", amount=os.getpid())

            def test_it():
                check_row_overlap([])
            """
        )
        result = plainly("--mltd-repro")
        result.assert_outcomes(failed=1)
        said(result, "overlap.row_overlap is not the same in both runs")

    def test_allowed_divergence_passes(self, project, plainly):
        """What the project allows with a reason holds for the comparison of two runs as well."""
        project.makeini("[pytest]\nmltd_allow = runs.divergence = known, see the tracker\n")
        project.makepyfile("import os\nfrom fake import record\ndef test_it():\n    record(os.getpid())\n")
        plainly("--mltd-repro").assert_outcomes(passed=1)


class TestWhatRunsTwice:
    def test_only_tests_that_used_it(self, project, three_ways):
        """A test that neither records nor asks runs once; the summary counts both kinds."""
        project.makepyfile(
            """
            from fake import record
            def log(name):
                with open(__file__ + "." + name, "a") as f:
                    f.write("x")
            def test_used():
                record(1)
                log("used")
            def test_other():
                log("other")
            """
        )
        result = three_ways("--mltd-repro")
        result.assert_outcomes(passed=2)
        said(result, "1 of 2 tests run twice")
        counts = {p.suffix: len(p.read_text()) for p in project.path.glob("*.py.*")}
        assert counts == {".used": 2, ".other": 1}

    def test_all_of_them_on_request(self, project, plainly):
        """mltd_repro_scope = all runs every test twice."""
        project.makepyfile("def test_a(): pass\ndef test_b(): pass\n")
        result = plainly("--mltd-repro", "-o", "mltd_repro_scope=all")
        result.assert_outcomes(passed=2)
        said(result, "2 of 2 tests run twice")

    def test_none_selected_fails(self, project, three_ways):
        """A session under the flag in which nothing was compared is not a pass."""
        project.makepyfile("def test_a(): pass\n")
        result = three_ways("--mltd-repro")
        result.assert_outcomes(passed=1)
        assert result.ret == 1
        said(result, "--mltd-repro: none of 1 tests recorded a run or asked a check", "mltd_repro_scope = all")

    @pytest.mark.parametrize("arguments", [["--collect-only"], ["-k", "zzz"]])
    def test_where_nothing_ran_nothing_is_complained_about(self, project, plainly, arguments):
        """Collecting, or selecting nothing, keeps pytest's own verdict."""
        project.makepyfile("def test_a(): pass\n")
        result = plainly("--mltd-repro", *arguments)
        assert result.ret in (0, 5)
        assert "none of" not in result.stdout.str()

    def test_a_skipped_test_is_not_run_again(self, project, plainly):
        """A test that skipped itself had nothing to compare, and a session of only such is not failed for it."""
        project.makepyfile("import pytest\ndef test_a():\n    pytest.skip('no data')\n")
        result = plainly("--mltd-repro")
        result.assert_outcomes(skipped=1)
        assert result.ret == 0


class TestTheSameStart:
    def test_a_generator_made_at_import_is_no_difference(self, project, plainly):
        """Both runs begin where collection ended: what one draws from a module's generator, the other draws too."""
        project.makepyfile(
            """
            import random
            from fake import record
            RNG = random.Random()  # even without a seed: both runs have the one that was made at import
            def test_it():
                record(RNG.random())
            """
        )
        plainly("--mltd-repro").assert_outcomes(passed=1)

    def test_a_generator_seeded_from_the_clock_at_import_is_named(self, project, three_ways):
        """The verdict says that both runs share one import, and the summary what was made there and how to have it compared."""
        project.makepyfile(
            test_clock="""
            import random, time
            from fake import record
            RNG = random.Random(time.time())
            def test_it():
                record(RNG.random())
            """
        )
        result = three_ways("--mltd-repro")
        result.assert_outcomes(passed=1)
        said(result, "test_clock.py::test_it", "passed 2 of 2, bit for bit, from one import")
        said(result, "made at import", "pytest -o mltd_repro_interpreter=fresh compares it too")
        said(result, "  test_clock.py:3: random.Random is seeded from time.time")

    def test_every_fixture_scope_is_rebuilt(self, project, plainly):
        """A session fixture is set up and torn down for each run."""
        project.makepyfile(
            """
            import pytest
            from fake import record
            def log(text):
                with open(__file__ + ".log", "a") as f:
                    f.write(text)
            @pytest.fixture(scope="session")
            def whole():
                log("u")
                yield [0]
                log("d")
            def test_it(whole):
                whole.append(1)
                record(len(whole))
            """
        )
        plainly("--mltd-repro").assert_outcomes(passed=1)
        assert next(project.path.glob("*.log")).read_text() == "udud"

    def test_state_left_by_another_test_is_not_there(self, project, plainly):
        """A test does not start from what the test before it left in a module."""
        project.makepyfile(
            """
            from fake import record
            CACHE = []
            def test_a():
                CACHE.append(1)
                record(len(CACHE))
            def test_b():
                assert CACHE == []
            """
        )
        plainly("--mltd-repro").assert_outcomes(passed=2)

    def test_random_numbers_are_seeded_in_fixture_and_body(self, project, plainly):
        """Python's and numpy's generators start from the seed in set-up and in the call."""
        project.makepyfile(
            """
            import random, numpy, pytest
            from fake import record
            @pytest.fixture
            def drawn():
                return random.random(), numpy.random.rand()
            def test_it(drawn):
                mine = random.Random(3).random(), numpy.random.RandomState(3).rand()
                assert drawn == mine == (random.random(), numpy.random.rand())
                record(*drawn)
            """
        )
        plainly("--mltd-repro", "--mltd-seed=3").assert_outcomes(passed=1)

    def test_it_is_seeded_although_pytest_randomly_seeds_again(self, project):
        """pytest-randomly sets its own seed between set-up and call; ours is the one that holds, without xdist and with."""
        pytest.importorskip("pytest_randomly")
        project.makepyfile(
            """
            import random
            from fake import record
            def test_it():
                assert random.random() == random.Random(0).random()
                record(1)
            """
        )
        for way in ([], ["-n2"]):
            result = project.runpytest_inprocess("-p", "randomly", "--mltd-repro", *way)
            result.assert_outcomes(passed=1)
            said(result, "1 of 1 tests run twice")


class TestEveryKindOfTest:
    def test_classes_parameters_unittest_async_hypothesis_and_doctests(self, project, three_ways):
        """Each kind of test that pytest collects runs twice and is reported once."""
        project.makepyfile(
            test_kinds="""
            import random, unittest
            import pytest
            from hypothesis import given, strategies as st
            from fake import record

            class TestClass:
                @pytest.fixture(autouse=True)
                def number(self):
                    self.x = random.random()
                def test_method(self):
                    record(self.x)

            @pytest.mark.parametrize("n", [1, 2])
            def test_parameters(n):
                record(n, random.random())

            class TestCase(unittest.TestCase):
                @classmethod
                def setUpClass(cls):
                    cls.x = random.random()
                def test_case(self):
                    record(self.x)

            @pytest.mark.asyncio
            async def test_async():
                record(random.random())

            @given(st.lists(st.floats(0, 1)))
            def test_given(xs):
                record(*xs, random.random())

            class TestGiven(unittest.TestCase):
                @given(st.integers(0, 10))
                def test_given(self, n):
                    record(n)

            def test_fixture_fails(missing):
                pass

            @pytest.mark.xfail
            def test_expected():
                record(1)
                assert 0
            """,
            documented='''
            def f():
                """
                >>> from fake import record
                >>> record(1)
                >>> 1 + 1
                2
                """
            ''',
        )
        result = three_ways("--mltd-repro", "--doctest-modules", "-W", "ignore")
        result.assert_outcomes(passed=8, errors=1, xfailed=1)
        said(result, "9 of 10 tests run twice")
        assert "differ" not in result.stdout.str().replace("what differs from", "")

    def test_a_failing_hypothesis_test_is_reproduced(self, project, plainly):
        """The failing example that the first run saved is not what the second one begins with."""
        project.makepyfile(
            """
            from hypothesis import given, strategies as st
            from fake import record
            @given(st.integers())
            def test_it(n):
                record(n)
                assert n < 1000
            """
        )
        result = plainly("--mltd-repro")
        result.assert_outcomes(failed=1)
        said(result, "reproduced 2 of 2, bit for bit")

    def test_a_subtest_that_fails_only_once_is_flaky(self, project, plainly):
        """What a subtest tells on its own is compared, and told once."""
        if not hasattr(pytest, "Subtests"):
            pytest.skip("subtests are in pytest from 9.0 on")
        project.makepyfile(
            """
            import pathlib
            import pytest
            from fake import record
            mark, other = (pathlib.Path(__file__).with_name(n) for n in ("ran", "other"))
            def test_it(subtests):
                record(1)
                for i in range(3):
                    with subtests.test(i=i):
                        assert i < 2 or mark.exists()
                mark.touch()
            def test_fine(subtests):
                record(1)
                with subtests.test("one"):
                    pass
                with subtests.test("two"):
                    pytest.skip("not here")
            def test_number(subtests):
                record(1)
                for i in range(2 if other.exists() else 3):
                    with subtests.test(i=i):
                        pass
                other.touch()
            """
        )
        result = plainly("--mltd-repro", "-v")
        said(result, "test_it", "flaky: failed then passed")
        said(result, "test_fine", "passed 2 of 2, bit for bit")
        assert len(re.findall(r"SUBFAILED\(i='?2'?\)", result.stdout.str())) >= 1
        said(result, "test_number", "flaky: passed twice, not with the same")
        assert "3 of 3 tests run twice" in result.stdout.str()

    def test_reports_keep_what_tests_tell(self, project, plainly):
        """Printed text, recorded properties, warnings and one JUnit case for each test survive the way from the child."""
        project.makepyfile(
            """
            import warnings, pytest
            from fake import record
            def test_it(record_property):
                record_property("auc", 0.5)
                warnings.warn("careful", RuntimeWarning)
                record(1)
                print("printed")
                assert 0
            def test_skip():
                pytest.skip("why not")
            def test_fine():
                record(1)
            """
        )
        result = plainly("--mltd-repro", "--junitxml=junit.xml", "-W", "default", "-rs", "-o", "junit_family=legacy")
        result.assert_outcomes(passed=1, failed=1, skipped=1, warnings=1)
        said(result, "RuntimeWarning: careful")
        said(result, "SKIPPED", "why not")
        assert "printed" in result.stdout.str()
        cases = ElementTree.parse(project.path / "junit.xml").getroot().findall(".//testcase")
        assert sorted(c.get("name") for c in cases) == ["test_fine", "test_it", "test_skip"]
        assert [p.get("value") for c in cases for p in c.iter("property")] == ["0.5"]


class TestBesideOthers:
    def test_rerunfailures_is_silenced_and_that_is_said(self, project, plainly):
        """A failing test is not run until it passes; the header says so."""
        pytest.importorskip("pytest_rerunfailures")
        project.makepyfile("from fake import record\ndef test_it():\n    record(1)\n    assert 0\n")
        result = plainly("--mltd-repro", "--reruns", "3")
        result.assert_outcomes(failed=1)
        said(result, "mltd: --reruns is silenced")

    def test_pdb_runs_each_test_once(self, project, plainly):
        """A person at the debugger is not sent through the test twice, and is told that nothing is compared."""
        project.makepyfile(
            "from fake import record\ndef test_it():\n    record(1)\n    open(__file__ + '.log', 'a').close()\n"
        )
        result = plainly("--mltd-repro", "--pdb")
        result.assert_outcomes(passed=1)
        said(result, "mltd: --pdb runs each test once; nothing is compared")
        assert "run twice" not in result.stdout.str()
        assert result.ret == 0

    def test_loadscope(self, project):
        """Distribution by module or class works as without the flag."""
        project.makepyfile(test_one=SAME, test_two=SAME)
        result = project.runpytest_inprocess("-p", "no:randomly", "-n2", "--dist", "loadscope", "--mltd-repro")
        result.assert_outcomes(passed=2)
        said(result, "2 of 2 tests run twice")

    @pytest.mark.parametrize("flag", ["-x", "--maxfail=1"])
    def test_the_session_stops_where_asked(self, project, plainly, flag):
        """A failure seen by the session stops it; a trial's inner reports are not counted."""
        body = "from fake import record\ndef test_a():\n    record(1)\n    assert 0\ndef test_b():\n    record(1)\n"
        project.makepyfile(body)
        plainly("--mltd-repro", flag).assert_outcomes(failed=1)

    def test_leaving_the_session_from_a_test(self, project, plainly):
        """pytest.exit in a child ends the session, not only the child."""
        project.makepyfile("import pytest\ndef test_a():\n    pytest.exit('enough')\ndef test_b(): pass\n")
        result = plainly("--mltd-repro")
        assert "enough" in result.stdout.str() + result.stderr.str()
        result.assert_outcomes()

    def test_last_failed_works(self, project, plainly):
        """pytest's own memory of failures is that of the session, and not of its children."""
        body = "from fake import record\ndef test_a():\n    record(1)\n    assert 0\ndef test_b():\n    record(1)\n"
        project.makepyfile(body)
        plainly("--mltd-repro").assert_outcomes(failed=1, passed=1)
        plainly("--mltd-repro", "--lf").assert_outcomes(failed=1)


class TestMishaps:
    def test_a_test_that_kills_its_process(self, project, plainly):
        """The session goes on, the test fails with what happened and with what it printed."""
        project.makepyfile(
            """
            import os, signal
            from fake import record
            def test_dies():
                print("last words", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            def test_lives():
                record(1)
            """
        )
        result = plainly("--mltd-repro")
        result.assert_outcomes(passed=1, failed=1)
        said(result, "the test's process did not come to its end: the process died of SIGKILL")
        assert "last words" in result.stdout.str()

    def test_a_test_that_stands_still(self, project, plainly):
        """A hanging fork is ended and tried in a fresh interpreter; if that hangs too, the test fails and says why."""
        project.makepyfile("import threading\ndef test_it():\n    threading.Event().wait()\n")
        result = plainly("--mltd-repro", "-o", "mltd_repro_timeout=1")
        result.assert_outcomes(failed=1)
        said(result, "stood still: no CPU time used for 1 s")

    def test_a_fork_that_hangs_is_made_up_for(self, project, plainly):
        """Where only the fork hangs, both runs are made in fresh interpreters and the test passes."""
        project.makepyfile(
            """
            import os, threading
            from fake import record
            SESSION = os.getpid()
            def test_it():
                if os.getppid() == SESSION:  # a fork of the session that collected it; a fresh one collects it itself
                    threading.Event().wait()
                record(1)
            """
        )
        result = plainly("--mltd-repro", "-o", "mltd_repro_timeout=1")
        result.assert_outcomes(passed=1)
        said(result, "1 of 1 tests run twice")
        said(result, "1 in fresh interpreters, because a fork did not work: the child stood still")

    def test_another_plugins_time_limit_ends_the_test_and_not_the_session(self, project, plainly):
        """A limit that is raised by a signal while we wait for the child fails the test with its own words."""
        project.makeconftest(
            """
            import signal, pytest
            @pytest.hookimpl(wrapper=True, tryfirst=True)
            def pytest_runtest_protocol(item):
                def late(*_):
                    pytest.fail("Timeout >1.0s")
                before = signal.signal(signal.SIGALRM, late)
                signal.alarm(1)
                try:
                    return (yield)
                finally:
                    signal.alarm(0)
                    signal.signal(signal.SIGALRM, before)
            """
        )
        project.makepyfile(
            "import time\nfrom fake import record\ndef test_a():\n    time.sleep(30)\ndef test_b():\n    record(1)\n"
        )
        result = plainly("--mltd-repro")
        result.assert_outcomes(passed=1, failed=1)
        said(result, "Timeout >1.0s")

    def test_where_no_fork_can_work_none_is_tried_again(self, project, plainly, monkeypatch):
        """A process whose forks hang in torch is noticed once; all later tests get fresh interpreters, and that is said."""
        from pytest_mltd.probes import children

        tried = []

        def unsafe(work, **_):
            tried.append(1)
            return children.Ended(hung=True, unsafe=True, reason="a child of this process hangs in torch")

        monkeypatch.setattr(children, "in_child", unsafe)
        project.makepyfile("from fake import record\ndef test_a(): record(1)\ndef test_b(): record(1)\n")
        light = ("-p", "no:hypothesispytest", "-p", "no:asyncio")
        result = plainly("--mltd-repro", *light)
        result.assert_outcomes(passed=2)
        assert tried == [1]
        said(result, "2 in fresh interpreters, because a fork did not work: a child of this process hangs in torch")

    def test_a_process_that_takes_longer_than_the_limit_but_works(self, project, plainly):
        """The limit is on standing still, not on time."""
        project.makepyfile(
            """
            import time
            from fake import record
            def test_it():
                end = time.monotonic() + 1.6
                while time.monotonic() < end:
                    sum(range(1000))
                record(1)
            """
        )
        plainly("--mltd-repro", "-o", "mltd_repro_timeout=1").assert_outcomes(passed=1)


class TestFreshInterpreter:
    @pytest.fixture
    def freshly(self, plainly, monkeypatch):
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
        light = ("-p", "no:hypothesispytest", "-p", "no:asyncio")  # what is not used need not be started four times
        return lambda *arguments: plainly("--mltd-repro", "-o", "mltd_repro_interpreter=fresh", *light, *arguments)

    def test_the_hash_seed_is_shown(self, project, freshly):
        """What follows Python's hash seed differs, and a third run under the first seed says that this is why."""
        project.makepyfile("from fake import record\ndef test_it():\n    record(hash('a') % 1000, 1)\n")
        result = freshly()
        result.assert_outcomes(failed=1)
        said(result, "CheckFailed: runs.divergence: not reproducible: it follows Python's hash seed")
        said(result, "mltd: each test twice", "each time in a fresh interpreter")

    def test_what_is_drawn_at_import_is_shown(self, project, freshly):
        """Entropy taken while modules are imported differs between two interpreters, also under one hash seed."""
        project.makepyfile("import os\nfrom fake import record\nX = os.urandom(4)\ndef test_it():\n    record(*X)\n")
        result = freshly()
        result.assert_outcomes(failed=1)
        assert (
            "hash seed"
            not in result.stdout.str().partition("= FAILURES")[2].partition("= mltd")[0].partition("Each")[0]
        )

    def test_arguments_files_and_plugins_of_the_session_hold_there(self, project, freshly):
        """The inner session has the outer one's options, ini keys and conftest, runs one test, and writes no file."""
        project.makeconftest(
            "def pytest_addoption(parser):\n    parser.addoption('--number', type=int)\n    parser.addini('word', '')\n"
        )
        project.makeini("[pytest]\nword = hello\n")
        project.makepyfile(
            """
            import pytest
            from fake import record
            @pytest.mark.parametrize("x", ["a::b [c]"])
            def test_it(pytestconfig, x, tmp_path):
                assert pytestconfig.getoption("--number") == 5
                assert pytestconfig.getini("word") == "hello"
                record(1)
            """
        )
        result = freshly("--number=5", "--junitxml=junit.xml", "-x", "--basetemp", str(project.path / "base"))
        result.assert_outcomes(passed=1)
        assert len(ElementTree.parse(project.path / "junit.xml").getroot().findall(".//testcase")) == 1

    def test_a_test_that_is_not_collected_again_is_not_judged(self, project, freshly):
        """A test whose name differs from process to process is said not to have been compared, and fails."""
        project.makepyfile(
            """
            import os, pytest
            @pytest.mark.parametrize("x", [os.getpid()])
            def test_it(x):
                pass
            """
        )
        result = freshly()
        result.assert_outcomes(failed=1)
        said(result, "not compared: the fresh interpreter did not run the test")


class TestWhatIsSaid:
    def test_header(self, project, plainly):
        """The header says what is imposed."""
        project.makepyfile(SAME)
        said(plainly("--mltd-repro"), "mltd: each test twice, seed 0, at most 200 steps")
        said(
            plainly("--mltd-repro", "--mltd-seed=4", "--mltd-steps=9"), "mltd: each test twice, seed 4, at most 9 steps"
        )

    def test_what_equality_cannot_show_is_stated(self, project, plainly):
        """The summary names the hash seed and imports as not shown, and the key that shows them."""
        project.makepyfile(SAME)
        said(plainly("--mltd-repro"), "share one hash seed and one import", "-o mltd_repro_interpreter=fresh shows it")

    def test_the_rerun_line_can_be_pasted(self, project, plainly):
        """Quotes in a test's name survive the shell, and the path is right from where pytest was started."""
        project.makepyfile(
            """
            import pytest
            from fake import record
            @pytest.mark.parametrize("x", ["it's"])
            def test_it(x):
                record(1)
                assert 0
            """
        )
        line = next(x for x in plainly("--mltd-repro").stdout.lines if x.startswith("rerun: "))
        import shlex

        words = shlex.split(line.removeprefix("rerun: "))
        assert words[0] == "pytest"
        result = plainly(*words[1:])
        result.assert_outcomes(failed=1)

    def test_failures_stand_first_in_the_table(self, project, plainly):
        """What needs attention is above what does not."""
        project.makepyfile(
            "from fake import record\ndef test_a():\n    record(1)\ndef test_b():\n    record(1)\n    assert 0\n"
        )
        lines = plainly("--mltd-repro").stdout.lines
        rows = [line for line in lines if re.match(r"(> |  )test_", line)]
        assert [row[:2] for row in rows] == ["> ", "  "]
