"""What speaks for a leak in one column, besides its strength. A sign is what an honest measurement would hardly show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pytest_mltd.core.findings import EvidenceKind

ALONE = 100  # rows, of the rarer class: among fewer a strong measurement parts two classes without an error

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
