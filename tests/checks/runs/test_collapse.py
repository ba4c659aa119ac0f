"""Nets that give up: one answer for every sample, a discriminator that leaves nothing to learn from."""

import numpy as np
import pytest

from pytest_mltd.checks.runs.collapse import (
    assert_no_collapsed_batch,
    assert_no_discriminator_won,
    check_collapsed_batch,
    check_discriminator_won,
)
from pytest_mltd.core.findings import NotAsked
from pytest_mltd.core.traces import CALLS, Fact, Module, OptimizerInfo, Parameter, Trace

# -- collapsed batch


def spread(made, values, inside=0.5):
    """Return a run whose net's outputs differ between samples by these shares of their size."""
    run = made()
    at = run.trace().outputs["step"]
    across = np.full((len(at), 3), np.nan)
    across[:, 0] = np.resize(values, len(at))
    across[:, 1] = inside
    run.kept["outputs"] = {
        "step": at,
        "mean": np.full((len(at), 3), 0.6),
        "std": np.full((len(at), 3), 0.8),
        "across": across,
    }
    return run.trace()


FALLING = np.concatenate([[0.5] * 5, [0.3, 0.02], [0.0001] * 20])


def test_outputs_that_become_alike_have_collapsed(made):
    """From the step on at which they are, and the whole message."""
    finding = check_collapsed_batch(spread(made, FALLING))
    assert finding.step == 30
    assert str(finding) == (
        "activations.collapsed_batch: 'net' gives all samples of a batch the same output from step 30 on: they "
        "differ by 0.0001 of "
        "its size, after 0.5 at the start (min_spread=0.01)\n"
        "\n"
        "    step  difference between samples\n"
        "    0     0.5\n"
        "    4     0.5\n"
        "  > 30    0.0001\n"
        "    50    0.0001\n"
        "    90    0.0001\n"
        "    140   0.0001\n"
        "    190   0.0001\n"
        "\n"
        "    It no longer looks at its inputs: the outputs have collapsed to a constant.\n"
        "    next: look for what rewards one answer: a loss without a term that holds samples apart (negatives, "
        "stop-gradient, "
        "variance), units that are all off, a step too long"
    )


def test_outputs_that_differ_have_not(made):
    """A sure policy gives nearly one answer."""
    assert_no_collapsed_batch(spread(made, [0.5, 0.4, 0.03]))


def test_samples_that_are_alike_say_nothing(made):
    """The net was given them so: always, or from some step on."""
    assert check_collapsed_batch(spread(made, [0.0001])).ok
    assert check_collapsed_batch(spread(made, FALLING, inside=0.0001)).ok


def test_a_net_is_allowed_by_its_name(made):
    """As any place."""
    assert not check_collapsed_batch(spread(made, FALLING), allow={"net": "it answers with its bias"}).failed


def test_outputs_of_three_rows_are_not_asked(made):
    """Their spread is not recorded."""
    with pytest.raises(NotAsked, match="four rows or more"):
        assert_no_collapsed_batch(made().trace())


# -- a discriminator that won


def rivals(made, first, second, loss="binary_cross_entropy_with_logits"):
    """Return the trace of two optimizers that step on two losses in turn."""
    run = made(400)
    run.owner[1::2] = 1
    run.optimizers = (*run.optimizers, OptimizerInfo(name="Adam"))
    run.loss[0::2], run.loss[1::2] = first, second
    losses = {"step": np.arange(400), "stream": run.owner, "value": run.loss}
    run.kept["losses"] = losses
    run.kept["streams"] = ("gan.py:15", "gan.py:16")
    run.kept["facts"] = tuple(Fact(kind="term", who=who, details={"loss": loss}) for who in run.kept["streams"])
    return run.trace()


WON = 1.4 * 0.001 ** np.minimum(np.arange(200) / 40, 1)
LOST = np.minimum(0.7 + np.arange(200) / 10, 9.0)


def test_a_loss_at_zero_beside_one_far_above_its_start_has_won(made):
    """The winner, since when, and the whole message."""
    finding = check_discriminator_won(rivals(made, WON, LOST))
    assert finding.step == 36
    assert str(finding) == (
        "losses.discriminator_won: the loss of 'gan.py:15' has won: it holds 0.001 of its start (min_share=0.05), "
        "while that of "
        "'gan.py:16' stands at 13 times its own\n"
        "\n"
        "    step  gan.py:15  gan.py:16\n"
        "    0     1.4        0.7\n"
        "    78    0.001664   4.6\n"
        "    158   0.0014     8.6\n"
        "    238   0.0014     9\n"
        "    318   0.0014     9\n"
        "  > 398   0.0014     9\n"
        "\n"
        "    The discriminator tells every sample without a doubt: its gradient tells the generator next to nothing.\n"
        "    next: lower the winner's learning rate or raise the loser's, step the winner less often, smooth its labels"
    )


def test_a_balance_has_no_winner(made):
    """Both stay near their start."""
    assert_no_discriminator_won(rivals(made, np.full(200, 1.35), np.full(200, 0.8)))


def test_a_loss_that_comes_back_has_not_lost(made):
    """A lead in the first half counts for nothing."""
    lead = np.where(np.arange(200) < 90, 0.01, 1.3)
    lead[0] = 1.4
    assert check_discriminator_won(rivals(made, lead, np.where(np.arange(200) < 90, 5.0, 0.8))).ok


def test_two_losses_of_another_kind_are_no_rivals(made):
    """A critic's error may go to zero, and its actor's loss anywhere."""
    assert not check_discriminator_won(rivals(made, WON, LOST, loss="mse_loss")).asked
    assert not check_discriminator_won(Trace.from_scalars({"loss": WON})).asked


def judged(made, second, gradients, looks=2):
    """Return rivals of losses that no function names: one net looks at batches in the first's steps."""
    run = made(400, ("D.weight", "G.weight"))
    run.parameters = tuple(
        Parameter(name=f"{n}.weight", shape=(16, 16), dtype="float32", optimizers=(i,)) for i, n in enumerate("DG")
    )
    run.modules = (Module(name="D", kind="Net", root=True), Module(name="G", kind="Net", root=True))
    run.optimizers = (*run.optimizers, OptimizerInfo(name="Adam"))
    run.owner[1::2] = 1
    run.loss[0::2], run.loss[1::2] = WON, second
    run.grad[1::2] = np.asarray(gradients)[:, None]
    calls = [
        (kind, step) for step in range(400) for kind in (["batch", "forward"] * looks if step % 2 == 0 else ["forward"])
    ]
    run.kept = {
        "losses": {"step": np.arange(400), "stream": run.owner, "value": run.loss},
        "streams": ("gan.py:15", "gan.py:16"),
        "names": ("D",),
        "calls": {
            "kind": [CALLS.index(kind) for kind, _ in calls],
            "step": [step for _, step in calls],
            "site": np.zeros(len(calls), int),
            "who": np.zeros(len(calls), int),
            "value": np.ones(len(calls)),
            "grad": np.ones(len(calls), int),
        },
    }
    return run.trace()


SATURATED = -0.15 * 0.001 ** np.minimum(np.arange(200) / 20, 1)
GONE = 1e-6 ** np.minimum(np.arange(200) / 20, 1)


def test_a_generator_without_gradient_has_lost(made):
    """Minimising log(1 - D) its loss goes to zero from below, and no function of torch names it."""
    finding = check_discriminator_won(judged(made, SATURATED, GONE))
    assert finding.culprit == "gan.py:15"
    assert "the gradient of 'gan.py:16' vanishes: 4e-06 of its first" in finding.headline


def test_a_loser_that_learns_on_has_not_lost(made):
    """Neither one that still has a gradient nor one whose loss came down."""
    assert_no_discriminator_won(judged(made, SATURATED, np.ones(200)))
    assert_no_discriminator_won(judged(made, -0.15 + SATURATED[::-1], GONE))


def test_a_critic_that_looks_at_one_kind_is_no_judge(made):
    """Actor and critic: the error of the critic may go to zero, and with it what the actor learns from."""
    assert not check_discriminator_won(judged(made, SATURATED, GONE, looks=1)).asked


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (check_collapsed_batch, {"min_spread": 0}),
        (check_collapsed_batch, {"min_steps": 0}),
        (check_discriminator_won, {"min_share": 0}),
        (check_discriminator_won, {"max_rise": 1}),
        (check_discriminator_won, {"min_gradient": 0}),
    ],
)
def test_limits_that_make_no_sense_are_refused(made, check, arguments):
    """By name."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        check(made().trace(), **arguments)
