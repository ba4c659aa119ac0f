"""The whole state of a training just before each step, as digests by name: what a checkpoint must hold, or ranks must share.

Imported once torch is. It draws no random numbers and changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from pytest_mltd.recording import digests, hooks
from pytest_mltd.recording.naming import Identities

Row = dict[str, Any]

WRAPPERS = {"DistributedDataParallel": "module", "DataParallel": "module", "OptimizedModule": "_orig_mod"}


class Snapshots(hooks.Listener):
    """One row a step. All values are plain: digests, numbers, names.

    ``weights``, ``gradients`` and ``state`` (of the optimizer) map a parameter's name to a digest, taken before the step, as
    ``rates`` and ``scale`` are. ``norms`` are the gradients' L2 norms. ``buffers`` are as they were when the step's first
    forward began, ``random`` the states of the generators then; ``drawn`` names those that moved between the step before and
    that moment. ``samples`` are digests of each row that went into a root module since the step before.
    """

    forwards = True

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._names: Identities[str] = Identities()
        self._taken: set[str] = set()
        self._roots: Identities[bool] = Identities()
        self._optimizers: list[Optimizer] = []
        self._scale: float | None = None
        self._entry: Row = {}
        self._samples: list[list[int]] = []
        self._after = _random_states()

    def entered(self, module: Any, args: Any, frame: FrameType) -> None:
        inner = _unwrapped(module)
        self._know(inner)
        if not torch.is_grad_enabled():
            return
        if not self._entry:
            states = _random_states()
            drawn = [name for name, state in states.items() if state != self._after[name]]
            self._entry = {"random": states, "drawn": drawn, "buffers": {}}
        if next(inner.parameters(), None) is None:
            return  # a loss: what goes into it was computed
        if not getattr(module, "broadcast_buffers", False):  # else they are made equal only inside of this call
            self._entry["buffers"] |= {name: digests.of_tensor(b) for name, b in inner.named_buffers()}
        self._samples.append(_sample_digests(args))

    def scaled(self, scaler: Any, outputs: Any) -> None:
        self._scale = float(scaler.get_scale())

    def before_step(self, optimizer: Optimizer, closure: bool, frame: FrameType) -> None:
        if not any(known is optimizer for known in self._optimizers):
            self._optimizers.append(optimizer)
        row: Row = {"weights": {}, "gradients": {}, "norms": {}, "state": {}}
        for parameter, name in self._parameters(optimizer):
            row["weights"][name] = digests.of_tensor(parameter)
            row["state"][name] = _state(optimizer.state.get(parameter, {}))
            if parameter.grad is not None:
                gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
                row["gradients"][name] = digests.of_tensor(gradient)
                row["norms"][name] = float(gradient.detach().cpu().double().norm())  # not every device has float64
        row["rates"] = [float(group["lr"]) for group in optimizer.param_groups]
        self.rows.append({**row, **self._entry, "scale": self._scale, "samples": self._samples})
        self._entry, self._samples = {}, []

    def after_step(self, optimizer: Optimizer) -> None:
        self._after = _random_states()

    def _parameters(self, optimizer: Optimizer) -> Iterator[tuple[torch.Tensor, str]]:
        which = next(i for i, known in enumerate(self._optimizers) if known is optimizer)
        count = 0
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if type(parameter.data) is not torch.Tensor:  # a DTensor: each rank holds another part of it
                    continue
                yield parameter, self._names.get(parameter) or f"parameter {count} of optimizer {which}"
                count += 1

    def _know(self, module: torch.nn.Module) -> None:
        if self._roots.get(module):
            return
        self._roots.put(module, True)
        fresh = [(name, p) for name, p in module.named_parameters() if self._names.get(p) is None]
        prefix = (
            "" if self._taken.isdisjoint(name for name, _ in fresh) else f"{type(module).__name__} {len(self._roots)}: "
        )
        for name, parameter in fresh:
            self._names.put(parameter, prefix + name)
            self._taken.add(prefix + name)


@contextlib.contextmanager
def snapshots() -> Iterator[Callable[[], list[Row]]]:
    """Take them in the block; what is yielded gives the rows."""
    listener = Snapshots()
    hooks.join(listener)
    try:
        yield lambda: listener.rows
    finally:
        hooks.leave(listener)


@contextlib.contextmanager
def without_dropout() -> Iterator[None]:
    """Let every dropout of `torch.nn.functional` pass its input on: the masks of two runs differ by nature where batches are
    split or numbers are of another type. Dropout inside of recurrent layers is not reached."""
    functional: Any = torch.nn.functional
    names = [name for name in vars(functional) if "dropout" in name and not name.startswith("_")]
    before = {name: getattr(functional, name) for name in names if callable(getattr(functional, name))}
    attend = functional.scaled_dot_product_attention
    before["scaled_dot_product_attention"] = attend

    def attend_to_all(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, *args: Any, **kwargs: Any
    ) -> Any:
        return attend(query, key, value, attn_mask, 0.0, *args, **kwargs)

    try:
        for name in before:
            setattr(functional, name, _pass_on)
        functional.scaled_dot_product_attention = attend_to_all
        yield
    finally:
        for name, function in before.items():
            setattr(functional, name, function)


def _pass_on(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return input


def _unwrapped(module: Any) -> Any:
    while type(module).__name__ in WRAPPERS:
        module = getattr(module, WRAPPERS[type(module).__name__])
    return module


def _random_states() -> dict[str, int]:
    return {
        "python": digests.of_python_state(),
        "numpy": digests.of_numpy_state(),
        "torch": digests.of_torch_state(),
    }


def _state(state: Mapping[str, Any]) -> int:
    """Return the digest of what an optimizer keeps of a parameter, 0 where it keeps nothing."""
    kept = {str(k): v for k, v in sorted(state.items(), key=lambda pair: str(pair[0])) if v is not None}
    return digests.of_tree(kept) if kept else 0


def _sample_digests(args: Any) -> list[int]:
    """Return a digest for each row of the first tensor among the arguments; none where it has no rows."""
    tensor = next((a for a in args if isinstance(a, torch.Tensor)), None)
    if tensor is None or tensor.ndim == 0 or tensor.layout is not torch.strided:
        return []
    return [digests.of_tensor(row) for row in tensor.detach()]
