"""What is kept of a module's output: its mean, spread, share of zeros and extremes, and how far its rows and units differ."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from pytest_mltd.recording import lanes, memory
from pytest_mltd.recording.lanes import Lane, Number

_NAN: Final = float("nan")
_ROWS: Final = 64  # of an output that are compared with each other; a guess
_COLUMNS: Final = 1024  # units times positions of each row; a guess
_FEWEST: Final = 4  # rows from which a spread across them is stated


def described(tensor: Tensor, lane: Lane) -> tuple[Number, ...]:
    """Return mean, standard deviation, share of zeros, least, greatest, spread across rows and share of silent units.

    The last two are NaN where the first axis has fewer than 4 entries or there is no other: see `compared`.
    """
    whole = numbers(tensor, lane)
    sample = _sample(tensor)
    if sample is None:
        return *whole, _NAN, _NAN
    if not tensor.is_cpu:
        return *whole, *lane.read(_compared_there(sample))
    return *whole, *compared(sample, some_are_zero=bool(whole[2] > 0))


def numbers(tensor: Tensor, lane: Lane) -> tuple[Number, ...]:
    """Return mean, standard deviation, share of zeros, least and greatest of a module's output."""
    values = lanes.flat(tensor)
    if values is None:
        return _large(tensor, lane) if tensor.is_cpu else tuple(lane.read(statistics(tensor)))
    with np.errstate(all="ignore"):
        mean = np.add.reduce(values) / values.size
        centred = values - mean
        spread = math.sqrt(np.vdot(centred, centred) / values.size)
        some = values[:: stride_for(values.size, tensor.shape[-1] if tensor.dim() else 1)]
        zeros = 1 - np.count_nonzero(some) / some.size
        return float(mean), spread, zeros, float(np.minimum.reduce(values)), float(np.maximum.reduce(values))


def statistics(tensor: Tensor) -> list[Tensor]:
    """Return mean, standard deviation, share of zeros, least and greatest of a module's output, as 0-d tensors.

    The share of zeros is of at most 4,096 values spread over the whole: counting all costs more than the layer.
    """
    flat = tensor.reshape(-1)
    if flat.dtype not in lanes.WIDE:
        flat = flat.float()
    mean = flat.mean()
    centred = flat - mean
    spread = torch.dot(centred, centred).div_(flat.numel()).sqrt_()
    some = flat[:: stride_for(flat.numel(), tensor.shape[-1] if tensor.dim() else 1)]
    zeros = (some == 0).sum().div(some.numel())
    return [mean, spread, zeros, flat.amin(), flat.amax()]


def compared(sample: Tensor, some_are_zero: bool = True) -> tuple[float, float]:
    """Return how far the rows differ, and the share of units that are 0 in every row and position looked at.

    Args:
        sample: rows × positions × units, on the CPU.
        some_are_zero: False where no zero was seen, so that no unit is silent.
    """
    rows, positions, units = sample.shape
    there = sample.float().contiguous()
    values = memory.floats(there).reshape(rows, positions * units)
    with np.errstate(all="ignore"):
        centred = values - np.add.reduce(values, 0) / rows
        across = math.sqrt(np.vdot(centred, centred) / values.size)
    if not some_are_zero:
        return across, 0.0
    return across, 1 - np.count_nonzero(values.reshape(rows * positions, units).any(0)) / units


def stride_for(count: int, last: int, most: int = 4096) -> int:
    """Return a stride that takes at most ``most`` of ``count`` values and does not keep to the same columns."""
    stride = -(-count // most)
    while stride > 1 and math.gcd(stride, last) != 1:
        stride += 1
    return max(stride, 1)


def _sample(tensor: Tensor) -> Tensor | None:
    """Return some rows × positions × units of an output: channels are the second axis from 4 axes on, else the last one."""
    if tensor.dim() < 2 or tensor.shape[0] < _FEWEST or not tensor.numel():
        return None
    rows = tensor[:_ROWS]
    if tensor.dim() == 2:
        rows = rows.unsqueeze(1)
    elif tensor.dim() > 3:
        rows = rows.flatten(2).transpose(1, 2)
    positions, units = rows.shape[1:]
    every_unit = -(-units // _COLUMNS)
    every_position = -(-positions * min(units, _COLUMNS) // _COLUMNS)
    return rows[:, ::every_position, ::every_unit]


def _compared_there(sample: Tensor) -> list[Tensor]:
    """Do as `compared` on the device where the sample is."""
    values = sample.float()
    spread = values.flatten(1).var(0, unbiased=False).mean().sqrt()
    return [spread, (values == 0).flatten(0, 1).all(0).float().mean()]


def _large(tensor: Tensor, lane: Lane) -> tuple[Number, ...]:
    """Describe a large output on the CPU without a copy of it, unless the mean is so far out that the spread would cancel."""
    whole = tensor.reshape(-1)
    if whole.dtype not in lanes.WIDE:
        whole = whole.float()
    count = whole.numel()
    some = whole[:: stride_for(count, tensor.shape[-1] if tensor.dim() else 1)]
    read: list[Any] = lane.read([whole.sum(), torch.dot(whole, whole), (some == 0).sum(), whole.amin(), whole.amax()])
    total, squares, zeros, least, greatest = (float(n) for n in read)
    mean = total / count
    variance = squares / count - mean * mean
    if not variance > 1e-2 * mean * mean:  # float32 sums are good to about 1e-5; NaN goes the exact way too
        return tuple(lane.read(statistics(tensor)))
    return mean, math.sqrt(variance), zeros / some.numel(), least, greatest
