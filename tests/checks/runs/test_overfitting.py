"""What training and validation losses do together: turn, never meet, or meet on the wrong side."""

import dataclasses

import numpy as np
import pytest

from pytest_mltd.checks.runs.overfitting import (
    assert_no_generalisation_gap,
    assert_no_overfitting,
    assert_no_validation_better,
    check_generalisation_gap,
    check_overfitting,
    check_validation_better,
)
from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.core.traces import CALLS, OptimizerInfo, Trace

AT = np.arange(10, 201, 10)  # twenty passes over a run of 200 steps


def validated(run, values, at=AT):
    """Return the trace of a made run with these validation losses."""
    run.kept["val"] = {"step": at, "stream": np.ones(len(at), int), "value": np.asarray(values, float)}
    run.kept["streams"] = ("train.py:12", "train.py:40")
    return run.trace()


def turning(low=8, rise=0.15):
    """Return a validation loss that falls until a pass and rises from there."""
    fall = 0.6 + 1.6 * np.exp(-np.arange(20) / 2.0)
    return np.where(np.arange(20) <= low, fall, fall[low] + rise * (np.arange(20) - low))


# -- overfitting


def test_a_validation_loss_that_turns_is_overfitting_from_that_pass_on(made):
    """The onset, both losses, and the whole message."""
    finding = check_overfitting(validated(made(), turning()))
    assert finding.step == 100
    assert str(finding) == (
        "losses.overfitting: overfitting from step 100 on: the validation loss of 'train.py:40' ends at 2.129, "
        "3.284 times its "
        "lowest (max_rise=2), while the training loss falls on to 0.1088\n"
        "\n"
        "    step  training loss  validation loss\n"
        "    10    2.064          2.2\n"
        "    40    1.144          0.957\n"
        "    80    0.4851         0.6483\n"
        "  > 100   0.3363         0.7793\n"
        "    120   0.2402         1.079\n"
        "    160   0.1486         1.679\n"
        "    200   0.115          2.279\n"
        "\n"
        "    It was lowest, 0.6483, at step 80 and has been above that for 11 passes: since then the net learns "
        "its training "
        "samples by heart.\n"
        "    next: keep the weights of the lowest validation loss (early stopping), or regularise: more data, "
        "augmentation, weight "
        "decay, dropout, a smaller net"
    )


def test_a_validation_loss_that_settles_is_none(made):
    """It ends where it is lowest."""
    assert_no_overfitting(validated(made(), turning(low=19)))


def test_one_epoch_that_rises_is_none(made):
    """Only the end of the run counts, and a third of the passes after the lowest."""
    assert check_overfitting(validated(made(), turning(low=17, rise=1.0))).ok
    values = turning(low=19)
    values[10] *= 4
    assert check_overfitting(validated(made(), values)).ok


def test_a_rise_near_zero_is_none(made):
    """From a thousandth to a hundredth of the first level nobody is harmed."""
    values = np.where(np.arange(20) < 8, 2.2 * np.exp(-np.arange(20.0)), 0.001 * np.arange(20))
    assert check_overfitting(validated(made(), values)).ok


def test_a_training_loss_that_rises_too_is_something_else(made):
    """A restart of the schedule lifts both."""
    run = made()
    run.loss[100:] = 2.0
    assert check_overfitting(validated(run, turning())).ok


def test_the_best_weights_loaded_again_are_early_stopping(made):
    """Whoever loads after the lowest pass has seen it."""
    run = made()
    run.order = [*run.order[:-1], (*run.order[-1], "load")]
    assert "load" in CALLS
    assert check_overfitting(validated(run, turning())).ok


def test_a_sum_beside_a_mean_overfits_all_the_same(made):
    """The rise over its own lowest needs no common scale."""
    assert check_overfitting(validated(made(), 120 * turning())).failed


def test_few_passes_are_not_asked(made):
    """Three passes make no turn."""
    finding = check_overfitting(validated(made(), [2.0, 1.0, 1.5], AT[:3]))
    assert not finding.asked
    assert finding.headline == "3 of at least 8 validation passes"


def test_a_validation_of_five_rows_is_chance(made):
    """Where the rows that were given without gradient are known."""
    run = made()
    run.order = [(*calls, "batch") if step + 1 in AT else calls for step, calls in enumerate(run.order)]
    run.tracked = lambda kind, index, calls: 0 if kind == "batch" else -1
    run.values = {"batch": 5.0}
    trace = validated(run, turning())
    step = trace.calls["step"] + trace.of("batch")
    few = dataclasses.replace(trace, calls={**trace.calls, "step": step})
    assert check_overfitting(few).headline == "a validation of 5 rows of at least 30: its loss is chance"
    many = dataclasses.replace(few, calls={**few.calls, "value": np.where(few.of("batch"), 50.0, few.calls["value"])})
    assert check_overfitting(many).failed


def test_without_validation_nothing_is_asked(made):
    """The assertion says so."""
    with pytest.raises(NotAsked, match="no validation loss was recorded or logged"):
        assert_no_overfitting(made().trace())


def test_networks_that_train_against_each_other_are_not_asked(made):
    """Two optimizers: which loss a validation belongs to is not known."""
    run = made()
    run.owner[::2] = 1
    run.optimizers = (*run.optimizers, OptimizerInfo(name="Adam"))
    assert not check_overfitting(validated(run, turning())).asked


@pytest.mark.parametrize("name", ["val/loss", "eval_loss", "validation/epoch_loss", "loss/test", "valLoss"])
def test_logged_scalars_alone_are_enough(made, name):
    """A dead run's log has no steps, only names."""
    training = made().loss
    finding = check_overfitting(Trace.from_scalars({"train/loss": training, name: (AT, turning())}))
    assert finding.failed
    assert finding.culprit == name
    assert finding.step == 100


def test_an_allowed_validation_loss_is_left_alone(made):
    """By its line."""
    finding = check_overfitting(validated(made(), turning()), allow={"train.py:40": "meant to be learned by heart"})
    assert not finding.failed


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (check_overfitting, {"max_rise": 1}),
        (check_overfitting, {"min_passes": 2}),
        (check_generalisation_gap, {"max_gap": 0}),
        (check_generalisation_gap, {"min_gain": 1}),
        (check_validation_better, {"min_ratio": 1}),
        (check_validation_better, {"min_passes": 0}),
    ],
)
def test_limits_that_make_no_sense_are_refused(made, check, arguments):
    """By name."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        check(made().trace(), **arguments)


# -- generalisation gap


def test_what_never_shows_in_validation_is_a_gap(made):
    """Both levels, the share that is missing, and the whole message."""
    finding = check_generalisation_gap(validated(made(), np.full(20, 2.4)))
    assert finding.amount == pytest.approx(1.04, abs=0.01)
    assert str(finding) == (
        "losses.generalisation_gap: what is learned does not carry over: the training loss falls from 2.303 to "
        "0.1088, the "
        "validation loss of 'train.py:40' is never below 2.4: 104% of the gain is missing (max_gap=0.9)\n"
        "\n"
        "    step  training loss  validation loss\n"
        "    10    2.064          2.4\n"
        "    40    1.144          2.4\n"
        "    80    0.4851         2.4\n"
        "    120   0.2402         2.4\n"
        "    160   0.1486         2.4\n"
        "  > 200   0.115          2.4\n"
        "\n"
        "    Validation gains nothing from what fits the training samples: they are learned by heart, or the two "
        "are prepared "
        "differently.\n"
        "    next: run the validation code on the training samples: if the loss is high there too, preprocessing, "
        "labels or mode "
        "differ; if it is low, the net memorises"
    )


def test_half_of_the_gain_is_no_gap(made):
    """Validation is worse than training in every honest run."""
    assert_no_generalisation_gap(validated(made(), np.linspace(2.0, 1.0, 20)))


def test_a_single_pass_at_the_end_is_enough(made):
    """Many programs validate once."""
    assert check_generalisation_gap(validated(made(), [2.4], AT[-1:])).failed
    assert check_generalisation_gap(validated(made(), [0.5], AT[-1:])).ok


def test_losses_of_two_scales_are_held_against_their_own_beginning(made):
    """A sum over the batch beside a mean."""
    assert check_generalisation_gap(validated(made(), 423 * np.linspace(1, 0.2, 20))).ok
    assert check_generalisation_gap(validated(made(), np.full(20, 423.0))).failed


def test_one_validation_of_another_scale_has_nothing_to_be_held_against(made):
    """Nor has one that begins when training is nearly through."""
    finding = check_generalisation_gap(validated(made(), [423.0], AT[-1:]))
    assert not finding.asked
    assert "is first seen at step" in finding.headline
    assert finding.headline.endswith("there: not of one scale")
    assert not check_generalisation_gap(validated(made(), np.full(10, 423.0), AT[10:])).asked


def test_a_net_that_learned_nothing_has_no_gap(made):
    """Its training loss says more."""
    run = made()
    run.loss[:] = 2.3
    assert not check_generalisation_gap(validated(run, np.full(20, 2.4))).asked


# -- validation better


def better(run, factor):
    """Return a run that stays at half of its loss, and validates at this share of it."""
    run.loss = 1.0 + 1.2 * np.exp(-np.arange(200) / 40)
    beside = run.loss[AT - 1]
    return validated(run, beside * factor ** np.linspace(0, 1, 20))


def test_a_validation_of_a_hundredth_is_suspicious(made):
    """Dropout does not do that; it is said as an inference."""
    finding = check_validation_better(better(made(), 0.001))
    assert finding.failed
    assert finding.evidence == "inference"
    assert finding.culprit == "train.py:40"
    with pytest.raises(CheckFailed, match=r"of the training loss beside it \(min_ratio=0.02\)"):
        assert_no_validation_better(better(made(), 0.001))


def test_a_model_that_is_called_twice_a_step_may_train_on_harder_samples(made):
    """Adversarial training does."""
    run = made()
    run.order = [("forward", *calls) for calls in run.order]
    run.tracked = lambda kind, index, calls: int(kind == "forward")
    assert not check_validation_better(better(run, 0.001)).asked


def test_dropout_makes_validation_better(made):
    """By a factor of two or three."""
    assert_no_validation_better(better(made(), 0.3))


def test_a_training_loss_near_zero_is_not_compared(made):
    """Little is left to be better by."""
    assert not check_validation_better(validated(made(), np.linspace(2, 0.001, 20))).asked
