"""From a value to its message: the whole texts, as a person reads them at 3 a.m."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mltd.core.findings import Finding, Table, diagnose_findings, no_occasion, not_asked
from pytest_mltd.core.rendering import MAX_CELL, MAX_LINE, annotation, cell, clean, number, table_lines

LEAK = Finding(
    ok=False,
    id="leakage.label_leak",
    headline="'days' alone predicts the label, AUC 0.998 (max_auc=0.95)",
    culprit="days",
    table=Table(("column", "AUC", "rows"), (("days", 0.99812, 40960), ("age", 0.612, 409)), 0),
    shows="22 more columns score 0.59 or less.",
    next_step="ask when 'days' is written",
    allowed=(("income", "known at application"),),
)


class TestFindingText:
    def test_a_failing_finding(self):
        """Headline, table with the culprit marked, what it shows, what is allowed, the next step."""
        assert (
            str(LEAK)
            == """\
leakage.label_leak: 'days' alone predicts the label, AUC 0.998 (max_auc=0.95)

    column  AUC     rows
  > days    0.9981  40,960
    age     0.612   409

    22 more columns score 0.59 or less.
    1 allowed: income (known at application)
    next: ask when 'days' is written"""
        )

    def test_a_passing_finding_says_what_was_looked_at(self):
        """No table and no advice where nothing is wrong."""
        finding = Finding(
            ok=True, id="x.y", headline="highest AUC 0.61", looked_at="12 columns, 4096 rows", next_step="-"
        )
        assert str(finding) == "x.y: ok: highest AUC 0.61\n    looked at: 12 columns, 4096 rows"

    def test_a_question_that_was_not_asked_says_why_and_what_to_do(self):
        """The reason is the headline and the remedy follows."""
        finding = not_asked("200 of at least 500 steps", next_step="run with steps=500")
        assert str(finding) == "unnamed: not asked: 200 of at least 500 steps\n    next: run with steps=500"

    def test_an_allowed_finding_does_not_read_as_if_nothing_was_seen(self):
        """What a person allowed keeps its headline and is called allowed, not ok."""
        finding = Finding(ok=True, id="x.y", headline="'days' predicts", culprit="days", allowed=(("days", "why"),))
        assert str(finding) == "x.y: allowed: 'days' predicts\n    1 allowed: days (why)"

    def test_many_allowances_are_counted(self):
        """Three are shown and the others are a number."""
        finding = Finding(ok=True, id="x.y", headline="fine", allowed=tuple((f"c{i}", "why") for i in range(9)))
        assert str(finding).splitlines()[-1] == "    6 more allowed"

    def test_the_first_line_is_one_line(self):
        """A newline or terminal code inside a column name does not break out of the headline."""
        finding = Finding(ok=False, id="x.y", headline="column 'a\n\x1b[31mb' is bad")
        assert str(finding) == "x.y: column 'a\\n\\x1b[31mb' is bad"

    @given(st.text(), st.text(), st.text())
    def test_no_text_from_outside_adds_a_line(self, headline, place, shows):
        """Law: the number of lines depends on the finding's parts and never on their text."""
        table = Table(("place",), ((place,),), 0)
        finding = Finding(ok=False, id="x.y", headline=headline, shows=shows + "x", table=table)
        assert len(str(finding).splitlines()) == 6


class TestDiagnosisText:
    def test_the_root_leads_and_its_symptoms_are_folded_under_it(self):
        """One cause, told once; then what was allowed, and what could not be asked and why."""
        nan = Finding(ok=False, id="gradients.nonfinite", headline="NaN", rank=1, explains=("losses.*",))
        loss = Finding(ok=False, id="losses.loss_spike", headline="loss 8.1")
        fine = Finding(ok=True, id="updates.scale", headline="fine", allowed=(("head", "frozen"),))
        short = [
            Finding(ok=True, asked=False, id=name, headline="20 of at least 500 steps")
            for name in ("losses.p", "losses.q")
        ]
        diagnosis = diagnose_findings("run", [loss, nan, fine, *short], looked_at="20 steps", notes=["cut"])
        assert (
            str(diagnosis)
            == """\
gradients.nonfinite: NaN
    it explains:
      losses.loss_spike: loss 8.1

2 of 3 questions failed
looked at: 20 steps
1 allowed: updates.scale at head (frozen)
not asked: losses.p, losses.q (20 of at least 500 steps)
note: cut"""
        )

    def test_many_symptoms_are_named_and_few_are_told(self):
        """Three lines, then the ids alone."""
        root = Finding(ok=False, id="gradients.nonfinite", headline="NaN", rank=1, explains=("losses.*",))
        symptoms = [Finding(ok=False, id=f"losses.s{i}", headline="x" * 500) for i in range(5)]
        lines = str(diagnose_findings("run", [root, *symptoms])).splitlines()
        assert [line.partition(": ")[0] for line in lines[1:5]] == [
            "    it explains:",
            *(f"      losses.s{i}" for i in range(3)),
        ]
        assert lines[5] == "      and losses.s3, losses.s4"
        assert max(map(len, lines)) <= 120

    def test_only_the_first_root_is_told_with_its_table(self):
        """A second root keeps its sentence and its next step; the first stays on the screen."""
        other = Finding(
            ok=False, id="z.z", headline="z", table=Table(("z",), (("zz",),)), shows="Zs.", next_step="do z", rank=90
        )
        text = str(diagnose_findings("splits", [LEAK, other]))
        assert "> days" in text
        assert text.count("z.z: z\n    Zs.\n    next: do z") == 1

    def test_health_says_how_much_was_asked(self):
        """A pass names its number of questions."""
        assert str(diagnose_findings("run", [Finding(ok=True, headline="x")])) == (
            "run healthy: 1 question asked, none failed"
        )

    def test_nothing_asked_is_not_called_healthy(self):
        """With every question unasked there is no verdict."""
        text = str(diagnose_findings("run", [not_asked("no step was seen")]))
        assert text.splitlines()[0] == "nothing could be asked"
        assert "no step was seen" in text

    def test_a_crash_is_said_first_and_is_not_health(self):
        """A run that raised is not called healthy; with nothing asked, the crash is all there is to say."""
        fine = Finding(ok=True, headline="x")
        text = str(diagnose_findings("run", [fine], crashed="crashed at step 5: RuntimeError: no"))
        assert text == "crashed at step 5: RuntimeError: no\n1 question asked of what came before, none failed"
        text = str(diagnose_findings("run", [LEAK], crashed="crashed at step 5: RuntimeError: no"))
        assert text.startswith("leakage.label_leak: ")
        assert "\ncrashed at step 5: RuntimeError: no\n1 of 1 question failed" in text
        unasked = [not_asked("no step was seen")]
        assert str(diagnose_findings("run", unasked, crashed="crashed: x")) == "crashed: x"

    def test_what_a_root_allows_is_said_once(self):
        """The closing lines do not repeat what the failing finding's own text has said."""
        assert str(diagnose_findings("splits", [LEAK])).count("income") == 1

    def test_many_questions_of_one_family_are_counted_where_one_reason_holds(self):
        """Four names say no more than their number; three are told."""
        few = [replace(not_asked("no model"), id=f"model.{c}") for c in "abc"]
        fine = Finding(ok=True, id="x.y", headline="fine")
        text = str(diagnose_findings("run", [fine, *few]))
        assert text.endswith("\nnot asked: model.a, model.b, model.c (no model)")
        more = [*few, replace(few[0], id="model.d"), replace(few[0], id="data.e")]
        text = str(diagnose_findings("run", [fine, *more]))
        assert text.endswith("\nnot asked: 4 questions of model.*, data.e (no model)")

    def test_what_there_is_no_occasion_for_is_only_counted(self):
        """No scaler, no half precision: nothing that the reader could mend. Longer runs they can."""
        none = [replace(no_occasion("no such thing here"), id=f"precision.{c}") for c in "abcde"]
        short = replace(not_asked("20 of at least 100 steps"), id="losses.plateau")
        fine = Finding(ok=True, id="x.y", headline="fine")
        text = str(diagnose_findings("run", [fine, short, *none]))
        assert text.endswith(
            "\nnot asked: losses.plateau (20 of at least 100 steps)"
            "\nno occasion for 5 more: precision.a, precision.b, precision.c, precision.d, …"
        )
        assert "\nno occasion for 1 more: precision.a" in str(diagnose_findings("run", [fine, none[0]]))

    def test_long_lists_are_counted(self):
        """More than five allowances or notes end in a number."""
        fine = Finding(ok=True, id="x.y", headline="fine", allowed=tuple((f"c{i}", "why") for i in range(7)))
        text = str(diagnose_findings("run", [fine], notes=[f"n{i}" for i in range(8)]))
        assert "2 more allowed" in text
        assert "3 more notes" in text


class TestTable:
    @pytest.mark.parametrize("culprit", [None, 0, 9, 10, 25, 39])
    def test_a_long_table_is_cut_around_its_culprit(self, culprit):
        """Ten rows at most, the culprit among them, and the cut is said."""
        lines = table_lines(Table(("row",), tuple((i,) for i in range(40)), culprit))
        assert len(lines) == 12
        assert lines[-1] == "    … 30 more rows"
        if culprit is not None:
            assert [line for line in lines if ">" in line] == [f"  > {culprit}"]

    def test_a_long_cell_is_cut(self):
        """A column name of a thousand characters does not push the numbers off the screen."""
        line = table_lines(Table(("a", "b"), (("x" * 1000, 1),)))[1]
        assert len(line) == 4 + MAX_CELL + 2 + 1

    def test_an_empty_table_prints_its_head(self):
        """No rows, no error."""
        assert table_lines(Table(("a", "b"), ())) == ["    a  b"]


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, ""),
            (True, "yes"),
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10,000"),
            (-12_345, "-12,345"),
            (0.0, "0"),
            (0.0001234, "0.0001234"),
            (0.00001234, "1.234e-05"),
            (12_345.6, "12,346"),
            (1e300, "1e+300"),
            (float("nan"), "NaN"),
            (float("-inf"), "-inf"),
            ("a\tb", "a\\tb"),
        ],
    )
    def test_cells(self, value, text):
        """Counts with separators, measurements with four digits, nothing invisible."""
        assert cell(value) == text

    @given(st.floats(-1e300, 1e300))
    def test_a_printed_measurement_is_near_the_measured_one(self, value):
        """Law: four significant digits survive the printing."""
        assert float(number(value).replace(",", "")) == pytest.approx(value, rel=6e-4, abs=0)

    def test_long_text_is_cut_with_a_mark(self):
        """The cut is visible."""
        assert clean("x" * 500, MAX_LINE).endswith("x…")


def test_an_annotation_escapes_what_would_end_it():
    """A workflow command is one line; colons and commas in its properties are escaped, as GitHub Actions defines."""
    finding = Finding(ok=False, id="x.y", headline="50% off", shows="see")
    assert annotation(finding, "a,b:c.py", 3) == (
        "::error file=a%2Cb%3Ac.py,line=3,title=x.y::x.y: 50%25 off%0A    see"
    )
    assert annotation(Finding(ok=True, id="x.y", headline="fine"), None, None) == "::notice title=x.y::x.y: ok: fine"
