"""A child that starts from this process's state, and what becomes of it."""

import gc
import os
import signal
import sys
import threading
import time

import pytest

from pytest_mltd.probes import children
from pytest_mltd.probes.children import in_child

pytestmark = pytest.mark.skipif(bool(children.forbids_fork()), reason="this system cannot fork safely")


def test_it_hands_over_plain_data_and_leaves_nothing_behind():
    """What the child returns arrives; what it changes does not."""
    here = [1]
    ended = in_child(lambda: {"seen": here[0], "grown": here.append(2) or len(here), "big": "x" * 3_000_000})
    assert (ended.payload["seen"], ended.payload["grown"], len(ended.payload["big"])) == (1, 2, 3_000_000)
    assert here == [1]


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda: os.kill(os.getpid(), 11), "the process died of SIGSEGV"),
        (lambda: os._exit(3), "the process left with exit code 3"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: sys.exit(2), "SystemExit: 2"),
    ],
)
def test_why_there_is_nothing(work, reason):
    """A death, an exit and an error each have their words."""
    ended = in_child(work)
    assert ended.payload is None
    assert not ended.hung
    assert reason in ended.reason


def test_standing_still_is_ended_and_working_is_not():
    """The limit is on CPU time standing still; a child that works, or whose child works, lives longer."""
    still = in_child(lambda: threading.Event().wait() and {}, still=0.8)
    assert still.hung
    assert "no CPU time used for 1 s" in still.reason

    def busy():
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            sum(range(1000))
        return {}

    assert in_child(busy, still=0.8).payload == {}


def test_a_person_at_a_prompt_is_waited_for():
    """A child that says it is being debugged may stand still."""

    def debugged():
        children.is_debugging()
        time.sleep(1.8)
        return {"continued": True}

    assert in_child(debugged, still=0.5).payload == {"continued": True}


def test_a_grandchild_that_holds_the_pipe_does_not_hold_up_the_parent():
    """The end of the message counts, not the end of the pipe: a worker left behind keeps it open."""

    def leaves_a_worker():
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        return {"done": True}

    start = time.monotonic()
    assert in_child(leaves_a_worker).payload == {"done": True}
    assert time.monotonic() - start < 4


def test_forks_are_refused_where_they_are_not_safe(monkeypatch):
    """Another system than Linux is named in the refusal."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert children.forbids_fork() == "a fork is not safe on darwin"
    monkeypatch.delattr(os, "fork")
    assert children.forbids_fork() == "this system cannot fork"


def test_threads_asked_for_here_are_kept_for_the_children():
    """torch stays on one thread in this process; a child gets what was asked for, and afterwards so does this process."""
    import torch

    threads = children.Threads()
    try:
        torch.set_num_threads(2)
        assert torch.get_num_threads() == 1
        assert threads.wanted == 2
        ended = in_child(lambda: {"n": torch.get_num_threads()}, threads=threads.wanted)
        assert ended.payload == {"n": 2}
    finally:
        threads.close()
    assert torch.get_num_threads() == 2


class Made:
    """Something a module makes at import, as an optimizer or a loader."""

    def __init__(self, path=None):
        self.path, self.me = path, self  # a cycle: only the collector can end it

    def __del__(self):
        if self.path is not None:
            with open(self.path, "a") as file:
                file.write(f"{os.getpid()} ")


MADE = Made()


def test_what_was_made_before_is_found_there():
    """The recorder finds optimizers and loaders among all objects, also those older than the child."""
    assert in_child(lambda: {"n": sum(type(x) is Made for x in gc.get_objects())}).payload == {"n": 1}


def test_garbage_of_this_process_is_not_finalized_there(tmp_path):
    """What nobody holds any more is finalized once, here, and not by each child that collects garbage."""
    gc.disable()
    try:
        Made(tmp_path / "finalized")
        assert in_child(lambda: {"n": gc.collect()}).payload
    finally:
        gc.enable()
    assert (tmp_path / "finalized").read_text() == f"{os.getpid()} "


def test_a_process_that_ignores_the_end_of_its_children():
    """Where a signal handler takes the exit code away, what was handed over counts, and a death is told without it."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert in_child(lambda: {"done": True}).payload == {"done": True}
        assert in_child(lambda: os._exit(3)).reason == "the process left, and its exit code is not known"
        assert in_child(lambda: time.sleep(9), still=0.5).hung
    finally:
        signal.signal(signal.SIGCHLD, before)
