"""The question whether two optimizers move the same parameters by one and the same gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.runs.curves import no_steps, too_short
from pytest_mltd.checks.runs.places import counted, listed, not_recorded, optimizer_label, stepping
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.traces import Trace, as_trace

# What is no rule of torch's may be there to work on what another did: an average, a pull back to slow weights.
_PLAIN = frozenset(
    ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "Adagrad", "Adadelta", "Adafactor", "ASGD")
)


@check("run", explains=("losses.*", "updates.update_scale", "gradients.explosion"), rank=17, family="updates")
def check_double_updates(run: Any, *, max_share: float = 0.2, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether two optimizers hold the same parameters and both step on the gradients of one backward.

    Optimizers that share parameters and take turns, each after a backward of its own (an encoder under two losses), or one
    after the other (Adam, then L-BFGS), are fine. Asked of torch's own first-order optimizers: others may work on what these
    did, as an average does.

    Args:
        run: a recording, a run or a trace.
        max_share: the highest share of an optimizer's steps that repeat another's on the same gradient (by definition none;
            healthy programs in tests/faulty have 0, so a guess between).
        allow: reasons by parameter.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_share`` is no share.
    """
    trace = as_trace(run)
    if not 0 <= max_share < 1:
        raise ValueError(f"max_share: a share from 0 up to 1 is needed, not {max_share!r}")
    if reason := no_steps(trace) or not_recorded(trace, "gradients by parameter", "parameter_norms"):
        return not_asked(reason)
    if len(stepping(trace)) < 2:
        return no_occasion("only one optimizer stepped")
    if reason := too_short(trace, trace.busiest, 5):
        return not_asked(reason)
    shared = [i for i, p in enumerate(trace.parameters) if len(p.optimizers) > 1]
    kept, allowed = sift(allow, [trace.parameters[i].name for i in shared])
    columns = [i for i in shared if trace.parameters[i].name in set(kept)]
    twice = _twice(trace, columns)
    share = _share(trace, twice)
    if share <= max_share:
        return Finding(
            ok=True,
            headline=f"no parameter is moved twice by one gradient: {share:.0%} of steps (max_share={max_share:g})",
            amount=share,
            limit=("max_share", max_share),
            looked_at=f"{counted(len(shared), 'parameter')} in two of {counted(len(stepping(trace)), 'optimizer')}",
            allowed=allowed,
        )
    return _double_finding(
        trace, [c for c, n in zip(columns, twice.sum(0), strict=True) if n], twice, share, max_share, allowed
    )


assert_no_double_updates = asserting(check_double_updates)


def _twice(trace: Trace, columns: list[int]) -> NDArray[np.bool_]:
    """Tell of each step, and of these parameters, whether it repeats what the step before did with the same gradient."""
    norms, owners = trace.parameter_norms, trace.steps["optimizer"]
    found: NDArray[np.bool_] = np.zeros((trace.n_steps, len(columns)), dtype=np.bool_)
    row = np.full(trace.n_steps + 1, -1, dtype=np.int64)
    known = norms["step"] < trace.n_steps
    row[norms["step"][known]] = np.flatnonzero(known)
    fresh: NDArray[np.bool_] = np.zeros(trace.n_steps + 1, dtype=np.bool_)  # a backward came after the step before
    fresh[np.minimum(trace.calls["step"][trace.of("backward")], trace.n_steps)] = True
    after = np.arange(1, trace.n_steps)
    plain = np.isin(owners, [i for i, o in enumerate(trace.optimizers) if o.name.partition(" ")[0] in _PLAIN])
    pairs = plain[after] & plain[after - 1] & (owners[after] != owners[after - 1])
    after = after[~fresh[after] & pairs & (row[after] >= 0) & (row[after - 1] >= 0)]
    if columns:
        one, two = (norms["grad_used"][row[at]][:, columns] for at in (after - 1, after))
        found[after] = (one > 0) & (two > 0)
    return found


def _share(trace: Trace, twice: NDArray[np.bool_]) -> float:
    """Return the highest share of such steps among those of one optimizer."""
    owners, repeated = trace.steps["optimizer"], np.asarray(twice.any(axis=1))
    return max((float(repeated[owners == i].mean()) for i in stepping(trace)), default=0.0)


def _double_finding(
    trace: Trace,
    columns: list[int],
    twice: NDArray[np.bool_],
    share: float,
    max_share: float,
    allowed: tuple[tuple[str, str], ...],
) -> Finding:
    at = np.flatnonzero(twice.any(axis=1))
    second, first = int(trace.steps["optimizer"][at[0]]), int(trace.steps["optimizer"][at[0] - 1])
    names = [trace.parameters[i].name for i in columns]
    norms = trace.parameter_norms
    rows = [int(np.flatnonzero(norms["step"] == s)[0]) for s in (at[0] - 1, at[0])]
    labels = [optimizer_label(trace, i) for i in (first, second)]
    sites = [trace.optimizers[i].site for i in (first, second)]
    made = f" (made at {sites[0]} and {sites[1]})" if all(sites) else ""
    return Finding(
        ok=False,
        headline=f"{labels[0]} and {labels[1]} both hold {counted(len(names), 'parameter')}, {listed(names, 2)}, and step "
        f"on the same gradients{made}: each backward moves them twice, in {share:.0%} of steps (max_share={max_share:g})",
        culprit=names[0],
        amount=share,
        limit=("max_share", max_share),
        step=int(at[0]),
        table=Table(
            ("parameter", f"gradient used at step {int(at[0] - 1)}", f"at step {int(at[0])}"),
            tuple((trace.parameters[i].name, *(float(norms["grad_used"][r, i]) for r in rows)) for i in columns[:5]),
            culprit=0,
        ),
        shows="No backward came between the two steps: the second repeats the first, with its own learning rate and momentum.",
        next_step="give each parameter to one optimizer",
        allowed=allowed,
    )
