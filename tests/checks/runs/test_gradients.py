"""Gradients that are not finite, explode, vanish, or were left over."""

import dataclasses

import numpy as np
import pytest

from pytest_mltd.checks.runs.gradients import (
    assert_no_explosion,
    assert_no_stale_gradients,
    check_explosion,
    check_nonfinite,
    check_stale_gradients,
    check_vanishing,
)
from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.core.traces import Fact, OptimizerInfo, Trace

# -- nonfinite


def test_a_loss_that_becomes_nan_is_found_at_its_step(made):
    """The first step is named, with what the loss was before, and the whole message reads on its own."""
    run = made()
    run.loss[60:] = np.nan
    run.used = run.grad.copy()
    run.used[60:] = np.nan
    run.kept["outputs"] = {}
    finding = check_nonfinite(run.trace())
    assert finding.step == 60
    assert str(finding) == (
        "gradients.nonfinite: the loss is NaN from step 60 on in 'train.py:12'; the last finite one was 0.5901\n"
        "\n"
        "    step  loss    gradient norm  lr\n"
        "    57    0.643   0.4487         0.1\n"
        "    58    0.5924  0.4489         0.1\n"
        "    59    0.5901  0.4252         0.1\n"
        "  > 60    NaN     NaN            0.1\n"
        "\n"
        "    Losses were ordinary until then: one operation made it (log of zero, 0/0, an overflow), or the batch held it.\n"
        "    next: mltd.locate_nonfinite(train), or of the script's path, runs it again and names the operation, its line and "
        "what it was given"
    )


def test_the_first_module_with_a_nonfinite_output_is_the_place(made):
    """Where outputs were recorded at that step, the first bad one in order is named."""
    run = made()
    run.loss[60:] = np.nan
    sampled = np.array([59, 60])
    mean = np.zeros((2, 3))
    mean[1, 1:] = np.nan
    run.kept["outputs"] = {"step": sampled, "rows": np.full((2, 3), 8), "mean": mean, "max": mean}
    finding = check_nonfinite(run.trace())
    assert finding.culprit == "fc1"
    assert "first in the output of 'fc1'" in finding.headline


def test_a_gradient_can_be_the_first_that_is_not_finite(made):
    """With a finite loss the parameter is named, and the sentence speaks of infinite slopes."""
    run = made()
    run.used = run.grad.copy()
    run.used[60:, 2] = np.nan
    run.loss[61:] = np.nan
    finding = check_nonfinite(run.trace())
    assert (finding.step, finding.culprit) == (60, "fc2.weight")
    assert "not finite from step 60 on, while the loss there is 0.5822" in finding.headline


def test_a_recorded_birthplace_is_named_with_its_line(made):
    """The recorder may have seen the operation that made it."""
    run = made()
    run.loss[60:] = np.nan
    details = {"operation": "LogBackward0", "site": "train.py:7", "dtype": "torch.float16"}
    run.kept["facts"] = (Fact(kind="nonfinite", step=60, who="loss", details=details),)
    finding = check_nonfinite(run.trace())
    assert "made by 'log' in 'loss' (train.py:7)" in finding.headline
    assert "float16" in finding.shows


def test_infinite_counts_as_well(made):
    """An infinite loss is not finite."""
    run = made()
    run.loss[100:] = np.inf
    assert check_nonfinite(run.trace()).step == 100


def test_one_bad_gradient_that_never_reached_the_weights_is_fine(made):
    """An optimizer that declines such a step leaves later steps and weights finite."""
    run = made()
    run.used = run.grad.copy()
    run.used[60] = np.nan
    assert check_nonfinite(run.trace()).ok


def test_a_loss_left_out_before_the_step_is_fine(made):
    """A backward on a non-finite loss without a step after it did no harm (a scaler's skipped step, a guard)."""
    run = made()
    losses = np.insert(run.loss, 50, np.inf)
    run.kept["losses"] = {"step": np.insert(np.arange(200), 50, 50), "value": losses}
    assert check_nonfinite(run.trace()).ok


def test_a_loss_that_is_nan_while_its_gradients_are_finite_is_named(made):
    """A mean over nothing was used as a loss, and later ones are finite again: at that step, not from it on."""
    run = made()
    run.loss[[14, 40]] = np.nan
    run.kept["outputs"] = {}
    assert check_nonfinite(run.trace()).headline.startswith(
        "the loss is NaN at step 14 and 1 later step in 'train.py:12'"
    )


def test_a_scaler_that_skips_for_ever_is_found(made):
    """The first skips are normal; all of them are not."""
    run = made(steps=30)
    run.order = [("forward", "backward", "skipped_step"), ("forward", "backward", "skipped_step"), *run.order[2:]]
    assert check_nonfinite(run.trace()).ok
    run.order = [("forward", "backward", "skipped_step")] * 30
    finding = check_nonfinite(run.trace())
    assert finding.culprit == "GradScaler"
    assert finding.headline.startswith("gradients are not finite in 30 of 30 steps")


def test_scalars_alone_are_judged_too():
    """A run known by its loss only has one question less to answer, not all."""
    assert check_nonfinite(Trace.from_scalars({"loss": [1.0, 0.5, float("nan")]})).step == 2


# -- explosion


def exploding(made, factor=1000.0):
    run = made()
    run.grad[80:84, 2] *= factor
    run.loss[81:] = 30.0
    return run


def test_an_explosion_is_found_at_its_step_and_parameter(made):
    """The parameter that carries it is the culprit, the limit is in the first line."""
    finding = check_explosion(exploding(made).trace())
    assert (finding.step, finding.culprit, finding.limit) == (80, "fc2.weight", ("max_growth", 50.0))
    assert finding.headline == (
        "the gradient of 'fc2.weight' explodes from step 80 on: the norm used by SGD reaches 465.6 times its own level "
        "(max_growth=50)"
    )


def test_explosion_to_infinity_is_found_before_it(made):
    """The growth comes first; that values stop being finite is its consequence."""
    run = made()
    run.grad[80:90] *= np.logspace(0.5, 6, 10)[:, None]
    run.grad[90:] = np.nan
    run.loss[90:] = np.nan
    run.used = run.grad
    finding = check_explosion(run.trace())
    assert finding.failed
    assert 80 <= finding.step < 90


def test_a_first_gradient_far_beyond_the_weights_explodes_at_once(made):
    """There is no level of its own yet; the weights are what it is held against, where steps follow the gradient."""
    run = made()
    run.grad[0] *= 1000
    run.grad[0, 2] *= 2
    run.grad[1:] = np.nan
    run.loss[1:] = np.nan
    run.lr[:] = 0.01
    finding = check_explosion(run.trace())
    assert (finding.step, finding.culprit) == (0, "fc2.weight")
    assert "times the norm of the weights, at once (max_growth=50)" in finding.headline


def test_a_first_gradient_far_beyond_the_weights_is_fine_where_the_loss_comes_down(made):
    """Targets in large units have large gradients."""
    run = made()
    run.grad[0] *= 1000
    assert check_explosion(run.trace()).ok


def test_a_large_gradient_without_harm_is_no_explosion(made):
    """One odd batch whose gradient is huge, and losses that go on as before."""
    run = made()
    run.grad[80] *= 1000
    assert check_explosion(run.trace()).ok


def test_what_clipping_cut_down_did_not_explode(made):
    """The norm is taken as the step used it."""
    run = exploding(made)
    run.used = run.grad / np.maximum(1, np.linalg.norm(run.grad, axis=1))[:, None]
    assert check_explosion(run.trace()).ok


def test_huge_gradients_at_the_start_are_not_an_explosion(made):
    """A regression on large targets comes down from them."""
    run = made()
    run.grad *= np.exp(-np.arange(200) / 20)[:, None] * 1e6 + 1
    run.loss *= np.exp(-np.arange(200) / 20) * 1e8 + 1
    assert check_explosion(run.trace()).ok


def test_scaling_the_loss_changes_no_verdict(made):
    """Limits refer to the run itself: a loss in other units gives the same growth."""
    one, two = exploding(made), exploding(made)
    two.grad, two.loss = two.grad * 1e-3, two.loss * 1e-3
    assert check_explosion(one.trace()).amount == pytest.approx(check_explosion(two.trace()).amount, rel=1e-4)


def test_few_steps_are_no_answer(made):
    """Too short says how short."""
    with pytest.raises(NotAsked, match="3 of at least 6 steps"):
        assert_no_explosion(made(steps=3).trace())


def test_a_limit_that_is_none_is_misuse(made):
    """The refusal begins with the argument's name."""
    with pytest.raises(ValueError, match=r"^max_growth: a number above zero is needed, not 0$"):
        check_explosion(made().trace(), max_growth=0)


# -- vanishing


def fading(made):
    run = made(parameters=tuple(f"layers.{i}.weight" for i in range(8)))
    run.grad = run.grad * 10.0 ** (np.arange(8) - 7)
    run.loss = np.full(200, 1.1)
    return run


def test_gradients_that_fade_on_their_way_back_are_found(made):
    """The first layer is the culprit, its ratio to the largest is the amount."""
    finding = check_vanishing(fading(made).trace())
    assert finding.culprit == "layers.0.weight"
    assert finding.amount == pytest.approx(1e-7, rel=0.2)
    assert finding.headline.startswith("the gradient of 'layers.0.weight' vanishes: relative to its weights it is 9.9")
    assert "(min_ratio=0.0001)" in finding.headline


def test_fading_gradients_of_a_net_that_learns_are_fine(made):
    """A loss that came down says that what arrives is enough."""
    run = fading(made)
    run.loss = np.linspace(2.0, 0.5, 200)
    assert check_vanishing(run.trace()).ok


def test_gradients_of_exactly_zero_are_found_with_the_step_they_died(made):
    """Dead hidden layers pass nothing on."""
    run = made(parameters=("fc1.weight", "fc1.bias", "fc2.weight", "fc3.weight", "fc3.bias"))
    run.grad[40:, :4] = 0
    run.loss = np.full(200, 1.1)
    finding = check_vanishing(run.trace())
    assert (finding.step, finding.culprit) == (40, "fc1.weight")
    assert "exactly zero from step 40 on, as it is in 3 of 3 weights" in finding.headline


def test_layers_that_are_all_equally_deaf_vanish_too(made):
    """A net begun with weights of 0.01: the first layers have one tiny norm, a little up and down, the last ones all of it."""
    run = fading(made)
    deaf = np.array([1e-9, 1.2e-9, 1e-9, 0.8e-9, 1e-9, 0.9e-9])
    run.grad[:, : deaf.size] = deaf
    run.grad[:, deaf.size :] = np.geomspace(1e-8, 1e-2, run.grad.shape[1] - deaf.size)
    assert check_vanishing(run.trace()).failed


def test_one_silent_layer_among_many_is_no_vanishing(made):
    """An expert that no row is routed to says nothing of the others."""
    run = made(parameters=tuple(f"experts.{i}.weight" for i in range(8)))
    run.grad[:, 3] = 0
    run.loss = np.full(200, 1.1)
    assert check_vanishing(run.trace()).ok


# -- stale


def stale(made):
    run = made()
    run.stale[1:] = 4
    run.order = [("forward", "backward", "step")] * 200
    return run


def test_gradients_never_cleared_are_found(made):
    """The count, the missing call and the line of backward are said."""
    finding = check_stale_gradients(stale(made).trace())
    assert (finding.step, finding.culprit, finding.amount) == (1, "SGD", pytest.approx(0.995))
    assert str(finding) == (
        "gradients.stale_gradients: SGD steps on stale gradients, left over from the step before, in 199 of 200 steps "
        "(max_share=0.05): zero_grad is never called\n"
        "\n"
        "    step  loss   gradient norm  lr\n"
        "    0     2.303  1.149          0.1\n"
        "  > 1     2.243  1.158          0.1\n"
        "    2     2.206  1.235          0.1\n"
        "    3     2.143  1.133          0.1\n"
        "    4     2.08   1.15           0.1\n"
        "    5     2.049  1.041          0.1\n"
        "\n"
        "    Each step adds this batch's gradients to those of all batches before; nothing cleared them in between.\n"
        "    next: call optimizer.zero_grad() once before each backward (train.py:12); to accumulate on purpose, clear after "
        "each step"
    )


def test_accumulation_is_not_staleness(made):
    """Four backwards before each step, cleared after it: nothing is left over."""
    run = made()
    run.backwards[:] = 4
    assert check_stale_gradients(run.trace()).ok


def test_the_twin_raises_with_the_finding(made):
    """`assert_no_stale_gradients` carries what it found."""
    with pytest.raises(CheckFailed) as caught:
        assert_no_stale_gradients(stale(made).trace())
    assert caught.value.findings[0].id == "gradients.stale_gradients"


@pytest.mark.parametrize("check", [check_nonfinite, check_explosion, check_vanishing, check_stale_gradients])
def test_a_run_without_training_is_not_a_pass(check):
    """Nothing examined is said in a sentence."""
    finding = check(Trace())
    assert not finding.asked
    assert finding.headline == (
        "nothing was trained while recording: no backward and no optimizer step (is the training inside the block?)"
    )


@pytest.mark.parametrize(
    ("check", "broken", "place"),
    [
        (check_explosion, exploding, "fc2.*"),
        (check_vanishing, fading, "layers.*"),
        (check_stale_gradients, stale, "SGD"),
    ],
)
def test_a_place_may_be_allowed(made, check, broken, place):
    """A reason for the place is kept, and the run passes."""
    finding = check(broken(made).trace(), allow={place: "seen and understood"})
    assert finding.ok
    assert finding.allowed[0][1] == "seen and understood"


def test_of_two_optimizers_the_first_bad_loss_is_named(made):
    """The discriminator's loss overflows one step before the generator's becomes NaN: it is the discriminator's."""
    run = made()
    run.optimizers = (OptimizerInfo(name="Adam G", parameters=2), OptimizerInfo(name="Adam D", parameters=2))
    run.owner = np.arange(200) % 2
    run.loss[101] = np.inf
    run.loss[102:] = np.nan
    assert check_nonfinite(run.trace()).step == 101


def jumped(made, high):
    """Return a run whose gradients and loss jump at step 100, where new data comes; ``high`` are the losses from there on."""
    run = made()
    run.loss[:100] = 0.02
    run.loss[0] = 2.0
    run.loss[1:3] = 1.5
    run.loss[100:] = high
    run.grad[:] = 0.05
    run.grad[:5] = 2.0
    run.grad[100:104] = 4.0
    return run.trace()


def test_a_gradient_that_answers_a_new_task_is_no_explosion(made):
    """The loss is high before the step was made, and falls from there."""
    assert check_explosion(jumped(made, 2.0 * 0.8 ** np.arange(100))).ok


def test_a_gradient_after_which_the_loss_stays_high_is_one(made):
    """It does not come down again, or is far above any start."""
    assert check_explosion(jumped(made, np.full(100, 2.0))).failed
    assert check_explosion(jumped(made, 90.0 * 0.99 ** np.arange(100))).failed


def test_the_norm_of_a_log_is_not_judged_and_not_denied():
    """It stands in the log, mostly as the one before clipping: that is the reason, and not that it is missing."""
    log = Trace.from_scalars({"loss": np.linspace(2, 1, 40), "grad_norm": np.ones(40)})
    steps = {**log.steps, "grad_norm": np.ones(40), "grad_norm_used": np.full(40, np.nan)}
    headline = check_explosion(dataclasses.replace(log, steps=steps)).headline
    assert headline == "a log's gradient norm is mostly the one before clipping, and what the steps used is not known"
