"""Questions about what the steps did to the parameters: nothing at all, or too much, or too little."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.runs.curves import no_steps, too_short
from pytest_mltd.checks.runs.idling import never_stepped
from pytest_mltd.checks.runs.places import (
    counted,
    held_by,
    listed,
    middle,
    norm_rows,
    not_recorded,
    optimizer_label,
    root_of,
    stepping,
)
from pytest_mltd.checks.runs.scales import scale_of, too_large, too_small
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import NOT_TAKEN, Parameter, Trace, as_trace

_LONG = 100  # steps after which a group that waits for its turn has had it; a guess


@check("run", explains=("losses.plateau", "losses.rate_too_low", "activations.*", "gradients.vanishing"), rank=15)
def check_frozen_parameters(run: Any, *, fewest_steps: int = 4, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether parameters that should train never can: no gradient reaches them, or no optimizer holds them.

    Asked of parameters that require a gradient and belong to a module that was used. Frozen on purpose are those with
    ``requires_grad=False``, those of a network in eval mode or under no_grad that no optimizer holds, and those of modules that
    were never called. A branch that is left out in some steps is no fault. Said too: parameters in a group whose learning rate
    is zero in all of 100 steps or more, and those of an optimizer that is cleared for each backward and never steps.

    Args:
        run: a recording, a run or a trace.
        fewest_steps: steps of an optimizer that are needed; a guess.
        allow: reasons by parameter.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``fewest_steps`` is not positive.
    """
    trace = as_trace(run)
    if not fewest_steps > 0:
        raise ValueError(f"fewest_steps: a number above zero is needed, not {fewest_steps!r}")
    if (idle := never_stepped(trace, allow)) is not None:
        return idle
    if reason := no_steps(trace) or not_recorded(trace, "gradients by parameter", "parameter_norms"):
        return not_asked(reason)
    if not trace.parameters:
        return not_asked("the run trained no parameter of a module")
    if reason := too_short(trace, trace.busiest, fewest_steps):
        return not_asked(reason)
    unreached = _unreached(trace, fewest_steps)
    groups = [
        _left_out(trace),
        _orphans(trace, unreached),
        _cut_off(trace, unreached),
        _unmoved(trace),
        _without_rate(trace),
    ]
    kept, allowed = sift(allow, [name for group in groups for name in group.names])
    groups = [group.only(set(kept)) for group in groups]
    broken = next((group for group in groups if group.names), None)
    total = sum(p.requires_grad for p in trace.parameters)
    if broken is None:
        return Finding(
            ok=True,
            headline=f"all of the {counted(total, 'parameter')} in use that should train receive gradients and move",
            looked_at=f"{counted(len(trace.parameters), 'parameter')} over {counted(trace.n_steps, 'step')}",
            allowed=allowed,
        )
    return _frozen_finding(trace, broken, total, allowed)


@check(
    "run",
    explains=("losses.*", "activations.*", "gradients.explosion", "gradients.nonfinite", "gradients.vanishing"),
    rank=20,
)
def check_update_scale(
    run: Any,
    *,
    max_ratio: float = 0.3,
    min_ratio: float = 1e-7,
    min_steps: int = 10,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether steps are out of scale with the weights they change, and the loss shows it.

    The ratio is the norm of what a step adds to the weights of an optimizer (two axes or more) over the norm of those weights.
    Too large fails only where the loss did not come down; too small only where the loss did not move at all.

    Args:
        run: a recording, a run or a trace.
        max_ratio: the highest ratio in the early steps (CS231n calls 1e-3 healthy and 1e-2 high; healthy programs with a
            loss that does not fall stay under it in tests/faulty).
        min_ratio: the lowest ratio, median over the run (a guess: ten thousand steps of that size move a weight by 0.1%).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by optimizer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    for name, value in (("max_ratio", max_ratio), ("min_ratio", min_ratio), ("min_steps", min_steps)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    if reason := no_steps(trace) or not_recorded(trace, "updates", "updates"):
        return not_asked(reason)
    if reason := too_short(trace, trace.busiest, min_steps):
        return not_asked(reason)
    measured = [m for i in stepping(trace) if (m := scale_of(trace, i)) is not None]
    if not measured:
        return not_asked("no weight of two axes or more was trained")
    for scale in measured:
        if (finding := too_large(trace, scale, max_ratio) or too_small(trace, scale, min_ratio)) is not None:
            return finding
    largest = max(scale.early for scale in measured)
    return Finding(
        ok=True,
        headline=f"updates are in scale: early steps change the weights by {number(largest)} of their norm or "
        "less, or the loss "
        f"came down (max_ratio={max_ratio:g})",
        amount=largest,
        limit=("max_ratio", max_ratio),
        looked_at=", ".join(f"{counted(s.at.size, 'sampled step')} of {s.label}" for s in measured),
    )


assert_no_frozen_parameters = asserting(check_frozen_parameters)
assert_no_update_scale = asserting(check_update_scale)


# -- frozen parameters


@dataclass(frozen=True, slots=True)
class _Group:
    """Parameters that cannot train, and one and the same reason; ``what`` has a place for their number."""

    names: tuple[str, ...]
    what: str
    shows: str
    next_step: str

    def only(self, kept: set[str]) -> _Group:
        return _Group(tuple(n for n in self.names if n in kept), self.what, self.shows, self.next_step)


def _left_out(trace: Trace) -> _Group:
    """Parameters in no optimizer although gradients are computed for them in train mode."""
    # An optimizer of bare tensors (an input, a prompt) leaves the net it works through alone, on purpose.
    trained_roots = {root_of(trace, p.name) for p in trace.parameters if p.optimizers and p.registered}
    names = []
    unregistered = False
    if trained_roots:
        grads = trace.parameter_norms["grad"]
        unowned = {f.who for f in trace.facts if f.kind == "unowned"}
        by_hand = {
            f.who for f in trace.facts if f.kind == "manual_update"
        }  # loaded anew or moved by the program itself
        feeding = _feeding(trace)
        for i, p in enumerate(trace.parameters):
            if p.optimizers or not p.requires_grad or p.name in by_hand:
                continue
            taken = grads[:, i][grads[:, i] != NOT_TAKEN]
            if taken.size > 1:  # a gradient that never changes was copied with its net (deepcopy of a trained one)
                arrives = np.unique(taken[taken > 0]).size > 1
            elif taken.size or p.name in unowned:
                arrives = p.name in unowned or bool((taken > 0).any())
            else:  # not watched: layers that a list hides, or a net whose output the trained one lives on
                arrives = (not p.registered and _called(trace, p)) or root_of(trace, p.name) in feeding
            if not arrives:
                continue
            if root_of(trace, p.name) in trained_roots or not _in_eval_mode(trace, root_of(trace, p.name)):
                names.append(p.name)
                unregistered |= not p.registered
    shows = (
        "They are called in training and in no module's parameters(): a plain Python list or dict hides the layers in it, "
        "so that the optimizer never sees them."
        if unregistered
        else "Backward computes gradients for them and no step uses them: they stay at their initial values."
    )
    remedy = (
        "hold the layers in nn.ModuleList or nn.ModuleDict, and make the optimizer after that"
        if unregistered
        else (
            "give them to the optimizer, made after the last layer is in place; if they are meant to stay, "
            "requires_grad_(False)"
        )
    )
    return _Group(tuple(names), "no optimizer holds {} (never updated)", shows, remedy)


def _feeding(trace: Trace) -> set[str]:
    """Return the root modules in no optimizer through which gradients must flow: a trained root lives on their output alone.

    A trained root whose inputs are never a batch of their own, but come with a graph, is fed by another module. Where no other
    trained root is there to feed it, those without an optimizer do (an encoder beside the decoder that has one).
    """
    roots = {root_of(trace, p.name) for p in trace.parameters}
    trained = {root_of(trace, p.name) for p in trace.parameters if p.optimizers}
    tracked = trace.of("forward") & (trace.calls["grad"] == 1)
    often = {r for r in roots if _count(trace, tracked, r) >= 0.5 * trace.n_steps}
    fed = [r for r in often & trained if _count(trace, trace.of("batch"), r) <= 0.1 * _count(trace, tracked, r)]
    if not fed or len(trained & often) > 1:
        return set()
    return {
        r for r in often - trained if _count(trace, tracked & (trace.calls["value"] == 1), r) >= 0.5 * trace.n_steps
    }


def _count(trace: Trace, calls: NDArray[np.bool_], root: str) -> int:
    named = [i for i, n in enumerate(trace.names) if n == root]
    return int(np.isin(trace.calls["who"][calls], named).sum())


def _unreached(trace: Trace, fewest_steps: int) -> list[Parameter]:
    """Return the parameters that an optimizer holds, and for which no step of it ever found a gradient."""
    found: list[Parameter] = []
    for optimizer in stepping(trace):
        columns = held_by(trace, optimizer)
        rows = norm_rows(trace, optimizer)
        if rows.size < fewest_steps or not columns.size:
            continue
        grad = trace.parameter_norms["grad"][rows][:, columns]
        used = trace.parameter_norms["grad_used"][rows][:, columns]
        arrived = ((grad >= 0) | np.isnan(grad) | (used >= 0) | np.isnan(used)).any(axis=0)
        never = ~arrived & (grad == -1).any(axis=0)
        loose = np.array([not trace.parameters[i].registered for i in columns])
        if not arrived.any():
            never &= loose | (trace.losses["step"].size >= 0.5 * rows.size)  # backward ran, and reached none of them
        elif never[int(np.flatnonzero(arrived)[-1]) + 1 :].sum() == never.sum():
            # Only what comes after all that trains: an output nobody uses (a pooler, a spare head); a net of its own, which
            # the program calls with gradients by itself, is no spare.
            never &= loose | _of_nets_called(trace, columns, np.asarray(arrived))
        known = {p.name for p in found}
        found += [p for p in (trace.parameters[i] for i in columns[never]) if p.requires_grad and p.name not in known]
    return found


def _of_nets_called(trace: Trace, columns: NDArray[np.int64], arrived: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which parameters are of a root module none of which trains, called with gradients in half of the steps or more."""
    roots = [root_of(trace, trace.parameters[i].name) for i in columns]
    training = {root for root, reached in zip(roots, arrived, strict=True) if reached}
    tracked = trace.of("forward") & (trace.calls["grad"] == 1)
    cut = {r for r in set(roots) - training if _count(trace, tracked, r) >= 0.5 * trace.n_steps > 0}
    return np.array([root in cut for root in roots], dtype=np.bool_)


def _orphans(trace: Trace, unreached: list[Parameter]) -> _Group:
    """Parameters in an optimizer that belong to no module of the program (any more); named are those in use in their stead."""
    loose = tuple(p.name for p in unreached if not p.registered)
    instead = tuple(
        p.name for p in trace.parameters if not p.optimizers and p.registered and p.requires_grad and _called(trace, p)
    )
    shows = (
        "The optimizer holds parameters that belong to no module that was called: a layer was replaced, copied or loaded after "
        "the optimizer was made, and the one in use is not trained."
    )
    if loose and instead:
        words = "the optimizer was made before {} came into use (never updated)"
        return _Group(instead, words, shows, "make the optimizer after the last layer is in place")
    words = "the optimizer holds {} of no module in use (never trained)"
    return _Group(loose, words, shows, "make the optimizer after the last layer is in place")


def _cut_off(trace: Trace, unreached: list[Parameter]) -> _Group:
    """Parameters in an optimizer, of modules that were called, that never receive a gradient."""
    return _Group(
        tuple(p.name for p in unreached if p.registered and _called(trace, p)),
        "no gradient reaches {} in any step (never trained)",
        "Their modules are called, the optimizer holds them, and no gradient arrives: the path from them to the loss is cut "
        "(detach(), .data, .item(), numpy, no_grad) or their output is not used.",
        "follow the output of the first of them to the loss and look for detach(), no_grad, .data, .item() or .numpy()",
    )


def _unmoved(trace: Trace) -> _Group:
    """Parameters with a gradient and a learning rate whose updates are all exactly zero."""
    names: list[str] = []
    at = trace.updates["step"]
    known = at < trace.n_steps
    lowest = np.where(known, trace.steps["lr_lowest"][np.minimum(at, max(trace.n_steps - 1, 0))], np.nan)
    lr = middle(trace.steps["lr"])
    for i, p in enumerate(trace.parameters):
        update, weights = trace.updates["update"][:, i], trace.updates["weight"][:, i]
        rows = (update >= 0) & ~(lowest == 0)
        if not p.optimizers or not p.requires_grad or rows.sum() < 4 or (update[rows] > 0).any():
            continue
        sampled = np.isin(trace.parameter_norms["step"], at[rows])
        grad, weight = middle(trace.parameter_norms["grad_used"][sampled, i]), float(weights[rows].max())
        # Smaller updates are rounded away in float32: then the gradient (a bias before batch norm) or the rate is the cause.
        if grad > 0 and lr * grad > 1e-6 * weight > 0:
            names.append(p.name)
    return _Group(
        tuple(names),
        "every step leaves {} unchanged, in spite of gradients",
        "The optimizer has a gradient and a learning rate for them and they stay bit for bit: updates are lost to rounding, "
        "or something puts the old values back.",
        "compare the size of lr × gradient with the spacing of the parameter's dtype, and look for code that writes to them",
    )


def _without_rate(trace: Trace) -> _Group:
    """Parameters with gradients in a group whose learning rate is zero in every step, beside others that move.

    A group that waits for its turn moves later in the run.
    """
    moved = trace.updates["update"]
    asked = {i for i in stepping(trace) if _group_at_zero(trace, i)}
    names = []
    for i, p in enumerate(trace.parameters):
        update = moved[:, i][moved[:, i] >= 0]
        idle = update.size >= 4 and not (update > 0).any()
        if idle and p.requires_grad and len(p.optimizers) == 1 and asked & set(p.optimizers):
            grad = trace.parameter_norms["grad_used"][:, i]
            if (grad > 0).mean() > 0.5:
                names.append(p.name)
    return _Group(
        tuple(names),
        "the learning rate of {} is zero in every step (never updated), in spite of gradients",
        "The optimizer has parameter groups, and that of these has lr=0 throughout while others move: they keep their initial "
        "values.",
        "look at the rate that their group of the optimizer is given (an integer division, a factor that rounds to zero); if "
        "they are meant to stay, requires_grad_(False)",
    )


def _group_at_zero(trace: Trace, optimizer: int) -> bool:
    """Whether the lowest rate of an optimizer's groups is zero in all of its steps, and the highest in hardly any."""
    mine = trace.steps["optimizer"] == optimizer
    low, high = trace.steps["lr_lowest"][mine], trace.steps["lr"][mine]
    return bool(mine.sum() >= _LONG and (low == 0).all() and (high > 0).mean() > 0.9)


def _called(trace: Trace, p: Parameter) -> bool:
    """Whether the module that owns a parameter was called; True where the recorder did not watch modules."""
    owner = p.name.rpartition(".")[0]
    index = next((i for i, m in enumerate(trace.modules) if m.name == owner), None)
    if index is None or not trace.outputs["step"].size:
        return index is None and not any(m.name.startswith(owner + ".") for m in trace.modules)
    return bool((trace.outputs["rows"][:, index] >= 0).any())


def _in_eval_mode(trace: Trace, root: str) -> bool:
    """Whether the calls of a root module were mostly made in eval mode."""
    calls = trace.of("forward")
    names = [i for i, n in enumerate(trace.names) if n == root]
    mine = calls & np.isin(trace.calls["who"], names)
    return bool(mine.any() and middle(trace.calls["value"][mine]) == 0)


def _frozen_finding(trace: Trace, group: _Group, total: int, allowed: tuple[tuple[str, str], ...]) -> Finding:
    size = sum(math.prod(p.shape) for p in trace.parameters if p.name in group.names)
    whole = sum(math.prod(p.shape) for p in trace.parameters if p.requires_grad)
    kind = {p.name: p.module for p in trace.parameters}
    return Finding(
        ok=False,
        headline=f"{group.what.format(counted(len(group.names), 'parameter'))}: {listed(group.names)} "
        f"({size:,} of {whole:,} values that should train)",
        culprit=group.names[0],
        amount=float(len(group.names)),
        step=0,
        table=Table(
            ("parameter", "module", "values", "optimizer", "gradients"),
            tuple(
                (
                    p.name,
                    kind[p.name],
                    math.prod(p.shape),
                    listed([optimizer_label(trace, i) for i in p.optimizers]).replace("'", "") or "none",
                    _arrival(trace, i),
                )
                for i, p in enumerate(trace.parameters)
                if p.name in group.names
            ),
            culprit=0,
        ),
        shows=group.shows + (_made(trace) if "optimizer" in group.next_step else ""),
        next_step=group.next_step,
        allowed=allowed,
        details={"parameters": list(group.names)},
    )


def _made(trace: Trace) -> str:
    """Say in a sentence which lines made the optimizers that stepped, "" where none is known."""
    sites = list(
        dict.fromkeys(s for i in stepping(trace) if i < len(trace.optimizers) and (s := trace.optimizers[i].site))
    )
    if not sites:
        return ""
    return f" The optimizer{'s were' if len(sites) > 1 else ' was'} made at {' and '.join(sites[:2])}."


def _arrival(trace: Trace, index: int) -> str:
    """Say whether gradients arrive at a parameter, as far as they were watched."""
    p, grad = trace.parameters[index], trace.parameter_norms["grad"][:, index]
    if (grad > 0).any() or any(f.kind == "unowned" and f.who == p.name for f in trace.facts):
        return "arrive"
    return "none" if (grad != NOT_TAKEN).any() else "not watched"
