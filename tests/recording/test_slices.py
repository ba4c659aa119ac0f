"""`tiny` and `slicing`: a small part of the data, the same every time."""

from __future__ import annotations

import collections
import contextlib
import itertools
import pickle
import random
import subprocess
import sys
import textwrap
from typing import NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import data as td

from pytest_mltd.recording.choosing import Choice
from pytest_mltd.recording.seeds import restore, snapshot
from pytest_mltd.recording.slices import slicing, tiny

# A machine with few processors is told so by torch, which is no matter here.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

PICKED = [258, 420, 756, 841]  # the promise: seed 0 picks these four of a thousand, everywhere and for ever


class Numbers(td.Dataset):
    classes = ("even", "odd")

    def __init__(self, n: int = 1000) -> None:
        self.n = n
        self.targets = [i % 2 for i in range(n)]
        self.transform = None

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, at: int) -> int:
        if not 0 <= at < self.n:
            raise IndexError(at)
        return at if self.transform is None else self.transform(at)


class Counting(td.IterableDataset):
    """A stream that shares its numbers between the workers, as the documentation of torch shows."""

    def __init__(self, n: int | None = 1000) -> None:
        self.n = n

    def __iter__(self):
        numbers = itertools.count() if self.n is None else iter(range(self.n))
        info = td.get_worker_info()
        return numbers if info is None else itertools.islice(numbers, info.id, None, info.num_workers)


class Pair(NamedTuple):
    x: np.ndarray
    y: np.ndarray


class EveryOther(td.Sampler):
    """A sampler of a user: no class that torch knows."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.epoch = 0

    def __iter__(self):
        order = list(range(0, self.n, 2))
        random.Random(self.epoch).shuffle(order)
        self.epoch += 1
        return iter(order)

    def __len__(self) -> int:
        return self.n // 2


class ByLength(td.Sampler):
    """A batch sampler of a user, batches of unequal size."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self):
        at, size = 0, 1
        while at < self.n:
            yield list(range(at, min(at + size, self.n)))
            at, size = at + size, size + 1

    def __len__(self) -> int:
        return 44


def seen(loader) -> list[int]:
    return [int(i) for batch in loader for i in torch.as_tensor(batch).flatten()]


class TestTiny:
    def test_the_choice_is_the_same_on_every_platform(self):
        """The documented samples, written down here: changing the algorithm breaks every saved slice."""
        assert tiny(list(range(1000)), 4) == PICKED
        assert tiny(list(range(1000)), 4, seed=1) == [133, 255, 763, 845]

    @pytest.mark.parametrize(
        ("data", "as_list"),
        [
            (list(range(1000)), list),
            (tuple(range(1000)), list),
            (np.arange(1000), np.ndarray.tolist),
            (np.stack([np.arange(1000)] * 3, 1), lambda a: a[:, 0].tolist()),
            (torch.arange(1000), torch.Tensor.tolist),
            (pd.DataFrame({"a": np.arange(1000)}, index=np.arange(1000)[::-1]), lambda f: f["a"].tolist()),
            (pd.Series(np.arange(1000), index=["same"] * 1000), lambda s: s.tolist()),
            (pl.DataFrame({"a": np.arange(1000)}), lambda f: f["a"].to_list()),
            (pl.Series(np.arange(1000)), lambda s: s.to_list()),
            (pa.table({"a": np.arange(1000)}), lambda t: t["a"].to_pylist()),
            (Numbers(), list),
            (td.TensorDataset(torch.arange(1000)), lambda d: [int(x) for (x,) in d]),
            (range(1000), list),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_every_kind_gives_the_same_samples_in_its_own_kind(self, data, as_list):
        """Same seed, same rows, whatever holds them; the kind is kept."""
        part = tiny(data, 4)
        assert as_list(part) == PICKED
        assert len(part) == 4
        if not isinstance(data, (td.Dataset, range)):
            assert type(part) is type(data)

    def test_parts_that_belong_together_are_cut_alike(self):
        """A tuple, a named tuple, a short list and a dictionary of columns keep their rows aligned."""
        x, y = np.arange(2000).reshape(1000, 2), torch.arange(1000)
        for data in ((x, y), [x, y], Pair(x, y), {"x": x, "y": y}):
            part = tiny(data, 4)
            assert type(part) is type(data)
            first, second = part.values() if isinstance(part, dict) else part
            assert second.tolist() == PICKED
            assert first[:, 0].tolist() == [2 * p for p in PICKED]

    def test_a_list_of_arrays_is_a_list_of_samples(self):
        """A thousand images of three channels are a thousand samples and not three rows."""
        images = [np.full((3, 4, 4), i) for i in range(1000)]
        assert [int(i[0, 0, 0]) for i in tiny(images, 4)] == PICKED

    def test_random_state_is_untouched(self):
        """Choosing draws from a generator of its own."""
        before = snapshot()
        tiny(Numbers(), 10)
        list(tiny(td.DataLoader(Numbers(), batch_size=4), 10).batch_sampler)
        after = snapshot()
        assert after.python == before.python
        assert torch.equal(after.torch, before.torch)

    def test_more_than_there_are_are_all_kept_with_a_word(self):
        """No silent surprise: asked for 10 of 3, and told so."""
        with pytest.warns(UserWarning, match="^n: 10 samples were asked for; all 3 are kept$"):
            assert tiny([1, 2, 3], 10) == [1, 2, 3]
        assert tiny([1, 2, 3], 3) == [1, 2, 3]

    @pytest.mark.parametrize(
        ("data", "n", "error", "message"),
        [
            ([1], 0, ValueError, "n: at least 1 is needed, not 0"),
            ([1], 1.5, TypeError, "n: an integer is needed, not 1.5"),
            ([], 1, ValueError, "data: there are no samples in it"),
            (
                (i for i in "ab"),
                1,
                TypeError,
                "data: a generator has no samples to choose from; make a list of it first",
            ),
            ("text", 1, TypeError, "data: a str has no samples to choose from"),
            (3, 1, TypeError, "data: an int has no samples to choose from"),
            (np.array(3), 1, TypeError, "data: a ndarray has no samples to choose from"),
            (
                pl.LazyFrame({"a": [1]}),
                1,
                TypeError,
                "data: a LazyFrame has no samples to choose from; collect() it first",
            ),
            ((np.zeros(3), np.zeros(4)), 1, ValueError, "data: its parts differ in length: 0 has 3, 1 has 4"),
            ({"x": [1, 2], "y": [1]}, 1, ValueError, "data: its parts differ in length: 'x' has 2, 'y' has 1"),
            ({}, 1, ValueError, "data: an empty dictionary has no samples"),
        ],
    )
    def test_what_cannot_be_cut_is_refused(self, data, n, error, message):
        """Each refusal names the argument and, where there is one, the way out."""
        with pytest.raises(error) as caught:
            tiny(data, n)
        assert str(caught.value) == message


class TestStratified:
    LABELS = ["rare"] * 10 + ["often"] * 990

    @pytest.mark.parametrize("labels", [LABELS, np.array(LABELS), pd.Series(LABELS), pl.Series(LABELS)])
    def test_shares_are_kept(self, labels):
        """One in a hundred stays one in a hundred, however the labels come."""
        part = tiny(np.arange(1000), 100, stratify=labels)
        assert (part < 10).sum() == 1

    def test_a_rare_label_is_kept_once(self):
        """No label is lost to rounding."""
        assert min(tiny(list(range(1000)), 4, stratify=self.LABELS)) < 10

    @pytest.mark.parametrize(
        "frame", [pd.DataFrame({"y": LABELS}), pl.DataFrame({"y": LABELS}), pa.table({"y": LABELS}), {"y": LABELS}]
    )
    def test_labels_by_the_name_of_a_column(self, frame):
        """A column's name is enough, and a misspelt one gets the near one named."""
        assert list(tiny(frame, 10, stratify="y")["y"]).count("rare") in (0, 1)
        with pytest.raises(ValueError, match="^stratify: no column 'yy'; the nearest is 'y'$"):
            tiny(frame, 10, stratify="yy")

    def test_labels_by_attribute_and_by_function(self):
        """Datasets name their labels; a function of a sample gives them too."""
        for stratify in ("targets", lambda sample: sample % 2):
            assert sorted(i % 2 for i in tiny(Numbers(), 10, stratify=stratify)) == [0] * 5 + [1] * 5
        pairs = (np.arange(1000), torch.arange(1000) % 2)
        assert int(tiny(pairs, 10, stratify=lambda pair: pair[1])[1].sum()) == 5

    def test_a_loader_is_stratified_too(self):
        """Through the loader's dataset, with the same choice."""
        loader = tiny(td.DataLoader(Numbers(), batch_size=5), 10, stratify="targets")
        assert sum(i % 2 for i in seen(loader)) == 5
        loader = tiny(td.DataLoader(Numbers(), batch_sampler=ByLength(1000)), 10, stratify="targets")
        assert sum(i % 2 for i in seen(loader)) == 5

    def test_refusals(self):
        """Too few samples for the labels, another number of labels, a stream."""
        with pytest.raises(ValueError, match="^n: 1 samples cannot hold all 2 labels of stratify$"):
            tiny(list(range(1000)), 1, stratify=self.LABELS)
        with pytest.raises(ValueError, match="^stratify: 2 labels for 1000 samples$"):
            tiny(list(range(1000)), 1, stratify=[0, 1])
        with pytest.raises(ValueError, match="^stratify: an IterableDataset gives its samples in one order"):
            tiny(Counting(), 1, stratify=[0, 1])

    def test_missing_labels_are_one_label(self):
        """NaN, None and NA are one stratum; NaN alone would be a new one each time."""
        labels = [float("nan"), None, pd.NA] * 10 + [1] * 30
        assert len([i for i in tiny(list(range(60)), 2, stratify=labels) if i < 30]) == 1

    @given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8), share=st.floats(0, 1), seed=st.integers(0, 99))
    @settings(max_examples=100, deadline=None)
    def test_law_of_shares(self, sizes, share, seed):
        """Exactly n are chosen, ascending, each label at least once, none off its share by more than the rounding needs."""
        labels = [k for k, size in enumerate(sizes) for _ in range(size)]
        n = max(len(sizes), int(share * len(labels)))
        chosen = Choice(n, seed, labels).of(range(len(labels)))
        counts = collections.Counter(labels[i] for i in chosen)
        assert len(chosen) == n
        assert chosen == sorted(set(chosen))
        assert set(counts) == set(range(len(sizes)))
        if all(size * n >= len(labels) for size in sizes):
            assert all(abs(counts[k] - size * n / len(labels)) < 1 for k, size in enumerate(sizes))


class TestTinyLoader:
    def test_settings_are_kept_and_the_original_is_not_changed(self):
        """A new loader: same class, batch size, workers and shuffling; the old one still has everything."""
        loader = td.DataLoader(Numbers(), batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
        part = tiny(loader, 20)
        assert (len(part), part.batch_size, part.num_workers) == (3, 8, 2)
        first, second = seen(part), seen(part)
        assert sorted(first) == sorted(second) == tiny(list(range(1000)), 20)
        assert first != second
        assert (len(loader), len(loader.dataset)) == (125, 1000)

    def test_drop_last_without_a_batch_is_refused(self):
        """A loader that would give nothing is no slice."""
        with pytest.raises(
            ValueError, match=r"^n: 20 samples leave no batch in a DataLoader with batch_size=32 and drop_"
        ):
            tiny(td.DataLoader(Numbers(), batch_size=32, drop_last=True), 20)

    @pytest.mark.parametrize("workers", [0, 2, 3])
    def test_a_stream_gives_n_samples_over_all_workers(self, workers):
        """An endless IterableDataset ends after n, with workers too."""
        part = tiny(td.DataLoader(Counting(None), batch_size=4, num_workers=workers), 20)
        assert len(seen(part)) == 20
        assert list(tiny(Counting(None), 3)) == [0, 1, 2]


class TestSlicing:
    def test_loaders_in_the_block_are_cut_and_whole_afterwards(self):
        """Made before or inside, every loader has n samples in the block and all of them after it."""
        before = td.DataLoader(Numbers(), batch_size=8)
        with slicing(20) as cut:
            inside = td.DataLoader(Numbers(500), batch_size=8, shuffle=True)
            assert (len(before.dataset), len(before), len(inside.dataset), len(inside)) == (20, 3, 20, 3)
            assert seen(before) == tiny(list(range(1000)), 20)
            assert len(seen(inside)) == 20
        assert (len(before.dataset), len(before), len(inside.dataset)) == (1000, 125, 500)
        assert (cut.used, cut.cut, str(cut)) == (2, 2, "2 of 2 DataLoaders cut to 20 samples each")
        assert len(seen(td.DataLoader(Numbers()))) == 1000

    def test_patches_are_gone_after_an_exception(self):
        """DataLoader is torch's own class again."""
        before = dict(vars(td.DataLoader))
        loader = td.DataLoader(Numbers())
        with pytest.raises(KeyboardInterrupt), slicing(5):
            raise KeyboardInterrupt
        assert {k: v for k, v in vars(td.DataLoader).items() if callable(v)} == {
            k: v for k, v in before.items() if callable(v)
        }
        assert len(loader) == 1000

    def test_shuffling_repeats_under_the_seed(self):
        """The same samples in every epoch, another order, and that order again under the same seed."""
        state = snapshot()
        runs = []
        for _ in range(2):
            restore(state)
            with slicing(10):
                loader = td.DataLoader(Numbers(), shuffle=True)
                runs.append([seen(loader), seen(loader)])
        assert runs[0] == runs[1]
        assert sorted(runs[0][0]) == sorted(runs[0][1])
        assert runs[0][0] != runs[0][1]

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize(
        "make",
        [
            lambda d: {"shuffle": True},
            lambda d: {"sampler": td.SubsetRandomSampler(range(500, 600))},
            lambda d: {"sampler": td.WeightedRandomSampler([0.0] * 500 + [1.0] * 500, 1000)},
            lambda d: {"sampler": td.WeightedRandomSampler([0.0] * 900 + [1.0] * 100, 50, replacement=False)},
            lambda d: {"sampler": td.RandomSampler(d, replacement=True, num_samples=5000)},
            lambda d: {"sampler": td.DistributedSampler(d, 2, 1)},
            lambda d: {"sampler": EveryOther(len(d))},
            lambda d: {"sampler": list(range(0, 1000, 3))},
            lambda d: {"batch_sampler": td.BatchSampler(td.SequentialSampler(d), 8, False)},
            lambda d: {"batch_sampler": ByLength(len(d))},
            lambda d: {"sampler": td.BatchSampler(td.RandomSampler(d), 8, False), "batch_size": None},
            lambda d: {"batch_size": None},
        ],
    )
    def test_every_sampler(self, make, workers):
        """Whatever orders the samples, ten are left, and in the second epoch none but those."""
        dataset = Numbers()
        if "sampler" in make(dataset) and isinstance(make(dataset)["sampler"], td.BatchSampler):
            dataset.__class__ = Lists
        with slicing(10) as cut:
            loader = td.DataLoader(dataset, num_workers=workers, **make(dataset))
            first, second = seen(loader), seen(loader)
            length = len(loader)
        assert len(first) == len(second) == 10
        assert set(second) <= set(first) or loader.sampler.__class__ in (td.RandomSampler, td.WeightedRandomSampler)
        assert cut.cut == 1
        assert 1 <= length <= 10

    def test_a_subset_sampler_keeps_to_its_own_samples(self):
        """Train and validation indices of one dataset do not mix."""
        with slicing(10):
            loader = td.DataLoader(Numbers(), sampler=td.SubsetRandomSampler(range(500, 600)))
            assert all(500 <= i < 600 for i in seen(loader))

    def test_weights_go_with_their_samples(self):
        """A weight of zero stays zero."""
        with slicing(10):
            weights = [0.0] * 500 + [1.0] * 500
            assert min(seen(td.DataLoader(Numbers(), sampler=td.WeightedRandomSampler(weights, 1000)))) >= 500

    def test_replicas_share_out_their_part(self):
        """Each replica has n samples, none twice, and the program's own set_epoch is heard."""
        with slicing(10):
            parts, orders = [], []
            for rank in range(2):
                sampler = td.DistributedSampler(Numbers(), 2, rank)
                loader = td.DataLoader(sampler.dataset, sampler=sampler)
                parts += seen(loader)
                for epoch in (0, 1):
                    sampler.set_epoch(epoch)
                    orders.append(seen(loader))
        assert len(set(parts)) == 20
        assert orders[0] != orders[1]

    def test_an_endless_sampler_does_not_end(self):
        """A program that draws batches for ever goes on doing so, over n samples."""

        class Endless(td.Sampler):
            def __iter__(self):
                return itertools.cycle(range(1000))

        with slicing(10):
            batches = iter(td.DataLoader(Numbers(), sampler=Endless(), batch_size=4))
            drawn = [int(i) for _ in range(50) for i in next(batches)]
        assert len(set(drawn)) == 10

    def test_a_loop_that_breaks_off_early_sees_no_new_samples_later(self):
        """An epoch that was left in the middle does not change which samples the next ones have."""
        with slicing(10):
            loader = td.DataLoader(Numbers(), sampler=EveryOther(1000))
            for _ in range(3):
                next(iter(loader))
            everything = set(seen(loader)) | set(seen(loader))
        assert len(everything) == 10

    def test_persistent_workers_are_replaced_and_given_back(self):
        """Workers that already run hold the whole dataset."""
        loader = td.DataLoader(Numbers(40), batch_size=8, num_workers=1, persistent_workers=True)
        assert len(seen(loader)) == 40
        workers = loader._iterator
        with slicing(10):
            assert len(seen(loader)) == len(seen(loader)) == 10
        assert loader._iterator is workers
        assert len(seen(loader)) == 40

    def test_what_a_program_asks_of_its_dataset_it_still_gets(self):
        """Attributes and settings pass through, and the part survives the way to a spawned worker."""
        with slicing(10):
            loader = td.DataLoader(Numbers())
            assert loader.dataset.classes == ("even", "odd")
            loader.dataset.transform = lambda at: -at
            assert seen(loader) == [-i for i in tiny(list(range(1000)), 10)]
            loader.dataset.transform = None
            part = pickle.loads(pickle.dumps(loader.dataset))
            assert list(part) == tiny(list(range(1000)), 10)

    @pytest.mark.parametrize("workers", [0, 2, 3])
    @pytest.mark.parametrize("drop_last", [False, True])
    def test_streams(self, workers, drop_last):
        """Whole batches go to each worker, so that drop_last drops none of them."""
        with slicing(20) as cut:
            loader = td.DataLoader(Counting(), batch_size=5, num_workers=workers, drop_last=drop_last)
            assert len(seen(loader)) == len(seen(loader)) == 20
        assert cut.cut == 1
        assert list(itertools.islice(loader.dataset, 3)) == [0, 1, 2]

    def test_no_batch_left_is_refused_where_it_is_used(self):
        """The refusal names the argument and the fewest that would do, also where only the length is asked."""
        with slicing(20):
            loader = td.DataLoader(Numbers(), batch_size=32, drop_last=True)
            for use in (len, iter):
                with pytest.raises(ValueError) as caught:
                    use(loader)
                assert str(caught.value) == (
                    "slice: 20 samples leave no batch in a DataLoader with batch_size=32 and drop_last=True; "
                    "32 are the fewest"
                )

    def test_a_refusal_that_the_program_swallowed_is_made_again(self):
        """``except Exception`` around the loop does not turn the refusal into a run on nothing."""
        with slicing(20) as cut:
            with contextlib.suppress(ValueError):
                list(td.DataLoader(Numbers(), batch_size=32, drop_last=True))
            with pytest.raises(ValueError, match="^slice: 20 samples leave no batch"):
                cut.refuse_if_idle()

    def test_nothing_to_cut_is_told(self):
        """Cut nothing, or found nothing to cut: two different sentences."""
        small = td.DataLoader(Numbers(5))
        with slicing(10) as cut:
            with pytest.raises(ValueError, match=r"^slice: 10 samples were asked for, and no DataLoader was iterated"):
                cut.refuse_if_idle()
            assert str(cut) == "no DataLoader was iterated, so none was cut to 10 samples"
            seen(small)
            cut.refuse_if_idle()
        assert (cut.used, cut.cut, str(cut)) == (1, 0, "the one DataLoader has no more than 10 samples")

    def test_a_loader_class_of_the_users_is_cut_too(self):
        """Also one that changes its samplers after torch has made them."""

        class Repeating(td.DataLoader):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                object.__setattr__(self, "batch_sampler", list(self.batch_sampler))

        with slicing(10):
            assert len(seen(Repeating(Numbers(), batch_size=4))) == 10

    def test_blocks_nest(self):
        """The smaller slice holds inside, the larger one again outside it."""
        with slicing(20):
            loader = td.DataLoader(Numbers())
            with slicing(5):
                assert len(seen(loader)) == 5
            assert len(seen(loader)) == 20
        assert len(seen(loader)) == 1000

    @pytest.mark.parametrize("n", [0, -3])
    def test_a_slice_below_one_is_refused(self, n):
        """Zero samples are no slice."""
        with pytest.raises(ValueError, match=f"^slice: at least 1 is needed, not {n}$"), slicing(n):
            pass

    def test_torch_is_not_imported_for_it(self):
        """A program that never imports torch costs nothing; one that does is cut from then on."""
        code = """
            import sys
            from pytest_mltd.recording.slices import slicing
            with slicing(3):
                assert "torch" not in sys.modules
                from torch.utils.data import DataLoader
                print(len(list(DataLoader(list(range(50))))))
            print(len(list(DataLoader(list(range(50))))))
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        assert done.stdout == "3\n50\n"


class Lists(Numbers):
    """Takes a whole batch of positions at once."""

    def __getitem__(self, at):
        return list(at) if isinstance(at, list) else super().__getitem__(at)
