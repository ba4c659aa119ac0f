"""What a diagnosis costs: CPU time and memory on a long run, and how both grow with steps and parameters.

``python benchmarks/diagnosis.py`` prints the figures and writes them under "Diagnosis" in benchmarks/README.md.
The run is made of numbers, healthy ones, with every column that level default fills: all questions look at all of it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

from startup import write

SIZES = ((100_000, 200), (50_000, 200), (100_000, 100))
BAR_SECONDS, BAR_MB = 2.0, 500


def main() -> int:
    if len(sys.argv) == 3:
        print(json.dumps(measured(int(sys.argv[1]), int(sys.argv[2]))))
        return 0
    rows = []
    for steps, parameters in SIZES:  # each in a process of its own: the peak of memory is the process's
        command = [sys.executable, __file__, str(steps), str(parameters)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    whole = rows[0]
    held = whole["seconds"] <= BAR_SECONDS and whole["mb"] <= BAR_MB
    bar = f"Bar: at most {BAR_SECONDS:g} s and {BAR_MB} MB. {'Held' if held else 'MISSED'}"
    half_steps, half_parameters = (r["seconds"] / whole["seconds"] for r in rows[1:])
    lines = [
        "`python benchmarks/diagnosis.py`: CPU time of `diagnose` on a healthy run made of numbers, with all that level",
        "default records (norms at each step, updates and outputs at each tenth, six calls a step), and what it adds to",
        "the trace in memory.",
        "",
        "| steps × parameters | CPU s | MB added | the trace, MB |",
        "|---|---|---|---|",
        *(
            f"| {r['steps']:,} × {r['parameters']} | {r['seconds']:.2f} | {r['mb']:.0f} | {r['trace']:.0f} |"
            for r in rows
        ),
        "",
        f"Half the steps take {half_steps:.2f} of the time, half the parameters {half_parameters:.2f}.",
        f"{bar} with {whole['seconds']:.2f} s and {whole['mb']:.0f} MB.",
    ]
    print("\n".join(lines))
    write("## Diagnosis", lines)
    return 0 if held else 1


def measured(steps: int, parameters: int) -> dict[str, Any]:
    """Diagnose one run of this size."""
    from pytest_mltd.diagnosis import diagnose

    trace = made(steps, parameters)
    size = sum(c.nbytes for t in trace_tables(trace) for c in t.values()) / 2**20
    diagnose(made(50, 2))  # what is loaded at the first use is not the question
    before, start = peak(), time.process_time()
    diagnosis = diagnose(trace)
    spent = time.process_time() - start
    assert diagnosis.ok, str(diagnosis)
    return {"steps": steps, "parameters": parameters, "seconds": spent, "mb": peak() - before, "trace": size}


def made(steps: int, parameters: int) -> Any:
    """Return a healthy run: a loss that falls and flattens under noise, gradients that follow it, small updates."""
    import numpy as np

    from pytest_mltd.core.traces import CALLS, Module, OptimizerInfo, Parameter, Trace

    random = np.random.default_rng(0)
    time_axis = np.arange(steps)
    falling = 0.3 + 2.0 / (1 + time_axis / 200)
    loss = falling * random.lognormal(0, 0.05, steps)
    norms = (falling[:, None] * random.lognormal(-3, 0.2, (steps, parameters))).astype(np.float32)
    some = time_axis[(time_axis < 5) | (time_axis % 10 == 0)]
    weights = np.full((some.size, parameters), 10, np.float32)
    modules = max(parameters // 4, 1)
    spread = random.lognormal(0, 0.05, (some.size, modules)).astype(np.float32)
    usual = ("zero_grad", "batch", "forward", "backward", "step", "scheduler")
    kinds = np.array([CALLS.index(k) for k in usual], np.uint8)
    return Trace(
        steps={
            "optimizer": np.zeros(steps, np.int32),
            "stream": np.zeros(steps, np.int32),
            "loss": loss,
            "backwards": np.ones(steps, np.int32),
            "lr": 1e-3 / (1 + time_axis / steps),
            "lr_lowest": 1e-3 / (1 + time_axis / steps),
            "grad_norm": np.sqrt((norms.astype(float) ** 2).sum(1)),
            "grad_norm_used": np.sqrt((norms.astype(float) ** 2).sum(1)),
            "training": np.ones(steps, np.int8),
        },
        losses={"step": time_axis, "stream": np.zeros(steps, np.int32), "value": loss},
        parameter_norms={"step": time_axis, "grad": norms, "grad_used": norms.copy()},
        updates={"step": some, "update": weights * 1e-3, "weight": weights},
        outputs={
            "step": some,
            "mean": spread * 0.1,
            "std": spread,
            "zeros": np.zeros_like(spread),
            "min": -3 * spread,
            "max": 3 * spread,
            "rows": np.full(spread.shape, 64, np.int32),
        },
        calls={
            "kind": np.tile(kinds, steps),
            "step": np.repeat(time_axis, kinds.size),
            "who": np.zeros(steps * kinds.size, np.int32),
            "site": np.zeros(steps * kinds.size, np.int32),
            "value": np.tile(np.array([np.nan, 64, 1, np.nan, np.nan, 1e-3]), steps),
            "digest": np.where(np.tile(kinds, steps) == CALLS.index("batch"), np.arange(steps * kinds.size) + 1, 0),
            "grad": np.tile(np.array([-1, 1, 1, -1, -1, -1], np.int8), steps),
        },
        parameters=tuple(
            Parameter(name=f"layer{i}.weight", shape=(64, 64), optimizers=(0,)) for i in range(parameters)
        ),
        modules=tuple(Module(name=f"layer{i}", kind="Linear") for i in range(modules)),
        optimizers=(OptimizerInfo(name="Adam", parameters=parameters),),
        streams=("train.py:12",),
        names=("model",),
        sites=("train.py:12",),
    )


def trace_tables(trace: Any) -> list[Any]:
    from pytest_mltd.core.traces import TABLES

    return [getattr(trace, table) for table in TABLES]


def peak() -> float:
    """Return the most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
