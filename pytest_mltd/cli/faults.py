"""``mltd faults``: what can be planted on purpose, and what should turn red."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_mltd.cli.output import HEALTHY, Misuse, Output


def list_and_tell(names: Sequence[str], output: Output) -> int:
    """List the faults of the given names, or all, and return the exit code."""
    from pytest_mltd.faults import catalogue, find

    try:
        found = [find(name) for name in names] or list(catalogue())
    except ValueError as error:
        raise Misuse(str(error)) from None
    family = ""
    for fault in found:
        if fault.family != family:
            output.say(f"{'' if not family else chr(10)}{fault.family}")
            family = fault.family
        output.say(f"  {fault.name}\n    {fault.says}\n    red: {' or '.join(fault.reds)}; needs: {fault.needs}")
    keys = ("name", "family", "says", "reds", "needs")
    return output.end(HEALTHY, faults=[{key: getattr(fault, key) for key in keys} for fault in found])
