"""Each example is red with its bug, for that reason, and green with its fix; its model code knows nothing of this package."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
_spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(demo)

# folder -> the finding's id and its culprit, exactly
EXPECTED = {
    "exploding_rnn": ("gradients.explosion", "rnn.weight_ih_l0"),
    "label_leak": ("leakage.label_leak", "progression"),
    "one_seed_two_runs": ("runs.divergence", "inputs"),
}
each = pytest.mark.parametrize("name", EXPECTED)


def test_every_example_is_tried():
    """A new folder with a fix needs a line here."""
    assert demo.names_of_examples() == sorted(EXPECTED)


@each
def test_red_with_the_bug_and_green_with_the_fix(name, tmp_path):
    """The first line names the fault and its place; the patch, applied to a copy, makes the same test pass."""
    copy = demo.copy_of(name, tmp_path)
    red = demo.python(copy, *demo.PYTEST)
    assert red.returncode == 1, red.stdout + red.stderr
    fault, culprit = EXPECTED[name]
    assert f"CheckFailed: {fault}: " in red.stdout
    said = demo.message(red.stdout)
    assert culprit in said[0]
    assert len(said) <= 40, "\n".join(said)
    demo.apply_patch(copy, (copy / "fix.patch").read_text())
    green = demo.python(copy, *demo.PYTEST)
    assert green.returncode == 0, green.stdout + green.stderr
    assert "1 passed" in green.stdout


@each
def test_the_model_code_is_a_strangers(name):
    """No file but the test imports this package."""
    for file in (EXAMPLES / name).glob("*.py"):
        if not file.name.startswith("test_"):
            assert "mltd" not in file.read_text(), file


@each
def test_the_test_is_short(name):
    """The test is the three-line kind: what a person writes at 3 a.m."""
    (file,) = (EXAMPLES / name).glob("test_*.py")
    _, _, body = file.read_text().partition("\ndef test_")
    assert len(body.strip().splitlines()) <= 4


@each
def test_the_incident_can_be_lived_through_again(name, tmp_path):
    """Red, fixed, green, reported, by commands alone; the report says supported and fixed, as the one that is kept does."""
    title = name.replace("_", "-")
    copy = demo.incident(name, tmp_path)
    report = (copy / "incidents" / f"{title}.md").read_text()
    kept = (EXAMPLES / name / "incidents" / f"{title}.md").read_text()
    assert _headings(report) == _headings(kept)
    assert "supported and fixed" in report
    assert "supported and fixed" in kept
    ledger = (copy / "incidents" / f"{title}.jsonl").read_text().splitlines()
    assert [json.loads(line).get("kind") or json.loads(line)["evidence"]["kind"] for line in ledger] == [
        "failed",
        "passed",
    ]


def test_a_patch_that_does_not_fit_is_refused(tmp_path):
    """The proof would otherwise be of other code than the patch says."""
    copy = demo.copy_of("exploding_rnn", tmp_path)
    patch = (copy / "fix.patch").read_text()
    demo.apply_patch(copy, patch)
    with pytest.raises(ValueError, match="a hunk fits 0 places of next_row.py"):
        demo.apply_patch(copy, patch)


def test_the_demo_fails_when_an_example_does(tmp_path, monkeypatch, capsys):
    """`make demo` is a proof and not a show: an example whose fix does not fix ends it with 1."""
    shutil.copytree(EXAMPLES / "label_leak", tmp_path / "label_leak")
    shutil.copy(EXAMPLES / "pytest.ini", tmp_path)
    monkeypatch.setattr(demo, "HERE", tmp_path)
    assert demo.main([]) == 0
    assert "1 of 1 incidents: red with the bug, green with the fix" in capsys.readouterr().out
    (tmp_path / "label_leak" / "fix.patch").write_text("")
    assert demo.main([]) == 1
    assert "0 of 1 incidents" in capsys.readouterr().out


def _headings(text):
    return [line for line in text.splitlines() if line.startswith("#")]
