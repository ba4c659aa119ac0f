"""``mltd report``: an incident as Markdown beside its ledger, or as JSON."""

from __future__ import annotations

from pathlib import Path

from pytest_mltd.cli.output import HEALTHY, Misuse, Output


def report_and_tell(incident: str, output: Output) -> int:
    """Write the incident's report and return the exit code."""
    from pytest_mltd.ledger.files import LedgerError
    from pytest_mltd.ledger.incidents import open_incident, save_report
    from pytest_mltd.report.json import incident_json
    from pytest_mltd.report.markdown import incident_markdown

    try:
        opened = open_incident(_project(), incident)
        if output.json:
            content = incident_json(opened.incident, opened.story, problems=opened.problems)
            return output.end(HEALTHY, incident=content)
        path = save_report(opened, incident_markdown(opened.incident, opened.story, problems=opened.problems))
    except (LedgerError, ValueError) as error:
        raise Misuse(str(error)) from None
    for problem in opened.problems:
        output.aside(str(problem))
    output.say(f"written: {path}")
    return HEALTHY


def _project() -> Path:
    """Return the folder whose ledgers are meant: the nearest above with a version control or a pytest configuration."""
    here = Path.cwd()
    marks = (".git", "pyproject.toml", "pytest.ini", "pytest.toml", "tox.ini", "setup.cfg")
    return next((folder for folder in (here, *here.parents) if any((folder / m).exists() for m in marks)), here)
