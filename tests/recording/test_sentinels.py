"""`record(stop_on="nonfinite")`: the night is not burnt, and a program that looks for itself is left alone."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_mltd.recording import hooks
from pytest_mltd.recording.recorder import record


def train(*, bad, steps=6, guard=False, seen=None):
    """Train a small model whose loss is NaN at a step; with ``guard`` such a step is left out."""
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(torch.ones(3)).square().sum() * (float("nan") if step == bad else 1.0)
        loss.backward()
        if not (guard and loss.isnan()):
            optimizer.step()
        if seen is not None:
            seen.append(step)


def test_the_block_ends_after_the_step_that_used_it():
    """The step is in the trace, the trace says why it ends, and the program goes on after the block."""
    seen = []
    with record(stop_on="nonfinite") as run:
        train(bad=2, seen=seen)
    assert seen == [0, 1]
    assert run.trace.n_steps == 3
    assert run.trace.ended == "cut"
    assert "stopped at step 2: the loss is not finite" in run.trace.notes
    assert not hooks.installed()


def test_gradients_that_are_not_finite_stop_it_too():
    """The loss is finite, its slope is not."""
    with record(stop_on="nonfinite") as run:
        w = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            w.square().sum().sqrt().backward()
            optimizer.step()
    assert run.trace.n_steps == 1
    assert "stopped at step 0: the gradients are not finite" in run.trace.notes


def test_a_program_that_leaves_the_step_out_goes_on():
    """A guard of the program's own is respected."""
    with record(stop_on="nonfinite") as run:
        train(bad=2, guard=True)
    assert run.trace.ended == "completed"
    assert run.trace.n_steps == 5


def test_a_scaler_that_leaves_the_step_out_goes_on():
    """The first infinite gradients of a loss scale are the scaler's own business."""
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    with record(stop_on="nonfinite") as run:
        for _ in range(30):
            optimizer.zero_grad()
            scaler.scale(model(torch.full((3,), 100.0)).square().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert run.trace.ended == "completed"
    assert run.trace.of("skipped_step").any()


def test_updates_by_hand_are_stopped():
    """A program without an optimizer is stopped at its third loss that is not finite."""
    seen = []
    with record(stop_on="nonfinite") as run:
        w = torch.ones(3, requires_grad=True)
        for step in range(9):
            (w.sum() * float("nan" if step > 1 else 1)).backward()
            seen.append(step)
            with torch.no_grad():
                w -= 0.1 * w.grad
            w.grad = None
    assert seen == [0, 1, 2, 3]
    assert run.trace.ended == "cut"


def test_an_inner_recording_lets_the_outer_ones_stop_through():
    """Only the block that asked for it ends quietly."""
    after = []
    with record(stop_on="nonfinite") as outer:
        with record() as inner:
            train(bad=1)
        after.append("inner")
    assert not after
    assert outer.trace.ended == inner.trace.ended == "cut"


def test_without_being_asked_nothing_stops():
    """The default records the NaN to the end, and a word that is unknown is refused."""
    with record() as run:
        train(bad=1)
    assert run.trace.n_steps == 6
    with pytest.raises(ValueError, match="stop_on: 'nonfinite' or None is needed, not 'nan'"), record(stop_on="nan"):
        pass


def test_what_has_no_numbers_is_no_error_of_the_program():
    """A loss on the meta device cannot be read; the program never hears of that."""
    seen = []
    with record(stop_on="nonfinite"):
        model = nn.Linear(3, 1, device="meta")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.ones(2, 3, device="meta")).sum().backward()
        optimizer.step()
        seen.append(1)
    assert seen == [1]


def test_the_programs_own_modes_do_not_see_it_look():
    """A mode that counts operations counts the same."""

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += 1
            return func(*args, **(kwargs or {}))

    def counted():
        with Counter() as counter:
            train(bad=None)
        return counter.count

    expected = counted()
    with record(stop_on="nonfinite"):
        assert counted() == expected
