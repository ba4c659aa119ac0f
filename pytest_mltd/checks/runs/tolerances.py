"""How much worse is too much: from the spread over the baseline's seeds, or the default where there is none."""

from __future__ import annotations

import functools
import math
import statistics
from dataclasses import dataclass

from pytest_mltd.core.rendering import number

FEWEST_SEEDS = 3  # two values have one difference: the spread told from it is off by a factor of 30 one time in 50
FLOOR = 0.1  # of the default tolerance; a guess: less is not worth an alarm, however well the seeds agree

Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """An amount in the metric's own units, the argument it hangs on, where it comes from in a few words and in a sentence."""

    amount: float
    limit: tuple[str, float]
    source: str
    shows: str


def tolerance_from_spread(
    now: Values, then: Values, *, default: tuple[str, float], alpha: float, together: int
) -> Tolerance:
    """Return the tolerance that the baseline's seeds imply, between a tenth of the default and what many seeds would.

    ``default`` is the argument it comes from and its share of the baseline; ``together`` metrics share ``alpha``.
    """
    name, share = default
    plain = share * abs(statistics.fmean(then))
    sd = statistics.stdev(then) if len(then) >= FEWEST_SEEDS else 0.0
    if not sd > 0.0:
        why = "all seeds of the baseline agree" if len(then) >= FEWEST_SEEDS else f"the baseline has {seeds(len(then))}"
        shows = f"The default tolerance is {share:.3g} of the baseline: {why}, so the spread is unknown."
        shows += " State rtol= or atol=, or give at least 3 seeds."
        return Tolerance(plain, default, f"{name}={share:g}, {seeds(len(then))}", shows)
    each, error = alpha / max(1, together), math.sqrt(1 / len(then) + 1 / len(now))
    t, many = student(each, len(then) - 1), statistics.NormalDist().inv_cdf(1 - each)
    amount = max(FLOOR * plain, min(t * sd * error, max(plain, many * sd * error)))
    shows = (
        f"From the spread: sd {number(sd, 3)} over {seeds(len(then))}, √(1/{len(then)} + 1/{len(now)}) = {error:.3f}, "
        f"t = {t:.3g}{_bound(amount, t * sd * error, plain)}; a change of seed alone does this in less than {alpha:g}."
    )
    return Tolerance(amount, ("alpha", alpha), f"alpha={alpha:g}, spread of {seeds(len(then))}", shows)


def _bound(amount: float, by_t: float, default: float) -> str:
    if math.isclose(amount, by_t):
        return ""
    if amount > by_t:
        return f", raised to a tenth of the default tolerance {number(default)}"
    at_default = math.isclose(amount, default)
    return f", held at the default {number(default)}" if at_default else ", held at its value for many seeds"


@functools.lru_cache(maxsize=256)
def student(alpha: float, freedom: int) -> float:
    """Return the value that Student's t with so many degrees of freedom exceeds with probability ``alpha``.

    By halving on the closed form for whole degrees of freedom (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1.0
    while _beyond(high, freedom) > alpha:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _beyond(middle, freedom) > alpha else (low, middle)
    return high


def _beyond(t: float, freedom: int) -> float:
    """Return the probability that Student's t exceeds ``t``."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle)
    term, total = (cosine, 0.0) if freedom % 2 else (1.0, 0.0)
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= cosine**2 * (2 * k / (2 * k + 1) if freedom % 2 else (2 * k - 1) / (2 * k))
    inside = (2 / math.pi) * (angle + math.sin(angle) * total) if freedom % 2 else math.sin(angle) * total
    return (1 - inside) / 2


def seeds(count: int) -> str:
    """Return "1 seed" or "5 seeds"."""
    return f"{count} seed" if count == 1 else f"{count} seeds"
