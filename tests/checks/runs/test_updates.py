"""Parameters that never move, and steps out of scale."""

import dataclasses

import numpy as np
import pytest
import torch

from pytest_mltd.checks.runs.updates import (
    assert_no_frozen_parameters,
    check_frozen_parameters,
    check_update_scale,
)
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import CALLS, Fact, Trace
from pytest_mltd.recording.recorder import record


def change(run, which, **values):
    run.parameters = tuple(dataclasses.replace(p, **values) if i in which else p for i, p in enumerate(run.parameters))
    return run


# -- frozen parameters


def cut_off(made):
    run = made()
    run.grad[:, :2] = -1
    return run


def test_parameters_that_no_gradient_reaches_are_found(made):
    """The first of them is the culprit, all of them are in the table."""
    finding = check_frozen_parameters(cut_off(made).trace())
    assert str(finding) == (
        "updates.frozen_parameters: no gradient reaches 2 parameters in any step (never trained): 'fc1.weight' and 'fc1.bias' "
        "(272 of 544 values that should train)\n"
        "\n"
        "    parameter   module  values  optimizer  gradients\n"
        "  > fc1.weight  Linear  256     SGD        none\n"
        "    fc1.bias    Linear  16      SGD        none\n"
        "\n"
        "    Their modules are called, the optimizer holds them, and no gradient arrives: the path from them "
        "to the loss is cut "
        "(detach(), .data, .item(), numpy, no_grad) or their output is not used.\n"
        "    next: follow the output of the first of them to the loss and look for detach(), no_grad, .data, "
        ".item() or .numpy()"
    )


def test_parameters_in_no_optimizer_that_receive_gradients_are_found(made):
    """Layers in a plain list are told from layers that were forgotten."""
    hidden = check_frozen_parameters(change(made(), (0, 1), optimizers=(), registered=False).trace())
    forgotten = check_frozen_parameters(change(made(), (0, 1), optimizers=()).trace())
    assert "no optimizer holds 2 parameters (never updated): 'fc1.weight' and 'fc1.bias'" in hidden.headline
    assert "a plain Python list or dict hides the layers in it" in hidden.shows
    assert "plain Python list" not in forgotten.shows


def test_parameters_that_the_program_moves_itself_are_not_frozen(made):
    """A worker's copy receives the shared weights before each step, and hands on its gradients."""
    run = change(made(), (0, 1), optimizers=())
    run.kept["facts"] = tuple(Fact(kind="manual_update", who=p.name) for p in run.parameters[:2])
    assert check_frozen_parameters(run.trace()).ok


def test_frozen_on_purpose_is_no_fault(made):
    """requires_grad=False says so."""
    run = change(cut_off(made), (0, 1), requires_grad=False)
    assert check_frozen_parameters(run.trace()).ok


def test_a_module_that_is_never_called_is_not_asked_about(made):
    """An unused head has no gradient because it has no output."""
    run = cut_off(made)
    rows = np.full((24, 3), 32)
    rows[:, 1] = -1
    run.kept["outputs"] = {"step": np.arange(24), "rows": rows}
    assert check_frozen_parameters(run.trace()).ok


def test_an_output_that_nobody_uses_is_not_a_cut_path(made):
    """A spare head after all that trains has no gradient, and harms nothing."""
    run = made()
    run.grad[:, 2:] = -1
    assert check_frozen_parameters(run.trace()).ok


def test_a_branch_left_out_in_some_steps_is_no_fault(made):
    """One gradient is enough to show that the path is there."""
    run = cut_off(made)
    run.grad[::7, :2] = 0.1
    assert check_frozen_parameters(run.trace()).ok


def test_a_network_evaluated_in_eval_mode_and_held_by_no_optimizer_is_a_fixed_one(made):
    """Gradients run through a fixed loss network without training it."""
    run = change(made(), (0, 1), optimizers=())
    run.modules = (*run.modules, dataclasses.replace(run.modules[0], name="fc1"))
    run.kept["names"] = ("fc1",)
    run.values["forward"] = 0.0
    assert check_frozen_parameters(run.trace()).ok


def test_steps_that_leave_a_parameter_unchanged_are_found(made):
    """A gradient, a learning rate, and the same bits after each step."""
    run = made()
    updates = dict(run.trace().updates)
    frozen = np.array(updates["update"])
    frozen[:, 2] = 0
    run.kept["updates"] = {**updates, "update": frozen}
    finding = check_frozen_parameters(run.trace())
    assert finding.culprit == "fc2.weight"
    assert "every step leaves 1 parameter unchanged, in spite of gradients" in finding.headline


def group_at_zero(made, steps=200):
    """The first layer's group has no rate, the other's has one."""
    run = made(steps=steps)
    made_trace = run.trace()
    moved = np.array(made_trace.updates["update"])
    moved[:, :2] = 0
    run.kept["updates"] = {**made_trace.updates, "update": moved}
    run.kept["steps"] = {**made_trace.steps, "lr_lowest": np.zeros(steps)}
    return run


def test_a_group_without_a_learning_rate_is_found(made):
    """Gradients arrive and are multiplied by zero."""
    finding = check_frozen_parameters(group_at_zero(made).trace())
    assert finding.headline == (
        "the learning rate of 2 parameters is zero in every step (never updated), in spite of gradients: 'fc1.weight' and "
        "'fc1.bias' (272 of 544 values that should train)"
    )


def test_a_group_that_waits_for_its_turn_is_not(made):
    """It thaws before the end; and a run may be too short to tell."""
    run = group_at_zero(made)
    run.kept["steps"]["lr_lowest"][150:] = 0.01
    run.kept["updates"]["update"][-4:, :2] = 0.01
    assert check_frozen_parameters(run.trace()).ok
    assert check_frozen_parameters(group_at_zero(made, steps=60).trace()).ok


def idling(made, fall=1.0, **kept):
    """Backward and zero_grad in turn, 40 times, and no step."""
    run = made(steps=0)
    run.kept = {
        "losses": {"step": np.zeros(40, int), "stream": np.zeros(40, int), "value": np.linspace(2.3, 2.3 * fall, 40)},
        "calls": {
            "kind": [CALLS.index(k) for k in ("zero_grad", "backward")] * 40,
            "step": [0] * 80,
            "site": [1, 2] * 40,
        },
        **kept,
    }
    return run.trace()


def test_an_optimizer_that_never_steps_is_found(made):
    """All that belongs to training, but the step."""
    assert str(check_frozen_parameters(idling(made))) == (
        "updates.frozen_parameters: SGD never steps: backward ran 40 times and zero_grad 40 times (train.py:11), every "
        "optimizer step is skipped or missing\n"
        "\n"
        "    calls      times\n"
        "    backward   40\n"
        "    zero_grad  40\n"
        "  > step       0\n"
        "\n"
        "    The 4 parameters that it holds keep their initial values; the loss begins at 2.3 and ends at 2.3.\n"
        "    next: call optimizer.step() after backward; where a condition guards it (a loss scaler of your own, a check for "
        "finite gradients), print which gradient fails it: NaN stays NaN at any loss scale"
    )


def test_a_loss_scale_that_keeps_falling_is_no_gain(made):
    """The program's own scaler skips every step and halves the scale, and the loss with it."""
    run = idling(made, losses={"step": [0] * 40, "stream": [0] * 40, "value": 2.3 * 0.5 ** np.arange(40)})
    assert "It halves each time: its loss scale keeps falling." in check_frozen_parameters(run).shows


def test_weights_that_are_moved_by_hand_need_no_step(made):
    """The loss comes down, or the recorder saw them move; a person may say so too."""
    assert not check_frozen_parameters(idling(made, fall=0.5)).asked
    moved = (Fact(kind="manual_update", who="fc1.weight"),)
    assert not check_frozen_parameters(idling(made, facts=moved)).asked
    assert not check_frozen_parameters(idling(made), allow={"SGD": "only its gradients are wanted"}).asked


def test_a_pattern_allows_a_whole_module(made):
    """The reason is kept, the other findings stay."""
    finding = check_frozen_parameters(cut_off(made).trace(), allow={"fc1.*": "frozen on purpose"})
    assert finding.ok
    assert finding.allowed == (("fc1.weight", "frozen on purpose"), ("fc1.bias", "frozen on purpose"))


def test_the_twin_raises(made):
    """`assert_no_frozen_parameters` fails for that reason."""
    with pytest.raises(CheckFailed, match="no gradient reaches 2 parameters"):
        assert_no_frozen_parameters(cut_off(made).trace())


# -- update scale


def overthrown(made):
    run = made()
    run.lr[:] = 30.0
    run.loss = np.full(200, 2.4)
    return run


def test_steps_that_overthrow_the_weights_are_found(made):
    """The learning rate is the culprit, with the ratio of the first step."""
    finding = check_update_scale(overthrown(made).trace())
    assert finding.step == 0
    assert finding.headline == (
        "the learning rate of SGD is too high (lr 30): step 0 changes the weights by 4.078 of their norm (max_ratio=0.3), and "
        "the loss suffers"
    )


def test_large_steps_of_a_net_that_learns_are_fine(made):
    """A small net may take them."""
    run = overthrown(made)
    run.loss = np.linspace(2.4, 0.3, 200)
    assert check_update_scale(run.trace()).ok


def test_steps_that_move_nothing_are_found(made):
    """A learning rate of 1e-9, and a loss that stays."""
    run = made()
    run.lr[:] = 1e-9
    run.loss = np.full(200, 2.4)
    finding = check_update_scale(run.trace())
    assert "the steps of SGD are too small to learn (lr 1e-09)" in finding.headline
    assert finding.limit == ("min_ratio", 1e-7)


def test_a_learning_rate_of_zero_throughout_is_found(made):
    """A schedule that counts something else never leaves zero."""
    run = made()
    run.lr[:] = 0.0
    finding = check_update_scale(run.trace())
    assert "too small to learn (lr 0)" in finding.headline
    assert finding.next_step == "look at the schedule: the learning rate is 0 in every step"


def test_weights_that_begin_at_zero_are_measured_by_a_usual_start(made):
    """A logistic regression from zero doubles its weights in the second step; that is no overthrow."""
    run = made()
    run.loss = np.full(200, 0.69)
    run.weight = np.array([0.0, 0.0, 0.0, 0.0])
    assert check_update_scale(run.trace()).ok


def test_a_warm_up_from_zero_is_fine(made):
    """The first steps move nothing, by design."""
    run = made()
    run.lr = np.minimum(np.arange(200) / 40, 1) * 0.1
    assert check_update_scale(run.trace()).ok


@pytest.mark.parametrize("check", [check_frozen_parameters, check_update_scale])
def test_a_run_without_steps_is_not_a_pass(check):
    """Weights updated by hand are not watched, and that is said."""
    finding = check(Trace.from_scalars({"val/loss": [1.0]}))
    assert not finding.asked
    by_hand = Trace(losses={"step": np.zeros(40, int), "value": np.ones(40)}, streams=("a.py:1",))
    assert check(by_hand).headline == (
        "backward ran 40 times, but no optimizer step was seen (weights updated by hand are not watched)"
    )


def test_a_model_without_parameters_is_not_a_pass(made):
    """There is nothing that could be frozen."""
    run = made(parameters=())
    assert "no parameter" in check_frozen_parameters(run.trace()).headline


def test_limits_must_be_positive(made):
    """The refusal begins with the argument's name."""
    with pytest.raises(ValueError, match="^max_ratio: "):
        check_update_scale(made().trace(), max_ratio=-1)
    with pytest.raises(ValueError, match="^fewest_steps: "):
        check_frozen_parameters(made().trace(), fewest_steps=0)


def test_a_rate_that_is_still_warming_up_is_told_with_where_it_goes(made):
    """What the program's settings hold is the later rate: it is said beside the one of the step."""
    run = made()
    run.lr = np.linspace(30, 300, 200)
    run.loss[:] = 3.0
    headline = check_update_scale(run.trace()).headline
    assert "(lr 30 there, up to 297" in headline


def test_the_line_that_made_the_optimizer_is_named(made):
    """Where the rate stands, and where parameters were left out."""
    run = overthrown(made)
    run.optimizers = (dataclasses.replace(run.optimizers[0], site="train.py:7"),)
    assert check_update_scale(run.trace()).next_step.endswith("(train.py:7)")
    run = change(made(), (0, 1), optimizers=())
    run.optimizers = (dataclasses.replace(run.optimizers[0], site="train.py:7"),)
    assert check_frozen_parameters(run.trace()).shows.endswith(" The optimizer was made at train.py:7.")


def test_a_clip_limit_that_always_decides_is_named(made):
    """The steps are too small because of it."""
    run = made()
    run.loss[:] = 2.3
    run.used = run.grad * 1e-9
    run.order = [("forward", "zero_grad", "backward", "clip", "step")] * 200
    run.values["clip"] = 1e-9
    finding = check_update_scale(run.trace())
    assert "The clip limit 1e-09 always decides (train.py:10): it cuts gradients of" in finding.shows


def test_a_net_of_its_own_that_no_gradient_reaches_is_no_spare_head():
    """The second of two towers, whose output is detached: the program calls it at every step, and last of all."""
    torch.manual_seed(0)
    users, items = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD([*users.parameters(), *items.parameters()], lr=0.1)
    x, y = torch.randn(16, 4), torch.randn(16)
    with record() as run:
        for _ in range(12):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss((users(x) * items(x).detach()).sum(1), y).backward()
            optimizer.step()
    finding = check_frozen_parameters(run)
    assert finding.failed
    assert "items.weight" in finding.headline


def test_a_log_of_losses_alone_is_told_as_one():
    """Nobody called backward in a CSV file."""
    log = Trace(losses={"step": [0, 10], "stream": [0, 0], "value": [2.0, 1.0]}, streams=("loss",), level="scalars")
    assert check_update_scale(log).headline == "the log has 2 losses, and nothing of the steps behind them"
