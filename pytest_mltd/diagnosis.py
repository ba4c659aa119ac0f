"""The umbrella over a recorded run: every question that applies, root causes before their symptoms.

::

    with mltd.record() as run:
        train()
    print(mltd.diagnose(run))
    mltd.assert_healthy(run)
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from pytest_mltd.core.asking import ask_all, discover, info, umbrella
from pytest_mltd.core.findings import CheckFailed, Diagnosis, Finding, diagnose_findings, not_asked, raise_if_failed
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace

_RUNS = "pytest_mltd.checks.runs"

# What the recorded numbers cannot show, because the model has to be run again for it. Those that `recorded` asks by itself
# come first; the others need a person who knows what is meant.
_PROBES = {
    "model.causal_leak": "whether an output of a sequence model sees later inputs",
    "model.batch_mixing": "whether one sample's output depends on its neighbours in the batch",
    "model.eval_noise": "whether the model answers the same twice in eval mode",
    "model.targets_equal_inputs": "whether a column of the inputs is the target",
    "model.unlearnable_labels": "whether the inputs tell the labels at all",
}
_BY_HAND = {
    "model.ignored_inputs": "whether the outputs depend on every input",
    "model.unused_parameters": "whether some output depends on every parameter",
    "model.initial_loss": "whether the fresh model knows as little as it should",
    "model.shape_broadcast": "whether answers and targets are compared one to one",
}
_NEED_A_PROBE = _PROBES | _BY_HAND
_GONE = "the model is gone: they are asked of a live recording, or by mltd.assert_model_sound(model, inputs)"
_RUNNING = "they are asked once the recording is over"


@umbrella
def diagnose(
    run: Any,
    *,
    probe: bool = True,
    allow: Mapping[str, str] | None = None,
    only: str | Collection[str] | None = None,
    skip: str | Collection[str] | None = None,
) -> Diagnosis:
    """Ask every question that a recorded run can answer.

    Args:
        run: a recording, a run or a trace.
        probe: after a live recording also run a copy of the recorded model, with the batch it kept, where its answers tell
            more: does it see the future, does one sample change another's answer, does dropout stay on. That takes a second
            at most. False leaves these questions out; of a loaded trace they are named as not asked.
        allow: reasons by ``family.fault`` or ``family.fault:place`` (globs), as in
            ``{"updates.frozen_parameters:backbone.*": "frozen on purpose"}``.
        only: ids or patterns of the questions to ask, as in ``("gradients.*", "losses.plateau")``; all by default.
        skip: ids or patterns of the questions to leave out.

    Returns:
        The diagnosis: ``.failed`` has the root cause first, ``.not_asked`` says why a question could not be asked.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``only`` or ``skip`` matches no question; the message names the nearest id.
    """
    trace = as_trace(run)
    checks = discover(_RUNS, "run")
    ids = [info(c).id for c in checks]
    wanted = _patterns("only", only, [*ids, *_NEED_A_PROBE]) or ["*"]
    unwanted = _patterns("skip", skip, [*ids, *_NEED_A_PROBE])
    findings = ask_all(_chosen(checks, wanted), trace, skip=unwanted, allow=allow)
    forwards = 0
    if probe:
        probed, forwards = _probed(run, trace, findings, allow, wanted, unwanted)
        findings += probed
    looked_at = _looked_at(trace) + (f"; {forwards} forwards of a copy of the model" if forwards else "")
    return diagnose_findings("training run", findings, looked_at=looked_at, notes=trace.notes, crashed=trace.crash)


def assert_healthy(
    run: Any,
    *,
    probe: bool = True,
    allow: Mapping[str, str] | None = None,
    only: str | Collection[str] | None = None,
    skip: str | Collection[str] | None = None,
) -> None:
    """Assert what `diagnose` asks.

    Args:
        run: a recording, a run or a trace.
        probe: after a live recording also run a copy of the recorded model, as `diagnose` does.
        allow: reasons by ``family.fault`` or ``family.fault:place`` (globs).
        only: ids or patterns of the questions to ask; all by default.
        skip: ids or patterns of the questions to leave out.

    Raises:
        CheckFailed: a question failed; root causes come first in the message and in ``.findings``. Or the run ended in an
            error, which is no health whatever was found before it; with ``only`` the answers to those questions decide.
        NotAsked: no question could be asked at all.
        TypeError: ``run`` is no recorded run.
        ValueError: ``only`` or ``skip`` matches no question.
    """
    __tracebackhide__ = True
    diagnosis = diagnose(run, probe=probe, allow=allow, only=only, skip=skip)
    if diagnosis.crashed and not only:
        raise CheckFailed(str(diagnosis), diagnosis.failed)
    raise_if_failed(diagnosis)


def _chosen(checks: Iterable[Callable[..., Finding]], wanted: Iterable[str]) -> list[Callable[..., Finding]]:
    return [c for c in checks if _matches(info(c).id, wanted)]


def _matches(id: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(id, pattern) for pattern in patterns)


def _patterns(argument: str, given: str | Collection[str] | None, ids: Collection[str]) -> list[str]:
    """Return the patterns of one argument, each of which matches an id.

    Raises:
        ValueError: one does not.
    """
    patterns = [given] if isinstance(given, str) else list(given or ())
    for pattern in patterns:
        if not _matches_any(pattern, ids):
            faults = {i.partition(".")[2]: i for i in ids}
            near = difflib.get_close_matches(str(pattern), [*ids, *faults], n=1, cutoff=0.4)
            hint = (
                f"; the nearest is {faults.get(near[0], near[0])!r}"
                if near
                else f"; there are {', '.join(sorted(ids))}"
            )
            raise ValueError(f"{argument}: no question {pattern!r}{hint}")
    return patterns


def _matches_any(pattern: object, ids: Iterable[str]) -> bool:
    return isinstance(pattern, str) and any(fnmatch.fnmatchcase(i, pattern) for i in ids)


def _probed(
    run: Any,
    trace: Trace,
    findings: Iterable[Finding],
    allow: Mapping[str, str] | None,
    wanted: Iterable[str],
    unwanted: Iterable[str],
) -> tuple[list[Finding], int]:
    """Return what a copy of the recorded model answers, with what cannot be asked, and how many forwards that took."""
    chosen = [name for name in _NEED_A_PROBE if _matches(name, wanted) and not _matches(name, unwanted)]
    recording = getattr(run, "recording", run)
    if not getattr(recording, "closed", True):
        return [_unprobed(name, _RUNNING) for name in chosen], 0
    subject = _live(recording, trace) if set(chosen) & set(_PROBES) else None
    if subject is None:
        return [_unprobed(name, _GONE) for name in chosen], 0
    from pytest_mltd.probes import recorded

    answered = recorded.ask(subject, findings, allow, set(chosen))
    by_hand = [_unprobed(name, recorded.ELSE) for name in chosen if name in _BY_HAND]
    return [*answered, *by_hand], subject.forwards


def _live(recording: Any, trace: Trace) -> Any:
    """Return the model and the batch that a live recording still holds, None where there is none."""
    if getattr(recording, "batch_model", None) is None:
        return None
    from pytest_mltd.probes import recorded

    return recorded.subject_of(recording, trace)


def _unprobed(name: str, reason: str) -> Finding:
    return dataclasses.replace(not_asked(reason, looked_at=_NEED_A_PROBE[name]), id=name)


def _cost(trace: Trace) -> str:
    """Say what recording cost. A share alone frightens in a run of a second, most of whose steps cost next to nothing."""
    if trace.cost is None:
        return ""
    share = f"recorder took {trace.cost:.0%}"
    if trace.seconds is None:
        return share
    return f"{share} ({number(trace.cost * trace.seconds, 2)} s of {number(trace.seconds, 2)} s)"


def _looked_at(trace: Trace) -> str:
    """Say in one line what the run was: steps, optimizers, parameters, losses, how it ended, what recording cost."""
    steps = f"{trace.n_steps:,} {'step' if trace.n_steps == 1 else 'steps'}"
    makers = ", ".join(o.name for o in trace.optimizers)
    parts = [
        f"{steps} of {makers}" if makers else steps,
        f"{len(trace.parameters):,} parameters" if trace.parameters else "",
        f"losses of {', '.join(trace.streams[:3])}" if trace.streams else "",
        f"{trace.val['step'].size:,} validation losses" if trace.val["step"].size else "",
        "" if trace.crash else trace.ended,
        _cost(trace),
    ]
    return "; ".join(p for p in parts if p)
