"""Does a training that was stopped go on as if it had not been? Compared bit for bit, and the state that is missing named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, Plain, Table, not_asked
from pytest_mltd.probes.attempts import Attempt, Attempts, attempts, raise_if_broken, refuse_small, refuse_unfit

Row = dict[str, Any]

# In the order in which a step needs them. Each is looked at where the resumed run begins, before anything follows from it.
STATES = ("weights", "buffers", "optimizer", "scheduler", "scaler", "random state", "data order")


@check("training", family="training")
def check_resumes(
    train: Callable[..., Any],
    *,
    stop_after: int = 10,
    steps: int | None = None,
    seed: int = 0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a training that is stopped and started again goes on as the one that was never stopped, bit for bit.

    ``train(folder)`` saves its checkpoints in the folder, and goes on from the one that it finds there. It is run to its end in
    one empty folder; in another it is ended in the midst, as a crash would, and then called again. Each run has a process of
    its own, so that nothing survives but the files. Where the runs part, the state that was not restored is named: weights,
    buffers (running statistics), optimizer, scheduler, scaler, random state, data order.

    Args:
        train: the training; given an empty folder (a `pathlib.Path`), and ``seed`` if it has a parameter of that name.
        stop_after: the first of the two is ended after so many steps of the busiest optimizer; a guess, it should be past the
            first checkpoint and, best, amidst an epoch.
        steps: end all runs after so many steps counted from the beginning; None lets them run to their end.
        seed: set before each run; by convention 0.
        allow: reasons by state, as in ``allow={"data order": "each epoch is drawn anew"}``. What follows from a state that is
            allowed is not compared.

    Raises:
        TypeError: ``train`` is no function.
        ValueError: ``train`` raised, or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> check_resumes(lambda folder: None).asked
        False
    """
    __tracebackhide__ = True
    refuse_unfit(train, "check_resumes(lambda folder: fit(checkpoints=folder))")
    refuse_small(stop_after=stop_after, **({} if steps is None else {"steps": steps}))
    if steps is not None and steps <= stop_after:
        raise ValueError(f"steps: more than stop_after ({stop_after}) are needed, not {steps}")
    need("torch", "check_resumes")
    with attempts(seed=seed, steps=steps) as tries:
        whole, resumed, files = _three_runs(tries, train, stop_after)
    if isinstance(resumed, Finding):
        return resumed
    return _judge(_Runs(whole, resumed, stop_after, files, complete=steps is None), allow)


assert_resumes = asserting(check_resumes, name="assert_resumes")


@dataclass(frozen=True, slots=True)
class _Runs:
    """The rows of the uninterrupted run and of the resumed one, what the folder held in between, whether both ran out."""

    whole: list[Row]
    resumed: list[Row]
    stop: int
    files: list[str]
    complete: bool


def _three_runs(
    tries: Attempts, train: Callable[..., Any], stop_after: int
) -> tuple[list[Row], list[Row] | Finding, list[str]]:
    __tracebackhide__ = True
    one, two = tries.folder / "whole", tries.folder / "resumed"
    one.mkdir()
    two.mkdir()
    whole = _rows(tries.run(train, one, around=_snapshots))
    if len(whole) <= stop_after:
        seen = (
            f"{len(whole)} of more than {stop_after} steps (stop_after={stop_after})"
            if whole
            else "no optimizer step was seen"
        )
        return whole, not_asked(seen, next_step="stop it earlier, as in stop_after=2, or let it train longer"), []
    stopped = tries.run(train, two, steps=stop_after)
    raise_if_broken(stopped)
    files = sorted(str(path.relative_to(two)) for path in two.rglob("*") if path.is_file())
    again = tries.run(train, two, around=_snapshots)
    raise_if_broken(again, "train: in the folder of a run that was stopped")
    return whole, again.noted or [], files


def _rows(attempt: Attempt) -> list[Row]:
    __tracebackhide__ = True
    raise_if_broken(attempt)
    return attempt.noted or []


@contextlib.contextmanager
def _snapshots() -> Iterator[Callable[[], list[Row]]]:
    from pytest_mltd.probes.snapshots import snapshots

    with snapshots() as rows:
        yield rows


def _judge(runs: _Runs, allow: Mapping[str, str] | None) -> Finding:
    if not runs.resumed:
        return _did_nothing(runs)
    begins = _where_it_begins(runs)
    if begins == 0 and _same(runs.whole[0], runs.resumed[0], "weights"):
        return _began_anew(runs)
    at = runs.stop if begins is None else begins
    differing = [state for state in STATES if _differs(runs, at, state)]
    later = _first_later(runs, at)
    if differing == ["random state"] and later is None:
        differing = []  # nothing was made of it
    kept, allowed = sift(allow, differing)
    if kept:
        return _not_restored(runs, at, kept, begins is not None)
    if not allowed and later is not None:
        return _parted_later(runs, at, *later)
    compared = min(len(runs.resumed), len(runs.whole) - at)
    left_out = f"; what follows from {', '.join(place for place, _ in allowed)} not compared" if allowed else ""
    return Finding(
        ok=True,
        headline=f"a run stopped after step {runs.stop - 1} and resumed at step {at} is the uninterrupted one, bit for bit"
        if not allowed
        else f"a run resumed at step {at} has all state but what is allowed",
        looked_at=f"weights, optimizer, rates, random states and batches of {compared} steps after the checkpoint{left_out}",
        allowed=allowed,
    )


def _where_it_begins(runs: _Runs) -> int | None:
    """Return the latest step of the uninterrupted run whose weights the resumed one began with; None where there is none."""
    first = runs.resumed[0]["weights"]
    matching = [i for i, row in enumerate(runs.whole[: runs.stop + 1]) if row["weights"] == first]
    if matching:
        return matching[-1]
    # Of half the parameters at least: a part of the model was not saved.
    alike = [sum(row["weights"].get(n) == d for n, d in first.items()) for row in runs.whole[: runs.stop + 1]]
    best = max(range(len(alike)), key=lambda i: (alike[i], i))
    return best if alike[best] and best and len(set(alike)) > 1 else None


def _same(one: Row, two: Row, state: str) -> bool:
    return bool(_values(one, state) == _values(two, state))


def _values(row: Row, state: str) -> Any:
    if state == "optimizer":
        return row["state"]
    if state == "scheduler":
        return row["rates"]
    if state == "scaler":
        return row["scale"]
    if state == "random state":
        return row.get("random")
    if state == "data order":
        return row["samples"]
    return row.get(state)


def _differs(runs: _Runs, at: int, state: str) -> bool:
    if at >= len(runs.whole):
        return False
    return not _same(runs.whole[at], runs.resumed[0], state)


def _first_later(runs: _Runs, at: int) -> tuple[int, str] | None:
    """Return the first step at which anything but a random state differs, and what; or the step at which one run ends."""
    for offset, row in enumerate(runs.resumed):
        if at + offset >= len(runs.whole):
            break
        other = runs.whole[at + offset]
        for state in ("scheduler", "scaler", "data order", "buffers", "gradients", "optimizer", "weights"):
            if not _same(row, other, state):
                return at + offset, state
    if runs.complete and len(runs.resumed) != len(runs.whole) - at:
        return min(len(runs.whole), at + len(runs.resumed)), "number of steps"
    return None


def _did_nothing(runs: _Runs) -> Finding:
    return Finding(
        ok=False,
        headline=(
            f"the number of steps differs: stopped after step {runs.stop - 1} and called again, the training took no further "
            f"step; uninterrupted it takes {len(runs.whole)}"
        ),
        culprit="number of steps",
        step=runs.stop,
        shows=f"The folder held {_listed(runs.files)}.",
        next_step="look at how the loop finds the step to go on from",
    )


def _began_anew(runs: _Runs) -> Finding:
    return Finding(
        ok=False,
        headline=f"nothing was resumed: stopped after step {runs.stop - 1}, it began again with the weights of step 0",
        culprit="weights",
        step=0,
        shows=f"When it was called again the folder held {_listed(runs.files)}.",
        next_step="save into the folder that train is given, before the stop, and load from there; or raise stop_after"
        if not runs.files
        else "load the checkpoint in the folder that train is given, before the first step",
    )


def _not_restored(runs: _Runs, at: int, missing: list[str], aligned: bool) -> Finding:
    first = missing[0] if missing != ["random state", "data order"] else "random state"
    names = _named_differences(runs, at, first)
    where = f", first in '{names[0]}'" if names else ""
    also = f" (and {', '.join(missing[1:])})" if missing[1:] else ""
    rows: list[tuple[Plain, ...]] = [
        (state, "differs" if state in missing else "same", _count(runs, at, state)) for state in STATES
    ]
    return Finding(
        ok=False,
        headline=f"{first} not restored: resumed at step {at}, it differs from the uninterrupted run{where}{also}",
        culprit=first,
        step=at,
        table=Table(("state at the checkpoint", "bytes", "looked at"), tuple(rows), STATES.index(first)),
        shows=_meaning(runs, at, first)
        if aligned
        else "The resumed run began with weights that the uninterrupted one never had.",
        next_step=_MEND[first],
        details={"missing": missing},
    )


_NUMBERS = {"scheduler": "learning rate", "scaler": "loss scale"}

_MEND = {
    "weights": "save and load model.state_dict() of every model, with strict=True",
    "buffers": "save and load model.state_dict(), not only the parameters; register what is updated as a buffer",
    "optimizer": "save optimizer.state_dict() and load it after the optimizer is made",
    "scheduler": "save scheduler.state_dict() and load it after the scheduler is made, and after the optimizer's",
    "scaler": "save scaler.state_dict() and load it",
    "random state": "save torch.get_rng_state(), numpy's and Python's, and set them last, just before the first batch",
    "data order": "save the sampler's generator and the position in the epoch, or seed each epoch by its number",
    "number of steps": "look at the step or epoch that the loop goes on from: one too early or too late",
}


def _meaning(runs: _Runs, at: int, state: str) -> str:
    mine, theirs = _values(runs.resumed[0], state), _values(runs.whole[at], state)
    if state == "optimizer" and not any(mine.values()):
        return "The optimizer began with no state at all: its moments were not loaded."
    if state in _NUMBERS:
        return f"The {_NUMBERS[state]} is {_plainly(mine)} where the uninterrupted run has {_plainly(theirs)}."
    if state == "random state":
        which = [name for name, digest in (mine or {}).items() if digest != (theirs or {}).get(name)]
        return f"The generators of {' and '.join(which)} are in another state, and what follows draws from them."
    if state == "data order":
        step = next((i for i, row in enumerate(runs.whole) if row["samples"] == mine and any(mine)), None)
        if step is not None:
            return f"The first batch after the checkpoint is the one of step {step}; the random states are the same."
        return "The first batch after the checkpoint is another one, while the random states are the same."
    return "Everything that comes after this follows from it."


def _plainly(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return " and ".join("none" if v is None else f"{v:.6g}" for v in dict.fromkeys(values))


def _named_differences(runs: _Runs, at: int, state: str) -> list[str]:
    mine, theirs = _values(runs.resumed[0], state), _values(runs.whole[at], state)
    if state not in ("weights", "buffers", "optimizer") or not isinstance(mine, dict):
        return []
    return [name for name, digest in (theirs or {}).items() if mine.get(name) != digest]


def _count(runs: _Runs, at: int, state: str) -> str:
    values = _values(runs.whole[at], state)
    if state == "data order":
        return f"{sum(len(batch) for batch in values)} samples"
    if values is None or (state == "optimizer" and not any(values.values())):
        return "none kept"
    kind = {"weights": "parameters", "optimizer": "parameters", "random state": "generators", "buffers": "buffers"}
    if state in kind:
        return f"{len(values)} {kind[state]}"
    mine = _plainly(_values(runs.resumed[0], state))
    return mine if mine == _plainly(values) else f"{mine} instead of {_plainly(values)}"


def _parted_later(runs: _Runs, at: int, step: int, what: str) -> Finding:
    named = {"gradients": "the gradients", "weights": "the weights"}.get(what, what)
    if what == "number of steps":
        shows = f"{len(runs.whole) - at} were left at the checkpoint, and {len(runs.resumed)} were taken."
    elif what in _NUMBERS:
        mine, theirs = (_plainly(_values(r, what)) for r in (runs.resumed[step - at], runs.whole[step]))
        shows = f"The {_NUMBERS[what]} is {mine} where the uninterrupted run has {theirs}; at the checkpoint both were equal."
    else:
        shows = "At the checkpoint weights, optimizer, rates, random states and batch were equal: something else is missing."
    return Finding(
        ok=False,
        headline=f"{named} not resumed: a run resumed at step {at} differs from the uninterrupted one from step {step} on",
        culprit=named,
        step=step,
        shows=shows,
        next_step=_MEND.get(
            what, "look for state outside of model and optimizer: counters, averages, a curriculum, early stopping"
        ),
    )


def _listed(files: list[str]) -> str:
    if not files:
        return "no file"
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"{', '.join(repr(Path(name).as_posix()) for name in files[:3])}{more}"
