"""Running a test again harms nobody: files that were there stay as they are, and trackers are offline."""

import os
import tempfile
import time

import pytest


@pytest.fixture
def kept(project):
    """A file of the user's that is older than the session."""
    path = project.path / "best.txt"
    path.write_text("precious")
    time.sleep(0.1)
    return path


def session(project, plainly, body, *arguments):
    project.makepyfile(test_a="import os, pathlib, shutil\nfrom fake import record\n" + body)
    return plainly("--mltd-repro", *arguments)


@pytest.mark.parametrize(
    "harm",
    [
        "open('best.txt', 'w').close()",
        "pathlib.Path('best.txt').write_text('x')",
        "open('best.txt', 'a').close()",
        "open('best.txt', 'r+').close()",
        "os.close(os.open('best.txt', os.O_WRONLY))",
        "os.remove('best.txt')",
        "os.rename('best.txt', 'other.txt')",
        "open('new', 'w').close(); os.replace('new', 'best.txt')",
        "os.truncate('best.txt', 0)",
    ],
)
def test_a_file_that_was_there_is_not_changed(project, plainly, kept, harm):
    """Writing, appending, removing, renaming, replacing, cutting: the run stops, the file's name is said, the file is whole."""
    result = session(project, plainly, f"def test_it():\n    record(1)\n    {harm}\n")
    result.assert_outcomes(failed=1)
    assert kept.read_text() == "precious"
    assert "this run was stopped before it changed 'best.txt', a file that was there before" in result.stdout.str()
    assert "Writes from C code are not seen" in result.stdout.str()
    assert "stopped: it was about to change 'best.txt'" in result.stdout.str()


@pytest.mark.parametrize(
    "harm",
    [
        "shutil.rmtree('kept')",
        "shutil.rmtree('kept', ignore_errors=True)",
        "os.rename('kept', 'kept_old')",
        "shutil.move('kept', 'kept_old')",
    ],
)
def test_a_folder_that_was_there_is_not_changed(project, plainly, harm):
    """Removing and renaming a folder with a file in it that was there, however deep, stops the run before it is done."""
    file = project.path / "kept" / "deep" / "best.txt"
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    time.sleep(0.1)
    body = f"def test_it():\n    record(1)\n    pathlib.Path('kept/new').write_text('x')\n    {harm}\n"
    result = session(project, plainly, body)
    result.assert_outcomes(failed=1)
    assert file.read_text() == "precious"
    assert "this run was stopped before it changed 'kept', a folder that was there before" in result.stdout.str()


@pytest.mark.parametrize("handler", ["except Exception: pass", "except BaseException: pass", "finally: pass"])
def test_no_handler_of_the_test_hides_it(project, plainly, kept, handler):
    """A test that swallows the stop fails all the same."""
    body = f"def test_it():\n    record(1)\n    try: open('best.txt', 'w').close()\n    {handler}\n"
    result = session(project, plainly, body)
    result.assert_outcomes(failed=1)
    assert kept.read_text() == "precious"
    assert "'best.txt'" in result.stdout.str()


def test_what_the_first_run_changes_before_it_uses_mltd_the_second_does_not(project, plainly, kept):
    """A write before anything is recorded is the test's own in its first run, as without the flag; it is not repeated."""
    result = session(
        project, plainly, "def test_it():\n    open('best.txt', 'a').write('+')\n    record(1)\n", "-W", "ignore"
    )
    result.assert_outcomes(failed=1)
    assert kept.read_text() == "precious+"
    said = "run 1 changed 'best.txt', which was there before; run 2 was stopped before it did so again"
    lines = result.stdout.str().splitlines()
    assert any(line.startswith("FAILED test_a.py::test_it - " + said[:30]) for line in lines)
    assert any(line.startswith("> ") and line.endswith(said) for line in lines)
    assert "stopped before it changed" not in result.stdout.str()


def test_a_test_without_mltd_is_left_alone(project, plainly, kept):
    """A test that runs once may do what it does without the flag."""
    result = session(
        project, plainly, "def test_it():\n    open('best.txt', 'w').close()\ndef test_other():\n    record(1)\n"
    )
    result.assert_outcomes(passed=2)


def test_what_a_test_makes_itself_it_may_change(project, plainly):
    """Files below tmp_path, new files, files of the first run, empty ones, the null device and standard input are no harm."""
    (project.path / "empty.lock").touch()
    (project.path / "empty").mkdir()
    (project.path / "full" / "__pycache__").mkdir(parents=True)
    (project.path / "full" / "__pycache__" / "a.pyc").write_text("x")
    time.sleep(0.1)
    body = """
def test_it(tmp_path, capfd):
    record(1)
    for path in (tmp_path / "a", pathlib.Path("made_here"), pathlib.Path("empty.lock"), pathlib.Path(os.devnull)):
        for text in ("one", "two"):
            path.write_text(text)
    os.remove("made_here")
    pathlib.Path("stays").write_text("x")
    folder = pathlib.Path("folder"); folder.mkdir(exist_ok=True)
    (folder / "b").write_text("x"); os.rename(folder, "moved"); shutil.rmtree("moved")
    for inner in ("empty", "full/__pycache__"):
        shutil.rmtree(inner)
        os.makedirs(inner)
    reader, writer = os.pipe()
    with open(writer, "w") as out: out.write("x")
    os.close(reader)
"""
    result = session(project, plainly, body)
    result.assert_outcomes(passed=1)
    assert (project.path / "stays").exists()


def test_the_second_run_reading_what_the_first_wrote_is_named(project, plainly):
    """A cache that outlives the run is the cause of the difference."""
    body = """
def test_it():
    path = pathlib.Path("cache.txt")
    cached = path.exists() and path.read_text()
    path.write_text("x")
    record(1, 2 if cached else 3)
"""
    result = session(project, plainly, body)
    result.assert_outcomes(failed=1)
    assert "not reproducible: run 2 read 'cache.txt', which run 1 wrote" in result.stdout.str()


def test_trackers_are_offline(project, plainly, monkeypatch):
    """W&B and MLflow are told by their environment variables to send nothing, and to write nothing beside the tests."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://example.org")
    monkeypatch.setenv("WANDB_MODE", "online")
    body = """
def test_it():
    record(1)
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite:///")
    assert not os.environ["WANDB_DIR"].startswith(os.getcwd())
"""
    session(project, plainly, body).assert_outcomes(passed=1)
    assert os.environ["WANDB_MODE"] == "online"


def test_no_trace_of_the_trials_is_left(project, plainly, tmp_path, monkeypatch):
    """The folder of the trials is gone after the session."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    session(project, plainly, "def test_it():\n    record(1)\n").assert_outcomes(passed=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [(), ("--mltd-repro",), ("--mltd-incident", "loan-leak")])
def test_a_failure_that_cannot_be_put_into_words_is_reported(project, plainly, flags):
    """An exception whose `__str__` raises, and a text that no encoding takes, end the test and not the session."""
    project.makepyfile(
        r"""
        import pytest
        from fake import record
        pytestmark = pytest.mark.mltd("loan-leak/H1")
        class Bad(Exception):
            def __str__(self):
                raise ValueError("no text")
        def test_mute(mltd_seed):
            record(1)
            raise Bad()
        def test_surrogate(mltd_seed):
            record(1)
            assert "a\udcffb" == "c"
        def test_after(mltd_seed):
            record(1)
        """
    )
    result = plainly(*flags)
    result.assert_outcomes(failed=2, passed=1)
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    if flags == ("--mltd-repro",):
        assert result.stdout.str().count("reproduced 2 of 2, bit for bit") >= 2
