import numpy as np
import pandas as pd
import pytest

from pytest_mltd.checks.tables.chance import chance_count
from pytest_mltd.checks.tables.frames import open_table
from pytest_mltd.checks.tables.matching import shared_columns, shared_rows


def estimate(train, test):
    first, second = open_table(train, "train"), open_table(test, "test")
    columns = shared_columns(first, second)
    shared = shared_rows(first, second, columns)
    return shared.count, chance_count(shared, first.rows, second.rows, columns)


@pytest.mark.parametrize("levels", [6, 8, 10])
def test_independent_columns_are_explained_whole(levels):
    """Rows of five dice agree as often as the estimate says, to a factor of two."""
    rng = np.random.default_rng(levels)
    frame = pd.DataFrame(rng.integers(0, levels, (6000, 5)))
    count, expected = estimate(frame[:4000], frame[4000:])
    assert count > 30
    assert 0.5 * count < expected <= 2 * count


def test_copies_are_not_explained():
    """Real-valued rows that were copied: chance explains none."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(3000, 5)).round(2))
    count, expected = estimate(frame[:2000], pd.concat([frame[2000:], frame[:100]]))
    assert count == 100
    assert expected < 0.5


def test_so_few_cells_that_each_expects_a_row():
    """Three flags: all of it is chance, also where one is made from the others."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 2, (300, 2))).assign(c=lambda f: f[0] ^ f[1])
    count, expected = estimate(frame[:200], frame[200:])
    assert expected == count == 100
