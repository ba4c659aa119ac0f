"""A small part of the data, the same every time: of one thing (`tiny`), or of every DataLoader in a block (`slicing`)."""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, cast
from weakref import WeakKeyDictionary

from pytest_mltd.recording.choosing import Choice, at_least_one
from pytest_mltd.recording.imports import loaded, now_or_when_imported

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

T = TypeVar("T")

_active: list[Slicing] = []

_COLUMNS = 8  # a list of more arrays than this is taken for samples; nobody makes a slice of eight samples smaller


def tiny(
    data: T,
    n: SupportsIndex,
    *,
    seed: int = 0,
    stratify: str | Sequence[Any] | Callable[[Any], Any] | None = None,
) -> T:
    """Return a fixed small part of the data, of the same kind: the same ``n`` samples for the same seed on every platform.

    Their order is kept, and no random state is touched. Samples are chosen at random, so that data sorted by label gives
    every label a chance; ``stratify`` keeps the share of each, and one sample of each at least.

    Args:
        data: a NumPy array, a tensor, a pandas or polars frame or series, an Arrow table, a list of samples; a tuple (or
            list of a few) of equally long arrays or a dictionary of columns, cut alike; a Dataset or another sequence; a
            DataLoader (a new one of the same class and settings, workers and shuffling kept). An IterableDataset gives its
            first ``n`` samples, all workers together: it cannot be asked for others.
        n: how many samples; if there are no more, they are all kept and a warning says so.
        seed: which samples.
        stratify: labels, one a sample; the name of a column of a frame or dictionary, or of an attribute of a Dataset
            (``"targets"``); or a function of one sample that gives its label (it is called on every sample).

    Raises:
        TypeError: this kind of data has no samples to choose from.
        ValueError: ``n`` is below 1 or below the number of labels, there is no sample at all, the parts of a tuple differ in
            length, ``stratify`` names no column or has another length, or a loader with ``drop_last`` has no batch left.

    Example:
        >>> tiny(list(range(1000)), 4)
        [258, 420, 756, 841]
    """
    choice = Choice(at_least_one(n), seed)
    torch = loaded("torch")
    if torch is not None and isinstance(data, torch.utils.data.DataLoader):
        return cast(T, _tiny_loader(data, choice, stratify))
    if torch is not None and isinstance(data, torch.utils.data.IterableDataset):
        return cast(T, _first(data, choice, stratify))
    total = _length(data)
    if not total:
        raise ValueError("data: there are no samples in it")
    if stratify is not None:
        choice = Choice(choice.n, seed, _labels(data, stratify, total))
    if total <= choice.n:
        if total < choice.n:
            warnings.warn(f"n: {choice.n} samples were asked for; all {total} are kept", stacklevel=2)
        return data
    return cast(T, _take(data, choice.of(range(total))))


@contextlib.contextmanager
def slicing(n: SupportsIndex, *, seed: int = 0) -> Iterator[Slicing]:
    """Cut every DataLoader in the block to ``n`` samples, without an edit to the program; undone at its end.

    Loaders made before the block are cut too while it lasts. Each keeps its batch size, workers and way of shuffling, and has
    the same samples in every epoch. ``len(loader)`` and ``len(loader.dataset)`` are those of the part. torch is not imported
    for it: if the program does so later, its loaders are cut from then on.

    Args:
        n: how many samples each loader has.
        seed: which samples, as in `tiny`.

    Raises:
        ValueError: ``n`` is below 1; where a loader is used, ``drop_last`` leaves no batch of ``n`` samples.
    """
    begun = Slicing(Choice(at_least_one(n, "slice"), seed))
    with contextlib.ExitStack() as undo:
        undo.callback(_active.remove, begun)
        _active.append(begun)
        now_or_when_imported("torch", begun.begin, undo)
        yield begun


def is_slicing() -> bool:
    """Whether a `slicing` block is open."""
    return bool(_active)


def note_by_hand() -> None:
    """Tell the open `slicing` blocks that a program was given the number and cuts its data itself."""
    for begun in _active:
        begun.by_hand = True


class Slicing:
    """What became of the DataLoaders in a `slicing` block.

    ``used`` is how many were iterated, ``cut`` how many of those had more than ``n`` samples. ``by_hand`` is whether a program
    was given ``n`` to cut its data itself.
    """

    def __init__(self, choice: Choice) -> None:
        self.n = choice.n
        self._choice = choice
        self._before: WeakKeyDictionary[DataLoader[Any], dict[str, Any] | None] = WeakKeyDictionary()
        self._counted: WeakKeyDictionary[DataLoader[Any], bool] = WeakKeyDictionary()
        self._refusal = ""
        self.used = 0
        self.cut = 0
        self.by_hand = False

    def __str__(self) -> str:
        if not self.used:
            return f"no DataLoader was iterated, so none was cut to {self.n} samples"
        loaders = "the one DataLoader" if self.used == 1 else f"{self.cut} of {self.used} DataLoaders"
        if not self.cut:
            which = "the one DataLoader has" if self.used == 1 else f"all {self.used} DataLoaders have"
            return f"{which} no more than {self.n} samples"
        return f"{loaders} cut to {self.n} samples" + (" each" if self.cut > 1 else "")

    def refuse_if_idle(self) -> None:
        """Raise if a slice was asked for and no DataLoader was cut: none was there, or a program went on over a refusal.

        Raises:
            ValueError: no DataLoader was iterated, or one had no batch left.
        """
        if self._refusal:
            raise ValueError(self._refusal)
        if not self.used and not self.by_hand:
            raise ValueError(
                f"slice: {self.n} samples were asked for, and no DataLoader was iterated, so nothing was cut. "
                "For data sliced by hand use mltd.tiny(data, n), or fewer steps"
            )

    def begin(self, torch: Any, undo: contextlib.ExitStack) -> None:
        from pytest_mltd.recording.loaders import cut_all

        cut_all(self, undo)

    def fit(self, loader: DataLoader[Any]) -> None:
        """Cut a loader, once."""
        if loader not in self._before:
            from pytest_mltd.recording.loaders import cut  # there is a loader, so there is torch

            changed = cut(loader, self._choice)
            self._before[loader] = {name: loader.__dict__.get(name) for name in changed} if changed else None
            loader.__dict__.update(changed)

    def guard(self, loader: DataLoader[Any]) -> None:
        """Raise if the cut left the loader no batch."""
        from pytest_mltd.recording.loaders import refuse_if_empty

        if self._before[loader] is None:
            return
        try:
            refuse_if_empty(loader, self.n, "slice")
        except ValueError as error:
            self._refusal = str(error)
            raise

    def count(self, loader: DataLoader[Any]) -> None:
        if loader not in self._counted:
            self._counted[loader] = True
            self.used += 1
            self.cut += self._before[loader] is not None

    def give_back(self) -> None:
        for loader, before in self._before.items():
            if before is not None:
                loader.__dict__.update(before)


def _tiny_loader(loader: Any, choice: Choice, stratify: Any) -> Any:
    from pytest_mltd.recording.loaders import cut_copy, is_stream

    if stratify is not None:
        if is_stream(loader):
            raise ValueError("stratify: an IterableDataset gives its samples in one order; none can be chosen by label")
        total = _length(loader.dataset)
        choice = Choice(choice.n, choice.seed, _labels(loader.dataset, stratify, total))
    return cut_copy(loader, choice)


def _first(dataset: Any, choice: Choice, stratify: Any) -> Any:
    from pytest_mltd.recording.loaders import Stream

    if stratify is not None:
        raise ValueError("stratify: an IterableDataset gives its samples in one order; none can be chosen by label")
    return Stream(dataset, choice.n, 1)


def _length(data: Any) -> int:
    """Return how many samples there are.

    Raises:
        TypeError: the data has no samples to choose from.
        ValueError: the parts of a tuple or dictionary differ in length.
    """
    if isinstance(data, Mapping) or _are_columns(data):
        parts = dict(data) if isinstance(data, Mapping) else dict(enumerate(data))
        lengths = {name: _length(part) for name, part in parts.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
            raise ValueError(f"data: its parts differ in length: {said}")
        if not lengths:
            raise ValueError("data: an empty dictionary has no samples")
        return next(iter(lengths.values()))
    if isinstance(data, (str, bytes)) or not hasattr(data, "__getitem__"):
        raise TypeError(f"data: {_kind(data)} has no samples to choose from{_hint(data)}")
    shape = getattr(data, "shape", None)
    try:
        return int(shape[0]) if shape else len(data)
    except (TypeError, IndexError):
        raise TypeError(f"data: {_kind(data)} has no samples to choose from{_hint(data)}") from None


def _take(data: Any, positions: list[int]) -> Any:
    """Return the samples at these positions, in the same kind of container."""
    if isinstance(data, Mapping):
        return {name: _take(part, positions) for name, part in data.items()}
    if _are_columns(data):
        return _like(data, [_take(part, positions) for part in data])
    if isinstance(data, (list, tuple)):
        return _like(data, [data[p] for p in positions])
    if hasattr(data, "iloc"):
        return data.iloc[positions]
    if type(data).__module__.partition(".")[0] == "pyarrow":
        return data.take(positions)
    if hasattr(data, "shape") or type(data).__module__.partition(".")[0] == "polars":
        return data[positions]
    torch = loaded("torch")
    if torch is not None and isinstance(data, torch.utils.data.Dataset):
        from pytest_mltd.recording.loaders import Part

        return Part(data, positions, len(positions))
    return [data[p] for p in positions]


def _labels(data: Any, stratify: Any, total: int) -> Sequence[Any]:
    """Return one label a sample.

    Raises:
        ValueError: there is no such column, or not one label a sample.
    """
    if isinstance(stratify, str):
        labels = _column(data, stratify)
    elif callable(stratify):
        labels = [stratify(_take_one(data, at)) for at in range(total)]
    else:
        labels = stratify
    labels = labels.to_pylist() if hasattr(labels, "to_pylist") else labels
    labels = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if len(labels) != total:
        raise ValueError(f"stratify: {len(labels)} labels for {total} samples")
    return labels


def _column(data: Any, name: str) -> Any:
    columns = getattr(data, "columns", None)
    if type(data).__module__.partition(".")[0] == "pyarrow":
        columns = data.column_names
    known = [str(c) for c in (data if isinstance(data, Mapping) else () if columns is None else columns)]
    if name in known:
        return data[name]
    if not known and hasattr(data, name):  # torchvision's datasets have `targets`
        return getattr(data, name)
    near = difflib.get_close_matches(name, known, n=1)
    raise ValueError(f"stratify: no column {name!r}" + (f"; the nearest is {near[0]!r}" if near else ""))


def _take_one(data: Any, at: int) -> Any:
    if isinstance(data, Mapping):
        return {name: part[at] for name, part in data.items()}
    if _are_columns(data):
        return tuple(_take_one(part, at) for part in data)
    return data.iloc[at] if hasattr(data, "iloc") else data[at]


def _are_columns(data: Any) -> bool:
    """Tell ``(x, y)``, which are cut alike, from a list of samples: a few equally long arrays, longer than they are many."""
    if not isinstance(data, (list, tuple)) or not data or not all(_is_array(part) for part in data):
        return False
    if isinstance(data, tuple):
        return True
    lengths = {len(part) for part in data}
    return len(data) <= _COLUMNS and len(lengths) == 1 and lengths.pop() > len(data)


def _is_array(part: Any) -> bool:
    shape = getattr(part, "shape", None)
    return bool(shape) or isinstance(part, list)


def _like(data: Any, items: list[Any]) -> Any:
    if hasattr(data, "_make"):  # a named tuple
        return data._make(items)
    return tuple(items) if isinstance(data, tuple) else items


def _kind(data: Any) -> str:
    name = type(data).__name__
    return f"a {name}" if name[0] not in "aeiouAEIOU" else f"an {name}"


def _hint(data: Any) -> str:
    if type(data).__name__ == "LazyFrame":
        return "; collect() it first"
    return "; make a list of it first" if isinstance(data, Iterator) else ""
