"""What a program's source says about Python's hash seed."""

import pytest

from pytest_mltd.probes.hashes import depends_on_hashes, reachable

NAMES = {"loss", "accuracy"}
NUMBERS = {1, 2, 3}


def listed():
    return list(set("abc"))


def through_a_name(words):
    known = set(words)
    return {word: k for k, word in enumerate(known)}


def looped():
    for name in NAMES:
        print(name)


def hashed(word):
    return hash(word) % 7


class Vocabulary:
    def __init__(self, words):
        self.index = tuple({w.lower() for w in words})


def by_a_class(words):
    return Vocabulary(words)


def calls_another():
    return listed()


def member(word):
    return word in {"a", "b"}


def ordered(words):
    return sorted(set(words))[: len({*words})]


def of_numbers():
    return list(NUMBERS) + list({1, 2})


def counted(words):
    return sum(1 for w in set(words))


@pytest.mark.parametrize("function", [listed, through_a_name, looped, hashed, by_a_class, calls_another])
def test_an_order_that_comes_out_is_seen(function):
    """A set that is listed, looped over or numbered, and `hash`, in the function or in what it calls."""
    assert depends_on_hashes(function)
    assert depends_on_hashes(lambda: function("a"))


@pytest.mark.parametrize("function", [member, ordered, of_numbers, counted])
def test_an_order_that_stays_inside_is_not(function):
    """Membership, sorting, counting, and sets of numbers do not follow the seed."""
    assert not depends_on_hashes(function)
    assert not depends_on_hashes(lambda: function("a"))


def test_only_what_a_function_leads_to_is_read():
    """Other functions of its module are not its own."""
    assert list(reachable(calls_another)) == [calls_another, listed]
    assert list(reachable(len)) == []
