import numpy as np
import pytest

import pytest_mltd as mltd
from pytest_mltd.core.traces import Trace
from pytest_mltd.intake import read


def _falling(n):
    return [2.3 * 0.97**i + 0.1 for i in range(n)]


def test_a_healthy_log_is_left_alone(tmp_path, writer):
    """A curve that falls, with its validation: asked, and nothing found."""
    log = writer().curve("Loss/train", _falling(120), every=50).curve("Loss/val", _falling(12), every=500)
    log.curve("lr", [0.1] * 120, every=50).curve("grad_norm", [1.0, 1.2] * 60, every=50).save(tmp_path)
    diagnosis = mltd.diagnose(read(tmp_path))
    assert diagnosis.ok, str(diagnosis)
    assert {"gradients.nonfinite", "losses.loss_divergence", "losses.loss_spike"} <= {
        f.id for f in diagnosis.findings if f.asked
    }


def test_what_a_log_cannot_say_is_named_as_not_asked(tmp_path, writer):
    """Updates, calls and graphs are in no log."""
    writer().curve("loss", _falling(120)).save(tmp_path)
    unasked = {f.id for f in mltd.diagnose(read(tmp_path)).not_asked}
    assert {"updates.update_scale", "calls.misordered_calls", "objective.double_softmax"} <= unasked


@pytest.mark.parametrize("every", [1, 50])
def test_a_loss_that_became_nan_is_found_at_its_step(tmp_path, writer, every):
    """The step is the log's own, and its name the culprit."""
    writer().curve("train/loss", [*_falling(60), *[float("nan")] * 20], every=every).save(tmp_path)
    failed = mltd.diagnose(read(tmp_path)).failed
    assert [f.id for f in failed] == ["gradients.nonfinite"]
    assert failed[0].step == 60 * every
    assert failed[0].culprit == "train/loss"


def test_a_spike_is_found_between_sparse_steps(tmp_path, writer):
    """Steps at which nothing was logged are no values."""
    values = _falling(120)
    values[60:75] = [30.0] * 15
    writer().curve("loss", values, every=10).save(tmp_path)
    failed = mltd.diagnose(read(tmp_path)).failed
    assert [(f.id, f.step) for f in failed] == [("losses.loss_spike", 600)]


@pytest.mark.parametrize("names", [("loss_d", "loss_g"), ("train/loss", "rollout/ep_rew_mean")])
def test_losses_that_may_honestly_rise_are_not_judged(tmp_path, writer, names):
    """A discriminator's loss that rises tenfold is a generator that got better; it is said that nothing was judged."""
    writer().curve(names[0], np.linspace(0.1, 5, 120)).curve(names[1], np.linspace(0.1, 5, 120)).save(tmp_path)
    trace = read(tmp_path)
    assert not mltd.diagnose(trace).failed
    assert "no loss is judged: what" in trace.notes[0]


def test_the_trace_of_a_log_can_be_saved(tmp_path, writer):
    """It is a trace as any other: what is read back says the same."""
    log = writer().curve("loss", _falling(30)).curve("val_loss", _falling(3), every=10).curve("acc", [0.1] * 30)
    log.save(tmp_path)
    trace = read(tmp_path)
    again = Trace.load(trace.save(tmp_path / "run.mltd"))
    assert (again.streams, again.names, again.notes, again.ended) == (trace.streams, trace.names, trace.notes, "logged")
    assert again.scalars("acc")[1].tolist() == trace.scalars("acc")[1].tolist()
    assert str(mltd.diagnose(again)) == str(mltd.diagnose(trace))


def test_names_that_were_taken_are_said(tmp_path, writer):
    """Nobody told us which number is which: the note lets the user check it."""
    log = (
        writer()
        .curve("loss", [1.0])
        .curve("val_loss", [1.0])
        .curve("lr", [0.1])
        .curve("grad_norm", [1.0])
        .curve("f1", [0.5])
    )
    log.save(tmp_path)
    assert read(tmp_path).notes == (
        "taken of 5 logged names: loss 'loss', validation loss 'val_loss', gradient norm 'grad_norm', learning rate 'lr'",
    )
