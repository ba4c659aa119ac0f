"""The class of cause that fits: the strongest evidence first."""

import pytest

from pytest_mltd.checks.runs.divergence import check_divergence
from pytest_mltd.core.traces import SeedCall, Trace
from pytest_mltd.probes.causes import Beside, explained


def pair(seeds_one=(), seeds_two=()):
    scalars = ({"loss": [1.0, 2.0]}, {"loss": [1.0, 3.0]})
    import dataclasses

    one, two = (Trace.from_scalars(s) for s in scalars)
    return dataclasses.replace(one, seeds=tuple(seeds_one)), dataclasses.replace(two, seeds=tuple(seeds_two))


def cause(one, two, beside):
    return explained(check_divergence(one, two), one, two, beside)


def seed(value, site="a.py:3", what="torch.manual_seed"):
    return SeedCall(what=what, value=value, site=site)


CLOCK = ("time.time", "a.py:9")
ENTROPY = ("uuid.uuid4", "a.py:7")
NONE = "numpy.random.default_rng"


@pytest.mark.parametrize(
    ("first", "second", "beside", "said"),
    [
        (
            [seed("1")],
            [seed("2")],
            Beside(["f"], [ENTROPY]),
            "torch.manual_seed is given another value each run at a.py:3",
        ),
        ([seed("1")], [seed("2")], Beside([], [CLOCK]), "seed taken from the clock (time.time at a.py:9)"),
        ([seed("1")], [seed("1")], Beside(["f.npy"], [ENTROPY]), "run 2 read 'f.npy', which run 1 wrote"),
        (
            [seed(None, what=NONE)],
            [seed(None, what=NONE)],
            Beside([], [ENTROPY]),
            "unseeded random generator: numpy.random",
        ),
        ([seed("1")], [seed("1")], Beside([], [CLOCK, ENTROPY]), "it draws on uuid.uuid4 at a.py:7"),
    ],
)
def test_the_strongest_evidence_wins(first, second, beside, said):
    """A seed that changed, then a file that was read again, then an unseeded generator, then what was drawn."""
    assert said in cause(*pair(first, second), beside).headline


def test_a_clock_alone_is_mentioned_and_not_blamed():
    """Honest programs print times: the headline stays that of the difference."""
    finding = cause(*pair(), Beside([], [CLOCK]))
    assert finding.headline.startswith("runs agree")
    assert "time.time at a.py:9" in finding.shows


def test_addresses_in_a_seed_are_no_other_seed():
    """A generator's seed that is an object differs in its address only."""
    one, two = pair([seed("<Seq at 0x7f01>")], [seed("<Seq at 0x7f99>")])
    assert "another value" not in cause(one, two, Beside()).headline


def test_runs_that_went_different_ways_are_not_compared_by_their_seeds():
    """After the first seed call that is another line's, values say nothing."""
    one, two = pair([seed("1", "a.py:1"), seed("5")], [seed("1", "b.py:1"), seed("6")])
    assert "another value" not in cause(one, two, Beside()).headline


def test_a_pass_is_left_alone():
    """Runs that agree need no cause."""
    one, _ = pair()
    assert cause(one, one, Beside(["f"], [ENTROPY])).ok
