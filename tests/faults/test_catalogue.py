"""Every fault of the catalogue, planted into a program that nobody edits: red for its reason, and green without."""

import pytest
import torch
from torch import nn

import pytest_mltd as mltd
from pytest_mltd.core.asking import discover, info
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.faults import catalogue, planted

# fault -> a program in which it can be planted, and how many steps it takes to see it
RUNS = {
    "stale_gradients": ("accumulating", 60),
    "cleared_before_step": ("language", 60),
    "cleared_while_accumulating": ("accumulating", 60),
    "step_before_backward": ("classifier", 60),
    "clip_before_backward": ("classifier", 60),
    "gradients_explode": ("half", 60),
    "nan_in_gradient": ("convnet", 60),
    "detached_output": ("convnet", 60),
    "gradient_blocked": ("adversaries", 60),
    "rate_too_high": ("stepwise", 60),
    "rate_too_low": ("accumulating", 60),
    "rate_zero": ("adversaries", 60),
    "rate_jumps": ("convnet", 60),
    "climbing": ("stepwise", 60),
    "momentum_beyond_one": ("stepwise", 240),
    "decay_decides": ("language", 60),
    "parameter_left_out": ("stepwise", 60),
    "parameters_replaced": ("deep", 60),
    "second_optimizer": ("classifier", 60),
    "scheduler_before_optimizer": ("stepwise", 60),
    "scheduler_per_batch": ("classifier", 60),
    "double_softmax": ("convnet", 60),
    "double_sigmoid": ("accumulating", 60),
    "missing_log": ("deep", 60),
    "softmax_over_batch": ("deep", 60),
    "loss_broadcast": ("stepwise", 60),
    "targets_unscaled": ("adversaries", 60),
    "labels_ignored": ("classifier", 60),
    "labels_shuffled": ("convnet", 240),
    "loss_divided_by_zero": ("language", 60),
    "graphs_kept": ("accumulating", 240),
    "left_in_eval_mode": ("classifier", 60),
    "validated_in_train_mode": ("classifier", 60),
    "nan_in_batch": ("adversaries", 60),
    "infinity_in_batch": ("accumulating", 60),
    "inputs_zeroed": ("stepwise", 240),
    "inputs_shuffled": ("convnet", 240),
    "inputs_change_scale": ("deep", 60),
    "outlier_batch": ("classifier", 60),
    "huge_start": ("language", 60),
    "zero_start": ("deep", 60),
    "nan_weight": ("convnet", 60),
    "dead_units": ("convnet", 60),
    "causal_mask_dropped": ("language", 60),
    "step_while_scaled": ("half", 60),
    "clip_before_unscale": ("half", 60),
    "scale_falls": ("half", 60),
    "reseeded_each_step": ("classifier", 60),
    "sorted_batches": ("classifier", 60),
}


def mixer():
    """A model of a table, with dropout."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)), torch.randn(16, 5)


def model_is_sound():
    """Ask a model itself."""
    model, inputs = mixer()
    with torch.no_grad():
        model.eval()(inputs)
    mltd.assert_model_sound(model, inputs)


def seeded_runs_agree():
    """Record the same seeded training twice."""

    def train():
        torch.manual_seed(3)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(8, 3)).pow(2).mean().backward()
            optimizer.step()

    runs = []
    for _ in range(2):
        with mltd.record() as run:
            train()
        runs.append(run.trace)
    mltd.assert_no_divergence(*runs)


# fault -> a test that is no question about one recorded run
TESTS = {
    "dropout_in_eval": model_is_sound,
    "answers_mixed": model_is_sound,
    "inputs_ignored": model_is_sound,
    "seeds_dropped": seeded_runs_agree,
}

KNOWN = {info(f).id for package in ("pytest_mltd.checks", "pytest_mltd.probes") for f in discover(package)}


@pytest.mark.parametrize("fault", catalogue(), ids=lambda fault: fault.name)
def test_a_planted_fault_is_the_root_cause_and_without_it_all_is_well(fault, ask, ask_without):
    """The program is green; with the fault planted it is red, and one of the fault's own findings is a root cause."""
    if fault.name in TESTS:
        TESTS[fault.name]()
        with planted(fault.name) as planting, pytest.raises(CheckFailed) as failed:
            TESTS[fault.name]()
        roots = {f.id for f in failed.value.findings}
    else:
        program, steps = RUNS[fault.name]
        assert ask_without(program, steps).ok, str(ask_without(program, steps))
        with planted(fault.name) as planting:
            diagnosis = ask(program, steps)
        roots = {f.id for f in diagnosis.roots}
    assert planting.took
    assert roots & set(fault.reds), roots


@pytest.mark.parametrize("fault", catalogue(), ids=lambda fault: fault.name)
def test_a_fault_promises_what_exists_and_says_what_it_does(fault):
    """Each id that should turn red is a check's, and the fault can be read aloud."""
    assert set(fault.reds) <= KNOWN
    assert fault.reds
    assert fault.says
    assert fault.needs
    assert not fault.says.endswith(".")
    assert not fault.says[0].isupper()


def test_the_catalogue_has_at_least_forty_faults_each_with_its_program():
    """Nothing is in the catalogue that no check sees, and no name is there twice."""
    names = [f.name for f in catalogue()]
    assert len(names) >= 40
    assert sorted(names) == sorted({**RUNS, **TESTS})
