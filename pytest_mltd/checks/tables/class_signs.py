"""Signs of a leak where the label is a class: copies, marks, row numbers, words, absence."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.tables.columns import Column, written
from pytest_mltd.checks.tables.signs import ALONE, Limits, Reading, Role, Sign
from pytest_mltd.checks.tables.strength import (
    Bools,
    binned,
    few_by_luck,
    folded,
    level_area,
    shuffled_spread,
    tokens,
    weakest_pair,
)
from pytest_mltd.checks.tables.target import Target


def read_against_classes(column: Column, target: Target, limits: Limits, columns: int, role: Role) -> Reading:
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
    # Levels judged by their other rows tell less than nothing where they tell nothing: 0.39 is no lack of 0.5.
    strength = 0.5 if math.isnan(strength) else max(strength, 0.5)
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
    if strength > limits.max_auc_alone and fewest >= ALONE and not signs:
        signs.append(_alone(strength, target))
    if column.kind in ("text", "nested") and len(levels) > 20 and not signs:
        signs += _told_in_words(column, classes, target, limits)
    return signs


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
