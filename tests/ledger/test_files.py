"""Files survive a killed process, a full disk, a second writer and a path that is no file."""

import os
import resource
import signal
import subprocess
import sys
import threading

import pytest

from pytest_mltd.ledger import files
from pytest_mltd.ledger.files import LedgerError, appending, read_text, write_atomic

as_root = os.geteuid() == 0 if hasattr(os, "geteuid") else False


class TestReplacing:
    def test_it_writes_text_and_makes_the_folder(self, tmp_path):
        """Nothing else is left in the folder."""
        path = write_atomic(tmp_path / "a" / "b.json", "näh\n")
        assert path.read_bytes() == "näh\n".encode()
        assert os.listdir(path.parent) == ["b.json"]

    def test_a_failing_write_leaves_the_old_text_and_no_rest(self, tmp_path, monkeypatch):
        """A disk that fills up at the last moment costs nothing that was there."""
        path = write_atomic(tmp_path / "x.json", "old")

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(
            LedgerError, match=r"x\.json: cannot be written \(No space left on device\); make .* writable"
        ):
            write_atomic(path, "new")
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["x.json"]

    def test_a_link_is_followed_and_kept(self, tmp_path):
        """A shared file behind a link is replaced, the link stays one."""
        real = write_atomic(tmp_path / "real.json", "1")
        (tmp_path / "link.json").symlink_to(real)
        write_atomic(tmp_path / "link.json", "2")
        assert (tmp_path / "link.json").is_symlink()
        assert real.read_text() == "2"

    def test_the_permissions_stay(self, tmp_path):
        """A file that only its owner may read does not become public."""
        path = write_atomic(tmp_path / "x", "1")
        path.chmod(0o600)
        write_atomic(path, "2")
        assert path.stat().st_mode & 0o777 == 0o600

    def test_text_that_is_no_unicode_is_written_escaped(self, tmp_path):
        """A lone surrogate in a name does not stop the report."""
        assert read_text(write_atomic(tmp_path / "x", "a\ud800b")) == "a\\ud800b"

    @pytest.mark.skipif(as_root, reason="root may write everywhere")
    def test_an_unwritable_folder_is_one_sentence(self, tmp_path):
        """With path, reason and remedy."""
        tmp_path.chmod(0o500)
        with pytest.raises(LedgerError, match="Permission denied.*writable folder"):
            write_atomic(tmp_path / "x", "1")

    def test_a_folder_that_cannot_be_made_is_one_sentence(self, tmp_path):
        """A file stands where the folder should be."""
        (tmp_path / "a").write_text("")
        with pytest.raises(LedgerError) as caught:
            write_atomic(tmp_path / "a" / "x", "1")
        assert str(caught.value).startswith(f"{tmp_path / 'a' / 'x'}: cannot be written (")
        assert "writable folder" in str(caught.value)
        assert "\n" not in str(caught.value)


class TestReading:
    def test_a_missing_file_names_itself(self, tmp_path):
        """And the remedy."""
        with pytest.raises(LedgerError, match=r"gone: cannot be read \(No such file.*check its name"):
            read_text(tmp_path / "gone")

    def test_a_folder_and_a_pipe_are_refused(self, tmp_path):
        """Opening a pipe would wait for ever."""
        os.mkfifo(tmp_path / "pipe")
        for path, said in ((tmp_path, "is a folder"), (tmp_path / "pipe", "not a plain file")):
            for use in (read_text, lambda p: write_atomic(p, ""), lambda p: appending(p).__enter__()):
                with pytest.raises(LedgerError, match=said):
                    use(path)

    def test_an_enormous_file_is_refused_unread(self, tmp_path):
        """What is larger than any ledger is not ours."""
        with open(tmp_path / "big", "wb") as file:
            file.truncate(files.MAX_FILE + 1)
        with pytest.raises(LedgerError, match="larger than 64 MB"):
            read_text(tmp_path / "big")


def add(path, *lines):
    torn = []
    for line in lines:
        with appending(path) as file:
            torn.append(file.append(line))
    return torn


class TestAppending:
    def test_lines_follow_each_other(self, tmp_path):
        """One line feed each, nothing torn."""
        assert add(tmp_path / "d" / "x.jsonl", b"a", b"b") == [False, False]
        assert (tmp_path / "d" / "x.jsonl").read_bytes() == b"a\nb\n"

    def test_a_torn_tail_is_closed_off_and_reported(self, tmp_path):
        """The next record does not run into it, and no byte is taken away."""
        (tmp_path / "x").write_bytes(b"a\n{half")
        assert add(tmp_path / "x", b"b", b"c") == [True, False]
        assert (tmp_path / "x").read_bytes() == b"a\n{half\nb\nc\n"

    def test_a_line_with_a_line_feed_is_refused(self, tmp_path):
        """It would be two records."""
        with pytest.raises(ValueError, match="line: one line"):
            add(tmp_path / "x", b"a\nb")

    def test_a_full_disk_loses_only_the_new_record(self, tmp_path):
        """A real short write: the system lets a part through, the error says so, the next record is apart from it."""
        path = tmp_path / "x"
        add(path, b"a" * 100)
        program = f"""
import resource, signal
from pytest_mltd.ledger.files import LedgerError, appending
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))
with appending({str(path)!r}) as file:
    try:
        file.append(b"b" * 100)
    except LedgerError as error:
        print(error)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        assert "the disk is full, this record was not kept (earlier ones are)" in done.stdout
        assert path.read_bytes() == b"a" * 100 + b"\n" + b"b" * 49
        assert add(path, b"c") == [True]
        assert path.read_bytes().splitlines() == [b"a" * 100, b"b" * 49, b"c"]

    def test_killed_processes_lose_nothing_that_was_committed(self, tmp_path):
        """Four writers at once, killed in the middle: every record that was confirmed is there, whole, once."""
        path = tmp_path / "x"
        program = f"""
import sys
from pytest_mltd.ledger.files import appending
n = 0
while True:
    with appending({str(path)!r}) as file:
        file.append((sys.argv[1] + " %06d " % n + "x" * 3000).encode())
    print(n, flush=True)
    n += 1
"""
        running = [
            subprocess.Popen([sys.executable, "-c", program, str(k)], stdout=subprocess.PIPE, text=True)
            for k in range(4)
        ]
        for process in running:
            process.stdout.readline()
        confirmed = []
        for process in running:
            process.send_signal(signal.SIGKILL)
            confirmed.append(process.communicate(timeout=60)[0].splitlines())
        lines = path.read_bytes().splitlines()
        assert not add(path, b"after")[0]
        for k, said in enumerate(confirmed):
            for n in said:
                assert lines.count(f"{k} {int(n):06d} ".encode() + b"x" * 3000) == 1

    def test_a_lock_that_is_never_given_back_is_one_sentence(self, tmp_path, monkeypatch):
        """A hanging process is named as the cause."""
        monkeypatch.setattr(files, "LOCK_TIMEOUT", 0.1)
        with appending(tmp_path / "x"):
            with pytest.raises(LedgerError, match="another process has held it for 0 s; end that process"):
                add(tmp_path / "x", b"a")

    def test_two_threads_wait_for_each_other(self, tmp_path):
        """The lock holds within one process too."""
        done = []
        with appending(tmp_path / "x") as file:
            thread = threading.Thread(target=lambda: done.append(add(tmp_path / "x", b"second")))
            thread.start()
            file.append(b"first")
            assert not done
        thread.join(30)
        assert (tmp_path / "x").read_bytes() == b"first\nsecond\n"

    def test_the_limit_of_the_test_process_is_untouched(self):
        """The full disk above was a child's, not ours."""
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
