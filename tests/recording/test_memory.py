"""Numbers read where they lie: the same as torch's own, and nothing that has no memory is read."""

import pytest
import torch

from pytest_mltd.recording import memory

NOWHERE = [torch._efficientzerotensor(3), torch.zeros(3, device="meta"), torch.ones(3).to_sparse()]


def test_floats_are_those_of_the_tensor():
    """Also when another tensor comes to lie at the same address with other numbers."""
    for _ in range(50):
        tensor = torch.randn(3, 5)
        assert memory.floats(tensor).tolist() == tensor.reshape(-1).tolist()
    part = torch.arange(12.0)[3:7]
    assert memory.floats(part).tolist() == [3, 4, 5, 6]
    assert memory.floats(torch.zeros(0)).size == 0


@pytest.mark.parametrize(
    "tensor", [*NOWHERE, torch.ones(3, 2).t(), torch.ones(1).expand(4), torch.ones(3).double()], ids=str
)
def test_what_is_not_in_one_piece_is_refused(tensor):
    """The caller then takes torch's own reduction."""
    with pytest.raises((TypeError, RuntimeError)):
        memory.floats(tensor)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.bfloat16, torch.int16, torch.float64, torch.complex64, torch.uint8]
)
def test_bytes_of_every_type(dtype):
    """The bytes in order, as torch itself shows them."""
    tensor = torch.arange(5).to(dtype)
    assert list(bytes(memory.raw(tensor))) == tensor.view(torch.uint8).tolist()
    assert bytes(memory.raw(tensor[:0])) == b""


@pytest.mark.parametrize("tensor", NOWHERE, ids=str)
def test_bytes_of_nothing_are_refused(tensor):
    """An address of zero is never read."""
    with pytest.raises((TypeError, RuntimeError)):
        memory.raw(tensor)


def test_the_views_do_not_grow_without_end(monkeypatch):
    """They are forgotten when there are too many."""
    monkeypatch.setattr(memory, "_MOST", 8)
    kept = [torch.ones(2) for _ in range(20)]
    for tensor in kept:
        memory.floats(tensor)
    assert len(memory._views) <= 8
