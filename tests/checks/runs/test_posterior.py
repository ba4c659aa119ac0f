"""Codes that tell nothing: variational encoders that answer with their prior."""

import numpy as np
import pytest

from pytest_mltd.checks.runs.posterior import assert_no_posterior_collapse, check_posterior_collapse
from pytest_mltd.core.traces import Module, Parameter

FADED = np.concatenate([[0.06] * 5, [0.03], [0.004] * 18])


def encoder(made, mean=FADED, width=FADED, shape=(4, 16), before=0.5):
    """Return a run of an encoder whose two last layers differ between samples by so much at each look."""
    run = made(200, ("mu.weight", "lv.weight"))
    run.parameters = tuple(
        Parameter(name=f"{n}.weight", shape=shape, dtype="float32", optimizers=(0,), module="Linear")
        for n in ("mu", "lv")
    )
    run.modules = (
        Module(name="vae", kind="VAE", root=True),
        Module(name="act", kind="ReLU"),
        Module(name="mu", kind="Linear"),
        Module(name="lv", kind="Linear"),
    )
    at = run.trace().outputs["step"]
    columns = [np.broadcast_to(c, len(at)) for c in (0.5, before, mean, width)]
    across = np.stack(columns, axis=1)
    std = across.copy()
    std[:, 1] = 0.5
    run.kept["outputs"] = {"step": at, "mean": np.zeros_like(std), "std": std, "across": across}
    return run.trace()


def test_means_that_go_to_zero_and_widths_to_one_number_have_collapsed(made):
    """Which layer, and the whole message."""
    finding = check_posterior_collapse(encoder(made))
    assert str(finding) == (
        "activations.posterior_collapse: the posterior collapsed: the code is ignored, 'mu' is 0.004 for every sample "
        "(min_code=0.05), and 'lv' one number\n"
        "\n"
        "    layer  samples differ by, first  samples differ by, later  size, later\n"
        "  > mu     0.06                      0.004                     0.004\n"
        "    lv     0.06                      0.004                     0.004\n"
        "\n"
        "    The KL term is too strong: it collapses to zero with the code, and all samples are reconstructed as one mean "
        "sample.\n"
        "    next: sum the reconstruction over pixels as the KL is summed over the code (not a mean beside a sum), or weigh "
        "the KL less and raise its weight slowly"
    )


@pytest.mark.parametrize(("mean", "width"), [(0.6, FADED), (0.04, FADED), (FADED, 0.06)])
def test_codes_that_still_tell_samples_apart_have_not(made, mean, width):
    """Neither of usual size, nor small from the start, nor of widths that differ."""
    assert_no_posterior_collapse(encoder(made, mean, width))


def test_layers_that_may_feed_each_other_are_no_encoder(made):
    """As square ones may; nor are two behind a layer that no longer tells samples apart."""
    assert not check_posterior_collapse(encoder(made, shape=(16, 16))).asked
    assert not check_posterior_collapse(encoder(made, before=0.01)).asked


def test_a_trained_encoder_is_judged_by_its_kl_weight():
    """A mean over pixels beside a sum over the code collapses; two sums do not."""
    torch = pytest.importorskip("torch")
    mltd = pytest.importorskip("pytest_mltd")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(32, 24), torch.nn.ReLU())
            self.mu, self.lv, self.out = torch.nn.Linear(24, 4), torch.nn.Linear(24, 4), torch.nn.Linear(4, 32)

        def forward(self, x):
            h = self.body(x)
            mu, lv = self.mu(h), self.lv(h)
            return self.out(mu + torch.randn_like(mu) * (lv / 2).exp()), mu, lv

    def trained(mean):
        torch.manual_seed(0)
        net, basis = Net(), torch.randn(3, 32)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
        with mltd.record() as run:
            for _ in range(200):
                x = torch.randn(64, 3) @ basis * 0.3
                out, mu, lv = net(x)
                error = (out - x).square()
                kl = 0.5 * (mu**2 + lv.exp() - lv - 1).sum(1).mean()
                loss = (error.mean() if mean else error.sum(1).mean()) + kl
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return run

    assert check_posterior_collapse(trained(mean=True)).culprit == "mu"
    assert check_posterior_collapse(trained(mean=False)).ok


@pytest.mark.parametrize("arguments", [{"min_code": 0}, {"min_steps": 0}])
def test_limits_that_make_no_sense_are_refused(made, arguments):
    """By name."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        check_posterior_collapse(made().trace(), **arguments)
