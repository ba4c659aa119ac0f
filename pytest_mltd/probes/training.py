"""Does a training learn, and from what: a few samples by heart, nothing from shuffled labels, more than from empty inputs."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from pytest_mltd.checks.runs.curves import Curve, curves
from pytest_mltd.core.asking import asserting, check
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.probes.attempts import Attempt, Attempts, attempts, raise_if_broken, refuse_small, refuse_unfit
from pytest_mltd.probes.samples import (
    Change,
    changed,
    few,
    has_loader,
    loaders_changed,
    shuffled_labels,
    size,
    without_inputs,
)

# Standard errors that the mean of the shuffled runs may be off: with five of them once in a hundred tests (Student, 1908).
LUCK = 4.0


@check("training")
def check_overfits(
    train: Callable[..., Any],
    *data: Any,
    samples: int = 8,
    steps: int = 200,
    max_share: float = 0.05,
    seed: int = 0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a training learns a few samples by heart: one that cannot will not learn the rest either.

    ``train(*data)`` is run as it is, with its own batches, optimizer and rate. The samples are really the same few: each part
    of the data is filled up with copies of them to the length that it had. Without data, every DataLoader in the training
    gets them instead. It runs in a child of this process, seeded.

    Args:
        train: the training; given ``data``, and ``seed`` if it has a parameter of that name.
        data: equally long arrays, tensors, frames or lists, one tuple of such, or one Dataset; none for a training that makes
            its own DataLoaders. With a DataLoader among them all loaders are changed; a model or a number stays as it is.
        samples: how many samples there are to learn; a guess.
        steps: end after so many steps of the busiest optimizer (pytest-torch, 2025: 200).
        max_share: the highest share of its first loss that may be left at the lowest level of the loss (pytest-torch, 2025:
            0.05). A loss that has a floor (label smoothing, a prior) needs more.
        seed: set before the run, and decides which samples; by convention 0.
        allow: a reason by place: the line of the backward.

    Raises:
        TypeError: ``train`` is no function, or a part of the data has no samples.
        ValueError: ``train`` raised, or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> check_overfits(lambda: None).asked
        False
    """
    __tracebackhide__ = True
    refuse_unfit(train, "check_overfits(train, x, y)")
    refuse_small(samples=samples, steps=steps)
    _refuse_share(max_share=max_share)
    need("torch", "check_overfits")
    with attempts(seed=seed, steps=steps) as tries:
        attempt, reached = _changed_run(tries, train, data, few(samples, seed))
    raise_if_broken(attempt)
    if not reached:
        return _nothing_to_change()
    return _judge_overfit(attempt, samples, steps, max_share)


assert_overfits = asserting(check_overfits, name="assert_overfits")


@check("training")
def check_learns_from_inputs(
    train: Callable[..., Any],
    *data: Any,
    steps: int = 200,
    min_gain: float = 0.02,
    seed: int = 0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a training learns more from its inputs than it would from inputs set to zero.

    It is run twice from one state, as it is and with empty inputs; order and labels of the batches are the same, so the losses
    are compared step by step. If both fall alike the model has learned how frequent the labels are, and nothing else.

    Args:
        train: the training; given ``data``, and ``seed`` if it has a parameter of that name.
        data: the inputs first, then labels and what else it takes, as for `check_overfits`. Zero replaces floating-point
            inputs; of whole numbers (tokens, categories) and frames every sample becomes the first one.
        steps: end both after so many steps of the busiest optimizer; a guess.
        min_gain: the share by which the late loss must be lower than with empty inputs; a guess.
        seed: set before both runs; by convention 0.
        allow: a reason by place: the line of the backward.

    Raises:
        TypeError: ``train`` is no function, or a part of the data has no samples.
        ValueError: ``train`` raised, or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> check_learns_from_inputs(lambda: None).asked
        False
    """
    __tracebackhide__ = True
    refuse_unfit(train, "check_learns_from_inputs(train, x, y)")
    refuse_small(steps=steps)
    _refuse_share(min_gain=min_gain)
    need("torch", "check_learns_from_inputs")
    with attempts(seed=seed, steps=steps) as tries:
        real = tries.run(train, *data)
        raise_if_broken(real)
        empty, reached = _changed_run(tries, train, data, without_inputs())
    if not reached:
        return _nothing_to_change()
    if empty.raised:
        return not_asked(f"with inputs at zero the training raised {empty.raised}")
    return _judge_gain(real, empty, min_gain)


assert_learns_from_inputs = asserting(check_learns_from_inputs, name="assert_learns_from_inputs")


@check("training")
def check_learns_nothing_from_shuffled_labels(
    train: Callable[..., Any],
    *data: Any,
    chance: float | None = None,
    score: str = "",
    shuffles: int = 5,
    max_learned: float = 0.3,
    seed: int = 0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether the validation score falls to chance when every label is given to another sample.

    What is still scored above chance has reached the model past the labels: validation rows in the training set, features or
    statistics computed from the labels of all rows. All labels are shuffled before the training sees them, so splitting and
    preparing must happen inside ``train``. It runs to its end once as it is and once for each shuffle.

    Args:
        train: the training; given ``data``, returns its validation score (a number, or a mapping of numbers).
        data: inputs first, labels last, as for `check_overfits`.
        chance: what a model that knows nothing scores. None takes the share of the most frequent label, for an accuracy.
        score: which number of a mapping is the score.
        shuffles: how many shuffled runs are made; a guess.
        max_learned: the highest share of the way from chance to the true score that shuffled runs may keep; a guess, with room
            for a score that is the best of many epochs.
        seed: set before each run; the shuffles follow from it; by convention 0.
        allow: a reason by place: the name of the score.

    Raises:
        TypeError: ``train`` is no function, or a part of the data has no samples.
        ValueError: ``train`` raised or returned no number, ``chance`` cannot be known, or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> check_learns_nothing_from_shuffled_labels(lambda x, y: 0.5, [1.0] * 20, [0, 1] * 10).asked
        False
    """
    __tracebackhide__ = True
    refuse_unfit(train, "check_learns_nothing_from_shuffled_labels(train, x, y)")
    refuse_small(shuffles=shuffles)
    _refuse_share(max_learned=max_learned)
    need("torch", "check_learns_nothing_from_shuffled_labels")
    with attempts(seed=seed, steps=None) as tries:
        real = tries.run(train, *data)
        raise_if_broken(real)
        name = _score_name(real, score)
        level = _chance(data, real.returned[name]) if chance is None else chance
        if unknowing := _no_better(real.returned[name], level, chance is None):
            return unknowing
        shuffled: list[float] = []
        for turn in range(shuffles):
            attempt, reached = _changed_run(tries, train, data, shuffled_labels(seed + turn + 1))
            if not reached:
                return _nothing_to_change()
            raise_if_broken(attempt, "train: with shuffled labels")
            shuffled.append(attempt.returned.get(name, math.nan))
    return _judge_shuffled(name, real.returned[name], shuffled, level, max_learned)


assert_learns_nothing_from_shuffled_labels = asserting(
    check_learns_nothing_from_shuffled_labels, name="assert_learns_nothing_from_shuffled_labels"
)


def _changed_run(
    tries: Attempts, train: Callable[..., Any], data: tuple[Any, ...], change: Change
) -> tuple[Attempt, bool]:
    """Run with the change made to the data, or to the loaders where no data is given; tell whether anything was changed."""
    if data and not has_loader(data):
        return tries.run(train, *changed(data, change)), True

    @contextlib.contextmanager
    def around() -> Any:
        with loaders_changed(change):
            yield lambda: change.done

    attempt = tries.run(train, *data, around=around)
    return attempt, bool(attempt.noted)


def _nothing_to_change() -> Finding:
    return not_asked(
        "the training was given no data and iterated no DataLoader, so nothing could be changed",
        next_step="give the training its data as arguments behind it: (train, x, y), where train(x, y) can be called",
    )


def _judge_overfit(attempt: Attempt, samples: int, steps: int, max_share: float) -> Finding:
    found = _main_curve(attempt)
    if isinstance(found, Finding):
        return found
    curve, seen = found, attempt.trace.busiest
    left = curve.lowest / curve.start if math.isfinite(curve.value[-1]) else math.nan
    amounts = f"{_number(curve.start)} to {_number(curve.lowest)}"
    if left <= max_share:
        return Finding(
            ok=True,
            headline=f"{samples} samples are learned: the loss fell from {amounts} (max_share={max_share:g})",
            amount=left,
            limit=("max_share", max_share),
            looked_at=f"{seen:,} steps on the same {samples} samples, {left:.2g} of the first loss left",
        )
    if seen < steps and math.isfinite(left):
        return not_asked(
            f"{seen:,} of at least {steps:,} steps, with {left:.2g} of the first loss left",
            next_step="let it train longer for this question, as in check_overfits(lambda x, y: train(x, y, epochs=200), x, y)",
        )
    became = f"went from {amounts}, {left:.2g} of it left" if math.isfinite(left) else f"ended at {curve.value[-1]:g}"
    return Finding(
        ok=False,
        headline=(
            f"{samples} samples are not learned in {seen:,} steps: the loss {curve.name} {became} (max_share={max_share:g})"
        ),
        culprit=curve.name,
        amount=left,
        limit=("max_share", max_share),
        table=_milestones(curve),
        shows="The samples were the same few throughout, so neither their number nor their variety is in the way.",
        next_step="ask what is broken, mltd.assert_healthy(mltd.run(train, x, y)); if nothing is, raise the learning rate",
    )


def _milestones(curve: Curve) -> Table:
    last = len(curve.value) - 1
    at = sorted({round(last * part / 5) for part in range(6)})
    return Table(("step", "loss"), tuple((int(curve.step[i]), float(curve.value[i])) for i in at), len(at) - 1)


def _judge_gain(real: Attempt, empty: Attempt, min_gain: float) -> Finding:
    found, other = _main_curve(real), _main_curve(empty)
    if isinstance(found, Finding):
        return found
    if isinstance(other, Finding) or not math.isfinite(other.value[-1]):
        return not_asked("with inputs at zero the training has no finite loss to compare with")
    length = min(found.value.size, other.value.size)
    tail = slice(length - max(5, length // 5), length)
    with_inputs, without = (float(c.value[:length][tail].mean()) for c in (found, other))
    gain = (without - with_inputs) / abs(without) if without else math.nan
    if with_inputs > 0 and gain < -0.25 and found.value[0] > other.value[0]:
        return not_asked(
            f"with inputs at zero the loss is lower ({_number(without)}, else {_number(with_inputs)}): the targets seem to be "
            "made from the inputs",
            next_step="give the targets as an argument of their own, so that they stay",
        )
    amounts = f"{_number(with_inputs)} with inputs, {_number(without)} with zeros"
    if gain >= min_gain:
        return Finding(
            ok=True,
            headline=f"the inputs are learned from: late loss {amounts} (min_gain={min_gain:g})",
            amount=gain,
            limit=("min_gain", min_gain),
            looked_at=f"the losses {found.name} of {length:,} steps in both runs, the last {tail.stop - tail.start} compared",
        )
    rows = tuple((int(found.step[i]), float(found.value[i]), float(other.value[i])) for i in _spread(length))
    return Finding(
        ok=False,
        headline=f"nothing is learned from the inputs: the late loss {found.name} is {amounts} (min_gain={min_gain:g})",
        culprit=found.name,
        amount=gain,
        limit=("min_gain", min_gain),
        table=Table(("step", "loss", "loss, inputs zero"), rows, len(rows) - 1),
        shows=(
            "Both runs are equal from the first step on: the inputs do not reach the loss."
            if all(a == b for _, a, b in rows)
            else "Order and labels of the batches are the same in both, so what was learned is how frequent the labels are."
        ),
        next_step="follow one batch by hand: are the inputs what they should be, and does each still belong to its label?",
    )


def _spread(length: int) -> list[int]:
    return sorted({round((length - 1) * part / 5) for part in range(6)})


def _main_curve(attempt: Attempt) -> Curve | Finding:
    """Return the training loss, or why there is none to judge."""
    found = curves(attempt.trace)
    if not found:
        return not_asked("no training was seen: no backward was called")
    if len(found) > 1 and found[1].step.size > found[0].step.size / 2:
        return not_asked(
            f"{len(found)} losses are trained side by side ({found[0].name}, {found[1].name}): none stands for what was learned"
        )
    curve = found[0]
    if curve.value.size < 5:
        return not_asked(f"{curve.value.size} of at least 5 steps")
    if curve.signed and not curve.start > 0:
        return not_asked(f"the loss {curve.name} begins at {_number(curve.start)}: of that a share has no meaning")
    return curve


def _score_name(attempt: Attempt, wanted: str) -> str:
    names = list(attempt.returned)
    if not names:
        raise ValueError("train: it returned no number; let it return its validation score")
    if wanted:
        if wanted not in names:
            raise ValueError(f"score: train returned no {wanted!r}; it returned {', '.join(names[:8])}")
        return wanted
    if len(names) > 1:
        raise ValueError(
            f"score: train returned {', '.join(names[:8])}; say which is the validation score, as in score={names[0]!r}"
        )
    return names[0]


def _chance(data: tuple[Any, ...], true: float) -> float:
    """Return the share of the most frequent label, which is the accuracy of a model that knows nothing.

    Raises:
        ValueError: the labels are no classes, or the score is no accuracy.
    """
    labels = _labels(data)
    counts: dict[Any, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    if not labels or len(counts) > max(2, len(labels) // 4) or not 0 <= true <= 1:
        raise ValueError(
            "chance: it cannot be known here; say what a model that knows nothing scores, as in chance=0.5"
        )
    return max(counts.values()) / len(labels)


def _labels(data: tuple[Any, ...]) -> list[Any]:
    while len(data) == 1 and isinstance(data[0], tuple):
        data = data[0]
    if len(data) < 2:
        return []
    tolist = getattr(data[-1], "tolist", None)
    labels = list(tolist() if callable(tolist) else data[-1])
    return [label for label in labels if isinstance(label, (bool, int, float, str))][: size(data[-1])]


def _no_better(true: float, chance: float, guessed: bool) -> Finding | None:
    if (guessed and true <= chance) or true == chance or not math.isfinite(true):
        where = ", the share of the most frequent label" if guessed else ""
        return not_asked(
            f"with its true labels the training scores {_number(true)}, no better than chance ({_number(chance)}{where})",
            next_step="say what a model that knows nothing scores, as in chance=0.5",
        )
    return None


def _judge_shuffled(name: str, true: float, shuffled: list[float], chance: float, max_learned: float) -> Finding:
    mean = statistics.fmean(shuffled)
    kept = [(value - chance) / (true - chance) for value in shuffled]
    error = statistics.stdev(kept) / math.sqrt(len(kept)) if len(kept) > 1 else 0.0
    learned = statistics.fmean(kept)
    called = f"'{name}'" if name else "the score"
    amounts = f"{_number(true)} with true labels, {_number(mean)} with shuffled ones, {_number(chance)} by chance"
    rows = (("true", true), *((f"shuffle {i + 1}", value) for i, value in enumerate(shuffled)), ("chance", chance))
    if math.isfinite(learned) and not (learned > max_learned and learned - LUCK * error > 0):
        return Finding(
            ok=True,
            headline=f"nothing is learned from shuffled labels: {amounts} (max_learned={max_learned:g})",
            amount=learned,
            limit=("max_learned", max_learned),
            looked_at=f"{len(shuffled)} shuffles, {learned:.2g} ± {error:.2g} of the way from chance to the true score",
        )
    return Finding(
        ok=False,
        headline=f"{called} stays high with shuffled labels: {amounts} (max_learned={max_learned:g})",
        culprit=called.strip("'"),
        amount=learned,
        limit=("max_learned", max_learned),
        table=Table(("labels", name or "score"), rows, 1),
        shows="Shuffled labels tell nothing of the inputs: what is scored has reached the model from the validation labels.",
        next_step="ask mltd.assert_no_leakage(train, validation); look for what is computed before rows are split",
    )


def _refuse_share(**shares: float) -> None:
    for name, value in shares.items():
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise ValueError(f"{name}: a share between 0 and 1 is needed, not {value!r}")


def _number(value: float) -> str:
    return f"{value:.4g}"
