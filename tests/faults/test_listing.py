"""`mltd faults`: the catalogue for people and for programs."""

import json

from pytest_mltd.cli import MISUSE, main
from pytest_mltd.faults import catalogue


def test_people_read_what_each_fault_does_and_turns_red(capsys):
    """Every fault is there with what it does; families have one heading each."""
    assert main(["faults"]) == 0
    text = capsys.readouterr().out
    for fault in catalogue():
        assert f"\n  {fault.name}\n    {fault.says}\n    red: {' or '.join(fault.reds)}; needs: {fault.needs}\n" in text
    assert text.splitlines().count("gradients") == 1


def test_one_can_be_asked_for(capsys):
    """The whole text of one fault."""
    assert main(["faults", "stale_gradients"]) == 0
    assert capsys.readouterr().out == (
        "gradients\n  stale_gradients\n    zero_grad does nothing, of optimizers and of modules\n"
        "    red: gradients.stale_gradients; needs: call of zero_grad\n"
    )


def test_programs_read_json(capsys):
    """The document has one entry for each fault."""
    assert main(["faults", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "faults"
    assert [f["name"] for f in document["faults"]] == [f.name for f in catalogue()]
    assert set(document["faults"][0]) == {"name", "family", "says", "reds", "needs"}


def test_an_unknown_name_is_misuse(capsys):
    """It is refused with the nearest."""
    assert main(["faults", "stale_gradient"]) == MISUSE
    assert capsys.readouterr().err == (
        "mltd faults: name: no fault 'stale_gradient' can be planted; the nearest is 'stale_gradients'\n"
    )
