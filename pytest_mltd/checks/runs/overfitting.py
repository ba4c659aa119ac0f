"""Questions about what training loss and validation loss do together: does what was learned carry over, and until
when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, Floats, curves, moving_target, no_training, validations
from pytest_mltd.checks.runs.places import counted, middle, stepping
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace


@check("run", rank=75, family="losses")
def check_overfitting(
    run: Any, *, max_rise: float = 2.0, min_passes: int = 8, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether the validation loss turned and rose for good while the training loss went on falling.

    Judged by where the run ends, so one epoch that rises is none: at least a third of the passes come after the lowest, the
    later half of them lie above it by half of what is allowed, and the rise is a tenth or more of the level at which the
    losses began. A run that stops soon after, or loads weights again after it, has seen it itself; one whose training loss
    rises as well went on to other data. A validation of fewer than 30 rows is chance, and not asked.

    Args:
        run: a recording, a run or a trace.
        max_rise: the highest ratio of the validation loss at the end to its lowest (a guess; SageMaker warns at a relative
            gap of 0.1; honest programs that stop late were seen to end at 1.9).
        min_passes: the fewest validation losses, over time, that are needed, one value a pass; a guess.
        allow: reasons by validation loss (its line, or its logged name).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_rise`` is not above 1, or ``min_passes`` not above 2.
    """
    trace = as_trace(run)
    if not max_rise > 1:
        raise ValueError(f"max_rise: a ratio above 1 is needed, not {max_rise!r}")
    if not min_passes > 2:
        raise ValueError(f"min_passes: a number above two is needed, not {min_passes!r}")
    pairs, allowed, reason = _pairs(trace, allow, min_passes)
    if not pairs:
        return not_asked(reason)
    turns = [_turn(pair) for pair in pairs]
    turned = next((t for t in turns if _is_overfitting(trace, t, max_rise)), None)
    if turned is not None:
        return _overfitting_finding(turned, max_rise, allowed)
    highest = max(t.rise for t in turns)
    return Finding(
        ok=True,
        headline=f"validation losses end at {number(highest)} times their lowest, or rose too little or too late "
        "to tell "
        f"(max_rise={max_rise:g})",
        amount=highest,
        limit=("max_rise", max_rise),
        looked_at=_looked(pairs),
        allowed=allowed,
    )


@check("run", explains=("losses.overfitting",), rank=74, family="losses")
def check_generalisation_gap(
    run: Any, *, max_gap: float = 0.9, min_gain: float = 0.5, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether what training learned shows in the validation loss at all.

    The gap is the share of the training loss's fall that the validation loss did not make, at its lowest and at the end. A
    loss that fell in validation too, and rose later, is `check_overfitting`'s. Where the two begin at levels more than three
    times apart (a sum beside a mean, a penalty in one of them), each is held against its own level at the first pass, if
    training still had most of its fall before it there.

    Args:
        run: a recording, a run or a trace.
        max_gap: the highest share of the training's gain that may be missing in validation (a guess; healthy programs of
            tests/faulty miss less than a third).
        min_gain: the share of its first level that the training loss has to gain before it is asked; a guess.
        allow: reasons by validation loss (its line, or its logged name).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive, or ``min_gain`` is no share.
    """
    trace = as_trace(run)
    if not max_gap > 0:
        raise ValueError(f"max_gap: a share above 0 is needed, not {max_gap!r}")
    if not 0 < min_gain < 1:
        raise ValueError(f"min_gain: a share between 0 and 1 is needed, not {min_gain!r}")
    pairs, allowed, reason = _pairs(trace, allow, 1)
    if not pairs:
        return not_asked(reason)
    learned = [p for p in pairs if p.late_train <= (1 - min_gain) * p.start]
    if not learned:
        return not_asked(f"the training loss itself gained less than {min_gain:.0%} of its first level")
    alike = [p for p in learned if p.alike or p.falls_later(min_gain)]
    if not alike:
        return not_asked(_unlike(learned[0]))
    gap, pair = max(((p.gap, p) for p in alike), key=lambda entry: entry[0])
    if gap > max_gap:
        return _gap_finding(pair, gap, max_gap, allowed)
    return Finding(
        ok=True,
        headline=f"validation made at least {max(0.0, 1 - gap):.0%} of what training gained (max_gap={max_gap:g})",
        amount=gap,
        limit=("max_gap", max_gap),
        looked_at=_looked(alike),
        allowed=allowed,
    )


@check("run", rank=76, family="losses")
def check_validation_better(
    run: Any, *, min_ratio: float = 0.02, min_passes: int = 4, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether validation is better than training by more than dropout and augmentation explain.

    Those, and a mean over an epoch that is compared with its end, make the training loss up to a few times larger. A
    validation loss of a fiftieth is suspicious: its samples are easier, or are known, or their labels are of one kind. Not
    asked where the two begin at levels more than three times apart, of a training loss that came down to a tenth of its start,
    and of programs that call their model more than once a step: they may train on samples that they made harder.

    Args:
        run: a recording, a run or a trace.
        min_ratio: the lowest ratio of validation to training loss in the later half of the passes (a guess; healthy programs
            of tests/faulty stay above 0.4, one trained on
            attacked samples above 0.08).
        min_passes: the fewest validation losses, over time, that are needed, one value a pass; a guess.
        allow: reasons by validation loss (its line, or its logged name).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``min_ratio`` is not between 0 and 1, or ``min_passes`` not above 2.
    """
    trace = as_trace(run)
    if not 0 < min_ratio < 1:
        raise ValueError(f"min_ratio: a ratio between 0 and 1 is needed, not {min_ratio!r}")
    if not min_passes > 2:
        raise ValueError(f"min_passes: a number above two is needed, not {min_passes!r}")
    pairs, allowed, reason = _pairs(trace, allow, min_passes)
    if not pairs:
        return not_asked(reason)
    if int((trace.of("forward") & (trace.calls["grad"] == 1)).sum()) > 1.3 * trace.losses["step"].size:
        return not_asked("the model is called more than once a step: its training samples may have been made harder")
    alike = [p for p in pairs if p.alike]
    if not alike:
        return not_asked(_unlike(pairs[0]))
    high = [p for p in alike if p.late_train > 0.1 * p.start]
    if not high:
        return not_asked("the training loss came down to a tenth of its start: little is left to be better by")
    ratio, pair = min(((p.ratio, p) for p in high), key=lambda entry: entry[0])
    if ratio < min_ratio:
        return _better_finding(pair, ratio, min_ratio, allowed)
    return Finding(
        ok=True,
        headline=f"validation losses are {number(ratio)} of the training loss or more (min_ratio={min_ratio:g})",
        amount=ratio,
        limit=("min_ratio", min_ratio),
        looked_at=_looked(high),
        allowed=allowed,
    )


assert_no_overfitting = asserting(check_overfitting)
assert_no_generalisation_gap = asserting(check_generalisation_gap)
assert_no_validation_better = asserting(check_validation_better)


_FEWEST_ROWS: Final = 30  # of a validation; a guess


@dataclass(frozen=True, slots=True)
class _Pair:
    """A validation loss and the training loss of the same run. ``beside`` is the training level at each
    validation pass."""

    train: Curve
    val: Curve
    beside: Floats

    @property
    def start(self) -> float:
        return self.train.start

    @property
    def late_train(self) -> float:
        return self.train.late

    @property
    def late_val(self) -> float:
        return middle(self.val.value[-max(1, min(3, self.val.value.size // 3)) :])

    @property
    def alike(self) -> bool:
        """Whether both are of one scale: the first validation is near the level at which training began, or then was."""
        first = float(self.val.value[0])
        low = min(self.start, float(self.beside[0]))
        return low / 3 <= first <= 3 * self.start

    @property
    def gap(self) -> float:
        """The share of the training loss's gain that validation lacks, at its best level held for three passes.

        Where the two are not of one scale, each is held against its own level at the first pass.
        """
        lowest = float(_smooth(self.val.value).min())
        if self.alike:
            return (lowest - self.late_train) / max(self.start - self.late_train, 1e-300)
        fallen = self.late_train / float(self.beside[0])
        return (lowest / float(self.val.value[0]) - fallen) / max(1 - fallen, 1e-300)

    def falls_later(self, min_gain: float) -> bool:
        """Whether training still had its gain before it at the first of four or more passes."""
        first = float(self.beside[0])
        early = first > 0.5 * self.start
        return self.val.value.size >= 4 and early and self.late_train <= (1 - min_gain) * first

    @property
    def ratio(self) -> float:
        half = self.val.value.size // 2
        return middle(self.val.value[half:] / np.fmax(self.beside[half:], 1e-300))


@dataclass(frozen=True, slots=True)
class _Turn:
    pair: _Pair
    best: int  # the validation pass with the lowest level
    onset: int  # the pass from which on it stays above that level
    rise: float  # the last level over the lowest


def _pairs(
    trace: Trace, allow: Mapping[str, str] | None, min_passes: int
) -> tuple[list[_Pair], tuple[tuple[str, str], ...], str]:
    """Return what can be compared, what was allowed, and why there is nothing."""
    if reason := no_training(trace):
        return [], (), reason
    found = validations(trace)
    if not found:
        return [], (), "no validation loss was recorded or logged"
    if moving := moving_target(trace):
        return [], (), f"losses do not tell what was learned here: {moving}"
    if len(stepping(trace)) > 1:
        return [], (), "several optimizers trained: which loss a validation belongs to is not known"
    names = {c.name for c in found}
    training = [c for c in curves(trace) if c.name not in names or trace.level == "scalars"]
    whole = [c for c in training if c.finite.size == c.value.size and c.step.size >= 10 and not c.signed]
    if not whole or whole[0] is not training[0] or whole[0].step.size < 0.8 * sum(c.step.size for c in training):
        return [], (), "there is no single training loss, positive and finite, of ten or more steps"
    kept, allowed = sift(allow, [c.name for c in found])
    if 0 < (rows := _rows(trace)) < _FEWEST_ROWS:
        return [], allowed, f"a validation of {rows} rows of at least {_FEWEST_ROWS}: its loss is chance"
    finite = [c for c in found if c.name in set(kept) and np.isfinite(c.value).all() and (c.value > 0).all()]
    pairs = [_Pair(whole[0], c, _beside(whole[0], c)) for c in finite if c.step.size >= min_passes]
    most = max((c.step.size for c in finite), default=0)
    few = (
        f"{most} of at least {min_passes} validation passes" if finite else "no validation loss is positive and finite"
    )
    return pairs, allowed, few


def _rows(trace: Trace) -> int:
    """Return the rows that a net is given without gradient between two steps, usually; 0 where that is not known."""
    given = trace.of("batch") & (trace.calls["grad"] == 0) & np.isin(trace.calls["step"], trace.val["step"])
    if not given.any():
        return 0
    rows = np.bincount(trace.calls["step"][given], weights=np.nan_to_num(trace.calls["value"][given]))
    return int(np.median(rows[rows > 0])) if (rows > 0).any() else 0


def _beside(train: Curve, val: Curve) -> Floats:
    """Return the training level in the steps just before each validation pass: the median of up to twenty."""
    ends = np.searchsorted(train.step, val.step)
    few = min(20, train.value.size)
    first = np.array([np.median(train.value[: max(1, e)]) for e in range(few)])
    windows = np.lib.stride_tricks.sliding_window_view(train.value, few)
    levels = np.empty(ends.size)
    early = ends < few
    levels[early] = first[ends[early]]
    levels[~early] = np.median(windows[ends[~early] - few], axis=1)
    return levels


def _smooth(values: Floats) -> Floats:
    if values.size < 3:
        return values
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(values, 3), axis=1), dtype=np.float64)


def _turn(pair: _Pair) -> _Turn:
    smooth = _smooth(pair.val.value)
    best = int(np.argmin(smooth)) + 1
    low = float(smooth[best - 1])
    under = np.flatnonzero(pair.val.value <= 1.05 * low)
    onset = min(int(under[-1]) + 1 if under.size else best, pair.val.value.size - 1)
    return _Turn(pair, best, onset, pair.late_val / max(low, 1e-300))


def _is_overfitting(trace: Trace, turn: _Turn, max_rise: float) -> bool:
    pair, v = turn.pair, turn.pair.val.value
    low = pair.late_val / turn.rise
    after = v[turn.best :]
    later = after[after.size // 2 :]
    began = max(float(v[0]), pair.start if v[0] <= 3 * pair.start else 0.0)
    rose = (
        turn.rise > max_rise
        and pair.late_val - low > 0.1 * began
        and after.size >= max(4, v.size / 3)
        and float((later > low * (1 + max_rise) / 2).mean()) >= 0.9
    )
    fell_on = pair.late_train < 0.9 * float(pair.beside[turn.best])
    later_levels = pair.beside[turn.best :]
    other_data = float(later_levels.max()) > max(2 * float(later_levels[0]), 0.1 * pair.start)
    if not (rose and fell_on) or other_data or (pair.alike and pair.late_train > 0.5 * pair.late_val):
        return False
    loads = trace.calls["step"][trace.of("load")]
    return not bool((loads > pair.val.step[turn.best]).any())


def _overfitting_finding(turn: _Turn, max_rise: float, allowed: tuple[tuple[str, str], ...]) -> Finding:
    pair = turn.pair
    step, size = int(pair.val.step[turn.onset]), pair.val.value.size
    low = pair.late_val / turn.rise
    return Finding(
        ok=False,
        headline=f"overfitting from step {step} on: the validation loss of '{pair.val.name}' ends at "
        f"{number(pair.late_val)}, "
        f"{number(turn.rise)} times its lowest (max_rise={max_rise:g}), while the training loss falls on to "
        f"{number(pair.late_train)}",
        culprit=pair.val.name,
        amount=turn.rise,
        limit=("max_rise", max_rise),
        step=step,
        table=_both(pair, turn.onset),
        shows=f"It was lowest, {number(low)}, at step {int(pair.val.step[turn.best])} and has been above that for "
        f"{counted(size - turn.onset, 'pass', 'passes')}: since then the net learns its training samples by heart.",
        next_step="keep the weights of the lowest validation loss (early stopping), or regularise: more data, "
        "augmentation, "
        "weight decay, dropout, a smaller net",
        allowed=allowed,
    )


def _gap_finding(pair: _Pair, gap: float, max_gap: float, allowed: tuple[tuple[str, str], ...]) -> Finding:
    lowest = float(_smooth(pair.val.value).min())
    return Finding(
        ok=False,
        headline=f"what is learned does not carry over: the training loss falls from {number(pair.start)} to "
        f"{number(pair.late_train)}, the validation loss of '{pair.val.name}' is never below {number(lowest)}: "
        f"{gap:.0%} of the gain is missing (max_gap={max_gap:g})",
        culprit=pair.val.name,
        amount=gap,
        limit=("max_gap", max_gap),
        table=_both(pair, pair.val.value.size - 1),
        shows="Validation gains nothing from what fits the training samples: they are learned by heart, or the two are "
        "prepared differently.",
        next_step="run the validation code on the training samples: if the loss is high there too, preprocessing, "
        "labels or "
        "mode differ; if it is low, the net memorises",
        allowed=allowed,
    )


def _better_finding(pair: _Pair, ratio: float, min_ratio: float, allowed: tuple[tuple[str, str], ...]) -> Finding:
    return Finding(
        ok=False,
        headline=f"the validation loss of '{pair.val.name}' is {number(ratio)} of the training loss beside it "
        f"(min_ratio={min_ratio:g}): better than dropout or augmentation explain",
        culprit=pair.val.name,
        amount=ratio,
        limit=("min_ratio", min_ratio),
        table=_both(pair, pair.val.value.size - 1),
        shows=f"Training stays at {number(pair.late_train)} of {number(pair.start)}: the samples it is validated "
        "on are easier, "
        "known, or of one kind.",
        next_step="count the labels of the validation set, look for its rows among the training rows "
        "(mltd.check_leakage), and validate on training samples with the same code",
        evidence="inference",
        allowed=allowed,
    )


def _both(pair: _Pair, at: int) -> Table:
    shown = np.unique([*np.linspace(0, pair.val.value.size - 1, min(6, pair.val.value.size)).astype(int), at])
    rows = tuple((int(pair.val.step[i]), float(pair.beside[i]), float(pair.val.value[i])) for i in shown)
    return Table(("step", "training loss", "validation loss"), rows, culprit=int(np.searchsorted(shown, at)))


def _unlike(pair: _Pair) -> str:
    return (
        f"'{pair.val.name}' is first seen at step {int(pair.val.step[0]):,}, with {number(float(pair.val.value[0]))}; the "
        f"training loss began at {number(pair.start)} and was {number(float(pair.beside[0]))} there: not of one scale"
    )


def _looked(pairs: list[_Pair]) -> str:
    beside = counted(pairs[0].train.step.size, "training loss", "training losses")
    passes = (f"{counted(p.val.step.size, 'pass', 'passes')} of {p.val.name}" for p in pairs[:3])
    return f"{', '.join(passes)} beside {beside}"
