"""Baselines: written only for a test that passed whole, never another's, and every unusable file is a sentence."""

import json
import pickle

import numpy as np
import pytest

from pytest_mltd.core.trials import Condition
from pytest_mltd.ledger import baselines
from pytest_mltd.ledger.baselines import BaselineError, MissingBaseline, Pending, baseline, baseline_path
from pytest_mltd.ledger.files import LedgerError

NODE = "tests/test_train.py::TestLoan::test_auc"
METRICS = {"val": {"auc": [0.91, 0.92, 0.9], "latency_ms": 12.5}, "test": {"men": {"auc": 0.9}}}
FACTS = {
    "commit": "a" * 40,
    "branch": "main",
    "dirty": False,
    "environment": {"python": "3.11.7", "system": "Linux 6", "cpu": "X"},
    "time": "2026-01-01T00:00:00+00:00",
}


def made(nodeid=NODE, metrics=METRICS, condition=None, name=""):
    return baseline(nodeid, metrics, FACTS, condition, name=name)


class TestWriting:
    def test_the_file_is_small_readable_and_beside_the_test(self, tmp_path):
        """Metrics, commit, environment, version; keys on lines of their own, for diffs."""
        path = baselines.write(tmp_path, made(condition=Condition(seed=3)))
        assert path == tmp_path / "tests" / "baselines" / "test_train__TestLoan__test_auc.json"
        data = json.loads(path.read_text())
        assert data["schema"] == 1
        assert data["test"] == "test_train.py::TestLoan::test_auc"
        assert data["metrics"] == METRICS
        assert (data["seed"], data["commit"], data["environment"]["cpu"]) == (3, "a" * 40, "X")
        assert path.read_text().endswith("}\n")

    def test_what_is_written_is_read(self, tmp_path):
        """The same value."""
        baselines.write(tmp_path, made())
        assert baselines.read(tmp_path, NODE).as_dict() == made().as_dict()

    def test_nothing_is_written_before_the_test_has_passed(self, tmp_path):
        """Pending, settled; a failed test's is forgotten."""
        pending = Pending(tmp_path)
        pending.add(made())
        assert not list(tmp_path.rglob("*.json"))
        assert pending.settle(NODE, passed=False) == ()
        assert pending.settle(NODE, passed=True) == ()
        assert not list(tmp_path.rglob("*.json"))
        pending.add(made())
        (path,) = pending.settle(NODE, passed=True)
        assert path.exists()

    def test_an_interrupted_session_writes_nothing(self, tmp_path):
        """And says which tests it concerns."""
        pending = Pending(tmp_path)
        pending.add(made())
        assert pending.abandon() == (NODE,)
        assert pending.settle(NODE, passed=True) == ()
        assert not list(tmp_path.rglob("*.json"))

    @pytest.mark.parametrize("condition", [Condition(steps=200), Condition(slice=64), Condition(fault="x")])
    def test_a_partial_run_makes_no_baseline(self, condition):
        """A cut or sliced run's numbers are not the program's."""
        with pytest.raises(
            ValueError, match="condition: a partial run makes no baseline .*pytest 'tests/.*' --mltd-update"
        ):
            made(condition=condition)

    def test_another_test_s_file_is_never_touched(self, tmp_path):
        """One update writes one file; the others keep their bytes."""
        other = baselines.write(tmp_path, made("tests/test_train.py::test_other"))
        before = other.read_bytes()
        baselines.write(tmp_path, made())
        assert other.read_bytes() == before

    def test_a_file_of_another_test_is_not_replaced(self, tmp_path):
        """Two names that a file system takes for one."""
        path = baselines.write(tmp_path, made("tests/test_train.py::test_other"))
        path.rename(baseline_path(tmp_path, NODE))
        for use in (lambda: baselines.write(tmp_path, made()), lambda: baselines.read(tmp_path, NODE)):
            with pytest.raises(BaselineError, match="it is the baseline of test_train.py::test_other"):
                use()

    def test_a_torn_file_may_be_made_again_and_a_newer_one_may_not(self, tmp_path):
        """`--mltd-update` is the remedy for the one, an upgrade for the other."""
        path = baselines.write(tmp_path, made())
        path.write_text(path.read_text()[:50])
        baselines.write(tmp_path, made())
        path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
        with pytest.raises(BaselineError, match="newer pytest-mltd"):
            baselines.write(tmp_path, made())

    def test_a_folder_that_cannot_be_written_is_a_sentence(self, tmp_path):
        """A file stands where the folder should be."""
        (tmp_path / "tests").write_text("")
        with pytest.raises(LedgerError, match="cannot be written"):
            baselines.write(tmp_path, made())

    def test_two_baselines_of_one_test_need_names(self, tmp_path):
        """The second would replace the first without a word."""
        pending = Pending(tmp_path)
        pending.add(made())
        with pytest.raises(ValueError, match=r"name: .* gives two baselines without a name; .*name=\"train\""):
            pending.add(made())
        pending.add(made(name="small"))
        assert len(pending.settle(NODE, passed=True)) == 2
        assert baselines.read(tmp_path, NODE, name="small").name == "small"

    @pytest.mark.parametrize(
        ("metrics", "said"),
        [
            ({}, "metrics: no number is given"),
            ({"val": {}}, "metrics: no number is given"),
            ({"val": []}, "metrics: no number is given"),
            ({"val": {"auc": float("nan")}}, "metrics: 'val/auc' is nan; a number that is not finite"),
            ({"val": {"auc": [0.9, float("inf")]}}, "metrics: 'val/auc' is inf"),
        ],
    )
    def test_numbers_that_make_no_baseline_are_refused(self, metrics, said):
        """Nothing, or NaN: no later run could be held against it."""
        with pytest.raises(ValueError, match=said):
            made(metrics=metrics)

    @pytest.mark.parametrize("value", ["0.9", None, True, [True], {"a": "x"}])
    def test_what_is_no_number_is_refused(self, value):
        """By its path."""
        with pytest.raises(TypeError, match=r"metrics: 'val.*a number or a list of numbers is needed"):
            made(metrics={"val": value})

    def test_numpy_numbers_are_numbers(self):
        """Scalars and arrays of any width."""
        kept = made(metrics={"val": {"auc": np.float32(0.5), "loss": np.array([1, 2])}}).metrics
        assert kept == {"val": {"auc": 0.5, "loss": [1, 2]}}


class TestReading:
    def test_a_missing_one_has_the_command_that_makes_it(self, tmp_path):
        """Quoted for the shell."""
        with pytest.raises(MissingBaseline) as caught:
            baselines.read(tmp_path, "tests/test_a.py::test_b[x-1]")
        command = "pytest 'tests/test_a.py::test_b[x-1]' --mltd-update"
        path = tmp_path / "tests" / "baselines" / baseline_path(tmp_path, "tests/test_a.py::test_b[x-1]").name
        assert str(caught.value) == (
            "no baseline for tests/test_a.py::test_b[x-1]; when its metrics are good, "
            f"make it: {command} (the file will be {path})"
        )

    @pytest.mark.parametrize("kind", [LedgerError, BaselineError, MissingBaseline])
    def test_the_errors_survive_pickling_and_have_short_names(self, kind):
        """pytest's short summary has room for the sentence, and a worker can hand it over."""
        again = pickle.loads(pickle.dumps(kind("a sentence")))
        assert (type(again), str(again)) == (kind, "a sentence")
        assert kind.__module__ == "builtins"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('{"schema": 1, "test', "torn or not JSON"),
            ("", "torn or not JSON"),
            ("[]", "it is no baseline of mltd"),
            ('{"a": 1}', "it is no baseline of mltd"),
            ('{"schema": 2}', "a newer pytest-mltd wrote it .*upgrade with: pip install -U pytest-mltd"),
            ('{"schema": 1}', "'test' is missing or no text"),
            ('{"schema": 1, "test": "a", "nodeid": "b", "metrics": []}', "'metrics' is no table"),
            ('{"schema": 1, "test": "a", "nodeid": "b", "metrics": {"val": "x"}}', "'val' is 'x'; a number"),
            ('{"schema": 1, "test": "a", "nodeid": "b", "metrics": {"val": NaN}}', "'val' is nan"),
            ("[" * 50_000, "torn or not JSON"),
        ],
    )
    def test_an_unusable_file_is_one_sentence(self, tmp_path, text, said):
        """With its path and the remedy."""
        path = baseline_path(tmp_path, NODE)
        path.parent.mkdir(parents=True)
        path.write_text(text)
        with pytest.raises(BaselineError, match=said) as caught:
            baselines.read(tmp_path, NODE)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)

    def test_a_folder_may_move(self, tmp_path):
        """The file knows its test from the file's name on."""
        baselines.write(tmp_path, made())
        assert baselines.read(tmp_path / "tests", "test_train.py::TestLoan::test_auc").metrics == METRICS

    def test_names_that_files_cannot_have_stay_apart(self, tmp_path):
        """Parameters with slashes, spaces and stars, and ones of great length."""
        nodes = [f"t.py::test[{p}]" for p in ("a/b", "a b", "a*b", "x" * 300, "x" * 301, "ü", "..")]
        paths = {baseline_path(tmp_path, n) for n in nodes}
        assert len({str(p).lower() for p in paths}) == len(nodes)
        assert all(p.parent == tmp_path / "baselines" and len(p.name) < 150 for p in paths)


class TestAnotherMachine:
    def test_on_the_same_machine_everything_is_compared(self):
        """No note."""
        assert made().comparable(FACTS) == (METRICS, ())
        newer_kernel = {"environment": {**FACTS["environment"], "system": "Linux 7"}}
        assert made().comparable(newer_kernel) == (METRICS, ())

    def test_latency_of_another_machine_is_left_out_and_said(self):
        """The rest stays."""
        kept, notes = made().comparable({"environment": {"system": "Linux 7", "cpu": "Y"}})
        assert kept == {"val": {"auc": [0.91, 0.92, 0.9]}, "test": {"men": {"auc": 0.9}}}
        assert notes == (
            "latency and memory are not compared: the baseline was made on another machine (cpu 'X' then, 'Y' now)",
        )

    def test_without_costs_another_machine_does_not_matter(self):
        """A metric is a metric anywhere."""
        assert made(metrics={"val": {"auc": 0.9}}).comparable({})[1] == ()
