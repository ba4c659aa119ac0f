"""Where evidence comes from: git's facts, the tree's digest, the environment, cheaply and without touching anything."""

import os
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta

import pytest

from pytest_mltd.ledger import provenance as module
from pytest_mltd.ledger.provenance import committed_bytes, provenance, source_digest


def facts(folder):
    return provenance(folder, fresh=True)


def git(folder, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "model.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "x")
    return tmp_path


class TestGit:
    def test_a_clean_commit(self, repository):
        """Commit, its time, branch; nothing differs."""
        found = facts(repository)
        assert found["commit"] == git(repository, "rev-parse", "HEAD")
        assert found["branch"] == "trunk"
        assert (found["dirty"], found["tree"]) == (False, "")
        made = int(git(repository, "show", "-s", "--format=%ct"))
        assert datetime.fromisoformat(found["committed"]).timestamp() == made

    def test_a_change_has_a_digest_of_its_content(self, repository):
        """Two different edits are two states, the same edit again is the same one, undone it is clean."""
        seen = []
        for text in ("x = 2\n", "x = 3\n", "x = 2\n", "x = 1\n"):
            (repository / "model.py").write_text(text)
            seen.append((facts(repository)["dirty"], facts(repository)["tree"]))
        assert seen[0] == seen[2] != seen[1]
        assert [dirty for dirty, _ in seen] == [True, True, True, False]
        assert all(len(tree) == 16 for _, tree in seen[:3])

    def test_new_code_counts_and_new_output_does_not(self, repository):
        """A training run leaves checkpoints and logs; they do not make the code another one."""
        (repository / "runs").mkdir()
        (repository / "runs" / "model.pt").write_bytes(b"0" * 100)
        (repository / "metrics.csv").write_text("a")
        assert not facts(repository)["dirty"]
        (repository / "fix.py").write_text("")
        assert facts(repository)["dirty"]

    def test_the_ledger_itself_does_not_count(self, repository):
        """Every recorded run appends to it: that alone is no change of the code, tracked or not."""
        (repository / "tests" / "incidents").mkdir(parents=True)
        for name in ("leak.jsonl", "leak.md", "leak.toml"):
            (repository / "tests" / "incidents" / name).write_text("a")
        assert not facts(repository)["dirty"]
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", "y")
        (repository / "tests" / "incidents" / "leak.jsonl").write_text("b")
        assert (facts(repository)["dirty"], facts(repository)["tree"]) == (False, "")

    def test_the_code_is_the_same_however_it_is_committed(self, repository):
        """A ledger, a document and the commit itself change nothing; an edit does, and committing it does not."""
        first = facts(repository)["code"]
        (repository / "incidents").mkdir()
        (repository / "incidents" / "leak.jsonl").write_text("a")
        (repository / "README.md").write_text("a")
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", "y")
        assert facts(repository)["code"] == first != ""
        (repository / "model.py").write_text("x = 2\n")
        (repository / "new.py").write_text("")
        second = facts(repository)["code"]
        assert second != first
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", "z")
        assert facts(repository)["code"] == second
        git(repository, "rm", "-q", "new.py")
        assert facts(repository)["code"] not in (first, second)
        (repository / "model.py").write_text("x = 1\n")
        assert facts(repository)["code"] == first

    def test_a_deleted_file_and_a_hostile_name_count(self, repository):
        """Names with line feeds, spaces and quotes are paths like any other."""
        (repository / "a b\n'c.py").write_text("1")
        first = facts(repository)["tree"]
        (repository / "model.py").unlink()
        assert first != facts(repository)["tree"] != ""

    def test_a_subfolder_and_a_detached_head(self, repository):
        """The root of the tests need not be the root of the repository."""
        (repository / "sub").mkdir()
        git(repository, "checkout", "-q", "--detach")
        found = facts(repository / "sub")
        assert found["commit"]
        assert found["branch"] == ""

    def test_a_repository_without_a_commit_has_a_tree(self, tmp_path):
        """Nothing is committed yet: the code's own digest tells states apart."""
        git(tmp_path, "init", "-q")
        (tmp_path / "a.py").write_text("1")
        found = facts(tmp_path)
        assert (found["commit"], found["dirty"]) == ("", True)
        assert found["tree"]

    def test_the_variables_of_a_hook_do_not_lead_elsewhere(self, repository, tmp_path_factory, monkeypatch):
        """pytest run by a git hook has GIT_DIR of another repository."""
        other = tmp_path_factory.mktemp("other")
        git(other, "init", "-q")
        monkeypatch.setenv("GIT_DIR", str(other / ".git"))
        monkeypatch.setenv("GIT_INDEX_FILE", str(other / "x"))
        found = facts(repository)
        monkeypatch.undo()
        assert found["commit"] == git(repository, "rev-parse", "HEAD")

    def test_the_index_is_not_touched(self, repository):
        """Asking for the status usually refreshes the index; ours leaves the user's repository as it is."""
        index = repository / ".git" / "index"
        os.utime(repository / "model.py", (0, 0))
        before = index.read_bytes()
        facts(repository)
        assert index.read_bytes() == before

    def test_committed_bytes(self, repository):
        """The file as the commit has it; None for what git does not know."""
        (repository / "model.py").write_text("x = 2\n")
        assert committed_bytes(repository / "model.py") == b"x = 1\n"
        assert committed_bytes(repository / "gone.py") is None
        assert committed_bytes(repository / "no" / "such.py") is None


class TestWithoutGit:
    def test_the_code_itself_is_the_state(self, tmp_path, monkeypatch):
        """No git on the machine: a digest of the code below the root, without environments and hidden folders."""
        monkeypatch.setenv("PATH", "")
        (tmp_path / "a.py").write_text("1")
        first = facts(tmp_path)
        assert (first["commit"], first["committed"], first["branch"], first["dirty"]) == ("", "", "", False)
        (tmp_path / ".venv").mkdir()
        (tmp_path / ".venv" / "b.py").write_text("1")
        (tmp_path / "env").mkdir()
        (tmp_path / "env" / "pyvenv.cfg").write_text("")
        (tmp_path / "env" / "c.py").write_text("1")
        (tmp_path / "data.csv").write_text("1")
        assert facts(tmp_path)["tree"] == first["tree"] != ""
        (tmp_path / "a.py").write_text("2")
        assert facts(tmp_path)["tree"] != first["tree"]

    def test_a_folder_without_code_has_no_state(self, tmp_path):
        """Then nothing is claimed."""
        assert facts(tmp_path)["tree"] == ""

    def test_a_git_that_hangs_is_left_alone(self, tmp_path, monkeypatch):
        """The time limit holds, and the code's own digest stands in."""
        (tmp_path / "bin").mkdir()
        slow = tmp_path / "bin" / "git"
        slow.write_text("#!/bin/sh\nexec sleep 60\n")
        slow.chmod(0o755)
        monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(module, "GIT_TIMEOUT", 0.05)
        monkeypatch.setattr(module, "GIT_PATIENCE", 0.05)
        (tmp_path / "a.py").write_text("1")
        assert facts(tmp_path)["tree"]


class TestEnvironment:
    def test_versions_are_read_and_nothing_is_imported(self):
        """In a fresh interpreter, torch, numpy and the table engines stay unloaded."""
        program = """
            import sys
            from pytest_mltd.ledger.provenance import provenance
            found = provenance()["environment"]
            print(found["python"], found["numpy"], found["cpus"] > 0)
            print([m for m in ("torch", "numpy", "pandas", "polars", "scipy", "narwhals") if m in sys.modules])
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=60
        )
        first, second = done.stdout.splitlines()
        assert first.startswith(sys.version.split()[0])
        assert first.endswith("True")
        assert second == "[]"

    def test_the_time_is_now_and_utc(self):
        """Each call has its own, the rest is remembered."""
        found = datetime.fromisoformat(provenance()["time"])
        assert found.utcoffset() == timedelta(0)

    def test_the_answer_is_a_copy(self, tmp_path):
        """Changing it changes no later answer."""
        provenance(tmp_path)["environment"]["python"] = "2"
        assert provenance(tmp_path)["environment"]["python"] != "2"


class TestSourceDigest:
    def test_another_assertion_is_another_test(self):
        """A weakened limit is noticed."""

        def test_x():
            assert 1 < 2

        first = source_digest(test_x)

        def test_x():
            assert 1 < 3

        assert len(first) == 16
        assert source_digest(test_x) != first

    def test_the_marker_that_ties_it_to_an_incident_does_not_count(self, tmp_path):
        """Nor do comments, formatting and the docstring; a skip does."""
        sources = [
            "def test_x():\n    assert f() > 1\n",
            "@pytest.mark.mltd('a/H1', claim='x')\ndef test_x():\n    'Say.'\n    assert f()  >  1  # why\n",
            "@pytest.mark.skip\ndef test_x():\n    assert f() > 1\n",
        ]
        found = []
        for number, source in enumerate(sources):
            path = tmp_path / f"source_{number}.py"
            path.write_text("import pytest\n" + source)
            space = {}
            exec(compile(path.read_text(), str(path), "exec"), space)
            found.append(source_digest(space["test_x"]))
        assert found[0] == found[1] != found[2]

    def test_what_has_no_source_has_no_digest(self):
        """A built-in, a function made from text."""
        assert source_digest(len) == ""
        assert source_digest(eval("lambda: 1")) == ""
