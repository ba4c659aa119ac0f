"""The trace and its file: what was written reads back, and what is damaged says so."""

import dataclasses
import io
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_mltd.core.traces import (
    CALLS,
    MAGIC,
    NO_GRAD,
    NOT_TAKEN,
    TABLES,
    Fact,
    Module,
    OptimizerInfo,
    Parameter,
    SeedCall,
    Trace,
    TraceWriter,
    read_trace,
    write_trace,
)


def small():
    """Return a trace with something in every table and list."""
    return Trace(
        steps={"optimizer": [0, 0], "stream": [0, 0], "loss": [2.5, float("nan")], "training": [1, 1]},
        losses={"step": [0, 1], "value": [2.5, np.inf]},
        val={"step": [1], "value": [2.0]},
        parameter_norms={"step": [0, 1], "grad": [[1.0, NO_GRAD], [2.0, 3.0]]},
        updates={"step": [0], "update": [[0.1, 0.2]], "weight": [[1.0, 2.0]]},
        outputs={"step": [0], "mean": [[0.5]], "rows": [[32]]},
        digests={"step": [0], "torch": [2**64 - 1], "weight": [[1, 2]]},
        calls={"kind": [CALLS.index("backward")], "site": [0], "who": [0], "value": [1.0]},
        logged={"step": [1], "name": [0], "value": [0.75]},
        parameters=(
            Parameter(name="w", shape=(2, 3), dtype="float32", optimizers=(0,), module="Linear"),
            Parameter(name="blocks[0].b", registered=False),
        ),
        modules=(Module(name="layer", kind="Linear", root=True),),
        optimizers=(OptimizerInfo(name="SGD", parameters=2, settings={"lr": 0.1, "betas": [0.9, 0.99]}),),
        streams=("train.py:3",),
        names=("val/auc",),
        sites=("train.py:3",),
        seeds=(SeedCall(what="random.seed", value=None, site="train.py:1", clock=False),),
        facts=(Fact(kind="unreached", step=2, who="w", details={"n": 1}),),
        settings={"threads": 1},
        provenance={"argv": ["train.py"]},
        notes=("a note",),
        cost=0.125,
    )


def same(a, b):
    """Whether two traces are equal in every field, columns bit for bit."""
    for field in dataclasses.fields(Trace):
        one, two = getattr(a, field.name), getattr(b, field.name)
        if field.name in TABLES:
            for column in TABLES[field.name]:
                if one[column].dtype != two[column].dtype or one[column].tobytes() != two[column].tobytes():
                    return False
        elif one != two:
            return False
    return True


def written(trace):
    file = io.BytesIO()
    write_trace(trace, file)
    return file.getvalue()


class TestColumns:
    def test_what_was_not_given_is_filled(self):
        """Every table has every column, all of one length, wide ones as wide as the names."""
        trace = small()
        for name, schema in TABLES.items():
            lengths = {column: len(getattr(trace, name)[column]) for column in schema}
            assert len(set(lengths.values())) == 1, name
        assert trace.parameter_norms["grad_used"].tolist() == [[NOT_TAKEN, NOT_TAKEN]] * 2
        assert trace.steps["scale"].tolist() == [1.0, 1.0]
        assert trace.calls["grad"].tolist() == [-1]

    def test_nothing_can_be_written_into_a_trace(self):
        """Columns are read-only, and the caller's own array is not frozen by it."""
        mine = np.array([1.0, 2.0])
        trace = Trace(steps={"loss": mine})
        mine[0] = 5
        with pytest.raises(ValueError, match="read-only"):
            trace.steps["loss"][0] = 1
        with pytest.raises(TypeError):
            trace.steps["loss"] = mine

    def test_a_wrong_column_is_refused_by_name(self):
        """Unknown columns and wrong shapes name the table and the column."""
        with pytest.raises(ValueError, match="^steps: unknown columns los$"):
            Trace(steps={"los": [1.0]})
        with pytest.raises(ValueError, match="^steps: column 'lr' has shape"):
            Trace(steps={"loss": [1.0, 2.0], "lr": [0.1]})

    def test_the_questions_it_answers_itself(self):
        """Steps, the busiest optimizer, kinds of calls, logged numbers."""
        trace = Trace(steps={"optimizer": [0, 1, 0, 0], "loss": [1, 2, 3, 4]})
        assert (trace.n_steps, trace.busiest, trace.cut) == (4, 3, False)
        assert Trace(ended="full").cut
        assert small().of("backward").tolist() == [True]
        with pytest.raises(ValueError, match="^kind: 'backwards' is none of batch, "):
            small().of("backwards")
        steps, values = small().scalars("val/auc")
        assert (steps.tolist(), values.tolist()) == ([1], [0.75])
        assert len(small().scalars("nothing")[0]) == 0


class TestTheFile:
    def test_reads_back_what_was_written(self):
        """Every field, bit for bit, NaN and infinity among them."""
        assert same(read_trace(io.BytesIO(written(small()))), small())

    @settings(deadline=None, max_examples=40)
    @given(
        hnp.arrays("<f8", st.integers(0, 20), elements=st.floats()),
        st.lists(st.text(max_size=8), max_size=4, unique=True),
        st.text(max_size=20),
    )
    def test_reads_back_anything(self, loss, names, note):
        """Any floats, any names, any text."""
        trace = Trace(steps={"loss": loss}, parameters=tuple(Parameter(name=n) for n in names), notes=(note,))
        assert same(read_trace(io.BytesIO(written(trace))), trace)

    def test_torn_anywhere_it_gives_what_was_there_before(self):
        """Cut at every byte: never an error but a foreign beginning, never more than was written, always said."""
        whole = written(small())
        for length in range(len(MAGIC), len(whole)):
            trace = read_trace(io.BytesIO(whole[:length]))
            assert trace.ended == "torn", length
            assert trace.notes, length
            assert trace.n_steps in (0, 2)

    def test_a_flipped_bit_is_noticed(self):
        """The checksum of the frame does not match: what comes after it is not believed."""
        whole = bytearray(written(small()))
        for at in range(len(MAGIC), len(whole), 7):
            whole[at] ^= 1
            assert read_trace(io.BytesIO(bytes(whole))).ended == "torn", at
            whole[at] ^= 1

    def test_a_length_that_lies_allocates_nothing(self):
        """A foreign length field is read as damage."""
        whole = written(small())
        huge = whole[: len(MAGIC) + 4] + b"\xff" * 12 + whole[len(MAGIC) + 16 :]
        assert read_trace(io.BytesIO(huge)).ended == "torn"

    def test_another_kind_of_file_is_refused(self, tmp_path):
        """Its first bytes are shown; a later version is named."""
        (tmp_path / "x.pkl").write_bytes(b"\x80\x04something")
        with pytest.raises(ValueError, match=r"^path: .*x.pkl' is not a trace of pytest-mltd"):
            Trace.load(tmp_path / "x.pkl")
        (tmp_path / "y.mltd").write_bytes(b"pytest-mltd trace 99\n")
        with pytest.raises(ValueError, match=r"^path: .*y.mltd' is a trace of version 99; this .* reads version 1$"):
            Trace.load(tmp_path / "y.mltd")
        with pytest.raises(FileNotFoundError):
            Trace.load(tmp_path / "nowhere.mltd")

    def test_is_saved_whole_or_not_at_all(self, tmp_path, monkeypatch):
        """A failed write leaves the old file and nothing beside it."""
        target = small().save(tmp_path / "run.mltd")
        before = target.read_bytes()
        monkeypatch.setattr("pytest_mltd.core.traces.write_trace", lambda trace, file: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            small().save(target)
        assert target.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["run.mltd"]
        with pytest.raises(OSError, match=r"^path: cannot write into .*nowhere"):
            small().save(tmp_path / "nowhere" / "run.mltd")

    def test_rows_written_before_a_parameter_was_known_are_widened(self):
        """A parameter that comes later was not looked at before."""
        file = io.BytesIO()
        writer = TraceWriter(file)
        writer.extend("parameters", [Parameter(name="a")])
        writer.rows("parameter_norms", {"step": [0], "grad": [[1.0]]})
        writer.extend("parameters", [Parameter(name="b")])
        writer.rows("parameter_norms", {"step": [1], "grad": [[1.0, 2.0]]})
        writer.end(ended="completed")
        trace = read_trace(file)
        assert trace.parameter_norms["grad"].tolist() == [[1.0, NOT_TAKEN], [1.0, 2.0]]

    def test_an_item_can_be_corrected(self):
        """A name that was not final is replaced where it stands."""
        file = io.BytesIO()
        writer = TraceWriter(file)
        writer.extend("parameters", [Parameter(name="weight"), Parameter(name="bias")])
        writer.replace("parameters", 0, Parameter(name="G.weight", optimizers=(1,)))
        writer.end(ended="completed")
        assert [(p.name, p.optimizers) for p in read_trace(file).parameters] == [("G.weight", (1,)), ("bias", ())]

    def test_the_last_end_counts_and_keeps_what_it_does_not_say(self):
        """Settings written at the beginning are there when the job was killed."""
        file = io.BytesIO()
        writer = TraceWriter(file)
        writer.end(settings={"threads": 2}, level="losses")
        torn = read_trace(file)
        assert (torn.ended, torn.settings["threads"], torn.level) == ("torn", 2, "losses")
        file.seek(0, io.SEEK_END)
        writer.end(ended="completed")
        assert (read_trace(file).ended, read_trace(file).level) == ("completed", "losses")

    def test_what_a_later_version_adds_is_passed_over(self):
        """Unknown tables, lists, columns and fields do not hurt."""
        file = io.BytesIO()
        writer = TraceWriter(file)
        writer._frame({"list": "omens", "items": ["raven"]}, b"")
        writer._frame({"table": "clouds", "columns": []}, b"")
        writer._frame({"list": "parameters", "items": [{"name": "w", "colour": "red"}]}, b"")
        head = [["loss", "<f8", [1]], ["mood", "<f8", [1]]]
        writer._frame({"table": "steps", "columns": head}, np.array([1.5, 2.5]).tobytes())
        writer.end(ended="completed", weather="fine")
        trace = read_trace(file)
        assert trace.steps["loss"].tolist() == [1.5]
        assert [p.name for p in trace.parameters] == ["w"]

    def test_holds_no_pickle(self):
        """The heads are JSON and the rest is numbers."""
        whole = written(small())
        start = len(MAGIC) + 20
        length = int.from_bytes(whole[len(MAGIC) + 4 : len(MAGIC) + 8], "little")
        assert json.loads(whole[start : start + length])["list"] == "parameters"


class TestFromScalars:
    def test_any_frameworks_numbers_make_a_trace(self):
        """loss, lr and grad_norm fill columns, val/loss the validation, the rest is logged."""
        trace = Trace.from_scalars(
            {"loss": [3.0, 2.0], "lr": [0.1, 0.1], "val/loss": ([1], [2.5]), "val/auc": ([0, 1], [0.5, 0.75])}
        )
        assert trace.n_steps == 2
        assert trace.steps["loss"].tolist() == [3.0, 2.0]
        assert trace.losses["value"].tolist() == [3.0, 2.0]
        assert (trace.val["step"].tolist(), trace.val["value"].tolist()) == ([1], [2.5])
        assert trace.scalars("val/auc")[1].tolist() == [0.5, 0.75]

    def test_sparse_steps_leave_gaps(self):
        """A loss logged each second step: NaN between."""
        trace = Trace.from_scalars({"loss": ([0, 2], [3.0, 1.0])})
        assert np.isnan(trace.steps["loss"][1])
        assert trace.steps["loss"][2] == 1.0

    @pytest.mark.parametrize(
        ("scalars", "message"),
        [
            ({}, "^scalars: no numbers were given$"),
            ({"loss": []}, "^scalars: no numbers were given$"),
            ({"loss": ["high"]}, "^scalars: 'loss' is no sequence of numbers"),
            ({"loss": ([0, 1], [1.0])}, "^scalars: 'loss' has 2 steps for 1 values"),
            ({"loss": ([-1], [1.0])}, "^scalars: 'loss' has a step outside 0 to"),
            ([1.0], "^scalars: a mapping of name to values is needed, not list$"),
        ],
    )
    def test_what_is_no_series_is_refused(self, scalars, message):
        """The message begins with the argument's name and names the series."""
        with pytest.raises((TypeError, ValueError), match=message):
            Trace.from_scalars(scalars)


def steps_frame(*columns, payload=b"\0" * 16):
    return {"table": "steps", "columns": list(columns)}, payload


WIDE = ({"list": "parameters", "items": [{"name": "a"}] * 20_000}, b"")
TALL = ({"table": "parameter_norms", "columns": [["step", "<i8", [100_000]]]}, b"\0" * 800_000)
HOSTILE = {
    "deep": [(b"[" * 200_000, b"")],
    "not text": [(b"\xff\xfe{}", b"")],
    "a list": [([1], b"")],
    "null": [(None, b"")],
    "unhashable": [({"list": ["x"], "items": []}, b"")],
    "no items": [({"list": "names"}, b"")],
    "a number of items": [({"list": "names", "items": 5}, b"")],
    "an item that is none": [({"list": "parameters", "items": [5]}, b"")],
    "an item without a name": [({"list": "parameters", "items": [{}]}, b"")],
    "a name that is none": [({"list": "parameters", "items": [{"name": 5}]}, b"")],
    "a shape of texts": [({"list": "parameters", "items": [{"name": "w", "shape": ["x"]}]}, b"")],
    "settings that are none": [({"list": "optimizers", "items": [{"name": "SGD", "settings": 5}]}, b"")],
    "a place that is none": [({"list": "names", "items": ["a"], "at": "x"}, b"")],
    "a place far out": [({"list": "names", "items": ["a"], "at": 10**30}, b"")],
    "no columns": [({"table": "steps"}, b"")],
    "a number of columns": [({"table": "steps", "columns": 5}, b"")],
    "a column without a shape": [steps_frame(["loss", "<f8"])],
    "an unknown type": [steps_frame(["loss", "zzz", [1]])],
    "objects": [steps_frame(["loss", "O", [1]])],
    "a type that is none": [steps_frame(["loss", {"a": 1}, [1]])],
    "less than nothing": [steps_frame(["loss", "<f8", [-1]])],
    "no axis": [steps_frame(["loss", "<f8", []])],
    "more than there is": [steps_frame(["loss", "<f8", [3]])],
    "an overflow": [steps_frame(["loss", "<f8", [2**62, 4]])],
    "an axis too many": [steps_frame(["loss", "<f8", [2, 1]])],
    "an axis too few": [({"table": "parameter_norms", "columns": [["grad", "<f4", [2]]]}, b"\0" * 8)],
    "rows of nothing": [({"table": "parameter_norms", "columns": [["grad", "<f4", [10**12, 0]]]}, b"")],
    "ragged": [steps_frame(["loss", "<f8", [1]], ["lr", "<f8", [0]])],
    "rows and parameters that never were": [WIDE, TALL],
    "an end that is none": [({"end": "abc"}, b"")],
    "a number for an ending": [({"end": {"ended": 3}}, b"")],
    "a number for settings": [({"end": {"settings": 5}}, b"")],
    "an optimizer far out": [steps_frame(["optimizer", "<i4", [1]], payload=(2**31 - 1).to_bytes(4, "little"))],
}


@pytest.mark.parametrize("frames", HOSTILE.values(), ids=HOSTILE)
def test_hostile_frames_are_refused_by_the_files_name(frames, tmp_path):
    """A frame may have a valid checksum and still say what no writer says; it must neither crash nor fill the memory."""
    path = tmp_path / "run.trace"
    with path.open("wb") as file:
        file.write(MAGIC)
        for head, payload in frames:
            text = head if isinstance(head, bytes) else json.dumps(head).encode()
            crc = zlib.crc32(payload, zlib.crc32(text))
            file.write(struct.pack("<4sIQI", b"FRAM", len(text), len(payload), crc) + text + payload)
    with pytest.raises(ValueError, match=r"^path: '.*run\.trace' is damaged, though its checksums match"):
        Trace.load(path)


def test_an_end_says_nothing_of_tables():
    """Only what concerns the run as a whole is taken from it."""
    file = io.BytesIO()
    TraceWriter(file).end(steps=5, parameters=3, ended="completed")
    assert (read_trace(file).n_steps, read_trace(file).parameters) == (0, ())
