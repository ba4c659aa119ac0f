"""Datasets changed before a training gets them. Imported once torch is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from pytest_mltd.probes.samples import Change, changed


def wrapped(dataset: Any, change: Change) -> Any:
    """Return a dataset of the same length with the change made to its samples.

    Raises:
        TypeError: it is a stream, whose samples come in one order.
    """
    if isinstance(dataset, IterableDataset):
        raise TypeError("data: an IterableDataset gives its samples in one order, and none by its number")
    if isinstance(dataset, Subset) and change.whole:
        part = copy.copy(dataset)
        part.dataset = wrapped(dataset.dataset, change)
        return part
    if type(dataset) is TensorDataset:
        return TensorDataset(*changed(tuple(dataset.tensors), change))
    change.done += 1
    return Changed(dataset, change)


class Changed(Dataset[Any]):
    """A dataset whose samples are changed as they are asked for. Whatever else is asked of it, the dataset itself answers."""

    def __init__(self, dataset: Any, change: Change) -> None:
        self.dataset, self.change = dataset, change

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return self.change.item(int(index), len(self), self.dataset.__getitem__)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "dataset" not in self.__dict__:  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.__dict__["dataset"], name)
