"""The umbrella over a run: everything asked, root causes first, and what could not be asked."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from pytest_mltd.core.asking import listening
from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.core.traces import Fact, Trace
from pytest_mltd.diagnosis import assert_healthy, diagnose


@pytest.fixture
def made():
    """Return the class of hand-made runs of the checks' own tests."""
    path = Path(__file__).parent / "checks" / "runs" / "conftest.py"
    spec = importlib.util.spec_from_file_location("made_runs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MadeRun


def broken(made):
    """Gradients are never cleared, the loss climbs and becomes NaN."""
    run = made()
    run.stale[1:] = 4
    run.order = [("forward", "backward", "step")] * 200
    run.loss = np.geomspace(1, 1e6, 200)
    run.loss[150:] = np.nan
    run.used = run.grad.copy()
    run.used[150:] = np.nan
    return run


def test_a_healthy_run_passes(made):
    """It says how much was asked, and of what."""
    diagnosis = diagnose(made().trace())
    assert diagnosis.ok
    assert "200 steps of SGD; 4 parameters; losses of train.py:12; completed" in str(diagnosis)
    assert_healthy(made().trace())


def test_the_root_cause_comes_first_and_its_symptoms_are_folded(made):
    """Stale gradients explain the divergence and the NaN."""
    diagnosis = diagnose(broken(made).trace())
    assert [f.id for f in diagnosis.roots] == ["gradients.stale_gradients"]
    assert {f.id for f in diagnosis.symptoms_of(diagnosis.roots[0])} >= {
        "gradients.nonfinite",
        "losses.loss_divergence",
    }


def test_what_began_before_a_nan_is_not_explained_by_it(made):
    """A NaN explains what came after its step only."""
    run = made()
    run.grad[:, :2] = -1
    run.loss[150:] = np.nan
    assert [f.id for f in diagnose(run.trace()).roots] == ["updates.frozen_parameters", "gradients.nonfinite"]


def test_it_fails_once_with_all_findings(made):
    """One exception carries the root and its symptoms."""
    with pytest.raises(CheckFailed) as caught:
        assert_healthy(broken(made).trace())
    assert caught.value.findings[0].id == "gradients.stale_gradients"
    assert len(caught.value.findings) > 1


def test_only_and_skip_take_patterns(made):
    """Families and single questions can be chosen."""
    trace = broken(made).trace()
    assert {f.id.split(".")[0] for f in diagnose(trace, only="gradients.*").findings} == {"gradients"}
    assert "gradients.nonfinite" not in {f.id for f in diagnose(trace, skip=["gradients.nonfinite"]).findings}


@pytest.mark.parametrize("argument", ["only", "skip"])
def test_an_unknown_question_is_refused_with_the_near_one(made, argument):
    """A typing error must not switch a question off."""
    with pytest.raises(
        ValueError, match=rf"^{argument}: no question 'gradients\.explosoin'; the nearest is 'gradients\.explosion'$"
    ):
        diagnose(made().trace(), **{argument: ["gradients.explosoin"]})
    with pytest.raises(ValueError, match=r"the nearest is 'losses\.plateau'"):
        diagnose(made().trace(), **{argument: "plateu"})


def test_one_place_can_be_allowed_with_a_reason(made):
    """The reason is printed and kept; the rest is still judged."""
    run = made()
    run.grad[:, :2] = -1
    diagnosis = diagnose(run.trace(), allow={"updates.frozen_parameters:fc1.*": "frozen on purpose"})
    assert diagnosis.ok
    assert ("updates.frozen_parameters", "fc1.weight", "frozen on purpose") in diagnosis.allowed


def test_questions_that_need_the_model_are_named(made):
    """Probes are listed as not asked, unless they are not wanted."""
    assert "model.causal_leak" in {f.id for f in diagnose(made().trace()).not_asked}
    assert "model.causal_leak" not in {f.id for f in diagnose(made().trace(), probe=False).not_asked}


def test_what_recording_cost_is_said_with_its_seconds(made):
    """Half of a fifth of a second is not half of the night; a trace of an older version has the share alone."""
    run = made()
    run.kept |= {"cost": 0.5, "seconds": 0.2}
    assert "; recorder took 50% (0.1 s of 0.2 s)" in str(diagnose(run.trace()))
    run.kept["seconds"] = None
    assert str(diagnose(run.trace())).splitlines()[1].endswith("; recorder took 50%")


def test_questions_that_need_the_model_are_one_short_line(made):
    """Their names are in JSON; the last lines are for what the reader can do something about."""
    diagnosis = diagnose(made().trace())
    assert (
        "not asked: 9 questions of model.* (the model is gone: they are asked of a live recording, or by "
        "mltd.assert_model_sound(model, inputs))" in str(diagnosis)
    )
    assert "model.causal_leak" in {f["id"] for f in diagnosis.as_dict()["not_asked"]}


def test_an_empty_run_is_not_healthy():
    """Nothing examined is not a pass: each question says so, in one sentence for all."""
    diagnosis = diagnose(Trace())
    assert not diagnosis.findings
    assert str(diagnosis).count("nothing was trained while recording") == 1
    with pytest.raises(NotAsked):
        assert_healthy(Trace())


def test_backward_without_a_step_answers_what_it_can():
    """Losses are judged, the rest says that no step was seen."""
    by_hand = Trace(losses={"step": np.zeros(40, int), "value": np.linspace(2, 1, 40)}, streams=("a.py:1",))
    diagnosis = diagnose(by_hand)
    assert "gradients.nonfinite" in {f.id for f in diagnosis.findings}
    assert "no optimizer step was seen" in str(diagnosis)


def test_a_path_is_refused_with_the_remedy():
    """Trace.load reads it."""
    with pytest.raises(TypeError, match=r"^run: 'a\.trace' is a path; read it first, with Trace\.load\('a\.trace'\)$"):
        diagnose("a.trace")


def test_a_run_that_ended_in_an_error_is_not_healthy(made):
    """Whatever was found before it; asked for certain questions only, their answers decide."""
    run = made()
    run.kept["ended"] = "raised RuntimeError: out of memory"
    assert diagnose(run.trace()).ok
    with pytest.raises(CheckFailed, match=r"^crashed at step 200: RuntimeError: out of memory\n") as caught:
        assert_healthy(run.trace())
    assert not isinstance(caught.value, NotAsked)
    assert_healthy(run.trace(), only="gradients.*")
    with pytest.raises(CheckFailed, match=r"^crashed before any training was seen: ValueError: no file$"):
        assert_healthy(Trace(ended="raised ValueError: no file"))


def test_listeners_hear_one_diagnosis(made):
    """Not the ten findings asked on the way."""
    heard = []
    with listening(heard):
        diagnose(made().trace())
    assert len(heard) == 1


def test_notes_of_the_recorder_are_passed_on(made):
    """What went wrong while recording belongs beside the verdict."""
    run = made()
    run.kept["notes"] = ("a hook was removed by the program",)
    assert "note: a hook was removed by the program" in str(diagnose(run.trace()))


def test_what_is_said_of_the_whole_run_is_a_symptom_of_a_cause_at_any_step(made):
    """Gradients go stale from step 20 on; that the loss never came down is said of the whole run, and follows from it."""
    run = made()
    run.stale[20:] = 4
    run.loss = np.full(200, 2.3)
    run.order = [("forward", "backward", "step")] * 200
    details = {"loss": "cross_entropy", "entropy": 2.302}
    run.kept["facts"] = (Fact(kind="targets", who="train.py:12", details=details),)
    diagnosis = diagnose(run.trace(), only=["gradients.stale_gradients", "losses.plateau"])
    assert {f.id for f in diagnosis.failed} == {"gradients.stale_gradients", "losses.plateau"}
    assert [f.id for f in diagnosis.roots] == ["gradients.stale_gradients"]
