import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from pytest_mltd.checks.tables import strength

values = st.lists(st.integers(-5, 5).map(float), min_size=4, max_size=40)


@given(values, st.randoms(use_true_random=False))
def test_the_area_is_scikit_learns(numbers, random):
    """Ties count half, as the peer has it."""
    x = np.array(numbers)
    y = np.array([True, False] + [random.random() < 0.5 for _ in x[2:]])
    assert strength.auc(x, y) == pytest.approx(roc_auc_score(y, x))
    assert strength.auc(x, y, np.full(len(x), 2.0)) == pytest.approx(roc_auc_score(y, x))


@given(values)
def test_ranks_are_scipys(numbers):
    """Ties at their mean, from 0."""
    assert strength.ranks(np.array(numbers)).tolist() == (stats.rankdata(numbers) - 1).tolist()


def test_an_empty_side_has_no_area():
    """NaN, not half."""
    assert np.isnan(strength.auc(np.array([1.0, 2.0]), np.array([True, True])))


def test_the_spread_is_what_shuffling_gives():
    """Mann and Whitney's formula against 2,000 shuffles."""
    rng = np.random.default_rng(0)
    y = np.arange(60) < 20
    areas = [strength.auc(rng.permutation(60).astype(float), y) for _ in range(2000)]
    assert strength.shuffled_spread(20, 40) == pytest.approx(np.std(areas), rel=0.08)


def test_levels_seen_once_say_nothing():
    """Names have no strength; levels that hold one class have all of it."""
    y = np.arange(100) % 2 == 0
    assert strength.level_area(np.arange(100), y) <= 0.5
    assert strength.level_area(np.where(y, 1, 0), y) == 1.0


def test_resolution_is_the_last_digit_written():
    """0.1 for one decimal, 1 for whole numbers, 0 for arithmetic."""
    assert strength.resolution(np.array([1.1, 2.5, 10.3])) == pytest.approx(0.1)
    assert strength.resolution(np.array([3.0, 7.0, 11.0])) == 1.0
    assert strength.resolution(np.array([1 / 3, 2 / 7])) == 0.0


@pytest.mark.parametrize(("y", "expected"), [([1, 1, 2, 5], True), ([5, 4, 4, 1], True), ([1, 3, 2, 4], False)])
def test_monotone_both_ways(y, expected):
    """Never falls or never rises."""
    assert strength.is_monotone(np.arange(4.0), np.array(y, float)) is expected


def test_few_by_luck_is_poissons():
    """The lower tail."""
    assert strength.few_by_luck(3, 10.0) == pytest.approx(stats.poisson.cdf(3, 10.0))
