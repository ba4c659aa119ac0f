"""One table of options: a field is a flag, an ini key and a line of help, and a wrong value is refused by name."""

import dataclasses

import pytest

from pytest_mltd.plugin.options import Settings

FIELDS = dataclasses.fields(Settings)


def test_every_field_is_an_ini_key_and_a_documented_flag(project, plainly):
    """Each option is in pytest's help, under the same name as flag and as ini key, with its own line of text."""
    text = " ".join(plainly("--help").stdout.str().split())
    for field in FIELDS:
        name = f"mltd_{field.name}"
        assert f"{name} (" in text, name
        if field.metadata["flag"]:
            assert f"--{name.replace('_', '-')}" in text, name
        assert " ".join(field.metadata["help"].split()[:4]) in text


def test_no_option_takes_an_optional_value(project, plainly):
    """A path after a flag is a path."""
    project.makepyfile(test_a="from fake import record\ndef test_a(): record(1)\ndef test_b(): record(1)\n")
    plainly("--mltd-repro", "test_a.py::test_a").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mltd-seed=x"], "--mltd-seed: a whole number is needed, not 'x'"),
        (["--mltd-seed=-1"], "--mltd-seed: a number from 0 to 4294967295 is needed, not -1"),
        (["--mltd-seed=4294967296"], "--mltd-seed: a number from 0 to 4294967295 is needed, not 4294967296"),
        (["--mltd-steps=0"], "--mltd-steps: a number at least 1 is needed, not 0"),
        (["--mltd-slice=1.5"], "--mltd-slice: a whole number is needed, not '1.5'"),
        (["--mltd-incident=../x"], "--mltd-incident: "),
        (["-o", "mltd_steps=0"], "mltd_steps: a number at least 1 is needed, not 0"),
        (["-o", "mltd_steps=many"], "mltd_steps: "),
        (["-o", "mltd_repro_scope=some"], "mltd_repro_scope: used or all is needed, not 'some'"),
        (["-o", "mltd_repro_interpreter=warm"], "mltd_repro_interpreter: fork or fresh is needed, not 'warm'"),
        (["-o", "mltd_limits=gradients.explosion.max_growth"], "mltd_limits: a line is 'key = a number', not"),
        (
            ["-o", "mltd_limits=gradients.explosion.max_growth = high"],
            "mltd_limits: gradients.explosion.max_growth needs",
        ),
        (
            ["-o", "mltd_limits=gradients.explosin.max_growth = 3"],
            "names no check; the nearest is 'gradients.explosion'",
        ),
        (
            ["-o", "mltd_limits=gradients.explosion.max_grwth = 3"],
            "gradients.explosion has no limit 'max_grwth'; it has",
        ),
        (["-o", "mltd_allow=gradients.explosin = on purpose"], "names no check; the nearest is 'gradients.explosion'"),
        (["-o", "mltd_allow=gradients.explosion"], "mltd_allow: a line is 'key = a reason', not"),
    ],
)
def test_a_wrong_value_is_refused_by_name(project, plainly, arguments, message):
    """The session does not start, and the message begins with the option that is wrong."""
    project.makepyfile("def test_a(): pass\n")
    result = plainly(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str() + result.stdout.str()


def test_the_flag_wins_over_the_ini_key(project, plainly):
    """What is said on the command line holds against what the file says."""
    project.makeini("[pytest]\nmltd_seed = 3\nmltd_steps = 7\n")
    project.makepyfile("def test_a(mltd_seed):\n    assert mltd_seed == 5\n")
    result = plainly("--mltd-seed=5")
    result.assert_outcomes(passed=1)
    assert "mltd: seed 5, at most 7 steps" in result.stdout.str()


def test_every_ini_key_has_its_flags_effect(project, plainly):
    """`mltd_repro = true` runs tests twice as the flag does."""
    project.makeini("[pytest]\nmltd_repro = true\nmltd_seed = 4\n")
    project.makepyfile("from fake import record\ndef test_a(): record(1)\n")
    result = plainly()
    assert "mltd: each test twice, seed 4, at most 200 steps" in result.stdout.str()
    assert "1 of 1 tests run twice" in result.stdout.str()


POLICY = """
from pytest_mltd.core.traces import Trace
from pytest_mltd.checks.runs.losses import check_loss_spike
from pytest_mltd.core.asking import current_policy

def test_a():
    policy = current_policy()
    assert policy.limits == {"losses.loss_spike.max_ratio": 3.5}
    assert policy.allow == {"updates.frozen_parameters:backbone.*": "frozen = on purpose"}
"""


def test_the_projects_policy_is_in_force(project, plainly):
    """`mltd_limits` and `mltd_allow` hold for every check in a test; a reason may have any character."""
    from pytest_mltd.checks.runs.losses import check_loss_spike
    from pytest_mltd.core.asking import info

    limit = next(iter(info(check_loss_spike).limits))
    project.makeini(
        f"[pytest]\nmltd_limits =\n    losses.loss_spike.{limit} = 3.5\n"
        "mltd_allow =\n    updates.frozen_parameters:backbone.* = frozen = on purpose\n"
    )
    project.makepyfile(POLICY.replace("max_ratio", limit))
    plainly().assert_outcomes(passed=1)


class TestOutsideRepro:
    def test_the_seed_holds_in_set_up_and_call(self, project):
        """`--mltd-seed` seeds each test's fixtures and body, also where pytest-randomly seeds in between."""
        project.makepyfile(
            """
            import random, unittest, numpy, pytest
            @pytest.fixture
            def drawn():
                return random.random()
            def test_it(drawn):
                assert drawn == random.random() == random.Random(7).random()
                assert numpy.random.rand() == numpy.random.RandomState(7).rand()
            class TestCase(unittest.TestCase):
                def test_case(self):
                    assert random.random() == random.Random(7).random()
            """
        )
        for extra in (["-p", "no:randomly"], ["-p", "randomly"]):
            project.runpytest_inprocess("-p", "no:xdist", "--mltd-seed=7", *extra).assert_outcomes(passed=2)

    def test_hypothesis_draws_the_same(self, project, plainly):
        """The seed decides the examples too, so that a failure can be run again."""
        project.makepyfile(
            """
            from hypothesis import given, settings, strategies as st
            @settings(database=None)
            @given(st.integers())
            def test_it(n):
                with open(__file__ + ".log", "a") as f:
                    f.write(f"{n} ")
            """
        )
        log = next(project.path.glob("test_*.py")).with_suffix(".py.log")
        seen = []
        for _ in range(2):
            log.unlink(missing_ok=True)
            plainly("--mltd-seed=7").assert_outcomes(passed=1)
            seen.append(log.read_text())
        assert seen[0] == seen[1]

    def test_a_failing_test_that_used_it_gets_its_rerun_line(self, project, three_ways):
        """The line names the test and the options that it ran under; other failures get none."""
        project.makepyfile(
            test_a="from fake import record\ndef test_used():\n    record(1)\n    assert 0\ndef test_other():\n    assert 0\n"
        )
        result = three_ways("--mltd-seed=7")
        result.assert_outcomes(failed=2)
        assert "rerun: pytest 'test_a.py::test_used' --mltd-seed=7" in result.stdout.str()
        assert "rerun: pytest 'test_a.py::test_other'" not in result.stdout.str()

    def test_a_test_that_first_imports_it_in_its_body_gets_its_line_too(self, project):
        """Nobody watches a test before mltd is imported; its failure carries findings all the same."""
        project.makepyfile(
            test_a="""
            def test_it():
                from pytest_mltd.core.findings import CheckFailed, Finding
                raise CheckFailed("broken", [Finding(ok=False, headline="broken")])
            """
        )
        light = ("-p", "no:randomly", "-p", "no:xdist", "-p", "no:hypothesispytest", "-p", "no:asyncio")
        result = project.runpytest_subprocess(*light)
        assert "rerun: pytest 'test_a.py::test_it'" in result.stdout.str()

    def test_without_options_nothing_is_said(self, project, plainly):
        """A session that does not use the plugin reads as one without it."""
        project.makepyfile("def test_a(): pass\ndef test_b(): assert 0\n")
        assert "mltd:" not in plainly().stdout.str()
        assert "= mltd" not in plainly().stdout.str()

    def test_a_slice_that_cut_nothing_fails(self, project, three_ways):
        """`--mltd-slice` in a session whose tests iterate over no DataLoader is refused plainly."""
        project.makepyfile("def test_a(): pass\n")
        result = three_ways("--mltd-slice=8")
        result.assert_outcomes(passed=1)
        assert result.ret == 1
        assert (
            "--mltd-slice: 8 samples of each DataLoader were asked for, and no test iterated over one"
            in result.stdout.str()
        )

    def test_a_test_that_trains_and_was_not_cut_fails(self, project, plainly):
        """A test that recorded a run of which nothing was cut is not what was asked for; asking for the slice serves it."""
        project.makepyfile(
            """
            from fake import record
            def test_trains():
                record(1)
            def test_by_hand(mltd_slice):
                assert mltd_slice == 8
                record(1)
            """
        )
        result = plainly("--mltd-slice=8")
        result.assert_outcomes(passed=1, failed=1)
        assert "no DataLoader was iterated" in result.stdout.str()

    def test_the_fixture_for_training_is_run(self, project, plainly):
        """`mltd_train` is `mltd.run`, nothing else."""
        project.makepyfile(
            "from pytest_mltd.recording.running import run\ndef test_a(mltd_train, mltd_seed, mltd_slice):\n"
            "    assert mltd_train is run\n    assert mltd_seed == 0\n    assert mltd_slice is None\n"
        )
        plainly().assert_outcomes(passed=1)
