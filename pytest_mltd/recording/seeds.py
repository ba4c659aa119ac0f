"""Every generator of random numbers set by one seed, and put back as it was (`seed_everything`).

Nothing is imported for it: what is not imported yet (torch, numpy) is seeded at the moment the program imports it.
"""

from __future__ import annotations

import contextlib
import operator
import os
import random
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, SupportsIndex, get_args

from pytest_mltd.recording.imports import loaded, now_or_when_imported

Determinism = Literal["warn", "strict"]

_HIGHEST = 2**32 - 1  # numpy.random.seed takes no more; Python and torch would
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_UNSTABLE = re.compile(
    r"(?P<op>\S.*?) (?:does not have a deterministic implementation|defaults to a non-deterministic)"
)
_UNSTABLE_CUBLAS = re.compile(r"Deterministic behavior was enabled .* CuBLAS", re.DOTALL)


def seed_everything(seed: SupportsIndex, *, deterministic: Determinism | None = "warn") -> Seeding:
    """Set the random state of Python, numpy and torch (all devices), and ask torch for operations that repeat.

    Call it and it holds from then on; or use it as a context manager, and at the end of the block everything is as it was
    before: random states, determinism flags, cuDNN flags, the environment. torch and numpy are not imported for it; when the
    program imports one later, it is seeded at that moment. A DataLoader draws the seeds of its workers (Python's, numpy's and
    torch's) from torch's generator, so they follow. Generators that the program makes itself are not reached
    (``numpy.random.default_rng()`` without a seed, an own ``torch.Generator``).

    Under pytest-randomly, which seeds again between a test's set-up and its call, seed in the test and not in a fixture;
    ``--mltd-seed`` does it at the right moment.

    Args:
        seed: an integer from 0 to 4294967295 (numpy takes no more).
        deterministic: "warn" asks torch for deterministic algorithms where it has them; an operation that has none runs, and
            is noted in ``.operations`` (a warning, once for each, and never an error). "strict": such an operation raises.
            None leaves determinism alone. The first two set cuDNN to deterministic without benchmarking, and
            ``CUBLAS_WORKSPACE_CONFIG`` where it is not set; that works only before CUDA starts, otherwise ``.notes`` says so.

    Raises:
        TypeError: the seed is no integer.
        ValueError: the seed is out of range, or ``deterministic`` is none of the three.

    Example:
        >>> import random
        >>> with seed_everything(7):
        ...     first = random.random()
        >>> with seed_everything(7):
        ...     first == random.random()
        True
    """
    number = checked_seed(seed)
    if deterministic is not None and deterministic not in get_args(Determinism):
        raise ValueError(f"deterministic: 'warn', 'strict' or None is needed, not {deterministic!r}")
    return Seeding(number, deterministic)


class Seeding:
    """What `seed_everything` did. As a context manager it undoes that at the end of the block.

    ``operations`` are the operations seen since that have no deterministic implementation; ``notes`` what could not be done.
    """

    def __init__(self, seed: int, deterministic: Determinism | None) -> None:
        self.seed = seed
        self.notes: list[str] = []
        self._operations: dict[str, None] = {}
        self._deterministic = deterministic
        self._undo = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            self._seed_all(undo)
            self._undo = undo.pop_all()

    @property
    def operations(self) -> tuple[str, ...]:
        return tuple(self._operations)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _seed_all(self, undo: contextlib.ExitStack) -> None:
        if self._deterministic is not None:
            _set_environment(undo, self.notes)
            _listen_for_warnings(undo, self._operations)
        undo.callback(random.setstate, random.getstate())
        random.seed(self.seed)
        now_or_when_imported("numpy.random", self._seed_numpy, undo)
        now_or_when_imported("torch", self._seed_torch, undo)

    def _seed_numpy(self, numpy_random: Any, undo: contextlib.ExitStack) -> None:
        undo.callback(numpy_random.set_state, numpy_random.get_state(legacy=False))
        numpy_random.seed(self.seed)

    def _seed_torch(self, torch: Any, undo: contextlib.ExitStack) -> None:
        undo.callback(_restore_torch, torch, torch.get_rng_state(), _device_states(torch))
        torch.manual_seed(self.seed)
        if self._deterministic is not None:
            _set_flags(torch, self._deterministic, undo)


@dataclass(frozen=True, slots=True)
class RandomState:
    """The state of every global generator that was there: of Python, and of numpy and torch where imported."""

    python: Any
    numpy: Any = None
    torch: Any = None
    devices: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def snapshot() -> RandomState:
    """Return the state of all global generators; drawing nothing, importing nothing."""
    numpy_random, torch = loaded("numpy.random"), loaded("torch")
    return RandomState(
        python=random.getstate(),
        numpy=None if numpy_random is None else numpy_random.get_state(legacy=False),
        torch=None if torch is None else torch.get_rng_state(),
        devices={} if torch is None else _device_states(torch),
    )


def restore(state: RandomState) -> None:
    """Put the generators back into a state that `snapshot` returned. One that was not imported then is left alone."""
    random.setstate(state.python)
    if state.numpy is not None:
        sys.modules["numpy.random"].set_state(state.numpy)
    if state.torch is not None:
        _restore_torch(sys.modules["torch"], state.torch, state.devices)


def checked_seed(seed: SupportsIndex) -> int:
    """Return a seed as an int.

    Raises:
        TypeError: it is no integer.
        ValueError: it is out of range.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed: an integer is needed, not {seed!r}") from None
    if isinstance(seed, bool):
        raise TypeError(f"seed: an integer is needed, not {seed!r}")
    if not 0 <= number <= _HIGHEST:
        raise ValueError(f"seed: an integer from 0 to {_HIGHEST} is needed, not {number}")
    return number


def _set_environment(undo: contextlib.ExitStack, notes: list[str]) -> None:
    """Tell cuBLAS to keep to one workspace, without which matrix products on CUDA may differ from run to run."""
    if _CUBLAS in os.environ:
        return
    torch = loaded("torch")
    if torch is not None and torch.cuda.is_initialized():
        notes.append(f"CUDA had started before the seed was set: set {_CUBLAS}=:4096:8 in the environment")
        return
    os.environ[_CUBLAS] = ":4096:8"
    undo.callback(os.environ.pop, _CUBLAS, None)


def _listen_for_warnings(undo: contextlib.ExitStack, seen: dict[str, None]) -> None:
    """Note torch's word on an operation that may not repeat; it must not stop a run under ``-W error``."""
    undo.enter_context(warnings.catch_warnings())
    # The filters match the beginning of the message, which is the operation's own name.
    for begin in (
        r".* does not have a deterministic impl",
        r".* defaults to a non-determ",
        r"Deterministic behavior was",
    ):
        warnings.filterwarnings("always", message=begin, category=UserWarning)
    # Not ours again: a program may set its seed a thousand times.
    shown = getattr(warnings.showwarning, "shown", warnings.showwarning)

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        operation = _unstable(str(message))
        if operation not in seen:
            shown(message, category, *where, **more)
        if operation:
            seen[operation] = None

    show.shown = shown  # type: ignore[attr-defined]
    warnings.showwarning = show


def _unstable(message: str) -> str:
    if _UNSTABLE_CUBLAS.match(message):
        return "a CuBLAS matrix product"
    found = _UNSTABLE.match(message)
    return found["op"] if found else ""


def _set_flags(torch: Any, deterministic: Determinism, undo: contextlib.ExitStack) -> None:
    # Not torch.use_deterministic_algorithms: it imports the whole of inductor, 0.7 s, to set a flag there.
    undo.callback(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode())
    torch.set_deterministic_debug_mode("warn" if deterministic == "warn" else "error")
    filling, cudnn = torch.utils.deterministic, torch.backends.cudnn
    for holder, name, value in (
        # Filling fresh memory with NaN would show a program other numbers than it has without us.
        (filling, "fill_uninitialized_memory", False),
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
    ):
        undo.callback(setattr, holder, name, getattr(holder, name))
        setattr(holder, name, value)


def _device_states(torch: Any) -> dict[str, Sequence[Any]]:
    """Return the generator states of the accelerators that have started; asking must not start one."""
    states: dict[str, Sequence[Any]] = {}
    for name in ("cuda", "xpu"):
        module = getattr(torch, name, None)
        if module is not None and module.is_initialized():
            states[name] = module.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = [torch.mps.get_rng_state()]
    return states


def _restore_torch(torch: Any, state: Any, devices: Mapping[str, Sequence[Any]]) -> None:
    torch.set_rng_state(state)
    for name, states in devices.items():
        module = getattr(torch, name)
        module.set_rng_state(states[0]) if name == "mps" else module.set_rng_state_all(states)
    # An accelerator that started in between had no state before; a fresh one begins with a seed from the system.
    if "cuda" not in devices and torch.cuda.is_initialized():
        torch.cuda.seed_all()
