"""Faults of the loss: what it is given, and what is done to it before backward."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from pytest_mltd.faults.planting import Planting, fault, standing_in


@fault(
    reds=("objective.double_softmax",),
    says="cross_entropy is given probabilities, so that softmax is applied twice",
    needs="cross entropy in training",
)
def double_softmax(planting: Planting) -> Iterator[None]:
    with _loss(
        planting, "cross_entropy_loss", lambda given, target: (given.softmax(1 if given.dim() > 1 else 0), target)
    ):
        yield


@fault(
    reds=("objective.double_softmax",),
    says="binary_cross_entropy_with_logits is given probabilities, so that the sigmoid is applied twice",
    needs="binary cross entropy on logits in training",
)
def double_sigmoid(planting: Planting) -> Iterator[None]:
    with _loss(planting, "binary_cross_entropy_with_logits", lambda given, target: (given.sigmoid(), target)):
        yield


@fault(
    reds=("objective.missing_log",),
    says="nll_loss is given probabilities instead of their logarithms",
    needs="nll_loss in training",
)
def missing_log(planting: Planting) -> Iterator[None]:
    with _loss(planting, "nll_loss_nd", lambda given, target: (given.exp(), target)):
        yield


@fault(
    reds=("objective.softmax_axis",),
    says="log_softmax runs over the batch instead of the classes",
    needs="log_softmax over the last of two axes in training",
)
def softmax_over_batch(planting: Planting) -> Iterator[None]:
    import torch

    from pytest_mltd.faults.taps import in_training

    def wrap(original: Any) -> Any:
        def log_softmax(self: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
            if self.dim() == 2 and dim in (1, -1) and in_training(self):
                planting.harmed()
                dim = 0
            return original(self, dim, *args, **kwargs)

        return log_softmax

    with standing_in(planting, torch.Tensor, "log_softmax", wrap):
        yield


@fault(
    reds=("objective.loss_broadcast",),
    says="mse_loss holds each of N predictions against all N targets: shape (N, 1) against (N,)",
    needs="mse_loss of two samples or more in training",
)
def loss_broadcast(planting: Planting) -> Iterator[None]:
    def spread(given: Any, target: Any) -> Any:
        if given.dim() == 0 or given.shape[0] < 2 or given.numel() != given.shape[0]:
            return None
        return given.reshape(-1, 1).expand(-1, given.shape[0]), target.reshape(1, -1).expand(given.shape[0], -1)

    with _loss(planting, "mse_loss", spread):
        yield


@fault(
    reds=("objective.target_range",),
    says="targets of binary_cross_entropy_with_logits go up to 255",
    needs="binary cross entropy on logits in training",
)
def targets_unscaled(planting: Planting) -> Iterator[None]:
    with _loss(planting, "binary_cross_entropy_with_logits", lambda given, target: (given, target * 255)):
        yield


@fault(
    reds=("objective.ignored_labels",),
    says="every label of every second batch is ignore_index, so that the mean is over none",
    needs="second cross entropy with class labels in training",
)
def labels_ignored(planting: Planting) -> Iterator[None]:
    import torch

    from pytest_mltd.faults.taps import in_training
    from pytest_mltd.recording.patches import patched

    calls = [0]

    def wrap(original: Any) -> Any:
        def loss(
            given: Any, target: Any, weight: Any = None, reduction: int = 1, ignored: int = -100, *rest: Any
        ) -> Any:
            if in_training(given) and not planting.idle and not target.is_floating_point():
                calls[0] += 1
                if calls[0] % 2 == 0:
                    planting.harmed()
                    target = target.new_full(target.shape, ignored)
            return original(given, target, weight, reduction, ignored, *rest)

        return loss

    with patched(torch._C._nn, "cross_entropy_loss", wrap):
        yield


@fault(
    reds=("losses.plateau", "model.unlearnable_labels"),
    says="the labels of each batch are shuffled",
    needs="cross entropy of two samples or more in training",
)
def labels_shuffled(planting: Planting) -> Iterator[None]:
    import torch

    generator = torch.Generator().manual_seed(0)  # the program's own random numbers stay as they are

    def shuffle(given: Any, target: Any) -> Any:
        if target.dim() == 0 or len(target) < 2:
            return None
        return given, target[torch.randperm(len(target), generator=generator).to(target.device)]

    with _loss(planting, "cross_entropy_loss", shuffle):
        yield


@fault(
    reds=("gradients.nonfinite", "precision.loss_scale"),
    says="the loss is divided by zero from the 21st backward on",
    needs="21st backward of a scalar loss",
)
def loss_divided_by_zero(planting: Planting) -> Iterator[None]:
    calls = [0]

    def divide(loss: Any) -> Any:
        calls[0] += 1
        return loss / 0 if calls[0] > 20 else None

    with _before_backward(planting, divide):
        yield


@fault(
    reds=("objective.kept_graph",),
    says="every loss is kept in a list together with its graph",
    needs="401st backward of a scalar loss",
)
def graphs_kept(planting: Planting) -> Iterator[None]:
    kept: list[Any] = []

    def keep(loss: Any) -> Any:
        kept.append(loss)
        return loss if len(kept) > 400 else None  # before that nothing tells them from a window of losses

    with _before_backward(planting, keep):
        yield


def _before_backward(planting: Planting, change: Callable[[Any], Any]) -> contextlib.AbstractContextManager[None]:
    """Go back from what ``change`` makes of the loss; where it returns nothing, from the loss itself."""
    import torch

    from pytest_mltd.faults.taps import before_backward

    def changed(tensors: Any) -> Any:
        if not isinstance(tensors, torch.Tensor) or tensors.dim():
            return tensors
        loss = change(tensors)
        if loss is None:
            return tensors
        planting.harmed()
        return loss

    return before_backward(planting, changed)


def _loss(planting: Planting, name: str, change: Callable[[Any, Any], Any]) -> contextlib.AbstractContextManager[None]:
    """Give one of torch's loss functions what ``change`` makes of prediction and target, in training.

    The function is replaced where ``torch.nn.functional`` looks it up at each call, so that it does not matter how the program
    imported its loss.
    """
    import torch

    from pytest_mltd.faults.taps import in_training
    from pytest_mltd.recording.patches import patched

    def wrap(original: Any) -> Any:
        def loss(given: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            changed = change(given, target) if in_training(given) and not planting.idle else None
            if changed is None:
                return original(given, target, *args, **kwargs)
            planting.harmed()
            return original(*changed, *args, **kwargs)

        return loss

    return patched(torch if hasattr(torch, name) else torch._C._nn, name, wrap)
