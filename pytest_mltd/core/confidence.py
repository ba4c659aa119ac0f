"""How sure a finding may be: the kind of its evidence caps the confidence (PROCEDURE, "Confidence")."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from pytest_mltd.core.findings import EvidenceKind

CEILING: MappingProxyType[EvidenceKind, float] = MappingProxyType(
    {"inference": 0.70, "report": 0.70, "research": 0.85, "observation": 0.95, "definition": 0.95}
)


def ceiling(kinds: Iterable[EvidenceKind]) -> float:
    """Return the highest ceiling among the kinds of evidence at hand; 0.0 without any evidence.

    Raises:
        ValueError: a kind is unknown.
    """
    highest = 0.0
    for kind in kinds:
        if kind not in CEILING:
            raise ValueError(f"kinds: {kind!r} is none of {', '.join(CEILING)}")
        highest = max(highest, CEILING[kind])
    return highest


def capped(wanted: float, kinds: Iterable[EvidenceKind]) -> float:
    """Return the confidence a person may state: lowered as they like, never above the ceiling.

    Raises:
        ValueError: ``wanted`` is not within 0 and 1.
    """
    if not 0.0 <= wanted <= 1.0:
        raise ValueError(f"wanted: a confidence lies within 0 and 1, not {wanted!r}")
    return min(wanted, ceiling(kinds))
