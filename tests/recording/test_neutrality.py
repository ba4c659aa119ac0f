"""A recorded program ends in the same weights, losses and random states, bit for bit, as without the recorder."""

import contextlib
import importlib.util
import io
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.checkpoint import checkpoint

from pytest_mltd.core.trials import Condition, under
from pytest_mltd.recording import digests
from pytest_mltd.recording.recorder import record

STEPS = 14  # past the early steps, and past the next sampled one


def batch(rows=12, width=6):
    return torch.randn(rows, width), torch.randint(0, 3, (rows,))


def classifier(*extra):
    return nn.Sequential(nn.Linear(6, 16), *extra, nn.ReLU(), nn.Linear(16, 3))


def steps(model, optimizer, loss=F.cross_entropy, between=lambda: None, clear=True):
    losses = []
    for _ in range(STEPS):
        x, y = batch()
        if clear:
            optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        between()
        optimizer.step()
        losses.append(value.item())
    return losses


def dropout_and_batch_norm():
    model = classifier(nn.BatchNorm1d(16), nn.Dropout(0.3))
    return steps(model, torch.optim.Adam(model.parameters(), lr=0.01))


def never_cleared():
    model = classifier()
    return steps(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), clear=False)


def explodes_to_nan():
    model = classifier()
    return steps(model, torch.optim.SGD(model.parameters(), lr=1e12))


def clipped_with_scheduler():
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, STEPS)

    def between():
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        schedule.step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the order is wrong on purpose
        return steps(model, optimizer, between=between)


def accumulated():
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for i in range(3 * STEPS):
        x, y = batch()
        loss = F.cross_entropy(model(x), y) / 3
        loss.backward()
        losses.append(loss.item())
        if i % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
    return losses


def second_order():
    model = nn.Linear(6, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    losses = []
    for _ in range(4):
        x, y = batch()

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x)[:, 0], y.float())
            loss.backward()
            losses.append(loss.item())
            return loss

        optimizer.step(closure)
    return losses


def two_players():
    G, D = nn.Linear(3, 6), nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    og, od = torch.optim.Adam(G.parameters(), lr=0.01), torch.optim.Adam(D.parameters(), lr=0.01)
    losses = []
    for _ in range(STEPS):
        fake = G(torch.randn(8, 3))
        ld = F.softplus(-D(torch.randn(8, 6))).mean() + F.softplus(D(fake.detach())).mean()
        od.zero_grad()
        ld.backward()
        od.step()
        lg = F.softplus(-D(fake)).mean()
        og.zero_grad()
        lg.backward()
        og.step()
        losses += [ld.item(), lg.item()]
    return losses


def gradient_penalty():
    D = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(D.parameters(), lr=0.01)
    losses = []
    for _ in range(STEPS):
        x = torch.randn(8, 6, requires_grad=True)
        (g,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        loss = D(x).mean() + (g.norm(dim=1) - 1).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def scaled_with_overflow():
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    losses = []
    for i in range(STEPS):
        x, y = batch()
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(x), y) * (float("inf") if i == 5 else 1)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses


def checkpointed(reentrant):
    def program():
        body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU())
        head = nn.Linear(16, 3)
        optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.1)
        losses = []
        for _ in range(STEPS):
            x, y = batch()
            optimizer.zero_grad()
            loss = F.cross_entropy(head(checkpoint(body, x.requires_grad_(), use_reentrant=reentrant)), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, body[1].num_batches_tracked.item(), body[1].running_mean.tolist()

    return program


def sparse_rows():
    table = nn.Embedding(20, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.05)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = table(torch.randint(0, 20, (8,))).pow(2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def by_hand():
    w = torch.randn(6, 3, requires_grad=True)
    losses = []
    for _ in range(STEPS):
        x, y = batch()
        loss = F.cross_entropy(x @ w, y)
        loss.backward()
        w.data -= 0.1 * w.grad
        w.grad = None
        losses.append(loss.item())
    return losses, w.tolist()


def in_place_layers():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(16, 3))
    return steps(model, torch.optim.RMSprop(model.parameters(), lr=0.01))


def recurrent_with_validation():
    rnn, head = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)
    optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()], lr=0.01)
    losses = []
    for _ in range(STEPS):
        x, y = torch.randn(4, 5, 6), torch.randint(0, 3, (4,))
        rnn.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(head(rnn(x)[0][:, -1]), y)
        loss.backward()
        optimizer.step()
        rnn.eval()
        with torch.no_grad():
            losses += [loss.item(), F.cross_entropy(head(rnn(x)[0][:, -1]), y).item()]
    return losses


def loader_and_numpy():
    model = classifier()
    data = torch.utils.data.TensorDataset(torch.randn(60, 6), torch.randint(0, 3, (60,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        for x, y in torch.utils.data.DataLoader(data, batch_size=12, shuffle=True):
            x = x + torch.from_numpy(np.random.randn(*x.shape)).float() * random.random()
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def averaged_weights():
    model = classifier(nn.BatchNorm1d(16))
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = steps(model, optimizer, between=lambda: average.update_parameters(model))
    torch.optim.swa_utils.update_bn([batch()[0] for _ in range(3)], average)
    return losses, [p.tolist() for p in average.parameters()]


def spectral_and_weight_norm():
    model = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(6, 16)),
        nn.ReLU(),
        nn.utils.parametrizations.weight_norm(nn.Linear(16, 3)),
    )
    return steps(model, torch.optim.Adam(model.parameters(), lr=0.01))


PROGRAMS = {
    "dropout and batch norm": dropout_and_batch_norm,
    "never cleared": never_cleared,
    "explodes to nan": explodes_to_nan,
    "clipped with scheduler": clipped_with_scheduler,
    "accumulated": accumulated,
    "second order": second_order,
    "two players": two_players,
    "gradient penalty": gradient_penalty,
    "scaled with overflow": scaled_with_overflow,
    "checkpointed, reentrant": checkpointed(True),
    "checkpointed": checkpointed(False),
    "sparse rows": sparse_rows,
    "by hand": by_hand,
    "in place layers": in_place_layers,
    "recurrent with validation": recurrent_with_validation,
    "loader and numpy": loader_and_numpy,
    "averaged weights": averaged_weights,
    "spectral and weight norm": spectral_and_weight_norm,
}


@pytest.fixture(autouse=True)
def one_thread():
    """Bits depend on the number of threads; hold it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def outcome(program):
    """Return everything that a program leaves: its result, each optimizer's weights and state, the random states."""
    optimizers = []

    def keep(optimizer, args, kwargs):
        if not any(optimizer is o for o in optimizers):
            optimizers.append(optimizer)

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    handle = register_optimizer_step_post_hook(keep)
    try:
        result = program()
    finally:
        handle.remove()
    parameters = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    return {
        "result": repr(result),
        "weights": [digests.of_tensor(p) for p in parameters],
        "gradients": [None if p.grad is None else digests.of_tree([p.grad]) for p in parameters],
        "optimizer state": [digests.of_tree([o.state.get(p) for p in parameters]) for o in optimizers],
        "python": digests.of_python_state(),
        "numpy": digests.of_numpy_state(),
        "torch": digests.of_torch_state(),
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_small_programs_of_many_shapes_end_the_same(name):
    """At all three levels and with exact digests: result, weights, gradients, optimizer and random states, bit for bit."""
    plain = outcome(PROGRAMS[name])
    assert outcome(PROGRAMS[name]) == plain, "the program itself is reproducible"
    for level in ("losses", "default", "everything"):
        with record(level=level) as run:
            inside = outcome(PROGRAMS[name])
        assert inside == plain, level
        assert [n for n in run.trace.notes if "moved without an optimizer" not in n] == [], level
    with under(Condition(exact=True)), record():
        assert outcome(PROGRAMS[name]) == plain


CORPUS = sorted((Path(__file__).parents[1] / "faulty").glob("*/*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", CORPUS, ids=lambda p: p.stem)
def test_the_whole_corpus_ends_the_same(path):
    """Every program of tests/faulty, as it is with its fault, at the default level and with everything on."""
    spec = importlib.util.spec_from_file_location(f"corpus_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    faulty = {"fixed": False} if path.parent.name == "cases" else {}

    def program():
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module.train(0, **faulty)

    plain = outcome(program)
    for level in ("default", "everything"):
        with record(level=level) as run:
            assert outcome(program) == plain
        assert [n for n in run.trace.notes if "moved without an optimizer" not in n] == []


@pytest.mark.parametrize("level", ["losses", "default", "everything"])
def test_every_tensor_of_the_program_can_still_be_resized(level):
    """numpy would mark a storage for good; none of the program's own is looked at through it."""
    model, outputs = classifier(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model[0].register_forward_hook(lambda module, args, output: outputs.append(output))
    x, y = batch()
    with record(level=level) as run:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert run.trace.notes == ()
    weight = model[0].weight
    for tensor in (x, y, outputs[0].detach(), weight.detach(), weight.grad, optimizer.state[weight]["momentum_buffer"]):
        tensor.untyped_storage().resize_(0)
