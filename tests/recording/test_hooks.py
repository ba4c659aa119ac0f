"""The installed hooks: everything is put back, always, and nothing of the program is disturbed."""

import itertools
import random
import subprocess
import sys
import threading
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as nn_module
from torch.optim import lr_scheduler

from pytest_mltd.core.traces import CALLS
from pytest_mltd.recording import hooks, patches
from pytest_mltd.recording.recorder import Cut, cut_after, record


def attributes():
    """Return every attribute that the hooks touch, and torch's global hook tables."""
    import torch.nn.utils as utils
    from torch.optim.optimizer import Optimizer, _global_optimizer_post_hooks, _global_optimizer_pre_hooks

    scaler = torch.amp.GradScaler
    owners = [
        (torch.autograd, "_engine_run_backward"),
        *((Optimizer, n) for n in ("__init__", "zero_grad")),
        *((nn.Module, n) for n in ("zero_grad", "train", "eval", "__call__")),
        *((scaler, n) for n in ("scale", "unscale_", "step", "update")),
        *((m, n) for m in (utils, utils.clip_grad) for n in ("clip_grad_norm_", "clip_grad_value_")),
        *((m, n) for m in (torch, torch.serialization) for n in ("save", "load")),
        *((torch._C._nn, n) for n in patches.LOSS_FUNCTIONS),
        (torch, "binary_cross_entropy_with_logits"),
        *((m, "manual_seed") for m in (torch, torch.random)),
        (torch, "seed"),
        (random, "seed"),
        *((np.random, n) for n in ("seed", "default_rng")),
        *((k, "step") for k in vars(lr_scheduler).values() if isinstance(k, type) and "step" in vars(k)),
    ]
    tables = [
        _global_optimizer_pre_hooks,
        _global_optimizer_post_hooks,
        nn_module._global_forward_hooks,
        nn_module._global_forward_pre_hooks,
        nn_module._global_forward_hooks_always_called,
        nn_module._global_forward_hooks_with_kwargs,
        nn_module._global_backward_hooks,
    ]
    return [(o, n, vars(o)[n] if isinstance(o, type) else getattr(o, n)) for o, n in owners], tables


@pytest.fixture(autouse=True)
def untouched():
    """Hold every test here to the promise: each attribute is the identical object afterwards, the tables are empty."""
    before, tables = attributes()
    yield
    after, _ = attributes()
    assert [f"{o}.{n}" for (o, n, old), (_, _, new) in zip(before, after, strict=True) if old is not new] == []
    assert [len(t) for t in tables] == [0] * len(tables)
    assert not hooks.installed()


def step(model=None, optimizer=None):
    model = model or nn.Linear(2, 1)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    F.mse_loss(model(torch.ones(3, 2)), torch.zeros(3, 1)).backward()
    optimizer.step()
    optimizer.zero_grad()


def kinds(trace):
    return [CALLS[k] for k in trace.calls["kind"]]


class TestEverythingIsPutBack:
    @pytest.mark.parametrize("level", ["losses", "default", "everything"])
    def test_after_a_block(self, level):
        """Plain end."""
        with record(level=level):
            step()
            assert hooks.installed()

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, Cut])
    def test_after_an_error(self, error):
        """Exception, Ctrl-C, exit, cut."""
        with pytest.raises(error), record():
            step()
            raise error

    @pytest.mark.parametrize("after", [0, 1, 12, 30])
    def test_after_ctrl_c_while_they_are_being_installed(self, monkeypatch, after):
        """What was in place by then is put back."""
        before, contexts = attributes(), patches.contexts

        def interrupted():
            yield from itertools.islice(contexts(), after)
            raise KeyboardInterrupt

        monkeypatch.setattr(patches, "contexts", interrupted)
        for block in (record, lambda: cut_after(3)):
            with pytest.raises(KeyboardInterrupt), block():
                pass
            assert attributes() == before
            assert not hooks.installed()
            assert not hooks._ears

    def test_after_a_full_recording(self):
        """Full: the hooks go before the block ends, at the next backward."""
        with record(steps=1):
            step()
            step()
            assert not hooks.installed()

    def test_after_nested_recordings_that_end_in_any_order(self):
        """The last one out removes them."""
        outer, inner = record(), record(level="losses")
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        assert hooks.installed()
        step()
        inner.__exit__(None, None, None)

    def test_after_a_generator_that_was_thrown_away(self):
        """A recording whose block is abandoned is closed with its generator."""

        def program():
            with record():
                step()
                yield

        running = program()
        next(running)
        running.close()

    def test_where_a_user_module_had_imported_the_name(self):
        """`from torch.nn.utils import clip_grad_norm_`: seen inside, put back after; imports made inside too."""
        import sys

        mine = types.ModuleType("somebody_elses_module")
        mine.clip_grad_norm_ = original = torch.nn.utils.clip_grad_norm_
        sys.modules["somebody_elses_module"] = mine
        try:
            with record() as run:
                model = nn.Linear(2, 1)
                F.mse_loss(model(torch.ones(3, 2)), torch.zeros(3, 1)).backward()
                mine.clip_grad_norm_(model.parameters(), 0.5)
                exec("from torch.nn.utils import clip_grad_value_", vars(mine))
        finally:
            del sys.modules["somebody_elses_module"]
        assert mine.clip_grad_norm_ is original
        assert mine.clip_grad_value_ is torch.nn.utils.clip_grad_value_
        assert "clip" in kinds(run.trace)
        assert run.trace.calls["value"][run.trace.of("clip")].tolist() == [0.5]

    def test_a_patch_that_somebody_else_put_on_top_is_left(self, monkeypatch):
        """Another tool that wrapped our wrapper keeps its wrapper, and ours inside passes through."""
        original = torch.seed
        with record():
            ours = torch.seed

            def theirs():
                return ours()

            torch.seed = theirs
        assert torch.seed is theirs
        torch.seed = original
        state = torch.get_rng_state()
        ours()
        torch.set_rng_state(state)


class TestWhatIsHeard:
    def test_the_calls_of_a_whole_epoch(self, tmp_path):
        """train, seeds, backward, clip, step, scheduler, zero_grad, save, load, eval: each once, in order."""
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)], [5]
        )
        with record() as run:
            torch.manual_seed(3)
            model.train()
            F.mse_loss(model(torch.ones(3, 2)), torch.zeros(3, 1)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.25)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            torch.save({"a": 1}, tmp_path / "x.pt")
            torch.load(tmp_path / "x.pt")
            model.eval()
        expected = ["seed", "train", "batch", "forward", "backward", "clip", "step", "scheduler", "zero_grad", "save"]
        assert kinds(run.trace) == [*expected, "load", "eval"]
        assert run.trace.calls["value"][run.trace.of("clip")].tolist() == [0.25]
        assert run.trace.calls["value"][run.trace.of("scheduler")][0] == pytest.approx(optimizer.param_groups[0]["lr"])
        assert run.trace.steps["grad_norm_used"][0] == pytest.approx(0.25, rel=1e-4)
        assert run.trace.steps["grad_norm"][0] > 0.3

    def test_a_scheduler_made_inside_is_not_a_call(self):
        """Constructors step a scheduler once; that is no call of the program."""
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record() as run:
            lr_scheduler.StepLR(optimizer, 2)
        assert "scheduler" not in kinds(run.trace)

    def test_seeds_with_their_lines_and_whether_they_are_the_clock(self):
        """A clock seed and an unseeded generator are named with the line that made them."""
        import time

        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        with record() as run:
            torch.manual_seed(7)
            random.seed(int(time.time()))
            np.random.seed(time.time_ns() % 2**32)
            np.random.default_rng()
            np.random.default_rng(42)
            random.seed(123456789)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        found = [(s.what, s.value, s.clock) for s in run.trace.seeds]
        assert found[0] == ("torch.manual_seed", "7", False)
        assert [(what, clock) for what, _, clock in found[1:3]] == [("random.seed", True), ("numpy.random.seed", True)]
        assert found[3:] == [
            ("numpy.random.default_rng", None, False),
            ("numpy.random.default_rng", "42", False),
            ("random.seed", "123456789", False),
        ]
        assert all("test_hooks.py:" in s.site for s in run.trace.seeds)

    def test_another_thread_is_not_watched(self):
        """Only the thread that entered records; another may train at the same time."""
        with record() as run:
            step()
            other = threading.Thread(target=lambda: [step() for _ in range(3)])
            other.start()
            other.join()
        assert run.trace.n_steps == 1

    def test_two_threads_may_record_at_once(self):
        """Each gets its own steps."""
        counts = {}
        meet = threading.Barrier(2)

        def work(n):
            with record() as run:
                meet.wait(20)
                for _ in range(n):
                    step()
                meet.wait(20)
            counts[n] = run.trace.n_steps

        threads = [threading.Thread(target=work, args=(n,)) for n in (2, 5)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert counts == {2: 2, 5: 5}

    def test_workers_of_a_data_loader_do_not_write(self):
        """A forked worker has our thread's identity and our file; it stays deaf."""
        loader = torch.utils.data.DataLoader(
            torch.arange(8.0), batch_size=2, num_workers=1, worker_init_fn=_seed_worker
        )
        with record() as run:
            step()
            assert sum(len(b) for b in loader) == 8
            step()
        assert run.trace.n_steps == 2
        assert run.trace.notes == ()
        assert run.trace.seeds == ()


def _seed_worker(number):
    torch.manual_seed(number)
    random.seed(number)
    np.random.default_rng(number)


class TestUnderCompilers:
    def test_a_compiled_model_trains_and_is_recorded(self):
        """Hooks do nothing while a program is compiled; backward and steps are seen as ever."""
        torch._dynamo.reset()
        model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        compiled = torch.compile(model, backend="eager")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record() as run:
            for _ in range(3):
                step(compiled, optimizer)
        torch._dynamo.reset()
        assert run.trace.n_steps == 3
        assert run.trace.notes == ()
        assert [p.name for p in run.trace.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]

    def test_a_graph_being_traced_has_none_of_our_operations(self):
        """torch.fx traces the module as it is."""
        model = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
        plain = str(torch.fx.symbolic_trace(model).graph)
        with record():
            inside = str(torch.fx.symbolic_trace(model).graph)
        assert inside == plain

    def test_a_scripts_trace_has_none_of_our_readings(self):
        """torch.jit.trace warns where a tensor becomes a number; the batch is not looked at while it runs."""
        model = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
        with record(level="everything") as run, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            torch.jit.trace(model, torch.ones(3, 2), check_trace=False)
        assert [str(w.message) for w in warned if w.category is torch.jit.TracerWarning] == []
        assert run.trace.notes == ()

    def test_functional_transforms_pass(self):
        """vmap and grad of torch.func see no reading of their wrapped tensors."""
        model = nn.Linear(2, 1)
        params = {k: v.detach() for k, v in model.named_parameters()}

        def loss(p, x):
            return F.mse_loss(torch.func.functional_call(model, p, (x,)), torch.zeros(1))

        x = torch.randn(5, 2)
        plain = torch.func.vmap(torch.func.grad(loss), (None, 0))(params, x)
        with record(level="everything") as run:
            inside = torch.func.vmap(torch.func.grad(loss), (None, 0))(params, x)
        assert run.trace.notes == ()
        assert all(torch.equal(plain[k], inside[k]) for k in plain)

    def test_a_tensor_of_a_class_of_the_programs_sees_none_of_our_readings(self):
        """Its ``__torch_function__`` is called as often with us as without."""

        class Counted(torch.Tensor):
            calls = 0

            @classmethod
            def __torch_function__(cls, function, kinds, args=(), kwargs=None):
                Counted.calls += 1
                return super().__torch_function__(function, kinds, args, kwargs or {})

        def counted():
            torch.manual_seed(0)
            Counted.calls = 0
            model = nn.Sequential(nn.Linear(2, 3), nn.Flatten())
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(2):
                optimizer.zero_grad()
                F.mse_loss(model(torch.ones(4, 2).as_subclass(Counted)), torch.zeros(4, 3)).backward()
                optimizer.step()
            return Counted.calls

        plain = counted()
        with record(level="everything") as run:
            inside = counted()
        assert run.trace.notes == ()
        assert inside == plain

    def test_a_mode_of_the_program_sees_none_of_our_operations(self):
        """A dispatch mode counts the same operations with and without us."""
        from torch.utils._python_dispatch import TorchDispatchMode

        class Counting(TorchDispatchMode):
            def __init__(self):
                super().__init__()
                self.seen = []

            def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
                self.seen.append(str(function))
                return function(*args, **(kwargs or {}))

        def counted():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(2, 300), nn.ReLU(), nn.Linear(300, 1))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            with Counting() as mode:
                for _ in range(2):
                    step(model, optimizer)
            return mode.seen

        plain = counted()
        with record(level="everything") as run:
            inside = counted()
        assert run.trace.notes == ()
        assert [f for f in inside if "detach" not in f] == [f for f in plain if "detach" not in f]


class TestErrorsOfOurs:
    @pytest.mark.parametrize(
        ("part", "where"),
        [
            ("losses", "pytest_mltd.recording.watching.Watcher._loss"),
            ("gradients", "pytest_mltd.recording.gradients.Gradients.before_backward"),
            ("gradients", "pytest_mltd.recording.gradients.Gradients.after_backward"),
            ("gradients", "pytest_mltd.recording.gradients.Gradients.before_step"),
            ("steps", "pytest_mltd.recording.watching.Watcher._step_row"),
            ("updates", "pytest_mltd.recording.gradients.Weights.measure"),
            ("outputs", "pytest_mltd.recording.forwards.Forwards.output"),
            ("digests", "pytest_mltd.recording.watching.Watcher._digests"),
            ("forwards", "pytest_mltd.recording.watching.Watcher._forward"),
            ("optimizers", "pytest_mltd.recording.watching.Watcher._look_at_optimizers"),
            ("calls", "pytest_mltd.recording.watching.Watcher._call"),
            ("writing", "pytest_mltd.recording.spool.Spool.flush"),
        ],
    )
    def test_become_one_note_and_the_program_goes_on(self, monkeypatch, part, where):
        """Each part may fail: the program's losses are the same, and the trace says which part is off."""

        def program():
            torch.manual_seed(0)
            model = nn.Linear(2, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            losses = []
            for _ in range(8):
                loss = F.mse_loss(model(torch.ones(3, 2)), torch.zeros(3, 1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return losses

        def broken(*args, **kwargs):
            raise ZeroDivisionError("ours")

        plain = program()
        monkeypatch.setattr(where, broken)
        if part == "writing":
            monkeypatch.setattr("pytest_mltd.recording.spool._MAX_SECONDS", 0)
        with record() as run:
            inside = program()
        assert inside == plain
        mine = [n for n in run.trace.notes if "ZeroDivisionError: ours" in n]
        assert len([n for n in mine if repr(part) in n]) == 1, run.trace.notes
        if part not in ("steps", "writing", "calls"):
            assert run.trace.n_steps == 8

    def test_cut_still_cuts_when_the_recorder_is_broken(self, monkeypatch):
        """The end of the program does not hang on the recording."""
        monkeypatch.setattr("pytest_mltd.recording.watching.Watcher._step_row", lambda *a: 1 / 0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(Cut), cut_after(2), record():
            for _ in range(5):
                step(model, optimizer)


SCRIPTED = """
import torch
from torch.nn import functional as F
from pytest_mltd.recording import patches
from pytest_mltd.recording.recorder import record

def loss(x, y): return F.mse_loss(x, y) + F.binary_cross_entropy_with_logits(x, y)

def other(x, y): return F.mse_loss(x, y) + F.l1_loss(x, y)

if "before" in {when!r}:
    torch.jit.script(loss)
with record() as run:
    scripted = torch.jit.script(loss if "before" not in {when!r} else other)
    scripted(torch.ones(3), torch.zeros(3))
def third(x, y): return F.mse_loss(x, y) + F.huber_loss(x, y) + F.l1_loss(x, y)
torch.jit.script(third)
assert not [p for p in torch.jit._builtins._builtin_ops if getattr(p[0], "__module__", "") == patches.__name__]
"""


@pytest.mark.parametrize("when", ["inside first", "before and inside"])
def test_losses_can_be_scripted_inside_and_after(when, tmp_path):
    """torch.jit.script knows torch's functions by identity, from a table that is made at its first use."""
    program = tmp_path / "scripted.py"
    program.write_text(SCRIPTED.format(when=when))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
