"""Calls in the wrong order, or in the wrong mode."""

import dataclasses

import numpy as np
import pytest

from pytest_mltd.checks.runs.calls import assert_no_misordered_calls, check_misordered_calls
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import Module, OptimizerInfo, Trace

DROPOUT = Module(name="drop", kind="Dropout")
USUAL = ("forward", "zero_grad", "backward", "step")


def found(run, **limits):
    return check_misordered_calls(run.trace(), **limits)


def test_the_usual_order_passes(made):
    """Nothing is wrong, and what was looked at is said."""
    finding = found(made())
    assert finding.ok
    assert finding.looked_at == "800 calls: forward, backward, step, zero_grad"


def test_gradients_cleared_between_backward_and_step(made):
    """The optimizer steps without one; the line of zero_grad is named."""
    run = made()
    run.used = np.full_like(run.grad, -1)
    run.order = [("forward", "backward", "zero_grad", "step")] * 200
    finding = found(run)
    assert str(finding) == (
        "calls.misordered_calls: zero_grad runs between backward and step in 200 of 200 steps (train.py:11): "
        "SGD steps without a "
        "gradient (max_share=0.2)\n"
        "\n"
        "    step  loss   backwards before it  gradient norm used\n"
        "  > 0     2.303  1                    0\n"
        "    1     2.243  1                    0\n"
        "    2     2.206  1                    0\n"
        "    3     2.143  1                    0\n"
        "\n"
        "    What backward computed was thrown away before the optimizer could use it.\n"
        "    next: call zero_grad before backward, or after the step"
    )


def test_clearing_after_the_step_is_an_order_too(made):
    """backward, step, zero_grad: nothing is lost."""
    run = made()
    run.order = [("forward", "backward", "step", "zero_grad")] * 200
    assert found(run).ok


def test_a_step_before_backward(made):
    """Its gradients come too late; the first step had none at all."""
    run = made()
    run.grad[0] = -1
    run.backwards[0] = 0
    run.order = [("zero_grad", "forward", "step", "backward")] * 200
    assert found(run).culprit == "step"
    assert "steps before backward, in 200 of 200 steps (train.py:13)" in found(run).headline


def test_clipping_after_the_step(made):
    """No step uses the clipped gradients."""
    run = made()
    run.order = [("zero_grad", "forward", "backward", "step", "clip")] * 200
    run.values["clip"] = 1.0
    assert "gradients are clipped after the step, in 200 of 200 calls" in found(run).headline


def test_clipping_before_backward(made):
    """It meets gradients that were just cleared."""
    run = made()
    run.order = [("zero_grad", "forward", "clip", "backward", "step")] * 200
    run.values["clip"] = 1.0
    assert "gradients are clipped before backward" in found(run).headline


def test_measuring_the_norm_after_the_step_is_no_clipping(made):
    """An infinite limit is a way to read the norm."""
    run = made()
    run.order = [("zero_grad", "forward", "backward", "step", "clip")] * 200
    run.values["clip"] = np.inf
    assert found(run).ok


def test_clipping_between_the_steps_of_two_optimizers_is_in_order(made):
    """One backward, then each optimizer's clip and step."""
    run = made()
    run.order = [("zero_grad", "forward", "backward", "clip", "step"), ("clip", "step")] * 100
    run.values["clip"] = 1.0
    assert found(run).ok


def test_clipping_before_unscale(made):
    """The limit is held against gradients too large by the scale."""
    run = made()
    run.order = [("zero_grad", "forward", "backward", "clip", "unscale", "step")] * 200
    run.values["clip"] = 1.0
    run.scale[:] = 4096
    finding = found(run)
    assert "the limit 1 is held against gradients 4096 times too large" in finding.headline


def eval_from(made, step, *, modules=(DROPOUT,)):
    run = made()
    run.training[step:] = 0
    run.modules = (*run.modules, *modules)
    run.order[step] = ("eval", "forward", *USUAL)
    return run


def test_a_model_left_in_eval_mode(made):
    """From which step, and by which call."""
    finding = found(eval_from(made, 50))
    assert (finding.step, finding.culprit) == (50, "eval")
    assert finding.headline == (
        "the model is left in eval mode while training, from step 50 on: 150 of 200 steps (train.py:10) (max_share=0.2)"
    )


def test_eval_mode_without_a_layer_that_minds_it(made):
    """A net of linear layers is the same in both modes."""
    assert found(eval_from(made, 50, modules=())).ok


def test_a_validation_before_training_leaves_eval_mode(made):
    """It needs no loss to be one: the line that calls eval() comes again after each epoch."""
    run = eval_from(made, 0)
    run.order[0] = ("eval", "forward", "forward", *USUAL)
    assert found(run).ok  # one look at the loaded model
    run.order[100] = ("eval", "forward", *USUAL)
    run.values["forward"] = 0.0
    assert (found(run).step, found(run).culprit) == (0, "eval")


def test_eval_mode_from_the_first_step_on_is_a_choice(made):
    """Fine-tuning with fixed batch statistics never saw train mode."""
    run = eval_from(made, 0)
    assert found(run).ok


def validated(made, mode, every=20):
    run = made()
    run.modules = (*run.modules, DROPOUT)
    at = np.arange(every - 1, 200, every)
    for step in at:
        run.order[step] = ("forward", *USUAL)
    run.values["forward"] = mode  # of training and of validation
    run.kept["val"] = {"step": at, "stream": np.zeros(len(at), int), "value": np.full(len(at), 0.5)}
    return run


def test_validation_in_train_mode(made):
    """Losses without gradients, a forward of their own, and never eval mode."""
    finding = found(validated(made, 1.0))
    assert finding.culprit == "validation"
    assert "validation runs in train mode, each of 10 times" in finding.headline


def test_metrics_of_the_training_output_are_no_validation(made):
    """They need no forward of their own."""
    run = validated(made, 1.0)
    run.order = [USUAL] * 200
    assert found(run).ok


def test_a_scheduler_before_the_optimizer(made):
    """One call before the first step, none after the last."""
    run = made()
    run.order = [("scheduler",) * (i % 10 == 0) + USUAL for i in range(200)]
    assert "the scheduler steps before the optimizer, in each of 20 calls" in found(run).headline


def test_a_scheduler_after_each_epoch_is_in_order(made):
    """The usual place."""
    run = made()
    run.order = [USUAL + ("scheduler",) * (i % 10 == 9) for i in range(200)]
    assert found(run).ok


def test_a_resumed_schedule_is_in_order(made):
    """Epochs that were done before are stepped through at once."""
    run = made()
    run.order = [USUAL + ("scheduler",) * (i % 10 == 9) for i in range(200)]
    run.order[0] = ("scheduler",) * 5 + run.order[0]
    assert found(run).ok


def per_batch(made, gamma=0.8):
    run = made()
    run.lr = 0.1 * gamma ** np.arange(200)
    run.loss[:] = 1.0
    run.order = [(*USUAL, "scheduler")] * 200
    run.kept["names"] = ("StepLR",)
    return run


def test_a_scheduler_stepped_per_batch_until_nothing_moves(made):
    """From which rate to which, by which step, and how much of the run is left."""
    finding = found(per_batch(made))
    assert finding.step == 27
    assert finding.headline == (
        "the scheduler is stepped per batch until the learning rate is practically zero: StepLR takes it from 0.1 to 0.0001934 "
        "by step 28 of 200, 86% of the run is left (max_idle=0.4) (train.py:10)"
    )


def test_a_cosine_by_batch_that_ends_at_zero_is_meant_so(made):
    """It is practically zero at the very end only."""
    run = per_batch(made)
    run.lr = 0.05 * (1 + np.cos(np.pi * np.arange(200) / 200))
    assert found(run).ok


def test_a_rate_that_fades_after_the_loss_has_come_down_is_fine(made):
    """Nothing is left to learn."""
    run = per_batch(made)
    run.loss = np.maximum(2.0 * 0.8 ** np.arange(200), 0.01)
    assert found(run).ok


def test_a_call_may_be_allowed(made):
    """One kind of misorder with a reason; others are still judged."""
    finding = found(eval_from(made, 50), allow={"eval": "batch statistics are fixed after warm-up"})
    assert finding.ok
    assert finding.allowed == (("eval", "batch statistics are fixed after warm-up"),)


def test_the_twin_raises(made):
    """`assert_no_misordered_calls` fails for that reason."""
    with pytest.raises(CheckFailed, match="left in eval mode"):
        assert_no_misordered_calls(eval_from(made, 50).trace())


def test_what_was_not_recorded_is_not_asked():
    """A run of scalars has no order of calls."""
    trace = Trace.from_scalars({"loss": np.linspace(2, 1, 50)})
    assert check_misordered_calls(trace).headline == "the order of calls was not recorded (level 'scalars')"


def test_limits_are_shares(made):
    """The refusal begins with the argument's name."""
    with pytest.raises(ValueError, match="^max_share: a share between 0 and 1"):
        found(made(), max_share=3)


def test_a_step_on_gradients_that_hold_the_loss_scale(made):
    """optimizer.step() where scaler.step(optimizer) was meant."""
    run = made()
    run.scale[:] = 1024
    run.optimizers = (OptimizerInfo(name="net"),)  # calls are of the name "net" here
    finding = found(run)
    assert finding.headline == (
        "net steps on gradients that still hold the loss scale, in 200 of 200 steps (train.py:13): they are 1024 times too "
        "large (max_share=0.2)"
    )
    run.order = [("forward", "zero_grad", "backward", "unscale", "step")] * 200
    assert found(run).ok


def test_a_scale_that_a_fused_optimizer_takes_out(made):
    """It is given the scale and divides by itself."""
    run = made()
    run.scale[:] = 1024
    run.optimizers = (OptimizerInfo(name="net", settings={"fused": True}),)
    assert found(run).ok


def test_a_scale_that_is_divided_out_by_hand(made):
    """The step uses gradients that are smaller than those of backward by the scale."""
    run = made()
    run.scale[:] = 1024
    run.optimizers = (OptimizerInfo(name="net"),)
    run.used = run.grad / 1024
    assert found(run).ok


def accumulated(made, per_step, batches):
    """Return a run of three backwards a step, with these calls, each of a batch of its own or all of one."""
    run = made()
    run.order = [per_step] * 200
    trace = run.trace()
    kinds = trace.calls["kind"]
    digest = np.where(trace.of("batch"), np.arange(kinds.size) + 1 if batches == "own" else 7, 0)
    columns = {**trace.calls, "digest": digest.astype(np.uint64)}
    losses = {"step": np.repeat(np.arange(200), 3), "stream": np.zeros(600, int), "value": np.repeat(run.loss, 3)}
    return dataclasses.replace(trace, calls=columns, losses=losses)


CLEARED = ("batch", "forward", "zero_grad", "backward") * 3 + ("step",)


def test_gradients_cleared_between_the_backwards_of_a_step(made):
    """Accumulation of which only the last backward counts."""
    finding = check_misordered_calls(accumulated(made, CLEARED, "own"))
    assert finding.headline == (
        "zero_grad runs between the 3 backwards of a step, before 200 of 200 steps (train.py:11): only the last of them "
        "counts, nothing is accumulated (max_share=0.2)"
    )
    assert finding.culprit == "zero_grad"


def test_accumulation_that_clears_once_a_step(made):
    """All backwards count."""
    order = ("zero_grad", *("batch", "forward", "backward") * 3, "step")
    assert check_misordered_calls(accumulated(made, order, "own")).ok


def test_two_passes_over_one_batch(made):
    """A sharpness-aware step throws the first gradients away on purpose."""
    assert check_misordered_calls(accumulated(made, CLEARED, "one")).ok


def one_cycle(made, rates, calls=10, ended="completed"):
    """Return a run of 200 steps whose one-cycle schedule was stepped now and then."""
    run = made()
    run.lr = np.repeat(rates, 20)
    run.order = [(*USUAL, "scheduler") if (s + 1) % (200 // calls) == 0 else USUAL for s in range(200)]
    run.kept.update(names=("OneCycleLR",), ended=ended)
    return run


def test_a_one_cycle_schedule_that_is_hardly_begun(made):
    """Its length is in batches, and it is stepped once an epoch."""
    finding = found(one_cycle(made, np.linspace(4e-4, 5e-4, 10)))
    assert finding.headline == (
        "the one-cycle scheduler has hardly begun when training ends: OneCycleLR steps 10 times in 200 optimizer steps "
        "(train.py:10), and takes the learning rate from 0.0004 to 0.0005 only (max_share=0.2)"
    )
    assert finding.culprit == "scheduler"


def test_a_one_cycle_schedule_in_epochs(made):
    """It has come some way, or all of it, or the run was cut."""
    assert found(one_cycle(made, np.linspace(4e-4, 2e-3, 10))).ok
    assert found(one_cycle(made, np.concatenate([np.linspace(4e-4, 1e-2, 4), np.linspace(9e-3, 1e-6, 6)]))).ok
    assert found(one_cycle(made, np.linspace(4e-4, 5e-4, 10), ended="cut")).ok
