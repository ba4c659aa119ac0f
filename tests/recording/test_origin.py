"""`mltd.locate_nonfinite`: the operation, its line, its module, its phase and its step, for each way to make a NaN."""

import contextlib
import inspect
import os
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.data import DataLoader, TensorDataset

from pytest_mltd.recording import checkpoints, hooks
from pytest_mltd.recording.operations import Operations
from pytest_mltd.recording.origin import locate_nonfinite


def fit(loss_of, *, steps=4, bad=2, parameters=None, model=None):
    """Train a small model; ``loss_of(model, x, step)`` is given zeros at the bad step and ordinary numbers before."""
    model = model or nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(steps):
        x = torch.zeros(5, 3) if step == bad else torch.rand(5, 3) + 0.5
        optimizer.zero_grad()
        loss_of(model, x, step).backward()
        optimizer.step()


def line_of(function, mark="HERE"):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, text in enumerate(lines) if f"# {mark}" in text)


def log_of_zero(model, x, step):
    return x.sum(1).log().mean() + model(x).sum()  # HERE


def own_division(model, x, step):
    weights = x[:, 0].abs()
    share = weights / weights.sum()  # HERE
    return (share * model(x)[:, 0]).sum()


def root_of_squares(model, x, step):
    return (model(x) * x.sum()).square().sum().sqrt()  # HERE


def where_trap(model, x, step):
    out = model(x) * x.sum()
    return torch.where(out > 0, out.log(), 0.0).sum()  # HERE


def root_of_product(model, x, step):
    out = (model(x) * x.sum()).abs() ** 0.5  # HERE
    return out.mean()


def constant_column(model, x, step):
    normal = (x - x.mean(0)) / x.std(0)  # HERE
    return model(normal).square().mean()


def overflow_in_half(model, x, step):
    scores = (model(x).half() + (20.0 if step == 2 else 0.0)).exp()  # HERE
    return (scores / (scores + 1)).float().mean()


def masked_softmax(model, x, step):
    scores = model(x).masked_fill(x[:, :2] < 0.1, float("-inf"))
    return torch.softmax(scores, -1).square().sum()  # HERE


def entropy(model, x, step):
    p = torch.softmax(model(x) * (1000.0 if step == 2 else 1.0) + torch.tensor([0.0, 500.0 * (step == 2)]), -1)
    return -(p * p.log()).sum()  # HERE


def infinite_loss(model, x, step):
    logits = model(x)
    if step == 2:
        logits = logits.masked_fill(torch.tensor([True, False]), -torch.inf)  # HERE
    return F.cross_entropy(logits, torch.zeros(5, dtype=torch.long))


CASES = [
    (log_of_zero, "log", "forward"),
    (own_division, "div", "forward"),
    (root_of_squares, "sqrt", "backward"),
    (where_trap, "log", "backward"),
    (root_of_product, "pow", "backward"),
    (constant_column, "div", "forward"),
    (overflow_in_half, "exp", "forward"),
    (masked_softmax, "softmax", "forward"),
    (entropy, "log", "forward"),
    (infinite_loss, "masked_fill", "forward"),
]


@pytest.mark.parametrize(("loss_of", "operation", "phase"), CASES, ids=[c[0].__name__ for c in CASES])
def test_the_operation_its_line_and_its_step_are_found(loss_of, operation, phase):
    """Each way to make a NaN is found at its operation, line, phase and step."""
    found = locate_nonfinite(fit, loss_of)
    details = found.details
    assert (details["operation"], details["phase"], found.step) == (operation, phase, 2), str(found)
    assert details["site"].endswith(f"test_origin.py:{line_of(loss_of)}")


@pytest.fixture(autouse=True)
def complete(complaints):
    """Hold each message to the contract, and look that nothing stays installed."""
    yield
    assert not hooks.installed()
    assert not _get_current_dispatch_mode_stack()


def found_at(mark_of, operation, phase, step, *args, complaints, **kwargs):
    """Locate, and compare; return the finding."""
    found = locate_nonfinite(*args, **kwargs)
    assert complaints(found) == []
    seen = (found.details.get("operation"), found.details.get("phase"), found.step)
    assert seen == (operation, phase, step), str(found)
    if mark_of is not None:
        assert found.details["site"].endswith(f"test_origin.py:{line_of(mark_of)}"), found.headline
    return found


class Norm(nn.Module):
    def forward(self, x):
        return x / x.norm(dim=-1, keepdim=True)  # HERE


def test_the_module_is_named(complaints):
    """A birth inside of a layer names the layer by its path."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Sequential(nn.Tanh(), Norm()), nn.Linear(4, 2))
    found = found_at(Norm, "div", "forward", 2, fit, lambda m, x, _: m(x).sum(), model=model, complaints=complaints)
    assert found.details["module"] == "1.1"
    assert " in '1.1' at " in found.headline


def test_the_whole_message(complaints):
    """The message has what was made, of what, where and when, and what helps."""
    found = found_at(where_trap, "log", "backward", 2, fit, where_trap, complaints=complaints)
    site = found.details["site"]
    assert (
        str(found)
        == f"""\
origin.nonfinite: the backward of log made NaN in 10 of 10 values out of finite numbers, 20 of them 0, at {site}, step 2

    tensor   shape  dtype    min  max  smallest |x|  not finite
    input 1  5×2    float32  0    0    0             0
    input 2  5×2    float32  -0   -0   0             0
  > output   5×2    float32                          10

    The loss is finite; it reaches gradients that a step was to use.
    next: keep its argument above 0, as in x.clamp_min(1e-8).log(), also behind a torch.where; log_softmax and logsigmoid \
need no such care"""
    )


def test_a_run_that_stays_finite_is_not_asked():
    """A healthy run has no birthplace, and infinities that are meant make none."""

    def loss(model, x, step):
        scores = model(x).masked_fill(torch.tensor([step == 0, False]), -torch.inf)
        return torch.softmax(scores, -1)[:, 1].log().sum() - torch.full((3,), -torch.inf).max().exp()

    found = locate_nonfinite(fit, loss)
    assert not found.asked
    assert found.headline == "the run stayed finite: 4 losses and the gradients of 4 steps"


def test_a_mask_beside_the_birth_is_passed_by(complaints):
    """Scores with an honest -inf in them are not taken for what made the loss NaN."""

    def loss(model, x, step):
        scores = model(x).masked_fill(torch.tensor([True, False]), -torch.inf)
        weight = torch.softmax(scores, -1)
        return (weight * x[:, :2].log()).sum()  # HERE

    found_at(loss, "log", "forward", 2, fit, loss, complaints=complaints)


def test_accumulated_gradients(complaints):
    """A NaN from the second of four small batches is found, though the gradients are looked at only before the step."""

    def train():
        model = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(model.parameters())
        for batch in range(12):
            x = torch.rand(4, 3) + 0.5 if batch != 5 else torch.zeros(4, 3)
            ((model(x) * x.sum()).square().sum() / 4).sqrt().backward()  # HERE
            if batch % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()

    found_at(train, "sqrt", "backward", 1, train, complaints=complaints)


def test_an_embedding_with_a_broken_row(complaints):
    """A row of a table that was NaN from the start is told as a parameter's."""

    def train():
        table = nn.Embedding(4, 3)
        with torch.no_grad():
            table.weight[2].fill_(float("nan"))
        optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
        for at in range(4):
            optimizer.zero_grad()
            table(torch.tensor([at])).sum().backward()
            optimizer.step()

    found = locate_nonfinite(train)
    assert complaints(found) == []
    assert found.details["operation"] == "fill", str(found)
    assert found.step == 2


def test_data_that_is_not_finite(complaints):
    """A NaN that came with the data is told as such: no operation made it."""
    data = torch.from_numpy(np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]], dtype=np.float32))

    def train():
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for row in (0, 0, 1):
            optimizer.zero_grad()
            model(data[row]).sum().backward()
            optimizer.step()

    found = found_at(None, "data", "forward", 2, train, complaints=complaints)
    assert found.headline.startswith(
        "the data held NaN in 1 of 3 values before any operation was run on it; first used in "
    )


def test_data_of_a_worker_process(complaints):
    """What a DataLoader's worker hands over came with the data, too."""
    data = torch.ones(8, 3)
    data[5, 1] = float("nan")

    def train():
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for (x,) in DataLoader(TensorDataset(data), batch_size=2, num_workers=1):
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()

    found_at(None, "data", "forward", 2, train, complaints=complaints)


def test_a_step_that_divides_by_zero(complaints):
    """An optimizer without eps makes NaN itself, of gradients that are 0."""

    def train():
        w = torch.ones(3, requires_grad=True)
        optimizer = torch.optim.Adam([w], eps=0.0)
        for _ in range(3):
            optimizer.zero_grad()
            (w * torch.tensor([1.0, 0.0, 1.0])).sum().backward()
            optimizer.step()  # HERE

    found = locate_nonfinite(train)
    assert complaints(found) == []
    assert (found.details["phase"], found.step) == ("step", 1)
    assert found.details["site"].endswith(f":{line_of(train)}")
    assert found.next_step.startswith("look at the optimizer's settings")


def test_a_backward_that_the_program_wrote(complaints):
    """A custom function's backward is told by its own line."""

    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.abs()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * x / x.abs()  # HERE

    def loss(model, x, step):
        return Odd.apply(model(x) * x.sum()).sum()

    found_at(Odd, "odd", "backward", 2, fit, loss, complaints=complaints)


def test_updates_by_hand(complaints):
    """A program without an optimizer is watched from the loss before the bad one."""

    def train():
        w = torch.ones(3, requires_grad=True)
        for step in range(5):
            x = torch.full((3,), float(step != 3))
            (w * x).square().sum().log().backward()  # HERE
            with torch.no_grad():
                w -= 0.1 * w.grad
                w.grad = None

    found_at(train, "log", "forward", 0, train, complaints=complaints)


def test_a_closure(complaints):
    """An LBFGS step that goes wrong in one of its evaluations."""

    def train():
        w = torch.tensor([0.5], requires_grad=True)
        optimizer = torch.optim.LBFGS([w], lr=5.0, max_iter=4)

        def closure():
            optimizer.zero_grad()
            loss = (w.log() * w).sum()  # HERE
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)

    found = locate_nonfinite(train)
    assert complaints(found) == []
    assert found.details["operation"] == "log", str(found)


def test_a_second_derivative(complaints):
    """A penalty on a gradient: the operation in the inner backward is found."""

    def loss(model, x, step):
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return ((slope * x).square().sum().sqrt() - 1).square()  # HERE

    found_at(loss, "sqrt", "backward", 2, fit, loss, complaints=complaints)


def test_a_value_from_long_before(complaints):
    """What was made at the beginning and used much later is found where it was made."""

    def train():
        ratio = torch.zeros(3) / torch.tensor([1.0, 0.0, 1.0])  # HERE
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(6):
            optimizer.zero_grad()
            model(ratio if step == 4 else torch.ones(3)).sum().backward()
            optimizer.step()

    found_at(train, "div", "forward", 4, train, complaints=complaints)


def test_a_program_that_looks_for_itself(complaints):
    """A program that raises at its NaN is located all the same, and its error is not lost where nothing was bad."""

    def loss(model, x, step):
        value = (model(x) * x).sum().log() if step < 2 else (model(x) * x.sum()).sum().log()  # HERE
        if not torch.isfinite(value):
            raise FloatingPointError("NaN loss")
        return value

    model = nn.Linear(3, 3)
    nn.init.constant_(model.weight, 1.0)
    found_at(loss, "log", "forward", 2, fit, loss, model=model, complaints=complaints)
    with pytest.raises(KeyError, match="healthy"):
        locate_nonfinite(_raises)


def test_a_program_that_ends_quietly_at_its_nan(complaints):
    """A loss that is looked at and never used is located where torch's own loss function gave it."""

    def train():
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(5):
            x = torch.full((4, 3), float(step != 3))
            loss = F.mse_loss(model(x / x.std(0, correction=0).add(x.mean())), torch.ones(4, 1))  # HERE
            if loss.isnan():
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    found = found_at(train, "div", "forward", 3, train, complaints=complaints)
    assert "It reaches the last loss." in found.shows


def _raises():
    raise KeyError("healthy")


def test_models_made_before_are_put_back():
    """A model, its optimizer and the random state are as before, and the second run begins where the first did."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    weights, state = [p.detach().clone() for p in model.parameters()], str(optimizer.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()

    def train():
        for step in range(4):
            optimizer.zero_grad()
            x = torch.full((3,), float(step != 2))
            (model(x) * x.sum()).square().sum().sqrt().backward()
            optimizer.step()

    found = locate_nonfinite(train)
    assert (found.details["operation"], found.step) == ("sqrt", 2)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, model.parameters(), strict=True))
    assert str(optimizer.state_dict()) == state
    assert torch.equal(random, torch.get_rng_state())


def test_a_run_that_is_not_the_same_twice():
    """Where the second run stays finite the answer says so and guesses nothing."""
    runs = iter([2, 9])  # not asked for a third

    def train():
        fit(log_of_zero, bad=next(runs))

    found = locate_nonfinite(train)
    assert not found.asked
    assert found.headline.startswith("the run was not finite at step 2 (loss), and when it ran again it was")


def test_a_run_that_goes_wrong_elsewhere_the_second_time():
    """Where the second run differs it is watched from there, and the birth is that of the second."""
    runs = iter([2, 3])

    def train():
        torch.manual_seed(count := next(runs))
        fit(log_of_zero, bad=count)

    found = locate_nonfinite(train)
    assert (found.details["operation"], found.step) == ("log", 3)


def test_a_script(tmp_path, complaints):
    """A script is located with its own line."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    found = found_at(None, "log", "forward", 3, script, complaints=complaints)
    assert found.details["site"].endswith("train.py:6")


SCRIPT = """\
import torch
w = torch.ones(3, requires_grad=True)
optimizer = torch.optim.SGD([w], lr=0.1)
for step in range(10):
    optimizer.zero_grad()
    loss = (w * (step < 3)).sum().log()
    loss.backward()
    optimizer.step()
"""


def test_watching_changes_no_bit():
    """The losses of the watched run are those of the plain one."""

    def losses(watch):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        seen = []
        with Operations() if watch else contextlib.nullcontext():
            for _ in range(5):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(torch.randn(16, 8)), torch.randint(4, (16,)))
                loss.backward()
                optimizer.step()
                seen.append(loss.item())
        return seen, [p.detach().clone() for p in model.parameters()]

    (plain, weights), (watched, others) = losses(False), losses(True)
    assert plain == watched
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.skipif(sys.platform != "linux", reason="a fork is safe on Linux only")
def test_the_last_moment_is_repeated_in_a_process_that_was_kept(monkeypatch, capfd):
    """Where a copy of the process was kept, the training is not called again: what it remembers is in the copy."""
    monkeypatch.setattr(checkpoints, "_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "_can_fork", lambda: True)
    called = []

    def train():
        called.append(1)
        torch.manual_seed(len(called))
        fit(log_of_zero, steps=8, bad=6)
        print("never")

    found = locate_nonfinite(train)
    assert called == [1]
    assert (found.id, found.details["operation"], found.step) == ("origin.nonfinite", "log", 6)
    assert "never" not in capfd.readouterr().out
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.skipif(sys.platform != "linux", reason="a fork is safe on Linux only")
def test_a_value_from_before_the_kept_process_is_looked_for_from_the_start(monkeypatch, complaints):
    """What was there when the copy was made has no operation there; the training runs again."""
    monkeypatch.setattr(checkpoints, "_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "_can_fork", lambda: True)

    def train():
        ratio = torch.zeros(3) / torch.tensor([1.0, 0.0, 1.0])  # HERE
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(6):
            optimizer.zero_grad()
            model(ratio if step == 4 else torch.ones(3)).sum().backward()
            optimizer.step()

    found_at(train, "div", "forward", 4, train, complaints=complaints)


def test_worker_processes_and_threads_forbid_a_fork():
    """Where a copy could not go on, none is made."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert not checkpoints._can_fork()
    finally:
        stop.set()
        thread.join()


def test_a_mean_over_no_labels(complaints):
    """A batch whose labels are all ignored is told as such."""

    def loss(model, x, step):
        labels = torch.full((5,), -100 if step == 2 else 1)
        return F.cross_entropy(model(x), labels)  # HERE

    found = found_at(loss, "nll_loss", "forward", 2, fit, loss, complaints=complaints)
    assert found.next_step.startswith("a mean over nothing is 0/0")


def test_numbers_that_grew_are_told_with_their_size(complaints):
    """An overflow says how large the numbers were."""

    def train():
        w = torch.full((4,), 3.0, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=60.0)
        for _ in range(100):
            optimizer.zero_grad()
            w.square().sum().backward()  # HERE
            optimizer.step()

    found = locate_nonfinite(train)
    assert complaints(found) == []
    assert found.headline.startswith("sum made inf out of finite numbers as large as 2.061e+38 at ")


def test_a_scaler_that_skips_for_ever(complaints):
    """Gradients that no loss scale makes finite are located, though no step is taken."""

    def train():
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu")
        for _ in range(40):
            optimizer.zero_grad()
            scaler.scale((model(torch.ones(3)) * 0).square().sum().sqrt()).backward()  # HERE
            scaler.step(optimizer)
            scaler.update()

    found_at(train, "sqrt", "backward", 0, train, complaints=complaints)


def test_what_a_closure_trains_is_put_back():
    """A bare tensor, that no module and no optimizer holds."""
    weight = torch.ones(3, requires_grad=True)

    def train():
        for _ in range(3):
            (torch.rand(5, 3) @ weight).mean().backward()
            with torch.no_grad():
                weight.sub_(weight.grad)

    assert not locate_nonfinite(train).asked
    assert weight.tolist() == [1, 1, 1]


def test_a_weight_whose_memory_was_freed_is_left_alone():
    """Sharded training frees weights of modules that live on; to copy one ended the process."""
    freed, others = nn.Linear(300, 300), nn.Linear(300, 300)
    optimizer = torch.optim.SGD(others.parameters(), lr=0.1, momentum=0.9)
    others(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    freed_too = others.bias.grad, optimizer.state[others.weight]["momentum_buffer"]
    for tensor in (freed.weight.detach(), *freed_too):
        tensor.untyped_storage().resize_(0)
    assert locate_nonfinite(fit, log_of_zero).details["operation"] == "log"
    assert freed.weight.untyped_storage().nbytes() == 0


def test_a_gradient_that_lay_there_is_put_back_as_it_was():
    """Both runs add to it; it is the caller's own tensor, before and after."""
    weight = torch.ones(3, requires_grad=True)
    weight.grad = own = torch.full((3,), 7.0)

    def train():
        (weight * 2).sum().backward()
        (weight - 2).sqrt().sum().backward()

    found = locate_nonfinite(train)
    assert found.details["operation"] == "sqrt", str(found)
    assert weight.grad is own
    assert own.tolist() == [7, 7, 7]
