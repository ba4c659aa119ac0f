"""Is any metric worse than it was: against a baseline, against targets, per split and subgroup, over seeds.

What counts as worse is the tolerance, and each row of the message says where its own came from: stated in the call; from
the spread over the baseline's seeds; or the default, when one seed is all there is.
"""

from __future__ import annotations

import difflib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_mltd.checks.runs.metric_inputs import (
    PerMetric,
    Values,
    at_least,
    flatten,
    given_for,
    keyed,
    matches,
    per_metric,
    probability,
)
from pytest_mltd.checks.runs.metric_names import Direction, cost_of, direction_of, milliseconds, wanders
from pytest_mltd.checks.runs.tolerances import FEWEST_SEEDS, Tolerance, tolerance_from_spread
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import clean, number

LATENCY_RATIO = 1.5  # a guess: medians of repeated timings differ by up to a third on a shared machine
SUSPICIOUS = 3.0  # times the tolerance; a guess: a jump up is not worse, but may be a leak, and is said
MEMORY_RATIO = 1.2  # a guess: peak memory repeats within a few percent, an extra copy of the batch is more


@check("metrics", rank=60)
def check_regression(
    current: Mapping[str, Any],
    baseline: Mapping[str, Any] | None,
    *,
    minimum: Mapping[str, float] | None = None,
    maximum: Mapping[str, float] | None = None,
    rtol: PerMetric | None = None,
    atol: PerMetric | None = None,
    direction: Direction | Mapping[str, Direction] | None = None,
    alpha: float = 0.01,
    default_rtol: float = 0.03,
    default_loss_rtol: float = 0.5,
    max_latency_ratio: float | None = None,
    max_memory_ratio: float | None = None,
    max_latency_ms: float | None = None,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether any metric is worse than its baseline by more than its tolerance, or misses its target.

    ``current`` and ``baseline`` map split → (subgroup →) metric → a number, or a list of numbers, one for each seed::

        check_regression({"val": {"auc": [0.91, 0.92, 0.90]}}, {"val": {"auc": [0.92, 0.93, 0.92]}}, minimum={"val/auc": 0.9})

    Means are compared; lists need not be equally long. A metric is named by its path ("val/auc"), its own name ("auc") or a
    pattern ("val/*"). Which direction is better is known from the usual names and stated for others. Latency, memory
    and throughput are compared as ratios of medians. NaN fails, and so does a metric that the baseline has and the run lacks.

    The tolerance; each row says which:

    * stated: ``atol + rtol * |baseline|``;
    * from the spread, when the baseline has at least 3 seeds: ``t * sd * sqrt(1/seeds then + 1/seeds now)``, Student's (1908)
      limit for a difference of means when nothing has changed, with the sd of the baseline alone, so that a run that has
      become unstable cannot excuse itself. Never wider than the larger of the default and the same with t at its value
      for many seeds; never narrower than a tenth of the default;
    * the default, when there is no spread: 3% of the baseline; 50% for losses, error rates and R², which wander more.

    A metric that became much better passes, and is named: a jump may be a leak.

    Measured on 10 programs of 40 seeds each (benchmarks/metric_regression.py), accuracy, F1 and AUC: a change of seed alone
    alarms in 0.9% of comparisons by the default and 0.6% by the spread (5 seeds each); a fall by 5% is seen in 98% and
    100%, one by 2% in 9% and 76%. Losses: 2.9% and 1.4%; doubled, 92% and 100%. The worst program, validated
    on 54 rows, alarms in 9% by the default: give seeds, or a tolerance, where the validation set is small.

    Args:
        current: the metrics now.
        baseline: the metrics when they were good; None asks only for the targets.
        minimum: the least mean over the seeds that passes, by metric.
        maximum: the largest mean over the seeds that passes, by metric.
        rtol: allowed worsening as a share of the baseline, one number or by metric.
        atol: allowed worsening in the metric's own units, one number or by metric.
        direction: "higher" or "lower", for all or by metric, where the name does not tell or tells wrongly.
        alpha: probability of a false alarm by the spread when only the seed has changed, for all metrics together, which share
            it. A convention, and strict, since each harmless change of the code draws again.
        default_rtol: the default tolerance as a share of the baseline, where there is no spread; measured as above.
        default_loss_rtol: the same for losses, error rates, R² and their like; measured as above.
        max_latency_ratio: largest ratio of the median latency to the baseline's (inverse for throughput); 1.5 unless given.
        max_memory_ratio: largest ratio of the median memory to the baseline's; 1.2 unless given.
        max_latency_ms: largest median latency in milliseconds. Metrics named ``latency_ms``, ``p95_latency_s`` and the like are
            held against it; without a unit in the name the number is taken as milliseconds.
        allow: metrics that may be worse, each with a reason.

    Raises:
        ValueError: no direction is known for a metric; a key matches no metric; a tolerance is negative.
        TypeError: a metric is neither a number nor a list of numbers.
    """
    now = flatten("current", current)
    then = {} if baseline is None else flatten("baseline", baseline)
    rules = _Rules(
        keyed("minimum", minimum, now, then),
        keyed("maximum", maximum, now, then),
        per_metric("rtol", rtol, now, then),
        per_metric("atol", atol, now, then),
        direction if isinstance(direction, str) else keyed("direction", direction, now, then),
        probability("alpha", alpha),
        at_least("default_rtol", default_rtol, 0.0),
        at_least("default_loss_rtol", default_loss_rtol, 0.0),
        at_least("max_latency_ratio", max_latency_ratio, 1.0) if max_latency_ratio is not None else LATENCY_RATIO,
        at_least("max_memory_ratio", max_memory_ratio, 1.0) if max_memory_ratio is not None else MEMORY_RATIO,
        None if max_latency_ms is None else at_least("max_latency_ms", max_latency_ms, 0.0),
    )
    _check_direction(rules.direction)
    if max_latency_ms is not None and not has_latency(current):
        raise ValueError(
            "max_latency_ms: no latency among the metrics; give its number, as in {'val': {'latency_ms': 12.5}}"
        )
    places, allowed = sift(allow, sorted({*now, *then}))
    together = sum(len(values) >= FEWEST_SEEDS for values in then.values())
    rows = [row for p in places for row in _compare(p, now.get(p, ()), then.get(p, ()), rules, together)]
    if not rows and not allowed:
        return not_asked(*_nothing(now, baseline))
    return _finding(rows, now, then, allowed)


assert_no_regression = asserting(check_regression)


def has_latency(current: Mapping[str, Any]) -> bool:
    """Tell whether a latency is among the metrics."""
    return any(cost_of(place) == "latency" for place in flatten("current", current))


@dataclass(frozen=True, slots=True)
class _Rules:
    minimum: Mapping[str, float]
    maximum: Mapping[str, float]
    rtol: float | Mapping[str, float]
    atol: float | Mapping[str, float]
    direction: Direction | Mapping[str, Direction]
    alpha: float
    default_rtol: float
    default_loss_rtol: float
    latency_ratio: float
    memory_ratio: float
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class _Row:
    """One metric held against one limit. ``badness`` above 1 fails, below 0 it is better than before.

    ``limit`` is the argument it hangs on and its value.
    """

    place: str
    then: float | None
    now: float | None
    allowed: float | None
    source: str
    badness: float
    headline: str
    shows: str
    limit: tuple[str, float] | None = None

    @property
    def failed(self) -> bool:
        return not self.badness <= 1.0


def _compare(place: str, now: Values, then: Values, rules: _Rules, together: int) -> list[_Row]:
    """Hold one metric against everything that concerns it."""
    if not now:
        return [_missing(place, then)] if then else []
    unusable = _not_finite(place, now, then)
    if unusable is not None:
        return [unusable]
    rows = _targets(place, now, rules)
    if then:
        cost = cost_of(place)
        rows.append(_ratio(place, now, then, rules) if cost else _against_baseline(place, now, then, rules, together))
    return rows


def _missing(place: str, then: Values) -> _Row:
    mean = statistics.fmean(then)
    text = f"{_named(place)} is missing; its baseline is {number(mean)}"
    return _Row(
        place, mean, None, None, "missing", math.inf, text, "The baseline has a metric that this run did not report."
    )


def _not_finite(place: str, now: Values, then: Values) -> _Row | None:
    for values, of in ((now, ""), (then, "the baseline of ")):
        bad = [v for v in values if not math.isfinite(v)]
        if bad:
            many = f" in {len(bad)} of {len(values)} seeds" if len(values) > 1 else ""
            text = f"{of}{_named(place)} is {number(bad[0])}{many}"
            shows = "A number that is not finite is no measurement: nothing can be said of this metric."
            means = [statistics.fmean(v) if v else None for v in (then, now)]
            return _Row(place, means[0], means[1], None, "not finite", math.inf, text, shows)
    return None


def _targets(place: str, now: Values, rules: _Rules) -> list[_Row]:
    """Hold one metric against the absolute targets: its mean over the seeds, a latency by its median."""
    rows = []
    mean = statistics.fmean(now)
    over = f", the mean of {len(now)} seeds" if len(now) > 1 else ""
    least, most = given_for(rules.minimum, place), given_for(rules.maximum, place)
    if least is not None:
        rows.append(_target(place, mean, "minimum", least, least - mean, over))
    if most is not None:
        rows.append(_target(place, mean, "maximum", most, mean - most, over))
    if rules.latency_ms is not None and cost_of(place) == "latency":
        ms = statistics.median(now) * milliseconds(place)
        rows.append(_target(place, ms, "max_latency_ms", rules.latency_ms, ms - rules.latency_ms, " ms"))
    return rows


def _target(place: str, value: float, name: str, wanted: float, missed: float, unit: str) -> _Row:
    limit = f"{name}={wanted:g}"
    text = f"{_named(place)} is {_apart(value, wanted)[0]}{unit} ({limit})"
    shows = f"The target is missed by {number(missed)}."
    return _Row(place, None, value, None, limit, _past(missed, wanted), text, shows, (name, wanted))


def _past(missed: float, wanted: float) -> float:
    """Return badness for a target: at most 1 when met; beyond, it grows with the share by which it is missed."""
    share = missed / abs(wanted) if wanted else missed
    return 1.0 + share if missed > 0 else 1.0 / (1.0 - share)


def _ratio(place: str, now: Values, then: Values, rules: _Rules) -> _Row:
    cost = cost_of(place)
    a, b = statistics.median(then), statistics.median(now)
    worse, better = (a, b) if cost == "throughput" else (b, a)
    ratio = worse / better if better > 0 else 1.0 if worse <= 0 else math.inf
    name, limit = (
        ("max_memory_ratio", rules.memory_ratio) if cost == "memory" else ("max_latency_ratio", rules.latency_ratio)
    )
    times = 1 / ratio if cost == "throughput" and ratio else ratio
    text = f"{_named(place)} is {number(times, 3)} times its baseline: {number(a)} then, {number(b)} now ({name}={limit:g})"
    shows = "Medians are compared. They hold only on one machine, with nothing else running."
    allowed = a - a / limit if cost == "throughput" else a * (limit - 1)
    return _Row(place, a, b, allowed, f"{name}={limit:g}", ratio / limit, text, shows, (name, limit))


def _against_baseline(place: str, now: Values, then: Values, rules: _Rules, together: int) -> _Row:
    higher = _direction(place, rules.direction) == "higher"
    a, b = statistics.fmean(then), statistics.fmean(now)
    worse = a - b if higher else b - a
    tolerance = _tolerance_of(place, now, then, rules, together)
    verb = "fell" if b < a else "rose" if b > a else "stayed"
    said = "stayed at" if a == b else f"{verb} from {_apart(a, b)[0]} to"
    text = (
        f"{_named(place)} {said} {_apart(b, a)[0]}, {number(abs(worse))} {'worse' if worse > 0 else 'better'}; "
        f"{number(tolerance.amount)} is allowed ({tolerance.source})"
    )
    # Rounding in the last digits is no change; a tolerance of 0 was asked for by somebody who means it.
    if abs(worse) <= 1e-12 * abs(a):
        badness = 0.0
    else:
        badness = worse / tolerance.amount if tolerance.amount else math.copysign(math.inf, worse)
    return _Row(place, a, b, tolerance.amount, tolerance.source, badness, text, tolerance.shows, tolerance.limit)


def _tolerance_of(place: str, now: Values, then: Values, rules: _Rules, together: int) -> Tolerance:
    rtol, atol = given_for(rules.rtol, place), given_for(rules.atol, place)
    if rtol is not None or atol is not None:
        stated = [(name, value) for name, value in (("rtol", rtol), ("atol", atol)) if value is not None]
        amount = (atol or 0.0) + (rtol or 0.0) * abs(statistics.fmean(then))
        source = ", ".join(f"{name}={value:g}" for name, value in stated)
        return Tolerance(amount, stated[0], source, "It is worse by more than the stated tolerance.")
    default = ("default_loss_rtol", rules.default_loss_rtol) if wanders(place) else ("default_rtol", rules.default_rtol)
    return tolerance_from_spread(now, then, default=default, alpha=rules.alpha, together=together)


def _finding(
    rows: Sequence[_Row], now: Mapping[str, Values], then: Mapping[str, Values], allowed: tuple[tuple[str, str], ...]
) -> Finding:
    ranked = sorted(rows, key=lambda r: -r.badness if not math.isnan(r.badness) else -math.inf)
    failing = [row for row in ranked if row.failed]
    details = {"current": _plainly(now), "baseline": _plainly(then)}
    if not failing:
        headline = f"no metric is worse ({len({r.place for r in rows})} asked)"
        nearest = f"; nearest to its limit: {ranked[0].headline}" if ranked else ""
        new = sorted(set(now) - set(then)) if then else []
        looked = f"{', '.join(sorted(now)[:8])}{' and more' if len(now) > 8 else ''}"
        looked += f"; not in the baseline: {', '.join(new[:5])}" if new else ""
        looked += "".join(f"; much better than its baseline: {r.headline}" for r in ranked if r.badness < -SUSPICIOUS)
        return Finding(ok=True, headline=headline + nearest, looked_at=looked, allowed=allowed, details=details)
    worst = failing[0]
    more = len({r.place for r in failing} - {worst.place})
    return Finding(
        ok=False,
        headline=worst.headline + (f"; {more} more {'metric fails' if more == 1 else 'metrics fail'}" if more else ""),
        culprit=worst.place,
        amount=worst.now,
        limit=worst.limit,
        table=_table(ranked),
        shows=worst.shows,
        next_step=_next(worst, sorted(now)),
        allowed=allowed,
        details=details,
    )


def _table(ranked: Sequence[_Row]) -> Table:
    rows = [
        (r.place, r.then, r.now, None if r.then is None or r.now is None else r.now - r.then, r.allowed, r.source)
        for r in ranked
    ]
    return Table(("metric", "baseline", "now", "change", "allowed", "limit from"), tuple(rows), culprit=0)


def _next(worst: _Row, known: Sequence[str]) -> str:
    if worst.source == "missing":
        near = difflib.get_close_matches(worst.place, known, 1)
        return (
            f"report it under its old name; the nearest now is {near[0]!r}"
            if near
            else "report it again, or make a new baseline"
        )
    if worst.source == "not finite":
        return "find the first step at which the loss or an input is not finite, then run again"
    if worst.then is None:
        return "compare with the last run that met the target: data, settings and commits in between"
    return "look at what changed since the baseline was made; if the new number is meant, make a new baseline"


def _nothing(now: Mapping[str, Values], baseline: Mapping[str, Any] | None) -> tuple[str]:
    if not now:
        return ("no metric was given",)
    return (
        "neither a baseline nor a target was given" if baseline is None else "the baseline has none of these metrics",
    )


def _direction(place: str, given: Direction | Mapping[str, Direction]) -> Direction:
    if isinstance(given, str):
        return given
    stated = next((v for k, v in given.items() if matches(str(k), place)), None)
    known = stated or direction_of(place)
    if known is None:
        own = place.rpartition("/")[2]
        raise ValueError(
            f'direction: is more or less of {_named(place)} better? Say direction={{"{own}": "higher"}} or "lower"'
        )
    return known


def _check_direction(given: Direction | Mapping[str, Direction]) -> None:
    said: Iterable[Any] = [given] if isinstance(given, str) else given.values()
    for value in said:
        if value not in ("higher", "lower"):
            raise ValueError(f'direction: "higher" or "lower" is needed, not {value!r}')


def _named(place: str) -> str:
    return f"'{clean(place, 80)}'"


def _apart(value: float, other: float) -> tuple[str, str]:
    """Return two numbers with as many digits as it takes to tell them apart."""
    for digits in range(4, 17):
        a, b = number(value, digits), number(other, digits)
        if a != b:
            break
    return a, b


def _plainly(metrics: Mapping[str, Values]) -> dict[str, Any]:
    return {place: values[0] if len(values) == 1 else list(values) for place, values in metrics.items()}
