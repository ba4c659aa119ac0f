"""``mltd run``: a script run, recorded, judged and kept."""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pytest_mltd.cli import last as last_run
from pytest_mltd.cli.output import FINDINGS, HEALTHY, MISUSE, Misuse, Output
from pytest_mltd.cli.policy import project_policy
from pytest_mltd.cli.writing import free_name

if TYPE_CHECKING:
    from pytest_mltd.core.findings import Diagnosis
    from pytest_mltd.recording.running import Run

OPTIONS = ("--steps", "--slice", "--seed", "--level", "--json")

_INTERRUPTED = 130  # what a shell gives a program that Ctrl-C ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be run, and how."""

    script: str | None
    module: str | None
    arguments: tuple[str, ...] = ()
    steps: int | None = 200
    slice: int | None = None
    seed: int | None = 0
    level: str = "default"

    @property
    def words(self) -> tuple[str, ...]:
        """The program as it is said after ``python``."""
        return (*((self.script,) if self.script is not None else ("-m", str(self.module))), *self.arguments)


@dataclass(slots=True)
class _Ended:
    """How the program ended: with its run, its error, or both."""

    run: Run | None = None
    error: BaseException | None = None
    code: int = 0


def run_and_tell(wish: Wish, output: Output) -> int:
    """Run the program and return the exit code."""
    _refuse_unrunnable(wish)
    project = Path.cwd()
    with project_policy(project):
        return _run_and_tell(wish, project, output)


def _run_and_tell(wish: Wish, project: Path, output: Output) -> int:
    last = _begin(project, wish, output)
    output.aside(_announcement(wish, last, project))  # before torch is imported, which takes seconds
    with output.others_to_stderr():
        ended = _run(wish, last, output)
    diagnosis = _diagnose(ended)
    code = _tell(wish, last, project, ended, diagnosis, output)
    if output.owns_process and ended.run is not None and ended.run.trace.ended == "cut":
        _leave_threads_behind(code, output)
    return code


def _refuse_unrunnable(wish: Wish) -> None:
    """Refuse what cannot be run, before the folder of the last run is given up for it."""
    from pytest_mltd.core.extras import MissingExtra, need
    from pytest_mltd.recording.levels import level_named
    from pytest_mltd.recording.running import script_at
    from pytest_mltd.recording.seeds import checked_seed

    for name in ("steps", "slice"):
        value = getattr(wish, name)
        if value is not None and value < 1:
            raise Misuse(f"--{name}: at least 1 is needed, not {value}")
    try:
        need("torch", "recording a run")
        level_named(wish.level)
        if wish.seed is not None:
            checked_seed(wish.seed)
        if wish.script is not None and not Path(wish.script).exists() and shutil.which(wish.script):
            script = next((word for word in wish.arguments if word.endswith(".py")), "train.py")
            raise Misuse(f"{wish.script!r} is a command; mltd runs the script itself: mltd run {shlex.quote(script)}")
        if wish.script is not None:
            script_at(wish.script)
    except (MissingExtra, ValueError, TypeError, FileNotFoundError) as error:
        raise Misuse(_in_our_terms(str(error))) from None


def _in_our_terms(message: str) -> str:
    """Return the words of `mltd.run` as one says them in a shell: "seed: …" is "--seed: …"."""
    name, colon, rest = message.partition(": ")
    if name == "target":
        return rest.replace("run it with module=", "run it with -m").replace('say module="', 'say -m "')
    return f"--{name}{colon}{rest}" if f"--{name}" in OPTIONS else message


def _begin(project: Path, wish: Wish, output: Output) -> last_run.Last:
    rank, size = _rank()
    command = {**asdict(wish), "cwd": str(project), **({"rank": rank, "processes": size} if size > 1 else {})}
    try:
        return last_run.begin(project, command, rank)
    except OSError as error:
        last = last_run.begin_elsewhere(command)
        output.aside(f".mltd cannot be written here ({error.strerror}); the run is kept in {last.folder}")
        return last


def _rank() -> tuple[int, int]:
    """Return which of how many processes this is, as torchrun tells each of its own: 0 of 1 without it."""
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return 0, 1
    return (rank, size) if 0 <= rank < size else (0, 1)


def _announcement(wish: Wish, last: last_run.Last, project: Path) -> str:
    parts = [
        "to its end" if wish.steps is None else f"at most {wish.steps} steps",
        "" if wish.slice is None else f"{wish.slice} samples of each DataLoader",
        "no seed" if wish.seed is None else f"seed {wish.seed}",
        f"kept in {_shown(last.folder, project)}",
    ]
    return f"running {shlex.join(wish.words)}: {', '.join(p for p in parts if p)}"


def _run(wish: Wish, last: last_run.Last, output: Output) -> _Ended:
    from pytest_mltd.recording.progress import telling
    from pytest_mltd.recording.running import run

    def tell(steps: int, loss: float | None) -> None:
        output.aside(f"step {steps}" + ("" if loss is None else f", loss {loss:.4g}"))

    _step_aside()
    ended = _Ended()
    try:
        with telling(tell) if sys.stderr.isatty() else contextlib.nullcontext():
            ended.run = run(
                *([] if wish.script is None else [wish.script]),
                *wish.arguments,
                module=wish.module,
                steps=wish.steps,
                slice=wish.slice,
                seed=wish.seed,
                level=wish.level,
                path=last.trace,
            )
    except BaseException as error:
        ended.run, ended.error = getattr(error, "mltd_run", None), error
        ours = isinstance(error, ValueError) and str(error).startswith("slice: ")  # raised where a loader is used
        if ours or (ended.run is None and isinstance(error, (ValueError, TypeError, OSError, ImportError))):
            last.end(None, exit=MISUSE)
            raise Misuse(_in_our_terms(str(error))) from error
        if ended.run is None and isinstance(error, Exception):
            raise  # a defect of ours
        ended.code = _show(error, wish.arguments, output)
    return ended


def _step_aside() -> None:
    """Take this command's own folder from the front of ``sys.path``, where the program's belongs."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    as_module = spec is not None and spec.name == "pytest_mltd.__main__"
    as_command = sys.path[:1] == [os.path.dirname(os.path.realpath(sys.argv[0]))] and "mltd" in Path(sys.argv[0]).name
    if (as_module or as_command) and not sys.flags.safe_path:
        del sys.path[0]


def _show(error: BaseException, arguments: tuple[str, ...], output: Output) -> int:
    """Show the program's error as Python would have, and return the exit code it would have had."""
    sys.stdout.flush()
    if isinstance(error, SystemExit):
        if error.code == 2 and (ours := [a for a in arguments if a.partition("=")[0] in OPTIONS]):
            output.aside(f"{ours[0]} stands after the script, so it is the script's; ours go before it")
        if isinstance(error.code, int):
            return error.code
        sys.stderr.write(f"{error.code}\n")
        return 1
    error = error.with_traceback(_of_the_program(error.__traceback__))
    sys.excepthook(type(error), error, error.__traceback__)
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def _of_the_program(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the program's own first line on."""
    ours = (str(Path(__file__).parents[1]), "<frozen runpy>", contextlib.__file__)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(ours):
        trace = trace.tb_next
    return trace


def _diagnose(ended: _Ended) -> Diagnosis | None:
    if ended.run is None:
        return None
    from pytest_mltd.diagnosis import diagnose

    return diagnose(ended.run)


def _tell(
    wish: Wish, last: last_run.Last, project: Path, ended: _Ended, diagnosis: Diagnosis | None, output: Output
) -> int:
    plain = None if diagnosis is None else diagnosis.as_dict()
    code = ended.code or _verdict(diagnosis)
    # Ctrl-C is no fault of the program; there is nothing in it that a test could keep.
    fault = None if isinstance(ended.error, KeyboardInterrupt) else ended.error
    error = None if fault is None else {"type": type(fault).__name__, "message": str(fault)}
    where = _shown(last.folder, project)
    lost = last.end(plain, exit=code, error=error)
    keep = None
    rank, size = _rank()  # a test runs the program in one process: of several, none can be kept so
    # A wrong argument, a file that is missing: its own words are above, and there is no run that a test could watch.
    never_trained = fault is not None and (diagnosis is None or not diagnosis.findings)
    if (
        size == 1
        and not lost
        and not never_trained
        and (fault is not None or (diagnosis is not None and diagnosis.failed))
    ):
        keep = f"mltd check {shlex.quote(where)} --write-test {shlex.quote(free_name(project))}"
    if size > 1:
        output.say(f"\nrank {rank} of {size}:")
    if diagnosis is not None:
        output.say(f"\n{diagnosis}")
    for line in _remarks(ended):
        output.say(line)
    if lost or not never_trained:
        output.say(f"not kept: {lost}" if lost else f"kept in {where}")
    if keep is not None:
        output.say(f"keep it: {keep}")
    return output.end(code, diagnosis=plain, error=error, program=asdict(wish), kept=None if lost else where, keep=keep)


def _verdict(diagnosis: Diagnosis | None) -> int:
    if diagnosis is None or not diagnosis.findings:
        return MISUSE  # nothing examined is not a pass
    return FINDINGS if diagnosis.failed else HEALTHY


def _remarks(ended: _Ended) -> Iterator[str]:
    if ended.run is None:
        return
    trace = ended.run.trace
    if trace.ended == "full":
        yield "the program caught what should have ended it (a bare except:, most likely) and went on to its own end"
    if ended.error is None and not (trace.n_steps or trace.notes or trace.of("backward").any()):
        yield "no training was seen; in other processes or threads none is: run with one, or call mltd.run on its function"
    if ended.run.sliced is not None:
        yield f"slice: {ended.run.sliced}"
    if ended.run.seeding is not None:
        if ended.run.seeding.operations:
            yield f"no deterministic form: {', '.join(ended.run.seeding.operations)}; two runs may differ in them"
        yield from ended.run.seeding.notes


def _shown(folder: Path, project: Path) -> str:
    return str(folder.relative_to(project)) if folder.is_relative_to(project) else str(folder)


def _leave_threads_behind(code: int, output: Output, patience: float = 5.0) -> None:
    """End the process although threads of a program that was cut go on; Python would wait for them, perhaps for ever.

    Args:
        code: the exit code.
        output: where it is said.
        patience: seconds that they are given to end by themselves. A guess: queues time out faster.
    """
    until = time.monotonic() + patience
    threads = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    alive = [thread.name for thread in threads if thread.is_alive()]
    if alive:
        output.aside(f"the program was ended and left running: {', '.join(alive)}")
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
