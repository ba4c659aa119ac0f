"""What a program gives to its own logger is overheard: SummaryWriter, wandb, and the loggers of the training frameworks.

Only modules that the program imports itself are touched, before the recording or in it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final

import torch

from pytest_mltd.recording.ears import by_thread as _ears
from pytest_mltd.recording.ears import is_compiling as _is_compiling
from pytest_mltd.recording.ears import thread as _thread
from pytest_mltd.recording.imports import now_or_when_imported
from pytest_mltd.recording.patches import patched

Numbers = Mapping[str, Any]
_LIGHTNING: Final = "trainer.connectors.logger_connector.logger_connector"


@contextlib.contextmanager
def taps() -> Iterator[None]:
    """Tell who listens on the thread of every number that is logged in the block, as ``logged(name, value)``."""
    with contextlib.ExitStack() as undo:
        for module, owner, method, read in _LOGGERS:
            now_or_when_imported(module, functools.partial(_tap, owner, method, read), undo)
        yield


def _tap(owner: str, method: str, read: Callable[..., Numbers], module: ModuleType, undo: contextlib.ExitStack) -> None:
    found = getattr(module, owner, None)
    if found is not None and callable(vars(found).get(method)):  # another version may have neither
        undo.enter_context(patched(found, method, functools.partial(_around, read)))


def _around(read: Callable[..., Numbers], original: Callable[..., Any]) -> Callable[..., Any]:
    def logging(*args: Any, **kwargs: Any) -> Any:
        ears = _ears.get(_thread())
        if (
            ears is None or _is_compiling() or ears.inside.get("logger")
        ):  # a framework's logger calls SummaryWriter in turn
            return original(*args, **kwargs)
        ears.inside["logger"] = 1
        try:
            result = original(*args, **kwargs)
        finally:
            ears.inside["logger"] = 0
        with contextlib.suppress(Exception):  # what the logger took is no error, however it was called
            for name, value in read(*args[1:], **kwargs).items():
                if (number := _number(value)) is not None:
                    for listener in ears.listeners:
                        listener.logged(str(name), number)
        return result

    return logging


def _scalar(tag: str, scalar_value: Any, *_: Any, **__: Any) -> Numbers:
    return {tag: scalar_value}


def _scalars(main_tag: str, tag_scalar_dict: Numbers, *_: Any, **__: Any) -> Numbers:
    return {f"{main_tag}/{name}": value for name, value in tag_scalar_dict.items()}


def _metrics(metrics: Numbers, *_: Any, **__: Any) -> Numbers:
    return metrics


def _data(data: Numbers, *_: Any, **__: Any) -> Numbers:
    return data


def _logs(logs: Numbers, *_: Any, **__: Any) -> Numbers:
    return logs


def _values(values: Numbers, *_: Any, **__: Any) -> Numbers:
    return values


# Module, class, method, and what reads its arguments; each reader's parameters have the method's own names.
_LOGGERS: Final[tuple[tuple[str, str, str, Callable[..., Numbers]], ...]] = (
    ("torch.utils.tensorboard.writer", "SummaryWriter", "add_scalar", _scalar),
    ("torch.utils.tensorboard.writer", "SummaryWriter", "add_scalars", _scalars),
    ("tensorboardX.writer", "SummaryWriter", "add_scalar", _scalar),
    ("tensorboardX.writer", "SummaryWriter", "add_scalars", _scalars),
    ("wandb.sdk.wandb_run", "Run", "log", _data),
    (f"lightning.pytorch.{_LIGHTNING}", "_LoggerConnector", "log_metrics", _metrics),
    (f"pytorch_lightning.{_LIGHTNING}", "_LoggerConnector", "log_metrics", _metrics),
    ("transformers.trainer", "Trainer", "log", _logs),
    ("accelerate.accelerator", "Accelerator", "log", _values),
)


def _number(value: Any) -> float | None:
    """Return a number, also one in an array or tensor of one element; None for all else that loggers take.

    A tensor on an accelerator is left out: reading it would make the program wait.
    """
    if isinstance(value, torch.Tensor):
        return float(value.detach().item()) if value.is_cpu and value.numel() == 1 else None
    if isinstance(value, (bool, str)):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if getattr(value, "size", None) == 1 and hasattr(value, "item"):  # numpy, without importing it
        return float(value.item())
    return None
