"""An error put into words, for notes and for how a run ended."""

from __future__ import annotations

from typing import Final

_LONGEST: Final = 200


def described(error: BaseException) -> str:
    """Return an error's class and the beginning of its text. The text is the program's own code, and may raise itself."""
    try:
        text = str(error)[:_LONGEST]
    except Exception:
        text = "(its text cannot be made)"
    return f"{type(error).__name__}: {text}"
