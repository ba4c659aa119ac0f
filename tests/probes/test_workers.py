"""A DataLoader with workers against itself without: streams read twice, shared handles, copied generators, and honest ones."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.probes.workers import assert_workers_agree, check_workers_agree


class Stream(IterableDataset):
    """Numbers in their order; each worker takes its share, unless ``shared``."""

    def __init__(self, shared=True, last=24):
        self.shared, self.last = shared, last

    def __iter__(self):
        info = get_worker_info()
        if info is None or not self.shared:
            return iter(range(24))
        if info.id == 1 and self.last < 24:
            return iter(range(1, self.last, 2))
        return itertools.islice(range(24), info.id, None, info.num_workers)


class Augmented(Dataset):
    """Points with noise from a source: a function that draws six numbers."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return {"x": torch.full((6,), float(i)) + self.draw(), "y": i % 3}


class Counting(Dataset):
    """What an item is depends on how many were asked for before, once every other item."""

    def __init__(self):
        self.count = 0

    def __len__(self):
        return 24

    def __getitem__(self, i):
        self.count += 1
        return i, self.count // 100 if self.count < 13 else self.count // 13


def by_numpy():
    generator = np.random.default_rng(0)
    return Augmented(lambda: torch.from_numpy(generator.normal(size=6).astype("float32")))


def by_torch():
    return Augmented(lambda: torch.randn(6))


HONEST = {
    "in order": lambda: DataLoader(TensorDataset(torch.arange(50), torch.rand(50)), 8),
    "shuffled": lambda: DataLoader(TensorDataset(torch.arange(50)), 8, shuffle=True),
    "with workers of its own": lambda: DataLoader(list("abcdefgh"), 3, num_workers=2, persistent_workers=True),
    "augmented by torch": lambda: DataLoader(by_torch(), 8, shuffle=True, drop_last=True),
    "augmented by global numpy": lambda: DataLoader(Augmented(lambda: torch.tensor(np.random.rand())), 8),
    "sample by sample": lambda: DataLoader(TensorDataset(torch.arange(9)), batch_size=None),
    "collated by hand": lambda: DataLoader(
        range(20), 4, collate_fn=lambda rows: {"n": torch.tensor(rows), "names": list("ab")}
    ),
}


OFTEN = ("shuffled", "augmented by torch")  # the others are asked in the long run of the suite


@pytest.mark.parametrize(
    "make", [pytest.param(m, id=n, marks=[] if n in OFTEN else pytest.mark.slow) for n, m in HONEST.items()]
)
def test_an_honest_loader_agrees(make):
    """Whatever the order, the collation or the augmentation: the same samples, and each worker's own random numbers."""
    finding = check_workers_agree(make)
    assert finding.ok, str(finding)
    assert finding.asked


def test_a_pass_says_what_is_made_anew():
    """Augmented fields are named, since they were not compared."""
    finding = check_workers_agree(DataLoader(by_torch(), 8))
    assert finding.looked_at == "5 batches, 40 samples; ['x'] made anew each time, and by each worker otherwise"


def test_a_stream_that_each_worker_reads_whole_is_found():
    """Every sample comes as often as there are workers."""
    with pytest.raises(CheckFailed) as error:
        assert_workers_agree(DataLoader(Stream(shared=False), 4))
    assert str(error.value).splitlines() == [
        "training.workers_agree: samples come again with 2 workers: 24 of 48 that come once without",
        "",
        "    workers  batches  samples  different ones",
        "    none     6        24       24",
        "  > 2        12       48       24",
        "",
        "    Each worker reads the whole stream by itself.",
        "    next: let each worker take its share in __iter__: itertools.islice(data, info.id, None, info.num_workers)",
    ]


def test_a_stream_that_is_divided_comes_in_another_order():
    """The samples are the same, batch by batch from other workers: order alone, which may be allowed."""
    finding = check_workers_agree(DataLoader(Stream(), 4))
    assert (
        finding.headline == "order of samples differs from batch 0 on: with 2 workers they come otherwise than without"
    )
    finding = check_workers_agree(DataLoader(Stream(), 4), allow={"order": "streams interleave"})
    assert finding.ok
    assert finding.headline == "the batches with 2 workers are those without, but for order"


def test_a_stream_that_loses_samples_is_found():
    """A worker that ends early loses the rest of its share."""
    finding = check_workers_agree(DataLoader(Stream(last=15), 4))
    assert finding.headline == "samples differ in number: 19 with 2 workers, 24 without"


def test_a_generator_copied_into_each_worker_is_found():
    """All workers draw alike from a generator that was made with the dataset; seeded by worker it is well."""
    finding = check_workers_agree(DataLoader(by_numpy(), 8, shuffle=True), workers=3)
    assert finding.headline == (
        "random numbers are the same in all 3 workers: ['x'] of one sample is made alike by each"
    )
    assert "worker_init_fn" in finding.next_step


def test_state_that_processes_do_not_share_is_found():
    """A counter in the dataset counts for each worker by itself."""
    finding = check_workers_agree(DataLoader(Counting(), 4))
    assert finding.culprit == "[1]", str(finding)
    assert "with 2 workers it holds other values than without" in finding.headline


def test_what_raises_only_in_a_worker_is_named():
    """A dataset that cannot be used there is a failure with its error."""

    class Local(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            if get_worker_info() is not None:
                raise OSError("not open here")
            return i

    finding = check_workers_agree(DataLoader(Local()))
    assert finding.headline == "with 2 workers the loader raised OSError, and without workers it does not"
    assert "not open here" in finding.shows


def test_the_loader_stays_as_it_was():
    """Neither its workers nor its position nor any random state changes here."""
    loader = DataLoader(TensorDataset(torch.arange(8)), 2, shuffle=True)
    state = torch.get_rng_state()
    check_workers_agree(loader)
    assert (loader.num_workers, loader.prefetch_factor, loader._iterator) == (0, None, None)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_and_misuse():
    """An empty loader is not judged; what is no loader is refused."""
    with pytest.raises(NotAsked, match="the loader gave no batch"):
        assert_workers_agree(DataLoader([]))
    with pytest.raises(TypeError, match="^loader: "):
        check_workers_agree([1, 2])
    with pytest.raises(ValueError, match="^loader: it raised\n(.|\n)*it made a list"):
        check_workers_agree(lambda: [1, 2])
    with pytest.raises(ValueError, match="^workers: "):
        check_workers_agree(DataLoader([1]), workers=0)
