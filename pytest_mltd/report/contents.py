"""What a report says, as values: before and after, monitors and owners, confidence of each finding, checklist, gaps.

Everything is computed from the evidence and from what people wrote; what neither has is a gap, said in words.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_mltd.core.findings import Finding
from pytest_mltd.core.folding import Confidence, confidence_in
from pytest_mltd.core.incidents import Evidence, Hypothesis, Incident, Story

RUN_FAMILIES = ("gradients", "losses", "activations", "updates", "calls", "runs", "precision")


@dataclass(frozen=True, slots=True)
class Change:
    """One number before the fix and after it. ``place`` is the metric's path, or the question and its place."""

    hypothesis: str
    place: str
    before: Any
    after: Any
    limit: str = ""


@dataclass(frozen=True, slots=True)
class Monitor:
    """A test that stays: what it watches, how it ended last, on which commit, and who answers for it."""

    nodeid: str
    hypothesis: str
    last: Evidence
    owner: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A finding that failed, how often it was recorded, and how sure it is."""

    finding: Finding
    hypothesis: str
    times: int
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the procedure's checklist: ticked by the evidence, with what it was ticked by or what is missing."""

    text: str
    done: bool
    said: str


def metric_changes(incident: Incident) -> tuple[Change, ...]:
    """Return each metric on the broken code and on the code that fixed it, by hypothesis that was seen failing."""
    changes = []
    for hypothesis in incident.hypotheses:
        red, green = _red_and_green(incident, hypothesis)
        before, after = _last_metrics(red), _last_metrics(green)
        changes += [Change(hypothesis.id, m, before.get(m), after.get(m)) for m in sorted({**before, **after})]
    return tuple(changes)


def question_changes(incident: Incident) -> tuple[Change, ...]:
    """Return what each failing question measured, and what it measured once the test was green."""
    changes = []
    for hypothesis in incident.hypotheses:
        basis = hypothesis.folded.basis
        failing = {f.id: f for e in basis for f in e.failed_findings}
        passing = {f.id: f for e in basis if e.kind == "passed" for f in e.findings if f.asked and f.ok}
        for name, finding in failing.items():
            limit = f"{finding.limit[0]}={finding.limit[1]:g}" if finding.limit else ""
            place = f"{name} at {finding.culprit}" if finding.culprit else name
            changes.append(
                Change(hypothesis.id, place, _amount(finding), _amount_after(finding, passing.get(name)), limit)
            )
    return tuple(changes)


def monitors(incident: Incident, story: Story) -> tuple[Monitor, ...]:
    """Return the tests of the incident with their last outcome and owner ("" where nobody is named)."""
    return tuple(
        Monitor(nodeid, h.id, [e for e in h.evidence if e.nodeid == nodeid][-1], owner_of(story, h.id, nodeid))
        for h in incident.hypotheses
        for nodeid in h.tests
    )


def owner_of(story: Story, hypothesis: str, nodeid: str) -> str:
    """Return who answers for a test: by its name, its hypothesis, a pattern, or for everything; "" for nobody."""
    for key in (nodeid, hypothesis):
        if story.owners.get(key):
            return story.owners[key]
    return next((who for pattern, who in story.owners.items() if who and fnmatch.fnmatchcase(nodeid, pattern)), "")


def findings_seen(incident: Incident) -> tuple[Seen, ...]:
    """Return every finding that failed, each place once, the surest first."""
    seen: dict[tuple[str, str, str], list[Evidence]] = {}
    for e in incident.evidence:
        for f in e.failed_findings if not e.fault else ():
            seen.setdefault((e.hypothesis, f.id, f.culprit), []).append(replace(e, findings=(f,)))
    found = [
        Seen(records[-1].findings[0], hypothesis, sum(e.runs for e in records), confidence_in(records))
        for (hypothesis, _, _), records in seen.items()
    ]
    return tuple(sorted(found, key=lambda s: (-s.confidence.value, s.finding.id, s.finding.culprit)))


def checklist(incident: Incident, story: Story) -> tuple[Item, ...]:
    """Return the procedure's checklist, ticked from the evidence."""
    return (
        _reproduced(incident),
        _tested(incident),
        _reported(incident),
        _regression(incident, story),
        _confidence(incident),
    )


def gaps(incident: Incident, story: Story) -> tuple[str, ...]:
    """Return what the procedure asks for and nobody has recorded, one sentence each."""
    missing = [f"{words}: nobody wrote it down ({key})" for key, words in unwritten(incident, story).items()]
    missing += [f"owner: nobody answers for {m.nodeid} (owners)" for m in monitors(incident, story) if not m.owner]
    for h in incident.hypotheses:
        if not h.claim:
            missing.append(f'{h.id}: no claim in words; say it in the marker: claim="…"')
        missing += [f"{h.id}: {note}" for note in h.folded.notes]
        missing += [f"{h.id}: {reason.partition(' ')[2]}" for reason in h.confidence.reasons if reason.startswith("-")]
        if h.status in ("undecided", "untested", "never failed"):
            missing.append(f"{h.id}: {h.folded.why}")
    missing += [f"{item.text}: {item.said}" for item in checklist(incident, story) if not item.done]
    return tuple(dict.fromkeys(missing))


def unwritten(incident: Incident, story: Story) -> dict[str, str]:
    """Return what only people know and nobody wrote down: the entry's name in the story's file, and its words."""
    missing = {key: words for key, words in WANTED if not getattr(story, key)}
    return missing | {f"constraints.{n}": f"constraint, {n.replace('_', ' ')}" for n in unstated(incident, story)}


WANTED = (
    ("summary", "summary"),
    ("impact", "impact"),
    ("baseline", "baseline, what was normal"),
    ("expected", "expected behaviour"),
    ("started", "when it started"),
    ("root_cause", "root cause"),
    ("trigger", "trigger"),
    ("contributing", "contributing factors"),
    ("fix", "the fix in words"),
    ("remaining_risks", "remaining risks"),
    ("prevention", "prevention beyond the monitors"),
)


def unstated(incident: Incident, story: Story) -> tuple[str, ...]:
    """Return the constraints that neither people nor the environment state."""
    known = {**environment_constraints(incident), **story.constraints}
    return tuple(name for name in ("hardware", "framework", "budget", "metric_targets") if not known.get(name))


def environment_constraints(incident: Incident) -> dict[str, str]:
    """Return hardware and framework as the newest evidence recorded them."""
    facts: dict[str, Any] = dict(next((e.environment for e in reversed(incident.evidence) if e.environment), {}))
    hardware = [str(facts[k]) for k in ("accelerator", "cpu", "system") if facts.get(k)]
    if facts.get("cpus"):
        hardware.append(f"{facts['cpus']} processors")
    framework = [f"{k} {facts[k]}" for k in ("python", "torch", "numpy", "pandas", "polars") if facts.get(k)]
    return {k: v for k, v in (("hardware", ", ".join(hardware)), ("framework", ", ".join(framework))) if v}


def reds(records: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Return the records of real failures: those under a planted fault prove a monitor and are left out."""
    return tuple(e for e in records if e.kind == "failed" and not e.fault)


def reproduced(records: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Return the failures seen more than once in the same way, on the same code, under the same condition."""
    records = tuple(records)
    ways = Counter((e.nodeid, e.state, e.condition, e.fingerprint) for e in records)
    return tuple(
        e for e in records if (e.runs > 1 and e.agreed) or ways[(e.nodeid, e.state, e.condition, e.fingerprint)] > 1
    )


def _reproduced(incident: Incident) -> Item:
    text = "reproduced with fixed seeds and a minimal slice"
    failures = reds(incident.evidence)
    if not failures:
        return Item(text, False, "nothing was seen failing here")
    repeated = {id(e) for e in reproduced(failures)}
    best = max(failures, key=lambda e: (e.seed is not None, bool(e.slice or e.steps), id(e) in repeated))
    missing = []
    if best.seed is None:
        missing.append("no seed was fixed: --mltd-seed")
    if best.slice is None and best.steps is None:
        missing.append("neither slice nor steps were limited: --mltd-slice or --mltd-steps")
    if id(best) not in repeated:
        missing.append("seen once: --mltd-repro runs it twice")
    cut = " and ".join(f"{n} {v}" for n, v in (("slice", best.slice), ("steps", best.steps)) if v is not None)
    return Item(text, not missing, "; ".join(missing) or f"{best.nodeid}, seed {best.seed}, {cut}, seen more than once")


def _tested(incident: Incident) -> Item:
    text = "hypotheses tested, experiments documented"
    hypotheses = incident.hypotheses
    if not hypotheses:
        return Item(text, False, "no hypothesis has evidence")
    open_ones = [h.id for h in hypotheses if h.status in ("untested", "undecided", "never failed")]
    unnamed = [h.id for h in hypotheses if not h.claim]
    missing = [f"without a verdict: {', '.join(open_ones)}"] if open_ones else []
    missing += [f"without a claim in words: {', '.join(unnamed)}"] if unnamed else []
    count = f"{len(hypotheses)} tested in {sum(e.runs for e in incident.evidence)} recorded runs"
    return Item(text, not missing, "; ".join(missing) or count)


def _reported(incident: Incident) -> Item:
    text = "metrics reported per split, gradients and loss inspected where relevant"
    changes = metric_changes(incident)
    families = {f.id.partition(".")[0] for e in incident.evidence for f in e.findings if f.asked}
    missing = []
    if not any(c.before is not None and c.after is not None for c in changes):
        missing.append(
            "no metric was recorded before and after: ask check_regression or use mltd_baseline in a marked test"
        )
    elif not any("/" in c.place for c in changes):
        missing.append("metrics are not told apart by split")
    if families & set(RUN_FAMILIES) and not {"gradients", "losses"} <= families:
        missing.append("gradients and loss of the run were not both inspected: assert_healthy asks them")
    relevant = (
        "gradients and loss inspected" if "gradients" in families else "no run was recorded, so no gradients to inspect"
    )
    splits = sorted({c.place.partition("/")[0] for c in changes})
    return Item(text, not missing, "; ".join(missing) or f"splits {', '.join(splits)}; {relevant}")


def _regression(incident: Incident, story: Story) -> Item:
    text = "regression checks executed, rollback documented"
    held = [e for e in incident.evidence if any(f.id == "metrics.regression" and f.asked for f in e.findings)]
    passed = [e for e in held if e.kind == "passed"]
    missing = []
    if not held:
        missing.append("no metric was held against a baseline: mltd_baseline in a marked test")
    elif not passed or held[-1] is not passed[-1]:
        missing.append(f"the last regression check did not pass ({held[-1].nodeid})")
    if not story.rollback:
        missing.append("rollback is not written down (rollback)")
    elif not story.rollback_tried:
        missing.append("rollback was not tried (rollback_tried)")
    return Item(
        text, not missing, "; ".join(missing) or f"{len(held)} regression checks, the last one passed; rollback tried"
    )


def _confidence(incident: Incident) -> Item:
    text = "confidence ceiling stated"
    stated = [h for h in incident.hypotheses if h.confidence.kind]
    if not stated:
        return Item(text, False, "no hypothesis has evidence that a ceiling could be stated for")
    return Item(
        text, True, ", ".join(f"{h.id} {h.confidence.value:.2f} under {h.confidence.ceiling:.2f}" for h in stated)
    )


def _red_and_green(incident: Incident, hypothesis: Hypothesis) -> tuple[list[Evidence], list[Evidence]]:
    """Return all evidence on the states where a hypothesis was seen failing, and on those where it then passed."""
    basis = hypothesis.folded.basis
    broken = {e.state for e in basis if e.kind == "failed"}
    fixed = {e.state for e in basis if e.kind == "passed"} - broken if broken else set()
    return (
        [e for e in incident.evidence if e.state in broken and not e.fault],
        [e for e in incident.evidence if e.state in fixed and not e.fault],
    )


def _last_metrics(records: Iterable[Evidence]) -> dict[str, Any]:
    return {k: v for e in records for k, v in e.metrics.items()}


def _amount_after(before: Finding, after: Finding | None) -> Any:
    """Return what the passing question measured, at the place that failed where it measured several."""
    if after is None:
        return None
    current = after.details.get("current")
    return current[before.culprit] if isinstance(current, Mapping) and before.culprit in current else _amount(after)


def _amount(finding: Finding) -> Any:
    return finding.amount if finding.amount is not None else "fails" if finding.failed else "passes"
