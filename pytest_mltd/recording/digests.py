"""64-bit digests of bytes: tensors, batches, random states, optimizer state.

xxh3_128 where the package xxhash is installed (its low 64 bits), else blake2b; which one is kept in the trace's settings, and
digests of two algorithms are never compared. They tell runs apart; they are no proof against tampering.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import torch

from pytest_mltd.recording import memory

try:
    import xxhash

    _has_xxhash = True
except ModuleNotFoundError:  # the extra "exact"
    _has_xxhash = False

_MASK: Final = (1 << 64) - 1


def _xxh3(data: Any) -> int:
    return int(xxhash.xxh3_128_intdigest(data)) & _MASK or 1  # 0 means: not taken


def _blake2(data: Any) -> int:
    import hashlib

    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1


ALGORITHM: Final = "xxh3_128" if _has_xxhash else "blake2b"
of_bytes: Callable[[Any], int] = _xxh3 if _has_xxhash else _blake2


def of_tensor(tensor: torch.Tensor) -> int:
    """Return the digest of a tensor's values in logical order (not of its strides, nor of its shape)."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        return _of_sparse(tensor)
    if not tensor.is_cpu:
        tensor = tensor.cpu()
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    return of_bytes(memory.raw(tensor))


def combined(digests: Iterable[int]) -> int:
    """Return one digest of several in their order."""
    values = list(digests)
    return of_bytes(struct.pack(f"<{len(values)}Q", *values))


def of_numbers(values: Iterable[float]) -> int:
    """Return the digest of numbers as float64."""
    numbers = [float(v) for v in values]
    return of_bytes(struct.pack(f"<{len(numbers)}d", *numbers))


def of_tree(value: Any, device: bool = True) -> int:
    """Return the digest of the tensors, numbers and texts in nested lists, tuples and mappings, in their order.

    ``device``: whether to take tensors on an accelerator too, which waits for them.
    """
    return combined(_leaves(value, device, 0))


def of_python_state() -> int:
    """Return the digest of Python's random state."""
    version, internal, gauss = random.getstate()
    return of_bytes(struct.pack(f"<{len(internal)}I", *internal) + repr((version, gauss)).encode())


def of_numpy_state() -> int:
    """Return the digest of numpy's global random state, 0 where numpy is not loaded."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return 0
    name, keys, position, has_gauss, gauss = numpy.random.get_state()
    return of_bytes(keys.tobytes() + repr((name, position, has_gauss, gauss)).encode())


def of_torch_state() -> int:
    """Return the digest of torch's CPU random state."""
    return of_bytes(torch.default_generator.get_state().numpy())


def _leaves(value: Any, device: bool, depth: int) -> Iterator[int]:
    if isinstance(value, torch.Tensor):
        if type(value) in _READABLE and (device or value.is_cpu):
            yield of_tensor(value)
    elif isinstance(value, bool | int | float | str | bytes):
        yield of_bytes(repr(value).encode())
    elif depth < 8 and isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item, device, depth + 1)
    elif depth < 8 and isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, device, depth + 1)


_READABLE: Final = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


def _of_sparse(tensor: torch.Tensor) -> int:
    if tensor.layout == torch.sparse_coo:
        whole = tensor.coalesce()
        return combined((of_tensor(whole.indices()), of_tensor(whole.values())))
    return of_tensor(tensor.to_dense())
