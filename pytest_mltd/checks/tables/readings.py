"""One column read against the label: how strongly it tells it, and what speaks for a leak."""

from __future__ import annotations

import numpy as np

from pytest_mltd.checks.tables.amount_signs import read_against_amount, signs_of_order
from pytest_mltd.checks.tables.class_signs import read_against_classes
from pytest_mltd.checks.tables.columns import Column
from pytest_mltd.checks.tables.signs import Limits, Reading, Role
from pytest_mltd.checks.tables.target import Target


def read_column(column: Column, target: Target, limits: Limits, columns: int, role: Role) -> Reading:
    """Return what a column (of the rows in which the label is known) tells of the label.

    ``columns`` is how many are looked at: with many of them one parts few rows by luck. ``role`` says whether the column
    only numbers the rows, or is a clock, along which an honest amount may grow without exception.
    """
    with np.errstate(all="ignore"):  # infinite and huge values give no line and no sign, which is the answer
        return _read(column, target, limits, columns, role)


def _read(column: Column, target: Target, limits: Limits, columns: int, role: Role) -> Reading:
    if target.classes is not None:
        reading = read_against_classes(column, target, limits, columns, role)
        if target.numbers is None or len(target.names) == 2:
            return reading
        signs = signs_of_order(column, target.numbers, limits, role)
        return Reading(column.name, reading.strength, reading.spread, reading.rows, (*reading.signs, *signs))
    assert target.numbers is not None
    return read_against_amount(column, target.numbers, limits, role)
