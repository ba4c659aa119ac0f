"""The three levels, the settings that change bits, and where a run was made."""

import subprocess
import sys

import pytest
import torch

from pytest_mltd.recording import environment, levels


def test_each_level_takes_what_the_one_before_takes_and_more():
    """losses < default < everything, in what and how often."""
    losses, default, everything = levels.LOSSES, levels.DEFAULT, levels.EVERYTHING
    taken = [
        (level.forwards, level.samples, level.digests, level.output_digests) for level in (losses, default, everything)
    ]
    assert taken == [(False,) * 4, (True, True, True, False), (True,) * 4]
    assert [n for n in range(35) if default.due(n)] == [0, 1, 2, 3, 4, 10, 20, 30]
    assert all(everything.due(n) for n in range(35))
    assert list(levels.LEVELS) == ["losses", "default", "everything"]


@pytest.mark.parametrize("name", ["full", "", None, "Default"])
def test_an_unknown_level_lists_those_that_are(name):
    """The message begins with the argument's name."""
    with pytest.raises(ValueError, match=r"^level: .* is none of losses, default, everything"):
        levels.level_named(name)


def test_the_settings_are_those_in_force():
    """Threads and determinism as torch has them now; asking starts nothing and changes nothing."""
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = environment.settings()
    finally:
        torch.use_deterministic_algorithms(False)
    assert found["threads"] == threads
    assert (found["deterministic"], found["deterministic_warn_only"]) == (True, True)
    assert found["default_dtype"] == "float32"
    assert not torch.cuda.is_initialized()


def test_the_commit_is_read_from_the_checkouts_files(tmp_path):
    """A branch, a packed branch, a detached head, a worktree, and no checkout at all."""

    def git(*arguments, folder=tmp_path / "repo"):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    (tmp_path / "repo" / "deep").mkdir(parents=True)
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert environment.commit_of(tmp_path / "repo" / "deep") == head
    git("pack-refs", "--all")
    assert environment.commit_of(tmp_path / "repo") == head
    git("worktree", "add", "-q", "-b", "other", "../tree")
    assert environment.commit_of(tmp_path / "tree") == head
    git("checkout", "-q", "--detach")
    assert environment.commit_of(tmp_path / "repo") == head
    (tmp_path / "none").mkdir()
    assert environment.commit_of(tmp_path / "none") == ""


def test_provenance_says_how_the_run_was_started():
    """Command, folder, versions, process."""
    found = environment.provenance()
    assert found["argv"] == sys.argv
    assert found["torch"] == torch.__version__
    assert {"python", "numpy", "platform", "folder", "commit", "started", "process"} <= found.keys()
