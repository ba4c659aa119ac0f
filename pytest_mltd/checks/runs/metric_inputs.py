"""What a caller hands to the metric check, parsed once at the edge: paths to numbers, keys that must name a metric, limits."""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Mapping
from typing import Any

Values = tuple[float, ...]
PerMetric = float | Mapping[str, float]


def flatten(argument: str, metrics: Mapping[str, Any], path: str = "") -> dict[str, Values]:
    """Return the metrics by path, each as the numbers of its seeds."""
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f'{argument}: a mapping of metrics is needed, as in {{"val": {{"auc": 0.91}}}}, not {metrics!r}'
        )
    flat: dict[str, Values] = {}
    for key, value in metrics.items():
        place = f"{path}/{key}" if path else str(key)
        found = (
            flatten(argument, value, place) if isinstance(value, Mapping) else {place: _values(argument, place, value)}
        )
        twice = set(flat) & set(found)
        if twice:
            raise ValueError(f"{argument}: {min(twice)!r} is given twice, nested and as a path")
        flat.update({k: v for k, v in found.items() if v})
    return flat


def _values(argument: str, place: str, value: Any) -> Values:
    if hasattr(value, "tolist"):
        value = value.tolist()  # a numpy array, a numpy scalar or a tensor
    items = list(value) if isinstance(value, list | tuple) else [value]
    found = []
    for item in items:
        item = item.item() if hasattr(item, "item") else item
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise TypeError(f"{argument}: {place!r} is {value!r}; a number, or a list of numbers over seeds, is needed")
        found.append(float(item))
    return tuple(found)


def keyed(argument: str, given: Mapping[str, Any] | None, *known: Mapping[str, Values]) -> Mapping[str, Any]:
    """Return a mapping by metric, each key of which names a metric that is there."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f'{argument}: a mapping by metric is needed, as in {argument}={{"val/auc": …}}, not {given!r}')
    places = sorted({p for k in known for p in k})
    for key in given:
        if not any(matches(str(key), place) for place in places):
            near = difflib.get_close_matches(str(key), [*places, *(p.rpartition("/")[2] for p in places)], 1)
            hint = f"the nearest is {near[0]!r}" if near else f"there are {', '.join(places[:5]) or 'none'}"
            raise ValueError(f"{argument}: no metric {key!r}; {hint}")
    if argument in ("minimum", "maximum"):
        for key, limit in given.items():
            if not _is_number(limit) or math.isnan(limit):
                raise ValueError(f"{argument}: {key!r} needs a number, not {limit!r}")
    return given


def per_metric(argument: str, given: PerMetric | None, *known: Mapping[str, Values]) -> PerMetric:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {k: at_least(argument, v, 0.0) for k, v in keyed(argument, given, *known).items()}
    return at_least(argument, given, 0.0)


def given_for(given: Any, place: str) -> float | None:
    """Return what is given for a metric: under its path, its own name, or a pattern, in that order."""
    if not isinstance(given, Mapping):
        return float(given)
    own = place.rpartition("/")[2]
    exact = next((given[k] for k in (place, own) if k in given), None)
    found = exact if exact is not None else next((v for k, v in given.items() if matches(str(k), place)), None)
    return None if found is None else float(found)


def matches(key: str, place: str) -> bool:
    return key in (place, place.rpartition("/")[2]) or fnmatch.fnmatchcase(place, key)


def at_least(argument: str, value: Any, least: float) -> float:
    if not _is_number(value) or not value >= least or math.isinf(value):
        raise ValueError(f"{argument}: a number of at least {least:g} is needed, not {value!r}")
    return float(value)


def probability(argument: str, value: Any) -> float:
    if not _is_number(value) or not 0.0 < value < 0.5:
        raise ValueError(f"{argument}: a probability between 0 and 0.5 is needed, not {value!r}")
    return float(value)


def _is_number(value: Any) -> bool:
    """Tell whether a limit is a number, numpy's own included."""
    value = value.item() if getattr(value, "size", 0) == 1 and hasattr(value, "item") else value
    return isinstance(value, int | float) and not isinstance(value, bool)
