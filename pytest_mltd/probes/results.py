"""What a training function returned, as plain values that two processes can compare bit for bit."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MOST = 10_000  # values that are kept one by one; of those after them only a digest
DEEP = 6
# Words in the names of what a clock or the machine decides, and of what a training decides. Between them only the clock itself
# can tell. Whole words, since "sentiment" holds "time" and "per_sample_loss" holds "per_s".
MEASURED = frozenset(
    "time times timing seconds secs sec ms elapsed duration took latency speed throughput date timestamp stamp started ended "
    "finished memory mem path paths dir directory folder file filename pid host hostname".split()
)
LEARNED = frozenset(
    "losses acc accuracy auroc f1 score scores error errors mse mae rmse r2 precision recall perplexity ppl bleu iou "
    "dice weight weights grad grads gradient gradients norm param params pred preds prediction predictions logit logits nll "
    "ece".split()
)
SPLITS = frozenset("train val valid validation test eval".split())  # train_time is a time, and train alone is not
BEFORE_WHAT = frozenset("at over by of vs until after to".split())
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+[0-9]*")

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
    walk = _walk(result, "", 0)
    leaves = tuple(itertools.islice(walk, MOST))
    rest = _digest_of(walk)
    return leaves if rest is None else (*leaves, rest)


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


def compared(leaves: Sequence[Leaf], *, clocks: bool) -> list[Leaf]:
    """Return those that `first_difference` compares."""
    return [leaf for leaf in leaves if not _is_measured(leaf, clocks)]


def _is_measured(leaf: Leaf, clocks: bool) -> bool:
    if leaf.kind == "ignored":
        return True
    words = [word.lower() for word in WORD.findall(leaf.path)]
    # "accuracy over time" is no time; of a compound ("gradient time", "per sample loss") the last word is what it is.
    words = list(itertools.takewhile(lambda word: word not in BEFORE_WHAT, words)) or words
    learned = LEARNED.intersection(words) or any(word.endswith(("loss", "auc")) for word in words)
    if words and (words[-1] in MEASURED or words[1:][-1:] == ["s"]):
        return True
    if learned:
        return False
    if MEASURED.intersection(words):
        return True
    return clocks and leaf.kind == "number" and not SPLITS.intersection(words)


def _digest_of(leaves: Iterator[Leaf]) -> Leaf | None:
    """Return what is left of a long result as one value, without what is named like a time; None where nothing is left."""
    total, count = hashlib.sha256(), 0
    for leaf in leaves:
        if not _is_measured(leaf, clocks=False):
            total.update(f"{leaf.path}\0{leaf.exact}\0".encode("utf-8", "surrogatepass"))
            count += 1
    return (
        Leaf(f"the values after the first {MOST:,}", total.hexdigest(), f"{count:,} values", "bytes") if count else None
    )


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
