"""One recording as a listener: each event that the hooks tell becomes rows of the trace.

Nothing here may break the program that is watched: an error in one of the parts becomes a note, and that part is off from
then on.
"""

from __future__ import annotations

import functools
import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from pytest_mltd.core.traces import CALLS, NO_DIGEST, NO_GRAD, Fact, SeedCall
from pytest_mltd.recording import digests, forwards, graph, hooks, lanes, naming, sites
from pytest_mltd.recording.gradients import Backward, Gradients, Plan, Weights, parameters_of, size_of
from pytest_mltd.recording.lanes import Lane, Number
from pytest_mltd.recording.levels import Level
from pytest_mltd.recording.mishaps import described
from pytest_mltd.recording.spool import Spool
from pytest_mltd.recording.validation import EVAL, TRAIN, UNSEEN, Validation
from pytest_mltd.recording.walks import Walks

_clock = time.perf_counter
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_unseen = torch._C.DisableTorchFunctionSubclass
_NAN: Final = float("nan")
_KIND: Final = {kind: index for index, kind in enumerate(CALLS)}
_SEEDS: Final = 256  # calls of one kind at one line that are kept one by one, the rest is counted; a guess
_CELLS: Final = 256  # of the rows of 64 backwards or 16 evaluations, about
_UNUSED: Final = 4096  # losses and batches that wait for a step; a guess
_IDLE: Final = 50  # steps of others after which an optimizer no longer makes a step a sampled one; a guess
_WALKS: Final = 50  # after the first steps the graph is walked once in so many backwards of a stream
_STRIDE: Final = 19  # of the place within them, so that looks do not meet an epoch always at the same batch


def guarded(method: Callable[..., None]) -> Callable[..., None]:
    """Make a method one that never raises: an error is noted once, and the part that was at work is off from then on."""

    @functools.wraps(method)
    def run(self: Watcher, *args: Any) -> None:
        start = _clock()
        try:
            if _dispatch_modes() or _function_modes():
                with lanes.without_modes():
                    method(self, *args)
            else:
                with _unseen():  # a subclass may see each attribute that is read
                    method(self, *args)
        except Exception as error:
            self.fail(error)
        self.spent += _clock() - start

    return run


class Watcher(hooks.Listener):
    """Turns what it hears into rows, until ``steps`` steps of the busiest optimizer were recorded."""

    def __init__(
        self, file: BinaryIO, level: Level, steps: int | None, exact: bool, on_full: Callable[[], None]
    ) -> None:
        self.level = level
        self.forwards = level.forwards
        self.sampling = level.samples  # the hooks read it: whether each module's output is wanted now
        self.names = naming.Names()
        self.spool = Spool(file, self.names)
        self.places = sites.Sites(self.spool.sites)
        self.lane = Lane()
        self.gradients = Gradients(self.lane)
        self.passes = forwards.Forwards(self.names, self.lane)
        self.validation = Validation(self.spool)
        self.walks = Walks(self.names, self.spool)
        self.off: set[str] = set()  # parts that have failed
        self._doing = ""  # the part at work
        self.spent = 0.0  # seconds inside of our own code
        self.step = 0
        self.thread = threading.get_ident()
        self._steps = steps
        self._exact = exact
        self._on_full = on_full
        self._seeds: dict[tuple[str, int, bool, bool], int] = {}  # calls of one kind at one line
        self._evaluations = 0
        self._mode = UNSEEN
        self._trained = (
            UNSEEN  # mode of what a step trains: forwards with gradient, one in train mode before all others
        )
        self._first = True  # whether no such forward came since the last step
        self._switched: weakref.ref[torch.nn.Module] | None = None
        self._marks: dict[str, int] | None = None
        # losses
        self._stream_at: dict[int, int] = {}
        self._backwards: list[int] = []  # by stream
        self._scaled: list[tuple[weakref.ref[Tensor], Number]] = []
        self._backward: Backward | None = None  # the one that runs
        # optimizers
        self._made: list[tuple[weakref.ref[Optimizer], FrameNames]] = []
        self._candidates: list[weakref.ref[Optimizer]] | None = None  # those from before; None: not looked for
        self._news = True  # whether there may be optimizers to take up
        # between two steps
        self._due = True  # whether the next step is a sampled one
        self._digest_due = exact or level.digests
        self._states: tuple[int, int, int] | None = None
        self._batches: list[int] = []
        self._losses: list[Number] = []
        self._unowned_seen: dict[int, int] = {}  # index of a parameter, and the step

    # -- what the hooks tell

    @guarded
    def created(self, optimizer: Optimizer, frame: FrameType) -> None:
        if self._may("optimizers"):
            self._made.append((weakref.ref(optimizer), FrameNames(sites.caller_outside(frame), optimizer)))
            self._news = True

    @guarded
    def before_backward(
        self, tensors: Any, gradients: Any, inputs: Any, create_graph: bool, accumulate: bool, frame: FrameType
    ) -> None:
        self._backward = None
        if not accumulate and not any(graph.is_parameter(t) for t in inputs or ()):
            return  # the gradient of an input: a penalty, a saliency map; not training
        if self._news and self._may("optimizers"):
            self._look_at_optimizers(tensors)
        if self._may("losses"):
            self._loss(tensors, gradients, create_graph, accumulate, frame)
        if self._may("gradients"):
            self.gradients.before_backward()
        if self._states is None and self._digest_due and self._may("digests"):
            self._take_states()

    @guarded
    def after_backward(self) -> None:
        if self._backward is not None and self._may("gradients"):
            self.gradients.after_backward(self._backward, self.gradients.plans)
            if self._digest_due and self._may("digests"):
                self._digest_gradients()

    @guarded
    def before_step(self, optimizer: Optimizer, closure: bool, frame: FrameType) -> None:
        if self._may("steps"):
            self._step_begins(optimizer, closure, frame)

    def after_step(self, optimizer: Optimizer) -> None:
        self._step_ends(optimizer)
        if self._steps is not None and any(plan.count >= self._steps for plan in self.gradients.plans):
            self._on_full()

    @guarded
    def skipped_step(self, optimizer: Optimizer, frame: FrameType) -> None:
        plan = self.gradients.plan(optimizer)
        if plan is not None and self._may("scaler"):
            self._call("skipped_step", self.names.optimizers[plan.index].name, _NAN, frame)
            plan.end_generation()
            self._between()

    @guarded
    def scaled(self, scaler: Any, outputs: Any) -> None:
        if self._may("scaler"):
            scale = scaler._scale
            number = self.lane.read([scale.detach().clone()])[0] if isinstance(scale, Tensor) else float(scale)
            self._scaled += [(weakref.ref(t), number) for t in forwards.tensors_in(outputs)]
            del self._scaled[:-16]

    @guarded
    def unscaled(self, optimizer: Optimizer, frame: FrameType) -> None:
        plan = self.gradients.plan(optimizer)
        if plan is not None and self._may("scaler"):
            plan.unscaled = True
            self._call("unscale", self.names.optimizers[plan.index].name, _NAN, frame)

    @guarded
    def called(self, kind: str, who: str, value: float, frame: FrameType) -> None:
        if kind == "train" and self._may("validation"):
            self.validation.training_again()
        if self._may("calls"):
            self._call(kind, who, value, frame)

    @guarded
    def switched(self, module: torch.nn.Module, mode: bool) -> None:
        whole = self._switched() if self._switched is not None else None
        if mode or whole is None or whole is module or all(part is not module for part in whole.modules()):
            self._mode = self._trained = TRAIN if mode else EVAL
            self._switched = weakref.ref(module)  # else a part is frozen (batch norm, a backbone), and the whole trains

    def loss(self, name: str, result: Any, frame: FrameType) -> None:
        if self._mode == EVAL or not getattr(result, "requires_grad", True):  # else it is about to be trained on
            self._validation_loss(result, frame)

    @guarded
    def seeded(self, what: str, value: Any, frame: FrameType) -> None:
        if self._may("seeds"):
            site = self.places.index(frame)
            clock = _is_clock(value)
            key = (what, site, clock, value is None)
            count = self._seeds[key] = self._seeds.get(key, 0) + 1
            if count <= _SEEDS:
                text, where = None if value is None else repr(value)[:80], self.places.text(site)
                self.spool.seeds.append(SeedCall(what=what, value=text, site=where, step=self.step, clock=clock))
            self._call("seed", what, _NAN, frame)

    @guarded
    def logged(self, name: str, value: float) -> None:
        if self._may("logged"):
            self.log("", {name: value})

    @guarded
    def entered(self, module: torch.nn.Module, args: Any, frame: FrameType) -> None:
        if self._may("forwards") and not lanes.in_transform() and self.passes.is_root(module, frame):
            self._forward(module, args, frame)

    @guarded
    def left(self, module: torch.nn.Module, kwargs: Any, output: Any, above: list[Any], frame: FrameType) -> None:
        if lanes.in_transform():
            return
        if kwargs and not above and self._may("forwards") and self.passes.is_root(module, frame):
            self._batch_in_keywords(module, kwargs, frame)
        if not above:
            self.passes.end_of_call()
        if self.sampling and self._may("outputs"):
            self.passes.output(module, output, above, frame, self.level.output_digests)

    # -- the whole run

    def _may(self, part: str) -> bool:
        """Begin a part's work, unless it is off."""
        self._doing = part
        return part not in self.off

    def fail(self, error: Exception) -> None:
        """Note an error of ours once, and switch the part at work off."""
        name = self._doing
        if name not in self.off:
            self.off.add(name)
            self.spool.notes.append(
                f"the recorder's part {name!r} failed at step {self.step} and is off from there: {described(error)}"
            )

    def log(self, split: str, scalars: dict[str, float]) -> None:
        """Keep numbers that the program states itself."""
        for name, value in scalars.items():
            text = self.spool.text(f"{split}/{name}" if split else name)
            self.spool.rows["logged"].append((self.step, text, float(value)))

    @guarded
    def finish(self) -> None:
        """Write what waits and what can only be said at the end."""
        self._doing = "end"
        self.validation.training_again()
        self.validation.end()
        self.names.refresh()
        self._facts_at_the_end()

    def flush(self) -> None:
        """Write all rows, waiting for those still on a device."""
        self.lane.fetch()
        self.spool.flush()

    # -- optimizers

    def _look_at_optimizers(self, tensors: Any) -> None:
        """Take up optimizers made in the block, and those from before whose parameters this loss reaches."""
        for ref, found in self._made:
            optimizer = ref()
            if optimizer is not None and self.gradients.plan(optimizer) is None:
                self._take_optimizer(optimizer, found)
        self._made.clear()
        if self._candidates is None:
            unknown = (o for o in naming.living(Optimizer) if self.gradients.plan(o) is None)
            self._candidates = [weakref.ref(o) for o in unknown if not _is_around_another(o)]
        if self._candidates and sum(self._backwards) <= self.level.early:
            reached = {id(leaf) for leaf in graph.leaves(tensors)}
            for ref in list(self._candidates):
                optimizer = ref()
                if optimizer is None or any(id(p) in reached for p in parameters_of(optimizer)):
                    self._candidates.remove(ref)
                    if optimizer is not None and self.gradients.plan(optimizer) is None:
                        self._take_optimizer(optimizer, FrameNames(None, optimizer))
        self._news = bool(self._candidates) and sum(self._backwards) <= self.level.early

    def _take_optimizer(self, optimizer: Optimizer, found: FrameNames) -> Plan:
        plan = Plan(optimizer, self.names.add_optimizer(optimizer, found.variable, found.site))
        self._take_parameters(optimizer, plan, found)
        return plan

    def _take_parameters(self, optimizer: Optimizer, plan: Plan, found: FrameNames | None = None) -> None:
        self.names.find_owners(optimizer)
        kind = type(optimizer).__name__
        indexes = []
        for number, parameter in enumerate(parameters_of(optimizer)):
            name = found.parameters.get(number, "") if found is not None else ""
            indexes.append(self.names.add_parameter(parameter, name or f"parameter {number} of {kind}"))
            self.names.own(indexes[-1], plan.index)
        self.gradients.take(optimizer, plan, indexes)

    # -- losses and gradients

    def _loss(self, tensors: Any, gradients: Any, create_graph: bool, accumulate: bool, frame: FrameType) -> None:
        value = self._value(tensors, gradients)
        if value is None and not accumulate:
            return  # gradients of many outputs at once: a Jacobian
        site = self.places.index(frame)
        stream = self._stream(site)
        scale = self._scale_of(tensors)
        if value is not None and not (type(scale) is float and scale == 1.0):
            value = value / scale if type(value) is type(scale) is float else lanes.Derived(_quotient, (value, scale))
        self.spool.rows["calls"].append((_KIND["backward"], self.step, -1, site, _NAN, NO_DIGEST, -1))
        if value is not None:
            self.spool.rows["losses"].append((self.step, stream, value, scale))
            self._losses.append(value)
        if not accumulate and value is not None:
            for plan in self.gradients.plans:
                plan.others.append(value)
                plan.stream = stream
        self.validation.backward()
        count = self._backwards[stream]
        self._backwards[stream] += 1
        lost = self.walks.wants_nonfinite and type(value) is float and not math.isfinite(value)
        if lost or count < self.level.early or (self.level.samples and _is_looked_at(count)):
            self.walks.walk(tensors, self.spool.streams[stream], self.step, lost)
        self._backward = Backward(value, stream, scale, create_graph)
        if not count & 63:
            self._write_between_steps()

    def _stream(self, site: int) -> int:
        stream = self._stream_at.get(site)
        if stream is None:
            stream = self._stream_at[site] = len(self.spool.streams)
            self.spool.streams.append(self.places.text(site) or "unknown place")
            self._backwards.append(0)
        return stream

    def _value(self, tensors: Any, gradients: Any) -> Number | None:
        """Return the sum over the tensors of loss times the gradient that backward was given; None: it cannot be read."""
        total: Number = 0.0
        if len(tensors) == 1 and _is_single(only := tensors[0]):
            factor = gradients[0]  # torch has made a tensor of ones where the program gave none
            if factor is None or _is_single(factor):
                value = only.item() if factor is None else only.item() * factor.item()
                if type(value) is float:  # no complex one
                    return value
        for tensor, gradient in zip(tensors, gradients, strict=False):
            value, factor = lanes.plain(tensor), None if gradient is None else lanes.plain(gradient)
            if value is None or (gradient is not None and (factor is None or factor.shape != value.shape)):
                return None
            with lanes.quiet():
                value = value.detach()
                value = value.sum() if factor is None else (value * factor.detach()).sum()
                number = self.lane.read([value])[0]
            total = total + number if type(total) is type(number) is float else lanes.Derived(sum, (total, number))
        return total

    def _scale_of(self, tensors: Any) -> Number:
        """Return the loss scale that is in these tensors: a scaler's output is recognised, or one made of it assumed."""
        if not self._scaled:
            return 1.0
        scales = [scale for ref, scale in self._scaled if any(ref() is t for t in tensors)]
        if scales:
            self._scaled = [pair for pair in self._scaled if not any(pair[0]() is t for t in tensors)]
            return scales[-1]
        scale = self._scaled[-1][1]
        self._scaled.clear()
        return scale

    # -- steps

    def _step_begins(self, optimizer: Optimizer, closure: bool, frame: FrameType) -> None:
        plan = self.gradients.plan(optimizer)
        if plan is None:
            plan = self._met_at_its_step(optimizer)
        if plan.count == 0:
            expression = sites.called_as(sites.caller_outside(frame))
            self.names.call_optimizer(plan.index, expression.removesuffix(".step"))
        sampled = self.level.due(plan.count)
        if plan.size != size_of(optimizer) or (sampled and self._replaced(optimizer, plan)):
            self._take_parameters(optimizer, plan)
        self._call("step", self.names.optimizers[plan.index].name, _NAN, frame)
        plan.closure = closure
        if hooks.in_backward() and self._backward is not None:
            self.gradients.after_backward(self._backward, [plan])
        if not closure:
            self._read_used(plan, sampled)
        if sampled and self.level.samples and self._may("updates"):
            plan.weights = plan.weights or Weights(keep=self.level.every == 1)
            plan.weights.take(plan.parameters, self.lane)
            plan.measured = True

    def _met_at_its_step(self, optimizer: Optimizer) -> Plan:
        if self._may("optimizers"):
            self._look_at_optimizers(())
        self._doing = "steps"
        plan = self.gradients.plan(optimizer) or self._take_optimizer(optimizer, FrameNames(None, optimizer))
        if self._backward is not None:
            self.gradients.arrive_late(plan, self._backward)
        return plan

    def _read_used(self, plan: Plan, sampled: bool) -> None:
        plan.left = plan.used = ()
        if self._may("gradients"):
            self.gradients.before_step(plan, sampled)
            if self._digest_due and self._may("digests"):
                untouched = plan.digests is not None and plan.left is plan.used and not plan.unscaled
                plan.digested = plan.digests if untouched else [self._digest(p.grad) for p in plan.parameters]

    @guarded
    def _step_ends(self, optimizer: Optimizer) -> None:
        plan = self.gradients.plan(optimizer)
        if plan is None or not self._may("steps"):
            return
        if plan.closure:
            self._read_used(plan, self.level.due(plan.count))
        self._doing = "steps"
        if _skipped_inside(optimizer):
            self._call("skipped_step", self.names.optimizers[plan.index].name, _NAN, None)
        else:
            self._take_step(optimizer, plan)
        plan.end_generation()
        self._between()
        if self._may("writing"):
            self._write()
        else:
            self.spool.drop()  # nothing takes the rows any more; memory must stay flat

    def _take_step(self, optimizer: Optimizer, plan: Plan) -> None:
        self._step_row(optimizer, plan)
        step = self.step
        plan.last = step
        plan.count += 1  # before what may fail: the numbers of steps must stay true
        self.step += 1
        if plan.measured and self._may("updates"):
            self._updates(plan, step)
        if self.passes.outputs and self._may("outputs"):
            self._outputs(step)
        if self._digest_due and self._may("digests"):
            self._digests(optimizer, plan, step)

    def _step_row(self, optimizer: Optimizer, plan: Plan) -> None:
        losses = plan.losses or plan.others
        rates = [self._number(group["lr"]) for group in optimizer.param_groups if "lr" in group] or [_NAN]
        joint = self._joint
        highest, lowest = (rates[0], rates[0]) if len(rates) == 1 else (joint(max, rates), joint(min, rates))
        left = joint(lanes.total, plan.left)
        self.spool.rows["steps"].append(
            (
                plan.index,
                plan.stream,
                losses[0] if len(losses) == 1 else joint(_mean, losses),
                len(losses),
                highest,
                lowest,
                left,
                left if plan.used is plan.left else joint(lanes.total, plan.used),
                plan.nonfinite,
                plan.scale,
                plan.stale,
                self._trained,
            )
        )
        if plan.left:
            left, used = (plan.indexes, plan.left), (plan.indexes, plan.used)
            if self._due and (unowned := self._unowned())[0]:
                left, used = (_both(cell, unowned) for cell in (left, used))
            self.spool.rows["parameter_norms"].append((self.step, left, used))
            self.spool.cells += 2 * len(plan.left)

    def _unowned(self) -> tuple[list[int], list[Number]]:
        """Return the gradients of parameters that no optimizer holds; one that is not None is a fact at the end."""
        waiting = [
            o for ref in self._candidates or () if (o := ref()) is not None
        ]  # has not stepped yet, but holds them
        held = {id(p) for optimizer in waiting for p in parameters_of(optimizer)}
        found = [(i, p) for i, p in self.names.unclaimed() if p.requires_grad and p.is_leaf and id(p) not in held]
        indexes = [i for i, _ in found]
        norms = self.gradients.norms_of([p for _, p in found])
        for index, norm in zip(indexes, norms, strict=True):
            if norm is not NO_GRAD:
                self._unowned_seen.setdefault(index, self.step)
        return indexes, norms

    def _updates(self, plan: Plan, step: int) -> None:
        plan.measured = False
        if plan.weights is not None and plan.parameters:
            update, weight = plan.weights.measure(plan.parameters, self.lane)
            self.spool.rows["updates"].append((step, (plan.indexes, update), (plan.indexes, weight)))
            self.spool.cells += 2 * len(plan.parameters)

    def _outputs(self, step: int) -> None:
        taken, self.passes.outputs = self.passes.outputs, {}
        indexes = list(taken)
        columns = [list(column) for column in zip(*(statistics for statistics, _ in taken.values()), strict=True)]
        rows = [rows for _, rows in taken.values()]
        self.spool.rows["outputs"].append((step, *((indexes, c) for c in columns), (indexes, rows)))
        self.spool.cells += 6 * len(indexes)

    def _joint(self, function: Callable[[Any], float], values: Sequence[Number]) -> Number:
        return lanes.Derived(function, values) if self.lane.waiting else function(values)

    def _number(self, value: Any) -> Number:
        if isinstance(value, Tensor):
            return self.lane.read([value.detach().reshape(()).clone()])[0]
        return float(value)

    def _replaced(self, optimizer: Optimizer, plan: Plan) -> bool:
        now = parameters_of(optimizer)
        return len(now) != len(plan.parameters) or any(p is not q for p, q in zip(now, plan.parameters, strict=True))

    def _between(self) -> None:
        """Begin anew after a step, and decide what is taken until the next one."""
        self._states = None
        self._first = True
        self._batches = []
        self._losses = []
        level, late = self.level, self.step - _IDLE
        self._due = False
        for plan in self.gradients.plans:
            if plan.last > late and level.due(plan.count) and (plan.count or not self.step):
                self._due = True
        self._digest_due = self._exact or (level.digests and self._due)
        if self.passes.outputs:
            self.passes.outputs = {}
            self.passes.digests = {}
        wanted = level.samples and self._due
        if wanted != self.sampling:
            self.sampling = wanted
            hooks.sample(wanted)

    def _write_between_steps(self) -> None:
        """For a program that makes no steps, or none for long: evaluation, updates by hand."""
        if len(self._batches) > _UNUSED:
            self._batches = [digests.combined(self._batches)]
        del self._losses[:-_UNUSED]
        self.spool.cells += _CELLS
        doing = self._doing
        if self._may("writing"):
            self._write()
        else:
            self.spool.drop()
        self._doing = doing

    def _write(self) -> None:
        if self._marks is not None:
            if self.lane.arrived:
                self.spool.flush(self._marks)
                self._marks = None
        elif self.spool.due:
            if self.lane.waiting:
                self.lane.fetch()
                self._marks = self.spool.marks()
            else:
                self.spool.flush()

    # -- digests

    def _take_states(self) -> None:
        """Take the random states; Python's and numpy's, which cost 50 µs, less often where nobody asked for exactness."""
        every = 1 if self._exact else 5 * self.level.every
        turns = max((plan.count for plan in self.gradients.plans), default=0)
        if turns >= self.level.early and turns % every:
            self._states = (NO_DIGEST, NO_DIGEST, digests.of_torch_state())
        else:
            self._states = (digests.of_python_state(), digests.of_numpy_state(), digests.of_torch_state())

    def _digest(self, tensor: Tensor | None) -> int:
        """Return a tensor's digest; on an accelerator only where the caller has asked for exactness: it waits."""
        if tensor is None or not (tensor.is_cpu or self._exact or self.level.output_digests):
            return NO_DIGEST
        return digests.of_tensor(tensor)

    def _digest_gradients(self) -> None:
        for plan in self.gradients.plans:
            plan.digests = [self._digest(p.grad) for p in plan.parameters]

    def _digests(self, optimizer: Optimizer, plan: Plan, step: int) -> None:
        none = [NO_DIGEST] * len(plan.parameters)
        self.spool.rows["digests"].append(
            (
                step,
                *(self._states or (NO_DIGEST, NO_DIGEST, NO_DIGEST)),
                digests.combined(self._batches) if self._batches else NO_DIGEST,
                digests.of_numbers(self._losses),
                digests.of_tree(
                    [optimizer.state.get(p) for p in plan.parameters],
                    device=self._exact or self.level.output_digests,
                ),
                (plan.indexes, plan.digests or none),
                (plan.indexes, plan.digested or none),
                (plan.indexes, [self._digest(p) for p in plan.parameters]),
                (list(self.passes.digests), list(self.passes.digests.values())) if self.passes.digests else None,
            )
        )
        self.spool.cells += 3 * len(plan.parameters)
        plan.digests = plan.digested = None

    # -- forwards

    def _forward(self, module: torch.nn.Module, args: Any, frame: FrameType) -> None:
        grad = torch.is_grad_enabled()
        self._mode = mode = TRAIN if module.training else EVAL
        if grad and (mode == TRAIN or self._first):
            self._trained, self._first = mode, False
        site = self.places.index(frame)
        name = self.names.root_name(module)
        who = self.spool.text(name)
        if args:
            self._batch(who, site, args, grad)
            if grad and self.passes.batch is None:
                self.passes.keep_batch(module, args)
        if mode == EVAL or not grad or self.validation.waits:
            self.validation.forward(name, self.places.text(site), self.step, mode, grad)
            self._evaluations += 1
            if not self._evaluations & 15:
                self._write_between_steps()
        self.spool.rows["calls"].append((_KIND["forward"], self.step, who, site, mode, NO_DIGEST, 1 if grad else 0))
        if self._states is None and self._digest_due and self._may("digests"):
            self._take_states()
        self.passes.begin_of_call(module)

    def _batch_in_keywords(self, module: torch.nn.Module, kwargs: Any, frame: FrameType) -> None:
        grad = torch.is_grad_enabled()
        self._batch(self.spool.text(self.names.root_name(module)), self.places.index(frame), kwargs, grad)
        if grad:
            self.passes.keep_keywords(module, kwargs)

    def _batch(self, who: int, site: int, inputs: Any, grad: bool) -> None:
        rows, digest = forwards.batch_digest(inputs, device=self._exact or self.level.output_digests)
        if rows or digest:
            self._batches.append(digest)
            self.spool.rows["calls"].append((_KIND["batch"], self.step, who, site, rows, digest, int(grad)))

    @guarded
    def _validation_loss(self, result: Any, frame: FrameType) -> None:
        if (result := lanes.plain(result)) is None or lanes.in_transform() or not self._may("validation"):
            return
        with lanes.quiet():
            value = result.detach() if result.numel() == 1 else result.detach().mean()
            number = self.lane.read([value.reshape(())])[0]
        stream = self._stream(self.places.index(frame))
        self.validation.loss(self.step, stream, number, self._mode, result.requires_grad)

    # -- calls and facts

    def _call(self, kind: str, who: str, value: float, frame: FrameType | None) -> None:
        site = self.places.index(frame) if frame is not None else -1
        self.spool.rows["calls"].append((_KIND[kind], self.step, self.spool.text(who), site, value, NO_DIGEST, -1))

    def _facts_at_the_end(self) -> None:
        for (what, site, _, _), count in self._seeds.items():
            if count > _SEEDS:
                details = {"site": self.places.text(site), "count": count - _SEEDS}
                self.spool.facts.append(Fact(kind="more_seeds", step=self.step, who=what, details=details))
        for index in self.gradients.unreached():
            self._fact("unreached", self.names.parameters[index].name)
        for index, step in self._unowned_seen.items():
            if not self.names.parameters[index].optimizers:
                self.spool.facts.append(Fact(kind="unowned", step=step, who=self.names.parameters[index].name))
        self.walks.end(self.step)

    def _fact(self, kind: str, who: str) -> None:
        self.spool.facts.append(Fact(kind=kind, step=self.step, who=who))


class FrameNames:
    """What the line that made an optimizer calls it and its parameters."""

    def __init__(self, frame: FrameType | None, optimizer: Optimizer) -> None:
        self.variable = sites.assigned_to(frame)
        self.site = sites.shown(sites.user_place(frame))
        self.parameters: dict[int, str] = dict(enumerate(sites.called_with(frame)))
        if frame is not None:
            here = {id(value): name for name, value in list(frame.f_globals.items()) if issubclass(type(value), Tensor)}
            for number, parameter in enumerate(parameters_of(optimizer)):
                if id(parameter) in here:
                    self.parameters[number] = here[id(parameter)]


def _is_single(tensor: Any) -> bool:
    """Whether a value is one number on the CPU, which can be read at once."""
    return lanes.readable(tensor) and tensor.is_cpu and tensor.numel() == 1 and not lanes.is_batched(tensor)


def _both(cell: tuple[Any, Sequence[Number]], more: tuple[list[int], list[Number]]) -> tuple[Any, Sequence[Number]]:
    """Return a wide cell with more parameters in it."""
    return [*cell[0], *more[0]], [*cell[1], *more[1]]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else _plain_mean(values)


def _plain_mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else _NAN


def _is_looked_at(count: int) -> bool:
    """Whether the graph of a stream's backward of this number is walked: the first, the 50th, then one in each fifty."""
    return count % _WALKS == max(count // _WALKS - 1, 0) * _STRIDE % _WALKS


def _quotient(pair: list[float]) -> float:
    return pair[0] / pair[1]


def _skipped_inside(optimizer: Optimizer) -> bool:
    """Whether a fused optimizer itself left the update out, on the CPU where it can be known without waiting."""
    found = vars(optimizer).get("found_inf")
    return isinstance(found, Tensor) and found.device.type == "cpu" and bool(found.item())


def _is_around_another(optimizer: Optimizer) -> bool:
    """Whether an optimizer only hands on to another one, as those of Lightning and accelerate do: that one steps."""
    inner = (value for value in vars(optimizer).values() if issubclass(type(value), Optimizer))
    return any(one.param_groups is optimizer.param_groups for one in inner)


def _is_clock(value: Any) -> bool:
    """Whether a seed is the time of day, whole or cut to fewer bits (``time.time_ns() % 2**32``).

    A second's leeway for what was read in seconds, two milliseconds for cut nanoseconds: of other seeds above a million, one in
    a thousand is taken for a clock. Smaller ones never are.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 2**20 < value < 2**63:
        return False
    now = time.time()
    for unit, leeway in ((1, 2), (10**3, 10**3), (10**6, 10**6), (10**9, 2 * 10**6)):
        there = int(now * unit)
        if abs(there - value) < 2 * unit:
            return True
        if any(value < m and abs((there - int(value) + m // 2) % m - m // 2) < leeway for m in (2**31, 2**32)):
            return True
    return False
