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


@pytest.mark.skipif(
    not shutil.which("git"), reason="an incident is lived through in a git repository; make demo needs none"
)
@each
def test_red_with_the_bug_and_green_with_the_fix(name, tmp_path):
    """The first line names the fault and its place, twice the same; the patch, applied to a copy, makes the same test pass.

    The whole incident is lived through by commands alone, and its report says supported and fixed, as the kept one does.
    """
    fault, culprit = EXPECTED[name]
    copy, red, green = demo.incident(name, tmp_path)
    said = demo.message(red.stdout)
    assert red.returncode == 1, red.stdout + red.stderr
    assert said[0].startswith(f"CheckFailed: {fault}: ")
    assert culprit in said[0]
    assert len(said) <= 40, "\n".join(said)
    assert green.returncode == 0, green.stdout + green.stderr
    assert "1 passed" in green.stdout

    title = name.replace("_", "-")
    report = (copy / "incidents" / f"{title}.md").read_text()
    kept = (EXAMPLES / name / "incidents" / f"{title}.md").read_text()
    assert _headings(report) == _headings(kept)
    assert "supported and fixed" in report
    assert "supported and fixed" in kept
    ledger = (copy / "incidents" / f"{title}.jsonl").read_text().splitlines()
    assert [json.loads(line)["evidence"]["kind"] for line in ledger] == ["failed", "passed"]


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


def test_a_patch_that_does_not_fit_is_refused(tmp_path):
    """The proof would otherwise be of other code than the patch says."""
    copy = demo.copy_of("exploding_rnn", tmp_path)
    patch = (copy / "fix.patch").read_text()
    demo.apply_patch(copy, patch)
    with pytest.raises(ValueError, match="a hunk fits 0 places of next_row.py"):
        demo.apply_patch(copy, patch)


@pytest.mark.parametrize(
    ("codes", "ends"),
    [((1, 0), 0), ((1, 1), 1), ((0, 0), 1), ((2, 0), 1)],
    ids=["proved", "not fixed", "not red", "broken"],
)
def test_the_demo_fails_when_an_example_does(codes, ends, monkeypatch, capsys):
    """`make demo` is a proof and not a show: each example must be red with its bug and green with its fix."""
    runs = iter(codes)
    ran = lambda *_: demo.subprocess.CompletedProcess((), next(runs), "E   CheckFailed: a.b: c\n1 failed in 1s", "")  # noqa: E731
    monkeypatch.setattr(demo, "python", ran)
    assert demo.main(["label_leak"]) == ends
    out = capsys.readouterr().out
    assert f"{1 - ends} of 1 incidents: red with the bug, green with the fix" in out
    assert 'patients.drop(columns="progression")' in out


def _headings(text):
    return [line for line in text.splitlines() if line.startswith("#")]
