"""The ceilings of the procedure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mltd.core.confidence import CEILING, capped, ceiling


def test_each_kind_has_the_ceiling_of_the_procedure():
    """The table in PROCEDURE, "Confidence"."""
    assert dict(CEILING) == {
        "inference": 0.70,
        "report": 0.70,
        "research": 0.85,
        "observation": 0.95,
        "definition": 0.95,
    }


def test_the_best_kind_at_hand_counts():
    """A report and an observation together are an observation."""
    assert ceiling(["report", "observation"]) == 0.95
    assert ceiling(["report", "research"]) == 0.85


def test_no_evidence_is_no_confidence():
    """Nothing recorded, nothing claimed."""
    assert ceiling([]) == 0.0
    assert capped(0.9, []) == 0.0


@settings(deadline=None)
@given(st.floats(0, 1), st.lists(st.sampled_from(sorted(CEILING))))
def test_a_stated_confidence_never_passes_the_ceiling(wanted, kinds):
    """Lowered as one likes, never raised."""
    assert capped(wanted, kinds) == min(wanted, ceiling(kinds))


def test_misuse_names_the_argument():
    """An unknown kind, a number outside of 0 and 1."""
    with pytest.raises(ValueError, match="kinds: 'rumour' is none of inference"):
        ceiling(["rumour"])
    with pytest.raises(ValueError, match="wanted: a confidence lies within 0 and 1, not 1.2"):
        capped(1.2, ["report"])
