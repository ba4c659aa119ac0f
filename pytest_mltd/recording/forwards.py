"""What is seen of forward passes: root modules, their batches and mode, and the outputs of leaf modules at sampled steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Final

import torch
from torch import Tensor

from pytest_mltd.recording import digests, lanes, outputs, sites
from pytest_mltd.recording.lanes import Lane, Number
from pytest_mltd.recording.naming import Identities, Names

_KEPT_BYTES: Final = 256 << 20  # of the one batch that is kept for probes; a guess

_TIMED: Final = 4  # calls of a root; the first may load or compile something; a guess

Statistics = tuple[Number, ...]  # mean, std, zeros, min, max, across, silent


class Forwards:
    """Collects, between two steps, what the module hooks see."""

    def __init__(self, names: Names, lane: Lane) -> None:
        self._names = names
        self._lane = lane
        self._roots: Identities[bool] = Identities()  # what was called outside of all others: does it have parameters
        self.batch: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.batch_model: torch.nn.Module | None = None  # the root that it went into
        self._unfinished = False  # whether that call goes on: its keywords are not known yet
        self.seconds = 0.0  # that the quickest of that root's first calls took
        self._timed = 0
        self._began: tuple[torch.nn.Module, float] | None = None
        self.outputs: dict[int, tuple[Statistics, int]] = {}
        self.digests: dict[int, int] = {}

    def is_root(self, module: torch.nn.Module, frame: FrameType) -> bool:
        """Tell whether an outermost module is a model (it has parameters); it is taken up when it is new."""
        known = self._roots.get(module)
        if known is None:
            known = self._names.add_root(module, sites.called_as(sites.caller_outside(frame)))
            self._roots.put(module, known)
        return known

    def keep_batch(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        """Keep a copy of the first inputs that a root was given. Keywords are heard of when the call is over."""
        if self.batch is None and _size(args) < _KEPT_BYTES:
            with lanes.quiet():
                self.batch, self.batch_model, self._unfinished = (copied(args), {}), module, True

    def keep_keywords(self, module: torch.nn.Module, kwargs: Mapping[str, Any]) -> None:
        """Keep the keyword arguments too, of the call whose batch was kept or of the first that has only keywords."""
        if self.batch is None:
            self.keep_batch(module, ())
        if self._unfinished and self.batch is not None and module is self.batch_model:
            with lanes.quiet():
                kept = copied(dict(kwargs)) if _size((self.batch, dict(kwargs))) < _KEPT_BYTES else None
            self.batch = (self.batch[0], kept) if kept is not None else None

    def begin_of_call(self, module: torch.nn.Module) -> None:
        """A root begins to run; its first calls are timed."""
        if self._timed < _TIMED:
            self._began = module, time.perf_counter()

    def end_of_call(self) -> None:
        """A root has returned."""
        self._unfinished = False
        if self._began is not None:
            (module, start), self._began = self._began, None
            if module is self.batch_model:
                took = time.perf_counter() - start
                self.seconds = min(self.seconds, took) if self._timed else took
                self._timed += 1

    def output(self, module: torch.nn.Module, output: Any, above: list[Any], frame: FrameType, digest: bool) -> None:
        """Take the statistics of a leaf's or root's output."""
        if module._modules and above:
            return
        if not (torch.is_grad_enabled() or module.training):
            return  # validation; checkpointed training runs without gradient, but in train mode
        first = next(tensors_in(output), None)
        if first is None or not lanes.readable(first) or not first.is_floating_point() or first.numel() == 0:
            return
        index = self._names.module(module)
        if index is None:
            index = self._names.adopt(module, above, frame)
        if index is None:
            return
        with lanes.quiet():
            values = first.detach()
            statistics = outputs.described(values, self._lane)
            self.outputs[index] = (statistics, first.shape[0] if first.dim() else 1)
            if digest:
                self.digests[index] = digests.of_tensor(values)


def tensors_in(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples, mappings and simple data objects (a model's output class)."""
    if isinstance(value, Tensor):
        yield value
    elif depth < 4:
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, list | tuple):
            for item in value:
                yield from tensors_in(item, depth + 1)


def _size(value: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors_in(value))


def copied(value: Any, depth: int = 0) -> Any:
    """Return nested lists, tuples and dicts with their tensors copied; other objects are kept as they are."""
    if isinstance(value, Tensor):
        return value.detach().clone() if lanes.readable(value) else value
    if depth < 4 and type(value) in (list, tuple):
        return type(value)(copied(item, depth + 1) for item in value)
    if depth < 4 and type(value) is dict:
        return {k: copied(item, depth + 1) for k, item in value.items()}
    return value


def batch_digest(inputs: Any, device: bool) -> tuple[int, int]:
    """Return (rows, digest) of a root's inputs: 0 rows when they are no batch but another module's output.

    ``device``: digest what lies on an accelerator too, which waits for it.
    """
    if (
        len(inputs) == 1
        and type(inputs) is tuple
        and type(one := inputs[0]) is Tensor
        and one.is_cpu
        and one.grad_fn is None
    ):
        if one.dim() and not torch._C._functorch.is_functorch_wrapped_tensor(one):  # the usual case, without a search
            return one.shape[0], digests.of_tensor(one)
    found = [t for t in tensors_in(inputs) if t.grad_fn is None and lanes.readable(t)]
    if not found:
        return 0, 0
    rows = found[0].shape[0] if found[0].dim() else 1
    if not device and any(t.device.type != "cpu" for t in found):
        return rows, 0
    if len(found) == 1:
        return rows, digests.of_tensor(found[0])
    return rows, digests.combined(digests.of_tensor(t) for t in found)
