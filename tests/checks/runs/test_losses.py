"""Losses that diverge, spike, or never move."""

import numpy as np
import pytest

from pytest_mltd.checks.runs.losses import (
    assert_no_plateau,
    check_loss_divergence,
    check_loss_spike,
    check_plateau,
)
from pytest_mltd.core.findings import NotAsked
from pytest_mltd.core.traces import Fact, OptimizerInfo, Trace

ENTROPY = Fact(kind="targets", who="train.py:12", details={"loss": "cross_entropy", "entropy": 2.302})

# -- divergence


def test_a_loss_that_climbs_for_good_diverges(made):
    """The ratio, the step from which it stays up, and the whole message."""
    run = made()
    run.loss = np.linspace(1, 40, 200)
    finding = check_loss_divergence(run.trace())
    assert finding.step == 46
    assert str(finding) == (
        "losses.loss_divergence: the loss of 'train.py:12' diverges: from 1 at the start to 39.12, 39.12 times "
        "(max_rise=10)\n"
        "\n"
        "    step  loss\n"
        "    0     1\n"
        "    28    6.487\n"
        "    56    11.97\n"
        "    85    17.66\n"
        "    113   23.15\n"
        "    142   28.83\n"
        "    170   34.32\n"
        "  > 199   40\n"
        "\n"
        "    It stays above 10 times its first level from step 46 on: the steps lead away from a minimum.\n"
        "    next: try a tenth of the learning rate; if it still rises, look at the batch and the gradients just before step 46"
    )


def test_a_loss_that_overflows_diverges_before(made):
    """The last finite values are what it came to."""
    run = made()
    run.loss[50:60] = np.logspace(1, 30, 10)
    run.loss[60:] = np.nan
    finding = check_loss_divergence(run.trace())
    assert finding.failed
    assert "not finite from step 60 on" in finding.headline


def test_a_nan_out_of_nowhere_is_no_divergence(made):
    """A loss that was low until its last finite value did not climb."""
    run = made()
    run.loss[60:] = np.nan
    assert check_loss_divergence(run.trace()).ok


def test_a_loss_that_runs_to_minus_infinity_diverges(made):
    """A term with the wrong sign has no floor."""
    run = made()
    run.loss = np.linspace(1, -50_000, 200)
    run.loss[:10] = 1.0
    finding = check_loss_divergence(run.trace())
    assert finding.failed
    assert "from 1 at the start to -4" in finding.headline


def test_a_network_that_answers_without_gradients_in_each_step_moves_the_target(made):
    """Bootstrapped values may raise a loss honestly: not asked, with the reason."""
    run = made()
    run.order = [("forward", "forward", "zero_grad", "backward", "step")] * 200
    run.loss = np.linspace(0.1, 4, 200)
    finding = check_loss_divergence(run.trace())
    assert finding.headline == (
        "losses may honestly rise here: 'net' is evaluated without gradients in most steps: the loss may follow it"
    )


def test_networks_that_train_against_each_other_may_raise_a_loss(made):
    """A generator's loss may end ten times above its start in a healthy GAN: not asked, with the reason."""
    run = made()
    run.owner = np.arange(200) % 2
    run.optimizers = (OptimizerInfo(name="Adam"), OptimizerInfo(name="Adam"))
    run.loss = np.linspace(0.1, 4, 200)
    stream = np.arange(200) % 2
    run.kept = {
        "losses": {"step": np.arange(200), "stream": stream, "value": run.loss},
        "streams": ("train.py:12", "train.py:20"),
    }
    finding = check_loss_divergence(run.trace())
    assert not finding.asked
    assert finding.headline == "losses may honestly rise here: 2 optimizers train against 2 losses"


def test_a_loss_around_zero_has_no_level(made):
    """A policy gradient's loss changes sign; no ratio is formed."""
    run = made()
    run.loss = np.random.default_rng(0).standard_normal(200)
    finding = check_loss_divergence(run.trace())
    assert not finding.asked
    assert "changes sign" in finding.headline


# -- spike


def spiking(made):
    run = made()
    run.grad[119] *= 30
    run.loss[120:130] = np.linspace(50, 2, 10)
    return run


def test_a_spike_with_an_aftermath_is_found_at_its_step(made):
    """From where to where, how many times, and how long."""
    finding = check_loss_spike(spiking(made).trace())
    assert (finding.step, finding.culprit) == (120, "train.py:12")
    assert finding.headline == (
        "the loss of 'train.py:12' spikes at step 120: from 0.2461 to 50, 21.72 times its highest level before (max_rise=3)"
    )
    assert finding.shows.startswith("It takes 10 steps to come back")


def test_one_hard_batch_is_no_spike(made):
    """The next losses are what they were: the weights took no harm."""
    run = made()
    run.loss[[70, 110, 150]] = 60.0
    assert check_loss_spike(run.trace()).ok


def test_a_batch_that_no_hardness_explains_is_a_spike_without_an_aftermath(made):
    """A label code of -9999 in one batch: clipping saved the weights, and the data are wrong all the same."""
    run = made()
    run.loss[120] = 1e7
    finding = check_loss_spike(run.trace())
    assert finding.step == 120
    assert finding.limit == ("max_outlier", 1000.0)
    assert "it comes from the batch of that step, not from the weights" in finding.shows
    assert check_loss_spike(run.trace(), max_outlier=1e9).ok


def test_an_outlier_below_the_limit_of_spikes_is_misuse(made):
    """A batch that is an outlier is higher than a spike."""
    with pytest.raises(ValueError, match="max_outlier: a ratio of max_rise or more"):
        check_loss_spike(made().trace(), max_outlier=2.0)


def test_a_new_task_that_begins_at_the_old_start_is_no_spike(made):
    """Folds and tasks in one program bring the loss back to where an untrained net is, not above."""
    run = made()
    run.loss = np.concatenate([run.loss[:100], run.loss[:100]])
    assert check_loss_spike(run.trace()).ok


def test_a_term_that_joins_the_loss_is_no_spike(made):
    """Lifted in one step, without a large step before, and falling slowly from there."""
    run = spiking(made)
    run.grad[119] /= 30
    run.loss[120:] = np.linspace(50, 30, 80)
    assert check_loss_spike(run.trace()).ok


def test_thirty_steps_are_needed(made):
    """A run of ten steps has no level to spike from."""
    assert check_loss_spike(made(steps=10).trace()).headline == "10 of at least 30 steps"


def test_losses_in_other_units_give_the_same_spike(made):
    """A ratio has no unit."""
    run = spiking(made)
    amount = check_loss_spike(run.trace()).amount
    run.loss = run.loss * 1000
    assert check_loss_spike(run.trace()).amount == pytest.approx(amount)


# -- plateau


def flat(made, level=2.3, **kept):
    run = made()
    run.loss = np.full(200, level) + 0.01 * np.sin(np.arange(200))
    run.kept.update(kept)
    return run


def test_a_loss_at_the_entropy_of_the_labels_is_a_plateau(made):
    """What the label frequencies alone give is the level that has to be left."""
    finding = check_plateau(flat(made, facts=(ENTROPY,)).trace())
    assert finding.headline == (
        "the loss of 'train.py:12' stays on a plateau for 200 steps: it ends at 2.301, within 0.1% of 2.3, the entropy of the "
        "labels (min_gain=0.03)"
    )


def test_a_flat_loss_far_below_that_level_is_none(made):
    """Fine-tuning may begin at its floor."""
    assert check_plateau(flat(made, level=0.3, facts=(ENTROPY,)).trace()).ok


def test_a_floor_that_was_reached_by_learning_is_none(made):
    """The loss came down and stayed at the noise."""
    run = made()
    run.loss[20:] = 0.8
    run.kept["facts"] = (ENTROPY,)
    assert check_plateau(run.trace()).ok


def test_the_spread_of_numeric_targets_is_their_level(made):
    """A squared error at the variance of the targets is what their mean alone gives."""
    spread = Fact(kind="targets", details={"loss": "mse_loss", "var": 4.0})
    assert check_plateau(flat(made, level=3.99, facts=(spread,)).trace()).failed


def test_without_a_level_only_fresh_weights_are_judged(made):
    """A net of unknown beginnings may be at its floor; one that began with torch's default weights may not."""
    unknown = flat(made)
    assert not check_plateau(unknown.trace()).asked
    fresh = flat(made)
    fresh.weight = np.array([np.sqrt(16 / 3), 0.5, np.sqrt(16 / 3), 0.5])
    finding = check_plateau(fresh.trace())
    assert finding.failed
    assert "the first level" in finding.headline


def test_a_cut_run_needs_more_steps(made):
    """It says how many, and that it was cut."""
    with pytest.raises(NotAsked, match="200 of at least 500 steps; the run was cut"):
        assert_no_plateau(flat(made, facts=(ENTROPY,), ended="cut").trace())


def test_a_share_is_needed(made):
    """The refusal begins with the argument's name."""
    with pytest.raises(ValueError, match="^min_gain: a share between 0 and 1"):
        check_plateau(made().trace(), min_gain=2)


@pytest.mark.parametrize("check", [check_loss_divergence, check_loss_spike])
def test_a_ratio_above_one_is_needed(made, check):
    """The refusal begins with the argument's name."""
    with pytest.raises(ValueError, match="^max_rise: a ratio above 1"):
        check(made().trace(), max_rise=0.5)


@pytest.mark.parametrize("check", [check_loss_divergence, check_loss_spike, check_plateau])
def test_a_run_without_backward_is_not_a_pass(check):
    """Nothing examined is said in a sentence."""
    assert check(Trace()).headline.startswith("nothing was trained while recording")


@pytest.mark.parametrize("check", [check_loss_divergence, check_loss_spike])
def test_a_stream_may_be_allowed(made, check):
    """With its only loss allowed there is nothing left to judge, which is said."""
    run = spiking(made)
    run.loss[150:] = 400
    finding = check(run.trace(), allow={"train.py:12": "a stress test"})
    assert not finding.failed


def test_a_loss_that_first_has_to_fall_to_a_constant_answer_is_given_time(made):
    """It learned the mean of the targets; the rest may take five times the steps."""
    run = made()
    run.loss = 0.17 + 45 * np.exp(-np.arange(200) / 3)
    run.kept["facts"] = (Fact(kind="targets", who="train.py:12", details={"loss": "mse_loss", "var": 0.17}),)
    finding = check_plateau(run.trace())
    assert not finding.asked
    assert "200 of at least 500 steps" in finding.headline


def test_logged_losses_are_judged_where_none_was_recorded():
    """Another tool's log has names, no backward."""
    finding = check_loss_divergence(Trace.from_scalars({"train/loss": np.linspace(1, 40, 200), "test_acc": [0.1]}))
    assert finding.failed
    assert finding.culprit == "train/loss"
