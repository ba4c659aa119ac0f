"""Other tools' logs as traces, read without their packages: a run that is already dead can still be asked.

::

    from pytest_mltd.intake import read

    mltd.assert_healthy(read("runs/Nov24_baseline"))

TensorBoard event files, CSV (Lightning's ``metrics.csv`` too), JSON lines, JSON histories and the ``trainer_state.json`` of
Hugging Face. A log is taken for hostile: sizes and depths are bounded, nothing is unpickled, what is torn is read up to there.
"""

from pytest_mltd.intake.logs import is_log, read

__all__ = ["is_log", "read"]
