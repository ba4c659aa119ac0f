"""Planting: what is told of it, what it leaves behind, and that it leaves the asking alone."""

import sys

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as hooks
from torch.optim import optimizer as step_hooks
from torch.utils.data import RandomSampler

import pytest_mltd as mltd
from pytest_mltd.faults import catalogue, find, planted
from pytest_mltd.faults.planting import standing_in


def tampered():
    """Return what of torch a fault may stand in for, as it is now."""
    import random

    classes = (
        torch.Tensor,
        nn.Module,
        torch.optim.Optimizer,
        torch.optim.lr_scheduler.LRScheduler,
        torch.amp.GradScaler,
    )
    modules = (torch, torch.autograd, torch._C._nn, functional, torch.nn.utils.clip_grad, random, numpy.random)
    owners = (*classes, *modules, RandomSampler)
    names = [
        (owner.__name__, name, id(value))
        for owner in owners
        for name, value in list(vars(owner).items())
        if callable(value)
    ]
    counts = [
        len(hooks._global_forward_hooks),
        len(hooks._global_forward_pre_hooks),
        len(step_hooks._global_optimizer_pre_hooks),
        len(step_hooks._global_optimizer_post_hooks),
    ]
    return names, counts


@pytest.fixture
def losses(programs):
    """The losses of the regression, as text of all their digits."""

    def run():
        with mltd.record(level="losses") as recording:
            programs.stepwise(12)
        return recording.trace.losses["value"].tolist()

    return run


@pytest.mark.parametrize("fault", catalogue(), ids=lambda fault: fault.name)
def test_torch_is_as_it_was_after_an_exception_in_the_block(fault, programs):
    """Nothing is left in torch's modules, classes and hooks, whatever happens in the block."""
    programs.half(1), programs.classifier(1)
    before = tampered()
    with pytest.raises(KeyError), planted(fault.name):
        programs.stepwise(2)
        raise KeyError("in the block")
    assert tampered() == before


def test_a_program_that_ran_with_a_fault_runs_without_it_as_ever(losses):
    """Results after the block are bit for bit those before it; and those in the block are others."""
    before = losses()
    with planted("stale_gradients"):
        during = losses()
    assert losses() == before
    assert during != before


def test_faults_can_be_nested(ask):
    """Two faults at once are both there, and both are seen."""
    with planted("validated_in_train_mode") as outer, planted("parameter_left_out") as inner:
        diagnosis = ask("classifier", 60)
    assert outer.took
    assert inner.took
    assert {"calls.misordered_calls", "updates.frozen_parameters"} <= {f.id for f in diagnosis.failed}


def test_what_kept_a_fault_is_rid_of_it_after_the_block():
    """An optimizer and its scheduler that were made in the block step as usual when it is over."""
    model = nn.Linear(2, 1)
    with planted("step_before_backward"):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    before = model.weight.detach().clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule.step()
    assert not torch.equal(model.weight, before)
    assert "step" not in vars(schedule)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_checkpoint_can_be_written_with_a_fault_planted(tmp_path):
    """What a program saves of a scheduler is what it saves without, and can be loaded."""
    model = nn.Linear(2, 1)
    with planted("scheduler_before_optimizer"):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)
        torch.save({"s": schedule.state_dict(), "o": optimizer.state_dict()}, tmp_path / "c.pt")
    assert "step" not in torch.load(tmp_path / "c.pt")["s"]


def test_a_model_whose_weights_come_with_the_first_batch_is_waited_for():
    """Lazy parameters have nothing to spoil before they are made."""
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.Linear(3, 1))
    with planted("zero_start") as planting:
        model(torch.ones(2, 4))
        assert not planting.took
        model(torch.ones(2, 4))
    assert planting.took
    assert not model[0].weight.any()


@pytest.mark.parametrize("call", [lambda f, q: f(q, q, q, None, 0.0, True), lambda f, q: f(q, q, q, is_causal=True)])
def test_a_causal_mask_is_dropped_however_it_was_asked_for(call):
    """By position and by keyword; the first token then sees the last."""
    q = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    masked = call(functional.scaled_dot_product_attention, q)
    with planted("causal_mask_dropped") as planting:
        plain = call(functional.scaled_dot_product_attention, q)
    assert planting.took
    assert not torch.allclose(masked[0, 0], plain[0, 0])


def test_settings_are_the_programs_own_outside_of_a_step():
    """A program that reads its learning rate reads its own, also after a step that raised."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with planted("rate_too_high") as planting:
        weight.grad = torch.ones(2)
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == 0.1
        with pytest.raises(ZeroDivisionError):
            optimizer.step(lambda: 1 / 0)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert planting.times == 2
    assert torch.equal(weight.detach(), torch.full((2,), 1 - 100.0))


@pytest.mark.parametrize(
    ("fault", "program", "why"),
    [
        ("scheduler_before_optimizer", "language", "no step of a scheduler made meanwhile was seen"),
        ("scheduler_per_batch", "stepwise", "no scheduler made meanwhile that pauses between steps was seen"),
        ("clip_before_backward", "deep", "no second clipping by norm was seen"),
        ("left_in_eval_mode", "convnet", "no return from eval to train mode was seen"),
        ("gradients_explode", "language", "no 31st step of SGD was seen"),
    ],
)
def test_what_could_not_be_planted_is_told(fault, program, why, programs):
    """A fault that found nothing to spoil says what it looked for."""
    with planted(fault) as planting:
        getattr(programs, program)(40)
    assert not planting.took
    assert planting.sentence == f"'{fault}' was not planted: {why}"


def test_a_step_that_computes_its_own_gradients_has_none_to_spoil():
    """Clearing before a step that is given a closure does nothing, and is not said to have been planted."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.LBFGS([weight])

    def closure():
        optimizer.zero_grad()
        loss = weight.pow(2).sum()
        loss.backward()
        return loss

    with planted("cleared_before_step") as planting:
        optimizer.step(closure)
        optimizer.step(closure=closure)
    assert not planting.took


def test_what_was_planted_is_told(programs):
    """The sentence says what was done, and how often."""
    with planted("stale_gradients") as planting:
        programs.stepwise(3)
    assert planting.sentence == (
        "planted 'stale_gradients': zero_grad does nothing, of optimizers and of modules (3 times)"
    )


def test_the_asking_is_left_alone(programs):
    """What a question of a run calls on its own, as eval() on a copy of the model, is not the program's, and not spoiled."""
    with mltd.record() as run:
        programs.language(20)
    with planted("validated_in_train_mode") as planting:
        mltd.diagnose(run)
    assert not planting.took


def test_an_unknown_name_is_refused_with_the_near_one():
    """A fault that does not exist is a mistake of the caller's."""
    with pytest.raises(
        ValueError, match="^name: no fault 'stale_gradient' can be planted; the nearest is 'stale_gradients'$"
    ):
        find("stale_gradient")
    with pytest.raises(ValueError, match="mltd faults lists them"):
        find("zzzzzz")
    with pytest.raises(TypeError, match="^name: the name of a fault is needed"):
        find(3)


def test_what_somebody_put_in_the_place_meanwhile_stays():
    """A patch that was made inside of the block and outlives it is not undone."""

    class Holder:
        def call(self):
            return "original"

    with planted("rate_zero") as planting:
        with standing_in(planting, Holder, "call", lambda original: lambda self: "ours"):
            assert Holder().call() == "ours"
            theirs = Holder.call = lambda self: "theirs"
    assert Holder.call is theirs


def test_the_catalogue_is_read_without_torch():
    """Listing faults imports no torch: it would take seconds."""
    import subprocess

    code = (
        "import sys, pytest_mltd.faults as f; f.catalogue(); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["nan_in_batch", "infinity_in_batch", "nan_weight", "nan_in_gradient"])
def test_a_value_is_spoiled_whatever_the_memory_format(name):
    """With channels last no flat view of a batch, a weight or a gradient can be had."""
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.ones(2, 3, 5, 5).to(memory_format=torch.channels_last)
    with planted(name) as planting:
        for _ in range(12):
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
    assert planting.took
    assert not model.weight.isfinite().all()


def test_labels_are_ignored_by_the_programs_own_number():
    """A program whose padding is label 0 has no label -100."""
    given, target = torch.zeros(4, 3, requires_grad=True), torch.tensor([1, 2, 1, 2])
    with planted("labels_ignored") as planting:
        losses = [functional.cross_entropy(given, target, ignore_index=0) for _ in range(2)]
    assert planting.took
    assert [bool(loss.isnan()) for loss in losses] == [False, True]


def test_the_41st_step_is_counted_by_steps_and_jumps_in_every_group():
    """Two groups do not make it the 21st; all of them jump in it."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters], lr=1.0)
    with planted("rate_jumps") as planting:
        for step in range(41):
            for p in parameters:
                p.grad = torch.ones(1)
            assert not planting.took, step
            optimizer.step()
    assert planting.took
    assert [p.item() for p in parameters] == [-10040.0, -10040.0]


@pytest.mark.parametrize("name", ["rate_too_high", "rate_too_low", "rate_zero", "rate_jumps", "decay_decides"])
def test_an_optimizer_that_finds_its_rate_by_itself_is_left_alone(name):
    """Its groups hold None for a rate, as Adafactor's do: nothing to multiply."""

    class Own(torch.optim.Optimizer):
        def step(self):
            """Leave everything."""

    optimizer = Own([nn.Parameter(torch.zeros(1))], {"lr": None, "weight_decay": 0.0})
    with planted(name) as planting:
        for _ in range(41):
            optimizer.step()
    assert not planting.took
