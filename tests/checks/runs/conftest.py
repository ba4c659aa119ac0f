"""Hand-made runs: a small healthy training as columns, and what a test changes in it."""

import numpy as np
import pytest

from pytest_mltd.core.traces import CALLS, Module, OptimizerInfo, Parameter, Trace

NAMES = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
SITES = ("train.py:10", "train.py:11", "train.py:12", "train.py:13")
USUAL = ("forward", "zero_grad", "backward", "step")


class MadeRun:
    """A healthy run of SGD on two linear layers; attributes are the trace's columns, to be changed."""

    def __init__(self, steps=200, parameters=NAMES, seed=0):
        rng = np.random.default_rng(seed)
        self.n = steps
        fall = np.exp(-np.arange(steps) / (steps / 5 or 1))
        self.loss = 0.1 + 2.2 * fall + 0.02 * rng.standard_normal(steps)
        self.parameters = tuple(
            Parameter(
                name=n,
                shape=(16, 16) if n.endswith("weight") else (16,),
                dtype="torch.float32",
                optimizers=(0,),
                module="Linear",
            )
            for n in parameters
        )
        self.grad = np.abs(0.1 + 0.5 * fall[:, None] * (1 + 0.1 * rng.standard_normal((steps, len(parameters)))))
        self.used = None
        self.stale = np.zeros(steps, int)
        self.training = np.ones(steps, int)
        self.backwards = np.ones(steps, int)
        self.lr = np.full(steps, 0.1)
        self.scale = np.ones(steps)
        self.owner = np.zeros(steps, int)
        self.optimizers = (OptimizerInfo(name="SGD", parameters=len(parameters), settings={"lr": 0.1}),)
        self.modules = (
            Module(name="net", kind="Net", root=True),
            Module(name="fc1", kind="Linear"),
            Module(name="fc2", kind="Linear"),
        )
        self.weight = np.array([4.0 if n.endswith("weight") else 0.5 for n in parameters])
        self.order = [USUAL] * steps
        self.values = {}
        self.kept = {}

    def value(self, kind, step, index, calls):
        """A forward under gradients is in the mode of its step."""
        if kind == "forward" and self.tracked(kind, index, calls) and "forward" not in self.values:
            return float(self.training[step])
        return self.values.get(kind, np.nan)

    def tracked(self, kind, index, calls):
        """A forward that another forward or an eval follows at once had no gradient: it was a validation."""
        if kind != "forward":
            return -1
        following = next((k for k, _ in calls[index + 1 :] if k in ("forward", "backward")), "backward")
        return int(following == "backward")

    def trace(self):
        used = self.grad if self.used is None else self.used
        sampled = np.array(sorted({*range(min(5, self.n)), *range(0, self.n, 10)}), int)
        total = np.sqrt((np.where(self.grad > 0, self.grad, 0) ** 2).sum(1))
        total_used = np.sqrt((np.where((used > 0) | ~np.isfinite(used), used, 0) ** 2).sum(1))
        update = np.where(used[sampled] >= 0, used[sampled] * self.lr[sampled, None], 0.0)
        calls = [(kind, step) for step, kinds in enumerate(self.order) for kind in kinds]
        columns = {
            "steps": {
                "optimizer": self.owner,
                "stream": np.zeros(self.n, int),
                "loss": self.loss,
                "backwards": self.backwards,
                "lr": self.lr,
                "lr_lowest": self.lr,
                "grad_norm": total,
                "grad_norm_used": total_used,
                "nonfinite": (~np.isfinite(used)).sum(1),
                "scale": self.scale,
                "stale": self.stale,
                "training": self.training,
            },
            "losses": {"step": np.arange(self.n), "stream": np.zeros(self.n, int), "value": self.loss},
            "parameter_norms": {"step": np.arange(self.n), "grad": self.grad, "grad_used": used},
            "updates": {"step": sampled, "update": update, "weight": np.tile(self.weight, (len(sampled), 1))},
            "outputs": {"step": sampled, "rows": np.full((len(sampled), len(self.modules)), 32)},
            "calls": {
                "kind": [CALLS.index(kind) for kind, _ in calls],
                "step": [step for _, step in calls],
                "site": [USUAL.index(kind) if kind in USUAL else 0 for kind, _ in calls],
                "who": np.zeros(len(calls), int),
                "value": [self.value(kind, step, i, calls) for i, (kind, step) in enumerate(calls)],
                "grad": [self.tracked(kind, i, calls) for i, (kind, _) in enumerate(calls)],
            },
        }
        head = {
            "parameters": self.parameters,
            "modules": self.modules,
            "optimizers": self.optimizers,
            "streams": ("train.py:12",),
            "sites": SITES,
            "names": ("net",),
        }
        return Trace(**{**columns, **head, **self.kept})


@pytest.fixture
def made():
    """Return the class of hand-made runs."""
    return MadeRun
