import json

import pytest

from pytest_mltd.intake import is_log, read


def _state(folder, steps):
    folder.mkdir(parents=True)
    history = [{"step": s, "loss": 1.0 / s} for s in range(1, steps + 1)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))


def test_a_folder_of_several_runs_says_which(tmp_path, writer):
    """No run is chosen for the user."""
    for name in ("a", "b"):
        writer().curve("loss", [2.0, 1.0]).save(tmp_path / "runs" / name)
    with pytest.raises(ValueError, match=r"holds the logs of 2 runs; say which: '.*runs/a', '.*runs/b'"):
        read(tmp_path / "runs")
    assert read(tmp_path / "runs" / "a").losses["step"].size == 2


def test_the_only_run_below_a_folder_is_read(tmp_path, writer):
    """``lightning_logs`` with one version, ``runs`` with one name: there is no choice to make."""
    writer().curve("loss", [2.0, 1.0]).save(tmp_path / "lightning_logs" / "version_0")
    assert read(tmp_path).provenance["log"].endswith("version_0")


def test_a_run_that_was_resumed_has_two_event_files(tmp_path, writer):
    """They are read in the order of their events' time, whatever their names sort to."""
    writer(time=2e9).curve("loss", [20.0, 30.0, 40.0], start=2).save(tmp_path, "a.tfevents")
    writer(time=1e9).curve("loss", [0.0, 1.0, 2.0, 3.0, 9.0, 9.0]).save(tmp_path, "b.tfevents")
    trace = read(tmp_path)
    assert trace.losses["value"].tolist() == [0.0, 1.0, 20.0, 30.0, 40.0]
    assert any("go back 1 time" in note for note in trace.notes)


def test_add_scalars_makes_folders_of_one_run(tmp_path, writer):
    """``loss_train`` and ``loss_val`` hold the tag "loss": they are curves of the same run."""
    writer().curve("lr", [0.1, 0.1]).save(tmp_path)
    writer().curve("loss", [2.0, 1.0]).save(tmp_path / "loss_train")
    writer().curve("loss", [2.5, 1.5]).save(tmp_path / "loss_val")
    writer().curve("hparam/loss", [1.0]).save(tmp_path / "1700000000.123")
    trace = read(tmp_path)
    assert trace.streams == ("loss_train/loss", "loss_val/loss")
    assert trace.val["value"].tolist() == [2.5, 1.5]


def test_keras_parts_a_run_by_split(tmp_path, writer):
    """``train`` and ``validation`` are one run, told apart by what stands before the names."""
    writer().curve("epoch_loss", [2.0, 1.0]).save(tmp_path / "train")
    writer().curve("epoch_loss", [2.5, 1.5]).save(tmp_path / "validation")
    assert read(tmp_path).streams == ("train/epoch_loss", "validation/epoch_loss")


def test_the_newest_checkpoint_holds_the_whole_history(tmp_path):
    """Of ``checkpoint-9`` and ``checkpoint-10`` the tenth, by number and not by name."""
    for steps in (9, 10):
        _state(tmp_path / f"checkpoint-{steps}", steps)
    assert read(tmp_path).losses["step"].size == 10


def test_folders_of_data_are_no_logs(tmp_path):
    """Tables in a folder stay tables, and a missing folder is nothing."""
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("age,label\n1,0\n2,1\n")
    assert not is_log(tmp_path)
    assert not is_log(tmp_path / "none")
    with pytest.raises(ValueError, match="^path: no log of a training run in the folder"):
        read(tmp_path)


def test_a_folder_that_leads_into_itself_ends(tmp_path, writer):
    """Links to folders are not followed."""
    (tmp_path / "again").symlink_to(tmp_path)
    assert not is_log(tmp_path)
