"""A training that is stopped and resumed against one that never was: each state that a checkpoint can lack is named."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.probes.resume import assert_resumes, check_resumes

# what the loading leaves out: (culprit, step, words of the message)
LACKS = {
    "optimizer": ("optimizer", 5, ["first in '0.weight'", "its moments were not loaded", "optimizer.state_dict()"]),
    "scheduler": ("scheduler", 7, ["from step 7 on", "0.01 where the uninterrupted run has 0.005"]),
    "scaler": ("scaler", 5, ["The loss scale is 65536 where the uninterrupted run has", "scaler.state_dict()"]),
    "torch": ("random state", 5, ["(and data order)", "The generators of torch are in another state"]),
    "numpy": ("random state", 5, ["The generators of numpy are in another state"]),
    "sampler": (
        "data order",
        5,
        ["The first batch after the checkpoint is the one of step 0", "the sampler's generator"],
    ),
    "buffers": ("buffers", 5, ["first in '1.running_mean'"]),
    "head": ("weights", 5, ["first in '3.weight'"]),
    "position": ("number of steps", 20, ["15 were left at the checkpoint, and 16 were taken"]),
}


def train(folder, *, lacks="", every=5, steps=20):
    """A plain loop that saves all its state each few steps, and loads what ``lacks`` does not name."""
    torch.manual_seed(1)
    x = torch.randn(64, 6)
    y = (x.sum(1) > 0).long()
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
    scaler = torch.amp.GradScaler("cpu", growth_interval=3)
    order = torch.Generator().manual_seed(0)
    begin, path = 0, folder / "last.pt"
    if path.exists():
        kept = torch.load(path, weights_only=False)
        begin = kept["step"] - (lacks == "position")
        weights = {k: v for k, v in kept["model"].items() if not (lacks == "head" and k.startswith("3"))}
        if lacks == "buffers":
            weights = {k: v for k, v in weights.items() if "running" not in k}
        model.load_state_dict(weights, strict=False)
        for name, thing in (("optimizer", optimizer), ("scheduler", scheduler), ("scaler", scaler)):
            if lacks != name:
                thing.load_state_dict(kept[name])
        if lacks != "torch":
            torch.set_rng_state(kept["torch"])
        if lacks != "numpy":
            np.random.set_state(kept["numpy"])
        if lacks != "sampler":
            order.set_state(kept["sampler"])
    for step in range(begin, steps):
        rows = torch.randint(64, (16,), generator=order) if lacks in ("sampler", "") else torch.randint(64, (16,))
        noise = torch.from_numpy(np.random.normal(size=(16, 6)).astype("float32")) if lacks != "sampler" else 0
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x[rows] + 0.1 * noise), y[rows])).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        if (step + 1) % every == 0:
            kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            kept |= {"scheduler": scheduler.state_dict(), "scaler": scaler.state_dict(), "sampler": order.get_state()}
            torch.save(kept | {"torch": torch.get_rng_state(), "numpy": np.random.get_state()}, path)


OFTEN = ("scheduler", "scaler", "torch", "sampler")  # the others are asked in the long run of the suite


@pytest.mark.parametrize("lacks", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in LACKS])
def test_the_state_that_is_missing_is_named(lacks):
    """Whatever the loading leaves out is the culprit, with the step from which on the runs differ."""
    culprit, step, words = LACKS[lacks]
    finding = check_resumes(lambda folder: train(folder, lacks=lacks), stop_after=8)
    assert (finding.culprit, finding.step) == (culprit, step), str(finding)
    for word in words:
        assert word in str(finding)


def test_a_complete_checkpoint_passes():
    """With every state restored the rest of the run is the same, bit for bit, and the pass says of how much."""
    finding = check_resumes(train, stop_after=8)
    assert finding.ok, str(finding)
    assert finding.asked
    assert finding.headline == "a run stopped after step 7 and resumed at step 5 is the uninterrupted one, bit for bit"
    assert "of 15 steps after the checkpoint" in finding.looked_at


def test_the_whole_text():
    """Which state, where first, what else, what it means and what to do."""
    with pytest.raises(CheckFailed) as error:
        assert_resumes(lambda folder: train(folder, lacks="optimizer"), stop_after=8)
    headline, *rest = str(error.value).splitlines()
    assert headline == (
        "training.resumes: optimizer not restored: resumed at step 5, it differs from the uninterrupted run, "
        "first in '0.weight'"
    )
    assert rest == [
        "",
        "    state at the checkpoint  bytes    looked at",
        "    weights                  same     6 parameters",
        "    buffers                  same     3 buffers",
        "  > optimizer                differs  6 parameters",
        "    scheduler                same     0.01",
        "    scaler                   same     131072",
        "    random state             same     3 generators",
        "    data order               same     16 samples",
        "",
        "    The optimizer began with no state at all: its moments were not loaded.",
        "    next: save optimizer.state_dict() and load it after the optimizer is made",
    ]


def test_a_state_may_be_left_out_on_purpose():
    """An allowed state, and what follows from it, does not fail; the rest is still compared at the checkpoint."""
    reasons = {"random state": "drawn anew", "data order": "drawn anew"}
    finding = check_resumes(lambda folder: train(folder, lacks="torch"), stop_after=8, allow=reasons)
    assert finding.ok, str(finding)
    assert len(finding.allowed) == 2
    finding = check_resumes(lambda folder: train(folder, lacks="optimizer"), stop_after=8, allow=reasons)
    assert finding.failed


def test_a_random_state_that_nothing_is_made_of_is_no_fault():
    """A loop without dropout and in a fixed order needs no random state to be restored."""

    def plain(folder):
        torch.manual_seed(torch.randint(5, (1,)).item() if (folder / "w.pt").exists() else 3)
        model = nn.Linear(3, 1)
        done = 0
        if (folder / "w.pt").exists():
            done, weights = torch.load(folder / "w.pt")
            model.load_state_dict(weights)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for step in range(done, 12):
            torch.rand(1)
            optimizer.zero_grad()
            model(torch.full((2, 3), float(step % 4))).mean().backward()
            optimizer.step()
            torch.save((step + 1, model.state_dict()), folder / "w.pt")

    finding = check_resumes(plain, stop_after=4)
    assert finding.ok, str(finding)


@pytest.mark.parametrize(
    ("every", "files"), [(50, "held no file"), (4, "held 'last.pt'")], ids=["nothing saved", "not loaded"]
)
def test_a_training_that_begins_anew_is_told_so(every, files):
    """Whether a checkpoint was there decides what to do."""

    def anew(folder):
        if (folder / "last.pt").exists():
            (folder / "last.pt").unlink()
        train(folder, every=every)

    finding = check_resumes(anew, stop_after=8)
    assert finding.headline == "nothing was resumed: stopped after step 7, it began again with the weights of step 0"
    assert files in finding.shows


def test_a_training_that_takes_no_further_step_is_told_so():
    """One that takes the last checkpoint for the end does nothing at the second call."""

    def done(folder):
        if not (folder / "last.pt").exists():
            train(folder)

    finding = check_resumes(done, stop_after=8)
    assert finding.failed
    assert "took no further step; uninterrupted it takes 20" in finding.headline


def test_a_training_shorter_than_the_stop_is_not_asked():
    """There is nothing after the stop to compare."""
    with pytest.raises(NotAsked, match=r"20 of more than 30 steps \(stop_after=30\)"):
        assert_resumes(train, stop_after=30)
    assert check_resumes(lambda folder: None).headline == "no optimizer step was seen"


def test_misuse_names_the_argument(tmp_path):
    """No function, a count out of range, a training that raises."""
    with pytest.raises(TypeError, match="^train: "):
        check_resumes("train.py")
    with pytest.raises(ValueError, match="^stop_after: "):
        check_resumes(train, stop_after=0)
    with pytest.raises(ValueError, match=r"^steps: more than stop_after \(10\)"):
        check_resumes(train, steps=10)

    def broken(folder):
        if (folder / "last.pt").exists():
            raise KeyError("epoch")
        train(folder)

    with pytest.raises(ValueError, match="^train: in the folder of a run that was stopped: it raised\n"):
        check_resumes(broken, stop_after=8)
    assert not list(tmp_path.iterdir())
