"""One recorded run as columns (`Trace`), and the file it lives in.

Every table is a mapping of column name to numpy array, all of one length; `TABLES` is the whole schema. A row of ``steps`` is
one outermost ``Optimizer.step``, counted from 0. The file is written as the run goes (`TraceWriter`), so that a killed job
leaves a readable one: a first line that says what it is, then frames, each with its length and checksum. Nothing is pickled.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]
Columns = Mapping[str, Column]

NO_GRAD: Final = -1.0  # a parameter's gradient was None; a norm is never negative
NOT_TAKEN: Final = -2.0  # not looked at: another optimizer's parameter, or a step between two samples
NO_DIGEST: Final = 0  # a digest that was not taken

# What happened, in the order of a usual step. The number is what the file holds: append, never renumber.
CALLS: Final = (
    "batch",
    "forward",
    "loss",
    "backward",
    "unscale",
    "clip",
    "step",
    "skipped_step",
    "zero_grad",
    "scheduler",
    "train",
    "eval",
    "save",
    "load",
    "seed",
)

# table -> column -> (dtype, width, fill). Width: "" for one value a row, else the list that its second axis runs over.
TABLES: Final[Mapping[str, Mapping[str, tuple[str, str, float]]]] = MappingProxyType(
    {
        # one row a step
        "steps": {
            "optimizer": ("<i4", "", -1),  # index into `optimizers`
            "stream": ("<i4", "", -1),  # index into `streams`, of the step's last backward
            "loss": (
                "<f8",
                "",
                np.nan,
            ),  # mean of the losses whose gradients the step used, unscaled
            "backwards": ("<i4", "", 0),  # how many those were: above 1 is accumulation
            "lr": ("<f8", "", np.nan),  # highest over the parameter groups
            "lr_lowest": ("<f8", "", np.nan),
            "grad_norm": (
                "<f8",
                "",
                np.nan,
            ),  # L2 over all parameters of the optimizer, as backward left them, unscaled
            "grad_norm_used": ("<f8", "", np.nan),  # the same as the step used them
            "nonfinite": ("<i8", "", 0),  # parameters whose gradient, as the step used it, is not finite
            "scale": ("<f8", "", 1.0),  # loss scale of a GradScaler
            "stale": ("<i4", "", 0),  # parameters whose gradient was left over from before the last step and grew
            "training": ("|i1", "", -1),  # 1 root module in train mode, 0 in eval mode, -1 not seen
        },
        # one row a backward
        "losses": {
            "step": ("<i8", "", 0),
            "stream": ("<i4", "", 0),
            "value": ("<f8", "", np.nan),  # unscaled
            "scale": ("<f8", "", 1.0),
        },
        # one row a loss computed without gradient or in eval mode
        "val": {"step": ("<i8", "", 0), "stream": ("<i4", "", 0), "value": ("<f8", "", np.nan)},
        # one row a step; steps × parameters, L2 norms of whole tensors
        "parameter_norms": {
            "step": ("<i8", "", 0),
            "grad": ("<f4", "parameters", NOT_TAKEN),  # as backward left it, unscaled
            "grad_used": ("<f4", "parameters", NOT_TAKEN),  # as the step used it
        },
        # one row a sampled step; steps × parameters
        "updates": {
            "step": ("<i8", "", 0),
            "update": ("<f4", "parameters", NOT_TAKEN),  # norm of what the step added to the parameter
            "weight": ("<f4", "parameters", NOT_TAKEN),  # norm of the parameter before the step
        },
        # one row a sampled step; steps × modules, of the module's (first) output in its last forward before the step
        "outputs": {
            "step": ("<i8", "", 0),
            "mean": ("<f4", "modules", np.nan),
            "std": ("<f4", "modules", np.nan),
            "zeros": ("<f4", "modules", np.nan),  # share
            "min": ("<f4", "modules", np.nan),
            "max": ("<f4", "modules", np.nan),
            "across": (
                "<f4",
                "modules",
                np.nan,
            ),  # RMS over units of the standard deviation over (64) rows; NaN: under 4 rows
            "silent": ("<f4", "modules", np.nan),  # share of units that are 0 in each of these rows and positions
            "rows": ("<i4", "modules", -1),  # length of the first axis
        },
        # one row a sampled step; 64 bits of the digest of the bytes
        "digests": {
            "step": ("<i8", "", 0),
            "python": ("<u8", "", NO_DIGEST),  # random states, before the step's first forward
            "numpy": ("<u8", "", NO_DIGEST),
            "torch": ("<u8", "", NO_DIGEST),
            "inputs": ("<u8", "", NO_DIGEST),  # all batches since the last step, in order
            "loss": ("<u8", "", NO_DIGEST),
            "optimizer_state": ("<u8", "", NO_DIGEST),
            "grad": ("<u8", "parameters", NO_DIGEST),  # as backward left it
            "grad_used": ("<u8", "parameters", NO_DIGEST),
            "weight": ("<u8", "parameters", NO_DIGEST),  # after the step
            "output": ("<u8", "modules", NO_DIGEST),
        },
        # one row a call, in order
        "calls": {
            "kind": ("|u1", "", 0),  # index into CALLS
            "step": ("<i8", "", 0),  # steps that were over when it happened
            "who": ("<i4", "", -1),  # index into `names`
            "site": ("<i4", "", -1),  # index into `sites`: file:line of the user's code
            "value": (
                "<f8",
                "",
                np.nan,
            ),  # clip: limit; scheduler: lr after; forward: 1 train, 0 eval mode; batch: rows
            "digest": ("<u8", "", NO_DIGEST),  # batch: of the root's inputs
            "grad": ("|i1", "", -1),  # forward and batch: 1 with gradient, 0 under no_grad
        },
        # one row a number logged by hand or tapped from a logger
        "logged": {"step": ("<i8", "", 0), "name": ("<i4", "", 0), "value": ("<f8", "", np.nan)},
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter by its plain name. ``optimizers`` are indexes into `Trace.optimizers`; empty: it is in none."""

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    requires_grad: bool = True
    optimizers: tuple[int, ...] = ()
    module: str = ""  # the class of the module that owns it
    registered: bool = True  # False: found in no module's parameters(), only used in the graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A leaf module by its plain name and its class's name."""

    name: str
    kind: str = ""
    root: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerInfo:
    """An optimizer: its class, how many parameters it holds, its settings at the first step (of the first group).

    ``site`` is the line that made it, empty where it was made before the recording began.
    """

    name: str
    parameters: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    site: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedCall:
    """A generator that was seeded, or made without a seed (``value`` None), and the line that did it."""

    what: str  # torch.manual_seed, numpy.random.seed, numpy.random.default_rng, random.seed, …
    value: str | None
    site: str
    step: int = 0
    clock: bool = False  # the value was the time of day


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something seen once that fits no column: of the autograd graph, of the targets, of an operation.

    Of the graph of each loss (``who`` is the stream), mended as the run goes on:

    - ``term``: one loss function, or a likelihood, difference or product by hand. ``loss``, ``looks``, ``alone`` (it is all of
      the loss), ``reduction``, ``factor``, ``rows``, ``weighted``; ``classes``, ``given``, ``row_sum``, ``rows_off``,
      ``rows_summed`` and ``viewed`` of a likelihood; ``fed_by`` and ``fed`` where it is given a softmax or sigmoid;
      ``prediction``, ``target`` and ``compared``, shapes that were broadcast; of the targets ``labels``, ``labels_seen``,
      ``ignored``, ``empty_batches``, ``entropy``, ``batch_entropy``, ``low``, ``high``, ``mean``, ``var``; ``level``, the
      loss of the best constant answer.
    - ``targets``: the same, of a term that is all of its loss, with a ``level`` to hold that against.
    - ``graph``: ``nodes`` and ``old`` at the last looks (all operations, and those from before the look before), and how many
      of the ``followed`` graphs are still ``held``.
    - ``attention_axis``: ``shape`` and ``axis`` of a softmax that is used along another one.

    Of a layer before a ReLU (``who``): ``relu``: its ``units``, how many were ``silent`` (zero for all ``rows``) at each of
    the last looks, and how many were ``always_silent``.

    Of the first loss that is not finite: ``nonfinite``: the ``operation`` that made it, its ``dtype``, ``low`` and ``high`` of
    what it was given where that is the reason.

    Of parameters (``who``): ``unreached``, ``unowned``, ``manual_update``. Others: ``more_seeds``, ``validation_unseen``.
    """

    kind: str
    step: int = 0
    who: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One recorded run. See `TABLES` for what each column means.

    ``ended`` is one of ``completed``, ``cut`` (by `run`), ``full`` (recording stopped at ``steps=``, the program went on),
    ``raised …``, ``interrupted``, ``running`` (a look at it before its end), ``torn`` (the file stops in the middle) and
    ``logged`` (read from another tool's log, which does not say).
    ``settings`` are what changes bits (threads, kernels, determinism). ``seconds`` is the time the recording took, ``cost``
    the share of it that was spent inside the recorder. ``notes`` are the recorder's own mishaps.
    """

    steps: Columns = field(default_factory=dict)
    losses: Columns = field(default_factory=dict)
    val: Columns = field(default_factory=dict)
    parameter_norms: Columns = field(default_factory=dict)
    updates: Columns = field(default_factory=dict)
    outputs: Columns = field(default_factory=dict)
    digests: Columns = field(default_factory=dict)
    calls: Columns = field(default_factory=dict)
    logged: Columns = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    modules: tuple[Module, ...] = ()
    optimizers: tuple[OptimizerInfo, ...] = ()
    streams: tuple[str, ...] = ()  # a loss stream is the call site of backward (or of a validation loss)
    names: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    seeds: tuple[SeedCall, ...] = ()
    facts: tuple[Fact, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    level: str = "default"
    ended: str = "completed"
    notes: tuple[str, ...] = ()
    cost: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in TABLES:
            table = _complete(name, getattr(self, name), self)
            object.__setattr__(self, name, MappingProxyType(table))

    @property
    def n_steps(self) -> int:
        """How many steps were recorded, of all optimizers."""
        return len(self.steps["loss"])

    @property
    def cut(self) -> bool:
        """Whether the run, or its recording, was ended before the program was through."""
        return self.ended != "completed"

    @property
    def ending(self) -> str:
        """What stands after "the run" in a sentence: how it ended, without the error's own words."""
        if self.ended.startswith("raised "):
            return "crashed"
        return _ENDINGS.get(self.ended, self.ended)

    @property
    def crash(self) -> str:
        """What ended the program, where it is an error, in one sentence with its step; else nothing."""
        if not self.ended.startswith("raised "):
            return ""
        error = self.ended.removeprefix("raised ")
        trained = bool(self.n_steps or self.of("backward").any())
        when = f"at step {self.busiest:,}" if trained else "before any training was seen"
        if error.startswith("SystemExit: "):
            return f"left {when} with exit code {error.removeprefix('SystemExit: ')}"
        return f"crashed {when}: {error}"

    @property
    def busiest(self) -> int:
        """The steps of the busiest optimizer: what ``steps=200`` counts."""
        owners = self.steps["optimizer"]
        return int(np.unique(owners[owners >= 0], return_counts=True)[1].max(initial=0))

    def of(self, kind: str) -> NDArray[np.bool_]:
        """Return which rows of ``calls`` are of this kind.

        Raises:
            ValueError: there is no such kind.
        """
        if kind not in CALLS:
            raise ValueError(f"kind: {kind!r} is none of {', '.join(CALLS)}")
        return np.asarray(self.calls["kind"] == CALLS.index(kind), dtype=np.bool_)

    def scalars(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return steps and values of a logged number, such as ``val/auc``; both empty when it was never logged."""
        found = [i for i, n in enumerate(self.names) if n == name]
        rows = np.isin(self.logged["name"], found)
        return self.logged["step"][rows], self.logged["value"][rows]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to one file, whole or not at all.

        Raises:
            OSError: the folder is missing or cannot be written; the message says which.
        """
        target = Path(path)
        try:
            handle, part = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        except OSError as error:
            raise type(error)(f"path: cannot write into {str(target.parent)!r} ({error.strerror})") from error
        try:
            with os.fdopen(handle, "wb") as file:
                write_trace(self, file)
            os.chmod(part, 0o644)
            os.replace(part, target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return target

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Trace:
        """Read a trace. A file that stops in the middle gives what was written before, with ``ended`` "torn".

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a trace, or of a version this one does not know.
        """
        with open(path, "rb") as file:
            return read_trace(file, str(path))

    @staticmethod
    def from_scalars(scalars: Mapping[str, Sequence[float] | tuple[Sequence[int], Sequence[float]]]) -> Trace:
        """Make a trace from any framework's numbers.

        Args:
            scalars: name to values (one a step, from 0), or to a pair of steps and values. ``loss``, ``lr`` and ``grad_norm``
                fill the columns of that name; ``val/loss`` the validation losses; every other name is kept as a logged number.

        Raises:
            TypeError: a value is no sequence of numbers.
            ValueError: steps and values of one name differ in length, or nothing was given.

        Example:
            >>> Trace.from_scalars({"loss": [2.3, 1.9], "lr": [0.1, 0.1]}).n_steps
            2
        """
        return _from_scalars(scalars)


def as_trace(run: Any, name: str = "run") -> Trace:
    """Return the trace of what was handed to a check: a `Trace` itself, or anything with a ``.trace`` (a recording, a run).

    Args:
        run: what the caller passed.
        name: the caller's name for that argument; a refusal begins with it.

    Raises:
        TypeError: it is neither; the message says what to pass, for a path how to read it.
    """
    found = run if isinstance(run, Trace) else getattr(run, "trace", None)
    if isinstance(found, Trace):
        return found
    if isinstance(run, (str, os.PathLike)):
        raise TypeError(f"{name}: {os.fspath(run)!r} is a path; read it first, with Trace.load({os.fspath(run)!r})")
    raise TypeError(
        f"{name}: a recorded run is needed (what mltd.record() or mltd.run() gave, or a Trace), "
        f"not {'None' if run is None else type(run).__name__}"
    )


def write_trace(trace: Trace, file: BinaryIO) -> None:
    """Write a whole trace as frames."""
    writer = TraceWriter(file)
    for name in LISTS:
        writer.extend(name, getattr(trace, name))
    for name in TABLES:
        writer.rows(name, getattr(trace, name))
    writer.end(**{name: getattr(trace, name) for name in _HEAD})


class TraceWriter:
    """Appends frames to an open binary file; after each the file is readable up to there.

    ``extend`` adds to one of the lists (`LISTS`), ``replace`` corrects one of its items, ``rows`` adds rows to one of the
    `TABLES`, ``end`` closes the account and may be called more than once: the last one counts.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.write(MAGIC)

    def extend(self, name: str, items: Iterable[Any]) -> None:
        """Append items (data classes or text) to one of the lists."""
        entries = [i if isinstance(i, str) else asdict(i) for i in items]
        if entries:
            self._frame({"list": name, "items": entries}, b"")

    def replace(self, name: str, index: int, item: Any) -> None:
        """Correct an item that was written before all was known of it (a parameter seen before its optimizer, say)."""
        self._frame({"list": name, "at": index, "items": [item if isinstance(item, str) else asdict(item)]}, b"")

    def rows(self, name: str, columns: Mapping[str, Any]) -> None:
        """Append rows to a table. Columns left out hold their fill; 2-D columns may be narrower than later ones."""
        schema = TABLES[name]
        arrays = {c: np.ascontiguousarray(v, dtype=schema[c][0]) for c, v in columns.items()}
        length = len(next(iter(arrays.values()))) if arrays else 0
        if length:
            head = [[c, schema[c][0], list(a.shape)] for c, a in arrays.items()]
            self._frame({"table": name, "columns": head}, b"".join(a.tobytes() for a in arrays.values()))

    def end(self, **head: Any) -> None:
        """State what concerns the run as a whole: the keys of `Trace` that are neither table nor list."""
        self._frame({"end": {k: _jsonable(v) for k, v in head.items()}}, b"")

    def _frame(self, head: Mapping[str, Any], payload: bytes) -> None:
        text = json.dumps(head, separators=(",", ":")).encode()
        crc = zlib.crc32(payload, zlib.crc32(text))
        self._file.write(_FRAME.pack(b"FRAM", len(text), len(payload), crc) + text + payload)
        self._file.flush()


def read_trace(file: BinaryIO, name: str = "the file") -> Trace:
    """Read a trace from an open binary file, from its beginning.

    Raises:
        ValueError: it is not a trace, of an unknown version, or its frames say what no writer of a trace says.
    """
    file.seek(0)
    first = file.read(len(MAGIC))
    if first != MAGIC:
        if first.startswith(_KIND):
            version = first[len(_KIND) :].split(b"\n")[0].decode("ascii", "replace").strip()
            raise ValueError(
                f"path: {name!r} is a trace of version {version}; this pytest-mltd reads version {VERSION}"
            )
        raise ValueError(f"path: {name!r} is not a trace of pytest-mltd (it begins with {first[:12]!r})")
    try:
        return _read_frames(file)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"path: {name!r} is damaged, though its checksums match ({error})") from error


def _read_frames(file: BinaryIO) -> Trace:
    lists: dict[str, list[Any]] = {key: [] for key in LISTS}
    tables: dict[str, list[dict[str, Column]]] = {key: [] for key in TABLES}
    head: dict[str, Any] = {}
    torn = ""
    while not torn:
        frame, torn = _next_frame(file)
        if frame is None:
            break
        _take(frame, lists, tables, head)
    return _assemble(lists, tables, head, torn)


VERSION: Final = 1
_KIND = b"pytest-mltd trace "
MAGIC: Final = _KIND + b"%d\n" % VERSION
_FRAME = struct.Struct("<4sIQI")
_MAX_HEAD = 64 << 20  # bytes of JSON in one frame; a foreign length field must not allocate the machine away
_MAX_FILLED = 1 << 30  # bytes of columns that a file may leave to be filled, beyond eight times what it holds; a guess
_MAX_STEP = 100_000_000  # a step number in from_scalars; columns are dense

LISTS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "parameters": Parameter,
        "modules": Module,
        "optimizers": OptimizerInfo,
        "streams": str,
        "names": str,
        "sites": str,
        "seeds": SeedCall,
        "facts": Fact,
        "notes": str,
    }
)
_ENDINGS = {
    "cut": "was cut",
    "full": "was recorded no further",
    "interrupted": "was interrupted",
    "running": "goes on",
    "torn": "is torn",
    "logged": "is known from its log only",
}
_HEAD: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "settings": dict,
        "provenance": dict,
        "level": str,
        "ended": str,
        "cost": (int, float, type(None)),
        "seconds": (int, float, type(None)),
    }
)
# Columns whose numbers are indexes into a list. Kinds of calls are not among them: a later version may know more.
_POINTS: Final = MappingProxyType(
    {
        ("steps", "optimizer"): "optimizers",
        ("steps", "stream"): "streams",
        ("losses", "stream"): "streams",
        ("val", "stream"): "streams",
        ("calls", "who"): "names",
        ("calls", "site"): "sites",
        ("logged", "name"): "names",
    }
)


def _complete(name: str, given: Columns, trace: Trace) -> dict[str, Column]:
    """Give every column of a table: missing ones are filled, 2-D ones padded to today's width."""
    length = max((len(v) for v in given.values()), default=0)
    table = {}
    for column, (dtype, width, fill) in TABLES[name].items():
        shape = (length, len(getattr(trace, width))) if width else (length,)
        value = given.get(column)
        if value is None or np.size(value) == 0:
            array = np.full(shape, fill, dtype=dtype)
        elif width and np.shape(value)[1:] != shape[1:]:
            array = np.full(shape, fill, dtype=dtype)
            part = np.asarray(value, dtype=dtype)
            known = min(part.shape[1], len(getattr(trace, width)))
            array[:, :known] = part[:, :known]
        else:
            array = np.asarray(value, dtype=dtype)
            if array.shape != shape:
                raise ValueError(f"{name}: column {column!r} has shape {array.shape}, the table needs {shape}")
            array = array.view()  # the caller's own array stays writeable
        array.flags.writeable = False
        table[column] = array
    unknown = given.keys() - TABLES[name].keys()
    if unknown:
        raise ValueError(f"{name}: unknown columns {', '.join(sorted(unknown))}")
    return table


def _next_frame(file: BinaryIO) -> tuple[tuple[dict[str, Any], bytes] | None, str]:
    """Return the next frame (or None at the end), and why the file is torn, if it is."""
    raw = file.read(_FRAME.size)
    if not raw:
        return None, ""
    if len(raw) < _FRAME.size:
        return None, "it stops inside a frame's head"
    mark, head_length, length, crc = _FRAME.unpack(raw)
    here = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(here)
    if mark != b"FRAM" or head_length > _MAX_HEAD:
        return None, f"bytes at {here - _FRAME.size} are damaged"
    if here + head_length + length > end:
        return None, "it stops inside a frame"
    text, payload = file.read(head_length), file.read(length)
    if zlib.crc32(payload, zlib.crc32(text)) != crc:
        return None, f"the checksum at byte {here - _FRAME.size} does not match"
    return (json.loads(text), payload), ""


def _take(
    frame: tuple[dict[str, Any], bytes],
    lists: dict[str, list[Any]],
    tables: dict[str, list[dict[str, Column]]],
    head: dict[str, Any],
) -> None:
    """File one frame's content; what this version does not know is passed over."""
    meta, payload = frame
    if not isinstance(meta, dict):
        raise ValueError(f"a frame's head is {type(meta).__name__}")
    if (name := meta.get("list")) in lists:
        items = [_revive(LISTS[name], item) for item in meta["items"]]
        at = meta.get("at", len(lists[name]))
        if not isinstance(at, int) or not 0 <= at <= len(lists[name]):
            raise ValueError(f"an item of {name} is to stand at {at!r}")
        lists[name][at : at + len(items)] = items
    elif (name := meta.get("table")) in tables:
        tables[name].append(_unpack(name, meta["columns"], payload))
    elif "end" in meta:
        head.update({key: value for key, value in meta["end"].items() if key in _HEAD})


def _unpack(table: str, columns: list[Any], payload: bytes) -> dict[str, Column]:
    chunk: dict[str, Column] = {}
    at, held = 0, 0  # held: rows that there are bytes of
    for name, dtype, shape in columns:
        kind = np.dtype(dtype if isinstance(dtype, str) else "O")
        if kind.kind not in "biuf" or not shape or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"{table}: a column of type {dtype!r} and shape {shape!r}")
        count = math.prod(shape)
        if at + count * kind.itemsize > len(payload):
            raise ValueError(f"{table}: a column of shape {shape} in a frame of {len(payload)} bytes")
        if name in TABLES[table] and dtype == TABLES[table][name][0]:
            if len(shape) != 1 + bool(TABLES[table][name][1]):
                raise ValueError(f"{table}: column {name!r} has shape {shape}")
            chunk[name] = np.frombuffer(payload, dtype, count, at).reshape(shape)
        held = max(held, shape[0] if count else 0)
        at += count * kind.itemsize
    if any(len(column) != held for column in chunk.values()):
        raise ValueError(f"{table}: columns of different lengths")
    return chunk


def _assemble(
    lists: dict[str, list[Any]], tables: dict[str, list[dict[str, Column]]], head: dict[str, Any], torn: str
) -> Trace:
    notes = [*lists.pop("notes"), *([f"the file is torn: {torn}"] if torn else [])]
    ended = "torn" if torn or "ended" not in head else head["ended"]
    if ended == "torn" and not torn:
        notes.append("the file was never closed: the job was killed, or is still running")
    for key, value in head.items():
        if not isinstance(value, _HEAD[key]):
            raise ValueError(f"{key} is {value!r}")
    _refuse_what_would_not_fit(tables, lists)
    columns = {name: _stack(name, chunks, lists) for name, chunks in tables.items()}
    for (table, column), name in _POINTS.items():
        found = columns[table][column]
        if found.size and not (int(found.min()) >= -1 and int(found.max()) < max(len(lists[name]), 1)):
            raise ValueError(f"{table}: column {column!r} points outside of {name}")
    items = {name: tuple(entries) for name, entries in lists.items()}
    return Trace(**{**columns, **items, **head, "notes": tuple(notes), "ended": ended})


def _refuse_what_would_not_fit(
    tables: Mapping[str, list[dict[str, Column]]], lists: Mapping[str, Sequence[Any]]
) -> None:
    """A short file may ask for many rows of many parameters; what it holds itself is welcome in any size."""
    held = sum(column.nbytes for chunks in tables.values() for chunk in chunks for column in chunk.values())
    needed = 0
    for name, chunks in tables.items():
        rows = sum(max((len(c) for c in chunk.values()), default=0) for chunk in chunks)
        needed += rows * sum(
            np.dtype(dtype).itemsize * (len(lists[width]) if width else 1) for dtype, width, _ in TABLES[name].values()
        )
    if needed > 8 * held + _MAX_FILLED:
        raise ValueError(f"{held:,} bytes of columns would become {needed:,}")


def _stack(name: str, chunks: list[dict[str, Column]], lists: dict[str, list[Any]]) -> dict[str, Column]:
    """Join a table's chunks; those written before a parameter was known are narrower and get the fill."""
    lengths = [max((len(c) for c in chunk.values()), default=0) for chunk in chunks]
    joined = {}
    for column, (dtype, width, fill) in TABLES[name].items():
        total = sum(lengths)
        array = np.full((total, len(lists[width])) if width else (total,), fill, dtype=dtype)
        at = 0
        for chunk, length in zip(chunks, lengths, strict=True):
            part = chunk.get(column)
            if part is not None:
                target = array[at : at + length]
                if width:
                    target[:, : part.shape[1]] = part[:, : target.shape[1]]
                else:
                    target[:] = part
            at += length
        joined[column] = array
    return joined


def _revive(kind: type, item: Any) -> Any:
    if kind is str:
        return str(item)
    known = {f.name: str(f.type) for f in fields(kind)}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in item.items() if k in known}
    for key, value in values.items():
        if not _is_a(known[key], value):
            raise ValueError(f"{kind.__name__}: {key} is {value!r}")
    return kind(**values)


def _is_a(kind: str, value: Any) -> bool:
    if kind == "tuple[int, ...]":
        return isinstance(value, tuple) and all(isinstance(v, int) for v in value)
    if kind == "Mapping[str, Any]":
        return isinstance(value, dict)
    return type(value).__name__.replace("NoneType", "None") in kind.split(" | ")  # bool, int, str, str | None


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _from_scalars(scalars: Mapping[str, Any]) -> Trace:
    if not isinstance(scalars, Mapping):
        raise TypeError(f"scalars: a mapping of name to values is needed, not {type(scalars).__name__}")
    series = {str(name): _series(str(name), values) for name, values in scalars.items()}
    if not any(len(values) for _, values in series.values()):
        raise ValueError("scalars: no numbers were given")
    per_step = {n: series.pop(n) for n in ("loss", "lr", "grad_norm") if n in series}
    length = max((int(at[-1]) + 1 for at, _ in per_step.values() if len(at)), default=0)
    steps: dict[str, Column] = {"optimizer": np.zeros(length, np.int32)} if length else {}
    for name, (at, values) in per_step.items():
        column = np.full(length, np.nan)
        column[at] = values
        steps[name] = column
    if "grad_norm" in steps:
        steps["grad_norm_used"] = steps["grad_norm"]
    val_at, val = series.pop("val/loss", (np.zeros(0, np.int64), np.zeros(0)))
    names = tuple(series)
    logged = {
        "step": np.concatenate([at for at, _ in series.values()] or [np.zeros(0, np.int64)]),
        "name": np.concatenate([np.full(len(at), i) for i, (at, _) in enumerate(series.values())] or [np.zeros(0)]),
        "value": np.concatenate([v for _, v in series.values()] or [np.zeros(0)]),
    }
    loss_at, loss = per_step.get("loss", (np.zeros(0, np.int64), np.zeros(0)))
    return Trace(
        steps=steps,
        losses={"step": loss_at, "value": loss},
        val={"step": val_at, "value": val},
        logged=logged,
        names=names,
        streams=("scalars",),
        optimizers=(OptimizerInfo(name="not recorded"),) if length else (),
        level="scalars",
    )


def _series(name: str, values: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    pair = isinstance(values, tuple) and len(values) == 2 and not np.isscalar(values[0])
    try:
        numbers = np.asarray(values[1] if pair else values, dtype=np.float64)
        at = np.asarray(values[0], dtype=np.int64) if pair else np.arange(numbers.size, dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"scalars: {name!r} is no sequence of numbers ({error})") from error
    if numbers.ndim != 1 or at.shape != numbers.shape:
        raise ValueError(f"scalars: {name!r} has {at.size} steps for {numbers.size} values (one axis each is needed)")
    if (at < 0).any() or (at > _MAX_STEP).any():
        raise ValueError(f"scalars: {name!r} has a step outside 0 to {_MAX_STEP:,}")
    order = np.argsort(at, kind="stable")
    return at[order], numbers[order]
