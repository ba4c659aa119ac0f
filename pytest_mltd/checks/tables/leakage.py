"""What a column knows of the label that it cannot know when the prediction is made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pytest_mltd.checks.tables.columns import Column
from pytest_mltd.checks.tables.frames import ArrayFrame, Frame, TableLike, need_columns, open_table, sample
from pytest_mltd.checks.tables.readings import read_column
from pytest_mltd.checks.tables.signs import Limits, Reading, Role, Sign
from pytest_mltd.checks.tables.target import Target, pooled, read_target
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number

SAMPLED = 100_000  # rows of each table; an AUC is then known to three decimals


@check("splits", rank=10)
def check_label_leak(
    train: TableLike,
    test: TableLike | None = None,
    *,
    label: str,
    group: str | Sequence[str] | None = None,
    key: str | Sequence[str] | None = None,
    max_auc: float = 0.95,
    max_auc_alone: float = 0.995,
    max_purity: float = 0.98,
    max_r2: float = 0.98,
    max_r2_alone: float = 0.9998,
    min_rows: int = 20,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a single column gives the label away.

    A strong column is not a leak: in breast cancer 'worst perimeter' has an AUC of 0.975, and a petal's length parts irises.
    So a strong column fails only with a sign that measurements do not show: it is the label in another spelling or on another
    scale, it is missing just where the outcome is one of two, one value (0, 9999) stands for one class, it numbers rows that
    were sorted, it never errs over many rows. Only above ``max_auc_alone`` does strength alone fail, and says "suspicious".

    The label may be of two or more classes (text, flags, whole numbers of up to 20 values) or an amount. Of tables beyond
    100,000 rows so many are read, chosen by a hash of their content.

    Args:
        train: any table.
        test: any table, or None. Its rows are added where its label is known.
        label: the column that is predicted.
        group: the column (or columns) that name a group; what names a thing is no feature, and is not asked.
        key: the column (or columns) that name a record; not asked either.
        max_auc: largest AUC (0.5 to 1, of the least well parted classes) that passes whatever the signs. 0.95 is a guess
            between honest columns (0.975 with no sign) and the leaks in public tables (titanic's 'boat' 0.97).
        max_auc_alone: largest AUC that passes without a sign, where every class has 100 rows. 0.995 is a guess, above every
            honest column in the public tables measured for this project.
        max_purity: largest share (0 to 1) of one class among the rows where a column is filled (or empty), if it has at
            least ``min_rows`` of them. 0.98: leakage-buster, 2025.
        max_r2: largest R² that passes for an amount whatever the signs. 0.98: leakage-buster, 2025.
        max_r2_alone: largest R² of a straight line that passes without a sign. 0.9998 is a guess: yesterday's price
            explains 0.999 of today's.
        min_rows: fewest rows on which a sign is believed. 20: leakage-buster, 2025.
        allow: ``{column: reason}`` for columns that may know so much.

    Raises:
        ValueError: train has no such column; the nearest name is given.
        TypeError: one of the two is no table.
    """
    limits = Limits(
        max_auc=max_auc,
        max_auc_alone=max_auc_alone,
        max_purity=max_purity,
        max_r2=max_r2,
        max_r2_alone=max_r2_alone,
        min_rows=min_rows,
    )
    first = open_table(train, "train")
    second = open_table(test, "test") if test is not None else None
    (label,) = need_columns("label", label, first)
    names = {label}.union(*(need_columns(a, n, first) for a, n in (("group", group), ("key", key)) if n is not None))
    features = [c for c in first.columns if c not in names]
    if not features:
        return not_asked(f"{first.name} has no column but the label")
    kept, allowed = sift(allow, features)
    columns, in_train = _rows_with_label(first, second, label)
    rows = len(columns[label])
    if not rows:
        return not_asked(f"the label {label!r} is missing in every row" if first.rows else "there are no rows")
    target = read_target(columns[label])
    if rows < min_rows:
        return not_asked(f"{rows} of at least {min_rows} rows with a label (min_rows={min_rows})")
    if isinstance(target, str):
        return not_asked(target)
    readings = [_read(columns[c], target, limits, len(kept), in_train) for c in kept]
    return _finding(target, readings, limits, allowed, first)


assert_no_label_leak = asserting(check_label_leak)


def _rows_with_label(train: Frame, test: Frame | None, label: str) -> tuple[dict[str, Column], int]:
    """Return the columns of the rows in which the label is known, of both tables where both can be read together.

    The rows of train come first; how many they are is returned too.
    """
    first = sample(train, train.columns, SAMPLED)
    found = {c: first.column(c) for c in first.columns}
    in_train = int((~found[label].missing).sum())
    if test is not None and label in test.columns and test.rows:
        shared = [c for c in train.columns if c in test.columns]
        second = sample(test, shared, SAMPLED)
        found |= _joined(first, second, shared, label)
    known = ~found[label].missing
    return {c: v.at(known[: len(v)]) for c, v in found.items()}, in_train


def _joined(train: ArrayFrame, test: ArrayFrame, shared: list[str], label: str) -> dict[str, Column]:
    both = pooled((train.column(label), test.column(label)))
    if both is None:
        return {}
    joined = {label: both}
    for c in shared:
        column = pooled((train.column(c), test.column(c)))
        if column is not None:
            joined[c] = column
    return joined


def _read(column: Column, target: Target, limits: Limits, columns: int, in_train: int) -> Reading:
    if len(column) < target.rows:  # a column that test lacks, or holds as another kind
        return read_column(column, _first_rows(target, len(column)), limits, columns, role_of(column))
    reading = read_column(column, target, limits, columns, role_of(column))
    if not reading.signs and limits.min_rows <= in_train < target.rows:
        alone, labels = column.at(np.arange(in_train)), _first_rows(target, in_train)
        only = read_column(alone, labels, limits, columns, role_of(alone))
        reading = only if only.signs else reading  # test may lack what train gives away
    if _names_apart(column, in_train):
        return replace(reading, signs=tuple(s for s in reading.signs if s.limit != "max_auc_alone"))
    return reading


def _names_apart(column: Column, in_train: int) -> bool:
    """Tell whether a column of many names (patients, shops) has others in test: it cannot give away the label there."""
    if column.kind != "text" or in_train == len(column):
        return False
    here, there = (set(column.values[s].tolist()) for s in (slice(in_train), slice(in_train, None)))
    return len(here | there) > 20 and not here & there


def _first_rows(target: Target, rows: int) -> Target:
    return Target(
        target.name,
        target.known[:rows],
        None if target.classes is None else target.classes[:rows],
        target.names,
        None if target.numbers is None else target.numbers[:rows],
    )


_NUMBER_NAME = re.compile(
    r"(unnamed(: ?\d+)?|(row|obs|case|sample)?[ _.]?(id|index|idx|no|nr|num|number|names?)|rownames?|\w+[ _.-]id|)",
    re.I,
)


_TIME_NAME = re.compile(r".*(year|month|week|day|date|time|hour|period|quarter|step)s?|t|yr", re.I)


def role_of(column: Column) -> Role:
    """Tell row numbers and clocks (a year, a day counted from the start) from measurements."""
    if column.kind == "time" or (_TIME_NAME.fullmatch(column.name) and _is_whole(column)):
        return "clock"
    return "row number" if numbers_rows(column) else "measurement"


def numbers_rows(column: Column) -> bool:
    """Tell whether a column only numbers rows: whole numbers, no two alike, without gaps or called so."""
    if not _is_whole(column) or column.missing.any() or len(column) < 10 or _TIME_NAME.fullmatch(column.name):
        return False
    values = column.numbers()
    if len(np.unique(values)) < len(values):
        return False
    dense = float(np.ptp(values)) + 1 <= 1.1 * len(values)
    return dense or _NUMBER_NAME.fullmatch(column.name.strip()) is not None


def _is_whole(column: Column) -> bool:
    values = column.values[~column.missing]
    return column.kind == "number" and bool((values == np.round(values)).all())


def _finding(
    target: Target,
    readings: list[Reading],
    limits: Limits,
    allowed: tuple[tuple[str, str], ...],
    train: Frame,
) -> Finding:
    measure = "AUC" if target.classes is not None else "R²"
    ordered = sorted(readings, key=lambda r: (-_weight(r), -r.strength))
    looked_at = f"{len(readings)} columns in {target.rows:,} rows against {target.name!r}"
    if train.rows > SAMPLED:
        looked_at += f", sampled by a hash of their content from {train.rows:,}"
    if not ordered or not ordered[0].signs:
        best = max(readings, key=lambda r: r.strength, default=None)
        strongest = f"; strongest is {best.column!r}, {measure} {number(best.strength, 3)}" if best else ""
        return Finding(
            ok=True,
            headline=f"no column gives {target.name!r} away{strongest}",
            amount=best.strength if best else None,
            limit=("max_auc", limits.max_auc) if measure == "AUC" else ("max_r2", limits.max_r2),
            looked_at=looked_at,
            allowed=allowed,
            evidence="inference",
        )
    culprit, sign = ordered[0], max(ordered[0].signs, key=lambda s: s.weight)
    bound = float(getattr(limits, sign.limit))
    others = [r.column for r in ordered[1:] if r.signs]
    return Finding(
        ok=False,
        headline=f"{culprit.column!r} {sign.claim}, {_amount(sign, measure)} ({sign.limit}={bound:g})",
        culprit=culprit.column,
        amount=sign.amount,
        limit=(sign.limit, bound),
        table=_table(ordered, measure),
        shows=sign.shows
        + _rest(ordered, measure)
        + (f" Likewise: {', '.join(map(repr, others[:5]))}." if others else ""),
        next_step=f"ask when {culprit.column!r} is written: before the prediction is made, or after the outcome is known?",
        evidence=sign.evidence,
        allowed=allowed,
        details={"columns": [r.column for r in ordered if r.signs]},
    )


def _weight(reading: Reading) -> float:
    return max((s.weight for s in reading.signs), default=0.0)


def _amount(sign: Sign, measure: str) -> str:
    name = "share" if sign.limit == "max_purity" else measure
    return f"{name} {number(sign.amount, 3)}"


_SHOWN = 5


def _table(ordered: list[Reading], measure: str) -> Table:
    rows = []
    for r in ordered[:_SHOWN]:
        shuffled = f"0.50 ± {r.spread:.2f}" if measure == "AUC" else f"0.00 ± {r.spread:.2f}"
        told = max([r.strength, *(s.amount for s in r.signs if s.limit != "max_purity")])  # by its gaps, say
        rows.append((r.column, round(told, 4), shuffled, r.rows))
    return Table(("column", measure, "shuffled labels", "rows"), tuple(rows), 0)


def _rest(ordered: list[Reading], measure: str) -> str:
    rest = ordered[_SHOWN:]
    if not rest:
        return ""
    most = max(r.strength for r in rest)
    reach = "1 more column reaches" if len(rest) == 1 else f"{len(rest)} more columns reach"
    return f" {reach} {measure} {number(most, 3)}{' or less' if len(rest) > 1 else ''}."
