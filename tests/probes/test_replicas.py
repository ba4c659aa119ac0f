"""Distributed trainings in real processes over gloo: each way for ranks to part, and loops that keep them together."""

import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.probes.replicas import assert_replicas_agree, check_replicas_agree


class Points(Dataset):
    """128 points with a label; noise is added to each where asked."""

    def __init__(self, noise):
        self.x = torch.randn(128, 6, generator=torch.Generator().manual_seed(5))
        self.y = (self.x.sum(1) > 0).long()
        self.noise = noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + (self.noise * torch.randn(6) if self.noise else 0), self.y[i]


def train(fault="", *, alike=True, noise=0.0, norm=nn.Identity, by_hand=False):
    """A plain distributed loop, as it is started by torchrun."""
    dist.init_process_group("nccl")
    rank, world = dist.get_rank(), int(os.environ["WORLD_SIZE"])
    if alike:
        torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), norm(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
    called = model if by_hand or fault == "not wrapped" else DistributedDataParallel(model)
    if fault != "same noise":
        torch.manual_seed(100 + rank)
    optimizer = torch.optim.SGD(model.parameters(), 0.1 * (1 + rank * (fault == "own rate")))
    points = Points(noise)
    sampler = None if fault == "no sampler" else DistributedSampler(points)
    loader = DataLoader(points, 16, sampler=sampler, shuffle=sampler is None)
    for epoch in range(3):
        if sampler:
            sampler.set_epoch(epoch)
        for i, (x, y) in enumerate(loader):
            if fault == "ends early" and (rank, epoch, i) == (1, 1, 2):
                return
            if fault == "raises" and rank == 1:
                raise KeyError("shard 1")
            optimizer.zero_grad()
            F.cross_entropy((model if fault == "wrapper passed over" else called)(x), y).backward()
            for parameter in model.parameters() if by_hand else ():
                dist.all_reduce(parameter.grad)
                parameter.grad /= world
            optimizer.step()
    dist.destroy_process_group()


FAULTS = {  # culprit, step, words of the message
    "not wrapped": ("gradients", 0, ["With equal weights 4 of 4 gradients differ", "DistributedDataParallel"]),
    "wrapper passed over": ("gradients", 0, ["call the wrapper"]),
    "own rate": ("weights", 1, ["Weights and gradients were equal at step 0", "0.2"]),
    "no sampler": ("samples", None, ["100% of those of one", "DistributedSampler"]),
    "ends early": ("rank 0", 6, ["rank 0 waited in vain for another one after 6 steps", "came to its end"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_way_to_part_is_named(fault):
    """What differs first is the culprit, with its step and what to do."""
    culprit, step, words = FAULTS[fault]
    finding = check_replicas_agree(lambda: train(fault))
    assert (finding.failed, finding.culprit, finding.step) == (True, culprit, step), str(finding)
    for word in words:
        assert word in str(finding)


def test_weights_that_begin_apart_are_found():
    """Without a wrapper that sends them, and without a common seed, each rank draws its own weights."""
    finding = check_replicas_agree(lambda: train(alike=False, by_hand=True))
    assert finding.headline == "weights differ between ranks before the first step, first in '0.weight'"


@pytest.mark.parametrize("by_hand", [False, True], ids=["wrapped", "by hand"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_correct_loop_agrees(by_hand, noise):
    """Wrapped or with gradients averaged by hand, with dropout and noise drawn by each rank for itself."""
    finding = check_replicas_agree(lambda: train(by_hand=by_hand, noise=noise))
    assert finding.ok, str(finding)
    assert finding.headline == "2 ranks keep equal weights and share 0% of their samples"
    assert finding.looked_at == ("weights, gradients, buffers, samples and random states of 12 steps on each rank")


def test_the_wrapper_keeps_running_statistics_equal_and_nothing_else_does():
    """DistributedDataParallel sends rank 0's before each forward; averaging gradients by hand leaves them apart."""
    assert check_replicas_agree(lambda: train(norm=nn.BatchNorm1d)).ok
    finding = check_replicas_agree(lambda: train(norm=nn.BatchNorm1d, by_hand=True))
    assert finding.headline == "buffers differ between ranks at step 1, first in '1.running_mean'"


def test_noise_that_is_the_same_on_all_ranks_is_found():
    """One seed for all ranks makes the same augmentation everywhere; without any, the same seed is no fault."""
    finding = check_replicas_agree(lambda: train("same noise", noise=0.1))
    assert finding.headline.startswith(
        "random state of torch is the same on all ranks while batches are made, in 12 of 12"
    )
    assert check_replicas_agree(lambda: train("same noise")).ok
    finding = check_replicas_agree(lambda: train("same noise", noise=0.1), allow={"random state": "noise is the same"})
    assert finding.ok
    assert finding.allowed == (("random state", "noise is the same"),)


def test_the_whole_text():
    """What parts first, on which rank, what it shows, what to do."""
    with pytest.raises(CheckFailed) as error:
        assert_replicas_agree(lambda: train("own rate"), steps=3)
    lines = str(error.value).splitlines()
    assert lines[0] == "training.replicas_agree: weights part between ranks at step 1, first in '0.weight'"
    assert lines[2].split() == ["rank", "gradient", "of", "'0.weight'", "learning", "rate", "steps"]
    assert lines[4].startswith("  > rank 1")
    assert lines[-1] == (
        "    next: compare the learning rates and optimizer states of the ranks; nothing may change weights on one rank only"
    )


def test_three_ranks_are_handed_their_number():
    """A function that needs two arguments is given rank and number, as torch's own launcher would."""

    def work(local, size, epochs=1):
        rank = dist.get_rank()
        assert (local, size, epochs) == (rank, 3, 1)
        model = DistributedDataParallel(nn.Linear(2, 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for step in range(3):
            optimizer.zero_grad()
            model(torch.full((2, 2), float(rank + step))).mean().backward()
            optimizer.step()

    finding = check_replicas_agree(work, ranks=3)
    assert finding.ok, str(finding)
    assert finding.headline == "3 ranks keep equal weights"
    assert "fewer than 16 samples to tell apart" in finding.looked_at
    assert "no DataLoader, so augmentation was not asked" in finding.looked_at


def test_what_cannot_be_judged_is_not_asked():
    """No step was taken, or no process group can be had."""
    with pytest.raises(NotAsked, match="no optimizer step was seen"):
        assert_replicas_agree(lambda: None)


def test_this_process_stays_as_it_was(tmp_path):
    """No group, no environment, no file and no random state of the ranks is left here."""
    environment, state = dict(os.environ), torch.get_rng_state()
    opened = dist.init_process_group
    check_replicas_agree(train, steps=2)
    assert dict(os.environ) == environment
    assert torch.equal(torch.get_rng_state(), state)
    assert not dist.is_initialized()
    assert dist.init_process_group is opened
    assert not list(tmp_path.iterdir())


def test_misuse_names_the_argument():
    """A rank that raises is told with its own traceback; so is an argument out of range."""
    with pytest.raises(ValueError, match=r"^train: rank 1 raised\n(.|\n)*KeyError: 'shard 1'"):
        check_replicas_agree(lambda: train("raises"))
    with pytest.raises(ValueError, match="^ranks: at least 2"):
        check_replicas_agree(train, ranks=1)
    with pytest.raises(TypeError, match="^train: "):
        check_replicas_agree("train.py")
