"""What the recorder costs: process CPU time of a training loop with it, as a ratio to the bare loop.

usage: python benchmarks/recorder.py [--quick] [--models S,M,L] [--rounds N] [--json FILE]

S is an MLP 64-128-10 with batch 64, M a small residual convnet on 3×32×32 with batch 32, L a GPT of 8.7M parameters with batch
8.
Variants are interleaved block by block on one thread, each block in a recording of its own; the first steps of a block (entry,
sampled early steps) are run before the clock starts, and stated apart as "entry". Medians of the rounds' ratios.
Bars: losses 1.10 / 1.03 / 1.03, default 1.30 / 1.08 / 1.05, everything 2.0 / 1.2 / 1.1. The peer is torch's detect_anomaly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_mltd.recording.recorder import record

BARS = {
    "losses": {"S": 1.10, "M": 1.03, "L": 1.03},
    "default": {"S": 1.30, "M": 1.08, "L": 1.05},
    "everything": {"S": 2.0, "M": 1.2, "L": 1.1},
}
STEPS = {"S": 600, "M": 10, "L": 10}  # a block of timed steps: a sampled step in each ten
WARM = {"S": 21, "M": 11, "L": 11}


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = self.attn(self.ln_1(x)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary: int = 5000, width: int = 256, depth: int = 8, length: int = 64) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([Block(width, 8) for _ in range(depth)])
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))


def small() -> tuple[nn.Module, Callable[[], tuple[torch.Tensor, torch.Tensor]], torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    x, y = torch.randn(1024, 64), torch.randint(0, 10, (1024,))

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        i = torch.randint(0, 1024, (64,))
        return x[i], y[i]

    return model, batch, torch.optim.Adam(model.parameters(), lr=1e-3)


def middle() -> tuple[nn.Module, Callable[[], tuple[torch.Tensor, torch.Tensor]], torch.optim.Optimizer]:
    stem = [nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    model = nn.Sequential(
        *stem, *(Residual(32) for _ in range(4)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    )
    x, y = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    return model, lambda: (x, y), torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def large() -> tuple[nn.Module, Callable[[], tuple[torch.Tensor, torch.Tensor]], torch.optim.Optimizer]:
    model = GPT()
    tokens = torch.randint(0, 5000, (8, 65))
    return model, lambda: (tokens[:, :-1], tokens[:, 1:]), torch.optim.AdamW(model.parameters(), lr=3e-4)


MODELS = {"S": small, "M": middle, "L": large}


def train(made: Any, steps: int) -> None:
    """A loop as users write it."""
    model, batch, optimizer = made
    for _ in range(steps):
        x, y = batch()
        logits = model(x)
        loss = nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def variants() -> dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]:
    """Return what is put around the loop, by name; "bare" is the floor, "detect_anomaly" the peer."""
    found: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {"bare": contextlib.nullcontext}
    for level in BARS:
        found[level] = lambda level=level: record(level=level)
    found["detect_anomaly"] = lambda: torch.autograd.detect_anomaly(check_nan=True)
    return found


def measure(size: str, rounds: int) -> dict[str, Any]:
    """Return the median ratio of each variant to the bare loop of its own round, and the recorder's entry in milliseconds."""
    around = variants()
    seconds: dict[str, list[float]] = {name: [] for name in around}
    entry: list[float] = []
    for _ in range(rounds):
        for name, context in around.items():
            torch.manual_seed(0)
            made = MODELS[size]()
            start = time.process_time()
            with context():
                train(made, WARM[size])
                middle_time = time.process_time()
                train(made, STEPS[size])
                seconds[name].append(time.process_time() - middle_time)
            if name == "default":
                entry.append(1000 * (middle_time - start))
    bare = seconds["bare"]
    ratios = {n: statistics.median(a / b for a, b in zip(s, bare, strict=True)) for n, s in seconds.items()}
    return {"ms": 1000 * statistics.median(bare) / STEPS[size], "ratios": ratios, "entry_ms": statistics.median(entry)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="S only, 5 rounds")
    parser.add_argument("--models", default="S,M,L")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    import warnings

    warnings.simplefilter("ignore")  # detect_anomaly says each time that it is slow
    sizes, rounds = (["S"], 5) if options.quick else (options.models.split(","), options.rounds)
    results = {size: measure(size, rounds) for size in sizes}
    print(f"{'':16}" + "".join(f"{size:>14}" for size in sizes))
    print(f"{'bare, ms a step':16}" + "".join(f"{results[s]['ms']:14.2f}" for s in sizes))
    for name in [n for n in variants() if n != "bare"]:
        cells = []
        for size in sizes:
            bar = BARS.get(name, {}).get(size)
            cells.append(f"{results[size]['ratios'][name]:.3f}" + (f" (≤{bar:.2f})" if bar else ""))
        print(f"{name:16}" + "".join(f"{cell:>14}" for cell in cells))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
