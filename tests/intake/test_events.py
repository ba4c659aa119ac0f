import numpy as np
import pytest

from pytest_mltd.intake import read
from pytest_mltd.intake.events import _masked, is_event_file, read_events
from pytest_mltd.intake.series import Scalars


def _read(file):
    into = Scalars()
    read_events(file, into)
    return into


def _values(into, name):
    return list(into.points[name].steps), [round(v, 6) for v in into.points[name].values]


def test_checksum_is_the_one_that_the_standard_gives():
    """crc32c of "123456789" is 0xE3069283 (RFC 3720), masked as TFRecord masks it."""
    block = np.frombuffer(b"123456789", np.uint8)[None]
    assert int(_masked(block)[0]) == (((0xE3069283 >> 15) | (0xE3069283 << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_simple_values_are_read_with_their_steps(tmp_path, writer):
    """What add_scalar wrote comes back, step 0 included, which protobuf leaves out or not."""
    file = writer().curve("Loss/train", [2.5, 1.5, 0.5], every=50).save(tmp_path)
    assert _values(_read(file), "Loss/train") == ([0, 50, 100], [2.5, 1.5, 0.5])


def test_new_style_scalars_are_read_from_tensors(tmp_path, writer, wire):
    """A tensor of one number is a scalar, as a packed value or as raw bytes; a vector is none."""
    log = writer()
    log.raw(wire.event(1, wire.tensor("loss", 1.25)))
    log.raw(wire.event(2, wire.tensor("loss", 0.75, shape=(1,), as_content=True)))
    log.raw(wire.event(3, wire.tensor("histogram", 0.75, shape=(10, 3))))
    log.raw(wire.event(4, wire.tensor("text", 0.75, kind=7)))
    into = _read(log.save(tmp_path))
    assert _values(into, "loss") == ([1, 2], [1.25, 0.75])
    assert set(into.points) == {"loss"}


def test_a_torn_tail_is_read_up_to_there(tmp_path, writer):
    """Whatever byte a killed job stopped at, the whole records before it are read and the place is told."""
    log = writer().curve("loss", [3.0, 2.0, 1.0])
    file, last = log.save(tmp_path), len(log.frames[-1])
    whole = file.read_bytes()
    for cut in range(1, last):
        file.write_bytes(whole[:-cut])
        into = _read(file)
        assert into.torn
        assert _values(into, "loss")[1] == [3.0, 2.0]
        assert into.notes == [f"the log is torn at byte {len(whole) - last:,} of {len(whole) - cut:,}"]


def test_a_damaged_record_is_left_out_and_counted(tmp_path, writer):
    """A flipped bit in a value makes no number of another size: the record's checksum is compared."""
    log = writer().curve("loss", [3.0, 2.0, 1.0])
    log.frames[2] = log.frames[2][:-6] + bytes([log.frames[2][-6] ^ 0x40]) + log.frames[2][-5:]
    into = _read(log.save(tmp_path))
    assert _values(into, "loss") == ([0, 2], [3.0, 1.0])
    assert into.notes == ["events.out.tfevents.1000000000.host.1.0: 1 damaged record was left out"]


def test_lying_lengths_take_no_memory(tmp_path, writer, wire):
    """A frame that claims 2**60 bytes, its checksum right, ends the reading; a field that claims too much is damage."""
    import struct

    head = struct.pack("<Q", 1 << 60)
    log = writer().curve("loss", [1.0])
    log.frames.append(head + struct.pack("<I", wire.masked(head)) + b"x" * 50)
    assert _read(log.save(tmp_path)).torn
    log = writer().curve("loss", [1.0])
    log.raw(b"\x2a" + wire.varint(1 << 62))
    log.raw(b"\xff" * 30)
    log.raw(wire.event(5, wire.message(8, b"\x12\x05\x12\x7f\x08\x01\x08")))
    into = _read(log.save(tmp_path))
    assert _values(into, "loss") == ([0], [1.0])
    assert "3 damaged records were left out" in into.notes[0]


def test_any_bytes_are_read_or_refused(tmp_path, writer, wire):
    """Noise inside valid frames raises nothing but damage."""
    rng = np.random.default_rng(0)
    log = writer().curve("loss", [1.0])
    for length in rng.integers(0, 80, 300):
        log.raw(rng.bytes(length))
    assert _values(_read(log.save(tmp_path)), "loss") == ([0], [1.0])


def test_an_image_is_passed_over(tmp_path, writer):
    """A record of megabytes is skipped, and what follows is read."""
    log = writer().curve("loss", [1.0])
    log.frames.append(b"")  # its place; built below without a slow checksum of its data
    import struct

    data = b"\x00" * ((1 << 20) + 1)
    head = struct.pack("<Q", len(data))
    from pytest_mltd.intake.events import _masked

    log.frames[-1] = head + struct.pack("<I", int(_masked(np.frombuffer(head, np.uint8)[None])[0])) + data + b"????"
    log.scalar("loss", 0.5, 1)
    into = _read(log.save(tmp_path))
    assert _values(into, "loss") == ([0, 1], [1.0, 0.5])
    assert not into.notes


def test_another_file_is_no_event_file(tmp_path):
    """Recognised by content: a name alone does not make one."""
    other = tmp_path / "events.out.tfevents.1"
    other.write_bytes(b"not a log of any kind, really")
    assert not is_event_file(other)
    with pytest.raises(ValueError, match="^path: "):
        read(other)


def test_negative_steps_and_names_that_are_no_text_do_no_harm(tmp_path, writer, wire):
    """A step below zero is left out, undecodable bytes of a name are replaced."""
    log = writer()
    log.raw(wire.event(-5, wire.simple("loss", 1.0)))
    log.raw(wire.event(3, wire.message(1, b"\xff\xfe") + wire.simple("", 1.0)[2:]))
    log.scalar("loss", 2.0, 7)
    trace = read(log.save(tmp_path))
    assert trace.losses["step"].tolist() == [7]
    assert trace.names == ("��",)
