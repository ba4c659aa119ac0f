"""Numbers on their way from tensors: read at once on the CPU, later from a device, and never by waiting for it."""

import math

import pytest
import torch
from torch import nn

from pytest_mltd.recording import lanes
from pytest_mltd.recording.recorder import record


class TestOnTheCpu:
    def test_numbers_are_floats_at_once(self):
        """Scalars of several types become floats in their order."""
        lane = lanes.Lane()
        assert lane.read([torch.tensor(1.5), torch.tensor(2.0, dtype=torch.float64)]) == [1.5, 2.0]
        assert lane.read([]) == []
        assert not lane.waiting

    @pytest.mark.parametrize(
        "tensor", [torch.randn(5, 3), torch.randn(4, 3).t(), torch.randn(3, dtype=torch.complex64)]
    )
    def test_a_norm_is_that_of_the_whole_tensor(self, tensor):
        """Also of transposed and complex ones."""
        (norm,) = lanes.norms([tensor])
        assert norm.item() == pytest.approx(torch.linalg.vector_norm(tensor).item(), rel=1e-6)

    def test_the_total_leaves_out_what_was_not_taken(self):
        """Negative marks are no norms; NaN is."""
        assert lanes.total([3.0, -1.0, 4.0, -2.0]) == 5.0
        assert math.isnan(lanes.total([1.0, float("nan")]))
        assert lanes.total([]) == 0


class TestFromADevice:
    """A fake device: batches that have not arrived."""

    def test_a_later_number_is_a_float_when_asked(self):
        """`float` waits; numbers derived of it too."""
        batch = lanes._Batch(torch.tensor([2.0, 8.0]))
        two, eight = lanes.Later(batch, 0), lanes.Later(batch, 1)
        assert float(eight) == 8.0
        assert float(lanes.Derived(lambda v: v[1] / v[0], (two, eight))) == 4.0
        assert int(lanes.Derived(sum, (two, eight))) == 10

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_no_step_waits_for_the_device(self):
        """With synchronisation made an error, training runs at the default level and all numbers arrive."""
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)).cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        x = torch.randn(32, 8, device="cuda")

        def step():
            optimizer.zero_grad()
            model(x).pow(2).mean().backward()
            optimizer.step()

        step()
        with record() as run:
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(200):
                    step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert run.trace.notes == ()
        assert run.trace.n_steps == 200
        assert (run.trace.steps["grad_norm"] > 0).all()
        assert not torch.isnan(torch.tensor(run.trace.steps["loss"])).any()


def test_the_path_for_devices_gives_the_same_trace(monkeypatch):
    """The deferred path, forced on the CPU: rows wait until their numbers have arrived, and are the same."""

    def trained():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with record() as run:
            for _ in range(25):
                optimizer.zero_grad()
                model(torch.ones(3, 4)).pow(2).mean().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
        return run.trace

    def deferred(self, scalars):
        self.waiting = True
        batch = lanes._Batch(torch.stack([s.double() for s in scalars]))
        self._pending.append(batch)
        return [lanes.Later(batch, i) for i in range(batch.count)]

    plain = trained()
    monkeypatch.setattr(lanes.Lane, "read", deferred)
    monkeypatch.setattr(lanes, "flat", lambda tensor: None)
    monkeypatch.setattr("pytest_mltd.recording.gradients._SMALL", -1)
    monkeypatch.setattr("pytest_mltd.recording.spool._MAX_SECONDS", 0)
    monkeypatch.setattr(
        "pytest_mltd.recording.watching.Watcher._value", lambda self, t, g: self.lane.read([t[0].detach()])[0]
    )
    later = trained()
    assert later.notes == ()
    for column in ("loss", "grad_norm", "grad_norm_used", "lr"):
        assert later.steps[column] == pytest.approx(plain.steps[column], rel=1e-5), column
    assert later.steps["nonfinite"].tolist() == plain.steps["nonfinite"].tolist()
    assert later.parameter_norms["grad_used"] == pytest.approx(plain.parameter_norms["grad_used"], rel=1e-5)
    assert later.updates["update"] == pytest.approx(plain.updates["update"], rel=1e-4)
    assert later.outputs["std"] == pytest.approx(plain.outputs["std"], rel=1e-4, nan_ok=True)
