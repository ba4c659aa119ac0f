"""Runs of a training that a question makes: what comes back of each, and what stays here."""

import contextlib
import time

import numpy as np
import pytest
import torch

from pytest_mltd.probes import children
from pytest_mltd.probes.attempts import attempts, raise_if_broken, refuse_small, refuse_unfit


def test_numbers_come_back_by_name():
    """Nested numbers of any library, exact, NaN too; what is no number does not."""

    def train():
        return {"acc": np.float32(0.5), "more": [torch.tensor(2.0), True, "text"], "nan": float("nan")}

    with attempts(seed=0, steps=None) as tries:
        returned = tries.run(train).returned
    assert {k: v for k, v in returned.items() if k != "nan"} == {"acc": 0.5, "more[0]": 2.0, "more[1]": 1.0}
    assert np.isnan(returned["nan"])


@pytest.mark.parametrize("forks", [True, False])
def test_each_run_begins_in_the_same_state(monkeypatch, forks):
    """In children, and in this process where none can be forked, random states start alike; this process keeps its own."""
    if not forks:
        monkeypatch.setattr(children, "forbids_fork", lambda: "no forks here")
    generator = np.random.default_rng(0)
    state = torch.get_rng_state()
    with attempts(seed=3, steps=None) as tries:
        one, two = (tries.run(lambda: [torch.rand(1).item(), generator.random()]).returned for _ in range(2))
        other = tries.run(lambda seed: [seed, torch.rand(1).item()], seed=4).returned
    assert one == two
    assert (other["[0]"], other["[1]"] == one["[0]"]) == (4.0, False)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_noted_survives_an_error():
    """What was around the training is asked also where it raised; the error is told with its traceback."""

    @contextlib.contextmanager
    def around():
        yield lambda: [1, 2]

    with attempts(seed=0, steps=None) as tries:
        attempt = tries.run(lambda: 1 / 0, around=around)
    assert (attempt.noted, attempt.raised) == ([1, 2], "ZeroDivisionError: division by zero")
    with pytest.raises(ValueError, match="^train: it raised\n(.|\n)*division by zero"):
        raise_if_broken(attempt)


def test_a_file_of_the_user_is_not_overwritten(tmp_path):
    """A run is stopped before it changes what was there before, and says which file."""
    kept = tmp_path / "weights.txt"
    kept.write_text("mine")
    time.sleep(0.1)  # a file that is younger than this may be the run's own
    with (
        attempts(seed=0, steps=None) as tries,
        pytest.raises(ValueError, match="it was stopped before it changed '.*weights"),
    ):
        raise_if_broken(tries.run(lambda: kept.write_text("theirs")))
    assert kept.read_text() == "mine"


def test_unfit_arguments_are_refused():
    """No function, no plain one, no count."""

    def generator():
        yield 1

    for unfit in (None, dict, generator):
        with pytest.raises(TypeError, match="^train: "):
            refuse_unfit(unfit, "check(train)")
    for count in (0, True, 1.5):
        with pytest.raises(ValueError, match="^steps: a whole number of at least 1"):
            refuse_small(steps=count)
