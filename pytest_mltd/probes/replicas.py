"""Do the ranks of a distributed training stay one model, each with its own share of the data? In real processes, over gloo."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, Plain, Table, not_asked
from pytest_mltd.probes import children
from pytest_mltd.probes.attempts import refuse_small, refuse_unfit
from pytest_mltd.probes.ranks import Rank, run_ranks
from pytest_mltd.probes.repeating import own_folder

# The highest share of a rank's samples, up to the first that comes again, that another rank may see too; a guess, with room
# for a sampler that fills up its last batch, and for batches drawn at random from a hundred samples or more.
OVERLAP = 0.2
FEWEST = 16  # samples of a rank below which an overlap says nothing; a guess


@check("training", family="training")
def check_replicas_agree(
    train: Callable[..., Any],
    *,
    ranks: int = 2,
    steps: int = 20,
    seed: int = 0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether the ranks of a distributed training keep equal weights and see different data.

    ``train`` is run in real processes that talk through gloo, as torchrun would start them: with RANK and WORLD_SIZE in the
    environment and a process group to join (its own ``init_process_group`` joins that one, whatever the backend). At each
    step the weights, the gradients as the optimizer uses them, the buffers, the samples and the random numbers drawn for
    them are compared between ranks. Each rank is seeded otherwise, as nobody seeds them in a real run. Gradients that are
    summed where the mean was meant are equal on all ranks and not seen here; nor are samples that augmentation changes.

    Args:
        train: the training; given what it has parameters for of ``rank``, ``local_rank``, ``world_size`` and ``seed``, and in
            parameters of other names the rank and the number of ranks, as `torch.multiprocessing.spawn` gives them.
        ranks: how many processes run side by side, each with its own batches; a guess, two show what more would.
        steps: end each after so many steps; a guess.
        seed: rank r is seeded with ``seed + r``; by convention 0.
        allow: reasons by state: "weights", "gradients", "buffers", "samples", "random state".

    Raises:
        TypeError: ``train`` is no function.
        ValueError: ``train`` raised, or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> check_replicas_agree(lambda: None, steps=1).asked
        False
    """
    __tracebackhide__ = True
    refuse_unfit(train, "check_replicas_agree(train)")
    refuse_small(ranks=ranks, steps=steps)
    if ranks < 2:
        raise ValueError(f"ranks: at least 2 are needed, not {ranks}")
    need("torch", "check_replicas_agree")
    if why := _impossible():
        return not_asked(why)
    with own_folder() as folder:
        seen = run_ranks(train, ranks, seed=seed, steps=steps, folder=Path(folder))
    return _left_alone(seen) or _judge(seen, allow)


assert_replicas_agree = asserting(check_replicas_agree, name="assert_replicas_agree")


def _impossible() -> str:
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        return "this torch was built without gloo"
    return children.forbids_fork()


def _left_alone(seen: list[Rank]) -> Finding | None:
    """Return the finding of ranks that did not come to their end together, or raise what the training raised.

    Raises:
        ValueError: a rank raised an error of its own.
    """
    __tracebackhide__ = True
    for number, rank in enumerate(seen):
        if rank.raised and not rank.waiting:
            raise ValueError(f"train: rank {number} raised\n{rank.error}")
    taken = [len(rank.rows) for rank in seen]
    waiting = next((number for number, rank in enumerate(seen) if rank.raised), None)
    if waiting is None and len(set(taken)) == 1:
        return None
    other = min(range(len(seen)), key=lambda i: (taken[i], i == waiting))
    rows: tuple[tuple[Plain, ...], ...] = tuple(
        (f"rank {i}", taken[i], "waited for an answer" if rank.raised else "came to its end")
        for i, rank in enumerate(seen)
    )
    waited = waiting is not None
    return Finding(
        ok=False,
        headline=(
            f"rank {waiting} waited in vain for another one after {taken[waiting or 0]} steps"
            if waited
            else f"rank {other} took {taken[other]} steps, another one {max(taken)}"
        ),
        culprit=f"rank {waiting if waited else other}",
        step=min(taken),
        table=Table(("rank", "steps", "how it ended"), rows, waiting if waited else other),
        shows="The ranks do not make the same calls: one is at an end, or in a branch, where another still waits for it.",
        next_step="give each rank the same number of batches, as a DistributedSampler does; call collectives on all ranks",
    )


def _judge(seen: list[Rank], allow: Mapping[str, str] | None) -> Finding:
    if not any(rank.rows for rank in seen):
        return not_asked("no optimizer step was seen")
    if not all(row["weights"] for rank in seen for row in rank.rows):
        return not_asked("the parameters are sharded: each rank holds another part of them")
    found = [f for f in (_weights_or_gradients(seen), _buffers(seen), _samples(seen), _draws(seen)) if f]
    kept, allowed = sift(allow, [f.culprit for f in found])
    for finding in found:
        if finding.culprit in kept:
            return finding
    return _agree(seen, allowed)


def _agree(seen: list[Rank], allowed: tuple[tuple[str, str], ...]) -> Finding:
    divided = min(len(_first_pass(rank)) for rank in seen) >= FEWEST
    overlap = _overlap(seen)
    samples = f" and share {overlap:.0%} of their samples" if divided else ""
    left_out = [] if divided else [f"fewer than {FEWEST} samples to tell apart, so how they are divided was not asked"]
    left_out += [] if seen[0].loaded else ["no DataLoader, so augmentation was not asked"]
    looked = f"weights, gradients, buffers, samples and random states of {len(seen[0].rows)} steps on each rank"
    return Finding(
        ok=True,
        headline=f"{len(seen)} ranks keep equal weights{samples}",
        amount=overlap,
        looked_at="; ".join([looked, *left_out]),
        allowed=allowed,
    )


def _weights_or_gradients(seen: list[Rank]) -> Finding | None:
    """Return the first thing in which the models part: initial weights, a step's gradients, or what the step made of them."""
    for step, rows in enumerate(zip(*(rank.rows for rank in seen), strict=True)):
        for kind in ("weights", "gradients"):
            differing = _differing([row[kind] for row in rows])
            if differing:
                return _parted(seen, step, kind, differing)
    return None


def _differing(maps: list[Mapping[str, int]]) -> list[str]:
    return [name for name, digest in maps[0].items() if any(other.get(name) != digest for other in maps[1:])]


def _parted(seen: list[Rank], step: int, kind: str, names: list[str]) -> Finding:
    count, whole = len(names), len(seen[0].rows[step][kind])
    opened = "" if any(rank.began for rank in seen) else " The training opened no process group of its own."
    if kind == "gradients":
        headline = f"gradients are not shared: that of '{names[0]}' differs between ranks at step {step}"
        shows = f"With equal weights {count} of {whole} gradients differ: each rank steps with its own, or some are left out."
        mend = "wrap the model in DistributedDataParallel and call the wrapper, or all-reduce each gradient before the step"
    elif step == 0:
        headline = f"weights differ between ranks before the first step, first in '{names[0]}'"
        shows = f"{count} of {whole} parameters begin with other values: each rank drew its own."
        mend = (
            "let DistributedDataParallel send rank 0's weights to all, or seed all ranks alike before the model is made"
        )
    else:
        headline = f"weights part between ranks at step {step}, first in '{names[0]}'"
        shows = f"Weights and gradients were equal at step {step - 1}; of {count} in {whole} parameters it made something else."
        mend = (
            "compare the learning rates and optimizer states of the ranks; nothing may change weights on one rank only"
        )
    rates = [" ".join(f"{r:g}" for r in dict.fromkeys(rank.rows[max(0, step - 1)]["rates"])) for rank in seen]
    norms = [rank.rows[step]["norms"].get(names[0]) for rank in seen]
    rows: tuple[tuple[Plain, ...], ...] = tuple(
        (f"rank {i}", norms[i], rates[i], len(seen[i].rows)) for i in range(len(seen))
    )
    return Finding(
        ok=False,
        headline=headline,
        culprit=kind,
        step=step,
        table=Table(("rank", f"gradient of '{names[0]}'"[:48], "learning rate", "steps"), rows, 1),
        shows=shows + opened,
        next_step=mend,
    )


def _buffers(seen: list[Rank]) -> Finding | None:
    for step, rows in enumerate(zip(*(rank.rows for rank in seen), strict=True)):
        differing = _differing([row.get("buffers", {}) for row in rows])
        if differing:
            return Finding(
                ok=False,
                headline=f"buffers differ between ranks at step {step}, first in '{differing[0]}'",
                culprit="buffers",
                step=step,
                shows=f"{len(differing)} buffers have other values, so evaluation depends on the rank, and on which one saves.",
                next_step="use SyncBatchNorm, or let DistributedDataParallel broadcast buffers",
            )
    return None


def _samples(seen: list[Rank]) -> Finding | None:
    overlap = _overlap(seen)
    if overlap <= OVERLAP:
        return None
    mine, theirs = _first_pass(seen[0]), _first_pass(seen[1])
    same = seen[0].rows[0]["samples"] == seen[1].rows[0]["samples"]
    return Finding(
        ok=False,
        headline=f"samples are seen by several ranks: {overlap:.0%} of those of one are among those of another",
        culprit="samples",
        amount=overlap,
        shows="Already the first batch is the same on both ranks."
        if same
        else f"Rank 0 saw {len(mine)} samples before one came again, rank 1 {len(theirs)}: the data are not divided.",
        next_step="give the DataLoader a DistributedSampler, or take every rank-th sample: indices[rank::world_size]",
    )


def _overlap(seen: list[Rank]) -> float:
    """Return the highest share of a rank's samples that another rank has too, each up to its first repetition."""
    passes = [_first_pass(rank) for rank in seen]
    shares = [
        len(one & two) / min(len(one), len(two))
        for i, one in enumerate(passes)
        for two in passes[:i]
        if min(len(one), len(two)) >= FEWEST
    ]
    return max(shares, default=0.0)


def _first_pass(rank: Rank) -> set[int]:
    """Return the samples of the steps before the first in which one comes again: later epochs may divide them otherwise."""
    known: set[int] = set()
    for row in rank.rows:
        batch = [digest for part in row["samples"] for digest in part]
        if len(set(batch)) < len(batch) / 2:
            return set()  # rows alike, as of a small grid, are no samples to tell apart
        if known and known & set(batch):
            break
        known |= set(batch)
    return known


def _draws(seen: list[Rank]) -> Finding | None:
    """Return the finding of ranks that drew the same random numbers while their loaders made the batches."""
    if not all(rank.loaded for rank in seen) or len(seen[0].rows) < 4:
        return None
    for name in ("torch", "numpy", "python"):
        alike = [
            all(name in row.get("drawn", ()) for row in rows) and len({row["random"][name] for row in rows}) == 1
            for rows in zip(*(rank.rows for rank in seen), strict=True)
        ]
        if statistics.fmean(alike) > 0.5:
            return Finding(
                ok=False,
                headline=(
                    f"random state of {name} is the same on all ranks while batches are made, in {sum(alike)} of "
                    f"{len(alike)} steps"
                ),
                culprit="random state",
                amount=sum(alike),
                shows="What is drawn there (augmentation, crops, noise) is the same on each rank, step by step.",
                next_step="seed the model alike, then the data by rank: torch.manual_seed(seed + rank) after it is made",
            )
    return None
