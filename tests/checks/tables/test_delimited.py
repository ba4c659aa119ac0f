"""CSV files read strictly: the row that does not fit is named, and a table of nothing is never healthy."""

import gzip

import duckdb
import pandas as pd
import pytest

import pytest_mltd as mltd
from pytest_mltd.checks.tables.delimited import csv_options
from pytest_mltd.checks.tables.frames import open_table
from pytest_mltd.checks.tables.splits import check_leakage

HEADER = "a,b,c,y"
ROWS = [f"{i / 7:.4f},{i * 37 % 101},{'ab'[i % 2]},{i % 3 % 2}" for i in range(120)]


@pytest.fixture
def write(tmp_path):
    def write_(name, lines, mark="\n", encoding="utf-8"):
        content = (mark.join(lines) + mark).encode(encoding)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return tmp_path / name

    return write_


@pytest.mark.parametrize("name", ["te.csv", "te.csv.gz", "te.csv.zst"])
@pytest.mark.parametrize(
    ("odd", "fields"),
    [("1,2,3,4,5", "5 fields"), ("1,2,3", "3 fields"), ("1", "1 field")],
    ids=["long", "short", "one"],
)
def test_a_row_that_does_not_fit_its_header_is_named(write, tmp_path, name, odd, fields):
    """One field too many or too few: the file, the line and both widths; before, the rows went away unseen."""
    train = write("tr.csv", [HEADER, *ROWS])
    test = write(name.removesuffix(".zst"), [HEADER, *ROWS[:30], odd, *ROWS[30:59]])
    if name.endswith(".zst"):
        made = "columns={'l': 'VARCHAR'}, header=false, auto_detect=false, delim='\x01', quote='', escape=''"
        test = tmp_path / name
        duckdb.sql(f"SELECT l FROM read_csv('{tmp_path / 'te.csv'}', {made})").write_csv(
            str(test), header=False, compression="zstd", sep="\x01", quotechar="", escapechar=""
        )
    with pytest.raises(ValueError, match="cannot be read as CSV") as caught:
        mltd.assert_no_leakage(str(train), test, label="y")
    assert str(caught.value) == f"test: cannot be read as CSV: {test}, line 32: {fields}, the header has 4"


def test_a_row_far_down_is_named_too(write):
    """Beyond what an engine looks at first."""
    path = write("te.csv", [HEADER, *(ROWS * 5000), "1,2,3"])
    with pytest.raises(ValueError, match="te.csv, line 600002: 3 fields, the header has 4"):
        open_table(path, "test")


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([HEADER, '1,2,"x,0', *ROWS], "line 2: a quote is opened and never closed"),
        ([HEADER, '1,2,"a" b,0', *ROWS], "line 2: ',' expected after '\"'"),
        (["# from the lab", HEADER, *ROWS], "line 2: 4 fields, the header has 1"),
        ([HEADER, *(f"{i},{row}" for i, row in enumerate(ROWS))], "line 2: 5 fields, the header has 4"),
        ([HEADER, '1,"x\ny",c,0', "1,2"], "line 4: 2 fields, the header has 4"),
    ],
)
def test_what_a_strict_reader_refuses(write, lines, text):
    """Open quotes, comments above the header, row names without a header: said with the line."""
    path = write("te.csv", lines)
    with pytest.raises(ValueError, match="cannot be read as CSV") as caught:
        open_table(path, "te")
    assert str(caught.value) == f"te: cannot be read as CSV: {path}, {text}"


def test_another_encoding_is_named(write):
    """Latin-1: the line, and what to do."""
    path = write("te.csv", [HEADER, *ROWS[:5], "1,2,café,0"], encoding="latin-1")
    with pytest.raises(ValueError, match="te.csv, line 7: not UTF-8; save the file in that encoding"):
        open_table(path, "te")


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["te.csv", "te.csv.gz"])
def test_delimiters(write, name, mark):
    """Comma, semicolon, tab and bar give one table."""
    frame = open_table(write(name, [line.replace(",", mark) for line in (HEADER, *ROWS)]), "te")
    assert frame.columns == ("a", "b", "c", "y")
    assert [frame.kind(c) for c in frame.columns] == ["number", "number", "text", "number"]
    assert frame.rows == 120


@pytest.mark.parametrize(
    ("lines", "columns", "rows"),
    [
        ([HEADER, '1.5,2,"x\ny, ""z""",1', *ROWS], ("a", "b", "c", "y"), 121),
        (["a, b, c, y", '1.5, 2, "x, y", 1', "2, 3, x, 0"], ("a", "b", "c", "y"), 2),
        ([HEADER, '1,2,5" pipe,0', *ROWS], ("a", "b", "c", "y"), 121),
        ([HEADER, *ROWS[:9], "", *ROWS[9:], "", ""], ("a", "b", "c", "y"), 120),
        (["", "", HEADER, *ROWS], ("a", "b", "c", "y"), 120),
        (["Temp (C), mean;y", "1.5;0", "2.5;1"], ("Temp (C), mean", "y"), 2),
        (["y", "1", "0", "1"], ("y",), 3),
        (['"y, z"', "1", "0"], ("y, z",), 2),
        (["preis;y", "1,5;0", "2,25;1"], ("preis", "y"), 2),
    ],
)
@pytest.mark.parametrize("mark", ["\n", "\r\n"])
def test_honest_files(write, lines, columns, rows, mark):
    """Quoted line ends, blank lines, a mark of order, one column: read whole, as before."""
    for encoding in ("utf-8", "utf-8-sig")[: 1 if "y, z" in lines[0] else 2]:  # the engine refuses that one with a mark
        frame = open_table(write("te.csv", lines, mark, encoding), "te")
        assert (frame.columns, frame.rows) == (columns, rows)


def test_a_folder_of_parts(write, tmp_path):
    """Parts that hold nothing are passed over; parts delimited differently are refused by name."""
    (tmp_path / "d").mkdir()
    write("d/1.csv", [HEADER, *ROWS[:60]])
    write("d/2.csv", [HEADER])
    (tmp_path / "d/3.csv").touch()
    frame = open_table(tmp_path / "d", "d")
    assert (frame.rows, frame.kind("a")) == (60, "number")
    write("d/4.csv", [line.replace(",", ";") for line in (HEADER, *ROWS)])
    with pytest.raises(ValueError, match="d: the files are delimited differently: 1.csv by ',', 4.csv by ';'"):
        open_table(tmp_path / "d", "d")
    write("d/4.csv", [HEADER, "1,2"])
    with pytest.raises(ValueError, match="4.csv, line 2: 2 fields, the header has 4"):
        open_table(tmp_path / "d", "d")


def test_a_file_of_nothing_says_so(write, tmp_path):
    """Empty, blank, or a header only: never "no column 'y'", and never healthy."""
    train = write("tr.csv", [HEADER, *ROWS])
    for lines in ([], [""], ["", "  "]):
        empty = write("te.csv", lines) if lines else tmp_path / "te.csv"
        if not lines:
            empty.write_bytes(b"")
        with pytest.raises(ValueError, match="te.csv is empty: not even a header"):
            check_leakage(train, empty, label="y")
    header = write("te.csv", [HEADER])
    with pytest.raises(ValueError, match="test: the table is empty: a header and no rows"):
        check_leakage(train, header, label="y")
    with pytest.raises(ValueError, match="train: the table is empty: a header and no rows"):
        check_leakage(header, label="y")


@pytest.mark.parametrize("empty", [pd.DataFrame(), pd.DataFrame({"a": [], "y": []}), {"y": []}])
def test_no_split_of_nothing_is_healthy(empty):
    """Frames in memory likewise."""
    train = pd.DataFrame({"a": range(60), "y": [0, 1, 1] * 20})
    with pytest.raises(ValueError, match="test: the table is empty: (columns|no columns) and no rows"):
        check_leakage(train, empty, label="y")
    with pytest.raises(ValueError, match="val: the table is empty"):
        mltd.assert_no_leakage({"train": train, "val": empty, "test": train}, label="y")


def test_splits_without_a_common_column_are_not_healthy():
    """The wrong file, most likely: both sides' columns are named."""
    train = pd.DataFrame({"a": range(60), "y": [0, 1, 1] * 20})
    with pytest.raises(ValueError, match="no column in common") as caught:
        check_leakage(train, pd.DataFrame({"q": range(60)}), label="y")
    assert str(caught.value) == "test: no column in common with train: it has 'q'; train 'a', 'y'"


def test_the_delimiter_is_left_to_nobody(write):
    """The options name everything that a reader could choose for itself."""
    _, options = csv_options([write("te.csv", [HEADER, *ROWS])], None)
    assert options["delim"] == ","
    assert (options["strict_mode"], options["null_padding"], options["ignore_errors"]) == (True, False, False)
