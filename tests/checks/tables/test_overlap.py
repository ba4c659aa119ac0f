import numpy as np
import pandas as pd
import pytest

import pytest_mltd as mltd
from pytest_mltd.checks.tables.overlap import (
    assert_no_group_overlap,
    assert_no_key_overlap,
    assert_no_row_overlap,
    assert_no_time_overlap,
    check_group_overlap,
    check_key_overlap,
    check_row_overlap,
    check_time_overlap,
)


def measurements(rows=400, columns=6, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({f"x{i}": rng.normal(size=rows) for i in range(columns)})


def halves(frame, share=0.7):
    cut = int(len(frame) * share)
    return frame.iloc[:cut], frame.iloc[cut:]


class TestRowOverlap:
    def test_copied_rows_are_counted(self):
        """Twelve training rows put into test are twelve, and the message names them and the limit."""
        train, test = halves(measurements())
        found = check_row_overlap(train, pd.concat([test, train.iloc[:12]]))
        assert found.failed
        assert found.details["shared"] == 12
        assert found.headline == (
            "12 of 132 test rows (9.09%) stand in train too: identical rows on both sides (max_share=0.005)"
        )
        assert found.evidence == "definition"

    def test_the_whole_message(self):
        """What a person reads: count, limit, an example, what chance would do, one next step."""
        train = pd.DataFrame(
            {"a": [0.125, 2.5, 3.75, 4.5], "b": [10.25, 20.5, 30.125, 40.5], "c": ["u", "v", "w", "z"]}
        )
        test = pd.DataFrame({"a": [2.5, 9.125], "b": [20.5, 90.25], "c": ["v", "q"], "y": [1, 0]})
        assert str(check_row_overlap(train, test)) == (
            "overlap.row_overlap: 1 of 2 test rows (50%) stand in train too: identical rows on both sides "
            "(max_share=0.005)\n\n"
            "    a    b     c\n"
            "  > 2.5  20.5  v\n\n"
            "    The rows are equal in 3 columns; values this rich do not agree by chance.\n"
            "    next: drop repeated rows before the split, or keep all copies of a row on one side"
        )

    def test_distinct_rows_pass_and_say_what_was_looked_at(self):
        """No shared row: a pass with both sizes."""
        found = check_row_overlap(*halves(measurements()))
        assert found.ok
        assert found.looked_at == "120 rows of test against 280 of train, 6 columns"
        assert_no_row_overlap(*halves(measurements()))

    def test_one_in_a_hundred_is_enough(self):
        """A share of one percent, which a limit of five percent passes, fails."""
        train, test = halves(measurements(4000))
        with pytest.raises(mltd.CheckFailed):
            assert_no_row_overlap(train, pd.concat([test, train.iloc[:12]]))

    def test_the_label_is_no_part_of_the_row(self):
        """Copies whose label was changed are copies still, and the message says how many labels agree."""
        train, test = halves(measurements().assign(y=0))
        copies = train.iloc[:10].assign(y=[0] * 4 + [1] * 6)
        found = check_row_overlap(train, pd.concat([test, copies]), label="y")
        assert found.failed
        assert "In 4 of 10 pairs 'y' is the same too." in found.shows

    def test_copies_numbered_anew_are_found(self):
        """A row number or a key that differs does not hide a copy."""
        train, test = halves(measurements())
        test = pd.concat([test, train.iloc[:10]])
        numbered = [f.assign(**{"Unnamed: 0": range(k, k + len(f))}) for k, f in ((0, train), (1000, test))]
        assert check_row_overlap(*numbered).details["shared"] == 10
        keyed = [f.assign(k=range(k, k + len(f))) for k, f in ((0, train), (1000, test))]
        assert check_row_overlap(*keyed, key="k").details["shared"] == 10

    @pytest.mark.parametrize("seed", range(5))
    def test_a_coarse_grid_agrees_by_chance(self, seed):
        """Rows of small integers, one-hot codes and flags agree without being copies, and that is no alarm."""
        rng = np.random.default_rng(seed)
        grid = pd.DataFrame(rng.integers(0, 5, (2000, 5)), columns=list("abcde"))
        found = check_row_overlap(*halves(grid))
        assert found.ok
        assert found.details["shared"] > 50
        assert "chance explains about" in found.looked_at
        one_hot = pd.get_dummies(grid.astype(str))
        assert check_row_overlap(*halves(one_hot)).ok
        assert check_row_overlap(*halves(grid.assign(sum=grid.sum(axis=1), twice=2 * grid["a"]))).ok

    def test_copies_within_rounded_measurements_are_found(self):
        """Values of two digits in eight columns: the copies stand out of what chance does."""
        train, test = halves(measurements(3000, 8).round(1))
        assert check_row_overlap(train, test).ok
        assert check_row_overlap(train, pd.concat([test, train.iloc[:50]])).failed

    def test_repeated_text_is_judged_by_its_length(self):
        """One column of text: whole sentences are copies, 'ok' and 'thanks' are not."""
        long = pd.DataFrame({"text": [f"this is message number {i} of a long conversation" for i in range(100)]})
        assert check_row_overlap(long[:80], long[60:]).failed
        short = pd.DataFrame({"text": ["ok", "thanks", "no", "yes"] * 25})
        assert check_row_overlap(short[:80], short[80:]).ok

    def test_missing_equals_missing_and_negative_zero_equals_zero(self):
        """Two identical rows with nulls are identical, as are -0.0 and 0.0, 1 and 1.0."""
        base = measurements(200).assign(n=1)
        train = base.copy()
        train.iloc[:5, 0] = np.nan
        train.iloc[5:10, 1] = 0.0
        copies = train.iloc[:10].copy()
        copies.iloc[5:10, 1] = -0.0
        test = pd.concat([measurements(50, seed=1).assign(n=2), copies]).astype({"n": float})
        assert check_row_overlap(train, test).details["shared"] == 10

    def test_a_single_repeat_among_many_passes_and_is_said(self):
        """One flower in a hundred repeats by itself; two do not, and neither does one of three."""
        train, test = halves(measurements())
        found = check_row_overlap(train, pd.concat([test, train.iloc[:1]]))
        assert found.ok
        assert found.headline.startswith("1 of 121 test rows (0.826%) stand in train too, a single one")
        assert check_row_overlap(train, pd.concat([test, train.iloc[:2]])).failed
        assert check_row_overlap(train, pd.concat([test.iloc[:2], train.iloc[:1]])).failed

    def test_the_middles_of_bins_are_no_rich_values(self):
        """Two columns of few values with many digits agree by chance."""
        rng = np.random.default_rng(0)
        frame = pd.DataFrame(rng.integers(0, 40, (3000, 2)) / 7)
        assert check_row_overlap(*halves(frame)).ok

    def test_allowed_repeats_are_said(self):
        """A person's reason silences the finding and is printed."""
        train, _test = halves(measurements())
        found = check_row_overlap(train, train, allow={"rows": "the test set is a subset on purpose"})
        assert found.ok
        assert "1 allowed: rows" in str(found)

    @pytest.mark.parametrize(
        ("train", "test", "reason"),
        [
            ({"a": []}, {"a": [1]}, "train has no rows"),
            ({"a": [1]}, {"a": []}, "test has no rows"),
            ({"a": [1]}, {"b": [1]}, "train and test have no column in common to compare"),
        ],
    )
    def test_nothing_to_compare_is_not_asked(self, train, test, reason):
        """Nothing examined is not a pass."""
        found = check_row_overlap(train, test)
        assert not found.asked
        assert found.headline == reason


class TestGroupOverlap:
    def test_the_shared_groups_are_counted(self):
        """Two of three test patients have rows in train; the fullest is shown first."""
        train, test = pd.DataFrame({"p": [1, 1, 2, 3]}), pd.DataFrame({"p": [2, 3, 3, 9]})
        assert str(check_group_overlap(train, test, group="p")) == (
            "overlap.group_overlap: 2 of 3 groups of 'p' are in both train and test (max_share=0)\n\n"
            "    p  rows in train  rows in test\n"
            "  > 3  1              2\n"
            "    2  1              1\n\n"
            "    3 of 4 test rows belong to a group that train has rows of.\n"
            "    next: split by group, as scikit-learn's GroupShuffleSplit does, so that each stands on one side"
        )

    def test_apart_they_pass(self):
        """Groups on one side each, missing ones on both: no alarm."""
        train, test = pd.DataFrame({"p": [1, 2, None]}), pd.DataFrame({"p": [3, 4, None]})
        assert check_group_overlap(train, test, group="p").ok
        assert_no_group_overlap(train, test, group="p")

    def test_several_columns_name_a_group_together(self):
        """Ward 1 of two hospitals is two groups."""
        train, test = {"h": ["A", "B"], "w": [1, 1]}, {"h": ["A", "B"], "w": [2, 1]}
        found = check_group_overlap(train, test, group=["h", "w"])
        assert found.culprit == "h, w"
        assert found.details["shared"] == 1

    @pytest.mark.parametrize(
        ("here", "there"),
        [([1, 2], ["2", "3"]), ([1.0, 2.0], [2, 3]), ([1.0, 2.0], ["2", "3"]), (pd.Categorical(["2"]), ["2", "x"])],
    )
    def test_numbers_and_their_text_are_one(self, here, there):
        """A file read as text and one read as numbers name the same groups."""
        found = check_group_overlap(pd.DataFrame({"g": here}), pd.DataFrame({"g": there}), group="g")
        assert found.details["shared"] == 1

    def test_no_group_at_all_is_not_asked(self):
        """A column of nothing but nulls names no group."""
        found = check_group_overlap({"g": [None, None]}, {"g": [1, 2]}, group="g")
        assert not found.asked
        assert "names no group in train" in found.headline


class TestKeyOverlap:
    def test_a_shared_key_is_named(self):
        """One key on both sides fails and is shown."""
        found = check_key_overlap({"id": ["a", "b"]}, {"id": ["b", "c"]}, key="id")
        assert found.failed
        assert found.headline == "1 of 2 keys of 'id' are in both train and test (max_share=0)"
        assert found.table.rows == (("b", 1, 1),)

    def test_distinct_keys_pass(self):
        """Null keys never match each other."""
        assert_no_key_overlap({"id": ["a", None]}, {"id": ["b", None]}, key="id")

    def test_a_share_may_be_let_pass(self):
        """The limit is the share of test's keys."""
        assert check_key_overlap({"id": [1, 2, 3]}, {"id": [3, 4]}, key="id", max_share=0.5).ok


class TestTimeOverlap:
    def days(self, first, last):
        return pd.DataFrame({"t": pd.date_range(first, last, freq="D")})

    def test_train_after_the_first_test_row_fails(self):
        """A shuffled series: train reaches into test's stretch, by how many rows is said."""
        found = check_time_overlap(
            self.days("2020-01-01", "2020-01-10"), self.days("2020-01-06", "2020-01-20"), time="t"
        )
        assert str(found) == (
            "overlap.time_overlap: 4 of 10 train rows are later in 't' than the first row of test, 2020-01-06 "
            "(max_share=0)\n\n"
            "    split  first t     last t      rows\n"
            "  > train  2020-01-01  2020-01-10  10\n"
            "    test   2020-01-06  2020-01-20  15\n\n"
            "    The two stretches of time overlap: a model trained on this has seen the future of what it is tested on.\n"
            "    next: split at one instant of 't': everything before it for train, the rest for test"
        )

    def test_the_same_instant_on_both_sides_of_the_cut_is_no_future(self):
        """Rows of one day may fall on both sides of the cut."""
        assert_no_time_overlap(self.days("2020-01-01", "2020-01-10"), self.days("2020-01-10", "2020-01-20"), time="t")

    def test_splits_the_wrong_way_round_are_said(self):
        """All of train later than all of test is its own sentence."""
        found = check_time_overlap(
            self.days("2021-01-01", "2021-01-10"), self.days("2020-01-01", "2020-01-10"), time="t"
        )
        assert "wrong way round" in found.shows

    def test_time_zones_are_compared_as_instants(self):
        """23:30 in Berlin is before midnight in London."""
        berlin = pd.DataFrame({"t": pd.to_datetime(["2020-01-01 23:30"]).tz_localize("Europe/Berlin")})
        london = pd.DataFrame({"t": pd.to_datetime(["2020-01-01 23:00"]).tz_localize("UTC")})
        assert check_time_overlap(berlin, london, time="t").ok
        assert check_time_overlap(london, berlin, time="t").failed

    @pytest.mark.parametrize(
        ("train", "test"), [([2019, 2020], [2021]), (["2019-05-01", "2020-01-01T10:00:00Z"], ["2021-01-01"])]
    )
    def test_years_and_iso_text_are_times_too(self, train, test):
        """Numbers and text in ISO form are taken."""
        assert check_time_overlap({"t": train}, {"t": test}, time="t").ok
        assert check_time_overlap({"t": test}, {"t": train}, time="t").failed

    def test_missing_times_are_left_out(self):
        """A null is at no time; nothing but nulls is not asked."""
        assert check_time_overlap({"t": [1, None]}, {"t": [2, None]}, time="t").ok
        assert check_time_overlap({"t": [None]}, {"t": [2]}, time="t").headline == "'t' has no time in train"

    def test_text_that_is_no_date_is_refused(self):
        """The column, the table and the text are named."""
        with pytest.raises(ValueError, match="time: column 't' in train holds text that is no date in ISO form"):
            check_time_overlap({"t": ["yesterday"]}, {"t": ["2020-01-01"]}, time="t")
        with pytest.raises(ValueError, match="time: 't' holds instants in one table and numbers in the other"):
            check_time_overlap(self.days("2020-01-01", "2020-01-02"), {"t": [3]}, time="t")


def wages(rows, seed, label):
    """A survey of two columns: the year, and a wage that people give in round numbers."""
    rng = np.random.default_rng(seed)
    hours, pay = rng.integers(20, 60, rows), rng.integers(4, 30, rows) * 20
    return pd.DataFrame({"year": rng.choice([1992, 1996, 2000], rows), "wage": pay / hours, "sex": label(rng, rows)})


def test_rows_that_agree_by_chance_and_not_in_the_label_are_no_copies():
    """A round wage in the same year is shared by many strangers; their sex is that of strangers too."""

    def either(rng, rows):
        return rng.choice(["f", "m"], rows)

    train, test = wages(1500, 0, either), wages(600, 1, either)
    finding = check_row_overlap(train, test, label="sex")
    assert finding.ok
    assert "no copies: blank, or of another label" in finding.headline


def test_copies_in_few_columns_keep_their_label_and_are_found():
    """The same survey with a third of its test rows copied from train, label and all."""

    def either(rng, rows):
        return rng.choice(["f", "m"], rows)

    train, test = wages(1500, 0, either), wages(600, 1, either)
    test = pd.concat([test.iloc[:400], train.iloc[:200]])
    assert check_row_overlap(train, test, label="sex").failed


def test_copies_with_a_measured_label_are_found_though_it_was_measured_twice():
    """One molecule on both sides, its activity measured again: the labels differ in the last digits only."""
    frame = measurements(rows=400, columns=1)
    frame["activity"] = np.random.default_rng(3).normal(size=400)
    train, test = halves(frame)
    again = train.iloc[:40].assign(activity=lambda f: f["activity"] + 0.01)
    assert check_row_overlap(train, pd.concat([test, again]), label="activity").failed


def test_rows_of_nothing_are_no_copies():
    """Countries without any figure are equal in all of them, and were not copied."""
    frame = measurements(rows=400)
    frame.loc[frame.index % 10 == 0] = np.nan
    frame["label"] = np.random.default_rng(0).normal(size=400)
    train, test = halves(frame)
    assert check_row_overlap(train, test, label="label").ok
    assert check_row_overlap(train, test).ok


def test_the_pairs_that_were_looked_at_are_not_taken_for_all(tmp_path):
    """Of many copies in files some are fetched: the message says how many those are."""
    train, test = halves(measurements(2000).assign(y=0))
    pd.concat([test, train.iloc[:159]]).to_csv(tmp_path / "test.csv", index=False)
    train.to_csv(tmp_path / "train.csv", index=False)
    found = check_row_overlap(tmp_path / "train.csv", tmp_path / "test.csv", label="y")
    assert found.details["shared"] == 159
    assert "In 50 of the 50 pairs looked at 'y' is the same too." in found.shows
