"""Run the examples as a stranger would: red with the bug, green with the fix, the messages shown.

``python examples/demo.py [NAME…]`` works on copies and changes nothing here. ``--reports`` writes each incident's report
again, from a run of all of it: `pytest --mltd-incident` with the bug, then with the fix, then `mltd report`.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

HERE = Path(__file__).parent
PYTEST = ("-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly")


def main(arguments):
    names = [a for a in arguments if not a.startswith("-")] or names_of_examples()
    if "--reports" in arguments:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                copy, _, _ = incident(name, Path(folder))
                for report in (copy / "incidents").glob(
                    "*.md"
                ):  # the ledger holds the facts of the machine: it stays there
                    shutil.copy(report, HERE / name / "incidents")
        return 0
    wrong = [name for name in names if not show(name)]
    print(f"{len(names) - len(wrong)} of {len(names)} incidents: red with the bug, green with the fix")
    return 1 if wrong else 0


def show(name):
    """Print one incident's two runs, and tell whether they went as they should."""
    with tempfile.TemporaryDirectory() as folder:
        heading(f"{name}: with its bug")
        copy = copy_of(name, Path(folder))
        red = python(copy, *PYTEST)
        print("\n".join(message(red.stdout)))
        heading(f"{name}: with fix.patch")
        patch = (copy / "fix.patch").read_text()
        print("\n".join(line for line in patch.splitlines() if re.match(r"[-+][^-+]", line)))
        apply_patch(copy, patch)
        green = python(copy, *PYTEST)
        print(f"\n{last_line(green.stdout)}\n")
        if green.returncode:
            print("\n".join(message(green.stdout)))
        return (red.returncode, green.returncode) == (1, 0)


def names_of_examples():
    return sorted(patch.parent.name for patch in HERE.glob("*/fix.patch"))


def copy_of(name, folder):
    shutil.copy(HERE / "pytest.ini", folder)
    leave = shutil.ignore_patterns("__pycache__", "incidents", ".mltd")
    return Path(shutil.copytree(HERE / name, folder / name, ignore=leave))


def python(folder, *arguments):
    """Run Python in a folder, as a person would there: none of the settings of a surrounding test run reach it."""
    outside = ("PYTEST_", "MLTD_", "GITHUB_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(outside)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def message(output):
    """Return the failure's own lines of pytest's output, and its closing lines."""
    lines = output.splitlines()
    said = textwrap.dedent("\n".join(line[1:] for line in lines if re.match(r"E( |$)", line))).splitlines()
    reruns = [line for line in lines if line.lstrip().startswith("rerun:")]
    return [*said, *reruns, "", last_line(output), ""] if said else lines


def last_line(output):
    return output.rstrip().rpartition("\n")[2]


def apply_patch(folder, patch):
    """Apply a patch to a folder, without a program that a fresh machine may lack. Each hunk must fit exactly."""
    _, *files = re.split(r"^--- a/.*\n(?=\+\+\+ b/)", patch, flags=re.MULTILINE)
    for changes in files:
        heading_line, _, body = changes.partition("\n")
        target = folder / heading_line.removeprefix("+++ b/")
        text = target.read_text()
        for hunk in re.split(r"^@@.*@@.*\n", body, flags=re.MULTILINE)[1:]:
            lines = [line if line.strip("\n") else " \n" for line in hunk.splitlines(keepends=True)]
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            if text.count(before) != 1:
                raise ValueError(f"patch: a hunk fits {text.count(before)} places of {target.name}")
            text = text.replace(before, after)
        target.write_text(text)


def incident(name, folder):
    """Live through an incident in a repository of its own.

    Returns the example's folder, with its ledger and report, and what the two test runs said: with the bug, with the fix.
    """
    copy = copy_of(name, folder)
    title = name.replace("_", "-")
    shutil.copytree(HERE / name / "incidents", copy / "incidents", ignore=shutil.ignore_patterns("*.jsonl", "*.md"))
    asked = (*PYTEST, "--mltd-repro", "--mltd-incident", title)
    commit(folder, "Train the first model")
    red = python(folder, *asked)
    apply_patch(copy, (copy / "fix.patch").read_text())
    commit(folder, "Apply the fix")
    green = python(folder, *asked)
    reported = python(folder, "-m", "pytest_mltd", "report", title)
    if reported.returncode:
        raise RuntimeError(reported.stdout + reported.stderr)
    return copy, red, green


def commit(folder, subject):
    """Commit all but what tests leave; author and date are fixed, so that the same code gives the same commit."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in WHO.items()}
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
        (folder / ".git" / "info" / "exclude").write_text("*.jsonl\n.mltd\n__pycache__\n")
    for arguments in (["add", "."], ["commit", "-q", "-m", subject]):
        subprocess.run(["git", *arguments], cwd=folder, env={**os.environ, **who}, check=True)


WHO = {"NAME": "pytest-mltd", "EMAIL": "examples@invalid", "DATE": "2026-11-24T12:00:00Z"}


def heading(text):
    print(f"{'=' * 8} {text} {'=' * max(3, 100 - len(text))}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
