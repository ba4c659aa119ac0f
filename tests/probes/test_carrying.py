"""A function found again in a fresh interpreter, or the reason why it cannot be."""

import functools

import pytest

from pytest_mltd.probes import carrying

NOBODY = object()


def here(seed=0):
    return {"loss": seed + 0.5}


def roundtrip(function):
    return carrying._unpacked(carrying._packed(function, 0))


def test_functions_of_modules_lambdas_and_local_functions():
    """Each does in its second life what it did in the first."""
    scale, other = 3, here

    def local():
        return other()["loss"] * scale

    two = [lambda: scale + 1, lambda: scale + 2]
    assert roundtrip(here)() == here()
    assert roundtrip(local)() == local() == 1.5
    assert [roundtrip(f)() for f in two] == [4, 5]
    assert roundtrip(lambda: here(seed=scale))() == {"loss": 3.5}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (functools.partial(here), "it is no plain function but partial"),
        ((lambda thing: lambda: thing)(object()), "it uses 'thing', object, which exists only here"),
        (lambda x=NOBODY: x, "has defaults that exist only here"),
        (eval("lambda: 1"), "the source of '<lambda>' is not in a file"),
    ],
)
def test_the_reason_why_not(function, reason):
    """What cannot be taken along is named."""
    assert reason in carrying.forbids(function)


def test_nothing_is_pickled():
    """The way is plain JSON."""
    import json

    scale = 3
    assert json.loads(json.dumps(carrying._packed(lambda: scale, 0)))["names"] == {
        "scale": {"kind": "value", "value": 3}
    }
