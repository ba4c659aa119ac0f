"""A hypothesis as a test: copy it, name the incident and the claim, keep the one question that decides it."""

import pytest
from my_project.train import train

import pytest_mltd as mltd


@pytest.mark.mltd(
    "my-incident/H1",
    claim="gradients of the step before are still there",
    family="wiring",
)
def test_gradients_are_fresh(mltd_train):
    run = mltd_train(train, epochs=1)
    mltd.assert_no_stale_gradients(run)
