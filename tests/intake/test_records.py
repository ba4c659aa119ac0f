import json
import math
import os

import pytest

from pytest_mltd.intake import is_log, read


def _write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def _csv(path, header, rows, delimiter=","):
    lines = [delimiter.join(header), *(delimiter.join(map(str, row)) for row in rows)]
    return _write(path, "\n".join(lines) + "\n")


def test_lightnings_sparse_columns_are_read(tmp_path):
    """An empty cell is no number: each name has its own steps."""
    file = _csv(
        tmp_path / "metrics.csv",
        ["epoch", "step", "train_loss", "val_loss", "lr-SGD"],
        [(0, 49, 2.5, "", ""), (0, 99, 2.0, "", ""), (0, 99, "", 2.2, ""), ("", 99, "", "", 0.1)],
    )
    trace = read(file)
    assert trace.streams == ("train_loss", "val_loss")
    assert trace.losses["step"].tolist() == [49, 99]
    assert trace.losses["value"].tolist() == [2.5, 2.0]
    assert trace.val["value"].tolist() == [2.2]
    assert trace.steps["lr"][99] == 0.1
    assert math.isnan(trace.steps["lr"][49])


def test_trainer_state_of_hugging_face_is_read(tmp_path):
    """Training, evaluation and the summary at the end are told apart; NaN as Python writes it is a number."""
    history = [
        {"step": s, "epoch": s / 100, "loss": 3.0 - s / 100, "grad_norm": 1.0, "learning_rate": 1e-4} for s in (50, 100)
    ]
    history += [
        {"step": 100, "eval_loss": 2.5, "eval_runtime": 9.0},
        {"step": 150, "loss": float("nan"), "grad_norm": float("inf")},
    ]
    history += [{"step": 150, "train_loss": 2.0, "train_runtime": 100.0, "total_flos": 1e18}]
    file = _write(
        tmp_path / "trainer_state.json", json.dumps({"best_metric": None, "log_history": history, "global_step": 150})
    )
    trace = read(file)
    assert trace.streams == ("loss", "eval_loss")
    assert trace.losses["step"].tolist() == [50, 100, 150]
    assert math.isnan(trace.losses["value"][-1])
    assert trace.steps["nonfinite"][[50, 100, 150]].tolist() == [0, 0, 1]
    assert trace.scalars("eval_runtime")[1].tolist() == [9.0]


def test_json_lines_are_flattened_and_a_torn_last_one_is_told(tmp_path):
    """Mappings in mappings give names with a slash; what is no number is passed over."""
    lines = [json.dumps({"step": s, "train": {"loss": 1.0 / (s + 1), "ok": True}, "note": "x"}) for s in range(3)]
    trace = read(_write(tmp_path / "log.jsonl", "\n".join(lines) + '\n{"step": 3, "tra'))
    assert trace.streams == ("train/loss",)
    assert trace.losses["step"].tolist() == [0, 1, 2]
    assert trace.ended == "torn"
    assert trace.names == ()
    assert "1 line that is no JSON left out" in trace.notes


def test_a_history_of_lists_is_read(tmp_path):
    """What ``history.history`` of Keras dumps: one list a name, one value an epoch."""
    trace = read(
        _write(
            tmp_path / "history.json", json.dumps({"loss": [3, 2, 1], "val_loss": [3, 2.5, 2], "accuracy": [0, 0.5, 1]})
        )
    )
    assert trace.losses["step"].tolist() == [0, 1, 2]
    assert trace.val["value"].tolist() == [3.0, 2.5, 2.0]
    assert trace.scalars("accuracy")[1].tolist() == [0.0, 0.5, 1.0]


def test_batches_counted_anew_in_each_epoch_are_counted_through(tmp_path):
    """A column "step" that begins again where the epoch goes on counts batches: nothing was restarted."""
    rows = [(e, b, 1.0 / (1 + 10 * e + b)) for e in range(3) for b in range(10)]
    trace = read(_csv(tmp_path / "log.csv", ["epoch", "step", "loss"], rows))
    assert trace.losses["step"].tolist() == list(range(30))
    assert "'step' begins again in each epoch: the rows were counted" in trace.notes


def test_a_restart_goes_back_in_steps_and_epochs(tmp_path):
    """The same columns after a resume from a checkpoint: what was written last counts."""
    rows = [(s // 10, s, 1.0) for s in range(25)] + [(s // 10, s, 2.0) for s in range(20, 40)]
    trace = read(_csv(tmp_path / "log.csv", ["epoch", "step", "loss"], rows))
    assert trace.losses["step"].tolist() == list(range(40))
    assert trace.losses["value"].tolist() == [1.0] * 20 + [2.0] * 20
    assert "the steps of 'loss' go back 1 time: what was written last counts" in trace.notes


def test_epochs_count_where_nothing_finer_does(tmp_path):
    """A log by epoch has its epochs as steps."""
    trace = read(_csv(tmp_path / "log.csv", ["epoch", "train loss", "val loss"], [(1, 2.0, 2.1), (2, 1.0, 1.2)]))
    assert trace.losses["step"].tolist() == [1, 2]
    assert trace.streams == ("train loss", "val loss")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_spreadsheets_write_other_files_of_the_name(tmp_path, encoding):
    """Semicolons, decimal commas and a byte order mark are read all the same."""
    (tmp_path / "log.csv").write_text("step;loss\n0;2,5\n1;1,5\n", encoding=encoding)
    assert is_log(tmp_path / "log.csv")
    assert read(tmp_path / "log.csv").losses["value"].tolist() == [2.5, 1.5]


def test_bytes_that_are_no_text_do_no_harm(tmp_path):
    """An undecodable cell is no number; the row's others are read."""
    (tmp_path / "log.csv").write_bytes(b"step,loss,note\n0,2.5,caf\xe9\n1,1.5,\xff\xfe\n2,nan,\x00\n")
    values = read(tmp_path / "log.csv").losses["value"].tolist()
    assert values[:2] == [2.5, 1.5]
    assert math.isnan(values[2])


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (["age", "income", "label"], [(1, 2, 0), (2, 3, 1)]),
        (["step", "heart_rate"], [(0, 60), (1, 61)]),
        (["policy_id", "loss"], [(0, 100.0), (1, 0.0)]),  # an insurer's losses
        (["epoch", "flux"], [(0, 1.0), (1, 2.0)]),  # an astronomer's epochs
        (["step", "loss"], [(5, 1.0), (1, 2.0), (4, 1.0), (0, 1.0), (3, 1.0), (2, 1.0)]),  # rows in no order
        (["step", "loss"], [("walk", "weight"), ("run", "hair")]),
        (["step", "loss"], []),
    ],
)
def test_a_table_is_no_log(tmp_path, header, rows):
    """Steps that go up beside a loss that is a number: anything less is data."""
    assert not is_log(_csv(tmp_path / "train.csv", header, rows))


def test_what_is_no_log_is_refused_by_its_path(tmp_path):
    """Each refusal begins with the argument and says what was found."""
    cases = {
        "deep.json": "[" * 100_000,
        "other.json": '"text"',
        "empty.csv": "",
        "words.csv": "a,b\nx,y\n",
        "twice.csv": "loss,loss\n1,2\n",
        "digits.jsonl": '{"loss": ' + "9" * 10_000 + "}\n",
        "long.csv": "step,loss\n" + "1" * (1 << 20) + "\n",
    }
    for name, text in cases.items():
        file = _write(tmp_path / name, text)
        assert not is_log(file)
        with pytest.raises(ValueError, match=r"^path: '.*" + name):
            read(file)
    with pytest.raises(FileNotFoundError, match="^path: nothing at"):
        read(tmp_path / "none.csv")


def test_deep_json_in_a_line_is_one_broken_line(tmp_path):
    """Brackets without end cost one line, not the log."""
    text = '{"step": 0, "loss": 1.0}\n' + '{"a":' * 50_000 + "\n" + '{"step": 1, "loss": 0.5}\n'
    assert read(_write(tmp_path / "log.jsonl", text)).losses["value"].tolist() == [1.0, 0.5]


def test_steps_without_end_fill_no_memory(tmp_path):
    """A table with a row for each of 90 million steps is not made; the losses are kept at their steps."""
    trace = read(
        _csv(tmp_path / "log.csv", ["step", "loss", "lr"], [(0, 2.0, 0.1), (90_000_000, 1.0, 0.1), (1e300, 3.0, 0.1)])
    )
    assert trace.n_steps == 0
    assert trace.losses["step"].tolist() == [0, 90_000_000]


def test_a_pipe_is_not_waited_for(tmp_path):
    """Neither a file nor a folder is no log, and reading it ends at once."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.csv")
    assert not is_log(tmp_path / "pipe.csv")
    assert not is_log(tmp_path)
    with pytest.raises(ValueError, match=r"^path: '.*pipe.csv' is neither a file nor a folder"):
        read(tmp_path / "pipe.csv")
