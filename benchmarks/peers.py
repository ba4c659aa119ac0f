"""What pytest-torch says of the same programs, through its own runner.

usage: python benchmarks/peers.py [--seeds 1] [--cases DIR] [name ...]

Its runner wants a model, optimizers and a function that makes one step. The programs are whole loops, so each runs in a thread
that is let go until the backward after its next optimizer step whenever the runner asks for one: the program stays unedited,
and the runner sees every step of it. The model is what the program has called before its first backward. Asked is
``run.assert_healthy()`` as it stands, and with a loss that must fall by a tenth. Programs
that its one setup cannot hold are left out, with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from error_rates import CORPUS, programs
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

PATIENCE = 300  # seconds for one step of a program; it hangs when more are needed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cases", type=Path, action="append", help="a folder with cases/ and healthy/")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    said: dict[str, list[Verdict]] = {"faulty": [], "twin": [], "healthy": []}
    for path, module in programs(options.cases or [CORPUS], options.names):
        for seed in range(options.seeds):
            for variant in ("faulty", "twin") if path.parent.name == "cases" else ("healthy",):
                how = {} if variant == "healthy" else {"fixed": variant == "twin"}
                begin = f"  {variant:8}{path.stem:34}{seed}  "
                try:
                    found = verdict(lambda m=module, s=seed, h=how: m.train(s, **h))
                except NotJudged as reason:
                    print(f"{begin}left out: {reason}", flush=True)
                    continue
                said[variant].append(found)
                print(f"{begin}{found[0] or found[1] or 'passes'}", flush=True)
    for variant, findings in said.items():
        plain, falling = (sum(f[i] is not None for f in findings) for i in (0, 1))
        print(f"{variant}: of {len(findings)} runs {plain} fail, {falling} where the loss must fall by a tenth")


Verdict = tuple[str | None, str | None]  # the first line of what fails: as it stands, and where the loss must fall


class NotJudged(Exception):
    """The runner cannot take this program."""


class Ended(BaseException):
    """Ends a program whose verdict is known; no `except Exception` of its own holds it."""


def verdict(program: Callable[[], Any]) -> Verdict:
    """Return what pytest-torch's runner holds against a program."""
    from pytest_torch.training_loop import TrainingSetup, run_training

    steps, ends_badly = count_steps(program)
    with Stepwise(program) as running:
        running.go()  # up to the first backward
        if not running.roots or not steps:
            raise NotJudged("no model or no optimizer step")
        model = running.roots[0] if len(running.roots) == 1 else torch.nn.ModuleList(running.roots)
        held = {id(p) for p in model.parameters()}
        optimizers = [o for o in living() if any(id(p) in held for g in o.param_groups for p in g["params"])]
        if not optimizers:
            raise NotJudged("no optimizer of this model before the first backward")

        def step(setup: Any, batch: Any) -> Any:
            running.go()
            return running.loss

        setup = TrainingSetup(model, {f"optimizer {i}": o for i, o in enumerate(optimizers)})
        run = run_training(lambda: setup, [None], step, steps=steps)
        if running.error is not None and not ends_badly:
            raise NotJudged(f"the runner breaks it: {type(running.error).__name__}")
        if not running.stepping <= {id(o) for o in optimizers}:
            raise NotJudged("an optimizer steps that is none of the model at the first backward")
    return failure(run.assert_healthy), failure(lambda: run.assert_healthy(min_relative_decrease=0.1))


def failure(question: Callable[[], Any]) -> str | None:
    try:
        question()
    except AssertionError as error:
        return str(error).splitlines()[0]
    return None


class Stepwise:
    """A program in a thread of its own that stops before its first backward and before each that follows an optimizer step."""

    def __init__(self, program: Callable[[], Any]) -> None:
        self._program = program
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.over = self._end = False
        self._started = self._stepped = False
        self.roots: list[torch.nn.Module] = []
        self.loss: torch.Tensor | None = None
        self.error: Exception | None = None  # that ended the program
        self.stepping: set[int] = set()  # optimizers that have stepped

    def __enter__(self) -> Stepwise:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end = True
        self._go.release()
        self._thread.join(PATIENCE)

    def go(self) -> None:
        """Let the program run to its next stop, or to its end."""
        self._go.release()
        if not self.over and not self._stopped.acquire(timeout=PATIENCE):
            raise NotJudged("it hangs")

    def _stop(self) -> None:
        self._stopped.release()
        self._go.acquire()
        if self._end:
            raise Ended

    def _run(self) -> None:
        self._go.acquire()
        try:
            with quiet(), self._watched():
                self._program()
        except Ended:
            pass
        except Exception as error:
            self.error = error
        self.over = True
        self._stopped.release()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        original, mine = torch.autograd._engine_run_backward, threading.get_ident()

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == mine and kwargs.get("accumulate_grad"):
                if not self._started or self._stepped:
                    self._started, self._stepped = True, False
                    self._stop()
                self.loss = tensors[0].detach().sum()
            return original(tensors, *args, **kwargs)

        def called(module: torch.nn.Module, args: Any) -> None:
            parts = {id(part) for root in self.roots for part in root.modules()}
            if not self._started and id(module) not in parts and next(module.parameters(), None) is not None:
                inside = {id(part) for part in module.modules()}
                self.roots = [root for root in self.roots if id(root) not in inside] + [module]

        def stepped(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if threading.get_ident() == mine:
                self._stepped = True  # the runner writes its record after this hook
                self.stepping.add(id(optimizer))

        handles = [register_module_forward_pre_hook(called), register_optimizer_step_post_hook(stepped)]
        torch.autograd._engine_run_backward = backward
        try:
            yield
        finally:
            torch.autograd._engine_run_backward = original
            for handle in handles:
                handle.remove()


def count_steps(program: Callable[[], Any]) -> tuple[int, bool]:
    """Return how often a program stops after its first backward was reached, and whether it ends with an error."""
    count = 0
    with Stepwise(program) as running:
        running.go()
        while not running.over:
            running.go()
            count += 1
    return count, running.error is not None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def living() -> list[Optimizer]:
    gc.collect()  # those of the program before
    return [o for o in gc.get_objects() if issubclass(type(o), Optimizer)]


if __name__ == "__main__":
    main()
