"""`run`: a training function, script or module, seeded, cut short and recorded."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mltd.core.extras import need
from pytest_mltd.core.trials import current_condition
from pytest_mltd.recording import programs, slices
from pytest_mltd.recording.choosing import at_least_one
from pytest_mltd.recording.seeds import Seeding, seed_everything

if TYPE_CHECKING:
    from pytest_mltd.core.traces import Trace
    from pytest_mltd.recording.recorder import Recording


class _Unsaid(int):
    """A default that a trial's condition may replace; a number that the caller wrote stands."""


STEPS = _Unsaid(200)  # a guess: enough to see a loss fall or burst, and on small models a matter of seconds
SEED = _Unsaid(0)


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A run that is over. It is taken wherever a recording or a trace is: ``diagnose(run)``, ``check_explosion(run)``.

    ``result`` is what the target returned; None if it was cut, and for a script. ``seeding`` says which operations have no
    deterministic form, ``sliced`` which DataLoaders were cut; both are None when nothing was asked.
    """

    result: Any
    recording: Recording
    seeding: Seeding | None = None
    sliced: slices.Slicing | None = None

    @property
    def trace(self) -> Trace:
        return self.recording.trace

    @property
    def steps(self) -> int:
        """How many steps the busiest optimizer took."""
        return self.trace.busiest

    def __repr__(self) -> str:
        return f"<Run of {self.steps} steps, ended: {self.trace.ended}>"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to a file that `Trace.load` and the shell's ``mltd check`` read."""
        return self.trace.save(path)


def run(
    target: Callable[..., Any] | str | os.PathLike[str] | None = None,
    /,
    *args: Any,
    module: str | None = None,
    steps: int | None = STEPS,
    slice: int | None = None,
    seed: int | None = SEED,
    level: str = "default",
    path: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Run:
    """Run a training function, a script or a module: seeded, on a slice if asked, recorded, ended after a number of steps.

    A script runs as its own program in this process: it sees ``args`` as its command line, imports from its own folder, is
    ``__main__``; the process is as before when it is over. A target that has a parameter ``seed``, ``steps`` or ``slice`` is
    given the same value, unless the call binds it. When a trial is under way (``pytest --mltd-repro``, ``--mltd-steps``, …),
    its condition replaces the defaults here, not what the call says.

    Args:
        target: a function, or the path of a script (``"train.py"``).
        args: what the function is called with, or the arguments of the script or module as words.
        module: a module to run as ``python -m`` would, as in ``module="pkg.train"``.
        steps: after this many steps of the busiest optimizer the program is ended; None lets it run to its end. It ends with a
            BaseException after the step, which ``except Exception`` lets pass, and the trace says that it was cut.
        slice: cut each DataLoader to this many samples. None leaves the data alone.
        seed: set before the run by `seed_everything`; None leaves random states alone.
        level: how much is recorded: "losses", "default" or "everything".
        path: a file to write the trace to while the program runs, readable also when the process is killed.
        kwargs: more arguments for the function.

    Raises:
        TypeError: the target is no function, script or module that can be run (a class, a generator function, a coroutine).
        ValueError: ``steps`` or ``slice`` is below 1, the seed is out of range, or a slice was asked for and no DataLoader
            was iterated.
        FileNotFoundError: there is no such script.
        MissingExtra: torch is not installed.
        BaseException: what the program raises passes through; ``error.mltd_run`` is the run up to there.

    Example:
        >>> import torch
        >>> def train(epochs):
        ...     model = torch.nn.Linear(2, 1)
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     for _ in range(epochs):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(4, 2)).mean().backward()
        ...         optimizer.step()
        >>> run(train, epochs=3)
        <Run of 3 steps, ended: completed>
    """
    __tracebackhide__ = True
    asked = _settled(steps, slice, seed)
    program, told = _program(target, module, args, kwargs, asked)
    _refuse_confusion(target, {"module": module, "level": None if level == "default" else level, "path": path})
    need("torch", "mltd.run")
    with contextlib.ExitStack() as around:
        seeding = None if asked["seed"] is None else around.enter_context(seed_everything(asked["seed"]))
        sliced = _cut_loaders(asked, around, unless_cut_already=slice is None)
        if "slice" in told:
            slices.note_by_hand()
        finished = _record(program, asked["steps"], level, path, seeding, sliced)
        if slice is not None and sliced is not None:
            sliced.refuse_if_idle()
    return finished


def run_unrecorded(
    target: Callable[..., Any] | str | os.PathLike[str] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    module: str | None,
    steps: int | None,
    slice: int | None,
    seed: int | None,
) -> None:
    """Run as `run` does, with nothing recorded; return when the program is through or was cut.

    Raises:
        BaseException: as `run`.
    """
    __tracebackhide__ = True
    from pytest_mltd.recording.recorder import Cut, cut_after

    asked = _settled(steps, slice, seed)
    program, _ = _program(target, module, args, kwargs, asked)
    _refuse_confusion(target, {"module": module})
    had_process_group = programs.has_process_group()
    with contextlib.ExitStack() as around:
        if asked["seed"] is not None:
            around.enter_context(seed_everything(asked["seed"]))
        _cut_loaders(asked, around, unless_cut_already=slice is None)
        if asked["steps"] is not None:
            around.enter_context(cut_after(asked["steps"]))
        try:
            program()
        except Cut:
            if not had_process_group:
                programs.close_process_group()


def script_at(path: str | os.PathLike[str]) -> Path:
    """Return the script at a path.

    Raises:
        TypeError: a folder or a notebook is there.
        FileNotFoundError: nothing is there.
    """
    script = Path(path)
    if script.is_dir():
        raise TypeError(f"target: {str(script)!r} is a folder; name the script in it, or run it with module=")
    if not script.exists():
        near = difflib.get_close_matches(script.name, [p.name for p in script.parent.glob("*.py")], n=1)
        hint = f"; the nearest is {str(script.with_name(near[0]))!r}" if near else ""
        if not hint and not script.suffix and os.sep not in str(path):
            hint = f'; for a module say module="{path}"'
        raise FileNotFoundError(f"target: no file {str(script)!r} in {os.getcwd()}{hint}")
    if script.suffix == ".ipynb":
        raise TypeError(f"target: {str(script)!r} is a notebook; make a script of it: jupyter nbconvert --to script")
    return script


def _settled(steps: int | None, slice: int | None, seed: int | None) -> dict[str, int | None]:
    """Return the values that hold: what the call said, else the condition of the trial, else the defaults."""
    condition = current_condition()
    if isinstance(steps, _Unsaid):
        steps = condition.steps or int(steps)
    if isinstance(seed, _Unsaid):
        seed = int(seed) if condition.seed is None else condition.seed
    samples = condition.slice if slice is None else slice
    return {
        "seed": seed,
        "steps": None if steps is None else at_least_one(steps, "steps"),
        "slice": None if samples is None else at_least_one(samples, "slice"),
    }


def _cut_loaders(
    asked: dict[str, int | None], around: contextlib.ExitStack, *, unless_cut_already: bool
) -> slices.Slicing | None:
    """Cut the loaders; whoever put a condition with a slice in force may be cutting them already, and counts them."""
    n = asked["slice"]
    if n is None or (unless_cut_already and slices.is_slicing()):
        return None
    return around.enter_context(slices.slicing(n, seed=asked["seed"] or 0))


def _record(
    program: Callable[[], Any],
    steps: int | None,
    level: str,
    path: str | os.PathLike[str] | None,
    seeding: Seeding | None,
    sliced: slices.Slicing | None,
) -> Run:
    __tracebackhide__ = True
    from pytest_mltd.recording.recorder import Cut, cut_after, record

    result: Any = None
    recording: Recording | None = None
    had_process_group = programs.has_process_group()
    cutting = contextlib.nullcontext() if steps is None else cut_after(steps)
    # One step more than the program is given, so that the trace says "cut", and not that the recording was full.
    most = None if steps is None else steps + 1
    try:
        with record(steps=most, level=level, path=path) as recording, cutting:
            result = program()
    except Cut:
        if not had_process_group:
            programs.close_process_group()
    except BaseException as error:
        if recording is not None:
            # No note on it: pytest.raises(match=…) would read that too.
            with contextlib.suppress(AttributeError, TypeError):  # an exception class may forbid it
                error.mltd_run = Run(None, recording, seeding, sliced)  # type: ignore[attr-defined]
        raise
    assert recording is not None  # given by `record`, which else has raised
    return Run(result, recording, seeding, sliced)


def _program(
    target: Any, module: str | None, args: tuple[Any, ...], kwargs: dict[str, Any], offered: dict[str, Any]
) -> tuple[Callable[[], Any], set[str]]:
    """Return the program as a function of nothing, and which of our values it is given.

    Raises:
        TypeError: it is nothing that can be run.
        FileNotFoundError: there is no such script.
    """
    if module is not None:
        if callable(target):
            raise TypeError(f"module: {module!r} and {_name(target)} cannot both be run")
        said = args if target is None else (target, *args)
        return functools.partial(programs.run_module, module, _words(said, kwargs, f"module={module!r}")), set()
    if target is None:
        raise TypeError('target: nothing to run; give a function, "train.py" or module="pkg.train"')
    if isinstance(target, (str, os.PathLike)):
        words = _words(args, kwargs, repr(os.fspath(target)))
        return functools.partial(programs.run_script, script_at(target), words), set()
    _refuse_unrunnable(target)
    given = _values_for(target, args, kwargs, offered)
    return functools.partial(_call, functools.partial(target, *args, **kwargs, **given), _name(target)), set(given)


def _words(args: tuple[Any, ...], kwargs: dict[str, Any], program: str) -> list[str]:
    if kwargs:
        name, value = next(iter(kwargs.items()))
        raise TypeError(f"{name}: a program takes its arguments as words: run({program}, '--{name}', {str(value)!r})")
    return [os.fspath(arg) if isinstance(arg, os.PathLike) else str(arg) for arg in args]


def _refuse_unrunnable(target: Any) -> None:
    name = _name(target)
    if inspect.isclass(target):
        raise TypeError(f"target: {name} is a class; give the method that trains, as in run({name}(…).fit)")
    if not callable(target):
        raise TypeError(f"target: a function, a script or a module is needed, not {target!r}")
    call = target if inspect.isroutine(target) or isinstance(target, functools.partial) else type(target).__call__
    for kind, is_kind in _UNFINISHED.items():
        if any(is_kind(f) for f in (target, call)):
            raise TypeError(f"target: {name} is {kind}; wrap it in a function that runs it to its end")
    if any(c.__name__ == "Module" and c.__module__ == "torch.nn.modules.module" for c in type(target).__mro__):
        raise TypeError(f"target: {name} is a model; give the function that trains it")


_UNFINISHED = {
    "a generator function": inspect.isgeneratorfunction,
    "a coroutine function": inspect.iscoroutinefunction,
    "an asynchronous generator function": inspect.isasyncgenfunction,
}


def _call(target: Callable[[], Any], name: str) -> Any:
    __tracebackhide__ = True
    result = target()
    if inspect.iscoroutine(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        kind = type(result).__name__.replace("_", " ")
        if not inspect.isasyncgen(result):
            result.close()
        raise TypeError(
            f"target: {name} returned a {kind}, so nothing ran; wrap it in a function that runs it to its end"
        )
    return result


def _values_for(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Return which of the offered values the target has a parameter for, and has not been given."""
    free = _free_parameters(target)
    with contextlib.suppress(TypeError, ValueError):  # a call that does not fit says so best itself
        free -= inspect.signature(target).bind_partial(*args, **kwargs).arguments.keys()
    return {name: value for name, value in offered.items() if value is not None and name in free}


def _refuse_confusion(target: Any, ours: dict[str, Any]) -> None:
    """A trace written over the file that was meant for the target's own ``path`` would be a loss."""
    free = _free_parameters(target) if callable(target) else set()
    for name, value in ours.items():
        if name in free and value is not None:
            raise TypeError(
                f"{name}: mltd.run takes it for its own, and {_name(target)} has a parameter of that name; "
                f"bind it first: functools.partial({_name(target)}, {name}={value!r})"
            )


def _free_parameters(target: Any) -> set[str]:
    """Return the parameters that can be given by name and are not bound yet; none if the target does not tell."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return set()
    bound = target.keywords if isinstance(target, functools.partial) else {}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in parameters if p.kind in by_name and p.name not in bound}


def _name(target: Any) -> str:
    inner = target.func if isinstance(target, functools.partial) else target
    return getattr(inner, "__qualname__", None) or type(inner).__name__
