import numpy as np
import pandas as pd
import pytest
from sklearn import datasets

import pytest_mltd as mltd
from pytest_mltd.checks.tables.columns import column_of
from pytest_mltd.checks.tables.leakage import assert_no_label_leak, check_label_leak, numbers_rows


def honest(rows=600, seed=0, share=0.5):
    """A binary label and columns that an honest table has: strong, weak, ids, categories, dates, text, missing at random."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < share).astype(int)
    return pd.DataFrame(
        {
            "strong": y * 2.4 + rng.normal(size=rows),
            "weak": y * 0.3 + rng.normal(size=rows),
            "id": rng.permutation(rows) + 1000,
            "city": rng.choice(["Bonn", "Köln", "Rom"], rows),
            "name": [f"person {i}" for i in rng.permutation(rows)],
            "when": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 10**6, rows), "min"),
            "count": rng.poisson(0.5, rows),
            "half": np.where(rng.random(rows) < 0.4, np.nan, rng.normal(size=rows)),
            "y": y,
        }
    )


def leaks(frame):
    """Return the frame with one planted leak, by name."""
    y = frame["y"].to_numpy()
    rng = np.random.default_rng(1)
    n = len(y)
    noise = rng.normal(size=n)
    return {
        "spelt": np.where(y == 1, "yes", "no"),
        "shifted": y + 10,
        "scaled": y * -3.5,
        "flag": y == 1,
        "nearly a copy": np.where(rng.random(n) < 0.0, 1 - y, y),
        "noisy copy": y + noise * 0.02,
        "filled after": np.where(y == 1, noise, np.nan),
        "filled for some": np.where((y == 1) & (rng.random(n) < 0.3), noise, np.nan),
        "zero before": np.where(y == 1, np.abs(noise) + 0.1, 0.0),
        "closed on": pd.Series(pd.Timestamp("2021-01-01")).repeat(n).reset_index(drop=True).where(y == 1),
        "note": np.where(y == 1, "account was closed by fraud team ", "no remarks so far ")
        + pd.Series(range(n)).astype(str),
        "score": y + noise * 0.15,
    }


@pytest.mark.parametrize("name", leaks(honest()))
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_planted_leak_is_named_first(name, share):
    """The column is the culprit, before the strong and honest ones."""
    frame = honest(1500, share=share)
    frame.insert(3, name, leaks(frame)[name])
    found = check_label_leak(frame, label="y")
    assert found.failed, found
    assert found.culprit == name


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_honest_columns_pass(seed, share):
    """Strong features, ids, categories, dates, text and random gaps, also where the label is rare."""
    found = check_label_leak(honest(1000, seed, share), label="y")
    assert found.ok, found
    assert "strongest is" in found.headline


@pytest.mark.parametrize("seed", range(3))
def test_many_columns_and_few_rows_pass(seed):
    """With thirty rows many of 300 columns part the label well by luck."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(30, 300))).add_prefix("x")
    frame["y"] = np.arange(30) % 2
    assert check_label_leak(frame, label="y").ok
    flags = pd.DataFrame(rng.integers(0, 2, (30, 300))).add_prefix("x").assign(y=frame["y"])
    assert check_label_leak(flags, label="y").ok


@pytest.mark.parametrize("name", ["iris", "wine", "digits", "breast_cancer", "diabetes", "linnerud"])
def test_the_bundled_tables_pass(name):
    """Strong and legitimate: 'worst perimeter', a petal's length, flavanoids."""
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    label = "target" if "target" in frame else "Weight"
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(frame))
        cut = int(len(frame) * 0.7) if len(frame) > 40 else 20
        assert check_label_leak(frame.iloc[order[:cut]], frame.iloc[order[cut:]], label=label).ok
        test = frame.iloc[order[cut:]] if cut < len(frame) else None  # linnerud's twenty rows are all needed
        assert mltd.check_leakage(frame.iloc[order[:cut]], test, label=label).ok


def test_the_whole_message():
    """What a person reads at three in the morning."""
    frame = honest(200)[["strong", "weak", "y"]].assign(alive=lambda f: f["y"].map({0: "no", 1: "yes"}))
    lines = str(check_label_leak(frame, label="y")).splitlines()
    assert lines[0].startswith("leakage.label_leak: 'alive' is 'y' in another spelling (")
    assert lines[0].endswith("), AUC 1 (max_auc=0.95)")
    assert lines[2] == "    column  AUC     shuffled labels  rows"
    assert lines[3] == "  > alive   1       0.50 ± 0.04      200"
    assert lines[-2] == ("    Each value stands for one class and each class for one value, in every row of 200.")
    assert lines[-1] == (
        "    next: ask when 'alive' is written: before the prediction is made, or after the outcome is known?"
    )


def test_strength_alone_is_called_suspicion():
    """No sign but strength: evidence is inference and the message says so."""
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 2
    found = check_label_leak({"x": y * 4.2 + rng.normal(size=2000), "y": y}, label="y")
    assert found.failed
    assert found.evidence == "inference"
    assert "suspicious, not proved" in found.shows
    assert found.limit == ("max_auc_alone", 0.995)
    assert check_label_leak({"x": y * 4.2 + rng.normal(size=2000), "y": y}, label="y", max_auc_alone=1.0).ok


def test_a_row_number_of_a_sorted_table():
    """Numbers of rows that stand together by class tell it; those of a shuffled table do not."""
    frame = honest(300).drop(columns="id").sort_values("y").assign(rownames=range(1, 301))
    found = check_label_leak(frame.sample(frac=1, random_state=0), label="y")
    assert found.culprit == "rownames"
    assert "sorted by the label" in found.headline
    assert check_label_leak(honest(300).assign(rownames=range(1, 301)), label="y").ok


def test_a_year_is_no_row_number():
    """A series of years with a regime that changes once is honest."""
    assert not numbers_rows(column_of("year", np.arange(1900, 2000)))
    assert numbers_rows(column_of("Unnamed: 0", np.arange(100)))
    assert not numbers_rows(column_of("x", np.arange(100) * 0.5))


class TestSeveralClasses:
    def frame(self):
        rng = np.random.default_rng(0)
        y = rng.choice(["ant", "bee", "fly"], 600)
        size = pd.Series(y).map({"ant": 0.0, "bee": 4.0, "fly": 5.5}).to_numpy() + rng.normal(size=600)
        return pd.DataFrame({"size": size, "place": rng.choice(["N", "S"], 600), "y": y})

    def test_one_class_may_stand_apart(self):
        """A size that parts the ants alone is honest, and so is an island on which only one of them lives."""
        frame = self.frame()
        frame["island"] = np.where(frame["y"] == "bee", "A", np.where(np.arange(600) % 2, "A", "B"))
        assert check_label_leak(frame, label="y").ok

    def test_a_code_and_a_flag_made_from_the_label(self):
        """A number for each class, and a flag that is true for some classes."""
        frame = self.frame()
        assert (
            check_label_leak(frame.assign(code=frame["y"].map({"ant": 7, "bee": 9, "fly": 8})), label="y").culprit
            == "code"
        )
        assert check_label_leak(frame.assign(can_fly=frame["y"] != "ant"), label="y").culprit == "can_fly"

    def test_filled_for_one_class_only(self):
        """A column that only the bees have."""
        frame = self.frame()
        frame["honey"] = np.where(frame["y"] == "bee", 1.0 + np.arange(600), np.nan)
        assert check_label_leak(frame, label="y").culprit == "honey"


class TestAmounts:
    def frame(self, rows=500):
        rng = np.random.default_rng(0)
        heat = rng.normal(size=rows)
        return pd.DataFrame(
            {
                "heat": heat,
                "wind": rng.gamma(2, size=rows),
                "month": rng.integers(1, 13, rows),
                "energy": 50 - 9 * heat + rng.normal(size=rows) * 1.5,
            }
        )

    def test_temperature_and_energy_are_honest(self):
        """R² of 0.97 with noise is a measurement."""
        found = check_label_leak(self.frame(), label="energy")
        assert found.ok
        assert "'heat', R² 0.97" in found.headline

    @pytest.mark.parametrize(
        ("name", "make"),
        [
            ("scaled", lambda y: 1.8 * y + 32),
            ("log", lambda y: np.log(y)),
            ("rank", lambda y: y.rank()),
            ("band", lambda y: pd.cut(y, 5).astype(str)),
            ("high", lambda y: y > 60),
            ("text", lambda y: pd.qcut(y, 4, labels=["a", "b", "c", "d"]).astype(str)),
            ("inverse", lambda y: (1000 / y).round(3)),
            ("nearly", lambda y: y + np.random.default_rng(3).normal(size=len(y)) * 0.1),
            ("filled", lambda y: y.where(y > 50) * 0 + 1.0),
        ],
    )
    def test_a_column_made_from_the_amount_is_named(self, name, make):
        """Another scale, a logarithm, a rank, bands, a threshold, a rounded inverse, a little noise, a gap."""
        frame = self.frame()
        frame[name] = make(frame["energy"])
        found = check_label_leak(frame, label="energy")
        assert found.failed, found
        assert found.culprit == name

    @pytest.mark.parametrize("seed", range(5))
    def test_trends_and_lags_are_honest(self, seed):
        """Yesterday's value and the date explain a random walk well, and are known in time."""
        rng = np.random.default_rng(seed)
        price = 100 + np.cumsum(rng.normal(size=700))
        frame = pd.DataFrame(
            {
                "day": pd.date_range("2020-01-01", periods=699),
                "index": range(699),
                "yesterday": price[:-1],
                "volume": rng.lognormal(size=699),
                "price": price[1:].round(2),
            }
        )
        assert check_label_leak(frame, label="price").ok


class TestNotAsked:
    @pytest.mark.parametrize(
        ("frame", "reason"),
        [
            ({"x": range(30), "y": [1] * 30}, "the label 'y' is '1' in every row"),
            ({"x": [1, 2], "y": [None, None]}, "the label 'y' is missing in every row"),
            ({"x": [], "y": []}, "there are no rows"),
            ({"y": [0, 1]}, "train has no column but the label"),
            ({"x": [1, 2], "y": [0, 1]}, "2 of at least 20 rows with a label (min_rows=20)"),
            (
                {"x": range(40), "y": [f"text {i}" for i in range(40)]},
                "the label 'y' is text of 40 different values in 40 rows: no class",
            ),
        ],
    )
    def test_nothing_to_ask_is_said(self, frame, reason):
        """One class, no label, no rows, too few, free text."""
        found = check_label_leak(frame, label="y")
        assert not found.asked
        assert found.headline == reason

    def test_asserting_it_is_not_a_pass(self):
        """A single question that could not be asked raises."""
        with pytest.raises(mltd.NotAsked):
            assert_no_label_leak({"x": [1, 2], "y": [1, 1]}, label="y")


def test_an_allowed_column_is_passed_over_and_said():
    """The reason stays in the finding."""
    frame = honest().assign(copy=lambda f: f["y"] + 1)
    found = check_label_leak(frame, label="y", allow={"copy": "kept for the audit, the pipeline drops it"})
    assert found.ok
    assert "1 allowed: copy (kept for the audit, the pipeline drops it)" in str(found)


def test_an_all_null_column_and_a_constant_say_nothing():
    """Columns without information are no leak and no crash."""
    frame = honest().assign(nothing=None, one=1, empty="")
    assert check_label_leak(frame, label="y").ok


def test_permuted_rows_renamed_columns_same_culprit():
    """The verdict depends on the content alone."""
    frame = honest().assign(closed=lambda f: np.where(f["y"] == 1, 1.5, np.nan))
    expected = check_label_leak(frame, label="y")
    turned = frame.sample(frac=1, random_state=3)[frame.columns[::-1]].rename(columns={"closed": "Ω", "strong": "a"})
    found = check_label_leak(turned, label="y")
    assert found.culprit == "Ω"
    assert found.headline.replace("Ω", "closed") == expected.headline


def test_labels_of_several_types_are_one_label():
    """0/1, flags, text and categories of the same content give the same culprit."""
    frame = honest().assign(after=lambda f: np.where(f["y"] == 1, f["weak"], np.nan))
    for y in (frame["y"].astype(bool), frame["y"].astype(str), frame["y"].astype("category"), frame["y"] * 1.0):
        assert check_label_leak(frame.assign(y=y), label="y").culprit == "after"


def test_a_copy_in_train_that_test_holds_as_another_type():
    """Where the two tables cannot be read together, train alone decides."""
    frame = honest()
    train, test = frame[:400].assign(copy=lambda f: f["y"]), frame[400:].assign(copy="?")
    assert check_label_leak(train, test, label="y").culprit == "copy"


def test_what_names_a_group_is_no_feature():
    """A patient has one diagnosis: split by patient, that is no leak, declared or not."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 10)
    frame = pd.DataFrame(
        {"patient": [f"P{p:02d}" for p in patient], "x": rng.normal(size=600), "y": rng.integers(0, 2, 60)[patient]}
    )
    train, test = frame[:400], frame[400:]
    assert check_label_leak(train, test, label="y", group="patient").ok
    assert check_label_leak(train, test, label="y").ok
    shuffled = frame.sample(frac=1, random_state=0)
    assert check_label_leak(shuffled[:400], shuffled[400:], label="y").culprit == "patient"
    assert mltd.check_leakage(train, test, label="y", group="patient").ok


def test_an_honest_gap_may_lean_to_a_common_class():
    """Where nine of ten rows are of one class, a column filled in rows of that class alone is no news."""
    rng = np.random.default_rng(0)
    y = (rng.random(1000) < 0.1).astype(int)
    filled = (rng.random(1000) < 0.3) & (y == 0)
    assert check_label_leak({"veneer": np.where(filled, 1.0, np.nan), "x": rng.normal(size=1000), "y": y}, label="y").ok


def test_the_columns_that_are_not_shown_are_counted():
    """One is one column, and one that tells nothing reaches 0.5, not less than nothing."""
    rng = np.random.default_rng(3)
    y = np.arange(400) % 2
    others = {f"n{i}": rng.normal(size=400) + y * (6 - i) / 4 for i in range(4)}
    names = {"name": [f"p{i // 4}" for i in range(400)]}
    found = check_label_leak({"copy": y * 2, **others, **names, "y": y}, label="y")
    assert " 1 more column reaches AUC 0.5." in found.shows
    names["other"] = [f"q{i // 8}" for i in range(400)]
    found = check_label_leak({"copy": y * 2, **others, **names, "y": y}, label="y")
    assert " 2 more columns reach AUC 0.5 or less." in found.shows
    assert min(row[1] for row in found.table.rows) >= 0.5
