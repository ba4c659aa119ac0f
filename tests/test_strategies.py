"""Shrinking ends at the smallest example that still fails, and nothing of a recorded run stands in its way."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given
from hypothesis import settings as hypothesis_settings

import pytest_mltd as mltd
from pytest_mltd import strategies

SEARCH = hypothesis_settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],  # the one that explains traces every line of pandas
)


def smallest(strategy, fails, examples=500):
    return find(strategy, fails, settings=hypothesis_settings(SEARCH, max_examples=examples))


class Samples:
    """A map-style dataset, as torch's: a length and items."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"x": i}


def test_a_batch_shrinks_to_the_one_row_that_fails():
    """Row 17 of 40 alone, whatever stood beside it."""
    x = np.arange(40.0)
    x[17] = np.nan
    found = smallest(strategies.batches(x), lambda batch: np.isnan(batch.data).any())
    assert found.rows == (17,)
    assert repr(found) == "Batch(rows=(17,))"


def test_a_batch_shrinks_to_the_pair_that_fails_together():
    """Two rows that are harmless alone: both, in order, and no third."""
    found = smallest(strategies.batches(np.arange(30), max_size=30), lambda batch: {4, 21} <= set(batch.rows))
    assert sorted(found.rows) == [4, 21]
    assert len(found) == 2


def test_a_batch_shrinks_no_further_than_its_size():
    """Asked for eight rows, it is the first eight."""
    found = smallest(strategies.batches(range(100), min_size=8), lambda batch: True)
    assert sorted(found.rows) == list(range(8))


@pytest.mark.parametrize(
    ("culprits", "rows"), [({17}, (17,)), ({17, 20}, (17, 18, 19, 20)), ({0}, (0,)), ({39}, (39,))]
)
def test_a_slice_shrinks_to_the_shortest_that_fails(culprits, rows):
    """From the first culprit to the last, and nothing around them."""
    found = smallest(strategies.slices(np.arange(40)), lambda part: culprits <= set(part.rows))
    assert found.rows == rows


def test_settings_shrink_to_the_ones_that_differ():
    """Of three settings that may differ only the culprit stays changed."""
    good = {"lr": 0.1, "momentum": 0.9, "batch": 32, "amp": False}
    varied = {"lr": [0.01, 1.0, 10.0], "batch": [1, 8], "amp": [True]}
    found = smallest(strategies.settings(good, varied), lambda s: s["lr"] >= 1.0)
    assert found == {**good, "lr": 1.0}


def test_seeds_shrink_to_zero_and_fit_every_generator():
    """numpy refuses seeds from 2**32 on."""
    assert smallest(strategies.seeds(), lambda seed: True) == 0
    assert smallest(strategies.seeds(), lambda seed: seed >= 1000) == 1000


def test_rows_are_of_the_datasets_own_kind():
    """A pair of arrays gives a pair, a mapping a mapping, samples a list."""
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    taken = {"rows": (1, 3)}

    def at(dataset):
        return smallest(strategies.batches(dataset), lambda batch: set(batch.rows) >= set(taken["rows"])).data

    parts = at((x, y))
    assert type(parts) is tuple
    assert [part.tolist() for part in parts] == [[[2.0 * row, 2.0 * row + 1] for row in parts[1]], parts[1].tolist()]
    assert sorted(at({"y": y})["y"].tolist()) == [1, 3]
    assert sorted(sample["x"] for sample in at(Samples(6))) == [1, 3]
    assert sorted(at(list("abcdef"))) == ["b", "d"]


@pytest.mark.parametrize("engine", ["pandas", "polars", "pyarrow"])
def test_frames_are_like_the_given_one(engine):
    """Columns, types, nulls and categories are the frame's; the smallest one that fails has one row."""
    native = pytest.importorskip(engine)
    columns = {"age": [31, 52, 18], "city": ["Oslo", None, "Rome"], "paid": [True, False, True]}
    frame = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "table"}[engine]
    given_frame = getattr(native, frame)(columns)
    empty = smallest(strategies.frames_like(given_frame), lambda f: True)
    types = "schema" if engine != "pandas" else "dtypes"
    assert len(empty) == 0
    assert str(getattr(empty, types)) == str(getattr(given_frame, types))

    def is_new(made):  # a combination that no row of the frame has
        cells = {name: list(made[name].to_pylist() if engine == "pyarrow" else made[name]) for name in columns}
        return 52 in cells["age"] and True in cells["paid"] and len(cells["age"]) == 1

    found = smallest(strategies.frames_like(given_frame, min_rows=1, max_rows=2), is_new, examples=100)
    assert type(found) is type(given_frame)
    assert len(found) == 1


def test_pandas_rows_are_taken_by_position_whatever_the_index():
    """An index that repeats itself moves no value."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=[7, 7, 0])
    assert smallest(strategies.batches(frame), lambda batch: 1 in batch.rows).data["a"].tolist() == [2]
    assert smallest(strategies.frames_like(frame), lambda f: list(f["a"]) == [3, 1]).index.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: strategies.batches(iter([])), "dataset: something with a length is needed, not list_iterator"),
        (lambda: strategies.batches([]), "dataset: 0 rows, fewer than min_size=1"),
        (lambda: strategies.batches((np.zeros(3), np.zeros(4))), "dataset: its parts differ in length (0: 3, 1: 4)"),
        (lambda: strategies.batches([1], min_size=0), "min_size: at least 1 row is needed, not 0"),
        (lambda: strategies.slices([1, 2], max_size=0), "max_size: a number of at least min_size=1 is needed, not 0"),
        (lambda: strategies.settings({"lr": 1}, {"rl": [2]}), "varied: 'rl' is none of the good settings (lr)"),
        (lambda: strategies.settings({"lr": 1}, {"lr": []}), "varied: 'lr' has no other value"),
        (lambda: strategies.frames_like([1, 2]), "frame: a frame of pandas, polars or pyarrow is needed, not list"),
    ],
)
def test_misuse_is_told_at_once_by_the_arguments_name(call, words):
    """Not at the first example, far from the line that was wrong."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == words


class TestAroundARecordedRun:
    """Training inside ``@given``: slow, seeded by Hypothesis, recorded anew for each example."""

    def data(self):
        torch = pytest.importorskip("torch")
        x = torch.linspace(-1, 1, 12).reshape(6, 2)
        x[4] = float("nan")
        return x, x.sum(1, keepdim=True)

    def train(self, x, y):
        import torch

        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

    def test_the_batch_that_makes_the_run_red_is_found(self):
        """The failing example is the one bad row, and the finding is the recorded run's."""
        seen = []

        @strategies.patient(max_examples=20)
        @given(batch=strategies.batches(self.data(), max_size=3))
        def healthy(batch):
            with mltd.record() as run:
                self.train(*batch.data)
            if mltd.gradients.check_nonfinite(run).failed:
                seen.append(batch.rows)
                raise AssertionError

        with pytest.raises(AssertionError):
            healthy()
        assert seen[-1] == (4,)

    def test_a_record_around_all_examples_holds_them_all(self):
        """The recorder outside sees every example's steps and is not disturbed by Hypothesis' own seeds."""
        x, y = self.data()
        good, examples = (x[:4], y[:4]), []

        @strategies.patient(max_examples=5)
        @given(batch=strategies.batches(good))
        def trains(batch):
            self.train(*batch.data)
            examples.append(batch)

        with mltd.record() as run:
            trains()
        assert run.trace.n_steps == 3 * len(examples)


def test_the_strategies_are_loaded_by_nobody_else():
    """Hypothesis is a guest: the package and its plugin work without it."""
    import subprocess
    import sys

    code = "import pytest_mltd.plugin, pytest_mltd.diagnosis, sys; sys.exit('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
