"""Do the inputs of a batch tell its targets: too well, because they hold them, or not at all?

::

    mltd.assert_no_targets_equal_inputs(x, y)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number


@check("model", explains=("losses.*", "metrics.*"), rank=8, family="model")
def check_targets_equal_inputs(
    inputs: Any,
    targets: Any,
    *,
    max_unexplained: float = 1e-5,
    min_rows: int = 16,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a column of the features is the target itself, up to scale and offset.

    Targets that follow from most columns alike (a straight line in time) are no leak, they are easy.

    Args:
        inputs: a table of features as an array or tensor, samples × columns, three columns or more.
        targets: one label or number for each sample.
        max_unexplained: the highest share of the targets' spread that a column may leave unexplained; a guess: the rounding of
            half a dozen steps in single precision.
        min_rows: so many samples at least; a guess.
        allow: reasons by column: "column 3".

    Raises:
        TypeError: ``inputs`` or ``targets`` is no array of numbers.
        MissingExtra: torch is not installed.

    Example:
        >>> import torch
        >>> x = torch.randn(32, 4)
        >>> check_targets_equal_inputs(x, x @ torch.tensor([1.0, 2.0, 0.5, 0.1])).ok
        True
    """
    __tracebackhide__ = True
    need("torch", "check_targets_equal_inputs")
    x, y = _table("inputs", inputs), _table("targets", targets)
    rows, columns = x.shape
    if columns < 3 or rows < min_rows or y.shape != (rows, 1):
        return not_asked(
            f"{rows} samples of {columns} columns with targets of shape {tuple(y.shape)}; it needs {min_rows} of 3 and one each"
        )
    if not bool(y.isfinite().all()) or float(y.std(correction=0)) == 0:
        return not_asked("the targets are all the same, or not finite")
    unexplained = _unexplained(x, y)
    found = [i for i, share in enumerate(unexplained) if share <= max_unexplained]
    if len(found) > columns // 2:
        return not_asked("most columns follow the targets on a straight line")
    kept, allowed = sift(allow, [f"column {i}" for i in found])
    looked_at = f"{rows} samples of {columns} columns"
    if not kept:
        least = min(unexplained)
        return Finding(
            ok=True,
            headline=f"no column is the target (max_unexplained={max_unexplained:g})",
            amount=least,
            limit=("max_unexplained", max_unexplained),
            looked_at=f"{looked_at}; the nearest leaves {number(least, 2)} unexplained",
            allowed=allowed,
        )
    order = sorted(range(columns), key=lambda i: unexplained[i])[:5]
    table = tuple((f"column {i}", unexplained[i]) for i in order)
    return Finding(
        ok=False,
        headline=(
            f"{kept[0]} of the inputs is the target itself, up to scale and offset, in all {rows} samples "
            f"(max_unexplained={max_unexplained:g})"
        ),
        culprit=kept[0],
        amount=unexplained[found[0]],
        limit=("max_unexplained", max_unexplained),
        table=Table(("input", "share of the targets' spread left"), table, 0),
        shows="The model is given what it is to predict.",
        next_step="take the column out of the features before they become inputs",
        allowed=allowed,
    )


@check("model", explains=("losses.plateau",), rank=34, family="model")
def check_unlearnable_labels(
    inputs: Any,
    targets: Any,
    *,
    min_gain: float = 2.0,
    min_rows: int = 32,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether samples that look alike have the same label more often than any two have.

    Inputs and labels that were shuffled apart do not. Neither do some honest data (parity, images of many kinds), so this is
    worth asking only of a training that does not learn.

    Args:
        inputs: arrays or tensors of numbers, the first axis counts the samples.
        targets: one class for each sample.
        min_gain: by how many standard errors the nearest neighbour must agree more often than any other sample; by convention
            2, one chance in forty.
        min_rows: so many samples at least; a guess.
        allow: a reason by place: "labels".

    Raises:
        TypeError: ``inputs`` or ``targets`` is no array of numbers.
        MissingExtra: torch is not installed.

    Example:
        >>> import torch
        >>> x = torch.randn(64, 4)
        >>> check_unlearnable_labels(x, (x[:, 0] > 0).long()).ok
        True
    """
    __tracebackhide__ = True
    need("torch", "check_unlearnable_labels")
    import torch

    x, y = _table("inputs", inputs), _table("targets", targets)
    rows = x.shape[0]
    if y.shape != (rows, 1) or rows < min_rows:
        return not_asked(
            f"{rows} samples with targets of shape {tuple(y.shape)}; it needs {min_rows} with one class each"
        )
    labels = y[:, 0]
    counts = labels.unique(return_counts=True)[1].double()
    if counts.numel() < 2 or counts.numel() > rows // 3:
        return not_asked(f"{counts.numel()} classes among {rows} samples")
    chance = float((counts * (counts - 1)).sum() / (rows * (rows - 1)))
    scaled = (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-12)
    distance = torch.cdist(scaled, scaled)
    distance.fill_diagonal_(math.inf)
    agreed = float((labels[distance.argmin(1)] == labels).double().mean())
    error = math.sqrt(chance * (1 - chance) / rows)
    gain = (agreed - chance) / error
    looked_at = f"{rows} samples of {counts.numel()} classes"
    said = f"the nearest other sample has the same label in {agreed:.0%} of {rows}, any other in {chance:.0%}"
    if gain >= min_gain:
        return Finding(
            ok=True,
            headline=f"{said} (min_gain={min_gain:g})",
            amount=gain,
            limit=("min_gain", min_gain),
            looked_at=looked_at,
        )
    kept, allowed = sift(allow, ["labels"])
    return Finding(
        ok=not kept,
        headline=f"nothing in the inputs seems to tell the labels: {said} (min_gain={min_gain:g})",
        culprit="labels",
        amount=gain,
        limit=("min_gain", min_gain),
        table=Table(("pairs of samples", "same label"), (("nearest", agreed), ("any two", chance)), 0),
        shows="Samples that look alike have labels as different as any two: inputs and labels may have been shuffled apart.",
        next_step="print some inputs beside their labels; look for one permutation that was given to only one of them",
        evidence="inference",
        allowed=allowed,
    )


assert_no_targets_equal_inputs = asserting(check_targets_equal_inputs)
assert_no_unlearnable_labels = asserting(check_unlearnable_labels)


def _table(argument: str, values: Any) -> Any:
    """Return values as a table of doubles, one row a sample.

    Raises:
        TypeError: they are no numbers.
    """
    import torch

    try:
        tensor = torch.as_tensor(values).detach().cpu().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{argument}: an array of numbers is needed, not {type(values).__name__} ({error})") from None
    if tensor.dim() == 0:
        raise TypeError(f"{argument}: one row for each sample is needed, not a single number")
    return tensor.reshape(tensor.shape[0], -1)


def _unexplained(x: Any, y: Any) -> list[float]:
    """Return, for each column, which share of the targets' spread a straight line on it leaves."""
    xc, yc = x - x.mean(0), y - y.mean(0)
    squares = (xc * xc).sum(0)
    slope = (xc * yc).sum(0) / squares.clamp(min=1e-300)
    left = ((yc - xc * slope) ** 2).sum(0).sqrt() / (yc * yc).sum().sqrt()
    return [float(share) if math.isfinite(share) else 1.0 for share in left.tolist()]
