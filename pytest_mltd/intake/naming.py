"""Which of a log's names is the training loss, which the validation loss, the learning rate, the gradient norm, the step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

# By preference: what counts optimizer steps, then batches, then epochs.
_STEPS: Final = (
    ("global", "step"),
    ("trainer", "global", "step"),
    ("step",),
    ("steps",),
    ("num", "updates"),
    ("update",),
    ("iteration",),
    ("iterations",),
    ("iter",),
    ("batch", "idx"),
    ("batch",),
    ("epoch",),
    ("epochs",),
)
_HELD_OUT: Final = ("val", "valid", "validation", "eval", "evaluation", "dev", "test", "holdout")
_LOSS: Final = ("loss", "nll")
# Words beside "loss" that leave it the loss which is minimised.
_SAME: Final = {
    *_LOSS,
    *(
        "train",
        "training",
        "tr",
        "total",
        "overall",
        "epoch",
        "epochs",
        "step",
        "steps",
        "iter",
        "batch",
        "avg",
        "average",
    ),
    *("mean", "running", "ema", "smoothed", "raw", "main", "model", "metrics", "metric", "scalars", "charts"),
}
# Words beside "loss" that make it something else.
_OTHER: Final = {
    *(
        "scale",
        "scaler",
        "weight",
        "weights",
        "coef",
        "coeff",
        "lambda",
        "best",
        "min",
        "max",
        "std",
        "var",
        "time",
        "spike",
    ),
    *("lr", "count", "ratio", "grad", "norm", "delta", "improvement", "per", "perplexity"),
}
# Words that make a rate a setting, or a part of one.
_SETTING: Final = {"scale", "factor", "multiplier", "min", "max", "config", "hparams", "params", "args"}
# Words that say that what the loss is measured against moves: two nets against each other, an agent that makes its own data.
_MOVING: Final = {
    *("reward", "rewards", "return", "returns", "episode", "rollout", "actor", "critic", "policy", "advantage"),
    *("discriminator", "disc", "generator", "gan", "adversarial"),
}


@dataclass(frozen=True, slots=True)
class Roles:
    """Names by what they are; empty where there is none. ``why`` says why there is no loss to judge."""

    loss: str = ""
    val: str = ""
    grad_norm: str = ""
    lr: tuple[str, ...] = ()
    why: str = ""
    others: tuple[str, ...] = field(default=())


def rank_of_step(name: str) -> int | None:
    """Return how well a name counts steps, the best 0, or None where it does not."""
    words = tuple(_words(name))
    return _STEPS.index(words) if words in _STEPS else None


def is_loss(name: str) -> bool:
    """Whether a name is a training or validation loss beyond doubt: ``loss``, ``train/loss``, ``val_loss``, ``Loss/train``."""
    words = set(_words(name))
    return bool(words & set(_LOSS)) and words <= _SAME | set(_HELD_OUT)


def roles(sizes: Mapping[str, int], broken: Iterable[str] = ()) -> Roles:
    """Say what each name of a log is.

    Args:
        sizes: how many numbers each name has.
        broken: the names whose numbers stop being finite, the first to do so first; of several losses, it is the one taken.
    """
    words = {name: set(_words(name)) for name in sizes if rank_of_step(name) is None}
    losses = [n for n, w in words.items() if w & set(_LOSS) and not w & _OTHER]
    trained = [n for n in losses if not words[n] & set(_HELD_OUT)]
    held_out = [n for n in losses if words[n] & set(_HELD_OUT)]
    loss = _the_one(trained, words, sizes) or _only_other(trained, sizes)
    why = _why_none(trained, words) if trained else "no training loss is among its names"
    if _moving(words) or not loss:
        loss = next((n for n in broken if n in trained), "")
    return Roles(
        loss=loss,
        val=_validation(held_out, words, sizes),
        grad_norm=_the_one([n for n, w in words.items() if _is_grad_norm(w)], {}, sizes),
        lr=tuple(n for n, w in words.items() if _is_rate(w)),
        why="" if loss else why,
        others=tuple(n for n in trained if n != loss),
    )


def _the_one(names: Iterable[str], words: Mapping[str, set[str]], sizes: Mapping[str, int]) -> str:
    """Return the name that says no more than "loss", the most often written; or nothing."""
    plain = [n for n in names if not words or words[n] <= _SAME]
    return max(plain, key=lambda n: sizes[n], default="")


def _only_other(names: list[str], sizes: Mapping[str, int]) -> str:
    """Return the only loss there is, whatever else its name says."""
    return names[0] if len(names) == 1 and sizes[names[0]] > 1 else ""


def _validation(names: list[str], words: Mapping[str, set[str]], sizes: Mapping[str, int]) -> str:
    """Return the validation loss: not a test's where there is another, by epoch rather than by step."""
    plain = [n for n in names if words[n] <= _SAME | set(_HELD_OUT)] or (names if len(names) == 1 else [])
    return min(plain, key=lambda n: ("test" in words[n], "step" in words[n], -sizes[n]), default="")


def _is_grad_norm(words: set[str]) -> bool:
    rest = words - {
        "grad",
        "gradient",
        "gradients",
        "norm",
        "total",
        "global",
        "train",
        "training",
        "l2",
        "2",
        "0",
        "step",
    }
    return bool(words & {"grad", "gradient", "gradients"}) and "norm" in words and not rest


def _is_rate(words: set[str]) -> bool:
    return ("lr" in words or {"learning", "rate"} <= words) and not words & _SETTING


def _moving(words: Mapping[str, set[str]]) -> bool:
    sides = {side for w in words.values() if w & set(_LOSS) for side in ("d", "g") if side in w}
    return len(sides) == 2 or any(w & _MOVING for w in words.values())


def _why_none(names: list[str], words: Mapping[str, set[str]]) -> str:
    shown = ", ".join(repr(n) for n in names[:4]) + (", …" if len(names) > 4 else "")
    if _moving(words):
        return f"what {shown} is measured against moves (reinforcement learning, or nets against each other)"
    return f"which of {shown} is minimised is not known"


def _words(name: str) -> list[str]:
    """Return the words of a name, in small letters: ``trainLoss``, ``Loss/train``, ``train_loss`` alike."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name[:200].replace("gradnorm", "grad norm"))
    return [word for word in re.split(r"[^a-z0-9]+", parted.lower()) if word]
