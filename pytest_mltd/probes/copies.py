"""A copy of a model, asked for its answers: the model itself, its hooks and all random states stay as they are.

Imported once torch is.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import itertools
import math
import random
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules import module as nn_module

from pytest_mltd.core.findings import Finding, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.probes import isolation
from pytest_mltd.probes.snapshots import WRAPPERS
from pytest_mltd.recording.ears import deaf
from pytest_mltd.recording.forwards import tensors_in

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Watch = Callable[[str, str, Tensor], None]  # module's name, "in" or "out", its first tensor there

_SHARED: Final = ("trainer", "_trainer", "_fabric")  # a framework's own objects, which a forward only reads
_FRAMEWORKS: Final = ("lightning", "pytorch_lightning", "lightning_fabric", "transformers", "accelerate")
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class CannotAsk(Exception):
    """The copy cannot be made or run; the text is the reason."""


class Copy:
    """A deep copy of a model in eval mode, and what it answers to some arguments. ``forwards`` counts how often it was run.

    With ``until`` (of `time.perf_counter`) it refuses a forward that would end later, as far as the longest so far tells.
    """

    def __init__(self, model: torch.nn.Module, arguments: Arguments, until: float = math.inf) -> None:
        self.arguments = arguments
        self.forwards = 0
        self._until = until
        self._longest = 0.0
        self.steady = False  # whether it is known to answer the same twice
        self._plain: dict[int, list[Tensor]] = {}
        self.model = copied(unwrapped(model), until)

    def plain(self, seed: int = 0) -> list[Tensor]:
        """Return the answers to the arguments as they are.

        Raises:
            CannotAsk: the model raised, or gave no number.
        """
        if seed not in self._plain:
            self._plain[seed] = self.answers(self.arguments, seed)
        return self._plain[seed]

    def answers(self, arguments: Arguments, seed: int = 0) -> list[Tensor]:
        """Return the floating-point tensors that the copy answers, in their order, without their graph.

        Raises:
            CannotAsk: the model raised, or gave no number.
        """
        with torch.no_grad():
            return [t.detach().clone() for t in self.outputs(arguments, seed)]

    def gradient(self, arguments: Arguments, leaf: Tensor) -> Tensor | None:
        """Return the gradient of the sum of all answers for a leaf among the arguments, None where none leads there."""
        found = [o.double().sum() for o in self.outputs(arguments) if o.requires_grad]
        with deaf():
            return torch.autograd.grad(torch.stack(found).sum(), leaf, allow_unused=True)[0] if found else None

    def outputs(
        self, arguments: Arguments, seed: int = 0, watch: Watch | None = None, train: bool = False
    ) -> list[Tensor]:
        """Return the same with their graph, where gradients are on. Each time buffers and attributes are as at first.

        Args:
            arguments: what the model is called with; a forward that writes into them writes into copies.
            seed: set before.
            watch: told of each module's inputs and outputs, by its name.
            train: run it in train mode.
        """
        start = time.perf_counter()
        if start + self._longest > self._until:
            raise CannotAsk(f"a forward takes {number(self._longest, 2)} s, and there is a second for all")
        self.forwards += 1
        with undisturbed(self.model, seed):
            try:
                memo = _Memo({id(p): p for p in self.model.parameters()}, self._until)
                twin = copy.deepcopy(self.model, memo).train(train)
                if watch is not None:
                    _watched(twin, watch)
                given = _given(arguments)
                with isolation.isolated(twin, _modules(twin, memo), limited=self._until < math.inf):
                    result = twin(*given[0], **given[1])
            except CannotAsk:
                raise
            except KeyboardInterrupt:
                raise
            except isolation.Refused as refused:
                raise CannotAsk(f"the model does more than answer: {refused}") from None
            except BaseException as error:  # a forward may end its program
                raise CannotAsk(f"the model's copy raised {type(error).__name__}: {_short(error)}") from error
        self._longest = max(self._longest, time.perf_counter() - start)
        found = [t for t in tensors_in(_plain_data(result)) if t.is_floating_point() and t.numel()]
        if not found:
            raise CannotAsk("the model gives no numbers that could be compared")
        return found


def unless_impossible(model: Any, arguments: Arguments, judge: Callable[[Copy], Finding]) -> Finding:
    """Return the judgement of a copy of the model, or the reason why there is none.

    Raises:
        TypeError: ``model`` is no module.
    """
    unwrapped(model)
    try:
        return judge(Copy(model, arguments))
    except CannotAsk as error:
        return not_asked(str(error))


def arguments_of(inputs: Any) -> Arguments:
    """Return inputs as positional and named arguments: a tuple is several, a mapping named ones, anything else is one.

    Raises:
        TypeError: there is no tensor in them.
    """
    args: tuple[Any, ...]
    if isinstance(inputs, Mapping):
        args, kwargs = (), {str(k): v for k, v in inputs.items()}
    else:
        args, kwargs = (inputs if type(inputs) is tuple else (inputs,)), {}
    if next(tensors_in((args, kwargs)), None) is None:
        raise TypeError(f"inputs: a tensor, a tuple of arguments or a mapping of them is needed, not {inputs!r:.60}")
    return args, kwargs


def named_tensors(arguments: Arguments) -> dict[str, Tensor]:
    """Return the arguments that are tensors, positional ones by their place: "input 0"."""
    found = {f"input {i}": a for i, a in enumerate(arguments[0])} | arguments[1]
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def with_argument(arguments: Arguments, name: str, value: Tensor) -> Arguments:
    """Return the arguments with one of them, by the name that `named_tensors` gives it, replaced."""
    args, kwargs = arguments
    if name in kwargs:
        return args, {**kwargs, name: value}
    at = int(name.removeprefix("input "))
    return (*args[:at], value, *args[at + 1 :]), kwargs


def unwrapped(model: Any) -> torch.nn.Module:
    """Return the model inside of DistributedDataParallel, DataParallel or a compiled one.

    Raises:
        TypeError: it is no module.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: a torch.nn.Module is needed, not {type(model).__name__}")
    while type(model).__name__ in WRAPPERS:
        model = getattr(model, WRAPPERS[type(model).__name__])
    inner: torch.nn.Module = model
    return inner


@deaf()
def copied(model: torch.nn.Module, until: float = math.inf) -> torch.nn.Module:
    """Return a deep copy in eval mode, without gradients and without hooks other than torch's own (a spectral norm's).

    Raises:
        CannotAsk: an attribute of the model cannot be copied, or not until a time of `time.perf_counter`.
    """
    _refuse_bound(model)
    memo = _Memo({}, until)
    for module in model.modules():
        own = vars(module)
        for value in own.values():
            # torch refuses to copy what has a graph: the hidden state of the last batch, the weight of a weight norm
            for held in _held_in(value):
                if isinstance(held, Tensor) and held.grad_fn is not None:
                    memo[id(held)] = held.detach().clone()
        memo.update({id(own[name]): own[name] for name in _SHARED if _is_framework(own.get(name))})
    try:
        with torch.no_grad(), _random_states_kept(model):
            twin = copy.deepcopy(model, memo)
    except CannotAsk:
        raise
    except Exception as error:
        raise CannotAsk(f"the model cannot be copied: {type(error).__name__}: {_short(error)}") from error
    if not {id(module) for module in model.modules()}.isdisjoint(id(module) for module in twin.modules()):
        raise CannotAsk("the model's copy is the model itself")
    for module in twin.modules():
        for name in _HOOKS:
            hooks = getattr(module, name, None) or {}
            for key in [k for k, hook in hooks.items() if not _of_torch(hook)]:
                del hooks[key]
    twin.zero_grad(set_to_none=True)
    return twin.eval()


def size(model: torch.nn.Module) -> int:
    """Return the bytes of all tensors and arrays that a model holds: parameters, buffers, and what else it keeps."""
    held: dict[int, int] = {}
    for module in model.modules():
        for value in vars(module).values():
            held.update({id(thing): _bytes(thing) for thing in _held_in(value)})
    return sum(held.values())


def _held_in(value: Any, depth: int = 0, left: list[int] | None = None) -> Iterator[Any]:
    """Yield the tensors and arrays in containers and in simple objects, as far as the first so many values go."""
    left = [_MOST_ITEMS] if left is None else left
    left[0] -= 1
    if isinstance(value, Tensor | np.ndarray):
        yield value
    elif depth < _DEEPEST:
        if isinstance(value, Mapping):
            value = list(itertools.islice(value.values(), _MOST_ITEMS))
        elif not isinstance(value, list | tuple | torch.nn.Module | type):
            value = list(getattr(value, "__dict__", {}).values())
        for item in value if isinstance(value, list | tuple) else ():
            if left[0] <= 0:
                return
            yield from _held_in(item, depth + 1, left)


def _bytes(held: Any) -> int:
    if isinstance(held, np.ndarray):
        return held.nbytes
    return int(held.numel() * held.element_size()) if held.layout == torch.strided else 0


_DEEPEST: Final = 4
_MOST_ITEMS: Final = 10_000  # values that are looked at; a guess


class _Memo(dict[int, Any]):
    """What `copy.deepcopy` has copied; past a time it refuses to go on."""

    def __init__(self, known: Mapping[int, Any], until: float) -> None:
        super().__init__(known)
        self._until = until
        self._asked = 0

    def get(self, key: int, default: Any = None) -> Any:
        self._asked += 1
        if not self._asked & 1023 and time.perf_counter() > self._until:
            raise CannotAsk("to copy what the model holds takes too long")
        return super().get(key, default)


def _modules(twin: torch.nn.Module, memo: Mapping[int, Any]) -> set[int]:
    """Return the ids of the modules that are the copy's, also of those in its plain lists."""
    listed = (value for value in memo.values() if issubclass(type(value), torch.nn.Module))
    return {id(module) for whole in (twin, *listed) for module in whole.modules()}


def _refuse_bound(model: torch.nn.Module) -> None:
    """Refuse a model whose forward was replaced by a function that holds the model itself: its copy would run the original."""
    for module in model.modules():
        for name, value in vars(module).items():
            for cell in getattr(value, "__closure__", None) or () if type(value) is types.FunctionType else ():
                with contextlib.suppress(ValueError):  # not yet bound
                    held = cell.cell_contents
                    if issubclass(type(getattr(held, "__self__", held)), torch.nn.Module):
                        raise CannotAsk(
                            f"{name!r} of the model is a function that holds a module, of which there is no copy"
                        )


def _is_framework(value: Any) -> bool:
    return any(kind.__module__.partition(".")[0] in _FRAMEWORKS for kind in type(value).__mro__)


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module, seed: int) -> Iterator[None]:
    """Run a copy in the block: seeded, unheard by module hooks of the process, without printing; nothing of it is left."""
    out = io.StringIO()
    with contextlib.ExitStack() as around:
        around.enter_context(deaf())
        around.enter_context(_random_states_kept(model))
        around.enter_context(_without_global_hooks())
        around.enter_context(torch.compiler.set_stance("force_eager"))  # to compile a part takes seconds
        around.enter_context(warnings.catch_warnings())
        around.enter_context(contextlib.redirect_stdout(out))
        around.enter_context(contextlib.redirect_stderr(out))
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        random.setstate(random.Random(seed).getstate())  # a recording would hear `seed`
        np.random.set_state(np.random.RandomState(seed).get_state())
        yield


@contextlib.contextmanager
def _random_states_kept(model: torch.nn.Module) -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def _without_global_hooks() -> Iterator[None]:
    tables = [
        table
        for name, table in vars(nn_module).items()
        if name.startswith("_global_") and isinstance(table, dict) and table
    ]
    before = [dict(table) for table in tables]
    try:
        for table in tables:
            table.clear()
        yield
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            table.update(kept)


def _given(arguments: Arguments) -> Arguments:
    """Return copies, also of other objects, except of a leaf that a gradient is wanted for."""
    memo = {id(t): t if t.requires_grad else t.detach().clone() for t in tensors_in(arguments)}
    return copy.deepcopy(arguments, memo)


def _watched(twin: torch.nn.Module, watch: Watch) -> None:
    for name, module in twin.named_modules():
        module.register_forward_pre_hook(functools.partial(_told, watch, name, "in"), with_kwargs=True)
        module.register_forward_hook(functools.partial(_told_out, watch, name))


def _told(watch: Watch, name: str, side: str, module: Any, args: Any, kwargs: Any) -> None:
    if (first := next(tensors_in((args, kwargs)), None)) is not None:
        watch(name, side, first.detach())


def _told_out(watch: Watch, name: str, module: Any, args: Any, output: Any) -> None:
    _told(watch, name, "out", module, output, {})


def _of_torch(hook: Callable[..., Any]) -> bool:
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return home.startswith("torch.nn.")


def _plain_data(result: Any) -> Any:
    """Return the fields of a model's output class as a mapping; distributions and the like have none that are looked at."""
    if isinstance(result, Tensor | Mapping | list | tuple):
        return result
    return {k: v for k, v in getattr(result, "__dict__", {}).items() if isinstance(v, Tensor | list | tuple)}


def _short(error: BaseException) -> str:
    return str(error).partition("\n")[0][:120]
