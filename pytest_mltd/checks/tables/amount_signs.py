"""Signs of a leak where the label is an amount: another scale, an order, bands, a rule without error, absence."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.tables.columns import Column
from pytest_mltd.checks.tables.signs import ALONE, Limits, Reading, Role, Sign
from pytest_mltd.checks.tables.strength import (
    Bools,
    Floats,
    auc,
    curve_errors,
    folded,
    is_monotone,
    ranks,
    resolution,
    straight_r2,
)


def read_against_amount(column: Column, amounts: Floats, limits: Limits, role: Role) -> Reading:
    present = ~column.missing
    held, target = column.at(present), amounts[present]
    strength = _share_explained(held, target) if len(target) > 2 else 0.0
    signs = signs_of_order(column, amounts, limits, role)
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


def signs_of_order(column: Column, amounts: Floats, limits: Limits, role: Role) -> list[Sign]:
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
    if line > limits.max_r2_alone and len(target) >= ALONE:
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
