"""A script or module run as its own program inside this process, and the process as it was afterwards."""

from __future__ import annotations

import builtins
import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from pytest_mltd.recording.imports import loaded

_OURS = str(Path(__file__).parents[1])
# Programs of the machine and what was installed, as against the user's own files.
_INSTALLED = tuple({os.path.realpath(p) + os.sep for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)})


def run_script(path: str | os.PathLike[str], arguments: Sequence[str]) -> None:
    """Run a script as ``python path arguments`` would, in the current folder.

    Raises:
        SystemExit: the program ended itself with an exit code other than 0. Whatever else it raises passes through.
    """
    script = os.fspath(path)
    with _as_program([script, *arguments], os.path.dirname(os.path.realpath(script))):
        _leaving_well(lambda: _execute(os.path.abspath(script)))


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run a module as ``python -m name arguments`` would.

    Raises:
        ImportError: there is no such module.
        SystemExit: the program ended itself with an exit code other than 0. Whatever else it raises passes through.
    """
    with _as_program([name, *arguments], os.getcwd(), name):
        _leaving_well(lambda: runpy.run_module(name, run_name="__main__", alter_sys=True))


def has_process_group() -> bool:
    """Whether torch's default process group is open."""
    torch = loaded("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def close_process_group() -> None:
    """Close the process group that a program has left open, because it was ended; the next could not open its own."""
    if has_process_group():
        loaded("torch").distributed.destroy_process_group()


def _execute(script: str) -> None:
    # runpy.run_path would do, but throws the module away at once, and its frames stand above the user's in a traceback.
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=script, __builtins__=builtins, __loader__=SourceFileLoader("__main__", script), __cached__=None
    )
    sys.modules["__main__"] = main
    code = compile(Path(script).read_bytes(), script, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _leaving_well(program: Any) -> None:
    try:
        program()
    except SystemExit as end:
        if end.code not in (None, 0):
            raise


@contextlib.contextmanager
def _as_program(argv: list[str], folder: str, name: str = "") -> Iterator[None]:
    """Give the program its arguments and its first place to import from; take back what it changed in the process."""
    with contextlib.ExitStack() as undo:
        undo.enter_context(_kept_torch_settings())
        undo.callback(multiprocessing.set_start_method, multiprocessing.get_start_method(allow_none=True), force=True)
        multiprocessing.set_start_method(None, force=True)  # a program of its own may still choose  # type: ignore[arg-type]
        undo.callback(_set_signals, {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)})
        undo.callback(_set_environment, dict(os.environ))
        undo.callback(_return_to, os.getcwd())
        undo.callback(setattr, sys, "argv", sys.argv)
        undo.callback(setattr, sys, "excepthook", sys.excepthook)  # torch.distributed puts the rank before each line
        undo.callback(sys.path.__setitem__, slice(None), sys.path[:])
        undo.callback(_forget_modules, folder, set(sys.modules))
        undo.callback(sys.modules.update, {"__main__": sys.modules["__main__"], **_hide_modules(folder, name)})
        sys.argv = argv
        sys.path.insert(0, folder)
        yield


def _hide_modules(folder: str, name: str) -> dict[str, ModuleType]:
    """Take away modules that stand in the way: another file's `utils` must not be imported for the program's own."""
    own = {p.stem for p in Path(folder).glob("*.py")} | {p.parent.name for p in Path(folder).glob("*/__init__.py")}
    own -= sys.stdlib_module_names | {"torch", "numpy", "pytest_mltd", "__main__"}
    foreign = {top for top in own if top in sys.modules and not _is_from(sys.modules[top], folder)}
    return {
        module: sys.modules.pop(module)
        for module in list(sys.modules)
        if module.partition(".")[0] in foreign or module == name
    }


def _forget_modules(folder: str, known: set[str]) -> None:
    """Drop what the program imported from its own folder: the next program's `utils` is another file, or was edited.

    A module of a package that was there before belongs to that package, which stays.
    """
    for name in [n for n in sys.modules if n.partition(".")[0] not in known]:
        if _is_from(sys.modules[name], folder):
            del sys.modules[name]


def _is_from(module: ModuleType | None, folder: str) -> bool:
    """Whether a module is one of the user's files in a folder or below it."""
    places = [getattr(module, "__file__", None) or ""]
    with contextlib.suppress(Exception):  # a lazy module may do anything when asked
        places += list(getattr(module, "__path__", ()))
    inside = os.path.realpath(folder) + os.sep
    for place in places:
        real = os.path.realpath(place) if place else ""
        if real.startswith(inside) and not real.startswith((*_installed_below(inside), _OURS)):
            return True
    return False


def _installed_below(inside: str) -> tuple[str, ...]:
    """The installation, unless the whole folder lies in it (a script in /usr/local/… under a system Python)."""
    return tuple(place for place in _INSTALLED if not inside.startswith(place))


def _return_to(folder: str) -> None:
    with contextlib.suppress(OSError):  # the program may have removed it
        os.chdir(folder)


def _set_signals(handlers: dict[signal.Signals, Any]) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread, so the program could not change them either
        for number, handler in handlers.items():
            if handler is not None:  # one that was not set from Python
                signal.signal(number, handler)


def _set_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@contextlib.contextmanager
def _kept_torch_settings() -> Iterator[None]:
    """A default dtype, a gradient mode or a thread count set by the program concerns nobody after it."""
    torch = loaded("torch")
    if torch is None:
        yield
        return
    dtype, grad, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
