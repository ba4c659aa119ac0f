"""Questions about the loss itself: what it is computed from, and what it keeps alive.

They are answered by the graph that each loss carries, which a recording looks at in the first backwards and one in each fifty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import curves, no_training, too_short
from pytest_mltd.checks.runs.loss_words import (
    Allowed,
    Start,
    applied,
    attention_finding,
    axis_words,
    broadcast_finding,
    floor_of,
    kept_finding,
    level_table,
    named,
    only_module,
    start_finding,
)
from pytest_mltd.checks.runs.places import counted, listed
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Fact, Trace, as_trace

_LIKELIHOODS = ("cross_entropy", "nll_loss")
_SYMPTOMS = ("losses.*", "gradients.vanishing", "updates.*", "activations.*")


@check("run", explains=_SYMPTOMS, rank=10)
def check_double_softmax(run: Any, *, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether a softmax or sigmoid comes before a loss that applies one itself.

    A cross entropy then takes probabilities for logits: its gradients are small, and it cannot fall below ln(1 + (C - 1) / e)
    for C classes. A logarithm in between makes logits of them again, and a log_softmax may come twice: both are fine.

    Args:
        run: a recording, a run or a trace.
        allow: reasons by loss stream (the line of backward).

    Raises:
        TypeError: ``run`` is no recorded run.
    """
    trace = as_trace(run)
    terms = [f for f in _terms(trace) if f.details.get("loss") != "difference"]
    if not terms:
        return _unseen(trace)
    kept, allowed = _sifted(allow, [f for f in terms if f.details.get("fed_by")])
    if not kept:
        return _passed("no softmax or sigmoid comes before a loss that applies one itself", terms, allowed)
    fact = kept[0]
    d = fact.details
    first, loss = str(d["fed_by"]), str(d["loss"])
    module = only_module(trace, "Softmax" if first == "softmax" else "Sigmoid")
    what = f"'{module}', a {first}," if module else f"a {first}"
    whole = d.get("alone") and d.get("factor") == 1 and d.get("reduction") == "mean"
    floor = floor_of(first, loss, d.get("classes")) if whole else None
    return Finding(
        ok=False,
        headline=f"{what} comes before {named(loss)} in the loss of '{fact.who}', in {d['fed']} of "
        f"{counted(int(d['looks']), 'look')}: the loss applies {applied(loss)} itself, to probabilities instead of logits",
        culprit=fact.who,
        amount=floor,
        step=fact.step,
        table=level_table(trace, fact.who, floor),
        shows="Probabilities lie between 0 and 1, so as logits they differ by 1 at most: the answer stays unsure, and its "
        "gradients are small.",
        next_step=f"leave the {first} out of what the loss is given, and apply it where probabilities are read",
        allowed=allowed,
    )


@check("run", explains=_SYMPTOMS, rank=10)
def check_loss_broadcast(run: Any, *, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether predictions and targets of different shapes were broadcast against each other in the loss.

    ``(N, 1)`` against ``(N,)`` becomes ``(N, N)``: each prediction is compared with every target. Where the program itself put
    the axis in (``x[:, None]``), or both sides are the model's, all pairs are meant.

    Args:
        run: a recording, a run or a trace.
        allow: reasons by loss stream (the line of backward).

    Raises:
        TypeError: ``run`` is no recorded run.
    """
    trace = as_trace(run)
    terms = _terms(trace)
    if not terms:
        return _unseen(trace)
    kept, allowed = _sifted(allow, [f for f in terms if f.details.get("compared")])
    if not kept:
        return _passed("no loss broadcasts predictions and targets against each other", terms, allowed)
    return broadcast_finding(kept[0], allowed)


@check("run", explains=_SYMPTOMS, rank=10)
def check_softmax_axis(run: Any, *, max_rows_off: float = 0.5, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether a softmax runs over another axis than the one whose entries compete.

    Over the batch instead of the classes; over a single class, where it is always 1; over classes that a view has mixed up
    where a transposition was meant; in attention over the queries or the batch instead of the keys.

    Args:
        run: a recording, a run or a trace.
        max_rows_off: the highest share of rows whose probabilities do not sum to 1 (within a tenth); a guess: they all do, or
            nearly none does.
        allow: reasons by loss stream (the line of backward).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_rows_off`` is no share.
    """
    trace = as_trace(run)
    if not 0 < max_rows_off < 1:
        raise ValueError(f"max_rows_off: a share between 0 and 1 is needed, not {max_rows_off!r}")
    terms = [f for f in _terms(trace) if f.details.get("loss") in _LIKELIHOODS]
    turned = [f for f in trace.facts if f.kind == "attention_axis"]
    if not terms and not turned:
        return _unseen(trace)
    wrong = [f for f in terms if _axis_fault(f.details, max_rows_off)]
    kept, allowed = _sifted(allow, [*wrong, *turned])
    if not kept:
        headline = f"each softmax runs over the axis that it is for (max_rows_off={max_rows_off:g})"
        return _passed(headline, terms, allowed, limit=("max_rows_off", max_rows_off))
    fact = kept[0]
    if fact.kind == "attention_axis":
        return attention_finding(fact, max_rows_off, allowed)
    what, shows, next_step = axis_words(fact.details)
    share = fact.details.get("rows_off", 0) / max(fact.details.get("rows_summed", 0), 1)
    return Finding(
        ok=False,
        headline=f"softmax over the wrong axis in the loss of '{fact.who}': {what} (max_rows_off={max_rows_off:g})",
        culprit=fact.who,
        amount=share,
        limit=("max_rows_off", max_rows_off),
        step=fact.step,
        shows=shows,
        next_step=next_step,
        allowed=allowed,
    )


@check("run", explains=_SYMPTOMS, rank=10)
def check_missing_log(run: Any, *, max_sum: float = 1.5, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether nll_loss is given logits or probabilities, where it takes their logarithms.

    Args:
        run: a recording, a run or a trace.
        max_sum: the highest median, over rows, of what the exponentials of a row sum to: a factor of 1 is meant, and an
            epsilon within the logarithm adds little; a guess.
        allow: reasons by loss stream (the line of backward).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_sum`` is not above 1.
    """
    trace = as_trace(run)
    if not max_sum > 1:
        raise ValueError(f"max_sum: a number above 1 is needed, not {max_sum!r}")
    terms = [f for f in _terms(trace) if f.details.get("loss") in _LIKELIHOODS]
    if not terms:
        return _unseen(trace)
    raw = [f for f in terms if f.details["loss"] == "nll_loss" and f.details.get("given") not in ("log", "log_softmax")]
    kept, allowed = _sifted(allow, [f for f in raw if f.details.get("row_sum", 1.0) > max_sum])
    if not kept:
        headline = f"likelihoods are given logarithms of probabilities (max_sum={max_sum:g})"
        return _passed(headline, terms, allowed, limit=("max_sum", max_sum))
    fact = kept[0]
    given = str(fact.details.get("given") or "")
    total = float(fact.details["row_sum"])
    words = f"probabilities (of a {given})" if given else "numbers that are no log-probabilities (logits?)"
    return Finding(
        ok=False,
        headline=f"nll_loss in the loss of '{fact.who}' is given {words}: their exponentials sum to "
        f"{number(total)} in a row (max_sum={max_sum:g}), the logarithm is missing",
        culprit=fact.who,
        amount=total,
        limit=("max_sum", max_sum),
        step=fact.step,
        shows="Without the normalisation the loss falls by making every number larger, below zero and without end."
        if not given
        else "The loss is minus a probability: it lies between -1 and 0, and its gradients vanish where the answer is wrong.",
        next_step="use cross_entropy on the logits, or apply log_softmax before nll_loss",
        allowed=allowed,
    )


@check("run", explains=("losses.*",), rank=14)
def check_target_range(run: Any, *, max_excess: float = 0.5, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether a binary cross entropy is given targets far outside of 0 to 1, which it takes without a word.

    Labels of -1 and 1, of 1 and 2, or pixels up to 255 turn its sign: the loss falls below zero without end.

    Args:
        run: a recording, a run or a trace.
        max_excess: how far, as an absolute number, targets may lie outside of 0 to 1; a guess: smoothed labels of
            discriminators reach 1.2 by convention.
        allow: reasons by loss stream (the line of backward).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_excess`` is negative.
    """
    trace = as_trace(run)
    if not max_excess >= 0:
        raise ValueError(f"max_excess: a number of 0 or more is needed, not {max_excess!r}")
    terms = [f for f in _terms(trace) if str(f.details.get("loss")).startswith("binary") and "low" in f.details]
    if not terms:
        return _unseen(trace)
    excess = {f.who: max(-float(f.details["low"]), float(f.details["high"]) - 1) for f in terms}
    kept, allowed = _sifted(allow, [f for f in terms if not excess[f.who] <= max_excess])
    if not kept:
        headline = f"targets of binary cross entropies lie in 0 to 1, within {max_excess:g} (max_excess={max_excess:g})"
        return _passed(headline, terms, allowed, limit=("max_excess", max_excess))
    fact = kept[0]
    low, high = (number(float(fact.details[name])) for name in ("low", "high"))
    return Finding(
        ok=False,
        headline=f"labels out of range in the loss of '{fact.who}': targets of {fact.details['loss']} go from {low} to {high}, "
        f"and 0 to 1 is meant (max_excess={max_excess:g})",
        culprit=fact.who,
        amount=excess[fact.who],
        limit=("max_excess", max_excess),
        step=fact.step,
        shows="Beyond 1 and below 0 there is no best answer: the loss falls as long as the logits grow.",
        next_step="bring the targets to 0 and 1: (y + 1) / 2, y - 1, y / 255, whatever they are codes of",
        allowed=allowed,
    )


@check("run", explains=("gradients.nonfinite", "losses.*"), rank=8)
def check_ignored_labels(run: Any, *, max_empty: int = 0, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether whole batches have only labels that the loss leaves out (``ignore_index``): their mean is NaN.

    A sum over nothing is zero, which is honest now and then. It is asked of a sum only where no batch had a label.

    Args:
        run: a recording, a run or a trace.
        max_empty: the most batches without a label that counts; 0 by definition: the mean over nothing is NaN.
        allow: reasons by loss stream (the line of backward).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_empty`` is negative.
    """
    trace = as_trace(run)
    if max_empty < 0:
        raise ValueError(f"max_empty: a count of 0 or more is needed, not {max_empty!r}")
    terms = [f for f in _terms(trace) if f.details.get("loss") in _LIKELIHOODS and "ignored" in f.details]
    if not terms:
        return _unseen(trace)
    empty = [f for f in terms if f.details.get("empty_batches", 0) > max_empty and (_is_mean(f) or _never_labelled(f))]
    kept, allowed = _sifted(allow, empty)
    if not kept:
        headline = f"no batch that was looked at has only ignored labels (max_empty={max_empty})"
        return _passed(headline, terms, allowed, limit=("max_empty", float(max_empty)))
    fact = kept[0]
    d = fact.details
    count = int(d["empty_batches"])
    return Finding(
        ok=False,
        headline=f"all labels are ignored in {count:,} of {counted(int(d['looks']), 'batch', 'batches')} looked at in the loss "
        f"of '{fact.who}' (max_empty={max_empty})",
        culprit=fact.who,
        amount=float(count),
        limit=("max_empty", float(max_empty)),
        step=fact.step,
        table=Table(
            ("labels", "count"), (("that count", int(d["labels"])), ("left out (ignore_index)", int(d["ignored"]))), 1
        ),
        shows=(
            "No label counts in any batch: the loss is zero, and nothing is learned from it."
            if not _is_mean(fact)
            else "The loss is a mean over the labels that count: over none it is 0 / 0, NaN."
        ),
        next_step=(
            "print the labels of one batch and find what masks them: a mask of the prompt may cover the answer too"
            if _never_labelled(fact)
            else "leave such batches out, or divide the summed loss by max(count, 1)"
        ),
        allowed=allowed,
    )


@check("run", rank=20)
def check_kept_graph(run: Any, *, min_followed: int = 8, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether the graphs of all losses are kept, so that memory grows with every step.

    Either the loss itself reaches back into earlier steps, further each time (a hidden state that is never detached, a sum of
    losses on which backward is called again), or the program holds losses together with their graphs (``total += loss``).

    Args:
        run: a recording, a run or a trace.
        min_followed: the fewest losses whose graphs were followed, each until the next look; a guess: eight are the first
            five and one in each fifty of 200 steps, more than a window of truncated backpropagation or an epoch's sum
            usually spans.
        allow: reasons by loss stream (the line of backward).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``min_followed`` is below 6.
    """
    trace = as_trace(run)
    if min_followed < 6:
        raise ValueError(f"min_followed: 6 losses or more are needed, not {min_followed!r}")
    graphs = [f for f in trace.facts if f.kind == "graph"]
    if not graphs:
        return _unseen(trace)
    long = [f for f in graphs if int(f.details.get("followed", 0)) >= min_followed or _reaches_back(f.details)]
    if not long:
        most = max(int(f.details.get("followed", 0)) for f in graphs)
        return not_asked(f"the graphs of {most} losses were followed, of at least {min_followed}")
    kept, allowed = _sifted(allow, [f for f in long if _reaches_back(f.details) or _all_held(f.details)])
    if not kept:
        return Finding(
            ok=True,
            headline=f"the graph of each loss is let go (min_followed={min_followed})",
            limit=("min_followed", float(min_followed)),
            looked_at=f"losses of {listed([f.who for f in long])}",
            allowed=allowed,
        )
    return kept_finding(kept[0], min_followed, _reaches_back(kept[0].details), allowed)


@check("run", explains=("losses.plateau",), rank=55, family="losses")
def check_high_start(
    run: Any, *, max_start: float = 3.0, max_recovery: float = 0.2, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether a classifier begins far above what an even guess among its classes gives, and long stays there.

    An untrained net that is right by chance gives ln C for C classes. One that begins far above is confident and wrong: its
    outputs are too large. Where a few steps repair that, nothing is said.

    Args:
        run: a recording, a run or a trace.
        max_start: the highest ratio of the first loss to an even guess's (CS231n: 1.04 in a healthy net; measured on 324
            losses of healthy programs and mended twins of tests/faulty: 1.35, three of them more, up to 14).
        max_recovery: the highest share of the steps that it may take to come down to an even guess's, at least 20 steps;
            a guess: those three needed 0.1 of theirs or less.
        allow: reasons by loss stream (the line of backward).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_start`` is not above 1, or ``max_recovery`` is no share.
    """
    trace = as_trace(run)
    if not max_start > 1:
        raise ValueError(f"max_start: a ratio above 1 is needed, not {max_start!r}")
    if not 0 < max_recovery < 1:
        raise ValueError(f"max_recovery: a share between 0 and 1 is needed, not {max_recovery!r}")
    starts = _starts(trace)
    if not starts:
        return _unseen(trace)
    if reason := too_short(trace, max(s.curve.step.size for s in starts), 50):
        return not_asked(reason)
    kept, allowed = sift(allow, [s.curve.name for s in starts])
    judged = [s for s in starts if s.curve.name in kept and s.curve.step.size >= 50]
    high = [s for s in judged if s.ratio > max_start and s.waited > max(20, max_recovery * s.curve.step.size)]
    if high:
        return start_finding(max(high, key=lambda s: s.ratio), max_start, allowed)
    highest = max((s.ratio for s in judged), default=0.0)
    return Finding(
        ok=True,
        headline=f"losses begin at {number(highest)} times an even guess's or less, or soon come down to it "
        f"(max_start={max_start:g})",
        amount=highest,
        limit=("max_start", max_start),
        looked_at=f"losses of {listed([s.curve.name for s in judged])}",
        allowed=allowed,
    )


assert_no_double_softmax = asserting(check_double_softmax)
assert_no_loss_broadcast = asserting(check_loss_broadcast)
assert_no_softmax_axis = asserting(check_softmax_axis)
assert_no_missing_log = asserting(check_missing_log)
assert_no_target_range = asserting(check_target_range)
assert_no_ignored_labels = asserting(check_ignored_labels)
assert_no_kept_graph = asserting(check_kept_graph)
assert_no_high_start = asserting(check_high_start)


def _terms(trace: Trace) -> list[Fact]:
    return [f for f in trace.facts if f.kind in ("term", "targets") and "looks" in f.details]


def _starts(trace: Trace) -> list[Start]:
    """Return how each loss that is a mean cross entropy, and nothing else, began against an even guess."""
    found = []
    by_name = {c.name: c for c in curves(trace) if c.finite.size}
    for fact in _terms(trace):
        d = fact.details
        classes = d.get("classes", 0) if d.get("loss") == "cross_entropy" else 0
        plain = d.get("alone") and d.get("reduction") == "mean" and (d.get("factor") or 0) > 0
        curve = by_name.get(fact.who)
        if plain and classes > 1 and curve is not None:
            found.append(Start(curve, int(classes), math.log(classes) * float(d["factor"])))
    return found


def _is_mean(term: Fact) -> bool:
    return term.details.get("reduction") == "mean"


def _never_labelled(term: Fact) -> bool:
    """Whether a loss of this one term had no label in any of three looks or more (a guess)."""
    d = term.details
    looks = d.get("looks", 0)
    return bool(d.get("alone")) and looks >= 3 and d.get("empty_batches", 0) == looks


def _unseen(trace: Trace) -> Finding:
    """Say why there is nothing to examine."""
    if reason := no_training(trace):
        return not_asked(reason)
    if not any(f.kind == "graph" for f in trace.facts):
        return not_asked(
            "the graphs of the losses were not looked at (a trace of numbers only, or an earlier recorder)"
        )
    return no_occasion("no loss function of the kind that they ask of was seen in the graphs of the losses")


def _sifted(allow: Mapping[str, str] | None, facts: Sequence[Fact]) -> tuple[list[Fact], Allowed]:
    """Part what is wrong into that to judge, what was seen first before what was seen later, and what a person allowed."""
    kept, allowed = sift(allow, dict.fromkeys(f.who for f in facts))
    return sorted((f for f in facts if f.who in kept), key=lambda f: f.step), allowed


def _passed(
    headline: str,
    terms: Iterable[Fact],
    allowed: Allowed,
    limit: tuple[str, float] | None = None,
) -> Finding:
    seen = [f"{f.details['loss']} of '{f.who}' ({counted(int(f.details['looks']), 'look')})" for f in terms]
    rest = f" and {len(seen) - 4} more" if len(seen) > 4 else ""
    return Finding(
        ok=True, headline=headline, limit=limit, looked_at=", ".join(seen[:4]) + rest or "attention", allowed=allowed
    )


def _axis_fault(details: Mapping[str, Any], max_rows_off: float) -> bool:
    if details.get("classes") == 1 or details.get("viewed"):
        return True
    if details.get("given") not in ("log", "log_softmax") or details.get("classes") == details.get("rows"):
        return False  # a square table of similarities may be read by its columns
    return bool(details.get("rows_off", 0) > max_rows_off * details.get("rows_summed", math.inf))


def _reaches_back(details: Mapping[str, Any]) -> bool:
    """Whether the part of the graph that is older than the look before grows from each look to the next.

    Six looks, so that one of them comes 50 steps later; a graph that ends the walk at its bound counts as growing.
    """
    old, nodes = (np.asarray(details.get(name, ()), dtype=np.float64) for name in ("old", "nodes"))
    if old.size < 6 or not old[-1] > 0:
        return False
    grows = (np.diff(old) > 0) & (np.diff(nodes) > 0)
    return bool((grows | (nodes[1:] >= _BOUND)).all())


def _all_held(details: Mapping[str, Any]) -> bool:
    return bool(details.get("held") == details.get("followed"))


_BOUND = 50_000  # nodes, after which a walk ends
