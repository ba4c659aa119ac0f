"""Findings, diagnoses and the failure they raise: values that survive every way out of a process."""

import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mltd.core.findings import (
    CheckFailed,
    Diagnosis,
    Finding,
    NotAsked,
    Table,
    diagnose_findings,
    diagnosis_from_dict,
    finding_from_dict,
    not_asked,
    plain,
    raise_if_failed,
    with_limit_origin,
)


def broken(id, *, rank=50, step=None, explains=()):
    return Finding(ok=False, headline=f"{id} is broken", id=id, rank=rank, step=step, explains=tuple(explains))


LEAK = Finding(
    ok=False,
    headline="'days' alone predicts the label, AUC 0.998 (max_auc=0.95)",
    id="leakage.label_leak",
    culprit="days",
    amount=0.998,
    limit=("max_auc", 0.95),
    table=Table(("column", "AUC"), (("days", 0.998), ("age", float("nan"))), 0),
    shows="One column says it all.",
    next_step="ask when 'days' is written",
    details={"rows": 4096, "low": float("-inf"), "names": ["a", "b"]},
)


class TestFinding:
    def test_a_question_that_was_not_asked_neither_passes_nor_fails(self):
        """Nothing examined is not a pass: `asked` says so, and `failed` claims nothing."""
        finding = not_asked("200 of at least 500 steps")
        assert (finding.asked, finding.failed) == (False, False)

    def test_numbers_of_numpy_become_plain_ones(self):
        """What a check measured with numpy is stored as Python's own numbers, and JSON takes it."""
        finding = Finding(
            ok=np.bool_(False),
            headline="x",
            amount=np.float32(0.5),
            limit=("max_x", np.float32(0.25)),
            step=np.int64(3),
            culprit=np.str_("a"),
            table=Table(("a",), ((np.int64(1),), (np.float32(0.5),))),
            details={"d": np.float64(1.5)},
        )
        assert [type(v) for v in (finding.ok, finding.amount, finding.limit[1], finding.step)] == [
            bool,
            float,
            float,
            int,
        ]
        json.dumps(finding.as_dict(), allow_nan=False)

    def test_an_unknown_kind_of_evidence_is_refused(self):
        """The kind caps the confidence, so a misspelt one must not pass."""
        with pytest.raises(ValueError, match=r"^evidence: 'guess' is none of inference, report"):
            Finding(ok=True, headline="x", evidence="guess")

    def test_a_ragged_table_is_refused(self):
        """Each row has a cell for each column."""
        with pytest.raises(ValueError, match="^rows: a row has 1 cells, the table has 2 columns"):
            Table(("a", "b"), ((1,),))

    def test_json_and_back_is_the_same_finding(self):
        """Through real JSON text, NaN and infinity included, the message stays the same."""
        again = finding_from_dict(json.loads(json.dumps(LEAK.as_dict(), allow_nan=False)))
        assert str(again) == str(LEAK)
        assert (again.limit, again.amount, again.table.rows[0]) == (LEAK.limit, LEAK.amount, LEAK.table.rows[0])
        assert again.table.rows[1][1] != again.table.rows[1][1]

    def test_a_newer_version_may_have_written_more(self):
        """Unknown keys are left out, so an older reader still reads."""
        assert finding_from_dict({**LEAK.as_dict(), "colour": "red"}).id == LEAK.id

    @pytest.mark.parametrize("data", [{}, {"ok": True}, [], None, {**LEAK.as_dict(), "table": {"rows": []}}])
    def test_what_is_not_a_finding_is_refused(self, data):
        """A torn or foreign file gives one sentence."""
        with pytest.raises(ValueError, match="^data: not a finding"):
            finding_from_dict(data)

    def test_pickling_keeps_it(self):
        """A finding crosses to a worker and back unchanged."""
        assert pickle.loads(pickle.dumps(LEAK)).as_dict() == LEAK.as_dict()

    def test_the_origin_of_a_limit_is_said_either_way(self):
        """A limit from the project's ini is named in a failing message as well as in a passing one."""
        origin = "max_auc=0.9 from mltd_limits"
        assert "Limit: max_auc=0.9 from mltd_limits." in str(with_limit_origin(LEAK, origin))
        assert "looked at: max_auc=0.9 from mltd_limits" in str(
            with_limit_origin(Finding(ok=True, headline="fine"), origin)
        )


class TestPlain:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (np.float64(1.5), 1.5),
            (np.longdouble(1.5), 1.5),
            (np.int8(3), 3),
            (np.array([7]), 7),
            (np.str_("x"), "x"),
            ((1, {np.int64(2)}), [1, [2]]),
            ({1: np.float32(0.5)}, {"1": 0.5}),
            (None, None),
            (True, True),
        ],
    )
    def test_values_become_pythons_own(self, value, expected):
        """numpy's scalars, of every width, lose their type and keep their value."""
        result = plain(value)
        assert result == expected
        assert type(result) is type(expected)

    def test_an_unknown_object_becomes_its_text(self):
        """Nothing alive stays inside a finding."""
        assert plain(slice(1, 2)) == "slice(1, 2, None)"


class TestDiagnosis:
    def test_the_root_comes_first_and_its_symptoms_follow(self):
        """A cause with a low rank leads, though it was asked last."""
        nan = broken("gradients.nonfinite", rank=10, explains=["losses.*"])
        loss = broken("losses.loss_spike", rank=80)
        diagnosis = diagnose_findings("run", [loss, nan])
        assert diagnosis.failed == (nan, loss)
        assert diagnosis.roots == (nan,)
        assert diagnosis.symptoms_of(nan) == (loss,)

    def test_what_began_before_the_cause_is_not_explained_by_it(self):
        """An effect does not precede its cause."""
        cause = broken("gradients.explosion", step=10, explains=["losses.*"])
        early = broken("losses.plateau", step=2)
        assert set(diagnose_findings("run", [cause, early]).roots) == {cause, early}

    def test_a_symptom_of_a_symptom_belongs_to_the_root(self):
        """Explanations chain."""
        a = broken("x.a", rank=1, explains=["x.b"])
        b = broken("x.b", explains=["x.c"])
        c = broken("x.c")
        assert diagnose_findings("run", [b, c, a]).symptoms_of(a) == (b, c)

    def test_a_shared_symptom_is_told_once(self):
        """Two causes of one symptom: the first claims it."""
        a, b = broken("x.a", rank=1, explains=["y.*"]), broken("x.b", rank=2, explains=["y.*"])
        c = broken("y.c")
        diagnosis = diagnose_findings("run", [a, b, c])
        assert (diagnosis.symptoms_of(a), diagnosis.symptoms_of(b)) == ((c,), ())
        assert diagnosis.failed == (a, c, b)

    def test_a_ring_of_explanations_beside_another_root_is_not_lost(self):
        """Two findings that explain each other stay visible when a third is a root of its own."""
        a, b = broken("x.a", rank=1, explains=["x.*"]), broken("x.b", rank=2, explains=["x.*"])
        other = broken("y.c", rank=3)
        diagnosis = diagnose_findings("run", [other, b, a])
        assert diagnosis.roots == (a, other)
        assert set(diagnosis.failed) == {a, b, other}

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.sampled_from([None, 0, 5]),
                st.lists(st.sampled_from(["f.0", "f.1", "f.2", "f.3", "f.*"]), max_size=3),
            ),
            max_size=5,
        )
    )
    def test_every_failing_finding_is_told_exactly_once(self, drawn):
        """Law: whatever explains what, the roots and their symptoms are a partition of the failing findings."""
        findings = [broken(f"f.{i}", rank=r, step=s, explains=e) for i, (r, s, e) in enumerate(drawn)]
        diagnosis = diagnose_findings("run", findings)
        assert sorted(f.id for f in diagnosis.failed) == sorted(f.id for f in findings)
        assert diagnosis.ok == (not findings)

    def test_the_order_in_which_questions_were_asked_does_not_matter(self):
        """Law: every permutation gives the same roots in the same order."""
        findings = [
            broken("a.x", rank=5, explains=["b.*"]),
            broken("b.y", rank=7, step=3),
            broken("c.z", rank=1, step=4),
        ]
        told = {
            tuple(f.id for f in diagnose_findings("run", order).failed) for order in itertools.permutations(findings)
        }
        assert told == {("c.z", "a.x", "b.y")}

    def test_json_and_back_is_the_same_diagnosis(self):
        """Through JSON the message stays the same, the unasked questions included."""
        diagnosis = diagnose_findings("run", [LEAK, not_asked("too short")], looked_at="4 columns", notes=["cut"])
        again = diagnosis_from_dict(json.loads(json.dumps(diagnosis.as_dict(), allow_nan=False)))
        assert str(again) == str(diagnosis)


class TestRaising:
    def test_a_broken_property_raises_with_its_whole_message(self):
        """The failure's text is the finding's text and it carries the finding."""
        with pytest.raises(CheckFailed) as caught:
            raise_if_failed(LEAK)
        assert str(caught.value) == str(LEAK)
        assert caught.value.findings == (LEAK,)

    def test_a_single_question_that_was_not_asked_is_not_a_pass(self):
        """Asserting one thing and examining nothing fails, as its own kind of failure."""
        with pytest.raises(NotAsked, match="not asked: too short"):
            raise_if_failed(not_asked("too short"))

    def test_an_umbrella_that_could_ask_nothing_is_not_a_pass(self):
        """Zero questions asked is no health."""
        with pytest.raises(NotAsked, match="nothing could be asked"):
            raise_if_failed(diagnose_findings("run", [not_asked("too short")]))
        with pytest.raises(NotAsked):
            raise_if_failed(Diagnosis(about="run"))

    def test_an_umbrella_that_asked_something_passes_with_gaps(self):
        """A gap is told, and does not fail the others' answers."""
        raise_if_failed(diagnose_findings("run", [Finding(ok=True, headline="fine"), not_asked("too short")]))

    @pytest.mark.parametrize("result", [LEAK, not_asked("too short")])
    def test_the_failure_survives_pickling(self, result):
        """Type, text and findings cross to another process."""
        with pytest.raises(CheckFailed) as caught:
            raise_if_failed(result)
        again = pickle.loads(pickle.dumps(caught.value))
        assert type(again) is type(caught.value)
        assert str(again) == str(caught.value)
        assert [f.as_dict() for f in again.findings] == [f.as_dict() for f in caught.value.findings]
