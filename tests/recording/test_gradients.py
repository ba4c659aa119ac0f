"""Gradients as backward left them and as the step used them; stale ones; scaled ones; those that are not finite."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_mltd.core.traces import CALLS
from pytest_mltd.recording.recorder import record

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
Y = torch.randn(32, 1, generator=torch.Generator().manual_seed(2))


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def train(steps, clear=lambda optimizer: optimizer.zero_grad(), between=lambda model: None, model=None, **how):
    """Run a loop: clear, backward, between, step. Return the trace and the norms that the program saw itself."""
    model = model or net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    left, used = [], []
    with record(**how) as run:
        for _ in range(steps):
            clear(optimizer)
            F.mse_loss(model(X), Y).backward()
            left.append([p.grad.norm().item() for p in model.parameters()])
            between(model)
            used.append([p.grad.norm().item() for p in model.parameters()])
            optimizer.step()
    assert run.trace.notes == ()
    return run.trace, np.array(left), np.array(used)


class TestStale:
    def test_a_missing_zero_grad_is_seen_from_the_second_step(self):
        """All parameters grow on top of the gradient that the last step has used."""
        trace, _, _ = train(6, clear=lambda o: None)
        assert trace.steps["stale"].tolist() == [0, 4, 4, 4, 4, 4]

    @pytest.mark.parametrize(
        "clear",
        [
            lambda o: o.zero_grad(),
            lambda o: o.zero_grad(set_to_none=False),
            lambda o: [p.grad.zero_() for g in o.param_groups for p in g["params"] if p.grad is not None],
            lambda o: [p.grad.data.zero_() for g in o.param_groups for p in g["params"] if p.grad is not None],
            lambda o: [p.grad.detach_().zero_() for g in o.param_groups for p in g["params"] if p.grad is not None],
            lambda o: [setattr(p, "grad", None) for g in o.param_groups for p in g["params"]],
            lambda o: [p.grad.mul_(0) for g in o.param_groups for p in g["params"] if p.grad is not None],
        ],
        ids=["none", "zero", "by hand", "through data", "detached", "set to none", "times zero"],
    )
    def test_every_way_to_clear_is_clear(self, clear):
        """Seven ways to clear a gradient, one of which moves no version."""
        trace, _, _ = train(14, clear=clear)
        assert trace.steps["stale"].sum() == 0
        assert trace.steps["backwards"].tolist() == [1] * 14

    def test_clearing_after_the_step_is_clear(self):
        """The order step, zero_grad is as good as zero_grad, backward."""
        model = net()
        optimizer = torch.optim.Adam(model.parameters())
        with record() as run:
            for _ in range(5):
                F.mse_loss(model(X), Y).backward()
                optimizer.step()
                optimizer.zero_grad()
        assert run.trace.steps["stale"].sum() == 0

    def test_accumulation_on_purpose_is_not_stale_but_its_missing_zero_grad_is(self):
        """Several backwards a step are intended; what the step before left is not."""
        for cleared, expected in ((True, [0, 0, 0]), (False, [0, 4, 4])):
            model = net()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            with record() as run:
                for i in range(9):
                    (F.mse_loss(model(X), Y) / 3).backward()
                    if i % 3 == 2:
                        optimizer.step()
                        if cleared:
                            optimizer.zero_grad()
            assert run.trace.steps["stale"].tolist() == expected

    def test_one_group_that_is_not_cleared(self):
        """Only the parameters left over are counted."""
        trace, _, _ = train(5, clear=lambda o: [setattr(p, "grad", None) for p in o.param_groups[0]["params"][:2]])
        assert trace.steps["stale"].tolist() == [0, 2, 2, 2, 2]

    def test_clipping_does_not_hide_it(self):
        """A clipped gradient that is left over is left over."""
        trace, _, _ = train(
            5, clear=lambda o: None, between=lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.1)
        )  # fmt: skip
        assert trace.steps["stale"].tolist() == [0, 4, 4, 4, 4]

    def test_a_gradient_through_the_other_net_is_cleared_by_its_own_optimizer(self):
        """In a GAN the generator's backward writes into the discriminator, which clears it before its own."""
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.SGD(G.parameters(), lr=0.01), torch.optim.SGD(D.parameters(), lr=0.01)
        for set_to_none in (True, False):
            with record() as run:
                for _ in range(8):
                    for optimizer, loss in (
                        (od, lambda: D(torch.randn(4, 2)).mean() - D(G(torch.randn(4, 2)).detach()).mean()),
                        (og, lambda: D(G(torch.randn(4, 2))).mean()),
                    ):
                        optimizer.zero_grad(set_to_none=set_to_none)
                        loss().backward()
                        optimizer.step()
            assert run.trace.steps["stale"].sum() == 0

    def test_a_discriminator_that_is_never_cleared_is_found_alone(self):
        """The healthy optimizer stays without a mark."""
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.SGD(G.parameters(), lr=0.01), torch.optim.SGD(D.parameters(), lr=0.01)
        with record() as run:
            for _ in range(6):
                (D(torch.randn(4, 2)).exp().mean() - D(G(torch.randn(4, 2)).detach()).mean()).backward()
                od.step()
                og.zero_grad()
                D(G(torch.randn(4, 2))).mean().backward()
                og.step()
        names = [o.name for o in run.trace.optimizers]
        stale = {names[i]: run.trace.steps["stale"][run.trace.steps["optimizer"] == i].tolist() for i in (0, 1)}
        assert stale == {"SGD od": [0, 2, 2, 2, 2, 2], "SGD og": [0] * 6}


class TestAsUsed:
    @pytest.mark.parametrize(
        "between",
        [
            lambda m: None,
            lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.05),
            lambda m: nn.utils.clip_grad_value_(m.parameters(), 0.01),
            lambda m: [p.grad.mul_(0.5) for p in m.parameters()],
            lambda m: [p.grad.data.clamp_(-0.01, 0.01) for p in m.parameters()],
            lambda m: [setattr(p, "grad", p.grad * 2) for p in m.parameters()],
        ],
        ids=["untouched", "norm", "value", "by hand", "through data", "replaced"],
    )
    @pytest.mark.parametrize("level", ["losses", "default"])
    def test_both_norms_are_the_programs_own(self, between, level):
        """What happens between backward and step is in the second norm only, also where no version moves."""
        trace, left, used = train(16, between=between, level=level)
        assert trace.parameter_norms["grad"] == pytest.approx(left, rel=1e-5)
        assert trace.parameter_norms["grad_used"] == pytest.approx(used, rel=1e-5)

    def test_a_touch_that_begins_late_and_moves_no_version_is_found_at_the_next_sampled_step(self):
        """Sampled steps look where nothing seems changed; from there on each step does."""
        count = iter(range(100))
        trace, left, used = train(
            26, between=lambda m: next(count) >= 7 and [p.grad.data.mul_(0.5) for p in m.parameters()]
        )  # fmt: skip
        assert trace.parameter_norms["grad"] == pytest.approx(left, rel=1e-5)
        assert trace.parameter_norms["grad_used"][10:] == pytest.approx(used[10:], rel=1e-5)

    def test_each_row_keeps_its_own_norms_where_gradients_are_not_cleared(self):
        """A later backward that adds to what lies there does not reach into rows that wait to be written."""
        trace, left, _ = train(16, clear=lambda o: None)
        assert trace.parameter_norms["grad"] == pytest.approx(left, rel=1e-5)
        assert trace.parameter_norms["grad_used"] == pytest.approx(left, rel=1e-5)

    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_a_backward_that_was_cleared_again_is_not_the_step_s(self, set_to_none):
        """Adversarial training: a backward for the input's gradient, zero_grad, and the real one."""
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        used, losses = [], []
        with record() as run:
            for _ in range(16):
                x = X.clone().requires_grad_()
                F.mse_loss(model(x), Y).backward()
                optimizer.zero_grad(set_to_none=set_to_none)
                loss = F.mse_loss(model(X + 0.1 * x.grad.sign()), Y)
                loss.backward()
                used.append([p.grad.norm().item() for p in model.parameters()])
                losses.append(loss.item())
                optimizer.step()
                optimizer.zero_grad(set_to_none=set_to_none)
        assert run.trace.parameter_norms["grad_used"] == pytest.approx(np.array(used), rel=1e-5, abs=1e-9)
        assert run.trace.steps["loss"].tolist() == losses
        assert run.trace.steps["stale"].sum() == 0

    def test_sparse_gradients_have_norms(self):
        """Embedding(sparse=True): rows that occur twice are summed first."""
        table = nn.Embedding(10, 3, sparse=True)
        optimizer = torch.optim.SparseAdam(table.parameters())
        with record(level="everything") as run:
            for _ in range(3):
                optimizer.zero_grad()
                table(torch.tensor([1, 1, 4])).pow(2).sum().backward()
                expected = table.weight.grad.to_dense().norm().item()
                optimizer.step()
        assert run.trace.notes == ()
        assert run.trace.parameter_norms["grad"][-1, 0] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_other_types_have_norms(self, dtype):
        """Half types are summed in float32: 300² would leave float16's range."""
        w = nn.Parameter(torch.full((4,), 300.0).to(dtype))
        optimizer = torch.optim.SGD([w], lr=1e-3)
        with record(level="everything") as run:
            (w * w).sum().backward()
            optimizer.step()
        assert run.trace.notes == ()
        assert run.trace.parameter_norms["grad"][0, 0] == pytest.approx(1200, rel=1e-2)

    def test_large_tensors_take_the_other_path_to_the_same_number(self):
        """Above 16,384 numbers torch takes the norm, below numpy."""
        for width in (64, 400):
            model = nn.Linear(width, width)
            trace_model = nn.Sequential(model)
            optimizer = torch.optim.SGD(trace_model.parameters(), lr=0.01)
            with record() as run:
                trace_model(torch.randn(4, width)).pow(2).mean().backward()
                expected = model.weight.grad.double().norm().item()
                optimizer.step()
            assert run.trace.parameter_norms["grad"][0, 0] == pytest.approx(expected, rel=1e-5)


class TestNotFinite:
    def test_counts_parameters_whose_gradient_is_not_finite(self):
        """NaN in one weight's gradient: one parameter, at that step."""

        def poison(model):
            if next(count) == 3:
                model[0].weight.grad[0, 0] = float("nan")

        count = iter(range(100))
        trace, _, _ = train(4, between=poison)
        assert trace.steps["nonfinite"].tolist() == [0, 0, 0, 1]
        assert np.isnan(trace.steps["grad_norm_used"][3])
        assert np.isfinite(trace.steps["grad_norm"][3])

    def test_a_norm_beyond_float32_is_not_called_infinite(self):
        """Gradients of 1e25 are huge and finite: their squares overflow, so the norm is taken again in float64."""
        trace, _, _ = train(2, between=lambda m: [p.grad.fill_(1e25) for p in m.parameters()])
        assert trace.steps["nonfinite"].tolist() == [0, 0]
        assert trace.steps["grad_norm_used"][0] == pytest.approx(1e25 * np.sqrt(49), rel=1e-5)


class TestScaled:
    def loop(self, optimizer, model, steps=6, clip=False, overflow_at=None, unscale=True):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
        norms, losses = [], []
        with record() as run:
            for i in range(steps):
                optimizer.zero_grad()
                loss = F.mse_loss(model(X), Y)
                if i == overflow_at:
                    loss = loss * float("inf")
                scaler.scale(loss).backward()
                if unscale:
                    if clip:
                        scaler.unscale_(optimizer)
                        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
                    scaler.step(optimizer)
                else:
                    optimizer.step()
                norms.append([p.grad.norm().item() for p in model.parameters()])
                losses.append(loss.item())
                if unscale:
                    scaler.update()
        return run.trace, np.array(norms), losses

    @pytest.mark.parametrize("fused", [False, True])
    def test_losses_and_norms_are_unscaled(self, fused):
        """The trace has the numbers of the program without a scaler, and the scale beside them."""
        plain = net()
        with record() as bare:
            optimizer = torch.optim.Adam(plain.parameters(), fused=fused)
            for _ in range(6):
                optimizer.zero_grad()
                F.mse_loss(plain(X), Y).backward()
                optimizer.step()
        model = net()
        trace, _, losses = self.loop(torch.optim.Adam(model.parameters(), fused=fused), model)
        assert trace.notes == ()
        assert trace.steps["loss"].tolist() == pytest.approx(losses)
        assert trace.steps["scale"].tolist() == [1024.0] * 6
        assert trace.parameter_norms["grad"] == pytest.approx(bare.trace.parameter_norms["grad"], rel=1e-3)
        assert trace.parameter_norms["grad_used"] == pytest.approx(bare.trace.parameter_norms["grad"], rel=1e-3)
        assert trace.steps["stale"].sum() == 0

    def test_clipping_after_unscaling_is_in_the_second_norm(self):
        """unscale_ moves no version and changes the norm; the clip after it is what the step used."""
        model = net()
        trace, used, _ = self.loop(torch.optim.SGD(model.parameters(), lr=0.1), model, clip=True)
        assert trace.parameter_norms["grad_used"] == pytest.approx(used, rel=1e-4)
        assert (trace.steps["grad_norm"] > 5 * trace.steps["grad_norm_used"]).all()
        kinds = [CALLS[k] for k in trace.calls["kind"]]
        assert kinds[:8] == ["zero_grad", "batch", "forward", "backward", "unscale", "clip", "step", "zero_grad"]

    def test_a_skipped_step_is_a_call_and_no_step(self):
        """Overflow: the scaler leaves the step out; the next loss is not averaged with it."""
        model = net()
        trace, _, losses = self.loop(torch.optim.SGD(model.parameters(), lr=0.1), model, overflow_at=2)
        assert trace.n_steps == 5
        assert trace.of("skipped_step").sum() == 1
        assert trace.calls["step"][trace.of("skipped_step")].tolist() == [2]
        assert trace.steps["loss"].tolist() == pytest.approx([v for i, v in enumerate(losses) if i != 2])
        assert trace.steps["backwards"].tolist() == [1] * 5
        assert trace.steps["scale"].tolist() == [1024, 1024, 512, 512, 512]

    def test_a_fused_optimizer_skips_inside_its_step(self):
        """Fused Adam is called and leaves the update out itself."""
        model = net()
        trace, _, _ = self.loop(torch.optim.Adam(model.parameters(), fused=True), model, overflow_at=2)
        assert trace.n_steps == 5
        assert trace.of("skipped_step").sum() == 1

    def test_a_step_with_scaled_gradients_is_visible(self):
        """optimizer.step() past the scaler uses gradients 1024 times too large."""
        model = net()
        trace, _, _ = self.loop(torch.optim.SGD(model.parameters(), lr=1e-6), model, unscale=False)
        ratio = trace.steps["grad_norm_used"] / trace.steps["grad_norm"]
        assert ratio.tolist() == pytest.approx([1024.0] * 6)

    def test_autocast_in_bfloat16_needs_no_scale(self):
        """Autocast alone: losses as the program saw them."""
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        losses = []
        with record() as run:
            for _ in range(3):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = F.mse_loss(model(X).float(), Y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert run.trace.notes == ()
        assert run.trace.steps["loss"].tolist() == losses


def test_a_graph_through_the_gradient_is_not_grown():
    """create_graph=True: gradients have a graph of their own, and the second backward works as without us."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with record(level="everything") as run:
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.mse_loss(model(X), Y)
            grads = torch.autograd.grad(loss, tuple(model.parameters()), create_graph=True)
            (loss + sum(g.pow(2).sum() for g in grads)).backward()
            optimizer.step()
    assert run.trace.notes == ()
    assert run.trace.n_steps == 3
    assert run.trace.steps["stale"].sum() == 0
