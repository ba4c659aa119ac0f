"""Is a model wired as it should be? Faults of its wiring, their twins, and that the model stays as it was."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.probes.model import (
    assert_model_sound,
    assert_no_batch_mixing,
    assert_no_causal_leak,
    assert_no_eval_noise,
    assert_no_ignored_inputs,
    assert_no_initial_loss,
    assert_no_shape_broadcast,
    assert_no_unused_parameters,
    check_batch_mixing,
    check_causal_leak,
    check_eval_noise,
    check_ignored_inputs,
    check_initial_loss,
    check_model,
    check_shape_broadcast,
    check_unused_parameters,
)

TOKENS = torch.arange(36).reshape(4, 9) * 7 % 10


class Block(nn.Module):
    """Attention, with a mask or without."""

    def __init__(self, causal):
        super().__init__()
        self.qkv, self.o, self.causal = nn.Linear(16, 48), nn.Linear(16, 16), causal

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal))


class Gpt(nn.Module):
    """A small language model; ``spare`` is used nowhere, ``hint`` is given and not looked at."""

    def __init__(self, *causal):
        super().__init__()
        torch.manual_seed(0)
        self.emb = nn.Embedding(10, 16)
        self.blocks = nn.Sequential(*(Block(c) for c in causal))
        self.head = nn.Linear(16, 10)

    def forward(self, ids, hint=None):
        return self.head(self.blocks(self.emb(ids)))


class Net(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between=torch.tanh, out=1):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.between = nn.Linear(5, 8), nn.Linear(8, out), between

    def forward(self, x):
        return self.b(self.between(self.a(x)))


@pytest.fixture
def x():
    """Twelve samples of five features."""
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(1))


def test_a_missing_mask_is_found_in_its_block():
    """The block is named, and the module that first knows of the future."""
    finding = check_causal_leak(Gpt(True, False), TOKENS)
    assert finding.failed
    assert finding.culprit == "blocks.1"
    assert (
        str(finding)
        .splitlines()[0]
        .endswith(
            "when only later ones changed, first in the code of 'blocks.1' (Block), before 'blocks.1.o' (max_move=0.001)"
        )
    )
    assert "mask the future in 'blocks.1': is_causal=True" in str(finding)
    with pytest.raises(
        CheckFailed, match=r"^model\.causal_leak: outputs of Gpt see later inputs: that of moment \d moved"
    ):
        assert_no_causal_leak(Gpt(False), TOKENS)


def test_a_masked_model_passes_whatever_its_layout():
    """Time may be the first axis, the classes may stand before it, and an answer may be one moment shorter."""
    assert_no_causal_leak(Gpt(True, True), TOKENS)
    assert check_causal_leak(nn.GRU(3, 4), torch.randn(9, 2, 3), axis=0).ok
    assert check_causal_leak(nn.GRU(3, 4, bidirectional=True), torch.randn(9, 2, 3), axis=0).failed
    assert check_causal_leak(nn.Conv1d(4, 4, 3, padding=1), torch.randn(2, 4, 4)).failed
    short = nn.Sequential(Gpt(True), nn.Flatten(0, 1))
    assert check_causal_leak(short, TOKENS).ok


def test_what_has_no_moments_is_not_asked_for_them():
    """One answer for the whole sequence may depend on all of it."""
    finding = check_causal_leak(nn.Sequential(nn.Embedding(10, 3), nn.Flatten(), nn.Linear(27, 2)), TOKENS)
    assert not finding.asked
    assert finding.headline == "no output has the 9 moments of input 0"
    with pytest.raises(NotAsked):
        assert_no_causal_leak(Gpt(False), torch.zeros(4, 9, dtype=torch.long))
    with pytest.raises(ValueError, match=r"^axis: no input has two moments along axis 1; shapes are \(4, 1\)$"):
        check_causal_leak(Gpt(False), TOKENS[:, :1])
    with pytest.raises(ValueError, match=r"^argument: no tensor 'idx' among the inputs; there are ids$"):
        check_causal_leak(Gpt(False), {"ids": TOKENS}, argument="idx")
    with pytest.raises(ValueError, match=r"^axis: time is axis 0 or 1, not 2$"):
        check_causal_leak(Gpt(False), TOKENS, axis=2)


@pytest.mark.parametrize("layer", [nn.TransformerEncoderLayer, lambda *a, **k: nn.GRU(16, 8, **k)])
def test_a_batch_on_the_axis_of_time_mixes_samples(layer):
    """The module that wants the batch second is named; given it first, as it is, nothing mixes."""
    batch = torch.randn(5, 7, 16)
    finding = check_batch_mixing(nn.Sequential(nn.Linear(16, 16), layer(16, 2, 32)), batch)
    assert finding.failed
    assert finding.culprit.startswith("1")
    assert "look for the wrong axis in '1" in str(finding)
    assert_no_batch_mixing(nn.Sequential(nn.Linear(16, 16), layer(16, 2, 32, batch_first=True)), batch)
    assert check_batch_mixing(layer(16, 2, 32), batch.transpose(0, 1), axis=1).ok


def test_a_softmax_over_the_batch_mixes_samples(x):
    """It is the model's own code, between two layers; batch norm mixes in train mode only, and may."""
    with pytest.raises(
        CheckFailed, match=r"of Net for one sample moved by .* when only the other 11 in the batch changed"
    ):
        assert_no_batch_mixing(Net(lambda h: h.softmax(0)), x)
    assert_no_batch_mixing(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).train(), x)
    assert check_batch_mixing(Net(), x[:1]).headline == "a batch of at least 2 samples is needed"


def test_dropout_that_stays_on_is_found(x):
    """``F.dropout`` drops unless it is told; a module follows the mode."""
    finding = check_eval_noise(Net(lambda h: F.dropout(h, 0.5)), x)
    assert finding.failed
    assert "first in the code of the model itself, before 'b' (max_move=0.0001)" in finding.headline
    assert "look in forward for F.dropout(x) without training=self.training" in finding.next_step
    assert_no_eval_noise(nn.Sequential(Net(), nn.Dropout(0.5)), x)
    with pytest.raises(CheckFailed, match="Net in eval mode answers the same input differently"):
        assert_no_eval_noise(Net(lambda h: F.dropout(h, 0.5)), x)
    allowed = check_eval_noise(Net(lambda h: F.dropout(h, 0.5)), x, allow={"Net": "an interval is wanted"})
    assert allowed.ok
    assert allowed.allowed == (("Net", "an interval is wanted"),)


def test_parameters_that_no_output_depends_on_are_named(x):
    """A head of another task; what is used in train mode only is used."""
    model = Net()
    model.pooler = nn.Linear(3, 3)
    finding = check_unused_parameters(model, x)
    assert str(finding) == (
        "model.unused_parameters: no output depends on pooler.weight and 1 more, of 6 parameters\n\n"
        "    parameter      shape   values\n"
        "  > pooler.weight  (3, 3)  9\n"
        "    pooler.bias    (3,)    3\n\n"
        "    No gradient leads there from any output, neither in train nor in eval mode.\n"
        "    next: use pooler in forward, or remove it"
    )
    assert check_unused_parameters(model, x, allow={"pooler.*": "for another task"}).ok
    with pytest.raises(CheckFailed):
        assert_no_unused_parameters(model, x)
    frozen = Net()
    frozen.a.requires_grad_(False)
    assert_no_unused_parameters(frozen, x)

    class Auxiliary(Net):
        def forward(self, x):
            return super().forward(x) * (self.extra(x) if self.training else 1)

    trained = Auxiliary()
    trained.extra = nn.Linear(5, 1)
    assert_no_unused_parameters(trained, x)


def test_inputs_that_change_nothing_are_named(x):
    """An argument that is passed and not used, a column that is multiplied away."""
    finding = check_ignored_inputs(Gpt(True), (TOKENS, torch.rand(4, 9)))
    assert finding.headline == "Gpt ignores input 1: no output changes with it"
    column = nn.Sequential(Mask(), nn.Linear(5, 2))
    assert check_ignored_inputs(column, x).culprit == "input 0[3]"
    with pytest.raises(CheckFailed, match=r"Sequential ignores input 0\[3\]: no output changes with it"):
        assert_no_ignored_inputs(column, x, allow={"input 0[4]": "not this one"})
    assert_no_ignored_inputs(Net(), x)
    assert_no_ignored_inputs(nn.Sequential(nn.Embedding(10, 4)), TOKENS)


class Mask(nn.Module):
    """Loses the fourth feature."""

    def forward(self, x):
        return x * torch.tensor([1.0, 1, 1, 0, 1])


def test_a_fresh_model_that_is_too_sure_is_found(x):
    """Inputs of the thousands make logits of the thousands."""
    y = torch.arange(12) % 3
    sure = check_initial_loss(nn.Sequential(nn.Linear(5, 3)), x * 1000, loss=F.cross_entropy, targets=y)
    assert sure.failed
    assert "times that of an answer of zeros (max_ratio=3)" in sure.headline
    with pytest.raises(CheckFailed):
        assert_no_initial_loss(nn.Sequential(nn.Linear(5, 3)), x * 1000, loss=F.cross_entropy, targets=y)
    assert_no_initial_loss(Net(out=3), x, loss=F.cross_entropy, targets=y)
    assert check_initial_loss(Net(), x).headline == "it needs loss= and targets="
    assert (
        "nothing to compare with" in check_initial_loss(Net(), x, loss=F.mse_loss, targets=torch.zeros(12, 1)).headline
    )
    with pytest.raises(ValueError, match=r"^loss: it refused the model's answer of shape \(12, 1\): "):
        check_initial_loss(Net(), x, loss=F.cross_entropy, targets=torch.zeros(7).long())


def test_answers_and_targets_that_stretch_each_other_are_found(x):
    """(12, 1) against (12,) is 144 comparisons; a class for each row is none of that."""
    finding = check_shape_broadcast(Net(), x, loss=F.mse_loss, targets=x[:, 0])
    assert finding.headline == (
        "the loss compares answers of shape (12, 1) with targets of shape (12,): (12, 12), all with all"
    )
    with pytest.raises(CheckFailed):
        assert_no_shape_broadcast(Net(), x, loss=lambda a, b: ((a - b) ** 2).mean(), targets=x[:, 0])
    assert_no_shape_broadcast(Net(), x, loss=F.mse_loss, targets=x[:, :1])
    assert_no_shape_broadcast(Net(out=12), x, loss=F.cross_entropy, targets=torch.arange(12))


def test_the_umbrella_asks_what_applies(x):
    """Causality where the targets are the next inputs; without a loss the rest."""
    assert_model_sound(Net(), x, loss=F.mse_loss, targets=x[:, :1])
    diagnosis = check_model(Net(), x)
    assert diagnosis.ok
    assert {f.id for f in diagnosis.not_asked} == {
        "model.causal_leak",
        "model.initial_loss",
        "model.shape_broadcast",
    }
    assert "looked at: Net on input 0 (12, 5)" in str(diagnosis)

    def loss(logits, targets):
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    with pytest.raises(CheckFailed) as caught:
        assert_model_sound(Gpt(False), TOKENS[:, :-1], loss=loss, targets=TOKENS[:, 1:])
    assert [f.id for f in caught.value.findings] == ["model.causal_leak"]
    assert_model_sound(Gpt(True), TOKENS[:, :-1], loss=loss, targets=TOKENS[:, 1:])
    assert check_model(Gpt(False), TOKENS, targets=TOKENS % 2).ok


@pytest.mark.parametrize("broken", [False, True])
def test_the_model_stays_as_it_was(x, broken):
    """Weights, gradients, buffers, mode, hooks and random states, also when its forward raises."""

    class Counting(Net):
        def forward(self, x):
            self.calls += 1
            x.mul_(1.0)
            random.random(), np.random.rand(), torch.rand(1)
            if broken and self.calls:
                raise RuntimeError("no")
            return self.norm(super().forward(x))

    model = Counting().train()
    model.register_buffer("calls", torch.zeros(()))
    model.norm = nn.BatchNorm1d(1)
    model.state = (x @ model.a.weight.T).sum()  # has a graph: torch refuses to copy it
    model.a.weight.grad = torch.ones_like(model.a.weight)
    heard = []
    model.a.register_forward_hook(lambda *a: heard.append(a))
    before, given = copy.deepcopy(model.state_dict()), x.clone()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    diagnosis = check_model(model, x, loss=F.mse_loss, targets=x[:, :1])
    assert bool(diagnosis.findings) is not broken
    if broken:
        assert diagnosis.not_asked[1].headline == "the model's copy raised RuntimeError: no"
    assert all(torch.equal(a, before[n]) for n, a in model.state_dict().items())
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert model.training
    assert model.norm.training
    assert heard == []
    assert torch.equal(model.a.weight.grad, torch.ones_like(model.a.weight))
    assert torch.equal(x, given)


def test_global_hooks_of_the_process_hear_nothing_and_stay(x):
    """Somebody else's hook on all modules is there afterwards."""
    heard = []
    handle = nn.modules.module.register_module_forward_hook(lambda *a: heard.append(a))
    try:
        check_batch_mixing(Net(), x)
        assert heard == []
        Net()(x)
        assert heard
    finally:
        handle.remove()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_model_is_judged_without_the_place(x):
    """It takes no hooks; that its answers move is known all the same."""

    class Mixed(nn.Module):
        def forward(self, x):
            return x.softmax(0)

    finding = check_batch_mixing(torch.jit.trace(Mixed(), x), x)
    assert finding.failed
    assert "when only the other 11 in the batch changed (max_move=0.0001)" in finding.headline


def test_misuse_is_refused_by_the_arguments_name(x):
    """A function is no module, a text no batch; numbers that are not finite tell nothing."""
    with pytest.raises(TypeError, match=r"^model: a torch\.nn\.Module is needed, not function$"):
        check_eval_noise(lambda x: x, x)
    with pytest.raises(
        TypeError, match=r"^inputs: a tensor, a tuple of arguments or a mapping of them is needed, not 'x'$"
    ):
        check_model(Net(), "x")
    assert check_batch_mixing(Net(lambda h: h / 0), x).headline == "the model's answers are not finite"
    locked = Net()
    locked.lock = __import__("threading").Lock()
    assert check_eval_noise(locked, x).headline.startswith("the model cannot be copied: TypeError: cannot pickle")
