"""What a training function returned, as plain values that two processes can compare bit for bit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MOST = 10_000  # values; a longer result is a dataset and not a result
DEEP = 6
# Names of what a clock or the machine decides, and of what a training decides. Between them only the clock itself can tell.
MEASURED = re.compile(
    r"time|second|elapsed|duration|took|latency|per_s|speed|throughput|date|stamp|memory|path|dir|file|pid|host"
)
LEARNED = re.compile(
    r"loss|acc|auc|f1|score|error|mse|mae|rmse|r2|precision|recall|perplex|weight|grad|param|pred|logit|val|test"
)

Kind = Literal["number", "bytes", "ignored"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value inside a result: where it is, exactly what it is, and as a person reads it."""

    path: str
    exact: str
    text: str
    kind: Kind


def leaves_of(result: Any) -> tuple[Leaf, ...]:
    """Return the numbers, arrays and tensors in nested lists, tuples, mappings and modules; all else only by its place."""
    return tuple(leaf for leaf, _ in zip(_walk(result, "", 0), range(MOST), strict=False))


def first_difference(first: Sequence[Leaf], second: Sequence[Leaf], *, clocks: bool) -> tuple[Leaf, Leaf] | None:
    """Return the first values that differ. Where the program reads a clock, a number that is not named like a metric may be
    a time and is not compared; one that is named like a time never is."""
    for one, two in zip(first, second, strict=False):
        if one.exact != two.exact and not _is_measured(one, clocks):
            return one, two
    if len(first) != len(second):
        sizes = [Leaf("the number of values", str(len(x)), str(len(x)), "number") for x in (first, second)]
        return sizes[0], sizes[1]
    return None


def _is_measured(leaf: Leaf, clocks: bool) -> bool:
    if leaf.kind == "ignored":
        return True
    name = leaf.path.lower()
    if MEASURED.search(name):
        return True
    return clocks and leaf.kind == "number" and not LEARNED.search(name)


def _walk(value: Any, path: str, depth: int) -> Iterator[Leaf]:
    if depth > DEEP:
        return
    if isinstance(value, (bool, int, float, complex)):
        yield Leaf(path, _exact(value), f"{value!r}", "number")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _walk(inner, f"{path}[{index}]", depth + 1)
    elif callable(getattr(value, "state_dict", None)) and not isinstance(value, type):
        yield from _walk(value.state_dict(), path or "state_dict", depth + 1)
    elif hasattr(value, "detach") and hasattr(value, "is_floating_point"):
        yield _of_tensor(value, path)
    elif hasattr(value, "tobytes") and hasattr(value, "dtype"):
        yield _of_bytes(value.tobytes(), path, str(getattr(value, "shape", "")))
    else:
        yield Leaf(path, "", type(value).__name__, "ignored")


def _exact(value: complex) -> str:
    return value.hex() if isinstance(value, float) else repr(value)


def _of_tensor(value: Any, path: str) -> Leaf:
    from pytest_mltd.recording.digests import of_tensor

    if value.numel() == 1:
        return Leaf(path, str(of_tensor(value.detach())), f"{value.item()!r}", "number")
    return Leaf(path, str(of_tensor(value.detach())), f"a tensor of {tuple(value.shape)}", "bytes")


def _of_bytes(data: bytes, path: str, shape: str) -> Leaf:
    return Leaf(path, hashlib.sha256(data).hexdigest(), f"an array of {shape}", "bytes")
