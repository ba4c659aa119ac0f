"""Numbers on their way from tensors to the trace.

On the CPU a number is read at once. On an accelerator reading is a synchronisation, so reductions stay there: they are
stacked, and fetched together by one copy into pinned memory that nobody waits for; an event tells when it has arrived.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from pytest_mltd.recording import memory

Number = Any  # a float, or something whose float() is one once it has arrived

_BATCHES: Final = 64  # reductions that wait on the device before they are fetched; a guess


class Later:
    """A number that is still on a device. ``float()`` of it before it has arrived waits for it."""

    __slots__ = ("_at", "_batch")

    def __init__(self, batch: _Batch, at: int) -> None:
        self._batch = batch
        self._at = at

    def __float__(self) -> float:
        return self._batch.wait()[self._at]


class Derived:
    """A number computed from others when it is written."""

    __slots__ = ("_function", "_values")

    def __init__(self, function: Callable[[list[float]], float], values: Sequence[Number]) -> None:
        self._function = function
        self._values = values

    def __float__(self) -> float:
        return float(self._function([float(v) for v in self._values]))

    def __int__(self) -> int:
        return int(self._function([float(v) for v in self._values]))


class _Batch:
    """Some numbers of one device, stacked there."""

    __slots__ = ("_event", "_stacked", "_there", "_values", "count")

    def __init__(self, stacked: Tensor) -> None:
        self._stacked: Tensor | None = stacked
        self._there: Tensor | None = None
        self._event: Any = None
        self._values: list[float] | None = None
        self.count = stacked.numel()

    def fetch(self) -> None:
        """Start the copy to the host without waiting for it; only CUDA has pinned memory and events."""
        if self._stacked is None or self._stacked.device.type != "cuda":
            return
        self._there = torch.empty(self.count, dtype=self._stacked.dtype, device="cpu", pin_memory=True)
        self._there.copy_(self._stacked, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(self._stacked.device))

    @property
    def arrived(self) -> bool:
        return self._values is not None or self._event is None or bool(self._event.query())

    def wait(self) -> list[float]:
        if self._values is None:
            if self._event is not None and self._there is not None:
                self._event.synchronize()
                self._values = self._there.tolist()
            else:
                self._values = self._stacked.tolist() if self._stacked is not None else []
            self._stacked = self._there = self._event = None
        return self._values


class Lane:
    """Reads scalars. ``waiting`` is True once a device was seen; `fetch` and `arrived` then tell when rows may be written."""

    def __init__(self) -> None:
        self.waiting = False
        self._pending: list[_Batch] = []
        self._fetched: list[_Batch] = []

    def read(self, scalars: Sequence[Tensor]) -> list[Number]:
        """Return a number for each 0-d tensor: floats for the CPU's, `Later` for a device's."""
        if not scalars:
            return []
        if len(scalars) > 1:
            kind = scalars[0].device
            if any(s.device != kind for s in scalars):
                return [self._read_alike([s])[0] for s in scalars]
        return self._read_alike(scalars)

    def fetch(self) -> None:
        """Start to fetch everything that waits on a device."""
        for batch in self._pending:
            batch.fetch()
        self._fetched += self._pending
        self._pending = []

    @property
    def arrived(self) -> bool:
        """Whether all that was fetched is here."""
        if self._fetched and self._fetched[-1].arrived:
            for batch in self._fetched:
                batch.wait()
            self._fetched = []
        return not self._fetched

    def _read_alike(self, scalars: Sequence[Tensor]) -> list[Number]:
        stacked = scalars[0].reshape(1) if len(scalars) == 1 else torch.stack(list(scalars))
        if stacked.is_cpu:
            return stacked.tolist()
        self.waiting = True
        batch = _Batch(stacked)
        self._pending.append(batch)
        if len(self._pending) >= _BATCHES:
            self.fetch()
        return [Later(batch, i) for i in range(batch.count)]


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the L2 norm of each tensor as a 0-d tensor on its own device; float32 at least, whatever the tensors' type."""
    plain = [_dense(t) for t in tensors]
    dtypes = {t.dtype for t in plain}
    if dtypes <= {torch.float32} or dtypes <= {torch.float64}:
        return list(torch._foreach_norm(plain))
    return list(torch._foreach_norm([t if t.dtype in WIDE else t.float() for t in plain]))


def exact_norm(tensor: Tensor) -> float:
    """Return the L2 norm in float64, for a CPU tensor whose norm was not finite in its own type."""
    return float(torch.linalg.vector_norm(_dense(tensor).double()))


def total(values: Sequence[float]) -> float:
    """Return the L2 norm over several tensors from the norm of each; what was not taken (negative) is left out."""
    return math.hypot(*(v for v in values if v >= 0 or v != v))


def flat(tensor: Tensor) -> np.ndarray[Any, Any] | None:
    """Return a small contiguous float32 CPU tensor as a flat array, None for any other.

    For these numpy is the cheaper engine: no dispatch, no tensor for the result (measured up to 16,384 numbers).
    """
    if tensor.is_cpu and tensor.dtype is torch.float32 and tensor.numel() <= _SMALL and not tensor.is_neg():
        try:
            return memory.floats(tensor)
        except (TypeError, RuntimeError):
            return None
    return None


_SMALL: Final = 1 << 14
WIDE: Final = frozenset({torch.float32, torch.float64})
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
is_batched = torch._C._functorch.is_legacy_batchedtensor  # in autograd.grad(..., is_grads_batched=True)
_NO_DISPATCH: Final = Tensor.__torch_dispatch__
_PLAIN: Final = frozenset({Tensor, torch.nn.Parameter})


def readable(value: object) -> bool:
    """Whether a value is a tensor whose numbers can be looked at: no fake, traced or vmapped one, no subclass."""
    return type(value) in _PLAIN and not _is_wrapped(value)  # type: ignore[arg-type]


def plain(value: object) -> Tensor | None:
    """Return a value as a tensor of torch's own type whose numbers can be looked at, None where there is no such thing.

    A subclass that only has methods of its own is one; one that wraps other tensors, or stands for none, is not.
    """
    if readable(value):
        return None if is_batched(value) else value  # type: ignore[return-value, arg-type]
    if not issubclass(type(value), Tensor) or type(value).__torch_dispatch__ is not _NO_DISPATCH:  # type: ignore[attr-defined]
        return None
    with torch._C.DisableTorchFunctionSubclass():
        if _is_wrapped(value) or value.layout is not torch.strided:  # type: ignore[arg-type, attr-defined]
            return None
        return value.as_subclass(Tensor)  # type: ignore[attr-defined, no-any-return]


@contextlib.contextmanager
def without_modes() -> Any:
    """Hold back the program's modes, so that they do not see our own operations."""
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def in_transform() -> bool:
    """Whether a transform of torch.func runs: nothing can be read inside of one."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def has_modes() -> bool:
    """Whether the program has a mode on that sees every operation."""
    return bool(torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack())


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which our own operations are not differentiated."""
    return torch.no_grad()


def _dense(tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.to_dense()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
