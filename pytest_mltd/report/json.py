"""An incident as plain data for JSON: the same contents as the Markdown report, for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytest_mltd.core.findings import plain
from pytest_mltd.core.folding import Confidence
from pytest_mltd.core.incidents import Incident, Story
from pytest_mltd.report import contents

SCHEMA = 1


def incident_json(incident: Incident, story: Story | None = None, *, problems: Iterable[str] = ()) -> dict[str, Any]:
    """Return an incident as plain data. ``schema`` changes when a key changes its meaning; new keys may come any time.

    Non-finite numbers become strings, as in `Finding.as_dict`.
    """
    story = story or Story()
    return {
        "schema": SCHEMA,
        "incident": incident.name,
        "summary": story.summary,
        "hypotheses": [
            {
                "id": h.id,
                "claim": h.claim,
                "family": h.family,
                "status": h.status,
                "why": h.folded.why,
                "notes": list(h.folded.notes),
                "confidence": _confidence(h.confidence),
                "tests": list(h.tests),
            }
            for h in incident.hypotheses
        ],
        "findings": [
            {
                "hypothesis": s.hypothesis,
                "times": s.times,
                "confidence": _confidence(s.confidence),
                "finding": s.finding.as_dict(),
            }
            for s in contents.findings_seen(incident)
        ],
        "metrics": [_change(c) for c in contents.metric_changes(incident)],
        "questions": [_change(c) for c in contents.question_changes(incident)],
        "monitors": [
            {"test": m.nodeid, "hypothesis": m.hypothesis, "last": m.last.kind, "time": m.last.time, "owner": m.owner}
            for m in contents.monitors(incident, story)
        ],
        "checklist": [{"text": i.text, "done": i.done, "said": i.said} for i in contents.checklist(incident, story)],
        "gaps": list(contents.gaps(incident, story)),
        "problems": [str(p) for p in problems],
        "evidence": [e.as_dict() for e in incident.evidence],
    }


def _confidence(confidence: Confidence) -> dict[str, Any]:
    return {
        "value": confidence.value,
        "ceiling": confidence.ceiling,
        "kind": confidence.kind,
        "reasons": list(confidence.reasons),
    }


def _change(change: contents.Change) -> dict[str, Any]:
    return {
        "hypothesis": change.hypothesis,
        "place": change.place,
        "limit": change.limit,
        "before": _finite(plain(change.before)),
        "after": _finite(plain(change.after)),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return str(value) if isinstance(value, float) and value - value != 0 else value
