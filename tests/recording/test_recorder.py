"""What `record` gives for programs of many shapes, unedited; and how it begins and ends."""

import contextlib
import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import pytest_mltd as mltd
from pytest_mltd.core.traces import NO_GRAD, NOT_TAKEN, Trace
from pytest_mltd.core.trials import Condition, observing, under
from pytest_mltd.recording.recorder import Cut, cut_after, record


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def data(rows=16):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 4, generator=generator), torch.randn(rows, 1, generator=generator)


def loop(steps, model=None, lr=0.1):
    model = model or net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    x, y = data()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def kinds(trace):
    return [mltd.core.traces.CALLS[k] for k in trace.calls["kind"]]


class TestAPlainLoop:
    def test_gives_one_row_a_step_with_the_loss_that_the_program_saw(self):
        """Steps are counted from 0 and each has the loss that went backward, exactly."""
        with record() as run:
            losses = loop(12)
        assert run.trace.n_steps == 12
        assert run.trace.steps["loss"].tolist() == losses
        assert run.trace.losses["step"].tolist() == list(range(12))
        assert run.trace.steps["backwards"].tolist() == [1] * 12
        assert run.trace.ended == "completed"
        assert run.trace.notes == ()

    def test_names_parameters_modules_and_optimizer_as_the_program_does(self):
        """One root: the names of its named_parameters(), in their order."""
        with record() as run:
            loop(1)
        assert [p.name for p in run.trace.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert [p.shape for p in run.trace.parameters] == [(8, 4), (8,), (1, 8), (1,)]
        assert [m.name for m in run.trace.modules if not m.root] == ["0", "1", "2"]
        assert [(m.name, m.kind) for m in run.trace.modules if m.root] == [("model", "Sequential")]
        assert [o.name for o in run.trace.optimizers] == ["SGD"]
        assert run.trace.optimizers[0].settings["lr"] == 0.1

    def test_keeps_the_norm_of_each_gradient(self):
        """Norms are those of the program's own gradients, to float32."""
        model = net()
        with record() as run:
            loop(1, model)
        expected = [p.grad.double().norm().item() for p in model.parameters()]
        assert run.trace.parameter_norms["grad"][0].tolist() == pytest.approx(expected, rel=1e-6)
        assert run.trace.steps["grad_norm"][0] == pytest.approx(math.hypot(*expected), rel=1e-6)

    def test_keeps_the_calls_in_their_order(self):
        """A usual step reads batch, forward, backward, step after zero_grad."""
        with record() as run:
            loop(2)
        expected = ["zero_grad", "batch", "forward", "backward", "step"]
        assert [k for k in kinds(run.trace) if k != "seed"] == expected * 2
        forward = run.trace.of("forward")
        assert run.trace.calls["value"][forward].tolist() == [1, 1]
        assert run.trace.calls["grad"][forward].tolist() == [1, 1]
        assert run.trace.calls["value"][run.trace.of("batch")].tolist() == [16, 16]
        assert len(set(run.trace.calls["digest"][run.trace.of("batch")].tolist())) == 1

    def test_names_the_line_of_backward_as_the_stream(self):
        """A loss stream is file:line of the user's call of backward."""
        with record() as run:
            loop(1)
        name, _, line = run.trace.streams[0].rpartition(":")
        assert name.endswith("test_recorder.py")
        assert "loss.backward()" in Path(__file__).read_text().splitlines()[int(line) - 1]

    def test_samples_updates_outputs_and_digests_at_the_default_cadence(self):
        """Steps 0 to 4, then each tenth."""
        with record() as run:
            loop(31)
        sampled = [0, 1, 2, 3, 4, 10, 20, 30]
        assert run.trace.updates["step"].tolist() == sampled
        assert run.trace.outputs["step"].tolist() == sampled
        assert run.trace.digests["step"].tolist() == sampled

    def test_measures_the_update_against_the_weight(self):
        """For SGD the update is lr times the gradient; the weight is the one before the step."""
        model = net()
        before = model[0].weight.double().norm().item()
        with record() as run:
            loop(1, model, lr=0.5)
        assert run.trace.updates["update"][0, 0] == pytest.approx(
            0.5 * run.trace.parameter_norms["grad"][0, 0], rel=1e-4
        )
        assert run.trace.updates["weight"][0, 0] == pytest.approx(before, rel=1e-6)

    def test_describes_module_outputs(self):
        """Mean, spread, zeros, extremes and rows of each leaf's output."""
        model = net()
        x, _ = data()
        with torch.no_grad():
            hidden = model[:2](x)
        with record() as run:
            loop(1, model)
        at = [m.name for m in run.trace.modules].index("1")
        row = {name: run.trace.outputs[name][0, at] for name in ("mean", "std", "zeros", "min", "max", "rows")}
        assert row["mean"] == pytest.approx(hidden.mean().item(), rel=1e-5)
        assert row["std"] == pytest.approx(hidden.std(correction=0).item(), rel=1e-5)
        assert row["zeros"] == pytest.approx((hidden == 0).float().mean().item(), rel=1e-5)
        assert (row["min"], row["max"]) == pytest.approx((0, hidden.max().item()), rel=1e-6)
        assert row["rows"] == 16

    def test_says_what_it_cost_and_where_it_was_made(self):
        """Cost is a share, settings hold what changes bits, provenance the command and versions."""
        with record() as run:
            loop(3)
        assert 0 < run.trace.cost < 1
        assert run.trace.settings["threads"] == torch.get_num_threads()
        assert run.trace.settings["digest"] in ("xxh3_128", "blake2b")
        assert run.trace.provenance["torch"] == torch.__version__


class TestLevels:
    def test_losses_takes_norms_and_calls_but_no_forwards(self):
        """At level losses no module is hooked; names are found all the same."""
        with record(level="losses") as run:
            loop(12)
        trace = run.trace
        assert trace.n_steps == 12
        assert [p.name for p in trace.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert "forward" not in kinds(trace)
        assert "zero_grad" in kinds(trace)
        assert all(len(getattr(trace, t)["step"]) == 0 for t in ("updates", "outputs", "digests"))
        assert (trace.parameter_norms["grad"] > 0).all()

    def test_everything_takes_each_step_with_output_digests(self):
        """At level everything each step is sampled and module outputs have digests."""
        with record(level="everything") as run:
            loop(12)
        assert run.trace.digests["step"].tolist() == list(range(12))
        assert (run.trace.digests["output"] != 0).all()

    def test_an_exact_condition_digests_each_step(self):
        """Under repro digests are taken at each step, random states among them, whatever the level."""
        with under(Condition(exact=True)), record(level="losses") as run:
            loop(12)
        assert run.trace.digests["step"].tolist() == list(range(12))
        for column in ("python", "numpy", "torch", "loss", "optimizer_state"):
            assert (run.trace.digests[column] != 0).all(), column
        assert (run.trace.digests["weight"] != 0).all()


class TestReadingsOfAStep:
    def test_accumulation_is_one_step_of_several_backwards(self):
        """The step's loss is the mean of those that were accumulated; nothing is stale."""
        model, (x, y) = net(), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        seen = []
        with record() as run:
            for i in range(12):
                loss = F.mse_loss(model(x[i : i + 4]), y[i : i + 4])
                loss.backward()
                seen.append(loss.item())
                if i % 4 == 3:
                    optimizer.step()
                    optimizer.zero_grad()
        assert run.trace.n_steps == 3
        assert run.trace.steps["backwards"].tolist() == [4, 4, 4]
        assert run.trace.steps["loss"].tolist() == pytest.approx([sum(seen[i : i + 4]) / 4 for i in (0, 4, 8)])
        assert run.trace.steps["stale"].tolist() == [0, 0, 0]

    def test_lbfgs_is_one_step_a_call_with_its_closure_inside(self):
        """The loss is the mean over the closure's evaluations; gradients are read as the closure left them."""
        model, (x, y) = net(), data()
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
        seen = []

        def closure():
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            seen.append(loss.item())
            return loss

        with record() as run:
            for _ in range(3):
                seen.clear()
                optimizer.step(closure)
        assert run.trace.n_steps == 3
        assert run.trace.steps["stale"].tolist() == [0, 0, 0]
        assert run.trace.losses["step"][0] == 0
        assert np_count(run.trace, 2) == len(seen)
        assert run.trace.steps["loss"][2] == pytest.approx(seen[-1])
        assert (run.trace.parameter_norms["grad_used"] >= 0).all()
        assert run.trace.steps["grad_norm_used"][2] > 0

    def test_a_gan_gives_each_optimizer_its_own_loss(self):
        """Two optimizers step in turn; neither gets the other's loss, and nothing is stale."""
        G, D = nn.Linear(2, 4), nn.Linear(4, 1)
        og, od = torch.optim.Adam(G.parameters(), lr=0.01), torch.optim.Adam(D.parameters(), lr=0.01)
        generator, discriminator = [], []
        with record() as run:
            for _ in range(15):
                fake = G(torch.randn(8, 2))
                ld = D(torch.randn(8, 4)).sigmoid().mean() - D(fake.detach()).sigmoid().mean()
                od.zero_grad()
                ld.backward()
                od.step()
                lg = D(fake).sigmoid().mean()
                og.zero_grad()
                lg.backward()
                og.step()
                generator.append(lg.item())
                discriminator.append(ld.item())
        trace = run.trace
        names = [o.name for o in trace.optimizers]
        assert sorted(names) == ["Adam od", "Adam og"]
        own = trace.steps["optimizer"]
        assert trace.steps["loss"][own == names.index("Adam od")].tolist() == discriminator
        assert trace.steps["loss"][own == names.index("Adam og")].tolist() == generator
        assert trace.steps["stale"].sum() == 0
        assert [p.name for p in trace.parameters] == ["G.weight", "G.bias", "D.weight", "D.bias"]
        assert trace.parameter_norms["grad"][0].tolist()[:2] == [NOT_TAKEN, NOT_TAKEN]
        assert sorted(set(trace.updates["step"].tolist())) == [*range(10), 20, 21]

    def test_an_optimizer_in_backward_steps_inside_of_it(self):
        """One optimizer a parameter, stepped by a hook of its gradient: each is a step, with the loss of that backward."""
        model, (x, y) = net(), data()
        optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

        def step(parameter):
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(step)
        seen = []
        with record() as run:
            for _ in range(3):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                seen.append(loss.item())
        trace = run.trace
        assert trace.n_steps == 12
        assert trace.busiest == 3
        for index in range(4):
            assert trace.steps["loss"][trace.steps["optimizer"] == index].tolist() == seen
        assert trace.steps["stale"].sum() == 0
        assert (trace.steps["grad_norm"] > 0).all()

    @pytest.mark.parametrize("through", ["in place", "data"])
    def test_updates_by_hand_are_no_steps_and_are_said(self, through):
        """Parameters that move without an optimizer: 0 steps, a fact for each, and a note."""
        model, (x, y) = net(), data()
        with record() as run:
            for _ in range(4):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                with torch.no_grad():
                    for p in model.parameters():
                        if through == "data":
                            p.data -= 0.1 * p.grad
                        else:
                            p -= 0.1 * p.grad
                        p.grad = None
        assert run.trace.n_steps == 0
        assert len(run.trace.losses["value"]) == 4
        assert {f.who for f in run.trace.facts if f.kind == "manual_update"} == {
            "0.weight", "0.bias", "2.weight", "2.bias",
        }  # fmt: skip
        assert run.trace.notes == ("4 parameters moved without an optimizer (updated by hand): 0 steps were recorded",)

    def test_bare_tensors_updated_by_hand_are_found_too(self):
        """A net of two tensors without module or optimizer."""
        x, y = data()
        w, b = torch.zeros(4, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
        with record() as run:
            for _ in range(4):
                ((x @ w + b - y) ** 2).mean().backward()
                for p in (w, b):
                    p.data -= 0.1 * p.grad
                    p.grad = None
        assert sum(f.kind == "manual_update" for f in run.trace.facts) == 2

    def test_an_input_that_asks_for_its_gradient_is_no_parameter(self):
        """Saliency and adversarial inputs are leaves of the graph, but nothing that learns."""
        model, (x, y) = net(), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record() as run:
            for _ in range(3):
                optimizer.zero_grad()
                inputs = x.clone().requires_grad_()
                loss = F.mse_loss(model(inputs), y)
                torch.autograd.grad(loss, inputs, retain_graph=True)
                loss.backward()
                optimizer.step()
        assert len(run.trace.parameters) == 4
        assert len(run.trace.losses["value"]) == 3
        assert not {f.kind for f in run.trace.facts} & {"unowned", "unreached", "manual_update"}

    def test_gradients_by_autograd_grad_count_as_a_backward(self):
        """`torch.autograd.grad` with parameters as inputs is training; its loss is the step's."""
        model, (x, y) = net(), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record() as run:
            for _ in range(3):
                loss = F.mse_loss(model(x), y)
                for p, g in zip(model.parameters(), torch.autograd.grad(loss, tuple(model.parameters())), strict=True):
                    p.grad = g
                optimizer.step()
        assert run.trace.n_steps == 3
        assert run.trace.steps["loss"][2] == pytest.approx(loss.item())
        assert run.trace.steps["stale"].tolist() == [0, 0, 0]

    def test_a_vector_loss_is_the_sum_of_loss_times_gradient(self):
        """backward(gradient=…) on a vector: the loss is what the gradient weighs."""
        w = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(w.parameters(), lr=0.1)
        x, _ = data()
        with record() as run:
            out = w(x)
            weights = torch.arange(16.0).reshape(16, 1) / 16
            out.backward(gradient=weights)
            optimizer.step()
        assert run.trace.steps["loss"][0] == pytest.approx((out * weights).sum().item())

    def test_a_subclass_that_calls_super_counts_once(self):
        """Only the outermost step is a step."""

        class Mine(torch.optim.SGD):
            def step(self, closure=None):
                return super().step(closure)

        model, (x, y) = net(), data()
        optimizer = Mine(model.parameters(), lr=0.1)
        with record() as run:
            for _ in range(3):
                optimizer.zero_grad()
                F.mse_loss(model(x), y).backward()
                optimizer.step()
        assert run.trace.n_steps == 3

    def test_a_step_that_raised_does_not_hide_those_after_it(self):
        """torch calls no post-hook when a step raises; the next step is an outermost one again."""

        class Moody(torch.optim.SGD):
            fail = True

            def step(self, closure=None):
                if self.fail:
                    raise ValueError("not today")
                return super().step(closure)

        model, (x, y) = net(), data()
        optimizer = Moody(model.parameters(), lr=0.1)
        with record() as run:
            for i in range(3):
                optimizer.zero_grad()
                F.mse_loss(model(x), y).backward()
                optimizer.fail = i == 0
                try:
                    optimizer.step()
                except ValueError:
                    pass
        assert run.trace.n_steps == 2


def np_count(trace, step):
    return int((trace.losses["step"] == step).sum())


class TestModelsFromBefore:
    def test_models_and_optimizers_that_existed_are_seen(self):
        """Nothing has to be made inside the block."""
        model, (x, y) = net(), data()
        optimizer = torch.optim.Adam(model.parameters())
        with record() as run:
            F.mse_loss(model(x), y).backward()
            optimizer.step()
        assert run.trace.n_steps == 1
        assert run.trace.optimizers[0].name == "Adam"
        assert (run.trace.parameter_norms["grad"] > 0).all()

    def test_an_idle_optimizer_from_before_is_left_out(self):
        """An optimizer of some other model, still in memory, is not of this run."""
        other = torch.optim.SGD(net().parameters(), lr=0.1)
        with record() as run:
            loop(2)
        assert [o.parameters for o in run.trace.optimizers] == [4]
        assert len(run.trace.parameters) == 4
        del other


class TestParametersThatDoNotLearn:
    def test_one_without_a_gradient_is_marked(self):
        """grad is None at the step: NO_GRAD; never written by any backward: a fact."""
        model, (x, y) = nn.ModuleDict({"used": nn.Linear(4, 1), "spare": nn.Linear(4, 1)}), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record() as run:
            for _ in range(2):
                optimizer.zero_grad()
                F.mse_loss(model["used"](x), y).backward()
                optimizer.step()
        names = {p.name: i for i, p in enumerate(run.trace.parameters)}
        spare = [i for n, i in names.items() if "used" not in n and n not in ("weight", "bias")]
        assert len(run.trace.parameters) == 4
        assert (run.trace.parameter_norms["grad"][:, spare] == NO_GRAD).all()
        assert len([f for f in run.trace.facts if f.kind == "unreached"]) == 2

    def test_layers_in_a_plain_list_are_named_by_their_place(self):
        """They belong to no module tree: registered is False, and no optimizer has them."""

        class Deep(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Linear(4, 4)
                self.blocks = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2)]
                self.extra = {"head": nn.Linear(4, 1)}

            def forward(self, x):
                x = self.first(x)
                for block in self.blocks:
                    x = block(x)
                return self.extra["head"](x)

        model, (x, y) = Deep(), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record() as run:
            F.mse_loss(model(x), y).backward()
            optimizer.step()
        loose = {p.name: p for p in run.trace.parameters if not p.registered}
        assert set(loose) == {
            "blocks[0].0.weight", "blocks[0].0.bias", "blocks[1].0.weight", "blocks[1].0.bias",
            "extra['head'].weight", "extra['head'].bias",
        }  # fmt: skip
        assert all(p.optimizers == () and p.module == "Linear" for p in loose.values())
        assert "blocks[0].1" in [m.name for m in run.trace.modules]

    def test_a_parameter_left_out_of_the_optimizer_is_listed_without_one(self):
        """Known from the root's parameters; its optimizers are empty."""
        model, (x, y) = net(), data()
        optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        with record() as run:
            F.mse_loss(model(x), y).backward()
            optimizer.step()
        assert {p.name: p.optimizers for p in run.trace.parameters} == {
            "0.weight": (), "0.bias": (), "2.weight": (0,), "2.bias": (0,),
        }  # fmt: skip

    @pytest.mark.parametrize("learns", [True, False])
    def test_a_gradient_that_nobody_uses_is_told_from_a_teacher_under_no_grad(self, learns):
        """Layers hidden in a list: their gradient arrives, and no optimizer has them. A hidden teacher gets none."""

        class Hiding(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(4, 1)
                self.hidden = [nn.Linear(4, 4)]

            def forward(self, x):
                with torch.set_grad_enabled(learns):
                    x = self.hidden[0](x)
                return self.head(x)

        model, (x, y) = Hiding(), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record() as run:
            for _ in range(7):
                model.zero_grad()
                F.mse_loss(model(x), y).backward()
                optimizer.step()
        trace = run.trace
        at = [p.name for p in trace.parameters].index("hidden[0].weight")
        norms = trace.parameter_norms["grad"][:, at].tolist()
        assert all(n > 0 for n in norms[:5]) if learns else norms[:5] == [NO_GRAD] * 5
        assert norms[5:] == [NOT_TAKEN] * 2
        assert [f.who for f in trace.facts if f.kind == "unowned"] == (
            ["hidden[0].weight", "hidden[0].bias"] if learns else []
        )

    def test_parameters_added_later_are_followed(self):
        """add_param_group during the run: the new ones have norms from there."""
        model, (x, y) = net(), data()
        optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        with record() as run:
            for i in range(4):
                if i == 2:
                    optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
                optimizer.zero_grad()
                F.mse_loss(model(x), y).backward()
                optimizer.step()
        trace = run.trace
        at = [p.name for p in trace.parameters].index("0.weight")
        assert (trace.parameter_norms["grad"][:, at] > 0).all()
        assert not [f for f in trace.facts if f.kind == "unowned"]  # in no optimizer for two steps, in one at the end
        assert trace.parameters[at].optimizers == (0,)
        assert (trace.steps["lr"][3], trace.steps["lr_lowest"][3]) == (0.1, 0.01)


class TestEndings:
    def test_steps_stops_the_recording_and_lets_the_program_go_on(self):
        """record(steps=5): five rows, ended full, twelve steps done; the hooks are gone before the block is."""
        from pytest_mltd.recording import hooks

        with record(steps=5) as run:
            losses = loop(12)
            assert not hooks.installed()
        assert len(losses) == 12
        assert run.trace.n_steps == 5
        assert run.trace.ended == "full"
        assert run.trace.cut

    def test_a_condition_gives_the_steps(self):
        """The trial in force says how many steps are recorded, unless the call does."""
        with under(Condition(steps=3)):
            with record() as run:
                loop(6)
            with record(steps=4) as more:
                loop(6)
        assert (run.trace.n_steps, more.trace.n_steps) == (3, 4)

    def test_cut_after_ends_the_program_and_the_trace_says_so(self):
        """Cut passes through `except Exception`; the last step is recorded."""
        reached = []
        with pytest.raises(Cut), cut_after(4), record() as run:
            try:
                loop(12)
            except Exception:
                reached.append("swallowed")
            reached.append("after")
        assert reached == []
        assert run.trace.n_steps == 4
        assert run.trace.ended == "cut"

    def test_cut_counts_the_busiest_optimizer(self):
        """Of two optimizers the one with more steps decides."""
        a, b = nn.Linear(2, 1), nn.Linear(2, 1)
        oa, ob = torch.optim.SGD(a.parameters(), lr=0.1), torch.optim.SGD(b.parameters(), lr=0.1)
        with pytest.raises(Cut), cut_after(6), record() as run:
            for i in range(100):
                (a(torch.ones(1, 2)) + b(torch.ones(1, 2))).sum().backward()
                oa.step()
                if i % 2:
                    ob.step()
        assert run.trace.busiest == 6

    def test_an_exception_passes_and_is_named(self):
        """The program's error is the program's; the trace has what was before it."""
        with pytest.raises(RuntimeError, match="boom"), record() as run:
            loop(3)
            raise RuntimeError("boom")
        assert run.trace.ended == "raised RuntimeError: boom"
        assert run.trace.n_steps == 3

    def test_ctrl_c_is_an_interruption(self):
        """KeyboardInterrupt passes; the trace is kept."""
        with pytest.raises(KeyboardInterrupt), record() as run:
            loop(3)
            raise KeyboardInterrupt
        assert run.trace.ended == "interrupted"
        assert run.trace.n_steps == 3

    def test_the_trace_can_be_looked_at_inside_the_block(self):
        """A look does not disturb what comes after."""
        with record() as run:
            loop(3)
            look = run.trace
            loop(2)
        assert (look.n_steps, look.ended) == (3, "running")
        assert (run.trace.n_steps, run.trace.ended) == (5, "completed")

    def test_whoever_observes_hears_of_the_trace(self):
        """A recording tells its trace when it ends."""
        with observing() as seen, record() as run:
            loop(1)
        assert seen.traces == [run.trace]

    def test_nothing_recorded_is_a_trace_too(self):
        """No backward at all: an empty trace, no note."""
        with record() as run:
            pass
        assert run.trace.n_steps == 0
        assert run.trace.notes == ()

    def test_nested_recordings_each_see_every_event(self):
        """The inner sees its part, the outer all; one set of hooks serves both."""
        with record() as outer:
            loop(2)
            with record(level="everything") as inner:
                loop(3)
            loop(1)
        assert (outer.trace.n_steps, inner.trace.n_steps) == (6, 3)
        assert inner.trace.steps["loss"].tolist() == outer.trace.steps["loss"][2:5].tolist()


class TestTheRecording:
    def test_holds_the_model_and_a_batch_after_the_program_is_gone(self):
        """The model is dead when train() returns; probes need it until the diagnosis."""
        with record() as run:
            loop(2)
        assert [type(r).__name__ for r in run.roots] == ["Sequential"]
        (x,), kwargs = run.batch
        assert torch.equal(x, data()[0])
        assert kwargs == {}

    def test_keeps_a_batch_given_by_keywords(self):
        """model(**batch) is the usual call for language models."""

        class Keyed(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 1)

            def forward(self, inputs=None, mask=None):
                return self.layer(inputs)

        model, (x, y) = Keyed(), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record() as run:
            F.mse_loss(model(inputs=x, mask=None), y).backward()
            optimizer.step()
        assert torch.equal(run.batch[1]["inputs"], x)
        assert run.trace.calls["value"][run.trace.of("batch")].tolist() == [16]

    def test_keeps_the_keywords_beside_the_positions(self):
        """model(x, mask=causal): without its mask the batch is another one. A later call adds nothing to it."""

        class Masked(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 1)

            def forward(self, inputs, mask=None):
                return self.layer(inputs if mask is None else inputs * mask)

        model, (x, y) = Masked(), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        mask = torch.ones(4)
        with record() as run:
            F.mse_loss(model(x, mask=mask), y).backward()
            optimizer.step()
            F.mse_loss(model(x, mask=torch.zeros(4)), y).backward()
        args, keywords = run.batch
        assert torch.equal(args[0], x)
        assert torch.equal(keywords["mask"], mask)
        assert run.batch_model is model

    def test_logs_what_the_program_says(self):
        """run.log keeps named numbers with the step they belong to."""
        with record() as run:
            loop(2)
            run.log("val", auc=0.9, f1=torch.tensor(0.5))
        steps, values = run.trace.scalars("val/auc")
        assert (steps.tolist(), values.tolist()) == ([2], [0.9])
        assert run.trace.scalars("val/f1")[1].tolist() == [0.5]

    def test_refuses_to_log_what_is_no_number(self):
        """The message begins with the name."""
        with record() as run, pytest.raises(TypeError, match=r"^auc: a number is needed, not 'high'"):
            run.log("val", auc="high")

    def test_saves_and_loads(self, tmp_path):
        """What was saved reads back equal."""
        with record() as run:
            loop(3)
        loaded = Trace.load(run.save(tmp_path / "run.mltd"))
        assert loaded.steps["loss"].tolist() == run.trace.steps["loss"].tolist()
        assert loaded.ended == "completed"


class TestArguments:
    @pytest.mark.parametrize("steps", [0, -3, 1.5])
    def test_steps_must_be_a_count(self, steps):
        """Zero steps are refused under the argument's name."""
        with pytest.raises(ValueError, match="^steps: at least 1 is needed, not "), record(steps=steps):
            pass

    def test_an_unknown_level_is_told_the_near_one(self):
        """A misspelt level names the levels."""
        message = "^level: 'defualt' is none of losses, default, everything; the nearest is 'default'$"
        with pytest.raises(ValueError, match=message), record(level="defualt"):
            pass

    def test_off_records_nothing_and_says_so(self, monkeypatch):
        """MLTD_OFF=1 switches everything off; the program runs."""
        from pytest_mltd.recording import hooks

        monkeypatch.setenv("MLTD_OFF", "1")
        with record() as run:
            losses = loop(2)
            assert not hooks.installed()
        assert len(losses) == 2
        assert run.trace.n_steps == 0
        assert run.trace.notes == ("MLTD_OFF is set: nothing was recorded",)

    def test_another_kind_of_file_is_not_overwritten(self, tmp_path):
        """path= replaces a trace, never something else."""
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"^path: .*notes.txt' is there and is no trace"):
            with record(path=tmp_path / "notes.txt"):
                pass
        assert (tmp_path / "notes.txt").read_text() == "mine"
        for count in (1, 2):
            with record(path=tmp_path / "run.mltd"):
                loop(count)
        assert Trace.load(tmp_path / "run.mltd").n_steps == 2

    def test_a_missing_folder_is_named(self, tmp_path):
        """A folder that is not there is said before the program runs."""
        with (
            pytest.raises(OSError, match=r"^path: cannot write .*nowhere"),
            record(path=tmp_path / "nowhere" / "x.mltd"),
        ):
            pass


class Labelled(torch.Tensor):
    """A tensor with methods of its own."""


class TestLossesThatAreHardToRead:
    def test_a_subclass_of_a_tensor_is_read_as_a_tensor(self):
        """A loss against labels of a subclass is one itself; its number is there all the same."""
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = data()
        losses = []
        with record() as run:
            for _ in range(3):
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y.as_subclass(Labelled))
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
            with torch.no_grad():
                val = F.mse_loss(model(x), y.as_subclass(Labelled))
        assert type(loss) is Labelled
        assert run.trace.steps["loss"].tolist() == losses
        assert run.trace.val["value"].tolist() == [float(val)]
        assert run.trace.notes == ()

    def test_gradients_of_many_outputs_at_once_are_no_loss(self):
        """A batched autograd.grad has no single loss; the losses around it are recorded."""
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = data()
        losses = []
        with record() as run:
            for _ in range(3):
                output = model(x[:1])
                torch.autograd.grad(output, list(model.parameters()), torch.ones(3, 1, 1), is_grads_batched=True)
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert run.trace.notes == ()
        assert run.trace.steps["loss"].tolist() == losses
        assert run.trace.losses["value"].tolist() == losses


class TestAnOptimizerMetLate:
    def test_has_the_loss_of_its_first_step(self):
        """Made before the block, and its first step comes after the first steps of another."""
        models = [net(0), net(1)]
        optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in models]
        x, y = data()
        losses = []
        with record() as run:
            for model, optimizer in zip(models, optimizers, strict=True):
                for _ in range(10):
                    optimizer.zero_grad()
                    loss = F.mse_loss(model(x), y)
                    loss.backward()
                    optimizer.step()
                    losses.append(loss.item())
        steps = run.trace.steps
        assert steps["loss"].tolist() == losses
        assert set(steps["backwards"].tolist()) == {1}
        assert set(steps["stream"].tolist()) == {0}
        assert not [f for f in run.trace.facts if f.kind == "unreached"]

    def test_also_a_copied_one(self):
        """copy.deepcopy calls no constructor, so that nothing was heard of it."""
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        x, y = data()
        with record() as run:
            for _ in range(2):
                for _ in range(2):
                    optimizer.zero_grad()
                    F.mse_loss(model(x), y).backward()
                    optimizer.step()
                model, optimizer = copy.deepcopy((model, optimizer))
        assert run.trace.steps["backwards"].tolist() == [1, 1, 1, 1]
        assert all(math.isfinite(v) for v in run.trace.steps["loss"])


class TestAnOptimizerAroundAnother:
    def test_is_no_second_one(self):
        """As Lightning and accelerate put theirs around the user's: an Optimizer by class, never initialised as one."""

        class Around(torch.optim.Optimizer):
            def __init__(self, inner):
                self.inner = inner

            @property
            def param_groups(self):
                return self.inner.param_groups

            def step(self):
                self.inner.step()

        model = net()
        optimizer = Around(torch.optim.SGD(model.parameters(), lr=0.01))
        x, y = data()
        with record() as run:
            for _ in range(2):
                model.zero_grad()
                F.mse_loss(model(x), y).backward()
                optimizer.step()
        assert [o.name for o in run.trace.optimizers] == ["SGD"]
        assert run.trace.n_steps == 2
        assert all(p.optimizers == (0,) for p in run.trace.parameters)


class Asleep:
    """A proxy that raises when it is woken outside of its context, as Flask's and Django's do."""

    @property
    def __class__(self):
        raise RuntimeError("working outside of a context")


def test_lazy_proxies_are_left_asleep(monkeypatch):
    """Neither in the module's globals nor in a model's attributes."""
    monkeypatch.setitem(globals(), "current", Asleep())
    with record() as run:
        model = net()
        vars(model)["settings"] = [current]  # noqa: F821 - set above
        loop(2, model)
        torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
        loop(1, model)
    assert run.trace.notes == ()
    assert run.trace.n_steps == 3


def test_an_error_without_a_text_goes_through():
    """An exception whose own __str__ raises is still the one that the program raised."""

    class Mute(Exception):
        def __str__(self):
            raise ValueError("no text")

    with pytest.raises(Mute), record() as run:
        raise Mute
    assert run.trace.ended == "raised Mute: (its text cannot be made)"


class Blocks(nn.Module):
    """Ten checkpointed layers."""

    def __init__(self, reentrant):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(10))
        self.reentrant = reentrant

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


class TestWhatCountsAsAForward:
    @pytest.mark.parametrize("reentrant", [False, True])
    def test_checkpointing_computes_again_and_that_is_none(self, reentrant):
        """The blocks are no roots, and the model stays the newest one."""
        model = Blocks(reentrant)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with record() as run:
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.ones(8, 4, requires_grad=True)).sum().backward()
                optimizer.step()
        assert kinds(run.trace).count("forward") == 3
        assert run.roots == [model]
        assert [m.name for m in run.trace.modules if m.root] == ["model"]
        assert len(run.trace.outputs["step"]) == 3

    def test_those_after_an_interrupt_that_the_program_caught(self):
        """A KeyboardInterrupt leaves the modules without a word; the next backward finds them gone."""

        class Stubborn(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 1)
                self.stops = False

            def forward(self, x):
                if self.stops:
                    raise KeyboardInterrupt
                return self.layer(x)

        model = Stubborn()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with record() as run:
            for step in range(6):
                model.stops = step == 2
                if model.stops:
                    with contextlib.suppress(KeyboardInterrupt):
                        model(torch.ones(8, 4))
                    model.stops = False
                optimizer.zero_grad()
                model(torch.ones(8, 4)).sum().backward()
                optimizer.step()
        assert kinds(run.trace).count("forward") == 6  # of 7: the one right after the interrupt is not seen

    def test_a_hook_of_the_programs_that_raises_is_no_output(self):
        """torch tells of the module's end without the keywords then."""

        class Stop(Exception):
            pass

        model, raising = net(), [False]

        def hook(module, args, output):
            if raising[0] and module is model[0]:
                raise Stop

        handle = nn.modules.module.register_module_forward_hook(hook)
        try:
            with record() as run:
                for step in range(4):
                    raising[0] = step == 1
                    with contextlib.suppress(Stop):
                        model(data()[0])
                    raising[0] = False
                    loop(1, model)
        finally:
            handle.remove()
        assert run.trace.notes == ()
        assert len(run.trace.outputs["step"]) == 4


class TestTheModeOfAStep:
    @pytest.mark.parametrize("grad", [False, True])
    def test_is_the_students_when_a_teacher_is_called_after_it(self, grad):
        """A teacher, or a net that only measures a loss, is in eval mode as it should be."""
        student, teacher = net(0), net(1).eval()
        optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
        x, _ = data()
        with record() as run:
            for _ in range(3):
                optimizer.zero_grad()
                output = student(x)
                with torch.set_grad_enabled(grad):
                    target = teacher(x).detach()
                F.mse_loss(output, target).backward()
                optimizer.step()
            student.eval()
            optimizer.zero_grad()
            F.mse_loss(student(x), target).backward()
            optimizer.step()
        assert run.trace.steps["training"].tolist() == [1, 1, 1, 0]

    @pytest.mark.parametrize("level", ["losses", "default"])
    def test_is_the_whole_models_when_a_part_is_frozen(self, level):
        """Batch norm in eval mode inside a model in train mode."""
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with record(level=level) as run:
            for whole in (True, True, False):
                model.train(whole)
                model[1].eval()
                optimizer.zero_grad()
                model(torch.ones(8, 4)).sum().backward()
                optimizer.step()
        assert run.trace.steps["training"].tolist() == [1, 1, 0]
