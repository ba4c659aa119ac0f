"""A CPU tensor's numbers where they lie, read through the address and not through ``tensor.numpy()``.

A storage that numpy has once looked at can never be resized again, and the storages here are the program's own. A view is
for reading at once, while the tensor lives: it does not keep the memory.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

_FLOAT: Final = torch.float32
_MOST = 1024  # views kept, under half a megabyte; nine of ten gradients come to lie where an earlier one was, measured
_byte = ctypes.c_char
_views: dict[tuple[int, int], np.ndarray[Any, Any]] = {}


def floats(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return the flat numbers of a contiguous float32 CPU tensor; a pending negation is not in them.

    Raises:
        TypeError: it is not contiguous, or of another type or device, or its numbers do not lie in one piece of memory.
        RuntimeError: it has no memory at all (a sparse one, say).
    """
    if not (tensor.dtype is _FLOAT and tensor.is_cpu and tensor.is_contiguous()):
        raise TypeError("not in one piece")
    key = tensor.data_ptr(), tensor.numel()
    view = _views.get(key)
    return _new(key) if view is None else view


def raw(tensor: Tensor) -> Any:
    """Return the bytes of a contiguous CPU tensor of any type, as something with Python's buffer protocol.

    Raises:
        TypeError: its numbers do not lie in memory.
        RuntimeError: it has no memory at all.
    """
    address, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
    if not size:
        return b""
    if not address:
        raise TypeError("no numbers in memory")
    return (_byte * size).from_address(address)


def array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a copy of a CPU tensor's numbers that numpy may keep; a storage of the program's own is never handed to it."""
    copy: np.ndarray[Any, Any] = tensor.detach().clone().numpy()
    return copy


def _new(key: tuple[int, int]) -> np.ndarray[Any, Any]:
    address, count = key
    if not count:
        return np.zeros(0, np.float32)
    if not address:
        raise TypeError("no numbers in memory")
    if len(_views) >= _MOST:
        _views.clear()
    there: Any = (_byte * (4 * count)).from_address(address)
    view: np.ndarray[Any, Any] = np.frombuffer(there, np.float32)
    _views[key] = view
    return view
