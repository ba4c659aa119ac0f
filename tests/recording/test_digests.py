"""Digests tell contents apart, and nothing else."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mltd.recording import digests

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int8,
    torch.bool,
    torch.complex64,
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_logical_content_counts_and_not_the_strides(dtype):
    """A transposed copy of a transposed tensor has the same digest, in every type."""
    t = (torch.arange(12).reshape(3, 4) % 2 if dtype is torch.bool else torch.arange(12).reshape(3, 4)).to(dtype)
    assert digests.of_tensor(t) == digests.of_tensor(t.t().contiguous().t())
    assert digests.of_tensor(t) != digests.of_tensor(t.t())


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=20), st.randoms())
def test_order_and_the_sign_of_zero_count(values, shuffler):
    """What an XOR and a norm miss: swaps, double flips, −0."""
    one = torch.tensor(values)
    moved = values[:]
    shuffler.shuffle(moved)
    same = torch.tensor(moved).view(torch.int32).tolist() == one.view(torch.int32).tolist()
    assert (digests.of_tensor(torch.tensor(moved)) == digests.of_tensor(one)) == same
    assert digests.of_tensor(torch.tensor([0.0])) != digests.of_tensor(torch.tensor([-0.0]))


def test_one_bit_counts():
    """The last bit of one number."""
    a = torch.ones(1000)
    b = a.clone()
    b[500] = torch.nextafter(b[500], torch.tensor(2.0))
    assert digests.of_tensor(a) != digests.of_tensor(b)


def test_odd_tensors_have_digests():
    """Empty, scalar, sparse, conjugated, requiring a gradient."""
    assert digests.of_tensor(torch.zeros(0)) != 0
    assert digests.of_tensor(torch.tensor(3.0)) == digests.of_tensor(torch.tensor([3.0]))
    sparse = torch.sparse_coo_tensor([[0, 0, 2]], [1.0, 2.0, 3.0], (4,), check_invariants=True)
    assert digests.of_tensor(sparse) == digests.of_tensor(sparse.coalesce())
    z = torch.tensor([1 + 2j])
    assert digests.of_tensor(z.conj()) != digests.of_tensor(z)
    assert digests.of_tensor(torch.ones(2, requires_grad=True)) == digests.of_tensor(torch.ones(2))


def test_trees_count_tensors_numbers_and_texts_in_order():
    """A batch of nested lists and mappings."""
    tree = {"a": [torch.ones(2), 3], "b": ("x", None)}
    assert digests.of_tree(tree) == digests.of_tree({"a": [torch.ones(2), 3], "b": ("x", None)})
    assert digests.of_tree(tree) != digests.of_tree({"a": [torch.ones(2), 4], "b": ("x", None)})
    assert digests.of_tree([torch.ones(1), torch.zeros(1)]) != digests.of_tree([torch.zeros(1), torch.ones(1)])


def test_random_states_are_read_and_left():
    """Each changes with one draw of its own, and reading draws nothing."""
    readers = (digests.of_python_state, digests.of_numpy_state, digests.of_torch_state)
    draws = (random.random, np.random.rand, lambda: torch.rand(1))
    for read, draw in zip(readers, draws, strict=True):
        before = read()
        assert read() == before
        draw()
        assert read() != before


def test_nothing_has_the_digest_that_means_not_taken(monkeypatch):
    """A hash of 0 becomes 1."""
    if digests.ALGORITHM == "xxh3_128":
        monkeypatch.setattr(digests.xxhash, "xxh3_128_intdigest", lambda data: 1 << 64)
        assert digests.of_bytes(b"") == 1


def test_the_fallback_is_as_good():
    """Without xxhash, blake2b: 64 bits, never 0."""
    assert digests._blake2(b"a") != digests._blake2(b"b")
    assert 0 < digests._blake2(np.ones(3)) < 2**64
