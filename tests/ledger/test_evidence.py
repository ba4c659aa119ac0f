"""The ledger: what is appended stays, what is amiss is said, and nothing hostile costs a good record."""

import json
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.incidents import Evidence
from pytest_mltd.ledger import evidence as ledger
from pytest_mltd.ledger.files import LedgerError


def record(number=0, **more):
    return Evidence(
        **{"incident": "leak", "hypothesis": f"H{number}", "nodeid": f"t.py::test_{number}", "kind": "failed", **more}
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "incidents" / "leak.jsonl"


@pytest.fixture
def filled(path):
    for number in range(4):
        assert ledger.append(path, record(number)) == ()
    return path


def lines(path):
    return path.read_bytes().splitlines()


def rewrite(path, raw):
    path.write_bytes(b"".join(line + b"\n" for line in raw))


def kinds(found):
    return [(p.kind, p.line) for p in found]


class TestKeeping:
    def test_what_was_appended_is_read_in_order(self, filled):
        """And nothing is amiss."""
        found = ledger.read(filled)
        assert found.evidence == tuple(record(n) for n in range(4))
        assert found.problems == ledger.verify(filled) == ()

    def test_a_line_is_readable_by_other_programs(self, filled):
        """Plain JSON with schema, the link to the line before, the evidence and its digest."""
        first, second, *_ = [json.loads(line) for line in lines(filled)]
        assert list(first) == ["schema", "prev", "evidence", "digest"]
        assert first["prev"] == "0" * 64
        assert second["prev"] == first["digest"]
        assert second["evidence"]["nodeid"] == "t.py::test_1"

    def test_bytes_once_written_are_never_changed(self, filled):
        """Append-only: the old file is a prefix of the new one."""
        before = filled.read_bytes()
        ledger.append(filled, record(9))
        assert filled.read_bytes().startswith(before)

    def test_a_record_too_large_is_shortened_and_not_refused(self, path):
        """The outcome is what counts; details and tables of a thousand findings are not."""
        wide = Table(("a",), tuple(("x" * 1000,) for _ in range(100)))
        findings = tuple(
            Finding(ok=n != 700, id="a.b", headline="h" * 2000, culprit="c", table=wide, details={"k": "v" * 1000})
            for n in range(1000)
        )
        ledger.append(path, record(findings=findings, metrics={"val/auc": list(range(300_000))}, text="t" * 30_000))
        (kept,) = ledger.read(path).evidence
        assert kept.kind == "failed"
        assert len(kept.failed_findings) == 1
        assert path.stat().st_size < ledger.MAX_RECORD

    def test_several_processes_make_one_chain(self, path):
        """Two pytest runs at once do not fork or lose a record."""
        with ProcessPoolExecutor(3) as pool:
            list(pool.map(ledger.append, [path] * 30, map(record, range(30))))
        found = ledger.read(path)
        assert sorted(int(e.hypothesis[1:]) for e in found.evidence) == list(range(30))
        assert found.problems == ()

    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(), st.text(), st.dictionaries(st.text(), st.floats()))
    def test_any_text_comes_back(self, tmp_path, text, claim, metrics):
        """Line feeds, surrogates, control signs, numbers that are not finite."""
        path = tmp_path / f"{os.urandom(6).hex()}.jsonl"
        ledger.append(path, record(text=text, claim=claim, metrics=metrics))
        found = ledger.read(path)
        assert found.problems == ()
        assert (found.evidence[0].text, found.evidence[0].claim) == (text, claim)


class TestTearing:
    @pytest.mark.parametrize("left", [1, 9, 40, -1])
    def test_a_torn_last_line_costs_no_other(self, filled, left):
        """Cut anywhere in the last line, it is named, the others are read, and the next record stands apart."""
        whole = lines(filled)
        filled.write_bytes(b"\n".join([*whole[:3], whole[3][:left]]))
        found = ledger.read(filled)
        assert found.evidence == tuple(record(n) for n in range(3))
        assert kinds(found.problems) == [("torn", 4)]
        (said,) = ledger.append(filled, record(7))
        assert "cut short after" in str(said)
        assert str(filled) in str(said)
        again = ledger.read(filled)
        assert again.evidence == (*found.evidence, record(7))
        assert kinds(again.problems) == [("torn", 4)]

    def test_a_last_line_that_lacks_only_its_end_is_whole(self, filled):
        """Torn between the record and its line feed: nothing is lost and nothing is reported."""
        filled.write_bytes(filled.read_bytes()[:-1])
        assert ledger.append(filled, record(7)) == ()
        assert len(ledger.read(filled).evidence) == 5
        assert ledger.read(filled).problems == ()

    def test_line_ends_of_windows_are_no_edit(self, filled):
        """Git may change them on checkout."""
        filled.write_bytes(filled.read_bytes().replace(b"\n", b"\r\n"))
        assert ledger.read(filled).problems == ()
        assert len(ledger.read(filled).evidence) == 4


class TestTampering:
    def test_an_edited_record_is_named_and_not_counted(self, filled):
        """Red made green by hand."""
        raw = lines(filled)
        raw[1] = raw[1].replace(b'"kind":"failed"', b'"kind":"passed"')
        rewrite(filled, raw)
        found = ledger.read(filled)
        assert kinds(found.problems) == [("edited", 2)]
        assert found.evidence == (record(0), record(2), record(3))

    def test_a_record_taken_out_is_noticed(self, filled):
        """Its successor follows a line that is not there."""
        raw = lines(filled)
        rewrite(filled, [raw[0], *raw[2:]])
        assert kinds(ledger.read(filled).problems) == [("missing", 2)]

    def test_records_in_another_order_are_noticed(self, filled):
        """Green before red is another story."""
        raw = lines(filled)
        rewrite(filled, [raw[0], raw[2], raw[1], raw[3]])
        assert ("missing", 2) in kinds(ledger.read(filled).problems)

    def test_a_record_that_stands_twice_counts_once(self, filled):
        """As a union merge may leave it."""
        raw = lines(filled)
        rewrite(filled, [*raw, raw[1]])
        found = ledger.read(filled)
        assert kinds(found.problems) == [("edited", 5)]
        assert len(found.evidence) == 4

    def test_two_branches_merged_are_both_counted(self, filled):
        """A fork is said and is harmless."""
        common = lines(filled)
        ledger.append(filled, record(5))
        ours = lines(filled)[4]
        rewrite(filled, common)
        ledger.append(filled, record(6))
        theirs = lines(filled)[4]
        rewrite(filled, [*common, ours, theirs])
        found = ledger.read(filled)
        assert kinds(found.problems) == [("merged", 6)]
        assert found.problems[0].harmless
        assert len(found.evidence) == 6

    def test_what_git_has_and_the_file_has_not_is_noticed(self, filled, git):
        """Cutting off the end leaves the chain whole; the commit tells."""
        git(filled.parent, "init", "-q")
        git(filled.parent, "add", ".")
        git(filled.parent, "commit", "-q", "-m", "x")
        assert ledger.verify(filled) == ()
        ledger.append(filled, record(5))
        assert ledger.verify(filled) == ()
        rewrite(filled, lines(filled)[:3])
        assert ledger.read(filled).problems == ()
        (said,) = ledger.verify(filled)
        assert said.kind == "removed"
        assert "line 4 of the committed file is gone or changed; see: git diff HEAD" in str(said)

    def test_a_deleted_ledger_that_git_has_says_how_to_bring_it_back(self, filled, git):
        """Nothing committed is lost."""
        git(filled.parent, "init", "-q")
        git(filled.parent, "add", ".")
        git(filled.parent, "commit", "-q", "-m", "x")
        filled.unlink()
        with pytest.raises(
            LedgerError, match="the ledger is gone, but git has it; bring it back with: git checkout HEAD"
        ):
            ledger.verify(filled)


class TestHostility:
    @pytest.mark.parametrize(
        "line",
        [
            b"hello",
            b"[]",
            b"{}",
            b'{"schema": 1}',
            b'{"schema": "1", "evidence": {}}',
            b'{"schema": 1, "evidence": 3, "prev": []}',
            b'{"schema": 1, "evidence": {"incident": "../../etc", "hypothesis": "x", "nodeid": "", "kind": "passed"}}',
            b"\xff\xfe\x00\x00",
            b"[" * 100_000,
            b'{"schema": ' + b"9" * 5000 + b', "evidence": {}}',
            b'{"schema": 1, "evidence": ' + b"x" * (2**20),
        ],
        ids=lambda line: line[:24].decode("latin-1"),
    )
    def test_a_line_that_is_no_record_costs_no_other(self, filled, line):
        """Whatever stands there, the good records are read and the next one can be appended."""
        raw = lines(filled)
        rewrite(filled, [raw[0], line, *raw[1:], line])
        ledger.append(filled, record(7))
        found = ledger.read(filled)
        assert found.evidence == (*[record(n) for n in range(4)], record(7))
        assert {n for k, n in kinds(found.problems) if k in ("foreign", "torn", "edited")} == {2, 6}
        assert all(len(str(p)) < 600 for p in found.problems)

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=200), st.integers(0, 10**6))
    def test_any_bytes_anywhere_lose_only_the_line_they_hit(self, filled, noise, position):
        """A law over all damage: at most the lines touched are lost, and reading never raises anything but our error."""
        raw = filled.read_bytes()
        position %= len(raw)
        damaged = filled.parent / "damaged.jsonl"
        damaged.write_bytes(raw[:position] + noise + raw[position:])
        found = ledger.read(damaged)
        assert len(found.evidence) >= 3
        if noise.strip(b"\r\n \t") and len(found.evidence) < 4:
            assert found.problems

    def test_a_newer_version_is_refused_whole(self, filled):
        """Reading half a history would fold to a wrong status; appending would mix two formats."""
        newer = lines(filled)[0].replace(b'{"schema":1,', b'{"schema":2,')
        rewrite(filled, [*lines(filled), newer])
        for use in (ledger.read, lambda p: ledger.append(p, record(7))):
            with pytest.raises(
                LedgerError, match=r"a newer pytest-mltd wrote it \(schema 2, this one knows 1\); upgrade"
            ):
                use(filled)

    def test_an_empty_file_is_an_empty_ledger(self, path):
        """Nothing recorded yet."""
        path.parent.mkdir()
        path.write_bytes(b"\n\n")
        assert ledger.read(path).evidence == ledger.read(path).problems == ()
        ledger.append(path, record())
        assert len(ledger.read(path).evidence) == 1


class TestPlace:
    def test_a_new_ledger_lies_beside_the_tests(self, tmp_path):
        """In the folder of the incident's tests, else in `tests`, else in the root."""
        assert ledger.ledger_path(tmp_path, "leak") == tmp_path / "incidents" / "leak.jsonl"
        (tmp_path / "tests").mkdir()
        assert ledger.ledger_path(tmp_path, "leak") == tmp_path / "tests" / "incidents" / "leak.jsonl"
        own = tmp_path / "tests" / "loan"
        assert ledger.ledger_path(tmp_path, "leak", tests=own) == own / "incidents" / "leak.jsonl"

    def test_one_that_exists_is_used_again(self, tmp_path):
        """Wherever it lies below the root, hidden folders and environments left out."""
        for folder in ("a/b", ".hidden", "node_modules/x"):
            (tmp_path / folder / "incidents").mkdir(parents=True)
            (tmp_path / folder / "incidents" / "leak.jsonl").touch()
        assert ledger.ledger_path(tmp_path, "leak", tests=tmp_path) == tmp_path / "a" / "b" / "incidents" / "leak.jsonl"

    def test_two_of_one_name_are_refused(self, tmp_path):
        """Neither is guessed to be the right one."""
        for folder in ("a", "b"):
            (tmp_path / folder / "incidents").mkdir(parents=True)
            (tmp_path / folder / "incidents" / "leak.jsonl").touch()
        with pytest.raises(LedgerError, match="there is a second ledger of 'leak'"):
            ledger.ledger_path(tmp_path, "leak")

    @pytest.mark.parametrize("name", ["../x", "a/b", "", ".."])
    def test_a_name_that_leads_elsewhere_is_refused(self, tmp_path, name):
        """The ledger stays in its folder."""
        with pytest.raises(ValueError, match="^incident: "):
            ledger.ledger_path(tmp_path, name)


@pytest.fixture
def git():
    def run(folder, *arguments):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)

    return run
