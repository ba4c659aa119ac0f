"""Strategies for Hypothesis: batches and slices of a dataset, seeds, settings, frames like a given frame.

::

    from hypothesis import given
    from pytest_mltd import strategies

    @strategies.patient(max_examples=20)
    @given(batch=strategies.batches((x, y), max_size=64))
    def test_no_batch_breaks_the_step(batch):
        with mltd.record() as run:
            step(*batch.data)
        mltd.assert_healthy(run)

Shrinking goes where a person who debugs wants to go: to the fewest rows that still fail, and of several such to the first; to
the settings that differ from the known-good ones in as few places as possible; to seed 0. Hypothesis is imported here only:
``pip install hypothesis``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["Batch", "batches", "frames_like", "patient", "seeds", "settings", "slices"]

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a dataset: their numbers, and the data, of the dataset's own kind.

    Hypothesis prints the failing example, so that ``Batch(rows=(17,))`` is all there is to read: row 17 does it.
    """

    rows: tuple[int, ...]
    data: Any = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows)


def batches(dataset: Any, *, min_size: int = 1, max_size: int = 32) -> SearchStrategy[Batch]:
    """Return a strategy for batches: different rows of a dataset, in any order and from anywhere in it.

    Shrinks to the smallest batch that still fails, of the first rows that do.

    Args:
        dataset: an array, tensor or frame, whose rows are taken; a tuple or mapping of them, all of one length, as ``(x, y)``;
            or anything with a length whose items are samples (a ``Dataset`` of torch), of which a list is given.
        min_size: the fewest rows.
        max_size: the most rows; the whole dataset where it is shorter. 32 is the usual batch of small trainings, a guess.

    Raises:
        TypeError: the dataset has no length.
        ValueError: its parts differ in length, or the sizes do not fit it.
    """
    length, highest = _sizes(dataset, min_size, max_size)

    @st.composite
    def drawn(draw: st.DrawFn) -> Batch:
        rows = dict.fromkeys(_some(draw, highest, length))
        fill = (row for row in range(length) if row not in rows)  # no draw: what only fills up is not to be shrunk
        rows.update(dict.fromkeys(itertools.islice(fill, max(0, min_size - len(rows)))))
        return Batch(tuple(rows), _rows(dataset, list(rows)))

    return drawn()


def slices(dataset: Any, *, min_size: int = 1, max_size: int | None = None) -> SearchStrategy[Batch]:
    """Return a strategy for neighbouring rows of a dataset, in their order.

    Shrinks to the shortest slice that still fails.

    Args:
        dataset: as for `batches`.
        min_size: the fewest rows.
        max_size: the most rows; by default the whole dataset.

    Raises:
        TypeError: the dataset has no length.
        ValueError: its parts differ in length, or the sizes do not fit it.
    """
    length, highest = _sizes(dataset, min_size, max_size)

    @st.composite
    def drawn(draw: st.DrawFn) -> Batch:
        end = draw(
            st.integers(min_size, length)
        )  # by its end: with the start first, no shorter slice would reach a late row
        rows = range(end - draw(st.integers(min_size, min(highest, end))), end)
        return Batch(tuple(rows), _rows(dataset, rows))

    return drawn()


def seeds() -> SearchStrategy[int]:
    """Return a strategy for seeds that Python, numpy and torch all take: 0 to 2**32 - 1. Shrinks to 0."""
    return st.integers(0, 2**32 - 1)


def settings(
    good: Mapping[str, Any], varied: Mapping[str, Collection[Any] | SearchStrategy[Any]]
) -> SearchStrategy[dict[str, Any]]:
    """Return a strategy for settings around known-good ones.

    Shrinks to settings that differ from the good ones in as few names as still fail: a failing example names the culprit.

    Args:
        good: the settings that are known to work, all of them.
        varied: for each name that may differ its other values, or a strategy for them: ``{"lr": [0.1, 1.0]}``.

    Raises:
        ValueError: a varied name is none of the good settings, or has no other value.
    """
    for name, others in varied.items():
        if name not in good:
            raise ValueError(
                f"varied: {name!r} is none of the good settings ({', '.join(map(str, good)) or 'there are none'})"
            )
        if not isinstance(others, SearchStrategy) and not len(others):
            raise ValueError(f"varied: {name!r} has no other value")
    kept = {name: st.just(value) for name, value in good.items()}
    return st.fixed_dictionaries({**kept, **{name: _varied(good[name], others) for name, others in varied.items()}})


def frames_like(frame: Any, *, min_rows: int = 0, max_rows: int = 20) -> SearchStrategy[Any]:
    """Return a strategy for frames with the columns, types and values of a given one, in combinations that it need not have.

    Each cell is one that its column has somewhere, nulls and rare categories too; no value is invented. Shrinks to the fewest
    rows that still fail, with the values of the frame's first row.

    Args:
        frame: a frame of pandas, polars or pyarrow; the frames are of the same kind.
        min_rows: the fewest rows; 0 by default, since an empty table is what pipelines forget.
        max_rows: the most rows; 20 is a guess.

    Raises:
        TypeError: it is no such frame.
        ValueError: it has no row to take values from, or two columns of one name, or the numbers of rows do not fit.
    """
    table = _table(frame)
    if not 0 <= min_rows <= max_rows:
        raise ValueError(f"max_rows: a number of at least min_rows={min_rows} is needed, not {max_rows}")
    cells = st.tuples(*[st.integers(0, len(table) - 1)] * len(table.columns))
    return st.lists(cells, min_size=min_rows, max_size=max_rows).map(lambda rows: _combined(table, rows))


def patient(*, max_examples: int = 25) -> Callable[[Test], Test]:
    """Return Hypothesis settings for a test that trains: no deadline, fewer examples, slow ones and fixtures allowed.

    The phase that explains a failure is left out: it traces every line, the recorder's and torch's too (measured here, a
    recorded run of three steps took four times as long). Stands above ``@given``. The fixtures of this plugin may be used
    beside it: each example's run is recorded anew.

    Args:
        max_examples: how many examples are tried before shrinking begins; a guess (Hypothesis alone takes 100).
    """
    known = hypothesis.HealthCheck
    slow = [known.too_slow, known.function_scoped_fixture, known.large_base_example, known.data_too_large]
    phases = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
    return hypothesis.settings(deadline=None, max_examples=max_examples, suppress_health_check=slow, phases=phases)


def _some(draw: st.DrawFn, most: int, length: int) -> Iterator[int]:
    """Draw row numbers, about half of ``most`` on average.

    Lists of Hypothesis hold some six, and miss one row in a thousand; with a smallest size that is drawn too, or unique, they
    do not shrink to the pair that fails. Here each row is two draws that can be left out by themselves.
    """
    goes_on, row = st.integers(0, max(1, most // 2)), st.integers(0, length - 1)
    taken = 0
    while draw(goes_on):  # ended by a draw in every case: without one, none before it could be left out
        at = draw(row)
        if taken < most:
            yield at
        taken += 1


def _varied(good: Any, others: Collection[Any] | SearchStrategy[Any]) -> SearchStrategy[Any]:
    if isinstance(others, SearchStrategy):
        return st.one_of(st.just(good), others)
    return st.sampled_from([good, *others])


def _sizes(dataset: Any, min_size: int, max_size: int | None) -> tuple[int, int]:
    """Return the length of a dataset and the most rows that are taken of it, or refuse the sizes."""
    length = _length(dataset)
    if min_size < 1:
        raise ValueError(f"min_size: at least 1 row is needed, not {min_size}")
    if length < min_size:
        raise ValueError(f"dataset: {length} rows, fewer than min_size={min_size}")
    if max_size is not None and max_size < min_size:
        raise ValueError(f"max_size: a number of at least min_size={min_size} is needed, not {max_size}")
    return length, length if max_size is None else min(max_size, length)


def _length(dataset: Any) -> int:
    parts = _parts(dataset)
    if parts is not None:
        lengths = {name: len(part) for name, part in parts.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name!r}: {n}" for name, n in lengths.items())
            raise ValueError(f"dataset: its parts differ in length ({said})")
        return next(iter(lengths.values()))
    try:
        return len(dataset)
    except TypeError:
        raise TypeError(f"dataset: something with a length is needed, not {type(dataset).__name__}") from None


def _parts(dataset: Any) -> dict[Any, Any] | None:
    """Return the parts of a tuple, list or mapping of arrays by place or name, or None where the dataset is one thing."""
    if isinstance(dataset, Mapping):
        return dict(dataset) or None
    if isinstance(dataset, (tuple, list)) and dataset and all(_is_array(part) and part.shape for part in dataset):
        return dict(enumerate(dataset)) if isinstance(dataset, tuple) else None
    return None


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "__getitem__")


def _rows(dataset: Any, rows: Sequence[int]) -> Any:
    """Return some rows of a dataset, as its own kind where it has one, else as a list of samples."""
    chosen = list(rows)
    parts = _parts(dataset)
    if parts is not None:
        taken = {name: _rows(part, chosen) for name, part in parts.items()}
        return taken if isinstance(dataset, Mapping) else tuple(taken.values())
    if hasattr(dataset, "iloc"):  # pandas: by position, whatever the index holds
        return dataset.iloc[chosen]
    if hasattr(dataset, "take") and hasattr(dataset, "schema"):  # pyarrow
        return dataset.take(chosen)
    return dataset[chosen] if _is_array(dataset) else [dataset[row] for row in chosen]


def _table(frame: Any) -> Any:
    import narwhals as nw

    try:
        table = nw.from_native(frame, eager_only=True)
    except TypeError:
        raise TypeError(f"frame: a frame of pandas, polars or pyarrow is needed, not {type(frame).__name__}") from None
    except ValueError as error:
        raise ValueError(f"frame: {error}") from None
    if not len(table) or not table.columns:
        raise ValueError("frame: at least one row and one column are needed, to take values from")
    return table


def _combined(table: Any, rows: Sequence[Sequence[int]]) -> Any:
    """Return a frame whose cells are those at the given positions of each column."""
    import narwhals as nw

    columns = [_gathered(table, column, rows) for column in range(len(table.columns))]
    return nw.concat(columns, how="horizontal").to_native()


def _gathered(table: Any, column: int, rows: Sequence[Sequence[int]]) -> Any:
    import narwhals as nw

    part = table.select(table.columns[column])
    taken = part[[row[column] for row in rows], :] if rows else part.head(0)
    return nw.maybe_reset_index(taken)
