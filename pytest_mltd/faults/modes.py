"""Faults of the mode a model is in, and of what differs between training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_mltd.faults.planting import Planting, fault, standing_in


@fault(
    reds=("calls.misordered_calls",),
    says="a model that was put in eval mode stays in it",
    needs="return from eval to train mode",
)
def left_in_eval_mode(planting: Planting) -> Iterator[None]:
    from torch import nn

    def wrap(original: Any) -> Any:
        def train(self: Any, mode: bool = True) -> Any:
            if not mode or self.training or not _was_evaluated(self):
                return original(self, mode)
            planting.harmed()
            return self

        return train

    def mark(original: Any) -> Any:
        def evaluate(self: Any) -> Any:
            evaluated[id(self)] = self
            return original(self)

        return evaluate

    evaluated: dict[int, Any] = {}

    def _was_evaluated(module: Any) -> bool:
        return id(module) in evaluated

    with standing_in(planting, nn.Module, "train", wrap), standing_in(planting, nn.Module, "eval", mark):
        yield


@fault(
    reds=("calls.misordered_calls",),
    says="eval() does nothing, so that validation runs in train mode",
    needs="call of eval",
)
def validated_in_train_mode(planting: Planting) -> Iterator[None]:
    from torch import nn

    def idle(original: Any) -> Any:
        def evaluate(self: Any) -> Any:
            planting.harmed()
            return self

        return evaluate

    with standing_in(planting, nn.Module, "eval", idle):
        yield
