"""What speaks for a leak in one column, besides its strength. A sign is what an honest measurement would hardly show."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.tables.columns import Column, written
from pytest_mltd.checks.tables.strength import (
    Bools,
    Floats,
    auc,
    binned,
    curve_errors,
    few_by_luck,
    folded,
    is_monotone,
    level_area,
    ranks,
    resolution,
    shuffled_spread,
    straight_r2,
    tokens,
    weakest_pair,
)
from pytest_mltd.checks.tables.target import Target
from pytest_mltd.core.findings import EvidenceKind

Role = Literal["measurement", "row number", "clock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What `check_label_leak` was given; see there."""

    max_auc: float
    max_auc_alone: float
    max_purity: float
    max_r2: float
    max_r2_alone: float
    min_rows: int


@dataclass(frozen=True, slots=True)
class Sign:
    """One reason to call a column a leak. ``claim`` completes "'column' …"; ``weight`` orders them, strongest first."""

    claim: str
    limit: str
    amount: float
    shows: str
    weight: float
    evidence: EvidenceKind = "observation"


@dataclass(frozen=True, slots=True)
class Reading:
    """How strongly one column tells the label, and the signs found. ``strength`` is an AUC, or R² for an amount."""

    column: str
    strength: float
    spread: float
    rows: int
    signs: tuple[Sign, ...] = field(default=())


def read_column(column: Column, target: Target, limits: Limits, columns: int, role: Role) -> Reading:
    """Return what a column (of the rows in which the label is known) tells of the label.

    ``columns`` is how many are looked at: with many of them one parts few rows by luck. ``role`` says whether the column
    only numbers the rows, or is a clock, along which an honest amount may grow without exception.
    """
    with np.errstate(all="ignore"):  # infinite and huge values give no line and no sign, which is the answer
        return _read(column, target, limits, columns, role)


def _read(column: Column, target: Target, limits: Limits, columns: int, role: Role) -> Reading:
    if target.classes is not None:
        reading = _of_classes(column, target, limits, columns, role)
        if target.numbers is None or len(target.names) == 2:
            return reading
        signs = _signs_of_order(column, target.numbers, limits, role)
        return Reading(column.name, reading.strength, reading.spread, reading.rows, (*reading.signs, *signs))
    assert target.numbers is not None
    return _of_amount(column, target.numbers, limits, role)


# classes


def _of_classes(column: Column, target: Target, limits: Limits, columns: int, role: Role) -> Reading:
    assert target.classes is not None
    count = len(target.names)
    sizes = np.bincount(target.classes, minlength=count)
    present = ~column.missing
    strength, signs = 0.5, []
    if present.any():
        held, classes = column.at(present), target.classes[present]
        strength = _strength(held, classes, count, limits.min_rows)
        signs += _signs_of_values(held, classes, target, strength, limits, role)
    signs += _signs_of_absence(column.missing, target, sizes, limits, columns)
    if math.isnan(strength):
        strength = 0.5
    most = int(sizes.max())
    spread = shuffled_spread(most, len(target.classes) - most)
    return Reading(column.name, strength, spread, int(present.sum()), tuple(signs))


def _strength(column: Column, classes: NDArray[np.int64], count: int, fewest: int) -> float:
    """Return how well a column parts every class from its neighbour (0.5 to 1)."""
    fewest = min(fewest, max(int(np.median(np.bincount(classes, minlength=count))) // 2, 1))
    if column.kind in ("text", "nested"):
        return _by_levels(column.codes()[0], classes, count, fewest)
    values = column.numbers()
    area = weakest_pair(values, classes, count, fewest)
    if len(values) >= 200 and not area > 0.9:
        by_levels = _by_levels(binned(values), classes, count, fewest)
        return max(area, by_levels) if not math.isnan(area) else by_levels
    return area


def _by_levels(codes: NDArray[np.int64], classes: NDArray[np.int64], count: int, fewest: int) -> float:
    sizes = np.bincount(classes, minlength=count)
    wanted = [1] if count == 2 else [k for k in range(count) if sizes[k] >= fewest]
    return min((level_area(codes, classes == k) for k in wanted), default=math.nan)


def _signs_of_values(
    column: Column, classes: NDArray[np.int64], target: Target, strength: float, limits: Limits, role: Role
) -> list[Sign]:
    codes, levels = column.codes()
    table = _crossed(codes, classes, len(levels), len(target.names)) if len(levels) <= 1000 else None
    fewest = _fewest(classes, len(target.names))
    signs = []
    if table is not None and len(levels) <= max(len(target.names), 20):
        signs += _copy(table, levels, target, limits)
        if not signs:
            signs += _function_of_label(table, levels, target, limits)
    if role == "row number" and strength > limits.max_auc and fewest >= limits.min_rows // 2:
        signs.append(_row_number(strength, target))
    if column.kind in ("number", "span", "time") and len(levels) >= 10 and role != "row number":
        signs += _special_value(column, codes, levels, classes, target, limits)
        signs += _islands(column, classes, target, strength, limits)
    if strength > limits.max_auc_alone and fewest >= _ALONE and not signs:
        signs.append(_alone(strength, target))
    if column.kind in ("text", "nested") and len(levels) > 20 and not signs:
        signs += _told_in_words(column, classes, target, limits)
    return signs


_ALONE = 100  # rows of the rarer class; among fewer a strong measurement parts two classes without an error


def _crossed(codes: NDArray[np.int64], classes: NDArray[np.int64], levels: int, count: int) -> NDArray[np.int64]:
    return np.bincount(codes * count + classes, minlength=levels * count).reshape(levels, count)


def _fewest(classes: NDArray[np.int64], count: int) -> int:
    sizes = np.bincount(classes, minlength=count)
    return int(sizes[sizes > 0].min())


def _copy(table: NDArray[np.int64], levels: list[object], target: Target, limits: Limits) -> list[Sign]:
    """One value for each class and one class for each value: the label in another spelling."""
    used = table.sum(axis=1) > 0
    table = table[used]
    total = int(table.sum())
    wrong = total - int(table.max(axis=1).sum())
    there_and_back = len(table) >= 2 and len(set(table.argmax(axis=1).tolist())) == len(target.names) == len(table)
    rarest = int(table.max(axis=1).min())
    if not there_and_back or total < limits.min_rows or wrong > 0.01 * rarest or rarest < 5:
        return []
    kept = [lv for lv, u in zip(levels, used, strict=True) if u]
    pairs = ", ".join(
        f"{written(kept[i])!r} is {target.names[k]!r}" for i, k in list(enumerate(table.argmax(axis=1)))[:2]
    )
    exact = "in every row" if not wrong else f"in all but {wrong} of {total:,} rows"
    return [
        Sign(
            f"is {target.name!r} in another spelling ({pairs})",
            "max_auc",
            1.0 - wrong / total,
            f"Each value stands for one class and each class for one value, {exact} of {total:,}."
            if not wrong
            else f"Each value stands for one class and each class for one value, {exact}.",
            4.0,
            "definition" if not wrong else "observation",
        )
    ]


def _function_of_label(table: NDArray[np.int64], levels: list[object], target: Target, limits: Limits) -> list[Sign]:
    """Every class has one value only, and several classes may share it: made from the label (a flag, a coarser class)."""
    used = table[table.sum(axis=1) > 0]
    exact = bool(((used > 0).sum(axis=0) <= 1).all())
    if len(target.names) < 3 or len(used) < 2 or not exact or int(used.sum(axis=1).min()) < 50:
        return []
    return [
        Sign(
            f"is the same for all rows of a class of {target.name!r}, without exception",
            "max_auc",
            1.0,
            f"{len(used)} values over {len(target.names)} classes in {int(used.sum()):,} rows, and no class has two of them.",
            2.5,
        )
    ]


def _row_number(strength: float, target: Target) -> Sign:
    return Sign(
        f"numbers the rows and predicts {target.name!r}: the table was sorted by the label",
        "max_auc",
        strength,
        "A row number measures nothing; it tells the class because the rows of a class once stood together.",
        3.5,
    )


def _special_value(
    column: Column,
    codes: NDArray[np.int64],
    levels: list[object],
    classes: NDArray[np.int64],
    target: Target,
    limits: Limits,
) -> list[Sign]:
    """One value of a measurement (0, -1, 9999) that stands exactly with one class."""
    counts = np.bincount(codes)
    at = int(counts.argmax())
    marked = codes == at
    size = int(marked.sum())
    if size < limits.min_rows or size < 0.02 * len(codes) or len(codes) - size < limits.min_rows:
        return []
    sign = _best_class(marked, classes, target)
    area, k, inside, size, total = sign
    if area <= limits.max_auc + 0.01 or total < limits.min_rows:
        return []
    value = written(levels[at])
    return [
        Sign(
            f"is {value} in {inside:,} of {total:,} rows of {target.name!r} = {target.names[k]!r} and in "
            f"{size - inside:,} of {len(codes) - total:,} others",
            "max_auc",
            area,
            f"One value of a measurement, {value}, parts the classes: as if it were written once the outcome is known.",
            3.0,
        )
    ]


def _best_class(marked: Bools, classes: NDArray[np.int64], target: Target) -> tuple[float, int, int, int, int]:
    """Return (area, class, marked rows of it, marked rows, rows of it) for the class a mark tells best."""
    best = (0.5, 0, 0, 0, 0)
    for k in range(len(target.names)):
        of_class = classes == k
        total, inside, size = int(of_class.sum()), int((marked & of_class).sum()), int(marked.sum())
        if not total or total == len(classes):
            continue
        recall = inside / total
        area = folded(0.5 + (recall - (size - inside) / (len(classes) - total)) / 2)
        if (area, recall) > (best[0], best[2] / max(best[4], 1)):  # of two classes, the one that has the mark
            best = (area, k, inside, size, total)
    return best


def _islands(column: Column, classes: NDArray[np.int64], target: Target, strength: float, limits: Limits) -> list[Sign]:
    """Values that crowd around one constant for each class: the label with a little noise on it."""
    if strength < 1.0 or _fewest(classes, len(target.names)) < limits.min_rows // 2:
        return []
    values = column.numbers()
    groups = sorted(
        (values[classes == k] for k in range(len(target.names)) if (classes == k).any()), key=lambda g: float(g.mean())
    )
    gaps = [float(b.min() - a.max()) for a, b in itertools.pairwise(groups)]
    width = max(float(g.std()) for g in groups)
    if not gaps or min(gaps) < _ISLAND * width:
        return []
    return [
        Sign(
            f"lies close around one value for each class of {target.name!r}, with nothing between",
            "max_auc",
            strength,
            f"The gap between the classes is {min(gaps) / width if width else math.inf:.0f} times the spread within them: "
            "too clean for a measurement.",
            3.2,
        )
    ]


_ISLAND = 6.0  # standard deviations within a class; iris' petal length, the cleanest honest column known, has 2.1


def _alone(strength: float, target: Target) -> Sign:
    return Sign(
        f"alone predicts {target.name!r}",
        "max_auc_alone",
        strength,
        "Strength is all that is seen: suspicious, not proved.",
        1.0,
        "inference",
    )


_TEXTS = 20_000


def _told_in_words(column: Column, classes: NDArray[np.int64], target: Target, limits: Limits) -> list[Sign]:
    """A word in free text that stands in the rows of one class only, and in nearly all of them."""
    codes, levels = column.codes()
    if len(levels) > _TEXTS:  # every row its own text: some thousands tell as much
        few = np.arange(0, len(codes), len(codes) // _TEXTS + 1)
        return _told_in_words(column.at(few), classes[few], target, limits)
    table = _crossed(codes, classes, len(levels), len(target.names))
    counts: dict[str, NDArray[np.int64]] = {}
    phrases = [n.lower() for n in target.names if " " in n or not n.isalnum()] if len(target.names) <= 20 else []
    for text, words, of_level in zip(levels, tokens(levels), table, strict=True):
        for word in (*words, *(p for p in phrases if p in text.lower())):
            counts[word] = counts[word] + of_level if word in counts else of_level
    sizes = np.bincount(classes, minlength=len(target.names))
    told: list[tuple[float, str, int]] = []
    for word, of in counts.items():
        if of.sum() < limits.min_rows // 2:
            continue
        k = int(np.argmax(of / np.maximum(sizes, 1)))
        recall, precision = of[k] / max(int(sizes[k]), 1), of[k] / of.sum()
        if sizes[k] < limits.min_rows // 2 or precision <= limits.max_purity:
            continue
        false = (of.sum() - of[k]) / max(int(sizes.sum() - sizes[k]), 1)
        is_name = word == target.names[k].lower() and len(word) > 1
        area = 0.5 + (recall - false) / 2
        if area > limits.max_auc + 0.02 or (is_name and recall > 0.5):
            told.append((area, word, k))
    if not told:
        return []
    area, word, k = max(told)
    return [
        Sign(
            f"says the label in words: {word!r} stands in {counts[word][k]:,} of {int(sizes[k]):,} rows of "
            f"{target.name!r} = {target.names[k]!r} and in {counts[word].sum() - counts[word][k]:,} others",
            "max_purity",
            counts[word][k] / counts[word].sum(),
            "A word that goes with one class in nearly every row was hardly written before the outcome.",
            2.8,
        )
    ]


def _signs_of_absence(
    missing: Bools, target: Target, sizes: NDArray[np.int64], limits: Limits, columns: int
) -> list[Sign]:
    """Where a value is missing tells the class: the column is filled once the outcome is known."""
    assert target.classes is not None
    filled = ~missing
    count = int(filled.sum())
    if not count or count == len(filled):
        return []
    area, k, inside, size, total = _best_class(filled, target.classes, target)
    if area > limits.max_auc and min(total, len(filled) - total) >= limits.min_rows // 2:
        return [
            Sign(
                f"is filled in {inside:,} of {total:,} rows of {target.name!r} = {target.names[k]!r} and in "
                f"{size - inside:,} of {len(filled) - total:,} others",
                "max_auc",
                area,
                "Whether it is missing tells the class: as if it were written once the outcome is known.",
                3.8,
            )
        ]
    return _pure_side(filled, target, sizes, limits, columns)


_COMMON = 0.8  # share of a class above which a pure side is no news; a guess


def _pure_side(filled: Bools, target: Target, sizes: NDArray[np.int64], limits: Limits, columns: int) -> list[Sign]:
    """All filled (or all empty) rows are of one class, though the others are mixed."""
    assert target.classes is not None
    for side, word, fewest in ((filled, "filled", limits.min_rows), (~filled, "missing", 2 * limits.min_rows)):
        rows = int(side.sum())
        if rows < fewest or (word == "missing" and len(target.names) > 2):
            continue  # of several classes one may well lack what is asked of the others: children have no income
        of = np.bincount(target.classes[side], minlength=len(target.names))
        k = int(of.argmax())
        share = float(sizes[k]) / len(filled)
        purity = float(of[k]) / rows
        others, expected = rows - int(of[k]), rows * (1 - share)
        honest = share > _COMMON or others > 0.05 * expected  # new houses have both a veneer and a paved drive
        if purity > limits.max_purity and not honest and few_by_luck(others, expected) * columns < 1e-6:
            return [
                Sign(
                    f"is {word} in {rows:,} rows, {int(of[k]):,} of them {target.name!r} = {target.names[k]!r}",
                    "max_purity",
                    purity,
                    f"That class has {share:.0%} of all rows: where it is {word} tells the outcome.",
                    1.8,
                )
            ]
    return []


# amounts


def _of_amount(column: Column, amounts: Floats, limits: Limits, role: Role) -> Reading:
    present = ~column.missing
    held, target = column.at(present), amounts[present]
    strength = _share_explained(held, target) if len(target) > 2 else 0.0
    signs = _signs_of_order(column, amounts, limits, role)
    ordered = column.kind == "time" or role != "measurement"
    if (
        role == "row number"
        and len(target) >= 50
        and len(np.unique(target)) >= 30
        and is_monotone(held.numbers(), target)
    ):
        signs.append(_IN_ORDER)
    if held.kind not in ("text", "nested") and len(target) >= limits.min_rows and not signs:
        signs += _another_scale(held.numbers(), target) or (
            [] if ordered else _signs_of_curve(held.numbers(), target, limits)
        )
    return Reading(column.name, strength, 1.0 / math.sqrt(max(len(target), 1)), len(target), tuple(signs))


def _share_explained(column: Column, target: Floats) -> float:
    """Return the R² of a line in the values, in their ranks, or of the levels' means, whichever is best."""
    if column.kind in ("text", "nested"):
        return _by_level_means(column.codes()[0], target)
    values = column.numbers()
    return max(straight_r2(values, target), straight_r2(ranks(values), ranks(target)))


def _by_level_means(codes: NDArray[np.int64], target: Floats) -> float:
    """Return the share of the variance between levels, each row judged by the others of its level."""
    sizes = np.bincount(codes).astype(np.float64)
    sums = np.bincount(codes, weights=target)
    several = sizes[codes] > 1
    if several.sum() < 3 or not target.var() > 0:
        return 0.0
    guess = (sums[codes] - target)[several] / (sizes[codes][several] - 1)
    rest = float(np.mean((target[several] - guess) ** 2))
    return max(0.0, (1 - rest / float(target.var())) * float(several.mean()))


def _signs_of_order(column: Column, amounts: Floats, limits: Limits, role: Role) -> list[Sign]:
    """A flag, a band or a missing mark that cuts the label's range into stretches without one error."""
    if role != "measurement" or column.kind == "time":
        return _cut_by_absence(column.missing, amounts, limits)
    present = ~column.missing
    codes, levels = column.at(present).codes()
    target = amounts[present]
    signs = _cut_by_absence(column.missing, amounts, limits)
    few = 2 <= len(levels) <= 50 and len(target) >= 5 * len(levels)
    if few and not signs and len(target) >= 2 * limits.min_rows:
        signs += _bands(codes, target, limits)
    return signs


def _bands(codes: NDArray[np.int64], target: Floats, limits: Limits) -> list[Sign]:
    groups = sorted((target[codes == k] for k in range(int(codes.max()) + 1)), key=lambda g: float(np.median(g)))
    if any(b.min() < a.max() for a, b in itertools.pairwise(groups)):
        return []
    sizes = sorted(len(g) for g in groups)
    # With two bands the rarer one must be large enough that nothing but the label could have cut it so.
    if len(target) - sizes[-1] < limits.min_rows or len({float(v) for g in groups for v in g}) <= len(groups):
        return []
    return [
        Sign(
            f"cuts the label into {len(groups)} stretches that do not overlap in any of {len(target):,} rows",
            "max_r2",
            1.0,
            "A column that never errs over the whole range of an amount was made from it.",
            3.0,
        )
    ]


def _cut_by_absence(missing: Bools, amounts: Floats, limits: Limits) -> list[Sign]:
    gone = int(missing.sum())
    if min(gone, len(missing) - gone) < limits.min_rows:
        return []
    area = folded(auc(amounts, missing))
    if area < 0.995:
        return []
    return [
        Sign(
            f"is missing exactly where the label is {'low' if auc(amounts, missing) < 0.5 else 'high'} ({gone:,} rows)",
            "max_r2",
            1.0,
            "Whether it is missing tells the amount: as if it were written once the outcome is known.",
            3.5,
        )
    ]


def _another_scale(values: Floats, target: Floats) -> list[Sign]:
    line = straight_r2(values, target)
    distinct = len(np.unique(target))
    if line > 1 - 1e-9 and distinct >= 10:
        return [
            Sign(
                "is the label on another scale",
                "max_r2",
                line,
                "A straight line gives every value back.",
                4.0,
                "definition",
            )
        ]
    return []


def _signs_of_curve(values: Floats, target: Floats, limits: Limits) -> list[Sign]:
    line = straight_r2(values, target)
    distinct = len(np.unique(target))
    if len(target) >= 50 and distinct >= 30 and len(np.unique(values)) >= 30 and is_monotone(values, target):
        return [_IN_ORDER]
    if len(target) >= 50 and distinct >= 30:
        share = _rule_without_error(values, target)
        if share > 0.9:
            return [
                Sign(
                    "gives the label back by a rule with no more error than rounding",
                    "max_r2",
                    share,
                    f"In {share:.0%} of the rows the label is what the neighbours' curve says, to the last digit written.",
                    3.0,
                )
            ]
    if line > limits.max_r2_alone and len(target) >= _ALONE:
        return [
            Sign(
                "alone predicts the label",
                "max_r2_alone",
                line,
                "Strength is all that is seen: suspicious, not proved.",
                1.0,
                "inference",
            )
        ]
    return []


_IN_ORDER = Sign(
    "puts all rows in the order of the label",
    "max_r2",
    1.0,
    "No two rows stand in another order: a function of the label (a logarithm, a rank, the number of a row when sorted).",
    3.9,
)


def _rule_without_error(values: Floats, target: Floats) -> float:
    """Return the share of rows whose label lies on the curve through its neighbours to within rounding."""
    step = resolution(target)
    span = float(np.ptp(target))
    if not span > 0 or (step and span / step < 50):
        return 0.0
    levels, counts = np.unique(target, return_counts=True)
    telling = target != levels[counts.argmax()]  # where most labels are 0, any curve says 0
    if telling.sum() < 0.5 * len(target):
        return 0.0
    values, target = values[telling], target[telling]
    errors, slope = curve_errors(values, target)
    if len(errors) < 0.5 * len(target):
        return 0.0
    rounding = 1.5 * step + 1.5 * slope * resolution(values)
    allowed = np.maximum(rounding, 1e-6 * span)
    # Rounding that is a large part of the spread would call anything exact.
    return float(np.mean((errors <= allowed) & (allowed < 0.01 * span)))
