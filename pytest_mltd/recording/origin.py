"""Where the NaN was born: the first operation that made a value that is not finite out of finite ones.

::

    print(mltd.locate_nonfinite(train))
    print(mltd.locate_nonfinite("train.py", "--lr", "0.1"))
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pytest_mltd.core.asking import umbrella
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, finding_from_dict, not_asked
from pytest_mltd.recording.running import SEED, run_unrecorded

if TYPE_CHECKING:
    from pytest_mltd.recording.tracing import Finder


ID = "origin.nonfinite"


@umbrella
def locate_nonfinite(
    train: Callable[..., Any] | str | os.PathLike[str] | None = None,
    /,
    *args: Any,
    module: str | None = None,
    steps: int | None = None,
    slice: int | None = None,
    seed: int | None = SEED,
    **kwargs: Any,
) -> Finding:
    """Find the first operation, of the forward or the backward, that made a NaN or an infinity out of finite numbers.

    The training runs once with each loss and each step's gradients looked at, and is ended at the first that are not finite.
    Its last step is then repeated and watched operation by operation. From the broken loss or gradient the way leads back to
    what made it; an infinity that was meant, such as a mask is filled with, is passed by.

    The repetition starts from a forked copy of the process, one of which is kept each second. Where no fork is
    possible (an accelerator, other threads, worker processes) or none was kept yet, the training runs again from its start.
    Modules, optimizers and tensors that existed before are put back. What the repeated part writes to files is written twice.

    Args:
        train: the training as `run` takes it: a function, or the path of a script.
        args: what the function is called with, or the words of the script's command line.
        module: a module to run as ``python -m`` would.
        steps: end the run after so many steps of the busiest optimizer; None lets it run to its end.
        slice: cut each DataLoader to this many samples.
        seed: set before both runs; with None the random states are put back before the second.
        kwargs: more arguments for the function.

    Returns:
        A failing finding with the operation, its line and module, what it was given, and the step. "Not asked" where the run
        stayed finite, or its second run did.

    Raises:
        TypeError, ValueError, FileNotFoundError: as `run`.
        MissingExtra: torch is not installed.
        BaseException: what the training raises while everything is finite.

    Example:
        >>> import torch
        >>> def train():
        ...     w = torch.zeros(3, requires_grad=True)
        ...     optimizer = torch.optim.SGD([w], lr=0.1)
        ...     (w**2).sum().sqrt().backward()
        ...     optimizer.step()
        >>> locate_nonfinite(train).details["operation"]
        'sqrt'
    """
    __tracebackhide__ = True
    need("torch", "mltd.locate_nonfinite")

    home = os.getpid()

    def attempt(listener: Any) -> None:
        __tracebackhide__ = True
        from pytest_mltd.recording import hooks

        try:
            hooks.join(listener)
            run_unrecorded(train, args, kwargs, module=module, steps=steps, slice=slice, seed=seed)
        finally:
            if os.getpid() != home:  # a kept process that did not find it again
                os._exit(1)
            hooks.leave(listener)

    with contextlib.ExitStack() as afterwards:
        put_back = _kept((train, args, kwargs), random=seed is None)
        afterwards.callback(put_back)
        return dataclasses.replace(_located(attempt, put_back), id=ID)


@contextlib.contextmanager
def watching(step: int) -> Iterator[Callable[[], Finding | None]]:
    """Watch the operations of what trains in the block, from the step before ``step`` on.

    The training is ended at the first loss or gradient that is not finite, as after its last wanted step. What the block is
    given tells the finding afterwards, None where nothing was found. Results do not change by it, except those of compiled
    functions, which run uncompiled.
    """
    from pytest_mltd.recording import hooks
    from pytest_mltd.recording.births import finding_of
    from pytest_mltd.recording.tracing import Tracer

    tracer = Tracer(max(step - 1, 0), 0, [])

    def found() -> Finding | None:
        if tracer.birth is None:
            return None
        return dataclasses.replace(finding_of(tracer.birth, tracer.born_after, tracer.reaches), id=ID)

    try:
        hooks.join(tracer)
        with tracer:
            yield found
    finally:
        hooks.leave(tracer)


def _located(attempt: Callable[[Any], None], put_back: Callable[[], None]) -> Finding:
    __tracebackhide__ = True
    from pytest_mltd.recording.births import finding_of
    from pytest_mltd.recording.tracing import Finder, Tracer

    finder, raised = Finder(_replay), None
    try:
        try:
            attempt(finder)
        except Exception as error:  # it may look for itself whether its loss is finite
            raised = error
        if not (finder.what or finder.ended_bad or raised):
            return _stayed_finite(finder)
        kept = finder.checkpoints.ask(finder.since) if finder.what else None
        if kept is not None:
            return finding_from_dict(kept)
    finally:
        finder.checkpoints.drop()
    for since, after in _windows(finder):
        put_back()
        tracer = Tracer(since, after, finder.losses)
        with contextlib.suppress(*([Exception] if raised else ())), tracer:
            attempt(tracer)
        if finder.what and not tracer.reaches:  # it stayed finite
            break
        if not tracer.reaches:
            tracer.look_back()
        # A value from before the window asks for a run that is watched from its beginning.
        if tracer.birth is not None and not (tracer.birth.outside and (since or after)):
            return finding_of(tracer.birth, tracer.born_after, tracer.reaches)
    if raised is not None:
        raise raised
    return not_asked(
        f"the run was not finite at step {finder.steps} ({finder.what or 'loss'}), and when it ran again it was",
        next_step="make it repeatable first: mltd.check_reproducible(train) names what differs between two runs",
    )


def _replay(since: int, steps: int, answer: Callable[[Any], None]) -> None:
    """Go on in a kept process: watched, and silent where the value is from before it was kept."""
    from pytest_mltd.recording import hooks
    from pytest_mltd.recording.births import finding_of
    from pytest_mltd.recording.tracing import Tracer

    def tell(tracer: Tracer) -> None:
        birth = tracer.birth
        if birth is None or birth.outside:
            answer(None)
        else:
            answer(finding_of(birth, tracer.born_after, tracer.reaches).as_dict())

    tracer = Tracer(since, 0, [], tell)
    hooks.join(tracer)
    tracer.go_on(steps)


def _windows(finder: Finder) -> Iterator[tuple[int, int]]:
    """Yield what is to be watched: from the step before the bad one on (from the loss before, without steps); everything."""
    since = finder.since
    after = 0 if finder.steps else max(len(finder.losses) - 1, 0)
    if since or after:
        yield since, after
    yield 0, 0


def _stayed_finite(finder: Finder) -> Finding:
    steps = f"{finder.steps:,} {'step' if finder.steps == 1 else 'steps'}"
    return not_asked(
        f"the run stayed finite: {len(finder.losses):,} losses and the gradients of {steps}",
        next_step="" if finder.losses else "nothing was seen to train; give the function or script that does",
    )


def _tensors_of(program: Any) -> list[Any]:
    """Return the tensors among the arguments of a training function, and those that its code reaches by name."""
    import torch

    from pytest_mltd.recording.forwards import tensors_in

    train, args, kwargs = program
    function = getattr(train, "__func__", train)
    named = [*getattr(getattr(train, "__self__", None), "__dict__", {}).values()]
    named += getattr(function, "__globals__", {}).values()
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # an empty one
            named.append(cell.cell_contents)
    return [*tensors_in((args, kwargs)), *(v for v in named if issubclass(type(v), torch.Tensor))]


def _can_be_kept(tensor: Any) -> bool:
    """Whether a tensor can be copied and written again: a plain one whose storage holds all of it."""
    from pytest_mltd.recording import lanes

    if lanes.plain(tensor) is None or tensor.is_inference():
        return False
    last = tensor.storage_offset() + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return bool(tensor.numel() == 0 or tensor.untyped_storage().nbytes() >= (last + 1) * tensor.element_size())


def _kept(program: Any, random: bool) -> Callable[[], None]:
    """Return what puts modules, optimizers, the program's own tensors and (if asked) random states back as they are now.

    Tensors are taken from what holds them. One whose memory was freed (as sharded training frees weights) is left alone: to
    copy it ends the process.
    """
    import torch

    from pytest_mltd.recording import seeds
    from pytest_mltd.recording.forwards import tensors_in
    from pytest_mltd.recording.naming import living

    modules: list[torch.nn.Module] = living(torch.nn.Module)
    buffers = [b for m in modules for b in m.buffers(recurse=False)]
    held = [p for m in modules for p in m.parameters(recurse=False)]
    held += [p for o in living(torch.optim.Optimizer) for group in o.param_groups for p in group["params"]]
    held += [t for t in _tensors_of(program) if t.requires_grad and t.is_leaf]
    tensors = {id(t): t for t in (*buffers, *held) if _can_be_kept(t) and (t.grad is None or _can_be_kept(t.grad))}
    values = [(t, t.detach().clone()) for t in tensors.values()]
    gradients = [(t, t.grad, None if t.grad is None else t.grad.detach().clone()) for t in tensors.values()]
    whole = (o for o in living(torch.optim.Optimizer) if all(map(_can_be_kept, tensors_in(list(o.state.values())))))
    optimizers = [(o, copy.deepcopy(o.state_dict())) for o in whole]
    modes = [(m, m.training) for m in modules]
    state = seeds.snapshot() if random else None

    def put_back() -> None:
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
            for tensor, own, as_it_was in gradients:
                tensor.grad = own  # the caller's tensor, which a run may have added to
                if own is not None and as_it_was is not None:
                    own.copy_(as_it_was)
        for optimizer, known in optimizers:
            optimizer.load_state_dict(copy.deepcopy(known))
        for module, mode in modes:
            module.training = mode
        if state is not None:
            seeds.restore(state)

    return put_back
