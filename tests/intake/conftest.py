"""A writer of TensorBoard's event files, made from the format's description and from nothing of ours."""

import struct
from dataclasses import dataclass, field

import pytest


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data):
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def varint(number):
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def simple(tag, value):
    return message(1, tag.encode()) + b"\x15" + struct.pack("<f", value)


def tensor(tag, value, *, kind=1, shape=(), as_content=False):
    dims = b"".join(message(2, b"\x08" + varint(size)) for size in shape)
    packed = message(4, struct.pack("<f", value)) if as_content else message(5, struct.pack("<f", value))
    return message(1, tag.encode()) + message(8, b"\x08" + varint(kind) + message(2, dims) + packed)


def event(step, *values, time=1e9):
    return (
        b"\x09" + struct.pack("<d", time) + b"\x10" + varint(step) + message(5, b"".join(message(1, v) for v in values))
    )


@dataclass
class Writer:
    """Collects frames as SummaryWriter writes them."""

    time: float = 1e9
    frames: list = field(default_factory=list)

    def __post_init__(self):
        self.raw(b"\x09" + struct.pack("<d", self.time) + message(3, b"brain.Event:2"))

    def raw(self, data):
        self.frames.append(frame(data))

    def scalar(self, tag, value, step):
        self.raw(event(step, simple(tag, value), time=self.time))

    def curve(self, tag, values, *, every=1, start=0):
        for i, value in enumerate(values):
            self.scalar(tag, value, start + i * every)
        return self

    def save(self, folder, name="events.out.tfevents.1000000000.host.1.0"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"".join(self.frames))
        return folder / name


@pytest.fixture
def writer():
    return Writer


@pytest.fixture
def wire():
    """The pieces of the format, to break."""

    class Wire:
        pass

    for function in (frame, event, simple, tensor, message, varint, masked):
        setattr(Wire, function.__name__, staticmethod(function))
    return Wire
