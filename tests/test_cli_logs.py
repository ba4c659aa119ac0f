"""``mltd check`` and ``mltd diff`` of logs: of the files that a run which is already dead has left."""

import json

import pytest

from pytest_mltd.cli import FINDINGS, HEALTHY, MISUSE, main


def _log(path, values, header="step,loss"):
    path.write_text("\n".join([header, *(f"{10 * i},{v}" for i, v in enumerate(values))]) + "\n")
    return str(path)


def _falling(n=60):
    return [round(2.3 * 0.95**i + 0.1, 6) for i in range(n)]


def test_a_healthy_log_exits_with_zero(tmp_path, capsys):
    """Asked, nothing found, and it is said which names were taken."""
    assert main(["check", _log(tmp_path / "metrics.csv", _falling())]) == HEALTHY
    said = capsys.readouterr().out
    assert "training run healthy" in said
    assert "note: taken of 1 logged name: loss 'loss'" in said


def test_a_log_that_ends_in_nan_is_a_finding(tmp_path, capsys):
    """The step is the log's, the exit code 1, and no test is offered that could not run."""
    assert main(["check", _log(tmp_path / "metrics.csv", [*_falling(), "nan", "nan", "nan", "nan"])]) == FINDINGS
    said = capsys.readouterr().out
    assert said.startswith("gradients.nonfinite: the loss is NaN from step 600 on in 'loss'")
    assert "keep it" not in said


def test_several_logs_are_asked_one_by_one(tmp_path, capsys):
    """As saved runs are."""
    paths = [_log(tmp_path / "a.csv", _falling()), _log(tmp_path / "b.csv", [*_falling(), "nan", "nan", "nan"])]
    assert main(["check", *paths, "--json"]) == FINDINGS
    document = json.loads(capsys.readouterr().out)
    assert [d["ok"] for d in document["diagnoses"].values()] == [True, False]


def test_no_test_is_written_for_a_log(tmp_path, capsys):
    """A log cannot be run again."""
    path = _log(tmp_path / "metrics.csv", [*_falling(), "nan", "nan", "nan"])
    assert main(["check", path, "--write-test", str(tmp_path / "test_it.py")]) == MISUSE
    assert "is another tool's log: it does not say which program made it" in capsys.readouterr().err
    assert not (tmp_path / "test_it.py").exists()


def test_a_folder_of_two_runs_says_which(tmp_path, capsys):
    """No run is chosen for the user."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _log(tmp_path / name / "metrics.csv", _falling())
    assert main(["check", str(tmp_path)]) == MISUSE
    assert "holds the logs of 2 runs; say which" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--label", "y"]])
def test_tables_stay_tables(tmp_path, capsys, options):
    """Two splits are asked for leaks, also where a column is called step."""
    pytest.importorskip("pandas")
    for name, first in (("train", 0), ("test", 100)):
        rows = "".join(f"{first + i},{i % 2}\n" for i in range(30))
        (tmp_path / f"{name}.csv").write_text("step,y\n" + rows)
    code = main(["check", str(tmp_path / "train.csv"), str(tmp_path / "test.csv"), *options])
    said = capsys.readouterr()
    assert code in (HEALTHY, FINDINGS), said.err
    assert "overlap" in said.out or "splits" in said.out


def test_a_log_with_a_label_is_taken_for_a_table(tmp_path, capsys):
    """An option for tables says what the file is."""
    pytest.importorskip("pandas")
    path = _log(tmp_path / "losses.csv", _falling())
    main(["check", path, "--label", "loss"])
    assert "training run" not in capsys.readouterr().out


def test_two_logs_are_compared_by_what_they_hold(tmp_path, capsys):
    """The first step that differs, and no claim about weights and random state, which no log has."""
    other = _falling()
    other[30] += 0.5
    paths = [_log(tmp_path / "a.csv", _falling()), _log(tmp_path / "b.csv", other)]
    assert main(["diff", *paths]) == FINDINGS
    said = capsys.readouterr().out
    assert "then differ in the loss at step 300" in said
    assert "A log holds only what was printed now and then" in said
    assert "random state match" not in said
    assert main(["diff", paths[0], paths[0]]) == HEALTHY
