"""`run`: a function, script or module, seeded, cut, sliced and recorded."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import signal
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pytest_mltd.core.traces import Trace
from pytest_mltd.core.trials import Condition, observing, under
from pytest_mltd.diagnosis import diagnose
from pytest_mltd.recording import hooks
from pytest_mltd.recording.progress import telling
from pytest_mltd.recording.running import run
from pytest_mltd.recording.slices import slicing


def train(epochs: int = 1000, lr: float = 0.1) -> int:
    """A bare loop; returns how many steps it took."""
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).pow(2).mean().backward()
        optimizer.step()
    return epochs


def train_on_loader(n: int = 400) -> int:
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.randn(n, 3)), batch_size=4, shuffle=True)
    for (x,) in loader:
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        optimizer.step()
    return len(loader.dataset)


class TestFunctions:
    def test_the_result_comes_back_with_the_trace(self):
        """A run that ends by itself has its result, and says that it was completed."""
        done = run(train, epochs=5)
        assert (done.result, done.steps, done.trace.ended) == (5, 5, "completed")
        assert done.recording.trace is done.trace

    def test_it_is_ended_after_the_steps(self):
        """A longer one is cut after the step: no result, and the trace says so."""
        done = run(train, steps=20)
        assert (done.result, done.steps, done.trace.ended) == (None, 20, "cut")

    def test_200_steps_are_the_default_and_none_is_no_end(self):
        """Without a word it is cut at 200; with None it goes to its end."""
        assert run(train).steps == 200
        assert (run(train, 250, steps=None).result, run(train, 250, steps=None).steps) == (250, 250)

    def test_except_exception_lets_the_end_pass(self):
        """A program that catches its own errors is ended all the same, and may clean up."""
        cleaned = []

        def guarded():
            try:
                train()
            except Exception:
                return "swallowed"
            finally:
                cleaned.append(True)

        assert run(guarded, steps=3).trace.ended == "cut"
        assert cleaned == [True]

    def test_it_is_seeded_and_the_random_state_given_back(self):
        """Twice the same bits, and the test's own stream of random numbers goes on undisturbed."""
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        one, two, other = run(train, 20), run(train, 20), run(train, 20, seed=1)
        assert one.trace.steps["loss"].tolist() == two.trace.steps["loss"].tolist()
        assert one.trace.steps["loss"].tolist() != other.trace.steps["loss"].tolist()
        assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before

    def test_the_program_computes_what_it_computes_without_us(self):
        """Bit for bit the same weights as the bare function under the same seed, and the same random state after it."""

        def weights():
            model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
            optimizer = torch.optim.Adam(model.parameters())
            for _ in range(30):
                optimizer.zero_grad()
                model(torch.randn(4, 3)).pow(2).mean().backward()
                optimizer.step()
            return [p.detach().clone() for p in model.parameters()], torch.get_rng_state()

        torch.manual_seed(0)
        bare, state = weights()
        assert all(torch.equal(a, b) for a, b in zip(bare, run(weights).result[0], strict=True))
        torch.manual_seed(0)
        unseeded, after = run(weights, seed=None, steps=None).result
        assert all(torch.equal(a, b) for a, b in zip(bare, unseeded, strict=True))
        assert torch.equal(state, after)
        assert torch.equal(state, torch.get_rng_state())

    def test_no_seed_on_request(self):
        """``seed=None`` leaves the random state to the program."""
        torch.manual_seed(1)
        assert run(train, 3, seed=None).seeding is None
        assert torch.initial_seed() == 1

    def test_our_names_win_and_are_handed_on(self):
        """A target with a parameter seed, steps or slice is given the same value, unless the call binds it."""

        def tell(seed, steps=7, slice=None):
            train(3)
            return seed, steps, slice

        assert run(tell, seed=5, steps=50, slice=9).result == (5, 50, 9)
        assert run(tell).result == (0, 200, None)
        assert run(tell, 11).result == (11, 200, None)
        assert run(functools.partial(tell, steps=1)).result == (0, 1, None)
        assert run(lambda **given: given, other=1).result == {"other": 1}

    def test_methods_partials_and_callable_objects_run(self):
        """Whatever can be called is a target."""

        class Trainer:
            def fit(self, n):
                return train(n)

            __call__ = fit

        assert run(Trainer().fit, 2).result == run(Trainer(), 2).result == run(functools.partial(train, 2)).result == 2

    def test_it_is_taken_wherever_a_recording_is(self):
        """A run can be diagnosed, and saved to be read again."""
        assert diagnose(run(train, 5)).findings

    def test_the_trace_goes_to_a_file_on_request(self, tmp_path):
        """``path`` is written while the program runs, ``save`` afterwards."""
        done = run(train, 5, path=tmp_path / "live.mltd")
        assert Trace.load(tmp_path / "live.mltd").n_steps == 5
        assert Trace.load(done.save(tmp_path / "saved.mltd")).n_steps == 5

    def test_a_file_that_is_no_trace_is_not_overwritten(self, tmp_path):
        """A mistaken ``path`` costs nobody a file."""
        (tmp_path / "data.csv").write_text("a,b\n")
        with pytest.raises(ValueError, match=r"^path: .*data\.csv' is there and is no trace; it is not overwritten$"):
            run(train, path=tmp_path / "data.csv")
        assert (tmp_path / "data.csv").read_text() == "a,b\n"


class TestErrors:
    def test_the_programs_error_passes_through_with_what_was_recorded(self):
        """Its own exception, its own traceback, and the run up to there on it."""

        def break_down():
            train(7)
            raise RuntimeError("out of cheese")

        with pytest.raises(RuntimeError, match="^out of cheese$") as caught:
            run(break_down)
        assert caught.traceback[-1].name == "break_down"
        assert caught.value.mltd_run.steps == 7
        assert caught.value.mltd_run.trace.ended == "raised RuntimeError: out of cheese"
        assert diagnose(caught.value.mltd_run).findings
        assert not hooks.installed()

    def test_ctrl_c_passes_through_too(self):
        """So that the shell can tell what there was."""

        def interrupted():
            train(3)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:
            run(interrupted)
        assert caught.value.mltd_run.trace.ended == "interrupted"

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (None, 'target: nothing to run; give a function, "train.py" or module="pkg.train"'),
            (3, "target: a function, a script or a module is needed, not 3"),
            (
                TensorDataset,
                "target: TensorDataset is a class; give the method that trains, as in run(TensorDataset(…).fit)",
            ),
            (torch.nn.Linear(1, 1), "target: Linear is a model; give the function that trains it"),
        ],
    )
    def test_what_cannot_be_run_is_refused(self, target, message):
        """A sentence that says what can."""
        with pytest.raises(TypeError) as caught:
            run(target)
        assert str(caught.value) == message

    def test_what_would_not_run_is_refused(self):
        """A generator or coroutine does nothing by being called; both are refused, before or after."""

        def generate():
            yield 1

        async def wait():
            return 1

        async def stream():
            yield 1

        end = "; wrap it in a function that runs it to its end"
        where = "TestErrors.test_what_would_not_run_is_refused.<locals>."
        for target, kind in ((generate, "a generator function"), (wait, "a coroutine function")):
            with pytest.raises(TypeError) as caught:
                run(target)
            assert str(caught.value) == f"target: {where}{target.__name__} is {kind}{end}"
        with pytest.raises(TypeError, match="is an asynchronous generator function; wrap it"):
            run(stream)
        for hidden, kind in ((generate, "generator"), (wait, "coroutine")):
            with pytest.raises(TypeError, match=f"<lambda> returned a {kind}, so nothing ran; wrap it"):
                run(lambda hidden=hidden: hidden())

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"steps": 0}, ValueError, "steps: at least 1 is needed, not 0"),
            ({"steps": 1.5}, TypeError, "steps: an integer is needed, not 1.5"),
            ({"slice": 0}, ValueError, "slice: at least 1 is needed, not 0"),
            ({"seed": -1}, ValueError, "seed: an integer from 0 to 4294967295 is needed, not -1"),
            ({"level": "all"}, ValueError, "level: 'all' is none of losses, default, everything"),
        ],
    )
    def test_wrong_settings_are_refused_before_anything_runs(self, settings, error, message):
        """Each names its argument."""
        with pytest.raises(error) as caught:
            run(lambda: pytest.fail("it ran"), **settings)
        assert str(caught.value) == message

    def test_a_parameter_that_only_looks_like_the_targets_is_refused(self):
        """``path=`` meant for the target would become our file's name."""

        def load(path):
            return path

        with pytest.raises(TypeError) as caught:
            run(load, path="data.csv")
        name = "TestErrors.test_a_parameter_that_only_looks_like_the_targets_is_refused.<locals>.load"
        assert str(caught.value) == (
            f"path: mltd.run takes it for its own, and {name} has a parameter of that name; "
            f"bind it first: functools.partial({name}, path='data.csv')"
        )
        assert run(functools.partial(load, path="data.csv")).result == "data.csv"


class TestSlices:
    def test_loaders_are_cut(self):
        """``slice=8`` leaves eight samples in each loader, and the run says what it cut."""
        done = run(train_on_loader, slice=8)
        assert (done.result, done.steps, str(done.sliced)) == (8, 2, "the one DataLoader cut to 8 samples")

    def test_nothing_to_cut_is_refused(self):
        """A slice that had no effect would be believed in."""
        with pytest.raises(ValueError, match="^slice: 8 samples were asked for, and no DataLoader was iterated"):
            run(train, 5, slice=8)

    def test_whoever_cuts_already_goes_on_counting(self):
        """Under a trial with a slice, the outer block sees the loaders, and nothing is refused twice."""
        with under(Condition(slice=8)), slicing(8) as outer:
            assert run(train_on_loader).result == 8
            run(train, 5)
        assert (outer.used, outer.cut) == (1, 1)

    def test_a_target_that_is_given_the_slice_has_served_it(self):
        """A program that cuts its data itself is not refused for want of a DataLoader, by this call or by a trial around it."""

        def train_on_list(slice):
            train(slice)

        run(train_on_list, slice=3)
        with under(Condition(slice=3)), slicing(3) as outer:
            run(train_on_list)
        assert (outer.used, outer.by_hand) == (0, True)
        outer.refuse_if_idle()


class TestTrials:
    def test_the_condition_replaces_defaults_and_not_what_the_call_says(self):
        """``--mltd-steps`` and ``--mltd-seed`` reach a run that says nothing about them."""

        def tell(seed, steps):
            train(1)
            return seed, steps

        with under(Condition(seed=9, steps=5)):
            assert run(tell).result == (9, 5)
            assert run(tell, seed=0, steps=200).result == (0, 200)
            assert run(train).steps == 5
            assert run(train, steps=30).steps == 30
        with under(Condition(slice=4)):
            assert run(train_on_loader).result == 4

    def test_a_run_is_overheard(self):
        """Whoever observes gets the trace."""
        with observing() as seen:
            done = run(train, 5)
        assert seen.traces == [done.trace]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write files into a folder that becomes the current one; returns the writer."""
    monkeypatch.chdir(tmp_path)

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / (name.replace("__", "/").replace("INIT", "__init__") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return tmp_path

    return write


HELPER = """
    import torch

    def train(n):
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(n):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).pow(2).mean().backward()
            optimizer.step()
"""


class TestScripts:
    def test_a_script_is_its_own_program(self, program):
        """It sees its own arguments, is __main__, imports the module beside it and may end with exit code 0."""
        folder = program(
            model_x=HELPER,
            script="""
                import argparse, json, pathlib, sys
                from model_x import train

                class Own: pass

                if __name__ == "__main__":
                    parser = argparse.ArgumentParser()
                    parser.add_argument("--n", type=int)
                    n = parser.parse_args().n
                    train(n)
                    main = sys.modules["__main__"]
                    facts = [sys.argv, __file__, sys.path[0], main.Own is Own, __spec__ is None, Own.__module__]
                    pathlib.Path("facts.json").write_text(json.dumps(facts))
                    sys.exit(0)
            """,
        )
        done = run("script.py", "--n", 4)
        assert (done.result, done.steps, done.trace.ended) == (None, 4, "completed")
        facts = [["script.py", "--n", "4"], str(folder / "script.py"), str(folder), True, True, "__main__"]
        assert __import__("json").loads((folder / "facts.json").read_text()) == facts

    def test_the_process_is_as_before(self, program):
        """Arguments, path, modules, folder, environment, __main__ and torch's settings: all given back."""
        program(
            model_x=HELPER,
            script="""
                import os, sys, torch
                import model_x
                os.makedirs("elsewhere")
                os.chdir("elsewhere")
                os.environ["OWN"] = "1"
                del os.environ["MLTD_TEST"]
                sys.path.append("/nowhere")
                sys.argv.append("more")
                torch.set_default_dtype(torch.float64)
                torch.set_grad_enabled(False)
            """,
        )
        os.environ["MLTD_TEST"] = "kept"
        before = (list(sys.argv), list(sys.path), os.getcwd(), dict(os.environ), sys.modules["__main__"])
        run("script.py")
        assert (list(sys.argv), list(sys.path), os.getcwd(), dict(os.environ), sys.modules["__main__"]) == before
        assert "model_x" not in sys.modules
        assert torch.get_default_dtype() is torch.float32
        assert torch.is_grad_enabled()
        del os.environ["MLTD_TEST"]

    def test_what_a_process_may_do_once_can_be_done_again(self, program):
        """A start method, a signal's handler and a process group are a program's own: the second run sets them too."""
        program(
            model_x=HELPER,
            script="""
                import multiprocessing, signal, torch
                from model_x import train
                multiprocessing.set_start_method("spawn")
                signal.signal(signal.SIGTERM, lambda *_: None)
                store = torch.distributed.HashStore()
                torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
                train(100)
            """,
        )
        hook = sys.excepthook
        multiprocessing.get_start_method()  # settles it, as any use of multiprocessing in this process does
        before = signal.getsignal(signal.SIGTERM), multiprocessing.get_start_method(allow_none=True)
        for _ in range(2):
            assert run("script.py", steps=3).trace.ended == "cut"
        assert sys.excepthook is hook  # which torch.distributed replaces
        assert (signal.getsignal(signal.SIGTERM), multiprocessing.get_start_method(allow_none=True)) == before

    def test_also_after_an_error(self, program):
        """The script's own error and line arrive; the process is as before."""
        program(script="import sys\nsys.argv = []\nraise LookupError('mine')\n")
        before = list(sys.argv)
        with pytest.raises(LookupError, match="^mine$") as caught:
            run("script.py")
        assert caught.traceback[-1].path.name == "script.py"
        assert sys.argv == before

    def test_two_programs_with_a_module_of_one_name(self, program):
        """The second's `model_x` is its own file, and an edited one is read anew."""
        program(
            one__model_x="NAME = 'one'",
            one__script="import model_x, pathlib; pathlib.Path('out').write_text(model_x.NAME)",
            two__model_x="NAME = 'two'",
            two__script="import model_x, pathlib; pathlib.Path('out').write_text(model_x.NAME)",
        )
        seen = []
        for script in ("one/script.py", "two/script.py", "one/script.py"):
            run(script)
            seen.append(Path("out").read_text())
        assert seen == ["one", "two", "one"]

    def test_a_module_that_the_test_has_imported_stays_the_tests(self, program, monkeypatch):
        """What a test patched in a module is patched for the script; another file's module of that name is put aside."""
        folder = program(
            model_x="NAME = 'plain'", script="import model_x, pathlib; pathlib.Path('out').write_text(model_x.NAME)"
        )
        monkeypatch.syspath_prepend(str(folder))
        import model_x

        monkeypatch.setattr(model_x, "NAME", "patched")
        run("script.py")
        assert Path("out").read_text() == "patched"
        assert sys.modules["model_x"] is model_x
        program(other__model_x="NAME = 'other'", other__script=(folder / "script.py").read_text())
        run("other/script.py")
        assert Path("out").read_text() == "other"
        assert sys.modules.pop("model_x") is model_x

    def test_a_package_that_the_test_has_imported_stays_whole(self, program, monkeypatch):
        """What the script imports of it later is the test's too: one package, one copy of each module."""
        folder = program(pkg_z__INIT="", pkg_z__early="", pkg_z__late="class Late: pass", script="import pkg_z.late")
        monkeypatch.syspath_prepend(str(folder))
        import pkg_z.early

        run("script.py")
        assert sys.modules["pkg_z.late"] is pkg_z.late
        for name in [n for n in sys.modules if n.startswith("pkg_z")]:
            del sys.modules[name]

    def test_a_folder_that_the_script_removes_is_no_second_error(self, program):
        """Its own error arrives, not the one about the way back."""
        folder = program(sub__script="import os, shutil; shutil.rmtree(os.getcwd()); raise LookupError('mine')")
        os.chdir(folder / "sub")
        with pytest.raises(LookupError, match="^mine$"):
            run("script.py")
        os.chdir(folder)

    @pytest.mark.parametrize("code", ["3", "'no data'"])
    def test_another_exit_code_is_an_error(self, program, code):
        """``sys.exit(3)`` passes through as what it is."""
        program(script=f"import sys; sys.exit({code})")
        with pytest.raises(SystemExit) as caught:
            run("script.py")
        assert repr(caught.value.code) == code
        assert caught.value.mltd_run.steps == 0

    def test_a_module_runs_as_python_m_does(self, program):
        """With its package, relative imports and all, also when it was imported before."""
        program(
            pkg_x__INIT="",
            pkg_x__model=HELPER,
            pkg_x__train="""
                import sys
                from .model import train
                if __name__ == "__main__":
                    train(int(sys.argv[1]))
            """,
        )
        assert run("4", module="pkg_x.train").steps == 4
        assert run(5, module="pkg_x.train").steps == 5
        assert not [name for name in sys.modules if name.startswith("pkg_x")]

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda: run("none.py"), FileNotFoundError, "target: no file 'none.py' in {here}"),
            (lambda: run("pkg"), FileNotFoundError, "target: no file 'pkg' in {here}; for a module say module=\"pkg\""),
            (lambda: run("."), TypeError, "target: '.' is a folder; name the script in it, or run it with module="),
            (
                lambda: run("a.ipynb"),
                TypeError,
                "target: 'a.ipynb' is a notebook; make a script of it: jupyter nbconvert --to script",
            ),
            (
                lambda: run("script.py", lr=1),
                TypeError,
                "lr: a program takes its arguments as words: run('script.py', '--lr', '1')",
            ),
            (lambda: run(train, module="m"), TypeError, "module: 'm' and train cannot both be run"),
        ],
    )
    def test_refusals(self, program, call, error, message):
        """Each says what would work."""
        here = program(script="pass")
        (here / "a.ipynb").write_text("{}")
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == message.format(here=here)

    def test_a_relative_path_to_the_trace_is_one_from_here(self, program):
        """A script that changes the folder does not move the trace."""
        here = program(model_x=HELPER, script="import os; from model_x import train; os.chdir('/'); train(3)")
        run("script.py", path="run.mltd")
        assert Trace.load(here / "run.mltd").n_steps == 3


class TestProgress:
    def test_steps_and_loss_are_told_from_another_thread(self):
        """Now and then, and never again after the end."""
        told, heard = [], threading.Event()

        def tell(steps, loss):
            told.append((steps, loss))
            if steps == 3:
                heard.set()

        def slowly():
            train(3)
            assert heard.wait(30)

        with telling(tell, first=0.01):
            run(slowly)
        count = len(told)
        assert told[-1][0] == 3
        assert isinstance(told[-1][1], float)
        assert not hooks.installed()
        assert len(told) == count
