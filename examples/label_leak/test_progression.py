import progression
import pytest

import pytest_mltd as mltd


@pytest.mark.mltd("label-leak/H1", claim="a column says the answer", family="label leakage")
def test_no_column_gives_the_answer_away():
    train, test = progression.split(progression.load())
    mltd.assert_no_leakage(train, test, label="worse")
