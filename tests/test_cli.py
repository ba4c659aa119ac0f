"""The shell command: what a person types at three in the morning, and what it says."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pytest_mltd.cli import main
from pytest_mltd.cli.output import KEYS
from pytest_mltd.core.findings import CheckFailed, diagnosis_from_dict
from pytest_mltd.core.incidents import evidence_of
from pytest_mltd.core.traces import Trace
from pytest_mltd.core.trials import Condition, Outcome
from pytest_mltd.ledger import evidence as ledger

HELPER = """
    import torch

    def data(n=400):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(n, 8, generator=generator)
        return torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())

    def model():
        return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
"""
TRAIN = """
    import argparse
    import torch
    from helper_x import data, model

    def main():
        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float, default=0.1)
        parser.add_argument("--epochs", type=int, default=20)
        parser.add_argument("--out", default="model.pt")
        options = parser.parse_args()
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=options.lr)
        for epoch in range(options.epochs):
            for x, y in torch.utils.data.DataLoader(data(), batch_size=32, shuffle=True):
                # FIX optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            print("epoch", epoch)
        torch.save(net.state_dict(), options.out)

    if __name__ == "__main__":
        main()
"""
HERE = Path(__file__).parent


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """A project folder with a faulty training script in it; call it with words, it returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper_x.py").write_text(textwrap.dedent(HELPER))
    (tmp_path / "train.py").write_text(textwrap.dedent(TRAIN))

    def call(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    call.folder = tmp_path
    return call


def mend(folder: Path) -> None:
    script = folder / "train.py"
    script.write_text(script.read_text().replace("# FIX optimizer", "optimizer"))


def pytest_says(folder: Path, *words: str) -> tuple[int, str]:
    """Run pytest in a process of its own, as the user would."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "MLTD_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:randomly", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def ask_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test in a file that mltd wrote, here: what pytest would do, without the seconds of starting it."""
    (test,) = [value for name, value in runpy.run_path(str(file)).items() if name.startswith("test_")]
    test(monkeypatch)


class TestRun:
    def test_the_first_minute(self, shell):
        """One command names the cause and the place; the test it offers is red, and green once the script is mended."""
        code, out, err = shell("run", "--steps", "60", "train.py", "--lr", "0.2")
        assert code == 1
        assert err == "mltd: running train.py --lr 0.2: at most 60 steps, seed 0, kept in .mltd/last\n"
        lines = out.splitlines()
        assert lines[0] == "epoch 0"
        cause = next(line for line in lines if line.startswith("gradients.stale_gradients: "))
        assert "zero_grad is never called" in cause
        assert lines[-1] == "keep it: mltd check .mltd/last --write-test tests/test_training.py"

        code, out, err = shell(*lines[-1].removeprefix("keep it: mltd ").split())
        assert code == 1
        written = (shell.folder / "tests" / "test_training.py").read_text()
        assert 'run = mltd.run("train.py", "--lr", "0.2", steps=60, seed=0)' in written
        assert '"gradients.stale_gradients"' in written

        code, out = pytest_says(shell.folder, "tests")
        assert code == 1
        assert "gradients.stale_gradients" in out
        mend(shell.folder)
        assert pytest_says(shell.folder, "tests")[0] == 0
        assert not (shell.folder / "model.pt").exists()

    def test_a_healthy_run_exits_0(self, shell):
        """Nothing failed: no test is offered."""
        mend(shell.folder)
        code, out, _ = shell("run", "--steps", "40", "train.py")
        assert code == 0
        assert "training run healthy" in out
        assert out.endswith("kept in .mltd/last\n")

    def test_everything_after_the_script_is_the_scripts(self, shell):
        """Also what looks like ours; ``--`` and ``-m`` end our options too."""
        (shell.folder / "echo_x.py").write_text("import sys; print(sys.argv)\n")
        for words in (("echo_x.py", "--steps", "x"), ("--", "echo_x.py", "--steps", "x")):
            _, out, _ = shell("run", "--seed", "1", *words)
            assert out.splitlines()[0] == "['echo_x.py', '--steps', 'x']"
        _, out, _ = shell("run", "--seed=1", "-m", "echo_x", "--json", "--help")
        assert out.splitlines()[0] == f"['{shell.folder}/echo_x.py', '--json', '--help']"

    def test_what_is_kept(self, shell):
        """Trace, diagnosis and command, out of git's sight; the run before is kept whole beside them."""
        shell("run", "--steps", "10", "train.py")
        first = (shell.folder / ".mltd/last/run.json").read_text()
        shell("run", "--steps", "20", "--slice", "64", "train.py", "--lr", "1")
        last = shell.folder / ".mltd/last"
        assert {p.name for p in last.iterdir()} == {"run.mltd", "diagnosis.json", "run.json"}
        command = json.loads((last / "run.json").read_text())
        assert (command["script"], command["arguments"], command["slice"]) == ("train.py", ["--lr", "1"], 64)
        assert (command["cwd"], command["exit"]) == (str(shell.folder), 1)
        assert Trace.load(last / "run.mltd").busiest == 20
        assert diagnosis_from_dict(json.loads((last / "diagnosis.json").read_text())).failed
        assert (shell.folder / ".mltd/previous/run.json").read_text() == first
        assert (shell.folder / ".mltd/.gitignore").read_text().endswith("\n*\n")
        shell("run", "--steps", "5", "train.py")
        assert json.loads((shell.folder / ".mltd/previous/run.json").read_text())["steps"] == 20

    def test_somebodys_file_in_the_folder_is_not_lost(self, shell):
        """Only what mltd wrote is replaced."""
        shell("run", "--steps", "3", "train.py")
        shell("run", "--steps", "3", "train.py")
        (shell.folder / ".mltd/previous/notes.txt").write_text("mine")
        shell("run", "--steps", "3", "train.py")
        assert (shell.folder / ".mltd/previous/notes.txt").read_text() == "mine"

    def test_a_crash_shows_its_own_traceback_first_then_the_diagnosis(self, shell, monkeypatch):
        """The exit code is the script's, and the traceback begins in the script."""
        mend(shell.folder)
        script = shell.folder / "train.py"
        script.write_text(script.read_text().replace('print("epoch", epoch)', "raise RuntimeError('disk on fire')"))
        code, out, err = shell("run", "train.py")
        assert code == 1
        traceback = err.splitlines()[1:]
        assert traceback[0] == "Traceback (most recent call last):"
        assert traceback[1].startswith(f'  File "{script}", line ')
        assert traceback[-1] == "RuntimeError: disk on fire"
        assert "pytest_mltd" not in err
        assert out.splitlines()[1] == "crashed at step 13: RuntimeError: disk on fire"
        assert out.splitlines()[2].endswith(" questions asked of what came before, none failed")
        assert "looked at: 13 steps of SGD" in out
        assert out.count("disk on fire") == 1
        assert "healthy" not in out
        assert out.splitlines()[-1] == "keep it: mltd check .mltd/last --write-test tests/test_training.py"
        asked = shell("check", ".mltd/last")
        assert (asked[0], asked[1].splitlines()) == (1, out.splitlines()[1:-2] + out.splitlines()[-1:])
        assert shell("check", ".mltd/last", "--write-test", "tests/test_training.py")[0] == 1
        with pytest.raises(RuntimeError, match="^disk on fire$"):
            ask_written(Path("tests/test_training.py"), monkeypatch)
        script.write_text(script.read_text().replace("raise RuntimeError('disk on fire')", "pass"))
        ask_written(Path("tests/test_training.py"), monkeypatch)

    @pytest.mark.parametrize(
        ("program", "line", "codes"),
        [
            ("def f(:", "crashed before any training was seen: SyntaxError: invalid syntax (bad_x.py, line 1)", (1, 1)),
            ("raise OSError('no data')", "crashed before any training was seen: OSError: no data", (1, 1)),
            ("import sys; sys.exit(2)", "left before any training was seen with exit code 2", (2, 1)),
        ],
    )
    def test_a_program_that_never_trained_gets_one_line(self, shell, program, line, codes):
        """Its own words are above: no list of what was not asked, no test that could watch nothing."""
        (shell.folder / "bad_x.py").write_text(program)
        code, out, _ = shell("run", "bad_x.py")
        assert (code, out) == (codes[0], f"\n{line}\n")
        assert shell("check", ".mltd/last")[:2] == (codes[1], f"{line}\n")

    def test_the_scripts_exit_code_is_kept(self, shell):
        """And its argparse refusal gets a word when it was ours that came too late."""
        (shell.folder / "leave_x.py").write_text("import sys; sys.exit(int(sys.argv[1]))\n")
        assert shell("run", "leave_x.py", "7")[0] == 7
        code, _, err = shell("run", "train.py", "--steps", "5")
        assert code == 2
        assert "error: unrecognized arguments: --steps 5" in err
        assert err.endswith("mltd: --steps stands after the script, so it is the script's; ours go before it\n")

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("pyproject.toml", '[tool.pytest.ini_options]\nmltd_allow = ["{entry}"]\n'),
            ("pyproject.toml", '[tool.pytest]\nmltd_allow = ["{entry}"]\n'),
            ("pytest.ini", "[pytest]\nmltd_allow =\n    {entry}\n"),
            ("setup.cfg", "[tool:pytest]\nmltd_allow =\n    {entry}\n"),
        ],
    )
    def test_what_the_project_allows_holds_in_the_shell_too(self, shell, name, text):
        """One list of allowances for tests and shell; a wrong entry is said before anything runs."""
        (shell.folder / "sub").mkdir()
        (shell.folder / name).write_text(text.replace("{entry}", "gradients.stale_gradients = meant to accumulate"))
        code, out, _ = shell("run", "--steps", "8", "train.py")
        assert code == 0, out
        assert "allowed: gradients.stale_gradients" in out
        assert "meant to accumulate" in out
        os.chdir("sub")
        assert shell("check", "../.mltd/last")[0] == 0
        (shell.folder / name).write_text(text.replace("{entry}", "gradients.stale_gradient = meant"))
        code, _, err = shell("check", "../.mltd/last")
        assert code == 2
        assert err == (
            "mltd check: mltd_allow: 'gradients.stale_gradient' names no check; "
            "the nearest is 'gradients.stale_gradients'\n"
        )

    def test_without_torch_the_install_line_is_said(self, shell, monkeypatch):
        """One sentence, before anything is touched."""
        monkeypatch.setitem(sys.modules, "torch", None)
        code, _, err = shell("run", "train.py")
        assert code == 2
        assert err.startswith(
            "mltd run: recording a run needs torch, which is not installed: pip install 'pytest-mltd[torch]'"
        )
        assert not Path(".mltd").exists()

    def test_no_training_is_not_a_pass(self, shell):
        """A script that never trained was asked nothing: exit code 2, and a word why."""
        (shell.folder / "idle_x.py").write_text("print('hello')\n")
        code, out, _ = shell("run", "idle_x.py")
        assert code == 2
        assert "nothing could be asked" in out

    def test_json(self, shell):
        """One document on stdout with the documented keys; what the script says goes to stderr."""
        code, out, err = shell("run", "--steps", "30", "--json", "train.py")
        document = json.loads(out)
        assert set(document) == {"schema", "mltd", "command", "exit", *KEYS}
        assert (document["schema"], document["command"], document["exit"], code) == (1, "run", 1, 1)
        assert document["diagnosis"]["failed"][0] == "gradients.stale_gradients"
        assert document["program"]["script"] == "train.py"
        assert document["keep"] == "mltd check .mltd/last --write-test tests/test_training.py"
        assert "epoch 0" in err

    def test_a_folder_that_cannot_be_written_costs_no_run(self, shell, monkeypatch):
        """The run goes on and is kept elsewhere, and it is said where."""
        (shell.folder / ".mltd").write_text("a file in the way")
        code, out, err = shell("run", "--steps", "5", "train.py")
        where = err.splitlines()[0].removeprefix(
            "mltd: .mltd cannot be written here (File exists); the run is kept in "
        )
        assert code == 1
        assert Trace.load(Path(where) / "run.mltd").n_steps == 5
        assert f"kept in {where}" in out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["run"], "mltd run: no script: mltd run train.py (mltd run --help says more)"),
            (["run", "tran.py"], "mltd run: no file 'tran.py' in {here}; the nearest is 'train.py'"),
            (
                ["run", "python", "train.py"],
                "mltd run: 'python' is a command; mltd runs the script itself: mltd run train.py",
            ),
            (["run", "."], "mltd run: '.' is a folder; name the script in it, or run it with -m"),
            (["run", "--steps", "0", "train.py"], "mltd run: --steps: at least 1 is needed, not 0"),
            (
                ["run", "--steps", "few", "train.py"],
                "mltd run: --steps: a whole number or 'all' is needed, not 'few' ({more})",
            ),
            (["run", "--slice", "0", "train.py"], "mltd run: --slice: at least 1 is needed, not 0"),
            (
                ["run", "--seed", "-1", "train.py"],
                "mltd run: --seed: an integer from 0 to 4294967295 is needed, not -1",
            ),
            (["run", "--level", "all", "train.py"], "mltd run: --level: 'all' is none of losses, default, everything"),
            (["run", "--stpes", "5", "train.py"], "mltd run: unrecognized arguments: --stpes ({more})"),
            (
                ["run", "--slice", "8", "train.py", "--epochs", "0"],
                "mltd run: --slice: 8 samples were asked for, and no DataLoader was",
            ),
            (
                ["run", "--slice", "8", "train.py"],
                "mltd run: --slice: 8 samples leave no batch in a DataLoader with batch_size=32 and drop_last=True; 32 are",
            ),
            (["chek", "x"], "mltd: no command 'chek'; the nearest is 'check'"),
            (["train.py"], "mltd: to run a script: mltd run train.py"),
            (["check", "none.mltd"], "mltd check: nothing at 'none.mltd'"),
            (["check", "train.py"], "mltd check: 'train.py' is a script: mltd run train.py"),
            (["diff", "train.py", "train.py"], "mltd diff: 'train.py' is no saved run"),
            (["diff", "one"], "mltd diff: the following arguments are required: RUN (mltd diff --help says more)"),
            (["report", "none-such"], "mltd report: "),
        ],
    )
    def test_misuse_is_one_sentence_and_exit_2(self, shell, words, message):
        """What is wrong, and what would be right."""
        if "leave no batch" in message:
            script = shell.folder / "train.py"
            script.write_text(script.read_text().replace("batch_size=32", "batch_size=32, drop_last=True"))
        code, out, err = shell(*words)
        assert code == 2
        assert out == ""
        assert message.format(here=shell.folder, more="mltd run --help says more") in err.splitlines()[-1]


class TestCheck:
    def test_a_saved_run_is_asked_again(self, shell):
        """As a folder or as a file; only the folder knows the program."""
        shell("run", "--steps", "40", "train.py")
        code, out, _ = shell("check", ".mltd/last")
        assert code == 1
        assert out.startswith("gradients.stale_gradients: ")
        assert out.splitlines()[-1] == "keep it: mltd check .mltd/last --write-test tests/test_training.py"
        Trace.load(".mltd/last/run.mltd").save("alone.mltd")
        assert shell("check", "alone.mltd")[0] == 1
        code, _, err = shell("check", "alone.mltd", "--write-test", "test_x.py")
        assert (code, err) == (
            2,
            "mltd check: --write-test: 'alone.mltd' does not say which program made it; only a run of mltd run does\n",
        )
        code, out, _ = shell("check", ".mltd/last", "alone.mltd", "--json")
        assert code == 1
        assert set(json.loads(out)["diagnoses"]) == {".mltd/last", "alone.mltd"}

    def test_a_file_that_is_there_stays_as_it_is(self, shell):
        """Not a byte is changed, and a free name is said."""
        shell("run", "--steps", "20", "train.py")
        Path("test_mine.py").write_text("# mine\n")
        code, _, err = shell("check", ".mltd/last", "--write-test", "test_mine.py")
        assert code == 2
        assert err == (
            "mltd check: --write-test: 'test_mine.py' is there and stays as it is; "
            "--write-test test_mine_2.py is free\n"
        )
        assert Path("test_mine.py").read_text() == "# mine\n"
        code, _, err = shell("check", ".mltd/last", "--write-test", "train.py/test_x.py")
        assert (code, err) == (2, "mltd check: --write-test: cannot write 'train.py/test_x.py' (Not a directory)\n")
        code, _, err = shell("check", ".mltd/last", "--write-test", "notes.txt")
        assert err.startswith("mltd check: --write-test: a Python file is needed, as in tests/test_training.py, not")

    def test_a_healthy_run_gives_no_test(self, shell):
        """A test that passes now would prove nothing."""
        mend(shell.folder)
        shell("run", "--steps", "20", "train.py")
        code, _, err = shell("check", ".mltd/last", "--write-test", "test_x.py")
        assert code == 2
        assert err == "mltd check: --write-test: no question failed, so there is no test that would fail now\n"
        assert not Path("test_x.py").exists()

    def test_the_written_test_in_full(self, shell):
        """Short, readable, right on another machine; a path inside of the project is said from its root."""
        (shell.folder / "sub").mkdir()
        shell("run", "--steps", "30", "--slice", "200", "--seed", "3", "train.py", "--out", f"{shell.folder}/m.pt")
        shell("check", ".mltd/last", "--write-test", "tests/deep/test_it.py")
        text = Path("tests/deep/test_it.py").read_text()
        begin, _, rest = text.partition("    # gradients.stale_gradients: ")
        assert begin == textwrap.dedent(
            f'''\
            """Fails while `python train.py --out {shell.folder}/m.pt` has what mltd found in it;
            passes once it is mended, and stays as the monitor.
            """

            from pathlib import Path

            import pytest_mltd as mltd

            ROOT = Path(__file__).resolve().parents[2]


            def test_train_is_healthy(monkeypatch):
            '''
        )
        assert "    monkeypatch.chdir(ROOT)\n" in rest
        assert '    run = mltd.run("train.py", "--out", f"{ROOT}/m.pt", steps=30, seed=3, slice=200)\n' in rest
        assert '    mltd.assert_healthy(run, only=["gradients.stale_gradients"' in rest

    def test_a_module_and_a_test_outside_of_the_project(self, shell, tmp_path_factory, monkeypatch):
        """``-m`` is written as such, and the project is found from wherever the test lies."""
        (shell.folder / "pkg_y").mkdir()
        (shell.folder / "pkg_y" / "__init__.py").touch()
        (shell.folder / "pkg_y" / "go.py").write_text((shell.folder / "train.py").read_text())
        shell("run", "--steps", "20", "-m", "pkg_y.go", "--lr", "0.3")
        file = tmp_path_factory.mktemp("elsewhere") / "test_it.py"
        shell("check", ".mltd/last", "--write-test", str(file))
        text = file.read_text()
        assert 'run = mltd.run("--lr", "0.3", module="pkg_y.go", steps=20, seed=0)' in text
        monkeypatch.chdir(file.parent)
        with pytest.raises(CheckFailed, match=r"^gradients\.stale_gradients: "):
            ask_written(file, monkeypatch)

    def test_a_torn_run_is_asked_what_it_holds(self, shell):
        """A file that stops in the middle is read up to there, and it is said."""
        shell("run", "--steps", "60", "train.py")
        whole = Path(".mltd/last/run.mltd").read_bytes()
        Path("torn.mltd").write_bytes(whole[: len(whole) - 50])
        code, out, _ = shell("check", "torn.mltd")
        assert code == 1
        assert "torn" in out


class TestTables:
    @pytest.fixture
    def tables(self, shell):
        rows = [f"{i},{i % 7},{(i * 37) % 100},{i % 2}" for i in range(400)]
        head = "key,group,x,y\n"
        Path("train.csv").write_text(head + "\n".join(rows[:300]))
        Path("test.csv").write_text(head + "\n".join(rows[280:]))
        return shell

    def test_red_now_and_green_when_mended(self, tables):
        """Two files share rows; the written test fails for that, and passes once they do not."""
        code, out, _ = tables("check", "train.csv", "test.csv", "--label", "y", "--key", "key")
        assert code == 1
        assert "overlap.key_overlap: " in out
        keep = out.splitlines()[-1]
        assert keep == "keep it: mltd check train.csv test.csv --label y --key key --write-test tests/test_data.py"
        tables(*keep.removeprefix("keep it: mltd ").split())
        text = Path("tests/test_data.py").read_text()
        assert 'TRAIN = ROOT / "train.csv"\nTEST = ROOT / "test.csv"\n' in text
        assert 'mltd.assert_no_key_overlap(TRAIN, TEST, key="key")' in text
        code, out = pytest_says(tables.folder, "tests")
        assert code == 1
        assert "overlap.key_overlap" in out
        lines = Path("test.csv").read_text().splitlines()
        Path("test.csv").write_text("\n".join([lines[0], *lines[21:]]))
        code, out = pytest_says(tables.folder, "tests")
        assert code == 0, out

    def test_a_reader_that_leaves_early_costs_no_test(self, tables):
        """mltd check … --write-test tests/p1.py | head -1: the file is there before the first line is said."""
        reading, writing = os.pipe()
        os.close(reading)
        words = ["check", "train.csv", "test.csv", "--key", "key", "--write-test", "tests/p1.py"]
        subprocess.run([sys.executable, "-m", "pytest_mltd", *words], stdout=writing, check=False)
        os.close(writing)
        assert "assert_no_key_overlap" in Path("tests/p1.py").read_text()

    def test_more_than_two_splits_are_named_after_their_files(self, tables):
        """Each pair that fails is asked for, and no other."""
        lines = Path("train.csv").read_text().splitlines()
        Path("valid.csv").write_text("\n".join([lines[0], *(f"{9000 + i},{i % 7},{i}.5,{i % 2}" for i in range(50))]))
        code, _, _ = tables("check", "train.csv", "valid.csv", "test.csv", "--key", "key", "--write-test", "test_it.py")
        assert code == 1
        text = Path("test_it.py").read_text()
        assert 'assert_no_key_overlap(TRAIN, TEST, key="key")' in text
        assert "VALID" not in text

    def test_a_pattern_in_quotes_is_expanded(self, tables):
        """As a shell does it: each file is a split, in the order of the names."""
        code, out, _ = tables("check", "t*.csv", "--key", "key")
        assert code == 1
        assert out.splitlines()[-1].startswith("keep it: mltd check test.csv train.csv --key key ")
        assert tables("check", "u*.csv")[2] == "mltd check: nothing matches 'u*.csv'\n"

    def test_files_of_one_name_are_named_with_their_folder(self, tables):
        """train/data.csv and test/data.csv."""
        for split in ("train", "test"):
            Path(split).mkdir()
            Path(f"{split}.csv").rename(f"{split}/data.csv")
        code, _, _ = tables("check", "train/data.csv", "test/data.csv", "--key", "key", "--write-test", "test_it.py")
        assert code == 1
        assert 'TRAIN_DATA = ROOT / "train/data.csv"' in Path("test_it.py").read_text()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["train.csv", "tets.csv"], "nothing at 'tets.csv'; the nearest is 'test.csv'"),
            (["train.csv", "test.csv", "--key", "kay"], "key: no column 'kay' in train; the nearest is 'key'"),
            (
                ["train.csv"],
                "'train.csv' is no saved run; for one table give --label, or give the other splits",
            ),
            (["train.csv", "train.csv"], "'train.csv' is given twice"),
        ],
    )
    def test_misuse(self, tables, words, message):
        """Paths and columns: the near one is named."""
        code, out, err = tables("check", *words)
        assert (code, out, err) == (2, "", f"mltd check: {message}\n")

    def test_runs_and_tables_do_not_mix(self, tables):
        """Columns are for tables, and one command asks one kind."""
        tables("run", "--steps", "5", "train.py")
        assert (
            tables("check", ".mltd/last", "--label", "y")[2]
            == "mltd check: --label is for tables; .mltd/last is a saved run\n"
        )
        assert tables("check", ".mltd/last", "train.csv")[2] == (
            "mltd check: 'train.csv' is no saved run, as '.mltd/last' is; ask runs and tables by one command each\n"
        )


class TestDiff:
    def test_the_first_difference_of_two_saved_runs(self, shell):
        """Two learning rates differ at the first step; the same run is the same."""
        shell("run", "--steps", "12", "--level", "everything", "train.py")
        shell("run", "--steps", "12", "--level", "everything", "train.py")
        code, out, _ = shell("diff", ".mltd/previous", ".mltd/last")
        assert code == 0, out
        assert out.startswith("runs.divergence: ok: ")
        shell("run", "--steps", "12", "--level", "everything", "train.py", "--lr", "0.2")
        code, out, _ = shell("diff", ".mltd/previous/run.mltd", ".mltd/last")
        assert code == 1
        first = "the command lines differ: mltd run --steps 12 --level everything train.py, against "
        assert out.splitlines()[0] == f"{first}mltd run --steps 12 --level everything train.py --lr 0.2"
        assert out.splitlines()[2].startswith("runs.divergence: ")
        assert out.splitlines()[-1] == "    next: compare two runs of one command"
        code, out, _ = shell("diff", ".mltd/previous", ".mltd/last", "--json")
        assert json.loads(out)["diagnosis"]["failed"] == ["runs.divergence"]

    def test_the_line_that_seeds_from_the_clock_is_named(self, shell):
        """Two runs of one command: the cause is in the first line, as the repro run says it."""
        script = shell.folder / "train.py"
        text = script.read_text().replace(
            "def main():\n", "def main():\n    torch.manual_seed(int(time.time() * 1e6))\n"
        )
        script.write_text("import time\n" + text)
        shell("run", "--steps", "12", "train.py")
        shell("run", "--steps", "12", "train.py")
        code, out, _ = shell("diff", ".mltd/previous", ".mltd/last")
        assert code == 1
        cause = "runs.divergence: not reproducible: torch.manual_seed is given another value each run at train.py:8"
        assert out.splitlines()[0].startswith(cause)

    def test_a_foreign_version_is_refused(self, shell):
        """A file from a newer mltd says so."""
        Path("new.mltd").write_bytes(b"pytest-mltd trace 99\n")
        code, _, err = shell("diff", "new.mltd", "new.mltd")
        assert (code, "version 99" in err) == (2, True)


class TestReport:
    @pytest.fixture
    def incident(self, shell):
        """One red test of one hypothesis, as ``pytest --mltd-incident loan-leak`` would have kept it."""
        (shell.folder / "pyproject.toml").touch()
        (shell.folder / "tests").mkdir()
        red = Outcome(kind="failed", fingerprint="0123456789abcdef", text="CheckFailed: leakage.label_leak: …")
        record = evidence_of(
            red, Condition(seed=0), {}, id="loan-leak/H1", nodeid="tests/test_x.py::test_y", claim="it leaks"
        )
        ledger.append(ledger.ledger_path(shell.folder, "loan-leak"), record)
        return shell

    def test_an_incident_becomes_markdown(self, incident):
        """Written beside its ledger; as JSON nothing is written."""
        code, out, _ = incident("report", "loan-leak", "--json")
        assert code == 0
        assert json.loads(out)["incident"]["hypotheses"][0]["claim"] == "it leaks"
        code, out, _ = incident("report", "loan-leak")
        assert code == 0
        path = Path(out.removeprefix("written: ").rstrip("\n"))
        assert "it leaks" in path.read_text()

    def test_a_misspelt_name_gets_the_near_one(self, incident):
        """And a text that is no name is refused as such."""
        code, _, err = incident("report", "loan-lek")
        assert code == 2
        assert "'loan-leak'" in err
        assert incident("report", "../x")[0] == 2


class TestHelp:
    def test_alone_it_shows_its_commands(self, shell):
        """``mltd`` by itself teaches."""
        code, _, err = shell()
        assert code == 2
        assert "mltd run train.py" in err
        assert shell("--help")[1] == err
        assert shell("--version") == (0, f"mltd {__import__('pytest_mltd').__version__}\n", "")

    @pytest.mark.parametrize("command", ["run", "check", "diff", "report"])
    def test_every_command_explains_itself(self, shell, command):
        """Help goes to stdout, fits a terminal, and exits with 0."""
        code, out, _ = shell(command, "--help")
        assert code == 0
        assert out.startswith(f"usage: mltd {command}")
        assert max(map(len, out.splitlines())) <= 125


def test_only_the_real_command_is_heavy_when_it_must(tmp_path):
    """Help and misuse import nothing heavy, and come at once."""
    code = """
        import sys
        from pytest_mltd.cli import main
        main(["run", "--help"])
        main(["run", "none.py"])
        print([m for m in ("torch", "numpy", "pandas", "pytest") if m in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.endswith("\n[]\n")


def test_the_progress_line_comes_before_torch_and_a_killed_job_can_be_asked(tmp_path):
    """The first line is there while the script has not begun; after a kill the run is read up to there."""
    script = """
        import sys
        sys.stderr.write("script begins\\n")
        import time, torch
        net = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(100000):
            optimizer.zero_grad()
            net(torch.randn(4, 3)).pow(2).mean().backward()
            optimizer.step()
            time.sleep(0.01)
            if step == 150:
                sys.stderr.write("far enough\\n")
    """
    (tmp_path / "slow_x.py").write_text(textwrap.dedent(script))
    with subprocess.Popen(
        [sys.executable, "-m", "pytest_mltd", "run", "--steps", "all", "slow_x.py"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as job:
        assert job.stderr.readline() == "mltd: running slow_x.py: to its end, seed 0, kept in .mltd/last\n"
        assert json.loads((tmp_path / ".mltd/last/run.json").read_text())["ended"] is None
        assert job.stderr.readline() == "script begins\n"
        assert job.stderr.readline() == "far enough\n"
        time.sleep(0.1)
        job.send_signal(signal.SIGKILL)
    trace = Trace.load(tmp_path / ".mltd/last/run.mltd")
    assert trace.ended == "torn"
    assert trace.n_steps > 20


def test_threads_of_a_program_that_was_cut_do_not_keep_it(tmp_path):
    """A loading thread that waits for ever is left behind; exit code and document are there, and nothing else on stdout."""
    script = """
        import atexit, os, queue, threading, torch
        os.system("echo child")
        atexit.register(print, "at exit")
        full = queue.Queue(maxsize=1)
        threading.Thread(target=lambda: [full.put(i) for i in range(10**6)], name="loading").start()
        net = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        while True:
            full.get()
            optimizer.zero_grad()
            net(torch.randn(4, 3)).pow(2).mean().backward()
            optimizer.step()
    """
    (tmp_path / "threads_x.py").write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, "-m", "pytest_mltd", "run", "--steps", "20", "--json", "threads_x.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == json.loads(done.stdout)["exit"] == 0
    assert done.stderr.endswith("mltd: the program was ended and left running: loading\nat exit\n")
    assert "child\n" in done.stderr
