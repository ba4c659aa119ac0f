"""TensorBoard event files: TFRecord frames with crc32c, and the few fields of their protobuf messages that hold scalars.

A frame is the length (u64), its checksum, the data, their checksum. The data are an ``Event``: 1 wall time, 2 step, 5 summary.
A summary holds values (1): tag (1), simple_value (2), tensor (8), metadata (9). A scalar is a simple value or a tensor of one
number.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.intake.series import Scalars

_LARGEST: Final = 1 << 20  # bytes of a record that is read; images and graphs are longer, scalars are not
_CHECKED: Final = 4096  # bytes of data up to which the checksum is computed: byte by byte, for many records at once
_AT_ONCE: Final = 4096  # records
_TAG: Final = 1000  # characters of a name

Wire = tuple[int, "int | bytes"]


def is_event_file(path: Path) -> bool:
    """Whether a file begins with a frame of TensorBoard's: a length and the checksum of it."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return len(head) == 12 and _length(head) is not None


def first_time(path: Path) -> float:
    """Return the wall time of the first event, in seconds; infinity where there is none."""
    try:
        with open(path, "rb") as file:
            for data in _records(file, Scalars()):
                return _event(data[:-4])[0]
    except (OSError, ValueError):
        pass
    return float("inf")


def read_events(path: Path, into: Scalars, prefix: str = "") -> None:
    """Append the scalars of one event file; a torn tail is noted.

    Args:
        path: the file.
        into: where they go.
        prefix: stands before each name, as in ``"train/"``.
    """
    damaged = 0
    with open(path, "rb") as file:
        waiting: list[bytes] = []
        for data in _records(file, into):
            waiting.append(data)
            if len(waiting) == _AT_ONCE:
                damaged += _take(waiting, into, prefix)
                waiting = []
        damaged += _take(waiting, into, prefix)
    if damaged:
        into.notes.append(
            f"{path.name}: {damaged:,} damaged {'record was' if damaged == 1 else 'records were'} left out"
        )


def _take(records: list[bytes], into: Scalars, prefix: str) -> int:
    """Append the scalars of some records, and return how many were damaged."""
    found, damaged = [], 0
    for data in records:
        try:
            _, step, numbers = _event(data[:-4])
        except ValueError:
            damaged += 1
            continue
        if numbers:
            found.append((data, step, numbers))
    for (_, step, numbers), good in zip(found, _undamaged([data for data, _, _ in found]), strict=True):
        if not good:
            damaged += 1
            continue
        for name, value in numbers:
            into.add(prefix + name, step, value)
    return damaged


def _records(file: BinaryIO, into: Scalars) -> Iterator[bytes]:
    """Yield the data of each record with its checksum, those that are too long for a scalar passed over."""
    size = os.fstat(file.fileno()).st_size
    while head := file.read(12):
        length = _length(head) if len(head) == 12 else None
        at = file.tell()
        if length is None or at + length + 4 > size:
            into.torn = True
            into.notes.append(f"the log is torn at byte {at - len(head):,} of {size:,}")
            return
        if length > _LARGEST:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        yield file.read(length + 4)


@lru_cache(maxsize=1024)  # records of one name have one length
def _length(head: bytes) -> int | None:
    """Return the length that a frame's head states, or None where its checksum is another."""
    length, told = struct.unpack("<QI", head)
    return int(length) if int(_masked(np.frombuffer(head[:8], np.uint8)[None])[0]) == told else None


def _undamaged(records: list[bytes]) -> list[bool]:
    """Return for each record whether its data have the checksum that follows them; long ones are trusted."""
    good = [True] * len(records)
    by_length: dict[int, list[int]] = {}
    for i, data in enumerate(records):
        if len(data) <= _CHECKED + 4:
            by_length.setdefault(len(data), []).append(i)
    for length, rows in by_length.items():
        block = np.frombuffer(b"".join(records[i] for i in rows), np.uint8).reshape(len(rows), length)
        told = block[:, -4:].copy().view("<u4")[:, 0]
        for i, same in zip(rows, _masked(block[:, :-4]) == told, strict=True):
            good[i] = bool(same)
    return good


def _masked(blocks: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the masked crc32c of each row."""
    table = _table()
    crc = np.full(len(blocks), 0xFFFFFFFF, np.uint32)
    for column in range(blocks.shape[1]):
        crc = table[(crc ^ blocks[:, column]) & 0xFF] ^ (crc >> 8)
    crc = np.invert(crc)
    return (((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)).astype(np.uint32)


@cache
def _table() -> NDArray[np.uint32]:
    entries = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        entries = np.where(entries & 1, (entries >> 1) ^ np.uint32(0x82F63B78), entries >> 1).astype(np.uint32)
    return entries


def _event(data: bytes) -> tuple[float, int, list[tuple[str, float]]]:
    """Return wall time, step and scalars of an event.

    Raises:
        ValueError: the bytes are no protobuf message.
    """
    when, step, numbers = float("inf"), 0, []
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes) and len(value) == 8:
            when = struct.unpack("<d", value)[0]
        elif field == 2 and isinstance(value, int):
            step = value - (1 << 64) if value >> 63 else value
        elif field == 5 and isinstance(value, bytes):
            for inner, entry in _fields(value):
                if inner == 1 and isinstance(entry, bytes) and (number := _value(entry)) is not None:
                    numbers.append(number)
    return when, step, numbers


def _value(data: bytes) -> tuple[str, float] | None:
    name, number = "", None
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            name = value[:_TAG].decode("utf-8", "replace")
        elif field == 2 and isinstance(value, bytes) and len(value) == 4:
            number = struct.unpack("<f", value)[0]
        elif field == 8 and isinstance(value, bytes):
            number = _tensor(value)
    return (name, number) if number is not None else None


_KINDS: Final = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # DataType: float, double, int32, int64, half


def _tensor(data: bytes) -> float | None:
    """Return the number in a tensor of one element, or None for any other tensor."""
    kind, held, content = 0, list[float](), b""
    for field, value in _fields(data):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field == 2 and isinstance(value, bytes) and _elements(value) != 1:
            return None
        elif field == 4 and isinstance(value, bytes):
            content = value
        elif field in (5, 6) and isinstance(value, bytes):
            width, code = (4, "<f4") if field == 5 else (8, "<f8")
            if len(value) == width:  # packed or not, one number is the same bytes
                held.append(float(np.frombuffer(value, code)[0]))
        elif field in (7, 10):
            held += [float(v - (1 << 64) if v >> 63 else v) for v in _whole_numbers(value)]
    if kind in _KINDS and len(content) == np.dtype(_KINDS[kind]).itemsize:
        return float(np.frombuffer(content, _KINDS[kind])[0])
    return held[0] if len(held) == 1 and kind in _KINDS else None


def _elements(shape: bytes) -> int:
    total = 1
    for field, value in _fields(shape):
        if field == 2 and isinstance(value, bytes):
            total *= next((size for inner, size in _fields(value) if inner == 1 and isinstance(size, int)), 0)
    return total


def _whole_numbers(value: int | bytes) -> list[int]:
    if isinstance(value, int):
        return [value]
    found: list[int] = []
    at = 0
    while at < len(value) and len(found) < 2:
        number, at = _varint(value, at)
        found.append(number)
    return found


def _fields(data: bytes) -> Iterator[Wire]:
    """Yield number and content of each field: an integer, or the bytes.

    Raises:
        ValueError: a field goes beyond the end, or is of no known kind.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + length > end:
            raise ValueError(f"a field of {length} bytes, {end - at} before the end")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number & ((1 << 64) - 1), at
    raise ValueError("a number without an end")
