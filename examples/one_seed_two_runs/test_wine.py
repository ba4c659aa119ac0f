import pytest
import wine

import pytest_mltd as mltd


@pytest.mark.mltd("one-seed-two-runs/H1", claim="a generator is not seeded", family="nondeterminism")
def test_one_seed_gives_one_run():
    mltd.assert_reproducible(wine.train, seed=0)
