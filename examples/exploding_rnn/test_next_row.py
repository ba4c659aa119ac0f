import next_row
import pytest

import pytest_mltd as mltd


@pytest.mark.mltd("exploding-rnn/H1", claim="the gradients explode", family="optimizer instability")
def test_training_is_healthy():
    with mltd.record() as run:
        next_row.train()
    mltd.assert_healthy(run)
