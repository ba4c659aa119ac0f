"""What is asked of the model that a live recording still holds, with the batch it kept. Nobody has to call it.

A question is asked only where the recording shows that it applies; then a copy of the model is run, in a second at most.
Imported once torch is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from pytest_mltd.checks.runs.losses import check_plateau
from pytest_mltd.core.asking import check, info
from pytest_mltd.core.findings import Finding, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace
from pytest_mltd.probes import axes, copies, model, sequences, targets, wiring
from pytest_mltd.probes.copies import CannotAsk, Copy

_MOST_BYTES: Final = 1 << 29  # of what a model holds and would be copied; 900 MB took three seconds, measured
_MOST_SECONDS: Final = 1.0  # for all questions together
_SURE: Final = 0.01  # of the spread: what a model may mix on purpose (capacity, quantisation) stays below; a guess
_SAMPLED: Final = 3  # times that one batch is answered at one step by a program that samples on purpose; a guess


@dataclass(slots=True)
class Subject:
    """What a recording has kept: its trace, a model, the first batch it was given and the targets of the first loss."""

    trace: Trace
    model: nn.Module
    arguments: copies.Arguments
    loss: str = ""
    targets: Tensor | None = None
    copy: Copy | None = None
    seconds: float = 0.0  # that a forward took in the run
    refusal: str = ""

    @property
    def forwards(self) -> int:
        """How often the copy was run."""
        return self.copy.forwards if self.copy is not None else 0

    def ready(self) -> Copy:
        """Return the copy, made when it is first needed.

        Raises:
            CannotAsk: it is too large, too slow or cannot be copied.
        """
        if self.refusal:
            raise CannotAsk(self.refusal)
        if self.copy is None:
            try:
                self.copy = self._made()
            except CannotAsk as error:
                self.refusal = str(error)
                raise
        return self.copy

    def _made(self) -> Copy:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise CannotAsk("other ranks would have to run it too")
        size = copies.size(self.model)
        if size > _MOST_BYTES:
            raise CannotAsk(f"the model holds {size >> 20:,} MB, too many for a copy")
        if self.seconds > _MOST_SECONDS:
            raise CannotAsk(f"a forward took {number(self.seconds, 2)} s in the run, and there is a second for all")
        return Copy(self.model, self.arguments, until=time.perf_counter() + _MOST_SECONDS)


def subject_of(recording: Any, trace: Trace) -> Subject | None:
    """Return what a recording has kept, None where it kept no model or no batch."""
    held, batch = getattr(recording, "batch_model", None), getattr(recording, "batch", None)
    if held is None or batch is None:
        return None
    loss, first = recording.targets or ("", None)
    return Subject(trace, copies.unwrapped(held), batch, loss, first, seconds=recording.forward_seconds)


def ask(
    subject: Subject, findings: Iterable[Finding], allow: Mapping[str, str] | None, chosen: Container[str]
) -> list[Finding]:
    """Ask what applies of the chosen ids; ``findings`` are those of the recorded numbers, of which some are the sequel."""
    failed = {f.id for f in findings if f.failed}
    questions: tuple[tuple[Callable[..., Finding], Callable[..., Finding]], ...] = (
        (targets.check_targets_equal_inputs, _targets_equal_inputs),
        (model.check_causal_leak, _causal_leak),
        (model.check_batch_mixing, _batch_mixing),
        (model.check_eval_noise, _eval_noise),
        (targets.check_unlearnable_labels, functools.partial(_unlearnable_labels, failed=failed)),
    )
    return [_asked(of, question, subject, allow) for of, question in questions if info(of).id in chosen]


def _asked(
    of: Callable[..., Finding],
    question: Callable[..., Finding],
    subject: Subject,
    allow: Mapping[str, str] | None,
) -> Finding:
    """Ask a question in the name of a check, with its limits, what the project allows and its place among causes."""

    def probe(subject: Subject, **limits: Any) -> Finding:
        try:
            found = question(subject, **limits)
        except CannotAsk as error:
            found = not_asked(str(error))
        except Exception as error:  # a model that no one foresaw; the rest of the diagnosis stands
            found = not_asked(f"the probe itself failed: {type(error).__name__}: {error}")
        return found if found.asked else not_asked(ELSE, looked_at=found.headline)

    known = info(of)
    probe.__name__ = of.__name__
    probe.__signature__ = inspect.signature(of)  # type: ignore[attr-defined]
    return check(known.subject, explains=known.explains, rank=known.rank, family="model")(probe)(subject, allow=allow)


def _causal_leak(subject: Subject, *, max_move: float = 1e-3, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask where the targets of a loss without other terms are the next inputs, unless one part of the model encodes them."""
    if subject.targets is None or subject.loss.endswith("+"):
        return not_asked("the loss was not one comparison with targets")
    sequence = sequences.sequence_in(subject.arguments, subject.targets)
    if sequence is None:
        return not_asked("the targets are not the inputs' next elements")
    if _encodes_first(subject.model):
        return not_asked("an encoder may see the whole of what is decoded")
    found = wiring.leak(subject.ready(), sequence, max_move, allow)
    if isinstance(dict(subject.model.named_modules()).get(found.culprit), _NORMS):
        return not_asked("a norm over all moments tells a little of later ones, as it does in many honest nets")
    return found


def _batch_mixing(
    subject: Subject, *, axis: int = 0, max_move: float = _SURE, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask where each sample is a sequence with one target, and batches vary.

    It counts only where something takes the axis of the samples for another (`axes.misread`). What else mixes may do so on
    purpose: graphs, sets, clips, a discriminator that looks for variety.
    """
    tensors = copies.named_tensors(subject.arguments)
    if len(tensors) != 1 or subject.targets is None:
        return not_asked("the model is not given one tensor, for which there are targets")
    (value,) = tensors.values()
    rows = value.shape[0] if value.dim() > 1 else 0
    single = subject.targets.dim() == 1 or tuple(subject.targets.shape[1:]) == (1,)
    ambiguous = value.dim() in (2, 3) and value.shape[1] in (1, rows)  # of an image it counts the channels
    if rows < 3 or not single or subject.targets.shape[0] != rows or ambiguous:
        return not_asked("there is not one target for each of some sequences")
    if len(_batches(subject.trace)) < 3:
        return not_asked("the same batch was given each time")
    found = wiring.mixing(subject.ready(), axis, max(max_move, _SURE), allow)
    if found.ok:
        return found
    said = axes.misread(subject.ready(), value)
    if not said:
        return not_asked("samples are mixed, and nothing tells that they should not be")
    return dataclasses.replace(found, shows=said)


def _eval_noise(subject: Subject, *, max_move: float = 1e-4, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask where the program evaluates in eval mode, once each batch, and a dropout was never told whether it is training."""
    trace = subject.trace
    if not bool((trace.calls["value"][trace.of("forward")] == 0).any()):
        return not_asked("the program was not seen in eval mode")
    if _samples_on_purpose(trace):
        return not_asked("the program answers one batch several times, as one that samples does")
    copy = subject.ready()
    with _listening_to_dropout() as untold:
        copy.answers(copy.arguments)
    if not untold:
        return Finding(ok=True, headline="no dropout stays on in eval mode", looked_at="one forward in eval mode")
    return wiring.noise(copy, max_move, allow)


def _targets_equal_inputs(subject: Subject, *, allow: Mapping[str, str] | None = None, **limits: Any) -> Finding:
    """Ask it of labels, and of numbers beside a table of measures and categories.

    In many an exercise a number is to be learned that is a multiple of one of its features, which were all drawn alike.
    """
    tensors = copies.named_tensors(subject.arguments)
    if len(tensors) != 1 or subject.targets is None:
        return not_asked("the model is not given one table of features, for which there are targets")
    (value,) = tensors.values()
    if value.dim() != 2 or not value.is_floating_point():
        return not_asked("the inputs are no table of features")
    numbers = subject.targets.is_floating_point() and bool(((subject.targets != 0) & (subject.targets != 1)).any())
    if numbers and not _of_many_kinds(value):
        return not_asked("the targets are numbers, not labels, and the features are all of one kind")
    if subject.targets.dim() != 1 and tuple(subject.targets.shape[1:]) != (1,):
        return not_asked("there is not one target for each sample")
    return _undecorated(targets.check_targets_equal_inputs)(value, subject.targets, allow=allow, **limits)


def _unlearnable_labels(
    subject: Subject, *, allow: Mapping[str, str] | None = None, failed: Collection[str] = (), **limits: Any
) -> Finding:
    """Ask it of a training that does not learn, and of which nothing else is known to be wrong."""
    if any(not name.startswith("losses.") or name.startswith("losses.rate") for name in failed):
        return not_asked("another cause was found")
    if info(check_plateau).id not in failed:
        return not_asked("the training learns; this is asked of one that does not")
    tensors = copies.named_tensors(subject.arguments)
    if len(tensors) != 1 or subject.targets is None or subject.targets.is_floating_point():
        return not_asked("the model is not given one tensor, for which there are labels")
    (value,) = tensors.values()
    if not value.is_floating_point() or value.dim() < 2:
        return not_asked("the inputs are no numbers")
    return _undecorated(targets.check_unlearnable_labels)(value, subject.targets, allow=allow, **limits)


def _of_many_kinds(table: Tensor) -> bool:
    """Whether it has measures, hardly two alike, and a category, as what was gathered has and what was drawn has not."""
    rows = table.shape[0]
    values = [_distinct(column) for column in table.detach().cpu().unbind(1)[:_COLUMNS]]
    return sum(n > rows // 2 for n in values) > _MEASURES and any(1 < n <= rows // 8 for n in values)


def _distinct(values: Tensor) -> int:
    found: Tensor = torch.unique(values)
    return found.numel()


def _undecorated(of: Callable[..., Finding]) -> Callable[..., Finding]:
    inner: Callable[..., Finding] = of.__wrapped__  # type: ignore[attr-defined]
    return inner


def _encodes_first(module: nn.Module) -> bool:
    """Whether it has an encoder and a decoder by name, each of which looks along the sequence, or squeezes it to a latent."""
    names = {name.rpartition(".")[2].lower(): part for name, part in module.named_modules() if name}
    encoders = [p for n, p in names.items() if "enc" in n and "pos" not in n and _looks_along(p)]
    decoders = [p for n, p in names.items() if "dec" in n and _looks_along(p)]
    return bool(encoders and decoders) or any(word in n for n in names for word in _LATENT)


def _looks_along(part: nn.Module) -> bool:
    own = [m for m in part.modules() if next(m.parameters(recurse=False), None) is not None]
    return any(
        isinstance(m, nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention | nn.Conv1d) for m in (*own, part)
    ) or not type(part).__module__.startswith("torch.nn.")


def _batches(trace: Trace) -> set[int]:
    calls = trace.calls
    return {int(d) for d in calls["digest"][trace.of("batch") & (calls["grad"] == 1)] if d}


def _samples_on_purpose(trace: Trace) -> bool:
    """Whether some batch was answered again and again at one step, without gradient."""
    calls = trace.calls
    rows = trace.of("batch") & (calls["grad"] == 0) & (calls["digest"] != 0)
    seen = Counter(zip(calls["step"][rows].tolist(), calls["digest"][rows].tolist(), strict=True))
    return max(seen.values(), default=0) >= _SAMPLED


@contextlib.contextmanager
def _listening_to_dropout() -> Iterator[list[str]]:
    """Tell of dropouts that drop although nobody told them to: ``F.dropout(x)``, attention with ``dropout_p=0.1``."""
    functional: Any = nn.functional
    untold: list[str] = []
    before = {name: getattr(functional, name) for name in (*_DROPOUTS, "scaled_dot_product_attention")}

    def listening(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def heard(*args: Any, **kwargs: Any) -> Any:
            by_default = name in _DROPOUTS and len(args) < 3 and "training" not in kwargs
            share = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
            if by_default or (name not in _DROPOUTS and share):
                untold.append(name)
            return function(*args, **kwargs)

        return heard

    try:
        for name, function in before.items():
            setattr(functional, name, listening(name, function))
        yield untold
    finally:
        for name, function in before.items():
            setattr(functional, name, function)


_DROPOUTS: Final = ("dropout", "dropout1d", "dropout2d", "dropout3d")  # those whose third argument is on by default
_NORMS: Final = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._NormBase)
_MEASURES: Final = 3  # beside the one that may be the target; a guess
_COLUMNS: Final = 256  # of a table that are looked at
_LATENT: Final = ("latent", "bottleneck", "logvar", "log_var", "codebook")
ELSE: Final = (
    "not for this run, as far as it shows: mltd.assert_model_sound(model, inputs, loss=…, targets=…) asks them"
)
