"""Does a DataLoader give the same samples with workers as without? And do its workers draw random numbers of their own?"""

from __future__ import annotations

import contextlib
import copy
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.probes.attempts import Attempt, Attempts, attempts, raise_if_broken, refuse_small

Batch = dict[str, list[int]]  # field of the batch: a digest for each sample in it


@check("training", family="training")
def check_workers_agree(
    loader: Any,
    *,
    workers: int = 2,
    batches: int = 50,
    seed: int = 0,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a DataLoader gives the same samples in the same order with workers as without.

    It is iterated in children of this process, with no worker and with ``workers``, from one seed. Fields of a batch that
    differ each time they are made (augmentation) are found out and not compared; of them it is asked instead whether each
    worker draws its own: a generator made in the dataset's ``__init__`` is copied into every worker, and all then draw alike.

    Args:
        loader: a DataLoader, or a function without arguments that makes one; its own number of workers does not matter.
        workers: how many make the batches of the second run; a guess, two show what more would.
        batches: how many batches are compared at most; a guess.
        seed: set before each iteration; by convention 0.
        allow: reasons by place: "samples", "order", "random numbers", or a field.

    Raises:
        TypeError: it is no DataLoader and makes none.
        ValueError: the loader raised without workers, or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> check_workers_agree(DataLoader(range(8), batch_size=4)).ok
        True
    """
    __tracebackhide__ = True
    refuse_small(workers=workers, batches=batches)
    need("torch", "check_workers_agree")
    _refuse_other(loader)
    with attempts(seed=seed, steps=None) as tries:
        alone = _iterated(tries, loader, 0, batches)
        raise_if_broken(alone, "loader")
        split = _iterated(tries, loader, workers, batches)
        if split.raised:
            return _raised(split, workers)
        looks = _Looks(
            alone.noted["batches"], split.noted["batches"], workers, alone.noted["more"] or split.noted["more"]
        )
        restless: list[str] = []
        turns: list[Batch] = []
        if looks.alone != looks.split:
            restless = _restless(tries, loader)
            turns = _one_sample_by_each(tries, loader, workers) if restless else []
    return _judge(looks, restless, turns, allow)


assert_workers_agree = asserting(check_workers_agree, name="assert_workers_agree")


@dataclass(frozen=True, slots=True)
class _Looks:
    """The batches without and with workers; ``more`` is whether there were more than were looked at."""

    alone: list[Batch]
    split: list[Batch]
    workers: int
    more: bool


def _refuse_other(loader: Any) -> None:
    from torch.utils.data import DataLoader

    if not isinstance(loader, DataLoader) and (not callable(loader) or isinstance(loader, type)):
        raise TypeError(f"loader: a DataLoader or a function that makes one is needed, not {type(loader).__name__}")


def _iterated(tries: Attempts, loader: Any, workers: int, batches: int) -> Attempt:
    def iterate() -> dict[str, Any]:
        seen: list[Batch] = []
        for batch in _with_workers(_made(loader), workers):
            if len(seen) == batches:
                return {"batches": seen, "more": True}
            seen.append(_fields(batch))
        return {"batches": seen, "more": False}

    return _told(tries, iterate)


def _restless(tries: Attempts, loader: Any) -> list[str]:
    """Return the fields that are not the same when a sample is made twice."""

    def make_twice() -> list[str]:
        made = _made(loader)
        if _is_stream(made):
            passes = [[_fields(batch) for batch in itertools.islice(_with_workers(made, 0), 4)] for _ in range(2)]
        else:
            positions = _first_positions(made)
            passes = [[_fields(_collated(made, made.dataset[i])) for i in positions] for _ in range(2)]
        return sorted({name for one, two in zip(*passes, strict=False) for name in one if one[name] != two.get(name)})

    return _told(tries, make_twice).noted or []


def _one_sample_by_each(tries: Attempts, loader: Any, workers: int) -> list[Batch]:
    """Return the same sample as each worker makes it at its first turn and at its second; nothing for a stream."""

    def iterate() -> list[Batch]:
        made = _made(loader)
        if _is_stream(made):
            return []
        position = _first_positions(made)[0]
        if made.batch_sampler is None:
            made.__dict__.update(sampler=[position] * (2 * workers))
        else:
            made.__dict__.update(batch_sampler=[[position]] * (2 * workers))
        return [_fields(batch) for batch in _with_workers(made, workers)]

    return _told(tries, iterate).noted or []


def _first_positions(loader: Any) -> list[Any]:
    """Return up to four positions that the loader asks of its dataset."""
    batches = loader.batch_sampler
    return list(itertools.islice(loader.sampler if batches is None else next(iter(batches)), 4))


def _told(tries: Attempts, work: Callable[[], Any]) -> Attempt:
    result: list[Any] = []

    @contextlib.contextmanager
    def around() -> Iterator[Callable[[], Any]]:
        with warnings.catch_warnings():  # of more workers than this machine has processors; nothing is timed here
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            yield lambda: result[0] if result else None

    return tries.run(lambda: result.append(work()), around=around)


def _made(loader: Any) -> Any:
    from torch.utils.data import DataLoader

    # A copy, for where no child can be forked and this process does the work.
    made = copy.copy(loader) if isinstance(loader, DataLoader) else loader()
    if not isinstance(made, DataLoader):
        raise TypeError(f"a DataLoader is needed, and it made a {type(made).__name__}")
    return made


def _with_workers(loader: Any, workers: int) -> Any:
    """Set how many workers a loader of ours has, and what goes with that."""
    loader.__dict__.update(
        num_workers=workers,
        prefetch_factor=(loader.prefetch_factor or 2) if workers else None,
        persistent_workers=False,
        timeout=loader.timeout if workers else 0,
        _iterator=None,
    )
    return loader


def _is_stream(loader: Any) -> bool:
    from torch.utils.data import IterableDataset

    return isinstance(loader.dataset, IterableDataset)


def _collated(loader: Any, sample: Any) -> Any:
    return loader.collate_fn(sample if loader.batch_sampler is None else [sample])


def _fields(batch: Any, name: str = "") -> Batch:
    """Return a digest for each sample of each field; one for the whole of what has no samples."""
    from pytest_mltd.recording import digests

    if isinstance(batch, Mapping):
        parts = [_fields(value, f"{name}['{key}']") for key, value in batch.items()]
    elif hasattr(batch, "_asdict"):
        parts = [_fields(value, f"{name}.{key}") for key, value in batch._asdict().items()]
    elif isinstance(batch, (list, tuple)) and any(not isinstance(v, (str, bytes, int, float)) for v in batch):
        parts = [_fields(value, f"{name}[{i}]") for i, value in enumerate(batch)]
    elif isinstance(batch, (list, tuple)):
        return {name or "batch": [digests.of_bytes(repr(value).encode()) for value in batch]}
    elif hasattr(batch, "shape") and len(batch.shape) > 0:
        return {name or "batch": [_digest(row) for row in batch]}
    else:
        return {name or "batch": [_digest(batch)]}
    return {key: value for part in parts for key, value in part.items()}


def _digest(value: Any) -> int:
    from pytest_mltd.recording import digests

    if hasattr(value, "untyped_storage"):
        return digests.of_tensor(value)
    return digests.of_bytes(value.tobytes() if hasattr(value, "tobytes") else repr(value).encode())


def _raised(split: Attempt, workers: int) -> Finding:
    error = split.raised.partition(":")[0].rpartition(".")[2] or "an error"
    return Finding(
        ok=False,
        headline=f"with {_many(workers)} the loader raised {error}, and without workers it does not",
        culprit=error,
        shows=split.raised,
        next_step="open files and connections in the worker, at the first __getitem__, and not in __init__",
    )


def _judge(looks: _Looks, restless: list[str], turns: list[Batch], allow: Mapping[str, str] | None) -> Finding:
    if not looks.alone:
        return not_asked("the loader gave no batch")
    found = [f for f in (_samples(looks, restless), _draws(looks, restless, turns)) if f is not None]
    kept, allowed = sift(allow, [f.culprit for f in found])
    for finding in found:
        if finding.culprit in kept:
            return finding
    drawn = f"; {', '.join(restless)} made anew each time, and by each worker otherwise" if restless else ""
    count = sum(map(_size, looks.alone))
    return Finding(
        ok=True,
        headline=f"the batches with {_many(looks.workers)} are those without"
        + (f", but for {', '.join(place for place, _ in allowed)}" if allowed else ""),
        looked_at=f"{len(looks.alone)} batches, {count} samples{drawn}",
        allowed=allowed,
    )


def _size(batch: Batch) -> int:
    return max(map(len, batch.values()), default=0)


def _samples(looks: _Looks, restless: list[str]) -> Finding | None:
    """Return how the samples differ: in number, in how often each comes, in their order, or in what they are."""
    fields = [name for name in looks.alone[0] if name not in restless]
    alone, split = (_rows(batches, fields) for batches in (looks.alone, looks.split))
    if alone == split:
        return None
    count, other = Counter(alone), Counter(split)
    again = sum(n - count[row] for row, n in other.items() if n > max(1, count[row]))
    if fields and again > len(split) / 4:
        return _finding(
            looks,
            "samples",
            f"samples come again with {_many(looks.workers)}: {again:,} of {len(split):,} that come once without",
            "Each worker reads the whole stream by itself.",
            "let each worker take its share in __iter__: itertools.islice(data, info.id, None, info.num_workers)",
        )
    if len(alone) != len(split):
        return _finding(
            looks,
            "samples",
            f"samples differ in number: {len(split):,} with {_many(looks.workers)}, {len(alone):,} without",
            "Some are lost or come twice where the workers divide them.",
            "look at how __iter__ divides its samples by worker: the last share, and drop_last within each",
        )
    if count == other:
        at = next(i for i, (a, b) in enumerate(zip(looks.alone, looks.split, strict=False)) if a != b)
        return _finding(
            looks,
            "order",
            f"order of samples differs from batch {at} on: with {_many(looks.workers)} they come otherwise than without",
            "They are the same samples.",
            "seed what shuffles by epoch, outside of the workers; a stream comes in the order of its workers",
        )
    return _values(looks, fields)


def _rows(batches: list[Batch], fields: list[str]) -> list[tuple[int, ...]]:
    """Return each sample as the digests of its fields; all fields of a sample have to agree, and not only each by itself."""
    if not fields:
        return [(0,)] * sum(map(_size, batches))
    whole = [name for name in fields if all(len(batch.get(name, ())) == _size(batch) for batch in batches)]
    return [row for batch in batches for row in zip(*(batch[name] for name in whole or fields), strict=False)]


def _values(looks: _Looks, fields: list[str]) -> Finding:
    pairs = enumerate(zip(looks.alone, looks.split, strict=False))
    at, name = next((i, n) for i, (a, b) in pairs for n in fields if a.get(n) != b.get(n))
    return _finding(
        looks,
        name,
        f"{name} of batch {at} differs: with {_many(looks.workers)} it holds other values than without",
        "A sample made twice in one process is the same, so something that the processes do not share decides what it is.",
        "look for a counter, a cache, or a file that all workers read through one handle opened in __init__",
    )


def _draws(looks: _Looks, restless: list[str], turns: list[Batch]) -> Finding | None:
    """Return the finding of workers that make the same random numbers: one sample, made by each, is always the same."""
    if not restless or len(turns) < 2 * looks.workers or looks.workers < 2:
        return None
    first, second = turns[: looks.workers], turns[looks.workers :]
    alike = [n for n in restless if all(len({tuple(b.get(n, ())) for b in turn}) == 1 for turn in (first, second))]
    if not alike:
        return None
    return _finding(
        looks,
        "random numbers",
        f"random numbers are the same in all {looks.workers} workers: {alike[0]} of one sample is made alike by each",
        "Every batch in a row of as many as there are workers is augmented alike.",
        "draw from torch's generator, which each worker seeds itself, or make one's own in worker_init_fn",
    )


def _many(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def _finding(looks: _Looks, culprit: str, headline: str, shows: str, next_step: str) -> Finding:
    rows = []
    for words, batches in (("none", looks.alone), (str(looks.workers), looks.split)):
        samples = _rows(batches, list(looks.alone[0]))
        rows.append((words, len(batches), len(samples), len(set(samples))))
    return Finding(
        ok=False,
        headline=headline,
        culprit=culprit,
        table=Table(("workers", "batches", "samples", "different ones"), tuple(rows), 1),
        shows=shows,
        next_step=next_step,
    )
