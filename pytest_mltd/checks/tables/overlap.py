"""What two splits share that they must not: rows, groups, keys, stretches of time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_mltd.checks.tables.chance import chance_count
from pytest_mltd.checks.tables.columns import Array, Column, column_of, comparable_as, same, written
from pytest_mltd.checks.tables.frames import EagerFrame, Frame, TableLike, need_columns, open_table, row_keys
from pytest_mltd.checks.tables.matching import Shared, partners, shared_columns, shared_rows
from pytest_mltd.checks.tables.sql import SqlFrame
from pytest_mltd.core.asking import asserting, check
from pytest_mltd.core.findings import Finding, Plain, Table, not_asked
from pytest_mltd.core.rendering import number

Names = str | Sequence[str]


@check("splits", rank=40)
def check_row_overlap(
    train: TableLike,
    test: TableLike,
    *,
    label: str | None = None,
    key: Names | None = None,
    max_share: float = 0.005,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether rows of test stand in train too, more of them than agree by chance.

    Rows are compared in all columns that both tables have, but for the label, the key and row numbers. Missing equals
    missing, -0.0 equals 0.0, 1 equals 1.0. On a coarse grid rows agree without being copies: how many chance explains is
    estimated (see `chance_count`) and ten times that is taken off. Rows that hold nothing are not counted; in one or
    two columns, nor are pairs whose labels are no more alike than those of strangers.

    Args:
        train: any table.
        test: any table.
        label: the column that is predicted; whether the repeats agree in it is said.
        key: the columns that name a row; they differ between copies that were numbered anew.
        max_share: largest share of test rows (0 to 1) that may be repeats beyond chance. 0.005 is a guess: so few move an
            accuracy by half a percent at most. A single repeat in more than twenty rows passes. Measured on 1,383 public
            tables split at random: 2.6% fail, and all of those hold rows that repeat.
        allow: ``{"rows": reason}`` if the repeats are meant.

    Raises:
        ValueError: a named column is missing, or a path cannot be read.
        TypeError: one of the two is no table.
    """
    first, second = open_table(train, "train"), open_table(test, "test")
    named = [*_named("label", label, first), *_named("key", key, first)]
    common = shared_columns(first, second, named)
    if reason := _nothing_to_compare(first, second, common):
        return reason
    shared = shared_rows(first, second, common)
    if not shared.count and (features := _without_row_numbers(first, second, common)) != common:
        common = features
        shared = shared_rows(first, second, common)
    looked_at = f"{second.rows:,} rows of {second.name} against {first.rows:,} of {first.name}, {_columns(common)}"
    if not shared.count:
        return Finding(
            ok=True,
            headline=f"no row of {second.name} stands in {first.name}",
            amount=0.0,
            limit=("max_share", max_share),
            looked_at=looked_at,
            evidence="definition",
        )
    chance = chance_count(shared, first.rows, second.rows, common)
    return _row_finding(first, second, common, shared, chance, label, max_share, looked_at)


assert_no_row_overlap = asserting(check_row_overlap)


@check("splits", rank=20)
def check_group_overlap(
    train: TableLike,
    test: TableLike,
    *,
    group: Names,
    max_share: float = 0.0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a group (a patient, a customer, a speaker) has rows on both sides.

    Missing groups are no group and never match. Where one table holds the groups as numbers and the other as text, they are
    compared as text.

    Args:
        train: any table.
        test: any table.
        group: the column, or the columns that name a group together.
        max_share: largest share of test's groups (0 to 1) that may be in train; 0 by definition of a split by groups.
        allow: ``{column: reason}`` if the overlap is meant.

    Raises:
        ValueError: a table has no such column; the nearest name is given.
    """
    return _names_overlap("group", train, test, group, max_share)


assert_no_group_overlap = asserting(check_group_overlap)


@check("splits", rank=30)
def check_key_overlap(
    train: TableLike,
    test: TableLike,
    *,
    key: Names,
    max_share: float = 0.0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a key (what names one record) is in both train and test.

    Missing keys never match. Where one table holds the keys as numbers and the other as text, they are compared as text.

    Args:
        train: any table.
        test: any table.
        key: the column, or the columns that name a record together.
        max_share: largest share of test's keys (0 to 1) that may be in train; 0 by definition of a split.
        allow: ``{column: reason}`` if the overlap is meant.

    Raises:
        ValueError: a table has no such column; the nearest name is given.
    """
    return _names_overlap("key", train, test, key, max_share)


assert_no_key_overlap = asserting(check_key_overlap)


@check("splits", rank=25)
def check_time_overlap(
    train: TableLike,
    test: TableLike,
    *,
    time: str,
    max_share: float = 0.0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether train holds rows from later than the first row of test: a model that has seen the future.

    Instants with a time zone are compared in UTC, those without one as they stand. Numbers (a year, a step) and text in ISO
    form are taken too. A row of train at the very instant of test's first row is not later. Missing times are left out.

    Args:
        train: any table.
        test: any table.
        time: the column.
        max_share: largest share of train's rows (0 to 1) that may be later than the first row of test; 0 by definition of
            a split by time.
        allow: ``{column: reason}`` if the overlap is meant.

    Raises:
        ValueError: a table has no such column (the nearest name is given), or it holds text that is no date.
    """
    first, second = open_table(train, "train"), open_table(test, "test")
    (column,) = need_columns("time", (time,) if isinstance(time, str) else time, first, second)[:1]
    earlier, later = (_times(column, f.column(column), f.name) for f in (first, second))
    known, asked = (c.values[~c.missing] for c in (earlier, later))
    if not len(known) or not len(asked):
        empty = first.name if not len(known) else second.name
        return not_asked(f"{column!r} has no time in {empty}")
    if (earlier.kind == "time") != (later.kind == "time"):
        raise ValueError(
            f"time: {column!r} holds instants in one table and numbers in the other ({first.name}: {earlier.kind}, "
            f"{second.name}: {later.kind})"
        )
    return _time_finding(column, first, second, known, asked, max_share)


assert_no_time_overlap = asserting(check_time_overlap)


def _named(argument: str, names: Names | None, frame: Frame) -> tuple[str, ...]:
    return () if names is None else need_columns(argument, names, frame)


def _nothing_to_compare(train: Frame, test: Frame, common: Sequence[str]) -> Finding | None:
    for frame in (train, test):
        if not frame.rows:
            return not_asked(f"{frame.name} has no rows")
    if not common:
        return not_asked(
            f"{train.name} and {test.name} have no column in common to compare",
            next_step=f"{train.name} has {', '.join(train.columns[:5])}; {test.name} has {', '.join(test.columns[:5])}",
        )
    return None


_NUMBERED = re.compile(
    r"(unnamed(: ?\d+)?|(row|obs|case|sample)?[ _.]?(id|index|idx|no|nr|num|number|names?)|rownames?|)", re.I
)


def _without_row_numbers(train: Frame, test: Frame, columns: Sequence[str]) -> tuple[str, ...]:
    """Leave out columns that only number the rows: by their name, and every value different."""
    kept = tuple(c for c in columns if not (_NUMBERED.fullmatch(c.strip()) and _all_differ(train, c)))
    return kept or tuple(columns)


def _all_differ(frame: Frame, column: str) -> bool:
    keys = frame.column(column).keys()
    return len(np.unique(keys)) == len(keys)


def _row_finding(
    train: Frame,
    test: Frame,
    columns: Sequence[str],
    shared: Shared,
    by_chance: float,
    label: str | None,
    max_share: float,
    looked_at: str,
) -> Finding:
    share = shared.count / test.rows
    told = _not_blank(shared, columns) * (_alike_in_label(shared, label) if len(columns) < _PARTED else 1.0)
    beyond = max(shared.count * told - _MARGIN * by_chance, 0.0) / test.rows
    single = shared.count == 1 and share < _SINGLE
    explained = "chance explains none of them" if by_chance < 0.5 else f"chance explains about {by_chance:,.0f} of them"
    if not by_chance:
        explained = "values this rich do not agree by chance"
    agree = _label_agreement(shared, label)
    what = f"{shared.count:,} of {test.rows:,} {test.name} rows ({_percent(share)}) stand in {train.name} too"
    details = {"shared": shared.count, "by_chance": by_chance, "columns": len(columns)}
    if beyond <= max_share or single:
        reason = "as coarse values agree by chance" if beyond < share else "no more than the limit"
        reason = "a single one" if single else "and are no copies: blank, or of another label" if told < 0.1 else reason
        return Finding(
            ok=True,
            headline=f"{what}, {reason} (max_share={max_share:g})",
            culprit="rows",
            amount=0.0 if single else beyond,
            limit=("max_share", max_share),
            looked_at=f"{looked_at}; {explained}",
            details=details,
        )
    return Finding(
        ok=False,
        headline=f"{what}: identical rows on both sides (max_share={max_share:g})",
        culprit="rows",
        amount=beyond,
        limit=("max_share", max_share),
        table=_example_rows(shared, columns),
        shows=f"The rows are equal in {_columns(columns)}; {explained}.{agree}",
        next_step="drop repeated rows before the split, or keep all copies of a row on one side",
        evidence="definition",
        details=details,
    )


_SINGLE = 0.05  # of test's rows: one flower in 45 and one restaurant bill in 73 repeat by themselves (iris, tips)
_MARGIN = 10  # the estimate can be low where columns hang together; on public tables a fifth of the truth was the worst


_PARTED = (
    3  # from so many columns on, near misses tell chance from copies (`chance_count`), and copies may be relabelled
)
_FEW_PAIRS = 5  # fewer pairs of labels say nothing of how alike they are; a guess


def _not_blank(shared: Shared, columns: Sequence[str]) -> float:
    """Return the share of the pairs that hold any value: two rows of nothing were not copied from each other."""
    blank = np.all([shared.test.column(c).missing for c in columns], axis=0)
    return 1.0 - float(np.mean(blank)) if len(blank) else 1.0


def _alike_in_label(shared: Shared, label: str | None) -> float:
    """Return how much of the pairs' agreement in the label chance does not explain, from 0 to 1.

    A copy has the label of its original. Rows that agree by chance in their few columns (the year and a round wage) have
    labels as of two strangers: then it is nought. Cohen's kappa (1960) for classes, the correlation for a label of many
    values; 1 where there is no label, or too few pairs to tell.
    """
    if label is None or label not in shared.test.columns or label not in shared.train.columns:
        return 1.0
    mine, theirs = shared.test.column(label), shared.train.column(label)
    if shared.test.rows < _FEW_PAIRS:
        return 1.0
    if mine.kind == theirs.kind == "number" and len(np.unique(mine.keys())) > max(20, shared.test.rows // 10):
        known = ~(mine.missing | theirs.missing)
        a, b = mine.values[known].astype(np.float64), theirs.values[known].astype(np.float64)
        if len(a) < _FEW_PAIRS or not (np.ptp(a) > 0 and np.ptp(b) > 0):
            return 1.0
        return float(np.clip(np.nan_to_num(np.corrcoef(a, b)[0, 1], nan=1.0), 0.0, 1.0))
    how = [comparable_as(mine, theirs)]
    both = np.concatenate([row_keys([mine], how), row_keys([theirs], how)])
    levels, codes = np.unique(both, return_inverse=True)
    counts = [np.bincount(half, minlength=len(levels)) / shared.test.rows for half in np.split(codes, 2)]
    by_chance = float(counts[0] @ counts[1])
    if by_chance > 0.95:  # all of one class: agreeing says nothing
        return 1.0
    return max((float(same(mine, theirs).mean()) - by_chance) / (1.0 - by_chance), 0.0)


def _label_agreement(shared: Shared, label: str | None) -> str:
    if label is None or label not in shared.test.columns or label not in shared.train.columns or not shared.test.rows:
        return ""
    equal = same(shared.test.column(label), shared.train.column(label))
    pairs = f"{len(equal):,} pairs" if len(equal) == shared.count else f"the {len(equal):,} pairs looked at"
    return f" In {int(equal.sum()):,} of {pairs} {label!r} is the same too."


def _example_rows(shared: Shared, columns: Sequence[str]) -> Table:
    shown = list(columns[:6])
    rows = [[_plain(shared.test.column(c), i) for c in shown] for i in range(min(3, shared.test.rows))]
    more = len(columns) - len(shown)
    heads = [*shown, *([f"and {more} more"] if more else [])]
    return Table(tuple(heads), tuple((*row, *(["same"] if more else [])) for row in rows), 0)


def _plain(column: Column, row: int) -> Plain:
    if column.missing[row]:
        return "missing"
    value = column.values[row]
    return value.item() if column.kind in ("number", "flag") else written(value)


@dataclass(frozen=True, slots=True)
class _Distinct:
    """The different names in one table, none missing, and how many rows have each."""

    columns: list[Column]
    counts: Array

    def __len__(self) -> int:
        return len(self.counts)


def _names_overlap(what: str, train: TableLike, test: TableLike, names: Names, max_share: float) -> Finding:
    first, second = open_table(train, "train"), open_table(test, "test")
    wanted = need_columns(what, names, first, second)
    known, asked = _distinct(first, wanted), _distinct(second, wanted)
    spelled = ", ".join(wanted)
    if not len(known) or not len(asked):
        empty = first.name if not len(known) else second.name
        return not_asked(f"{spelled!r} names no {what} in {empty}: it has no rows, or all are missing")
    how = [comparable_as(a, b) for a, b in zip(known.columns, asked.columns, strict=True)]
    there, here = partners(row_keys(known.columns, how), row_keys(asked.columns, how))
    equal = np.ones(len(here), np.bool_)
    for a, b in zip(known.columns, asked.columns, strict=True):
        equal &= same(a.at(there), b.at(here))
    there, here = there[equal], here[equal]
    return _names_finding(what, spelled, first, second, (known, there), (asked, here), max_share)


def _distinct(frame: Frame, names: Sequence[str]) -> _Distinct:
    if isinstance(frame, SqlFrame):
        columns, counts = frame.grouped(names)
        return _Distinct([columns[n] for n in names], counts)
    if isinstance(frame, EagerFrame) and (counted := frame.counted(names)) is not None:
        return _Distinct(*counted)
    whole = [frame.column(n) for n in names]
    present = ~np.any([c.missing for c in whole], axis=0)
    whole = [c.at(present) for c in whole]
    _, at, counts = np.unique(row_keys(whole), return_index=True, return_counts=True)
    return _Distinct([c.at(at) for c in whole], counts)


def _names_finding(
    what: str,
    spelled: str,
    train: Frame,
    test: Frame,
    in_train: tuple[_Distinct, Array],
    in_test: tuple[_Distinct, Array],
    max_share: float,
) -> Finding:
    (known, there), (asked, here) = in_train, in_test
    share = len(here) / len(asked)
    looked_at = f"{len(asked):,} {what}s of {spelled!r} in {test.name}, {len(known):,} in {train.name}"
    if share <= max_share:
        return Finding(
            ok=True,
            headline=f"{len(here) or 'no'} {what} of {spelled!r} is in both {train.name} and {test.name}",
            culprit=spelled,
            amount=share,
            limit=("max_share", max_share),
            looked_at=looked_at,
            evidence="definition",
        )
    rows = int(asked.counts[here].sum())
    order = np.argsort(-asked.counts[here], kind="stable")[:5]
    shown = tuple(
        (
            ", ".join(str(_plain(c, here[i])) for c in asked.columns),
            int(known.counts[there[i]]),
            int(asked.counts[here[i]]),
        )
        for i in order
    )
    whose = "split by group, as scikit-learn's GroupShuffleSplit does, so that each stands on one side"
    return Finding(
        ok=False,
        headline=f"{len(here):,} of {len(asked):,} {what}s of {spelled!r} are in both {train.name} and {test.name} "
        f"(max_share={max_share:g})",
        culprit=spelled,
        amount=share,
        limit=("max_share", max_share),
        table=Table((spelled, f"rows in {train.name}", f"rows in {test.name}"), shown, 0),
        shows=f"{rows:,} of {test.rows:,} {test.name} rows belong to a {what} that {train.name} has rows of.",
        next_step=whose
        if what == "group"
        else f"find where a record is copied; then drop repeated {spelled!r} before the split",
        evidence="definition",
        details={"shared": len(here), "rows": rows},
    )


def _times(name: str, column: Column, table: str) -> Column:
    """Return a column as instants or numbers.

    Raises:
        ValueError: it holds text that is no date.
    """
    if column.kind in ("time", "number"):
        return column
    if column.kind == "text":
        try:
            stamps = np.array(
                [
                    np.datetime64("NaT") if gone else _stamp(v)
                    for v, gone in zip(column.values, column.missing, strict=True)
                ],
                dtype="datetime64[us]",
            )
        except ValueError as error:
            raise ValueError(
                f"time: column {name!r} in {table} holds text that is no date in ISO form ({error})"
            ) from None
        return column_of(name, stamps)
    raise ValueError(f"time: column {name!r} in {table} holds no times ({column.kind})")


def _stamp(text: str) -> np.datetime64:
    import datetime

    found = datetime.datetime.fromisoformat(text.strip())
    if found.tzinfo is not None:
        found = found.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(found, "us")


def _time_finding(column: str, train: Frame, test: Frame, known: Array, asked: Array, max_share: float) -> Finding:
    start = asked.min()
    later = known > start
    share = float(later.mean())
    span = tuple(
        (name, written(values.min()), written(values.max()), len(values))
        for name, values in ((train.name, known), (test.name, asked))
    )
    if share <= max_share:
        return Finding(
            ok=True,
            headline=f"{train.name} ends before {test.name} begins in {column!r}"
            if not share
            else f"{_percent(share)} of {train.name} is later than the first row of {test.name}",
            culprit=column,
            amount=share,
            limit=("max_share", max_share),
            looked_at=f"{train.name} to {span[0][2]}, {test.name} from {span[1][1]}; {len(known):,} and {len(asked):,} rows",
            evidence="definition",
        )
    return Finding(
        ok=False,
        headline=f"{int(later.sum()):,} of {len(known):,} {train.name} rows are later in {column!r} than the first row of "
        f"{test.name}, {written(start)} (max_share={max_share:g})",
        culprit=column,
        amount=share,
        limit=("max_share", max_share),
        table=Table(("split", f"first {column}", f"last {column}", "rows"), span, 0),
        shows="The two stretches of time overlap: a model trained on this has seen the future of what it is tested on."
        if known.min() <= asked.max()
        else f"All of {train.name} is later than all of {test.name}: the splits are the wrong way round.",
        next_step=f"split at one instant of {column!r}: everything before it for {train.name}, the rest for {test.name}",
        evidence="definition",
        details={"later": int(later.sum())},
    )


def _columns(names: Sequence[str]) -> str:
    return f"{len(names)} column" + ("" if len(names) == 1 else "s")


def _percent(share: float) -> str:
    return f"{number(100 * share, 3)}%"
