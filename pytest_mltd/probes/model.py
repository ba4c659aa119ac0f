"""Is a model wired as it should be? Asked by running a copy of it: nothing is trained, and the model stays as it is.

::

    mltd.assert_model_sound(model, x, loss=torch.nn.functional.cross_entropy, targets=y)
    mltd.assert_no_causal_leak(gpt, tokens)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pytest_mltd.core.asking import ask_all, asserting, check, info, umbrella
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Diagnosis, Finding, diagnose_findings, not_asked


@check("model", explains=("losses.*", "metrics.*", "model.batch_mixing"), rank=12)
def check_causal_leak(
    model: Any,
    inputs: Any,
    *,
    argument: str = "",
    axis: int = 1,
    max_move: float = 1e-3,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether an output of a sequence model depends on later inputs.

    The later inputs are replaced by others, first the second half of them, then the last one; outputs before must stay.
    Only for models that are to predict what follows: an encoder of whole sequences sees both sides on purpose.

    Args:
        model: a module; a copy of it is run, in eval mode.
        inputs: a tensor, a tuple of arguments or a mapping of named ones: tokens (samples × moments) or vectors.
        argument: which of them is the sequence: its name, or "input 0" by place; the first that is long enough by default.
        axis: the axis that counts the moments, 0 or 1, by convention 1 (samples first).
        max_move: the highest change of an earlier output, as a share of the spread of all outputs; a guess: rounding stays
            below 1e-5, a missing mask moves them by 1 and more.
        allow: a reason by place: the module that it happens in.

    Raises:
        TypeError: ``model`` is no module, or there is no tensor in ``inputs``.
        ValueError: no input has two moments along the axis.
        MissingExtra: torch is not installed.

    Example:
        >>> import torch
        >>> model = torch.nn.GRU(3, 3, batch_first=True)
        >>> check_causal_leak(model, torch.randn(2, 5, 3)).ok
        True
    """
    __tracebackhide__ = True
    need("torch", "check_causal_leak")
    from pytest_mltd.probes import copies, sequences, wiring

    if axis not in (0, 1):
        raise ValueError(f"axis: time is axis 0 or 1, not {axis!r}")
    arguments = copies.arguments_of(inputs)
    sequence = sequences.plain_sequence(arguments, argument, axis)
    return copies.unless_impossible(model, arguments, lambda copy: wiring.leak(copy, sequence, max_move, allow))


@check("model", explains=("losses.*", "metrics.*"), rank=14)
def check_batch_mixing(
    model: Any, inputs: Any, *, axis: int = 0, max_move: float = 1e-4, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether the answer for one sample depends on the others in its batch, in eval mode.

    All samples but the last are replaced by another; the last one's answer must stay: a recurrence that takes the batch for
    time has seen all others by then. In train mode a batch norm mixes on
    purpose; graphs and sets, whose rows belong together, mix in every mode.

    Args:
        model: a module; a copy of it is run, in eval mode.
        inputs: a tensor, a tuple of arguments or a mapping of named ones, of two samples or more.
        axis: the axis that counts the samples, by convention 0; a recurrent net without ``batch_first`` has 1.
        max_move: the highest change of the last sample's answer, as a share of the spread of all answers; a guess: rounding
            stays below 1e-5.
        allow: a reason by place: the module that it happens in.

    Raises:
        TypeError: ``model`` is no module, or there is no tensor in ``inputs``.
        MissingExtra: torch is not installed.

    Example:
        >>> import torch
        >>> check_batch_mixing(torch.nn.Linear(3, 2), torch.randn(4, 3)).ok
        True
    """
    __tracebackhide__ = True
    need("torch", "check_batch_mixing")
    from pytest_mltd.probes import copies, wiring

    arguments = copies.arguments_of(inputs)
    return copies.unless_impossible(model, arguments, lambda copy: wiring.mixing(copy, axis, max_move, allow))


@check("model", explains=("losses.*", "metrics.*", "runs.divergence"), rank=16)
def check_eval_noise(
    model: Any, inputs: Any, *, max_move: float = 1e-4, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether a model in eval mode answers the same input differently, as one with ``F.dropout(x)`` left on does.

    A model that samples on purpose (a policy, a variational or Bayesian net) does too: allow it, with the reason.

    Args:
        model: a module; a copy of it is run, in eval mode, under two seeds.
        inputs: a tensor, a tuple of arguments or a mapping of named ones.
        max_move: the highest change between the two, as a share of the spread of the answers; a guess: rounding stays below
            1e-5.
        allow: a reason by place: the module that it happens in.

    Raises:
        TypeError: ``model`` is no module, or there is no tensor in ``inputs``.
        MissingExtra: torch is not installed.

    Example:
        >>> import torch
        >>> check_eval_noise(torch.nn.Dropout(0.5), torch.randn(4, 3)).ok
        True
    """
    __tracebackhide__ = True
    need("torch", "check_eval_noise")
    from pytest_mltd.probes import copies, wiring

    arguments = copies.arguments_of(inputs)
    return copies.unless_impossible(model, arguments, lambda copy: wiring.noise(copy, max_move, allow))


@check("model", rank=40)
def check_unused_parameters(model: Any, inputs: Any, *, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether there are parameters that no output depends on, neither in train nor in eval mode.

    Args:
        model: a module; a copy of it is run.
        inputs: a tensor, a tuple of arguments or a mapping of named ones.
        allow: reasons by parameter (globs), as in ``{"pooler.*": "for another task"}``.

    Raises:
        TypeError: ``model`` is no module, or there is no tensor in ``inputs``.
        MissingExtra: torch is not installed.

    Example:
        >>> import torch
        >>> check_unused_parameters(torch.nn.Linear(3, 2), torch.randn(4, 3)).ok
        True
    """
    __tracebackhide__ = True
    need("torch", "check_unused_parameters")
    from pytest_mltd.probes import copies, usage

    arguments = copies.arguments_of(inputs)
    return copies.unless_impossible(model, arguments, lambda copy: usage.unused(copy, allow))


@check("model", rank=30)
def check_ignored_inputs(model: Any, inputs: Any, *, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether an argument, or a column of a table of features, changes no output.

    What seems ignored (no gradient reaches it) is replaced by the values of other samples to be sure.

    Args:
        model: a module; a copy of it is run, in eval mode.
        inputs: a tensor, a tuple of arguments or a mapping of named ones.
        allow: reasons by argument ("input 1", a name) or column ("input 0[3]").

    Raises:
        TypeError: ``model`` is no module, or there is no tensor in ``inputs``.
        MissingExtra: torch is not installed.

    Example:
        >>> import torch
        >>> check_ignored_inputs(torch.nn.Linear(3, 2), torch.randn(4, 3)).ok
        True
    """
    __tracebackhide__ = True
    need("torch", "check_ignored_inputs")
    from pytest_mltd.probes import copies, usage

    arguments = copies.arguments_of(inputs)
    return copies.unless_impossible(model, arguments, lambda copy: usage.ignored(copy, allow))


@check("model", rank=20)
def check_initial_loss(
    model: Any,
    inputs: Any,
    *,
    loss: Callable[..., Any] | None = None,
    targets: Any = None,
    max_ratio: float = 3.0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether the loss of a fresh model is about that of an answer which knows nothing: zeros, equal odds for each class.

    Args:
        model: a module before its training; a copy of it is run, in eval mode.
        inputs: a tensor, a tuple of arguments or a mapping of named ones.
        loss: called as ``loss(model(inputs), targets)``.
        targets: what belongs to the inputs.
        max_ratio: the highest ratio of the loss to that of zeros; a guess: answers as wide as
            the targets give 2.
        allow: a reason by place: "loss".

    Raises:
        TypeError: ``model`` is no module, or there is no tensor in ``inputs``.
        ValueError: ``loss`` refuses the answer and the targets.
        MissingExtra: torch is not installed.

    Example:
        >>> import torch
        >>> model, x, y = torch.nn.Linear(3, 2), torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
        >>> check_initial_loss(model, x, loss=torch.nn.functional.cross_entropy, targets=y).ok
        True
    """
    __tracebackhide__ = True
    need("torch", "check_initial_loss")
    from pytest_mltd.probes import copies, fitting

    arguments = copies.arguments_of(inputs)
    if loss is None or targets is None:
        return not_asked("it needs loss= and targets=")
    return copies.unless_impossible(
        model, arguments, lambda copy: fitting.initial(copy, loss, targets, max_ratio, allow)
    )


@check("model", explains=("losses.*", "model.initial_loss"), rank=10)
def check_shape_broadcast(
    model: Any,
    inputs: Any,
    *,
    loss: Callable[..., Any] | None = None,
    targets: Any = None,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether the loss stretches answers and targets against each other: (N, 1) and (N,) become N × N.

    Args:
        model: a module; a copy of it is run, in eval mode.
        inputs: a tensor, a tuple of arguments or a mapping of named ones.
        loss: called as ``loss(model(inputs), targets)``.
        targets: what belongs to the inputs.
        allow: a reason by place: "loss".

    Raises:
        TypeError: ``model`` is no module, or there is no tensor in ``inputs``.
        ValueError: ``loss`` refuses the answer and the targets.
        MissingExtra: torch is not installed.

    Example:
        >>> import torch
        >>> model, x, y = torch.nn.Linear(3, 1), torch.randn(4, 3), torch.randn(4, 1)
        >>> check_shape_broadcast(model, x, loss=torch.nn.functional.mse_loss, targets=y).ok
        True
    """
    __tracebackhide__ = True
    need("torch", "check_shape_broadcast")
    from pytest_mltd.probes import copies, fitting

    arguments = copies.arguments_of(inputs)
    if loss is None or targets is None:
        return not_asked("it needs loss= and targets=")
    return copies.unless_impossible(model, arguments, lambda copy: fitting.broadcast(copy, loss, targets, allow))


@umbrella
def check_model(
    model: Any,
    inputs: Any,
    *,
    loss: Callable[..., Any] | None = None,
    targets: Any = None,
    allow: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Ask a model everything that can be asked by running a copy of it.

    Whether it sees the future is asked where the targets are the inputs' next elements; `check_causal_leak` asks it of any
    model. What needs a loss or targets is not asked without.

    Args:
        model: a module; copies of it are run, and it stays as it is: weights, gradients, buffers, mode, random states.
        inputs: a tensor, a tuple of arguments or a mapping of named ones: one batch, as the training gives it.
        loss: called as ``loss(model(inputs), targets)``.
        targets: what belongs to the inputs.
        allow: reasons by ``family.fault`` or ``family.fault:place`` (globs).

    Raises:
        TypeError: ``model`` is no module, or there is no tensor in ``inputs``.
        ValueError: ``loss`` refuses the answer and the targets.
        MissingExtra: torch is not installed.
    """
    __tracebackhide__ = True
    need("torch", "check_model")
    from pytest_mltd.probes import copies

    arguments = copies.arguments_of(inputs)
    kind = type(copies.unwrapped(model)).__name__
    alone = (check_batch_mixing, check_eval_noise, check_ignored_inputs, check_unused_parameters)
    with_loss = (check_initial_loss, check_shape_broadcast)
    findings = [
        *_causality(model, inputs, targets, allow),
        *ask_all(alone, model, inputs, allow=allow),
        *ask_all(with_loss, model, inputs, loss=loss, targets=targets, allow=allow),
    ]
    shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in copies.named_tensors(arguments).items())
    return diagnose_findings("model", findings, looked_at=f"{kind} on {shapes}")


assert_no_causal_leak = asserting(check_causal_leak)
assert_no_batch_mixing = asserting(check_batch_mixing)
assert_no_eval_noise = asserting(check_eval_noise)
assert_no_unused_parameters = asserting(check_unused_parameters)
assert_no_ignored_inputs = asserting(check_ignored_inputs)
assert_no_initial_loss = asserting(check_initial_loss)
assert_no_shape_broadcast = asserting(check_shape_broadcast)
assert_model_sound = asserting(check_model, name="assert_model_sound")


def _causality(model: Any, inputs: Any, targets: Any, allow: Mapping[str, str] | None) -> list[Finding]:
    """Ask whether the model sees the future, where the targets are the inputs' next elements."""
    import torch

    from pytest_mltd.probes import copies, sequences

    sequence = None
    if isinstance(targets, torch.Tensor):
        sequence = sequences.sequence_in(copies.arguments_of(inputs), targets)
    if sequence is not None:
        return ask_all([check_causal_leak], model, inputs, argument=sequence.argument, axis=sequence.axis, allow=allow)
    unasked = not_asked("the targets are not the inputs' next elements" if targets is not None else "it needs targets=")
    return [dataclasses.replace(unasked, id=info(check_causal_leak).id)]
