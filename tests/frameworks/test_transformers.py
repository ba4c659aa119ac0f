"""Hugging Face's Trainer and accelerate without an edit: skipped where they are not installed (extra dev-frameworks)."""

import pytest
import torch
from torch import nn

import pytest_mltd as mltd

transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")


class Counting(torch.utils.data.Dataset):
    """Rows that count up from a random number: a small language."""

    def __init__(self, rows):
        begin = torch.randint(0, 40, (rows, 1), generator=torch.Generator().manual_seed(1))
        self.tokens = (torch.arange(17)[None] + begin) % 40

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Sixty steps of a GPT-2 of two layers made here; returns the weights."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(lr=5e-4, **arguments):
        transformers.set_seed(0)
        size = {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
        config = transformers.GPT2Config(vocab_size=40, bos_token_id=0, eos_token_id=0, **size)
        model = transformers.GPT2LMHeadModel(config)
        quiet = {"save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True}
        steps = {"max_steps": 60, "per_device_train_batch_size": 8, "eval_strategy": "steps", "eval_steps": 20}
        how = transformers.TrainingArguments(str(tmp_path), learning_rate=lr, **quiet, **steps, **arguments)
        transformers.Trainer(model, how, train_dataset=Counting(400), eval_dataset=Counting(50)).train()
        return [p.detach().clone() for p in model.parameters()]

    return run


def accelerated():
    """Forty steps under accelerate, clipped; returns the weights."""
    torch.manual_seed(0)
    tool = accelerate.Accelerator(cpu=True)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    x = torch.randn(256, 8)
    rows = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
    model, optimizer, loader = tool.prepare(model, optimizer, torch.utils.data.DataLoader(rows, 32, shuffle=True))
    for _ in range(5):
        for inputs, labels in loader:
            optimizer.zero_grad()
            tool.backward(nn.functional.cross_entropy(model(inputs), labels))
            tool.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("level", ["default", "everything"])
def test_the_trainer_ends_in_the_same_bits(train, level):
    """With the recorder and without it; its wrapper around AdamW is no second optimizer."""
    alone = train()
    with mltd.record(level=level) as run:
        watched = train()
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    assert run.trace.notes == ()
    assert [o.name for o in run.trace.optimizers] == ["AdamW"]
    assert run.trace.n_steps == 60


def test_accelerate_ends_in_the_same_bits():
    """Prepared model, optimizer and loader; the run is healthy."""
    alone = accelerated()
    with mltd.record() as run:
        watched = accelerated()
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    assert [o.name for o in run.trace.optimizers] == ["AdamW"]
    mltd.assert_healthy(run)


@pytest.mark.parametrize("how", [{}, {"gradient_accumulation_steps": 4}, {"bf16": True}])
def test_healthy_runs_of_the_trainer_are_left_alone(train, how):
    """Plain, accumulated, in bfloat16. Its evaluation sums the loss and divides later: that level is no gap."""
    with mltd.record() as run:
        train(**how)
    mltd.assert_healthy(run)


@pytest.mark.parametrize(("lr", "said"), [(3.0, "too high"), (1e-9, "too small to learn")])
def test_a_wrong_rate_is_named_first(train, lr, said):
    """At a parameter's own name."""
    with mltd.record() as run:
        train(lr)
    first = mltd.diagnose(run).failed[0]
    assert first.id == "updates.update_scale"
    assert said in first.headline
