"""The three named levels of a recording: what is taken, and at which cadence."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What a recording takes. A step is *sampled* when it is one of an optimizer's first ``early`` or each ``every``-th after.

    At every level, at each step: loss, learning rate, each parameter's gradient norm as backward left it and as the step used
    it, stale gradients, non-finite counts; and each call of backward, step, zero_grad, clipping, unscaling, scheduler, train,
    eval, save, load and of a seed, and validation losses. The fields say what comes on top.

    ``forwards``: module hooks; each forward of a root module, its mode, and the digest of its batch.
    ``samples``: at sampled steps, module outputs and update against weight.
    ``digests``: at sampled steps, of weights, gradients, random states, inputs, optimizer state.
    ``output_digests``: with the digests, those of module outputs.
    The cadence (5, then each 10th) keeps `default` under 1.3 times the smallest loop of ``benchmarks/recorder.py``.
    """

    name: str
    forwards: bool = True
    samples: bool = True
    digests: bool = True
    output_digests: bool = False
    early: int = 5
    every: int = 10

    def due(self, count: int) -> bool:
        """Tell whether an optimizer's step number ``count`` (from 0) is sampled."""
        return count < self.early or count % self.every == 0


LOSSES: Final = Level(name="losses", forwards=False, samples=False, digests=False)
DEFAULT: Final = Level(name="default")
EVERYTHING: Final = Level(name="everything", output_digests=True, every=1)

LEVELS: Final = MappingProxyType({level.name: level for level in (LOSSES, DEFAULT, EVERYTHING)})


def level_named(name: str) -> Level:
    """Return the level of this name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if isinstance(name, str) and name in LEVELS:
        return LEVELS[name]
    near = difflib.get_close_matches(str(name), LEVELS, n=1)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    raise ValueError(f"level: {name!r} is none of {', '.join(LEVELS)}{hint}")
