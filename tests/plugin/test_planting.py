"""`@pytest.mark.mltd_fault`: a green test must be red, for that reason, with the fault planted."""

import pytest
import torch._dynamo  # noqa: F401 - sessions in this process must find torch imported: it cannot be imported twice

from pytest_mltd.core.asking import modules_of

for _room in ("checks", "probes", "recording"):  # and so must they find what has hooked into it
    list(modules_of(f"pytest_mltd.{_room}"))

# A training of a few milliseconds, and the question that sees its planted fault.
TRAIN = """
import torch
import pytest_mltd as mltd

torch.set_num_threads(1)

def train(steps=12):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    x = torch.randn(16, 3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        optimizer.step()

def recorded():
    with mltd.record() as run:
        train()
    return run
"""

SEES = """
import pytest, pytest_mltd as mltd
from trains import recorded

@pytest.mark.mltd_fault("stale_gradients")
def test_it():
    mltd.assert_no_stale_gradients(recorded())
"""


@pytest.fixture
def project(project):
    """The small project, with something to train."""
    project.makepyfile(trains=TRAIN)
    return project


def said(result, *fragments):
    """Assert that some one line of the output holds all of the fragments."""
    text = result.stdout.str()
    assert any(all(f in line for f in fragments) for line in text.splitlines()), f"{fragments} in\n{text}"


class TestVerdicts:
    def test_a_test_that_sees_the_fault_passes_once_and_says_so(self, project, plainly):
        """One pass is counted, whatever the number of runs, and the summary says what was proved."""
        project.makepyfile(test_a=SEES)
        result = plainly()
        result.assert_outcomes(passed=1)
        said(result, "proved: test_a.py::test_it is red with 'stale_gradients' planted (gradients.stale_gradients)")

    @pytest.mark.slow
    def test_the_same_under_xdist(self, project, three_ways):
        """Workers prove, and the controller says so."""
        project.makepyfile(test_a=SEES)
        result = three_ways()
        result.assert_outcomes(passed=1)
        said(result, "proved: test_a.py::test_it is red with 'stale_gradients' planted (gradients.stale_gradients)")

    def test_next_to_repro_the_fault_is_one_more_run(self, project, plainly):
        """Two runs are compared without the fault, and a third has it."""
        project.makepyfile(test_a=SEES)
        result = plainly("--mltd-repro")
        result.assert_outcomes(passed=1)
        said(result, "passed 2 of 2, bit for bit")
        said(result, "proved: test_a.py::test_it is red with 'stale_gradients' planted")

    def test_a_blind_test_fails_and_says_what_it_asked(self, project, plainly):
        """A test that passes with the fault as well is no monitor of it; the whole message."""
        project.makepyfile(test_a=SEES.replace("assert_no_stale_gradients", "assert_no_frozen_parameters"))
        result = plainly()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "mltd_fault: blind to 'stale_gradients': the test passes with the fault planted as it does without",
                "",
                "    planted 'stale_gradients': zero_grad does nothing, of optimizers and of modules (12 times)",
                "    should be red: gradients.stale_gradients",
                "    was asked: updates.frozen_parameters (green)",
                "    next: ask in the test what the fault breaks, as in mltd.assert_healthy(run)",
            ],
            consecutive=True,
        )
        said(result, "FAILED test_a.py::test_it - mltd_fault: blind to 'stale_gradients'")

    def test_a_test_that_is_red_for_another_reason_fails(self, project, plainly):
        """An error is no sight of the fault, and is named in the first line."""
        body = "    losses = recorded().trace.steps['loss']\n    assert losses[-1] < losses[0], 'no progress'\n"
        test = SEES.replace("    mltd.assert_no_stale_gradients(recorded())\n", body)
        project.makepyfile(test_a=test.replace("stale_gradients", "rate_zero"))
        result = plainly()
        result.assert_outcomes(failed=1)
        said(result, "mltd_fault: red for another reason with 'rate_zero' planted: AssertionError: no progress")

    def test_a_bare_assert_on_a_finding_is_a_sight_too(self, project, plainly):
        """Where no CheckFailed is raised, what failed among the questions of the test counts."""
        project.makepyfile(
            test_a=SEES.replace("mltd.assert_no_stale_gradients(recorded())", "assert mltd.diagnose(recorded()).ok")
        )
        plainly().assert_outcomes(passed=1)

    def test_a_fault_that_finds_nothing_to_spoil_proves_nothing(self, project, plainly):
        """The test is skipped, with the reason."""
        project.makepyfile(test_a=SEES.replace("stale_gradients", "validated_in_train_mode", 1))
        result = plainly("-rs")
        result.assert_outcomes(skipped=1)
        said(
            result,
            "'validated_in_train_mode' was not planted: no call of eval was seen; the test passes, and proves nothing",
        )

    def test_a_test_that_is_red_by_itself_is_told_as_ever(self, project, plainly):
        """No fault is planted into a failing test; nor into one that is skipped or expected to fail."""
        project.makepyfile(
            """
            import pytest
            pytestmark = pytest.mark.mltd_fault("stale_gradients")

            def test_red():
                assert 1 == 2

            @pytest.mark.skip(reason="another day")
            def test_skipped():
                pass

            @pytest.mark.xfail
            def test_expected():
                assert 1 == 2
            """
        )
        result = plainly()
        result.assert_outcomes(failed=1, skipped=1, xfailed=1)
        said(result, "assert 1 == 2")


class TestRuns:
    def test_each_run_has_its_own_fixtures_instance_and_random_numbers(self, project, plainly):
        """Both runs begin alike: session fixtures are made again, and generators are where they were."""
        project.makepyfile(
            test_a="""
            import random, pytest, pytest_mltd as mltd
            from trains import recorded
            drawn = []

            @pytest.fixture(scope="session")
            def box():
                return []

            @pytest.mark.mltd_fault("stale_gradients", "cleared_before_step")
            class TestIt:
                def test_it(self, box, tmp_path):
                    assert not box and not hasattr(self, "left")
                    box.append(1)
                    self.left = 1
                    drawn.append(random.random())
                    mltd.assert_healthy(recorded())

            def test_after(box):
                assert not box
                assert len(drawn) == 3 and len(set(drawn)) == 1
            """
        )
        result = plainly()
        result.assert_outcomes(passed=2)
        said(result, "proved:", "is red with 'stale_gradients' planted")
        said(result, "proved:", "is red with 'cleared_before_step' planted")

    def test_parameters_unittest_and_coroutines(self, project, plainly):
        """The marker works wherever a test can be marked."""
        project.makepyfile(
            test_a="""
            import asyncio, unittest, pytest, pytest_mltd as mltd
            from trains import recorded
            pytestmark = pytest.mark.mltd_fault("stale_gradients")

            @pytest.mark.parametrize("n", [1, 2])
            def test_parameter(n):
                mltd.assert_no_stale_gradients(recorded())

            class TestCase(unittest.TestCase):
                def test_it(self):
                    mltd.assert_no_stale_gradients(recorded())

            @pytest.mark.asyncio
            async def test_coroutine():
                await asyncio.sleep(0)
                mltd.assert_no_stale_gradients(recorded())
            """
        )
        plainly("-o", "asyncio_default_fixture_loop_scope=function").assert_outcomes(passed=4)

    def test_failed_subtests_of_a_run_with_a_fault_are_not_the_sessions(self, project, plainly):
        """They show the fault, and are neither reported nor counted."""
        pytest.importorskip("_pytest.subtests")
        project.makepyfile(
            test_a="""
            import pytest, pytest_mltd as mltd
            from trains import recorded

            @pytest.mark.mltd_fault("stale_gradients")
            def test_it(subtests):
                with subtests.test("a"):
                    mltd.assert_no_stale_gradients(recorded())
            """
        )
        result = plainly()
        assert result.ret == 0
        said(result, "proved: test_a.py::test_it is red with 'stale_gradients' planted")

    def test_what_torch_warns_of_with_a_fault_is_no_failure_of_its_own(self, project, plainly):
        """Where warnings are errors a scheduler that advances too early is seen by the check, and not by torch's warning."""
        project.makepyfile(
            test_a="""
            import pytest, torch, pytest_mltd as mltd

            @pytest.mark.filterwarnings("error")
            @pytest.mark.mltd_fault("scheduler_before_optimizer")
            def test_it():
                model = torch.nn.Linear(3, 1)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
                schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5)
                with mltd.record() as run:
                    for _ in range(12):
                        optimizer.zero_grad()
                        model(torch.ones(4, 3)).pow(2).mean().backward()
                        optimizer.step()
                        schedule.step()
                mltd.assert_no_misordered_calls(run)
            """
        )
        plainly().assert_outcomes(passed=1)

    def test_the_debugger_is_left_alone(self, project, plainly):
        """With --pdb each test runs once, and the summary says that nothing was planted."""
        project.makepyfile(test_a=SEES)
        result = plainly("--pdb")
        result.assert_outcomes(passed=1)
        said(result, "test_a.py::test_it: no fault is planted while somebody debugs it")


class TestMarker:
    @pytest.mark.parametrize(
        ("marker", "problem"),
        [
            ('("stale_gradient")', "name: no fault 'stale_gradient' can be planted; the nearest is 'stale_gradients'"),
            ("()", 'name: one is needed, as in mltd_fault("stale_gradients")'),
            ("(3)", "name: the name of a fault is needed, as in 'stale_gradients', not 3"),
            ('("rate_zero", often=2)', "often: no such argument; it takes names of faults"),
        ],
    )
    def test_a_wrong_marker_is_refused_when_its_file_is_collected(self, project, plainly, marker, problem):
        """A test that would prove nothing does not run."""
        project.makepyfile(test_a=f"import pytest\n@pytest.mark.mltd_fault{marker}\ndef test_it():\n    pass\n")
        result = plainly()
        result.assert_outcomes(errors=1)
        said(result, f"test_a.py::test_it: @pytest.mark.mltd_fault: {problem}")

    def test_the_marker_is_registered(self, project, plainly):
        """pytest --markers lists it, and --strict-markers knows it."""
        said(plainly("--markers"), "@pytest.mark.mltd_fault(name, ...): run the test again with each fault planted")
