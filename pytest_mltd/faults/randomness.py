"""Faults of random numbers and of the order in which data comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_mltd.faults.planting import Planting, fault, standing_in


@fault(
    reds=("runs.divergence",),
    says="seeding does nothing: torch.manual_seed, random.seed and numpy.random.seed",
    needs="call that seeds",
)
def seeds_dropped(planting: Planting) -> Iterator[None]:
    import contextlib
    import random

    import numpy
    import torch

    def idle(original: Any) -> Any:
        return lambda *args, **kwargs: planting.harmed()

    with contextlib.ExitStack() as stack:
        for owner, name in ((torch, "manual_seed"), (random, "seed"), (numpy.random, "seed")):
            stack.enter_context(standing_in(planting, owner, name, idle))
        yield


@fault(
    reds=("batches.reseeding",),
    says="torch is seeded with the same number before each step",
    needs="optimizer step",
)
def reseeded_each_step(planting: Planting) -> Iterator[None]:
    import torch

    from pytest_mltd.faults.taps import before_step

    def again(optimizer: Any) -> None:
        planting.harmed()
        torch.manual_seed(0)

    with before_step(planting, again):
        yield


@fault(
    reds=("batches.sorted_labels",),
    says="a shuffling DataLoader gives its samples sorted by label",
    needs="shuffling DataLoader of a dataset with .targets, or with .tensors whose last are the labels",
)
def sorted_batches(planting: Planting) -> Iterator[None]:
    import torch
    from torch.utils.data import RandomSampler

    def wrap(original: Any) -> Any:
        def order(self: Any) -> Iterator[int]:
            tensors = getattr(self.data_source, "tensors", None)
            labels = getattr(self.data_source, "targets", tensors[-1] if tensors else None)
            if labels is None or len(labels) != len(self.data_source):
                yield from original(self)
                return
            planting.harmed()
            yield from torch.as_tensor(labels).argsort(stable=True).tolist()

        return order

    with standing_in(planting, RandomSampler, "__iter__", wrap):
        yield
