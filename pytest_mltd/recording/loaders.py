"""DataLoaders cut to a few samples each, unedited: any sampler, any batch sampler, streams, workers.

A loader keeps its class, batch size, workers, collation and order of shuffling; it only has fewer samples. The samples are the
same in every epoch. Imported once torch is.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import gc
import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)
from torch.utils.data.distributed import DistributedSampler

from pytest_mltd.recording.choosing import Choice, key_of

if TYPE_CHECKING:
    from pytest_mltd.recording.slices import Slicing


def cut_all(slicing: Slicing, undo: contextlib.ExitStack) -> None:
    """Cut every DataLoader there is, and each that is made until ``undo`` is closed."""
    begin, iterate, measure = DataLoader.__init__, DataLoader.__iter__, DataLoader.__len__

    def begin_cut(self: DataLoader[Any], *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        slicing.fit(self)

    def iterate_cut(self: DataLoader[Any]) -> Any:
        slicing.fit(self)
        slicing.guard(self)
        slicing.count(self)
        return iterate(self)

    def measure_cut(self: DataLoader[Any]) -> int:
        slicing.fit(self)
        slicing.guard(self)
        return measure(self)

    undo.callback(slicing.give_back)
    patches: dict[str, Any] = {"__init__": begin_cut, "__iter__": iterate_cut, "__len__": measure_cut}
    for name, ours in patches.items():
        theirs = getattr(DataLoader, name)
        undo.callback(setattr, DataLoader, name, theirs)
        setattr(DataLoader, name, functools.wraps(theirs)(ours))
    # Loaders made before the block: `len(loader.dataset)` is asked of them before they are iterated.
    for loader in [x for x in gc.get_objects() if issubclass(type(x), DataLoader)]:
        if "dataset" in loader.__dict__:
            slicing.fit(loader)


def cut_copy(loader: DataLoader[Any], choice: Choice) -> DataLoader[Any]:
    """Return a copy of a loader with ``choice.n`` samples.

    Raises:
        ValueError: that leaves no batch.
    """
    copied = copy.copy(loader)
    copied.__dict__.update(_iterator=None)
    copied.__dict__.update(cut(copied, choice))
    refuse_if_empty(copied, choice.n, "n")
    return copied


def refuse_if_empty(loader: DataLoader[Any], n: int, name: str) -> None:
    """Raise if ``drop_last`` leaves nothing of the samples that were kept.

    Raises:
        ValueError: there is no batch left.
    """
    sampler = loader.batch_sampler
    size = getattr(sampler, "batch_size", loader.batch_size) or 0
    if getattr(sampler, "drop_last", loader.drop_last) and isinstance(size, int) and n < size:
        raise ValueError(
            f"{name}: {n} samples leave no batch in a DataLoader with batch_size={size} and drop_last=True; "
            f"{size} are the fewest"
        )


def cut(loader: DataLoader[Any], choice: Choice) -> dict[str, Any]:
    """Return the attributes of a loader that has ``choice.n`` of the samples; empty if it has no more already."""
    dataset: Any = loader.dataset
    fresh: dict[str, Any] = {"_iterator": None}  # persistent workers hold the whole dataset
    if isinstance(dataset, IterableDataset):
        if isinstance(dataset, Stream) and dataset.most <= choice.n:
            return {}
        return {**fresh, "dataset": Stream(dataset, choice.n, loader.batch_size or 1)}
    batches: Any = loader.batch_sampler
    if batches is None:
        part, sampler = _cut_sampler(dataset, loader.sampler, choice)
        return {} if part is None else {**fresh, "dataset": part, "sampler": sampler}
    if type(batches) is not BatchSampler:
        part, batches = _filtered(dataset, batches, choice, of_batches=True)
        return {} if part is None else {**fresh, "dataset": part, "batch_sampler": batches}
    part, sampler = _cut_sampler(dataset, batches.sampler, choice)
    if part is None:
        return {}
    batches = BatchSampler(sampler, batches.batch_size, batches.drop_last)
    return {**fresh, "dataset": part, "sampler": sampler, "batch_sampler": batches}


def is_stream(loader: DataLoader[Any]) -> bool:
    return isinstance(loader.dataset, IterableDataset)


class Part(Subset[Any]):
    """Some samples of a dataset. Everything else that is asked of it or set on it reaches the dataset.

    Without ``indices`` it only says that it is shorter: a sampler that is not understood goes on naming the old positions.
    """

    def __init__(self, dataset: Dataset[Any], indices: Sequence[int] | None, length: int) -> None:
        super().__init__(dataset, range(length) if indices is None else indices)
        self.__dict__.update(length=length, shifted=indices is not None)

    def __len__(self) -> int:
        return int(self.__dict__["length"])

    def __getitem__(self, index: Any) -> Any:
        if not self.__dict__["shifted"]:
            return self.dataset[index]
        return super().__getitem__(index)  # type: ignore[no-untyped-call]

    def __getitems__(self, indices: list[Any]) -> list[Any]:
        if self.__dict__["shifted"]:
            return super().__getitems__(indices)
        together = getattr(self.dataset, "__getitems__", None)
        return list(together(indices)) if callable(together) else [self.dataset[i] for i in indices]

    def __getattr__(self, name: str) -> Any:
        return _ask_inner(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _set_inner(self, name, value, ("dataset", "indices"))


class Stream(IterableDataset[Any]):
    """The first samples of an iterable dataset, shared by the workers in whole batches."""

    def __init__(self, dataset: IterableDataset[Any], most: int, batch_size: int) -> None:
        self.__dict__.update(dataset=dataset, most=most, batch_size=batch_size)

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.__dict__["dataset"], self._share())

    def __len__(self) -> int:
        return min(int(self.__dict__["most"]), len(self.__dict__["dataset"]))

    def __getattr__(self, name: str) -> Any:
        return _ask_inner(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _set_inner(self, name, value, ())

    def _share(self) -> int:
        info = get_worker_info()
        most, size = int(self.__dict__["most"]), int(self.__dict__["batch_size"])
        if info is None:
            return most
        whole, rest = divmod(most, size)
        turn = whole % info.num_workers
        mine = (whole // info.num_workers + (info.id < turn)) * size
        return mine + (rest if info.id == turn else 0)


class Filtered(Sampler[Any]):
    """A sampler that is not understood, and of what it yields only ``n`` samples: the first ones, in every epoch the same.

    One that does not know its length may never end; then it goes on as it does, over those samples.
    """

    def __init__(self, inner: Any, n: int, kept: Iterable[int] | None, of_batches: bool | None) -> None:
        self._inner = inner
        self._n = n
        self._kept: dict[Hashable, Any] = {} if kept is None else {k: k for k in kept}
        self._of_batches = of_batches
        self._endless = _size(inner) is None

    def __iter__(self) -> Iterator[Any]:
        given = 0
        for item in self._inner:
            together = isinstance(item, list) if self._of_batches is None else self._of_batches
            left: list[Any] = []
            for index in item if together else (item,):
                if given + len(left) == self._n and not self._endless:
                    break
                if self._keeps(index):
                    left.append(index)
                elif self._endless:
                    left.append(tuple(self._kept.values())[(given + len(left)) % len(self._kept)])
            given += len(left)
            if left:
                yield left if together else left[0]
            if given == self._n and not self._endless:
                return

    def __len__(self) -> int:
        length = len(self._inner)
        size = getattr(self._inner, "batch_size", None) if self._of_batches is not False else 1
        return min(length, math.ceil(self._n / size) if isinstance(size, int) and size > 0 else self._n)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def _keeps(self, index: Any) -> bool:
        key = key_of(index)
        if len(self._kept) < self._n:
            self._kept.setdefault(key, index)
        return key in self._kept


class Sharded(Sampler[Any]):
    """A DistributedSampler over fewer samples, in the epoch that the program sets on its own one."""

    def __init__(self, original: DistributedSampler[Any], part: Part) -> None:
        self._original = original
        self._twin: DistributedSampler[Any] = DistributedSampler(
            part, original.num_replicas, original.rank, original.shuffle, original.seed, original.drop_last
        )

    def __iter__(self) -> Iterator[int]:
        self._twin.epoch = self._original.epoch
        return iter(self._twin)

    def __len__(self) -> int:
        return len(self._twin)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._original, name)


def _cut_sampler(dataset: Any, sampler: Any, choice: Choice) -> tuple[Part | None, Any]:
    """Return the part of the dataset and its sampler; no part if there is nothing to cut."""
    kind = type(sampler)
    if kind is SubsetRandomSampler:
        part = _part(dataset, list(sampler.indices), choice)
        return part, part and SubsetRandomSampler(range(len(part)), sampler.generator)
    if kind is WeightedRandomSampler:
        return _cut_weighted(dataset, sampler, choice)
    if kind is DistributedSampler:
        everyone = dataclasses.replace(choice, n=choice.n * sampler.num_replicas)  # n for each replica's loader
        part = _part(dataset, range(len(sampler.dataset)), everyone)
        return part, part and Sharded(sampler, part)
    if kind not in (SequentialSampler, RandomSampler):
        return _filtered(dataset, sampler, choice, of_batches=None)
    positions = range(len(sampler.data_source))
    drawn = getattr(sampler, "_num_samples", None)
    if len(positions) <= choice.n and (drawn is None or drawn <= choice.n):
        return None, None
    kept = choice.of(positions)
    part = Part(dataset, kept, len(kept))
    if kind is SequentialSampler:
        return part, SequentialSampler(part)
    return part, RandomSampler(part, sampler.replacement, drawn and min(drawn, choice.n), sampler.generator)


def _cut_weighted(dataset: Any, sampler: WeightedRandomSampler, choice: Choice) -> tuple[Part | None, Any]:
    possible = torch.nonzero(sampler.weights).flatten().tolist()
    if len(possible) <= choice.n and sampler.num_samples <= choice.n:
        return None, None
    kept = choice.of(possible)
    drawn = min(sampler.num_samples, choice.n if sampler.replacement else len(kept))
    weights = sampler.weights[kept].tolist()
    return Part(dataset, kept, len(kept)), WeightedRandomSampler(weights, drawn, sampler.replacement, sampler.generator)


def _filtered(dataset: Any, sampler: Any, choice: Choice, *, of_batches: bool | None) -> tuple[Part | None, Any]:
    total = _size(dataset)
    if isinstance(sampler, Filtered) or (total is not None and total <= choice.n):
        return None, None
    if not of_batches and (_size(sampler) or math.inf) <= choice.n:
        return None, None
    kept = None if choice.labels is None or total is None else choice.of(range(total))
    return Part(dataset, None, choice.n), Filtered(sampler, choice.n, kept, of_batches)


def _part(dataset: Any, positions: Sequence[int], choice: Choice) -> Part | None:
    if len(positions) <= choice.n:
        return None
    return Part(dataset, choice.of(positions), choice.n)


def _size(sized: Any) -> int | None:
    try:
        return len(sized)
    except (TypeError, NotImplementedError, AttributeError):
        return None


def _ask_inner(outer: Any, name: str) -> Any:
    if name.startswith("__") or "dataset" not in outer.__dict__:  # while it is being unpickled
        raise AttributeError(name)
    return getattr(outer.__dict__["dataset"], name)


def _set_inner(outer: Any, name: str, value: Any, own: tuple[str, ...]) -> None:
    if name in own:
        outer.__dict__[name] = value
    else:
        setattr(outer.__dict__["dataset"], name, value)
