"""From the evidence of a hypothesis to its status and confidence. Nothing here is stored; all is computed again.

The order of the states of the code decides what "then" means. It is the order of their commits, and of their first
appearance among states of one commit: whoever goes back to an old commit to look has not changed anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_mltd.core.confidence import CEILING
from pytest_mltd.core.findings import EvidenceKind

if TYPE_CHECKING:
    from pytest_mltd.core.incidents import Evidence

Status = Literal["untested", "never failed", "refuted", "undecided", "supported", "fixed", "regressed"]
Verdict = Literal["red", "green", "mixed"]

STATUS_WORDS: Mapping[Status, str] = {
    "untested": "untested",
    "never failed": "not supported: never seen failing",
    "refuted": "refuted",
    "undecided": "undecided",
    "supported": "supported",
    "fixed": "supported and fixed",
    "regressed": "regressed",
}

# What each missing proof costs. The ceilings are given by the procedure; these steps below them are a guess, chosen so
# that one gap is visible in the first decimal and no single one outweighs having seen the thing.
SEEN_ONCE = 0.10
NO_SEED = 0.05
UNCOMMITTED = 0.05
NO_FINDING = 0.10
NO_FIX_SEEN = 0.10
OTHER_CONDITION = 0.10
TEST_CHANGED = 0.10
FLAKY_BEFORE = 0.10
LUCK = 0.05  # a flaky test counts as fixed only when so many greens by luck are less likely than this


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a status or a finding is: ``value`` at or under ``ceiling``, which ``kind`` of evidence sets.

    ``reasons`` say what was taken off and why. Where nothing is claimed the value is 0 and ``kind`` empty.
    """

    value: float
    ceiling: float
    kind: EvidenceKind | Literal[""] = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fold:
    """A status with its reason. ``basis`` is the evidence it rests on; ``deductions`` what its confidence lost, and why."""

    status: Status
    why: str
    notes: tuple[str, ...] = ()
    basis: tuple[Evidence, ...] = ()
    deductions: tuple[tuple[float, str], ...] = ()


def fold(evidence: Sequence[Evidence], witnesses: Mapping[str, str] | None = None, newest: str = "") -> Fold:
    """Return the status of one hypothesis from all its evidence.

    A hypothesis may have several tests. One that is red again, or still red, or flaky, decides for all; it is fixed when
    every test that was red is green.

    Args:
        evidence: of this hypothesis, in the order it was recorded.
        witnesses: states of the code at which another hypothesis of the incident was seen failing, with its name.
        newest: the incident's newest state; a test without a verdict there is noted.
    """
    tests: dict[str, list[Evidence]] = {}
    for e in evidence:
        tests.setdefault(e.nodeid, []).append(e)
    folds = {nodeid: _fold_test(records, witnesses or {}, newest) for nodeid, records in tests.items()}
    if not folds:
        return Fold("untested", "no test has run for it")
    decisive = max(folds.values(), key=lambda f: _WEIGHT.index(f.status))
    if len(folds) == 1:
        return decisive
    # A test that was only ever skipped does not change what another has shown, but it is said.
    notes = tuple(f"{nodeid}: {STATUS_WORDS[f.status]}: {f.why}" for nodeid, f in folds.items() if f is not decisive)
    own = next(nodeid for nodeid, f in folds.items() if f is decisive)
    further = tuple(f"{nodeid}: {note}" for nodeid, f in folds.items() for note in f.notes)
    return Fold(decisive.status, f"{own}: {decisive.why}", notes + further, decisive.basis, decisive.deductions)


def confidence(folded: Fold) -> Confidence:
    """Return how sure a status is: the ceiling of its best kind of evidence, less what was not shown."""
    if folded.status in ("untested", "never failed", "undecided") or not folded.basis:
        return Confidence(0.0, 0.0, "", ("nothing is claimed",))
    return confidence_in(folded.basis, further=folded.deductions)


def confidence_in(records: Sequence[Evidence], *, further: Iterable[tuple[float, str]] = ()) -> Confidence:
    """Return how sure a thing is that these records show; its kind is the best among their findings' kinds."""
    kind = best_kind(records)
    lost = [*_not_shown(records), *further]
    value = round(max(0.0, CEILING[kind] - sum(amount for amount, _ in lost)), 2)
    return Confidence(value, CEILING[kind], kind, tuple(f"-{amount:.2f} {why}" for amount, why in lost))


def best_kind(records: Iterable[Evidence]) -> EvidenceKind:
    """Return the kind with the highest ceiling among the findings that decided: the failing ones, where a test failed.

    A plain test that failed or passed without a finding is an observation.
    """
    records = list(records)
    kinds: list[EvidenceKind] = []
    for e in [e for e in records if _is_red(e)] or records:
        decided = e.failed_findings if e.kind == "failed" else e.findings
        kinds += [f.evidence for f in decided if f.asked] or ["observation"]
    return max(kinds, key=lambda k: CEILING[k], default="observation")


def witnesses(evidence: Iterable[Evidence], *, besides: str) -> dict[str, str]:
    """Return the states, and digests of code, at which a hypothesis other than ``besides`` was seen failing, with its name."""
    found: dict[str, str] = {}
    for e in evidence:
        if e.hypothesis != besides and not e.fault and _is_red(e):
            found |= {key: e.hypothesis for key in (e.state, e.code) if key and key not in found}
    return found


def states_in_order(evidence: Iterable[Evidence]) -> tuple[str, ...]:
    """Return the states with a verdict, oldest commit first; by first appearance where a commit's time is unknown."""
    first: dict[str, tuple[str, int]] = {}
    for number, e in enumerate(evidence):
        if _is_judged(e):
            first.setdefault(e.state, (e.committed, number))
    dated = all(committed for committed, _ in first.values())
    return tuple(sorted(first, key=lambda s: first[s] if dated else ("", first[s][1])))


def state_name(e: Evidence) -> str:
    """Return the state for people: the commit's first ten digits, and whether something was changed on top."""
    if not e.state:
        return "an unknown state of the code"
    if not e.commit:
        return f"code {e.tree[:10]}"
    return f"{e.commit[:10]} with changes ({e.tree[:6]})" if e.tree else e.commit[:10]


_WEIGHT: tuple[Status, ...] = ("untested", "never failed", "refuted", "fixed", "undecided", "supported", "regressed")


def _fold_test(records: Sequence[Evidence], witnesses: Mapping[str, str], newest: str) -> Fold:
    judged = [e for e in records if _is_judged(e)]
    if not any(_is_red(e) or not e.agreed for e in judged):
        # A test that asked nothing and never failed cannot have refuted anything; one that did fail has shown that it can.
        judged = [e for e in judged if not e.asked_nothing]
    if not judged:
        return _unjudged(records)
    by_state: dict[str, list[Evidence]] = {s: [] for s in states_in_order(judged)}
    for e in judged:
        by_state[e.state].append(e)
    verdicts = {state: _verdict(group) for state, group in by_state.items()}
    states = list(by_state)
    last = by_state[states[-1]]
    notes = _notes(records, judged, states[-1], newest)
    if not any(v != "green" for v in verdicts.values()):
        return _green_only(by_state, witnesses, notes)
    if verdicts[states[-1]] == "mixed":
        return Fold("undecided", _why_mixed(last), notes)
    reds = [e for s in states if verdicts[s] != "green" for e in by_state[s] if _is_red(e) or not e.agreed]
    if verdicts[states[-1]] == "red":
        return _red_now(states, by_state, verdicts, reds, notes)
    return _green_now(states, by_state, verdicts, reds, notes)


def _unjudged(records: Sequence[Evidence]) -> Fold:
    """Fold a test that has run and said nothing."""
    last = records[-1]
    if any(e.kind == "undecided" for e in records):
        return Fold("undecided", f"no run came to a verdict: {last.reason or 'no reason recorded'}")
    if any(e.asked_nothing for e in records):
        return Fold("untested", "its test passed and asked nothing: no check, no recorded run, no assert in its text")
    proved = [e for e in records if e.fault]
    if proved:
        return Fold("untested", f"run only with the planted fault {proved[-1].fault!r}")
    return Fold("untested", f"every run was skipped: {last.reason or 'no reason recorded'}")


def _green_only(by_state: Mapping[str, list[Evidence]], witnesses: Mapping[str, str], notes: tuple[str, ...]) -> Fold:
    for state, group in by_state.items():
        witness = witnesses.get(state) or next((witnesses[e.code] for e in group if e.code in witnesses), "")
        if witness:
            why = f"passed on the broken code ({state_name(group[0])}), where {witness} was seen failing"
            return Fold("refuted", why, notes, tuple(group))
    seen = ", ".join(dict.fromkeys(state_name(group[0]) for group in by_state.values()))
    why = f"it only ever passed (on {seen}), and nothing of this incident was seen failing there"
    return Fold("never failed", why, notes)


def _red_now(
    states: Sequence[str],
    by_state: Mapping[str, list[Evidence]],
    verdicts: Mapping[str, Verdict],
    reds: Sequence[Evidence],
    notes: tuple[str, ...],
) -> Fold:
    last = by_state[states[-1]]
    first_red = next(i for i, s in enumerate(states) if verdicts[s] != "green")
    greens_between = [s for s in states[first_red:] if verdicts[s] == "green"]
    now = [e for e in last if _is_red(e)]
    if greens_between:
        where = state_name(by_state[greens_between[-1]][0])
        old = {e.fingerprint for e in reds if e.state != states[-1]}
        if now[-1].fingerprint and now[-1].fingerprint not in old:
            notes += ("it fails in another way than before the fix",)
        return Fold("regressed", f"green on {where}, red again on {state_name(last[0])}", notes, tuple(now))
    if any(not _is_red(e) for e in last):
        notes += ("green on the same code under another seed, slice or number of steps",)
    if first_red:
        notes += (f"it passed before, on {state_name(by_state[states[first_red - 1]][0])}: what came after broke it",)
    why = f"seen failing on {state_name(last[0])}"
    return Fold("supported", why, notes, tuple(reds), ((NO_FIX_SEEN, "no fix has been seen to turn it green"),))


def _green_now(
    states: Sequence[str],
    by_state: Mapping[str, list[Evidence]],
    verdicts: Mapping[str, Verdict],
    reds: Sequence[Evidence],
    notes: tuple[str, ...],
) -> Fold:
    """Fold a test that was red and is green on the newest code it has seen."""
    lost: list[tuple[float, str]] = []
    last_bad = max(i for i, s in enumerate(states) if verdicts[s] != "green")
    greens = [e for s in states[last_bad + 1 :] for e in by_state[s]]
    same = {(e.code, e.condition) for e in reds if e.code} & {(e.code, e.condition) for e in greens}
    if same and not _is_about_nondeterminism(reds[-1]):
        return Fold("undecided", _why_mixed([e for e in (*reds, *greens) if (e.code, e.condition) in same]), notes)
    flaky = [e for s in states if verdicts[s] == "mixed" for e in by_state[s]]
    if flaky:
        luck, said = _luck(flaky, greens)
        if luck > LUCK:
            return Fold("undecided", said, notes)
        lost.append((FLAKY_BEFORE, said))
    if not {e.condition for e in greens} & {e.condition for e in reds}:
        said = f"red {_condition_name(reds[-1])}, green {_condition_name(greens[-1])}: run it under the same condition"
        lost.append((OTHER_CONDITION, said))
    if _test_changed(reds, greens):
        lost.append((TEST_CHANGED, "the test's own text changed between red and green"))
    why = f"red on {state_name(reds[-1])}, then green on {state_name(greens[-1])}"
    return Fold("fixed", why, notes, (*reds, *greens), tuple(lost))


def _luck(flaky: Sequence[Evidence], greens: Sequence[Evidence]) -> tuple[float, str]:
    """How likely the greens are if nothing was fixed: (1 - share of red before) to the power of green runs."""
    total = sum(e.runs for e in flaky)
    red = sum(e.runs if e.agreed else max(1, e.runs // 2) for e in flaky if _is_red(e) or not e.agreed)
    green = sum(e.runs for e in greens)
    luck = (1 - red / total) ** green
    said = f"flaky before (red in {red} of {total} runs), green in {green} since; by luck alone that has probability {luck:.2f}"
    if luck > LUCK and 0 < red < total:
        needed = math.ceil(math.log(LUCK) / math.log(1 - red / total))
        said += f"; {needed} green runs would tell"
    return luck, said


def _notes(records: Sequence[Evidence], judged: Sequence[Evidence], last_state: str, newest: str) -> tuple[str, ...]:
    """Say what a reader would want to know of one test besides its status."""
    notes: list[str] = []
    after = records[max(i for i, e in enumerate(records) if _is_judged(e)) + 1 :]
    skipped = [e for e in after if e.kind == "skipped"]
    if skipped:
        notes.append(f"skipped since ({skipped[-1].reason or 'no reason recorded'}): it watches nothing at present")
    elif after and after[-1].kind == "undecided":
        notes.append(f"its last run came to no verdict ({after[-1].reason or 'no reason recorded'})")
    elif newest and last_state != newest:
        notes.append("it has not run on the newest code of which the incident has evidence")
    planted = sorted({e.fault for e in records if e.fault and _is_red(e)})
    if planted:
        notes.append(f"seen to fail with a planted fault: {', '.join(planted)}")
    prints = {e.fingerprint for e in judged if _is_red(e) and e.fingerprint and e.state == last_state}
    if len(prints) > 1:
        notes.append(f"it fails in {len(prints)} different ways on the same code")
    return tuple(notes)


def _why_mixed(group: Sequence[Evidence]) -> str:
    if any(not e.agreed for e in group):
        return f"flaky on {state_name(group[0])}: its runs differed under one seed"
    if not group[0].state:
        return "red and green, and neither commit nor code was recorded: nothing tells what changed"
    red = next(e for e in group if _is_red(e))
    green = next(e for e in reversed(group) if not _is_red(e))
    where = " and ".join(dict.fromkeys([state_name(red), state_name(green)]))
    changed = _environment_changes(red, green)
    if _test_changed([red], [green]):
        cause = "the test's own text changed"
    elif changed:
        cause = f"the environment differed ({changed})"
    else:
        cause = "flaky, or something that git does not see changed"
    return f"red and green on the same code ({where}) under the same condition: {cause}"


def _environment_changes(a: Evidence, b: Evidence) -> str:
    keys = [k for k in {**a.environment, **b.environment} if a.environment.get(k) != b.environment.get(k)]
    return ", ".join(f"{k} {a.environment.get(k)} and {b.environment.get(k)}" for k in keys[:3])


def _verdict(group: Sequence[Evidence]) -> Verdict:
    """Judge one state: red and green under one condition is mixed; red under any condition is red."""
    by_condition: dict[object, set[bool]] = {}
    for e in group:
        if not e.agreed and not _is_about_nondeterminism(e):
            return "mixed"
        by_condition.setdefault(e.condition, set()).add(_is_red(e))
    if any(len(seen) == 2 for seen in by_condition.values()):
        # Failing now and then is just what such a hypothesis claims.
        return "red" if _is_about_nondeterminism(group[0]) else "mixed"
    return "red" if any(True in seen for seen in by_condition.values()) else "green"


def _not_shown(records: Sequence[Evidence]) -> list[tuple[float, str]]:
    reds = [e for e in records if _is_red(e)] or list(records)
    seen = [(e.nodeid, e.state, e.condition, e.fingerprint) for e in reds]
    lost: list[tuple[float, str]] = []
    if not any(e.runs > 1 and e.agreed for e in reds) and len(set(seen)) == len(seen):
        lost.append((SEEN_ONCE, "seen once and not reproduced"))
    if all(e.seed is None for e in reds):
        lost.append((NO_SEED, "no seed was fixed"))
    if not any(e.commit and not e.dirty for e in reds):
        lost.append((UNCOMMITTED, "seen only on code that is in no commit"))
    if any(_is_red(e) for e in reds) and not any(e.failed_findings for e in reds):
        lost.append((NO_FINDING, "it failed without a finding: read the failure before trusting it"))
    return lost


def _test_changed(reds: Sequence[Evidence], greens: Sequence[Evidence]) -> bool:
    red = {e.test_digest for e in reds if e.test_digest}
    green = greens[-1].test_digest
    return bool(red and green and green not in red)


def _condition_name(e: Evidence) -> str:
    said = [
        f"{name} {value}"
        for name, value in zip(("seed", "slice", "steps"), e.condition, strict=True)
        if value is not None
    ]
    return f"with {', '.join(said)}" if said else "without a seed or cut"


def _is_judged(e: Evidence) -> bool:
    return e.kind in ("passed", "failed") and not e.fault


def _is_red(e: Evidence) -> bool:
    return e.kind == "failed" or (not e.agreed and _is_about_nondeterminism(e))


def _is_about_nondeterminism(e: Evidence) -> bool:
    return any(word in e.family.lower() for word in ("nondeterminism", "non-determinism", "reproducib"))
