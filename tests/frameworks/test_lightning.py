"""Lightning without an edit: skipped where it is not installed (extra dev-frameworks)."""

import logging

import pytest
import torch
from torch import nn

import pytest_mltd as mltd

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # Lightning warns of few workers, of missing loggers, of its own torch calls


class Net(lightning.LightningModule):
    def __init__(self, lr, trained):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))
        self.lr, self.trained = lr, trained

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, index):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(list(self.net.parameters())[-self.trained :], lr=self.lr, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)}


def train(lr=1e-2, trained=4, **trainer):
    """Five epochs of 16 batches; return the weights."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    x = torch.randn(640, 20)
    rows = torch.utils.data.TensorDataset(x, (x @ torch.randn(20, 3)).argmax(1))
    fit, held_out = torch.utils.data.random_split(rows, [512, 128])
    model = Net(lr, trained)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    loop = lightning.Trainer(max_epochs=5, accelerator="cpu", **quiet, **trainer)
    loop.fit(model, torch.utils.data.DataLoader(fit, 32, shuffle=True), torch.utils.data.DataLoader(held_out, 64))
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("level", ["losses", "default", "everything"])
def test_the_run_ends_in_the_same_bits(level):
    """With the recorder and without it."""
    alone = train()
    with mltd.record(level=level) as run:
        watched = train()
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    assert run.trace.notes == ()
    assert run.trace.n_steps == 80


def test_its_own_optimizer_is_no_second_one():
    """The wrapper that Lightning puts around the user's shares its parameters; validation is seen too."""
    with mltd.record() as run:
        train()
    assert [o.name for o in run.trace.optimizers] == ["SGD"]
    assert [p.name for p in run.trace.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert run.trace.val["value"].size
    assert set(run.trace.steps["training"].tolist()) == {1}


@pytest.mark.parametrize(
    "how", [{}, {"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 4}, {"precision": "bf16-mixed"}]
)
def test_healthy_runs_are_left_alone(how):
    """Plain, clipped, accumulated, in bfloat16."""
    with mltd.record() as run:
        train(**how)
    mltd.assert_healthy(run)


@pytest.mark.parametrize(
    ("fault", "cause", "place"),
    [
        ({"lr": 50.0}, "updates.update_scale", "lr 50"),
        ({"lr": 1e-7}, "updates.update_scale", "lr 1e-07"),
        ({"trained": 2}, "updates.frozen_parameters", "0.weight"),
    ],
)
def test_a_planted_fault_is_named_first(fault, cause, place):
    """With its place, at the line of the LightningModule."""
    with mltd.record() as run:
        train(**fault)
    first = mltd.diagnose(run).failed[0]
    assert first.id == cause
    assert place in first.headline
