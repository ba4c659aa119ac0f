"""Data as a training gets it, changed before it: only a few samples, inputs without content, labels of other samples.

The number of samples stays what it was, so that batch sizes, samplers and epochs of the training mean what they meant.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_mltd.recording.imports import loaded

LOOKED_AT = 16  # times as many samples as are wanted, to find varied labels among; a guess
FEW_COLUMNS = 8  # a list of more arrays than this is taken for samples; the same guess as that of `tiny`


@dataclass(slots=True)
class Change:
    """One way to change data. ``parts`` changes what was handed over in parts, ``item`` one sample of a Dataset, by a function
    that gives another sample by its number. ``whole`` is whether it is made to the Dataset that others are subsets of, so that
    a sample which is in two of them is changed alike. ``done`` counts what was changed, to tell a training that saw none."""

    parts: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    item: Callable[[int, int, Callable[[int], Any]], Any]
    whole: bool = True
    done: int = field(default=0)


def few(n: int, seed: int) -> Change:
    """Repeat the same ``n`` samples up to the number that there was. They are chosen by seed, with labels as varied as can be:
    eight samples of one label are learned by a model that looks at none of them."""
    kept: dict[int, list[int]] = {}

    def parts(data: tuple[Any, ...]) -> tuple[Any, ...]:
        total = size(data)
        chosen = _varied(total, n, seed, lambda i: taken(data[-1], [i])[0] if len(data) > 1 else None)
        return tuple(taken(d, [chosen[i % len(chosen)] for i in range(total)]) for d in data)

    def item(index: int, total: int, get: Callable[[int], Any]) -> Any:
        if total not in kept:
            kept[total] = _varied(total, n, seed, lambda i: _part(get(i), -1))
        return get(kept[total][index % len(kept[total])])

    return Change(parts, item, whole=False)


def without_inputs() -> Change:
    """Set the inputs (the first part, or the first element of a sample) to zero; whole numbers to those of the first sample."""

    def parts(data: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_emptied(data[0]), *data[1:])

    def item(index: int, total: int, get: Callable[[int], Any]) -> Any:
        own = get(index)
        return _with_part(own, 0, _emptied_sample(_part(own, 0), lambda: _part(get(0), 0)))

    return Change(parts, item)


def shuffled_labels(seed: int) -> Change:
    """Give each sample the label (the last part, or the last element of a sample) of another one."""

    def parts(data: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*data[:-1], taken(data[-1], _permutation(size(data[-1]), seed)))

    def item(index: int, total: int, get: Callable[[int], Any]) -> Any:
        return _with_part(get(index), -1, _part(get(_permutation(total, seed)[index]), -1))

    return Change(parts, item)


def changed(data: tuple[Any, ...], change: Change) -> tuple[Any, ...]:
    """Return the data with the change made. A module or a number among them (a model, how many epochs) stays as it is.

    Raises:
        TypeError: none of it has samples to choose from.
        ValueError: the parts differ in length.
    """
    at = [i for i, part in enumerate(data) if _has_samples(part)]
    if not at:
        size(data[0])
    new = _changed([data[i] for i in at], change)
    return tuple(new[at.index(i)] if i in at else part for i, part in enumerate(data))


def has_loader(data: tuple[Any, ...]) -> bool:
    """Whether a DataLoader is among the arguments: then `loaders_changed` is the way to change what it gives."""
    torch = loaded("torch")
    return torch is not None and any(isinstance(part, torch.utils.data.DataLoader) for part in data)


@contextlib.contextmanager
def loaders_changed(change: Change) -> Iterator[None]:
    """Make the change to the dataset of every DataLoader that is iterated in the block."""
    import torch

    kind = torch.utils.data.DataLoader
    iterate, before = kind.__iter__, {}

    def iterate_changed(self: Any) -> Any:
        if id(self) not in before:
            before[id(self)] = (self, self.dataset)
            self.__dict__["dataset"] = _wrapped(self.dataset, change)
        return iterate(self)

    kind.__iter__ = iterate_changed  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__iter__ = iterate  # type: ignore[method-assign]
        for loader, dataset in before.values():
            loader.__dict__["dataset"] = dataset


def size(data: Any) -> int:
    """Return how many samples there are.

    Raises:
        TypeError: it has none to choose from.
    """
    if isinstance(data, Mapping):
        return size(next(iter(data.values())))
    if isinstance(data, tuple) or _are_columns(data):
        return size(data[0])
    if isinstance(data, (str, bytes)) or not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise TypeError(f"data: {type(data).__name__} has no samples to choose from")
    return len(data)


def taken(data: Any, rows: Sequence[int]) -> Any:
    """Return these rows of the data, in the same kind of container."""
    if isinstance(data, Mapping):
        return {name: taken(part, rows) for name, part in data.items()}
    if isinstance(data, tuple) or _are_columns(data):
        return type(data)(taken(part, rows) for part in data)
    if isinstance(data, list):
        return [data[i] for i in rows]
    if hasattr(data, "iloc"):
        return data.iloc[list(rows)].set_axis(
            data.index
        )  # a frame with the same row twice is no longer one row a label
    return data[list(rows)]


def _changed(parts: list[Any], change: Change) -> tuple[Any, ...]:
    if len(parts) == 1 and _is_dataset(parts[0]):
        return (_wrapped(parts[0], change),)
    if len(parts) == 1 and isinstance(parts[0], tuple):
        return (changed(parts[0], change),)
    lengths = [size(part) for part in parts]
    if len(set(lengths)) > 1:
        raise ValueError(f"data: its parts differ in length: {', '.join(map(str, lengths))}")
    change.done += 1
    return change.parts(tuple(parts))


def _has_samples(part: Any) -> bool:
    torch = loaded("torch")
    if torch is not None and isinstance(part, torch.nn.Module):
        return False  # a sequence of layers has a length too
    try:
        return size(part) >= 0
    except TypeError:
        return _is_dataset(part)


def _varied(total: int, n: int, seed: int, label: Callable[[int], Any]) -> list[int]:
    """Return positions of samples, one of each label in turn, where a label is one value."""
    candidates = random.Random(seed).sample(range(total), min(LOOKED_AT * n, total))
    groups: dict[Any, list[int]] = {}
    for position in candidates:
        groups.setdefault(_plain(label, position), []).append(position)
    turns = itertools.zip_longest(*groups.values())
    return [position for turn in turns for position in turn if position is not None][:n]


def _plain(label: Callable[[int], Any], position: int) -> Any:
    try:
        value = label(position)
        value = value.item() if hasattr(value, "item") else value
        return hash(value) and value
    except (TypeError, ValueError, RuntimeError, KeyError, IndexError):  # no label, or one of many values
        return None


def _permutation(total: int, seed: int) -> list[int]:
    order = list(range(total))
    random.Random(seed).shuffle(order)
    return order


def _is_dataset(data: Any) -> bool:
    torch = loaded("torch")
    return torch is not None and isinstance(data, torch.utils.data.Dataset)


def _wrapped(dataset: Any, change: Change) -> Any:
    from pytest_mltd.probes.datasets import wrapped

    return wrapped(dataset, change)


def _are_columns(data: Any) -> bool:
    return (
        isinstance(data, list)
        and 1 < len(data) <= FEW_COLUMNS
        and all(hasattr(part, "shape") and len(part.shape) > 0 for part in data)
        and len({part.shape[0] for part in data}) == 1
    )


def _emptied(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {name: _emptied(part) for name, part in data.items()}
    if isinstance(data, tuple) or _are_columns(data):
        return type(data)(_emptied(part) for part in data)
    return _zeros_like(data) if _is_real(data) else taken(data, [0] * size(data))


def _emptied_sample(sample: Any, first: Callable[[], Any]) -> Any:
    return _zeros_like(sample) if _is_real(sample) else first()


def _zeros_like(data: Any) -> Any:
    torch = loaded("torch")
    if torch is not None and isinstance(data, torch.Tensor):
        return torch.zeros_like(data)
    import numpy as np

    return np.zeros_like(data)


def _is_real(data: Any) -> bool:
    """Whether it is an array or tensor of real numbers: zero times those is zero, and no index of anything."""
    kind = str(getattr(data, "dtype", ""))
    return "float" in kind and not hasattr(data, "iloc")


def _part(sample: Any, at: int) -> Any:
    return sample[_key(sample, at)]


def _with_part(sample: Any, at: int, value: Any) -> Any:
    key = _key(sample, at)
    if isinstance(sample, Mapping):
        return {**sample, key: value}
    parts = list(sample)
    parts[key] = value
    return type(sample)(parts) if type(sample) in (list, tuple) else tuple(parts)


def _key(sample: Any, at: int) -> Any:
    """Return where the inputs (at 0) or the label (at -1) of a sample stand.

    Raises:
        TypeError: a sample is no pair and no mapping.
    """
    if isinstance(sample, Mapping):
        if at == -1:
            return next((k for k in sample if str(k).lower() in _LABELS), list(sample)[-1])
        return next(k for k in sample if str(k).lower() not in _LABELS)
    if not isinstance(sample, (list, tuple)) or len(sample) < 2:
        raise TypeError(f"data: a sample is a pair of inputs and label, not {type(sample).__name__}")
    return at


_LABELS = frozenset("label labels target targets y class".split())
