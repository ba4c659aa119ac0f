import numpy as np
import pandas as pd
import pytest

import pytest_mltd as mltd
from pytest_mltd.checks.tables.splits import assert_no_leakage, check_leakage


def table(rows=300, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"a": rng.normal(size=rows), "b": rng.normal(size=rows), "y": rng.integers(0, 2, rows)})


def test_a_clean_split_passes_and_says_what_was_not_asked():
    """Questions without their column are listed with the reason, not passed over."""
    found = check_leakage(table(), table(seed=1), label="y")
    assert found.ok
    assert {f.id for f in found.findings} == {"leakage.label_leak", "overlap.row_overlap"}
    assert {f.headline for f in found.not_asked} == {"no group was named", "no time was named", "no key was named"}
    assert "the splits are healthy: 2 questions asked" in str(found)
    assert_no_leakage(table(), table(seed=1), label="y")


def test_a_date_column_is_hinted_at():
    """Where both tables hold dates, the reason says how to ask."""
    frames = [table(seed=s).assign(day=pd.Timestamp("2020-01-01")) for s in (0, 1)]
    reasons = [f.headline for f in check_leakage(*frames).not_asked]
    assert "no time was named; 'day' holds dates, time='day' asks it" in reasons
    assert "no label was named" in reasons


def test_the_gravest_comes_first():
    """A column that is the label comes before shared groups, those before shared rows."""
    train = table().assign(copy=lambda f: f["y"].map({0: "no", 1: "yes"}), g=range(300))
    test = pd.concat([table(seed=1).assign(copy="no", g=range(300, 600)), train.iloc[:50]])
    found = check_leakage(train, test, label="y", group="g")
    assert [f.id for f in found.failed] == ["leakage.label_leak", "overlap.group_overlap", "overlap.row_overlap"]
    with pytest.raises(mltd.CheckFailed) as caught:
        assert_no_leakage(train, test, label="y", group="g")
    assert caught.value.findings[0].culprit == "copy"


def test_a_mapping_of_splits_asks_every_pair_and_names_it():
    """The pair that shares rows is the one in the message."""
    train, val = table(), table(seed=1)
    test = pd.concat([table(seed=2), val.iloc[:40]])
    found = check_leakage({"train": train, "val": val, "test": test}, label="y")
    assert [f.headline.split(" (")[0] for f in found.failed] == ["40 of 340 test rows"]
    assert "stand in val too" in found.failed[0].headline
    assert len([f for f in found.findings if f.id == "overlap.row_overlap"]) == 3


def test_a_dictionary_of_columns_is_one_table():
    """Columns are not splits."""
    columns = {k: v.to_list() for k, v in table().items()}
    assert check_leakage(columns, columns).failed
    alone = check_leakage(columns, label="y")
    assert [f.id for f in alone.findings] == ["leakage.label_leak"]
    assert "one table was given; this takes two" in str(alone)


def test_a_reason_allows_a_column():
    """The plain name of a column silences it, and the reason is printed."""
    train = table().assign(copy=lambda f: 2 * f["y"])
    allowed = check_leakage(train, label="y", allow={"copy": "this is a unit test of the loader"})
    assert allowed.ok
    assert allowed.allowed == (("leakage.label_leak", "copy", "this is a unit test of the loader"),)
    assert not check_leakage(train, label="y").ok


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"label": "Y"}, "label: no column 'Y' in train; the nearest is 'y'"),
        ({"group": "bb"}, "group: no column 'bb' in train; the nearest is 'b'"),
        ({"time": "zzz"}, "time: no column 'zzz' in train; it has 'a', 'b', 'y'"),
        ({"key": "only"}, "key: no column 'only' in test; it has 'a', 'b', 'y'"),
    ],
)
def test_a_wrong_name_suggests_the_near_one(arguments, text):
    """The argument, the name, the table and the nearest column."""
    with pytest.raises(ValueError, match="no column") as caught:
        check_leakage(table().assign(only=1) if "key" in arguments else table(), table(seed=1), **arguments)
    assert str(caught.value) == text


def test_a_name_that_is_not_near_is_not_suggested():
    """'nope' is no misspelt 'income'."""
    columns = {"income": [1.5, 2.5], "y": [0, 1]}
    with pytest.raises(ValueError, match="group: no column 'nope' in train; it has 'income', 'y'"):
        check_leakage(columns, columns, group="nope")


def test_test_may_lack_the_label():
    """An unlabelled test set is asked all the rest."""
    found = check_leakage(table(), table(seed=1).drop(columns="y"), label="y")
    assert found.ok
    assert len(found.findings) == 2


def test_a_mapping_and_a_test_table_are_one_too_many():
    """The refusal says what to do."""
    with pytest.raises(TypeError, match="train: a mapping of splits was given, and a test table as well"):
        check_leakage({"train": table(), "val": table()}, table())
