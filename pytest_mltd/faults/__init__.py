"""Faults that can be planted on purpose into a program that nobody edits, to see whether a monitor can still see.

::

    from pytest_mltd.faults import planted

    with planted("stale_gradients"):
        with mltd.record() as run:
            train()
        assert not mltd.diagnose(run).ok

In a test file, ``@pytest.mark.mltd_fault("stale_gradients")`` does it around a test; ``mltd faults`` lists them.
"""

from pytest_mltd.faults.planting import Fault, Planting, catalogue, fault, find, planted

__all__ = ["Fault", "Planting", "catalogue", "fault", "find", "planted"]
