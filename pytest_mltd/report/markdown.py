"""An incident as Markdown: the five outputs of the procedure, then its checklist and every gap in words.

The text is a function of the incident alone: the same evidence gives the same bytes. Names come from programs and people, so
every one is escaped: none can open a link, a tag, a table cell or a heading.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from pytest_mltd.core.folding import STATUS_WORDS, state_name
from pytest_mltd.core.incidents import Evidence, Incident, Story
from pytest_mltd.core.rendering import clean, number
from pytest_mltd.report import contents

MAX_EXPERIMENTS = 200  # rows; beyond, the first and the last are shown and the ledger has the rest
MAX_TEXT = 600  # characters of one entry


def incident_markdown(incident: Incident, story: Story | None = None, *, problems: Iterable[str] = ()) -> str:
    """Return the report of an incident.

    Args:
        incident: with its evidence, in recorded order.
        story: what people wrote about it; without it the report names what is missing.
        problems: sentences about the ledger and the story's file, shown in the report.
    """
    story = story or Story()
    sections = (
        [f"# Incident {code(incident.name)}", "", _verdict(incident)],
        _summary(incident, story),
        _investigation(incident),
        _fixes(incident, story),
        _prevention(incident, story),
        _confidence(incident),
        _closing(incident, story, tuple(problems)),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def escape(text: object, limit: int = MAX_TEXT) -> str:
    """Return text that Markdown shows as it is, on one line."""
    line = clean(" ".join(str(text).split()), limit)
    line = line.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([`*\[\]|~$])", r"\\\1", line)
    line = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)  # inside a word an underscore is only an underscore
    return re.sub(
        r"(?i)\b(https?|ftp)://|\bwww\.", lambda m: m.group().replace(":", "&#58;").replace(".", "&#46;"), line
    )


def code(text: object, limit: int = 300) -> str:
    """Return text as a code span, also when it holds backticks."""
    line = clean(" ".join(str(text).split()), limit)
    if not line:
        return ""
    if "|" in line:  # it would end a table's cell, and a backslash before it can be escaped itself
        return f"<code>{escape(line, limit)}</code>"
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(lines: Sequence[str]) -> list[str]:
    """Return lines as a code block that none of them can close."""
    shown = [clean(line, 1000) for line in lines]
    fence = "`" * max(3, *(len(run) + 1 for line in shown for run in re.findall("`+", line) or [""]))
    return [f"{fence}console", *shown, fence]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table; the cells are Markdown already."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _verdict(incident: Incident) -> str:
    counts: dict[str, int] = {}
    for h in incident.hypotheses:
        counts[STATUS_WORDS[h.status]] = counts.get(STATUS_WORDS[h.status], 0) + 1
    said = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no hypothesis has evidence"
    last = max((e.time for e in incident.evidence), default="")
    return f"Hypotheses: {said}." + (f" Last evidence: {escape(last)}." if last else "")


def _summary(incident: Incident, story: Story) -> list[str]:
    reds = contents.reds(incident.evidence)
    seen = f"first seen failing here at {reds[0].time}" if reds and reds[0].time else ""
    fixed_ones = [e for h in incident.hypotheses if h.status == "fixed" for e in h.folded.basis]
    greens = [e.time for e in fixed_ones if e.kind == "passed" and e.time]
    fixed = f"first seen green after red at {min(greens)}" if greens else ""
    entries = [
        ("Summary", story.summary),
        ("Impact", story.impact),
        ("Baseline", story.baseline),
        ("Expected", story.expected),
        ("Started", story.started),
        ("Detected", story.detected or seen),
        ("Mitigated", story.mitigated or fixed),
    ]
    constraints = {**contents.environment_constraints(incident), **story.constraints}
    for name in dict.fromkeys(("hardware", "framework", "budget", "metric_targets", *constraints)):
        entries.append((f"Constraint, {escape(name.replace('_', ' '))}", constraints.get(name, "")))
    return ["## 1. Summary and constraints", "", *(_entries(entries) or ["Nobody wrote anything down yet."])]


def _entries(entries: Iterable[tuple[str, str]]) -> list[str]:
    """Return those that are known, one line each; what is missing is said once, under "Gaps"."""
    return [f"- **{name}:** {escape(value)}" for name, value in entries if value]


def _investigation(incident: Incident) -> list[str]:
    lines = ["## 2. Reproduction, hypotheses, experiments", "", "### Steps to reproduce", ""]
    for h in incident.hypotheses:
        reds = contents.reds(h.evidence)
        if reds:
            best = (contents.reproduced(reds) or reds)[-1]
            lines += [_seen(best, reds), "", *block(_commands(best)), ""]
    if len(lines) == 4:
        lines += ["Nothing was seen failing here, so there is nothing to reproduce yet.", ""]
    lines += ["### Hypotheses", "", *_hypotheses(incident), "", "### Experiments", "", *_experiments(incident)]
    return lines


def _seen(e: Evidence, reds: Sequence[Evidence]) -> str:
    how = f"the same in {e.runs} of {e.runs} runs" if e.runs > 1 and e.agreed else ""
    how = how or (f"{len(reds)} recorded failures" if len(reds) > 1 else "seen once, not reproduced")
    return f"{escape(e.hypothesis)}, failing on {code(state_name(e))} ({how}):"


def _commands(e: Evidence) -> list[str]:
    options = [f"--mltd-{n}={v}" for n, v in zip(("seed", "slice", "steps"), e.condition, strict=True) if v is not None]
    repeat = ["--mltd-repro"] if e.runs > 1 else []
    checkout = [f"$ git checkout {shlex.quote(e.commit)}"] if e.commit else []
    if e.tree and e.commit:
        checkout[0] += "  # it had changes that are in no commit"
    return [*checkout, " ".join(["$ pytest", shlex.quote(clean(e.nodeid, 500)), *repeat, *options])]


def _hypotheses(incident: Incident) -> list[str]:
    if not incident.hypotheses:
        return ["None has evidence."]
    rows = []
    for h in incident.hypotheses:
        sure = (
            f"{h.confidence.value:.2f} of at most {h.confidence.ceiling:.2f}"
            if h.confidence.kind
            else "nothing claimed"
        )
        rows.append(
            (
                escape(h.id),
                escape(h.claim) or "*no claim in words*",
                escape(h.family) or "*none*",
                f"**{STATUS_WORDS[h.status]}**: {escape(h.folded.why)}",
                sure,
            )
        )
    lines = table(("", "claim", "family", "status", "confidence"), rows)
    notes = [f"- {escape(h.id)}: {escape(note)}" for h in incident.hypotheses for note in h.folded.notes]
    return lines + (["", *notes] if notes else [])


def _experiments(incident: Incident) -> list[str]:
    evidence = list(incident.evidence)
    left_out = max(0, len(evidence) - MAX_EXPERIMENTS)
    if left_out:
        evidence = evidence[: MAX_EXPERIMENTS // 2] + evidence[-MAX_EXPERIMENTS // 2 :]
    rows = [
        (
            escape(e.time) or "*unknown*",
            escape(e.hypothesis),
            code(e.nodeid),
            _outcome(e),
            code(state_name(e)),
            _condition(e),
            _what(e),
        )
        for e in evidence
    ]
    lines = table(("time", "", "test", "outcome", "code", "condition", "what was seen"), rows) if rows else ["None."]
    return lines + ([f"\n{left_out} more in between; the ledger has them all."] if left_out else [])


def _outcome(e: Evidence) -> str:
    planted = f" with {escape(e.fault)} planted" if e.fault else ""
    return f"{e.kind}{planted}" + ("" if e.agreed else ", runs differed")


def _condition(e: Evidence) -> str:
    said = [f"{n} {v}" for n, v in zip(("seed", "slice", "steps"), e.condition, strict=True) if v is not None]
    return ", ".join(said + ([f"{e.runs} runs"] if e.runs > 1 else [])) or "plain"


def _what(e: Evidence) -> str:
    failing = e.failed_findings
    if failing:
        return escape(f"{failing[0].id}: {failing[0].headline}", 240)
    if e.reason:
        return escape(e.reason, 240)
    if e.kind == "failed":
        return escape(next((line for line in e.text.splitlines() if line.strip()), "no finding"), 240)
    asked = sum(f.asked for f in e.findings)
    return f"{asked} {'question' if asked == 1 else 'questions'} asked, none failed" if asked else ""


def _fixes(incident: Incident, story: Story) -> list[str]:
    told = [("Root cause", story.root_cause), ("Trigger", story.trigger)]
    told += [("Contributing", "; ".join(story.contributing)), ("Fix", story.fix)]
    lines = ["## 3. Fixes, metrics before and after", "", *_entries(told)]
    for h in incident.hypotheses:
        if h.status == "fixed":
            red = [e for e in h.folded.basis if e.kind == "failed"][-1:]
            green = [e for e in h.folded.basis if e.kind == "passed"][-1:]
            lines += [f"- **{escape(h.id)}:** {escape(h.folded.why)}{_difference(red, green)}"]
    metrics = contents.metric_changes(incident)
    lines += [*([""] if lines[-1] else []), *_changes("metric", metrics, "No metric was recorded.")]
    questions = contents.question_changes(incident)
    return [*lines, "", *_changes("question", questions, "No question has failed.")]


def _difference(red: Sequence[Evidence], green: Sequence[Evidence]) -> str:
    if red and green and red[0].commit and green[0].commit and red[0].commit != green[0].commit:
        return f" ({code(f'git diff {red[0].commit[:10]} {green[0].commit[:10]}')})"
    return ""


def _changes(what: str, changes: Sequence[contents.Change], otherwise: str) -> list[str]:
    if not changes:
        return [otherwise]
    rows = [
        (
            escape(c.hypothesis),
            code(c.place),
            *([code(c.limit)] if what == "question" else []),
            _value(c.before),
            _value(c.after),
        )
        for c in changes
    ]
    limit = ["limit"] if what == "question" else []
    return table(("", what, *limit, "before", "after"), rows)


def _value(value: Any) -> str:
    if value is None:
        return "*not recorded*"
    if isinstance(value, list):
        shown = ", ".join(_value(v) for v in value[:10])
        return shown + (f" and {len(value) - 10} more" if len(value) > 10 else "")
    return number(value) if isinstance(value, float) else escape(value)


def _prevention(incident: Incident, story: Story) -> list[str]:
    rows = [
        (
            code(m.nodeid),
            escape(m.hypothesis),
            f"{m.last.kind} on {code(state_name(m.last))}",
            escape(m.owner) or "*nobody*",
        )
        for m in contents.monitors(incident, story)
    ]
    lines = ["## 4. Prevention", "", "These tests stay as monitors.", ""]
    lines += table(("monitor", "watches", "last run", "owner"), rows) if rows else ["There is none."]
    told = [("Remaining risks", "; ".join(story.remaining_risks)), ("Rollback", story.rollback)]
    more = [*(f"- {escape(step)}" for step in story.prevention)]
    more += _entries([*told, ("Rollback tried", story.rollback_tried)])
    return [*lines, "", *more] if more else lines


def _confidence(incident: Incident) -> list[str]:
    lines = ["## 5. Confidence", "", "Computed from what was recorded; the kind of evidence sets the ceiling.", ""]
    rows = []
    for h in incident.hypotheses:
        c = h.confidence
        said = (f"{c.value:.2f}", f"{c.ceiling:.2f} ({c.kind})") if c.kind else ("nothing claimed", "")
        rows.append(
            (f"{escape(h.id)}, {STATUS_WORDS[h.status]}", *said, escape("; ".join(c.reasons)) or "nothing taken off")
        )
    for s in contents.findings_seen(incident):
        place = f" at {code(s.finding.culprit)}" if s.finding.culprit else ""
        rows.append(
            (
                f"{code(s.finding.id)}{place} ({escape(s.hypothesis)})",
                f"{s.confidence.value:.2f}",
                f"{s.confidence.ceiling:.2f} ({s.finding.evidence})",
                escape("; ".join(s.confidence.reasons)) or "nothing taken off",
            )
        )
    return lines + (
        table(("claim or finding", "confidence", "ceiling", "taken off"), rows) if rows else ["Nothing is claimed."]
    )


def _closing(incident: Incident, story: Story, problems: Sequence[str]) -> list[str]:
    lines = ["## Checklist", ""]
    for item in contents.checklist(incident, story):
        lines.append(f"- [{'x' if item.done else ' '}] {item.text}: {'' if item.done else 'gap: '}{escape(item.said)}")
    lines += ["", "## Gaps", "", *_gaps(incident, story)]
    if problems:
        lines += ["", "## Ledger", "", *(f"- {escape(problem)}" for problem in problems)]
    return lines


def _gaps(incident: Incident, story: Story) -> list[str]:
    """Say what is missing and stands nowhere above; JSON has every gap in one list."""
    if not contents.gaps(incident, story):
        return ["None."]
    lines = []
    unwritten = contents.unwritten(incident, story)
    if unwritten:
        names = "; ".join(f"{escape(words)} ({code(key)})" for key, words in unwritten.items())
        lines.append(f"- nobody wrote down, in {code(f'{incident.name}.toml')} beside the ledger: {names}")
    if any(not m.owner for m in contents.monitors(incident, story)):
        lines.append(f"- a monitor without an owner ({code('owners')} in the same file)")
    if any(not item.done for item in contents.checklist(incident, story)):
        lines.append("- each box above that is not ticked")
    if any(reason.startswith("-") for h in incident.hypotheses for reason in h.confidence.reasons):
        lines.append("- what lowers a confidence in section 5")
    if any(h.folded.notes or h.status in _OPEN or not h.claim for h in incident.hypotheses):
        lines.append("- what section 2 says of a hypothesis: without a claim, without a verdict, or beside it")
    return lines


_OPEN = ("undecided", "untested", "never failed")
