"""Faults of how a model answers, in training and in evaluation alike: what a probe of the model itself finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_mltd.faults.planting import Planting, fault, standing_in


@fault(
    reds=("model.causal_leak",),
    says="scaled_dot_product_attention ignores is_causal",
    needs="scaled_dot_product_attention with is_causal",
)
def causal_mask_dropped(planting: Planting) -> Iterator[None]:
    from torch.nn import functional

    def wrap(original: Any) -> Any:
        def attention(*args: Any, is_causal: bool = False, **kwargs: Any) -> Any:
            if any(args[5:6]) or is_causal:  # query, key, value, attn_mask, dropout_p, is_causal
                planting.harmed()
            return original(*args[:5], *args[6:], is_causal=False, **kwargs)

        return attention

    with standing_in(planting, functional, "scaled_dot_product_attention", wrap, of_the_model=True):
        yield


@fault(
    reds=("model.eval_noise",),
    says="dropout stays on in eval mode",
    needs="dropout in eval mode",
)
def dropout_in_eval(planting: Planting) -> Iterator[None]:
    from torch.nn import functional

    def wrap(original: Any) -> Any:
        def dropout(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
            if not given.get("training", True) and given.get("p", 0.5) > 0:
                planting.harmed()
            return original(**{**given, "training": True})

        return dropout

    with standing_in(planting, functional, "dropout", wrap, of_the_model=True):
        yield


@fault(
    reds=("model.batch_mixing",),
    says="each linear layer answers less the mean of its batch",
    needs="linear layer with two samples or more",
)
def answers_mixed(planting: Planting) -> Iterator[None]:
    from torch.nn import functional

    def wrap(original: Any) -> Any:
        def linear(*args: Any, **kwargs: Any) -> Any:
            answer = original(*args, **kwargs)
            if answer.dim() < 2 or len(answer) < 2:
                return answer
            planting.harmed()
            return answer - answer.mean(0, keepdim=True)

        return linear

    with standing_in(planting, functional, "linear", wrap, of_the_model=True):
        yield


@fault(
    reds=("model.ignored_inputs",),
    says="each linear layer multiplies the first column of what it is given by zero",
    needs="linear layer",
)
def inputs_ignored(planting: Planting) -> Iterator[None]:
    from torch.nn import functional

    def wrap(original: Any) -> Any:
        def linear(input: Any, weight: Any, bias: Any = None) -> Any:
            planting.harmed()
            kept = input.new_ones(input.shape[-1])
            kept[0] = 0.0
            return original(input * kept, weight, bias)

        return linear

    with standing_in(planting, functional, "linear", wrap, of_the_model=True):
        yield
