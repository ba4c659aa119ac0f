"""What the shell says: text for people, or one JSON document.

The document of every command has these keys; a key whose value is unknown or does not apply is null::

    schema       1; it grows by new keys only
    mltd         version of this package
    command      "run", "check", "diff", "report" or "faults"
    exit         the exit code: 0 healthy, 1 findings, 2 misuse; for "run" that of a script that failed
    diagnosis    about, ok, looked_at, notes, crashed (what ended the program, or ""), findings, not_asked,
                 failed (ids, root cause first); null without one
    diagnoses    "check" with several runs: path -> diagnosis
    error        type and message of what the script raised; or of the misuse
    program      "run": script or module, arguments, steps, slice, seed, level
    kept         "run": the folder that holds the trace, the diagnosis and the command
    keep         the command that writes the test
    written      the file that was written
    faults       "faults": name, family, says, reds (findings one of which turns red) and needs of each that can be planted
    incident     "report": the incident, as `pytest_mltd.report.json` describes it

A finding has the fields of `pytest_mltd.core.findings.Finding`; a number that is not finite is text ("nan", "inf").
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

HEALTHY, FINDINGS, MISUSE = 0, 1, 2

KEYS = ("diagnosis", "diagnoses", "error", "program", "kept", "keep", "written", "faults", "incident")


class Misuse(Exception):
    """The command cannot be carried out as it was given. The text is one sentence that says how it can."""


class Output:
    """Where a command speaks. As text, line by line; with ``json``, everything at the end in one document on stdout.

    ``owns_process`` is False where the command is called by a program that goes on after it.
    """

    def __init__(self, command: str, *, json: bool = False, owns_process: bool = False) -> None:
        self.command = command
        self.json = json
        self.owns_process = owns_process

    def aside(self, text: str) -> None:
        """Say something that is no result: to stderr, at once."""
        sys.stderr.write(f"mltd: {text}\n")
        sys.stderr.flush()

    def say(self, text: str) -> None:
        """Say a part of the result, for people."""
        if not self.json:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def end(self, code: int, **content: Any) -> int:
        """Give the result as a document, if that was asked for, and return the exit code."""
        if self.json:
            from pytest_mltd import __version__

            head = {"schema": 1, "mltd": __version__, "command": self.command, "exit": code}
            json.dump({**head, **dict.fromkeys(KEYS), **content}, sys.stdout, indent=2, ensure_ascii=False)
            sys.stdout.write("\n")
            sys.stdout.flush()
            if self.owns_process and _is_the_real_one(sys.stdout):
                os.dup2(2, 1)  # what the program says at exit must not follow the document
        return code

    @contextlib.contextmanager
    def others_to_stderr(self) -> Iterator[None]:
        """With ``json``, send all that anybody else writes to stdout in the block (child processes too) to stderr."""
        with contextlib.ExitStack() as undo:
            if self.json and _is_the_real_one(sys.stdout):
                undo.callback(_return_stdout, os.dup(1))
                sys.stdout.flush()
                os.dup2(2, 1)
            elif self.json:  # a notebook, a test's capture
                undo.enter_context(contextlib.redirect_stdout(sys.stderr))
            yield


def _is_the_real_one(stdout: TextIO) -> bool:
    try:
        return stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


def _return_stdout(saved: int) -> None:
    sys.stdout.flush()
    os.dup2(saved, 1)
    os.close(saved)
