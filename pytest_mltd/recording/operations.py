"""Single operations, watched one by one: which made a value that is not finite, of what, and for whom.

An infinity may be meant: a mask filled with it, a maximum that begins at it. So nothing is judged when it is made. What was
made is remembered, and whoever finds a broken loss or gradient goes back from it to what made it (`Operations.behind`).
"""

from __future__ import annotations

import math
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytest_mltd.recording import hooks, lanes, sites

_MOST_EVENTS: Final = 4096  # whose tensors are held; a guess
_MOST_BYTES: Final = 512 << 20  # of those tensors; a guess


@dataclass(frozen=True, slots=True)
class Extremes:
    """What a tensor held: its numbers are over the finite values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None  # None where none is finite
    high: float | None
    smallest: float | None  # |x|
    zeros: int
    nans: int
    infinities: int
    only_negative: bool  # all infinities are -inf

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bad(self) -> int:
        return self.nans + self.infinities


@dataclass(slots=True, eq=False)
class Event:
    """An operation that gave a value that is not finite.

    ``outside`` marks what no operation was seen to make: ``inputs`` is then empty, and site and module are of its first use.
    ``intended``: the infinity was written as such, or came from one that was, and no NaN was made of it.
    """

    index: int
    operation: str
    phase: str  # forward, backward, step
    site: str = ""
    module: str = ""
    inputs: tuple[Extremes, ...] = ()
    output: Extremes | None = None
    nan: bool = False
    outside: bool = False
    intended: bool = False
    parameter: bool = False  # of what is outside
    parents: tuple[Event, ...] = ()

    @property
    def causes(self) -> tuple[Event, ...]:
        """The events that this one only handed on; none where the value was born here."""
        if self.nan:
            from_nan = tuple(p for p in self.parents if p.nan)
            return from_nan or tuple(p for p in self.parents if not p.intended)
        return tuple(p for p in self.parents if not p.intended) or self.parents


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches every operation of a thread while it is entered. Results and random states are as without it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        self.stepping = False  # inside an optimizer's step
        self._made: dict[int, Event] = {}  # by storage: what wrote the last value into it that is not finite
        self._held: deque[tuple[int, Tensor, Event]] = deque()  # so that no storage's address is used again
        self._bytes = 0
        self._places: dict[int, _Place] = {}  # of the forward operations, by sequence number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.count += 1
        given = [*_tensors((*args, *kwargs.values()))]
        written = _written(func, args, kwargs)
        before = {id(t): t.detach().clone() for t in written if _numbers(t) is not None}
        node = torch._C._current_autograd_node()
        place = self._place(node)
        output = func(*args, **kwargs)
        if _is_view(func) or func._schema.name == "aten::set_":  # a tensor of a worker process: it was filled there
            return output
        wrong = [t for t in (*_tensors((output,)), *written) if _is_bad(t)]
        if wrong:
            self._note(func, (*args, *kwargs.values()), [(t, before.get(id(t), t)) for t in given], wrong, node, place)
        return output

    def behind(self, tensor: Tensor) -> Event | None:
        """Return where the value in this tensor that is not finite was made; None when it is finite."""
        last = self._maker(tensor)
        return None if last is None else _birth(last)

    def behind_last(self) -> Event | None:
        """Return where the last single number that is not finite was made, else the last tensor."""
        events = [(tensor.numel() == 1, event) for _, tensor, event in self._held if not event.intended]
        last = max(events, key=lambda pair: (pair[0], pair[1].index), default=None)
        return None if last is None else _birth(last[1])

    def _note(
        self,
        func: Any,
        values: Any,
        given: Sequence[tuple[Tensor, Tensor]],
        wrong: list[Tensor],
        node: Any,
        place: _Place,
    ) -> None:
        bad = [(now, before) for now, before in given if _is_bad(before)]
        parents = tuple(dict.fromkeys(self._maker(now, before, place) for now, before in bad))
        literal = not bad and (not given or any(_is_literal(v) for v in tree_leaves(values)))
        nan = any(_has_nan(t) for t in wrong)
        known = tuple(p for p in parents if p is not None)
        event = Event(
            index=self.count,
            operation=_name_of(func, node),
            phase="backward" if node is not None else "step" if self.stepping else "forward",
            site=place.site,
            module=place.module,
            nan=nan,
            intended=literal or (bool(known) and not nan and all(p.intended for p in known)),
            parents=known,
        )
        if not event.causes:
            event.inputs = tuple(extremes(before, f"input {i + 1}") for i, (_, before) in enumerate(given))
            event.output = extremes(wrong[0], "output")
        for tensor in wrong:
            self._hold(tensor, event)

    def _maker(self, tensor: Tensor, before: Tensor | None = None, place: _Place | None = None) -> Event | None:
        """Return what wrote into a tensor last; what nobody was seen to write came from outside."""
        shown = tensor if before is None else before
        if not _is_bad(shown):
            return None
        found = self._made.get(_key(tensor))
        if found is None:
            nan = _has_nan(shown)
            found = Event(
                index=self.count,
                operation="",
                phase="forward",
                site="" if place is None else place.site,
                module="" if place is None else place.module,
                output=extremes(shown, "value"),
                nan=nan,
                outside=True,
                intended=not nan,
                parameter=isinstance(tensor, torch.nn.Parameter),
            )
            self._hold(tensor, found)
        return found

    def _hold(self, tensor: Tensor, event: Event) -> None:
        key = _key(tensor)
        self._made[key] = event
        self._held.append((key, tensor.detach(), event))
        self._bytes += tensor.numel() * tensor.element_size()
        while len(self._held) > _MOST_EVENTS or (self._bytes > _MOST_BYTES and len(self._held) > 1):
            old, gone, made = self._held.popleft()
            self._bytes -= gone.numel() * gone.element_size()
            if self._made.get(old) is made:
                del self._made[old]

    def _place(self, node: Any) -> _Place:
        """Return where an operation stands in the program; one of a backward where its forward stood."""
        if node is not None:
            known = self._places.get(node._sequence_nr())
            is_own = isinstance(node, torch.autograd.function.BackwardCFunction)  # a backward that the program wrote
            return known if known is not None and not is_own else _Place(sys._getframe(2))
        place = _Place(sys._getframe(2))
        # The node of an operation is made before the operation is run, so that its number is the last that was given.
        self._places.setdefault(torch._C._autograd._get_sequence_nr() - 1, place)
        return place


class _Place:
    """A line of the user's code and the module that it runs in."""

    __slots__ = ("_line", "_modules")

    def __init__(self, frame: Any) -> None:
        self._line = sites.user_place(frame)
        self._modules = hooks.running_modules()

    @property
    def site(self) -> str:
        return sites.shown(self._line)

    @property
    def module(self) -> str:
        """The name of the innermost module in the outermost, or the outermost's class."""
        if not self._modules:
            return ""
        root, inner = self._modules[0], self._modules[-1]
        return next((n for n, m in root.named_modules() if m is inner and n), type(root).__name__)


def extremes(tensor: Tensor, name: str) -> Extremes:
    """Return what a tensor holds; of complex numbers their absolute values."""
    values = _numbers(tensor)
    values = torch.zeros(0) if values is None else values.abs() if values.is_complex() else values
    values = values.double()
    kept, infinite = values[torch.isfinite(values)], values[torch.isinf(values)]
    some = kept.numel() > 0
    return Extremes(
        name=name,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        low=float(kept.min()) if some else None,
        high=float(kept.max()) if some else None,
        smallest=float(kept.abs().min()) if some else None,
        zeros=int((kept == 0).sum()),
        nans=int(torch.isnan(values).sum()),
        infinities=infinite.numel(),
        only_negative=bool(infinite.numel() and (infinite < 0).all()),
    )


def _birth(last: Event) -> Event:
    """Go back from an event to those that it goes back to; of several the first that was not meant, else the first."""
    waiting, seen, births = [last], {last}, []
    while waiting:
        event = waiting.pop()
        new = [cause for cause in event.causes if cause not in seen]
        seen.update(new)
        waiting += new
        if not event.causes:
            births.append(event)
    return min(births, key=lambda e: (e.intended, e.index))


def is_finite(tensor: Tensor) -> bool:
    """Whether every number of a tensor that can be looked at is finite."""
    return not _is_bad(tensor)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tuple(values)) if isinstance(leaf, Tensor))


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an operation writes into."""
    found: list[Any] = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(args[i] if i < len(args) else kwargs.get(argument.name))
    return [*_tensors(found)] if found else []


def _is_view(func: Any) -> bool:
    """Whether an operation only gives another view of what it is given."""
    returns = func._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _numbers(tensor: Tensor) -> Tensor | None:
    """Return the values of a tensor flat, None where there are none that can be looked at."""
    if not lanes.readable(tensor) or tensor.device.type == "meta":
        return None
    if tensor.layout is torch.sparse_coo:
        return tensor.detach()._values().reshape(-1)
    if tensor.layout is not torch.strided:
        return None
    values = tensor.detach().reshape(-1)
    return values.float() if values.is_floating_point() and values.element_size() == 1 else values


def _is_bad(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    values = _numbers(tensor)
    return values is not None and not bool(torch.isfinite(values).all())


def _has_nan(tensor: Tensor) -> bool:
    values = _numbers(tensor)
    return values is not None and bool(torch.isnan(values).any())


def _key(tensor: Tensor) -> int:
    """Return what is the same for all views of one memory."""
    return id(tensor) if tensor.layout is not torch.strided else int(tensor.untyped_storage()._cdata)


def _is_literal(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _name_of(func: Any, node: Any) -> str:
    """Return the name that a person knows an operation by: ``log_softmax``; of a backward that of its forward."""
    if node is not None and (name := re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])):
        return "accumulation of gradients" if name == "AccumulateGrad" else _snake(name)
    name = str(func._schema.name).rpartition("::")[2].strip("_")
    return name.removeprefix("foreach_").removesuffix("_forward")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
