"""Another precision against the run as it is: rounding is granted, what goes beyond it is found."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.probes import rounding
from pytest_mltd.probes.rounding import assert_precision_agrees, check_precision_agrees


def dense():
    return nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Tanh(), nn.Dropout(0.2), nn.Linear(32, 2))


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x.reshape(-1, 1, 4, 4))))
        return self.head(self.b(x).mean((2, 3)))


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.body(x[:, None, :] * torch.ones(1, 4, 1)).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x.reshape(-1, 4, 4))[0][:, -1])


def train(build=dense, spoil=lambda x: x, optimizer=torch.optim.Adam, lr=1e-2, dtype=None):
    """A plain loop; ``spoil`` is what is done to the outputs."""
    torch.manual_seed(1)
    x = torch.randn(256, 16)
    y = (x.sum(1) > 0).long()
    model = build().to(dtype or torch.float32)
    steps = optimizer(model.parameters(), lr)
    for _ in range(12):
        rows = torch.randperm(256)[:32]
        steps.zero_grad()
        F.cross_entropy(spoil(model(x[rows].to(dtype or torch.float32))), y[rows]).backward()
        steps.step()


def scaled_by_hand(h):
    """A small number that half precision takes for zero."""
    return h / (h.std(0) * 1e-5 + h.new_tensor(1e-8)) * 1e-5


def summed_one_by_one(h):
    """A long sum in the precision of its terms: from 256 on bfloat16 does not count any further."""
    total = h.new_tensor(256.0)
    for _ in range(64):
        total = total + h.new_tensor(1.0)
    return h * total / 256


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "build", [dense, *(pytest.param(b, marks=pytest.mark.slow) for b in (Convolutional, Attentive, Recurrent))]
)
def test_honest_networks_agree(build, precision):
    """The drift is that of rounding, with normalisation, attention and recurrence too."""
    finding = check_precision_agrees(lambda: train(build), precision=precision, steps=8)
    assert finding.ok, str(finding)
    assert finding.asked


def test_the_whole_text_for_a_number_that_half_precision_cannot_hold():
    """The loss as it is and in the other precision, the step, what it shows, what to look for."""
    with pytest.raises(CheckFailed) as error:
        assert_precision_agrees(lambda: train(spoil=scaled_by_hand), precision="float16")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("training.precision_agrees: in float16 the loss tests/probes/test_rounding.py:")
    assert lines[0].endswith(" (max_drift=20)")
    assert "is not finite at step " in lines[0]
    assert lines[2].split() == ["step", "loss", "as", "it", "is", "float16", "times", "rounding"]
    assert lines[-2:] == [
        "    As it is the run stays finite: something exceeds what that precision can hold, or becomes zero in it.",
        "    next: look for large sums, masks of -1e9, an epsilon below 1e-7, a softmax or norm by hand; keep those in float32",
    ]
    assert check_precision_agrees(lambda: train(spoil=scaled_by_hand), precision="float64").ok


def test_a_sum_that_swallows_its_terms_is_found():
    """Finite, and further off than rounding of what the modules compute can explain."""
    finding = check_precision_agrees(lambda: train(spoil=summed_one_by_one))
    assert finding.failed, str(finding)
    assert "times as far off as rounding explains" in finding.headline


def test_the_programs_own_version_is_run_as_it_is():
    """A training that sets its precision itself is handed over whole; one that also trains otherwise is found."""
    finding = check_precision_agrees(train, lambda: train(dtype=torch.bfloat16), steps=6)
    assert finding.ok, str(finding)
    finding = check_precision_agrees(train, lambda: train(dtype=torch.bfloat16, lr=0.1), steps=6)
    assert finding.failed
    assert finding.step > 0


def test_what_raises_in_the_other_precision_is_named():
    """A mask that half precision cannot hold raises; that is a failure, and says what was raised."""

    def masked(h):
        return h.masked_fill(torch.zeros_like(h, dtype=torch.bool), -1e9)

    finding = check_precision_agrees(lambda: train(spoil=masked), precision="float16", steps=3)
    assert finding.headline == "in float16 the training raised RuntimeError (max_drift=20)"
    assert "without overflow" in finding.shows

    def needs_single(h):
        return torch.stack([torch.zeros_like(h), h]).sum(0) @ torch.eye(2)

    finding = check_precision_agrees(lambda: train(spoil=needs_single), precision="float64", steps=3)
    assert not finding.asked
    assert finding.headline.startswith("with its modules in float64 it raised RuntimeError")


def test_a_run_without_losses_or_without_finite_ones_is_not_judged():
    """There is nothing to compare."""
    with pytest.raises(NotAsked, match="no backward was called"):
        assert_precision_agrees(lambda: None)
    finding = check_precision_agrees(lambda: train(spoil=lambda h: h / 0.0))
    assert not finding.asked
    assert "not finite" in finding.headline


def test_misuse_names_the_argument():
    """No function, an unknown precision, a limit that allows nothing."""
    with pytest.raises(TypeError, match="^train: "):
        check_precision_agrees(nn.Linear)
    with pytest.raises(TypeError, match="^other: "):
        check_precision_agrees(train, "bfloat16")
    with pytest.raises(ValueError, match="^precision: 'half' is none of bfloat16"):
        check_precision_agrees(train, precision="half")
    with pytest.raises(ValueError, match="^max_drift: "):
        check_precision_agrees(train, max_drift=0)


def test_a_model_on_the_cpu_is_rounded_there_also_beside_a_gpu(monkeypatch):
    """Autocast of another device rounds nothing, and the question could not fail."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with rounding._autocast_models(torch.bfloat16):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
