"""The fixtures, each a thin face over a function that can be called without pytest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mltd.plugin.options import SETTINGS
from pytest_mltd.plugin.trial import TRIAL

if TYPE_CHECKING:
    from pytest_mltd.plugin.baselines import BaselineOf


@pytest.fixture
def mltd_train() -> Callable[..., Any]:
    """Run a training function or script, seeded, cut short and recorded. It is `mltd.run`: mltd_train(train, epochs=1)."""
    from pytest_mltd.recording.running import run

    return run


@pytest.fixture
def mltd_seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of ``--mltd-seed``; 0 where none was given."""
    return request.config.stash[SETTINGS].seed or 0


@pytest.fixture
def mltd_slice(request: pytest.FixtureRequest) -> int | None:
    """Return the number of ``--mltd-slice``, for data sliced by hand; None where none was given."""
    if TRIAL in request.node.stash:
        request.node.stash[TRIAL].took_slice = True
    return request.config.stash[SETTINGS].slice


@pytest.fixture
def mltd_baseline(request: pytest.FixtureRequest) -> BaselineOf:
    """Hold metrics against the test's baseline, as in mltd_baseline({"val": {"auc": 0.91}}, minimum={"val/auc": 0.9})."""
    from pytest_mltd.plugin.baselines import BaselineOf

    return BaselineOf(request.node)
