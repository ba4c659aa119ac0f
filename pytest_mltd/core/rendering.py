"""From a value to its message: the anatomy is headline, table with ``>`` at the culprit, what it shows, next step.

No colour here, and no width: the same text goes to a terminal, a log and a CI annotation.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mltd.core.findings import Diagnosis, Finding, Plain, Table

MAX_ROWS = 10  # a table longer than this is not read at 3 a.m.
MAX_CELL = 48  # characters; a cell longer than this pushes the numbers off the screen
MAX_LINE = 400
MAX_SYMPTOM = 110  # one line of what a root explains


def finding_text(finding: Finding) -> str:
    """Return the whole message of one finding."""
    lines = [headline(finding)]
    if finding.failed and finding.table is not None and finding.table.rows:
        lines += ["", *table_lines(finding.table), ""]
    if finding.failed and finding.shows:
        lines.append(f"    {clean(finding.shows, MAX_LINE)}")
    if finding.looked_at and not finding.failed:
        lines.append(f"    looked at: {clean(finding.looked_at, MAX_LINE)}")
    lines += [f"    1 allowed: {clean(place)} ({clean(reason, MAX_LINE)})" for place, reason in finding.allowed[:3]]
    if len(finding.allowed) > 3:
        lines.append(f"    {len(finding.allowed) - 3} more allowed")
    if finding.next_step and not (finding.ok and finding.asked):
        lines.append(f"    next: {clean(finding.next_step, MAX_LINE)}")
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines)


def headline(finding: Finding) -> str:
    """Return the first line, complete by itself: id, verdict, place, amount and limit."""
    if finding.failed:
        verdict = ""
    elif not finding.asked:
        verdict = "not asked: "
    else:  # a broken property that a person allowed keeps its headline
        verdict = "allowed: " if any(place == finding.culprit for place, _ in finding.allowed) else "ok: "
    return f"{finding.id or 'unnamed'}: {verdict}{clean(finding.headline, MAX_LINE)}"


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return the root causes, each with what it explains, then what was not asked. The first is told in full."""
    roots = diagnosis.roots
    blocks = [_root_text(diagnosis, root, in_full=root is roots[0]) for root in roots]
    return "\n\n".join([*blocks, _closing(diagnosis)])


def _root_text(diagnosis: Diagnosis, root: Finding, *, in_full: bool) -> str:
    # With its table each further root would push the first off the screen; `.roots` has them whole.
    lines = [finding_text(root if in_full else dataclasses.replace(root, table=None))]
    symptoms = diagnosis.symptoms_of(root)
    if symptoms:
        lines.append("    it explains:")
        lines += [f"      {clean(headline(s), MAX_SYMPTOM)}" for s in symptoms[:3]]
    if len(symptoms) > 3:
        lines.append(f"      and {', '.join(s.id for s in symptoms[3:])}")
    return "\n".join(lines)


def _closing(diagnosis: Diagnosis) -> str:
    crash = [clean(diagnosis.crashed, MAX_LINE)] if diagnosis.crashed else []
    if crash and not diagnosis.findings:
        return crash[0]  # why nothing was asked needs no list of what was not
    lines = [*crash, _verdict(diagnosis)]
    if diagnosis.looked_at:
        lines.append(f"looked at: {clean(diagnosis.looked_at, MAX_LINE)}")
    shown = {id(root) for root in diagnosis.roots}  # these said what they allow themselves
    allowed = [(f.id, *pair) for f in diagnosis.findings if id(f) not in shown for pair in f.allowed]
    lines += [f"1 allowed: {name} at {clean(place)} ({clean(reason, MAX_LINE)})" for name, place, reason in allowed[:5]]
    if len(allowed) > 5:
        lines.append(f"{len(allowed) - 5} more allowed")
    reasons: dict[str, list[str]] = {}
    for f in diagnosis.not_asked:
        if f.details.get("occasion", True):
            reasons.setdefault(f.headline, []).append(f.id)
    for reason, ids in reasons.items():
        lines.append(f"not asked: {_named(ids)} ({clean(reason, MAX_LINE)})")
    if idle := [f.id for f in diagnosis.not_asked if not f.details.get("occasion", True)]:
        lines.append(f"no occasion for {len(idle)} more: {', '.join(idle[:4])}{', …' if len(idle) > 4 else ''}")
    lines += [f"note: {clean(note, MAX_LINE)}" for note in diagnosis.notes[:5]]
    if len(diagnosis.notes) > 5:
        lines.append(f"{len(diagnosis.notes) - 5} more notes")
    return "\n".join(lines)


def _named(ids: list[str]) -> str:
    """Return ids as text; of more than three of one family only their number. `Diagnosis.not_asked` and JSON have them all."""
    families: dict[str, list[str]] = {}
    for name in ids:
        families.setdefault(name.partition(".")[0], []).append(name)
    shown = [
        f"{len(of_one)} questions of {family}.*" if len(of_one) > 3 else ", ".join(of_one)
        for family, of_one in families.items()
    ]
    return ", ".join(shown)


def _verdict(diagnosis: Diagnosis) -> str:
    asked = len(diagnosis.findings)
    questions = f"{asked} {'question' if asked == 1 else 'questions'}"
    if diagnosis.failed:
        return f"{len(diagnosis.failed)} of {questions} failed"
    if not asked:
        return "nothing could be asked"
    if diagnosis.crashed:
        return f"{questions} asked of what came before, none failed"
    return f"{diagnosis.about} healthy: {questions} asked, none failed"


def table_lines(table: Table, *, indent: int = 4) -> list[str]:
    """Return the table as aligned lines, the culprit marked, cut to ten rows around it."""
    first = 0
    if table.culprit is not None and table.culprit >= MAX_ROWS:
        first = min(table.culprit - MAX_ROWS // 2, len(table.rows) - MAX_ROWS)
    shown = range(first, min(first + MAX_ROWS, len(table.rows)))
    cells = [[clean(c, MAX_CELL) for c in table.columns], *([cell(v) for v in table.rows[i]] for i in shown)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(table.columns))]
    lines = []
    for number, row in enumerate(cells):
        culprit = number > 0 and shown[number - 1] == table.culprit
        mark = ">".rjust(indent - 1) + " " if culprit else " " * indent
        lines.append((mark + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))).rstrip())
    if len(table.rows) > len(shown):
        lines.append(f"{' ' * indent}… {len(table.rows) - len(shown)} more rows")
    return lines


def cell(value: Plain) -> str:
    """Return a table cell: counts with thousands separators, measurements with four digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return number(value)
    return clean(value, MAX_CELL)


def number(value: float, digits: int = 4) -> str:
    """Return a measurement with ``digits`` significant digits, from ten thousand to ten million all its digits."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if 10**digits <= abs(value) < 1e7:  # "23,457" is no longer than "2.346e+04", and says more
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def clean(text: object, limit: int = 200) -> str:
    """Return text safe to print on one line: control characters (a hostile column name) are escaped, length bounded."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def annotation(finding: Finding, file: str | None, line: int | None) -> str:
    """Return a workflow command as GitHub Actions defines it (percent, CR and LF escaped)."""
    level = "error" if finding.failed else "notice"
    where = [f"file={_escape(file, property_=True)}"] if file else []
    where += [f"line={line}"] if file and line is not None else []
    where.append(f"title={_escape(finding.id, property_=True)}")
    return f"::{level} {','.join(where)}::{_escape(str(finding))}"


def _escape(text: str, *, property_: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property_ else text
