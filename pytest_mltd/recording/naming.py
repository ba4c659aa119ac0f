"""Names for modules, parameters and optimizers, as the person who wrote the program would say them.

One root module: the names of its ``named_parameters()``. Several: the variable that each is called by in front (``G.0.weight``,
``D.0.weight``). What is in no root's tree is named by where it was found: ``blocks[0].0.weight``.
"""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from pytest_mltd.core.traces import Module, OptimizerInfo, Parameter
from pytest_mltd.recording import sites

T = TypeVar("T")
_HELD = 8  # root modules held alive; cross-validation in five folds fits, a search over a thousand models does not
# Loose parameters of one name, and optimizers; later ones take the place of those that are gone, so that a program that makes
# one at each step does not fill the file. A guess.
_ALIKE = 64
_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


class Identities(Generic[T]):
    """A mapping from living objects, by identity; an entry is gone with its object."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], T]] = {}

    def get(self, thing: object) -> T | None:
        found = self._entries.get(id(thing))
        return found[1] if found is not None and found[0]() is thing else None

    def put(self, thing: Any, value: T) -> None:
        key, entries = id(thing), self._entries

        def gone(ref: weakref.ref[Any]) -> None:
            if key in entries and entries[key][0] is ref:
                del entries[key]

        entries[key] = (weakref.ref(thing, gone), value)

    def __len__(self) -> int:
        return len(self._entries)


class _Tree:
    """A root module, or what was found outside of every root: a prefix for the names of what belongs to it."""

    def __init__(self, module: nn.Module | None, name: str, kind: str) -> None:
        self.ref = weakref.ref(module) if module is not None else None
        self.name = name
        self.base = name  # without the number that makes it unique
        self.kind = kind
        self.guessed = False  # named by its class: it was found, not called
        self.absorbed = False
        self.reused = False  # its module is another than at first, of the same name and class
        self.owns = False  # it brought parameters of its own

    @property
    def dead(self) -> bool:
        return self.ref is not None and self.ref() is None


class _Known:
    """One parameter or module: where it stands in the trace, and what its name is made of."""

    def __init__(self, thing: Any, tree: _Tree, path: str, kind: str, registered: bool) -> None:
        self.ref = weakref.ref(thing)
        self.tree = tree
        self.path = path
        self.kind = kind
        self.registered = registered
        self.root = False
        self.optimizers: tuple[int, ...] = ()


class Names:
    """The modules, parameters and optimizers of one recording, each with its index and its name."""

    def __init__(self) -> None:
        self.roots: list[nn.Module] = []  # held alive, the newest last
        self.parameters: list[Parameter] = []
        self.modules: list[Module] = []
        self.optimizers: list[OptimizerInfo] = []
        self.changed: set[tuple[str, int]] = set()  # (list, index) of items to correct in the file
        self._trees: list[_Tree] = []
        self._known_parameters: list[_Known] = []
        self._known_modules: list[_Known] = []
        self._parameter_at: Identities[int] = Identities()
        self._module_at: Identities[int] = Identities()
        self._loose: dict[tuple[str, str], int] = {}  # modules without parameters made on the way, by class and place
        self._variables: list[str] = []  # of the optimizers
        self._optimizer_refs: list[weakref.ref[torch.optim.Optimizer]] = []
        self._alike: dict[str, list[int]] = {}  # loose parameters that were found under one name
        self._prefixed = False
        self._searched: set[int] = set()  # optimizers for whose parameters all living modules were searched

    # -- looking up

    def parameter(self, parameter: torch.Tensor) -> int | None:
        """Return the index of a parameter, None when it was never seen."""
        return self._parameter_at.get(parameter)

    def module(self, module: nn.Module) -> int | None:
        """Return the index of a leaf or root module, None when it was never seen."""
        return self._module_at.get(module)

    def root_name(self, module: nn.Module) -> str:
        """Return the name of a root."""
        index = self._module_at.get(module)
        return self.modules[index].name if index is not None else type(module).__name__

    # -- adding

    def add_root(self, module: nn.Module, expression: str = "") -> bool:
        """Take up a module that was called outside of every other, with all it holds. False: it has no parameters."""
        if not any(True for _ in module.parameters()):
            return False
        self._hold(module)
        kind = type(module).__name__
        name = sites.plain(expression) or kind
        known = self._tree_of(module)
        if known is not None:
            if known.guessed and name != kind:
                known.name, known.base, known.guessed = self._unique_tree(name), name, False
                self._rename(again=True)
            return True
        reused = next((t for t in self._trees if t.dead and (t.base, t.kind) == (name, kind)), None)
        if reused is not None:
            reused.ref = weakref.ref(module)
            reused.reused = True
            tree = reused
        else:
            tree = _Tree(module, self._unique_tree(name), kind)
            tree.base, tree.guessed = name, not sites.plain(expression)
            self._trees.append(tree)
        self._take_tree(module, tree, registered=True)
        self._absorb()
        self._rename()
        return True

    def adopt(self, module: nn.Module, above: list[nn.Module], frame: FrameType | None) -> int | None:
        """Take up a module that was called inside a root without belonging to its tree; return its index."""
        parent = next((m for m in reversed(above) if self._tree_of(m) is not None or self.module(m) is not None), None)
        root = next((m for m in above if self._tree_of(m) is not None), None)
        tree = self._tree_of(root) if root is not None else None
        if tree is None:
            return None
        has_parameters = any(True for _ in module.parameters())
        path = next((p for m in (root, parent) if m is not None and (p := path_to(m, module))), "")
        if not has_parameters and not path:
            return self._take_loose(module, tree, frame)
        if not path:
            path = sites.plain(sites.called_as(sites.caller_outside(frame))) or type(module).__name__
            path = self._unique_path(tree, path)
        self._take_tree(module, tree, registered=False, prefix=path)
        self._rename()
        return self.module(module)

    def add_parameter(self, parameter: torch.Tensor, fallback: str = "") -> int:
        """Take up a parameter that is in no known tree, and return its index."""
        index = self.parameter(parameter)
        if index is not None:
            return index
        self._take_living_trees()
        index = self.parameter(parameter)
        if index is not None:
            return index
        tree, path = self._found_in_a_root(parameter)
        if tree is None:
            tree = next((t for t in self._trees if t.ref is None), None)
            if tree is None:
                tree = _Tree(None, "", "")
                self._trees.append(tree)
            path = fallback or f"tensor of shape {_shape(parameter)}"
            alike = self._alike.setdefault(path, [])
            gone = next((i for i in alike if self._known_parameters[i].ref() is None), None)
            if len(alike) < _ALIKE or gone is None:
                unique = self._unique_path(tree, path)
                alike.append(self._take_parameter(parameter, tree, unique, "", registered=False))
                return alike[-1]
            self._known_parameters[gone].ref = weakref.ref(parameter)
            self._parameter_at.put(parameter, gone)
            self._refresh_parameter(gone)
            return gone
        path = self._unique_path(tree, path)
        return self._take_parameter(parameter, tree, path, "", registered=False)

    def add_optimizer(self, optimizer: torch.optim.Optimizer, variable: str, site: str = "") -> int:
        """Take up an optimizer under its class's name; two of one class are told apart by variable."""
        kind = type(optimizer).__name__
        index = len(self.optimizers)
        if index >= _ALIKE:
            gone = (i for i, ref in enumerate(self._optimizer_refs) if ref() is None)
            twin = next((i for i in gone if type_of(self.optimizers[i]) == kind), None)
            if twin is not None:
                self._optimizer_refs[twin] = weakref.ref(optimizer)
                return twin
        self._optimizer_refs.append(weakref.ref(optimizer))
        count = sum(len(group["params"]) for group in optimizer.param_groups)
        self.optimizers.append(OptimizerInfo(name=kind, parameters=count, settings=_settings(optimizer), site=site))
        self._variables.append(sites.plain(variable))
        self._tell_apart(kind)
        return index

    def call_optimizer(self, index: int, variable: str) -> None:
        """Tell the variable of an optimizer that was taken up without one."""
        if not self._variables[index] and sites.plain(variable):
            self._variables[index] = sites.plain(variable)
            self._tell_apart(type_of(self.optimizers[index]))

    def own(self, index: int, optimizer: int) -> None:
        """Say that a parameter is in an optimizer."""
        known = self._known_parameters[index]
        if optimizer not in known.optimizers:
            known.optimizers = (*known.optimizers, optimizer)
            self._refresh_parameter(index)

    def find_owners(self, optimizer: torch.optim.Optimizer) -> None:
        """Look among all living modules for those that hold an optimizer's unknown parameters, and take them as roots.

        For programs whose forward no hook saw: level losses, ``model.forward(x)``, ``functional_call``.
        """
        wanted = {id(p) for g in optimizer.param_groups for p in g["params"] if self.parameter(p) is None}
        if not wanted or id(optimizer) in self._searched or len(self._searched) >= _ALIKE:
            return
        self._searched.add(id(optimizer))
        modules = living(nn.Module)
        above = {id(child): m for m in modules for child in _children(m)}
        for module in modules:
            if any(id(p) in wanted and self.parameter(p) is None for p in _own_parameters(module)):
                self.add_root(_topmost(module, above))

    def refresh(self) -> None:
        """Read again what may have changed since: shapes of lazy parameters, requires_grad."""
        for index in range(len(self.parameters)):
            self._refresh_parameter(index)

    def rescan(self) -> None:
        """Take up what was added to the known roots since they were seen."""
        self._take_living_trees()
        self._rename()

    def unclaimed(self) -> list[tuple[int, torch.Tensor]]:
        """Return the living parameters that are in no optimizer."""
        pairs = ((i, k.ref()) for i, k in enumerate(self._known_parameters) if not k.optimizers)
        return [(i, p) for i, p in pairs if p is not None]

    # -- inside

    def _hold(self, module: nn.Module) -> None:
        if self.roots and self.roots[-1] is module:
            return
        for i, held in enumerate(self.roots):
            if held is module:
                del self.roots[i]
                break
        self.roots.append(module)
        del self.roots[:-_HELD]

    def _tree_of(self, module: nn.Module) -> _Tree | None:
        return next((t for t in self._trees if t.ref is not None and t.ref() is module and not t.absorbed), None)

    def _take_living_trees(self) -> None:
        for tree in list(self._trees):
            module = tree.ref() if tree.ref is not None else None
            if module is not None and not tree.absorbed:
                self._take_tree(module, tree, registered=True)

    def _take_tree(self, module: nn.Module, tree: _Tree, registered: bool, prefix: str = "") -> None:
        inner, skipped = _unwrapped(module)
        for path, child in module.named_modules():
            path = _joined(prefix, _without(path, skipped))
            if child is inner and registered:
                self._take_module(child, tree, "", root=True)
            elif not _has_children(child):
                self._take_module(child, tree, path, root=False)
            for name, parameter in child.named_parameters(recurse=False):
                self._take_parameter(parameter, tree, _joined(path, name), type(child).__name__, registered)

    def _take_parameter(self, parameter: torch.Tensor, tree: _Tree, path: str, kind: str, registered: bool) -> int:
        index = self._parameter_at.get(parameter)
        if index is not None:
            known = self._known_parameters[index]
            if known.tree.ref is None and tree.ref is not None:  # seen first as a loose tensor
                known.tree, known.path, known.kind, known.registered = tree, path, kind, registered
                self._refresh_parameter(index)
            return index
        index = self._dead_twin(self._known_parameters, tree, path)
        if index is not None:
            known = self._known_parameters[index]
            known.ref = weakref.ref(parameter)
        else:
            index = len(self._known_parameters)
            known = _Known(parameter, tree, path, kind, registered)
            self._known_parameters.append(known)
            self.parameters.append(Parameter(name=""))
            tree.owns = True
        self._parameter_at.put(parameter, index)
        self._refresh_parameter(index)
        return index

    def _take_module(self, module: nn.Module, tree: _Tree, path: str, root: bool) -> int:
        index = self._module_at.get(module)
        if index is not None:
            return index
        index = self._dead_twin(self._known_modules, tree, path)
        if index is not None:
            self._known_modules[index].ref = weakref.ref(module)
        else:
            index = len(self._known_modules)
            known = _Known(module, tree, path, type(module).__name__, True)
            known.root = root
            self._known_modules.append(known)
            self.modules.append(Module(name=""))
        self._module_at.put(module, index)
        self._refresh_module(index)
        return index

    def _take_loose(self, module: nn.Module, tree: _Tree, frame: FrameType | None) -> int:
        place = sites.shown(sites.user_place(frame))
        key = (type(module).__name__, place)
        index = self._loose.get(key)
        if index is None:
            index = self._take_module(module, tree, f"{key[0]} at {place}" if place else key[0], root=False)
            self._loose[key] = index
        self._module_at.put(module, index)
        return index

    def _dead_twin(self, known: list[_Known], tree: _Tree, path: str) -> int | None:
        """Return the index of what had this name in this tree and is gone: the model of the fold before, say."""
        if not tree.reused:
            return None
        return next((i for i, k in enumerate(known) if k.tree is tree and k.path == path and k.ref() is None), None)

    def _absorb(self) -> None:
        """Let a new root that holds an older one take over the older one's names."""
        newest = self._trees[-1]
        module = newest.ref() if newest.ref is not None else None
        if module is None:
            return
        paths = {id(c): path for path, c in module.named_modules()}
        for tree in self._trees[:-1]:
            inner = tree.ref() if tree.ref is not None else None
            if inner is not None and id(inner) in paths and not tree.absorbed:
                tree.absorbed = True
                for known in (*self._known_parameters, *self._known_modules):
                    if known.tree is tree:
                        known.tree, known.path = newest, _joined(paths[id(inner)], known.path)
                        known.root = False
                newest.owns = newest.owns or tree.owns

    def _found_in_a_root(self, parameter: torch.Tensor) -> tuple[_Tree | None, str]:
        for tree in self._trees:
            module = tree.ref() if tree.ref is not None and not tree.absorbed else None
            if module is not None and (path := path_to(module, parameter)):
                return tree, path
        return None, ""

    def _unique_tree(self, name: str) -> str:
        taken = {t.name for t in self._trees}
        number, unique = 1, name
        while unique in taken:
            number += 1
            unique = f"{name}#{number}"
        return unique

    def _unique_path(self, tree: _Tree, path: str) -> str:
        taken = {k.path for k in (*self._known_parameters, *self._known_modules) if k.tree is tree}
        number, unique = 1, path
        while unique in taken or any(t.startswith(unique + ".") for t in taken):
            number += 1
            unique = f"{path}#{number}"
        return unique

    def _rename(self, again: bool = False) -> None:
        """Put the roots' names in front once there are several."""
        several = sum(t.owns and not t.absorbed and t.ref is not None for t in self._trees) > 1
        if several != self._prefixed or again:
            self._prefixed = several
            for index in range(len(self.parameters)):
                self._refresh_parameter(index)
        for index in range(len(self.modules)):
            self._refresh_module(index)

    def _name(self, known: _Known) -> str:
        if not known.path:
            return known.tree.name
        return _joined(known.tree.name, known.path) if self._prefixed and known.tree.ref is not None else known.path

    def _refresh_parameter(self, index: int) -> None:
        known, old = self._known_parameters[index], self.parameters[index]
        thing = known.ref()
        new = Parameter(
            name=self._name(known),
            shape=old.shape if thing is None else _shape(thing),
            dtype=old.dtype if thing is None else str(thing.dtype).removeprefix("torch."),
            requires_grad=old.requires_grad if thing is None else bool(thing.requires_grad),
            optimizers=known.optimizers,
            module=known.kind,
            registered=known.registered,
        )
        if new != old:
            self.parameters[index] = new
            self.changed.add(("parameters", index))

    def _refresh_module(self, index: int) -> None:
        known = self._known_modules[index]
        new = Module(name=self._name(known), kind=known.kind, root=known.root)
        if new != self.modules[index]:
            self.modules[index] = new
            self.changed.add(("modules", index))

    def _tell_apart(self, kind: str) -> None:
        """Name the optimizers of one class by their variables once there are several."""
        same = [i for i, o in enumerate(self.optimizers) if type_of(o) == kind]
        taken: set[str] = set()
        for number, index in enumerate(same if len(same) > 1 else [], 1):
            name = f"{kind} {self._variables[index]}" if self._variables[index] else f"{kind} #{number}"
            name = name if name not in taken else f"{name} #{number}"
            taken.add(name)
            self._set_optimizer(index, name=name)

    def _set_optimizer(self, index: int, name: str) -> None:
        old = self.optimizers[index]
        if old.name != name:
            self.optimizers[index] = dataclasses.replace(old, name=name)
            self.changed.add(("optimizers", index))


def type_of(optimizer: OptimizerInfo) -> str:
    """Return the class's name of an optimizer, whose own name may have its variable behind it."""
    return optimizer.name.partition(" ")[0]


def living(kind: type[T]) -> list[T]:
    """Return all living instances of a class. One pass over the collector's objects, about 0.1 s in a large process."""
    return [o for o in gc.get_objects() if issubclass(type(o), kind)]  # isinstance would wake lazy proxies


def path_to(module: nn.Module, wanted: object) -> str:
    """Return the attributes and indexes that lead from a module to something in its plain lists, dicts and objects.

    ``blocks[0].0`` for the first layer of the first `Sequential` in the list ``self.blocks``; "" when it is not found.
    """
    for path, child in module.named_modules():
        for name, value in vars(child).items():
            if name in _TORCH_OWN:
                continue
            for inner, thing in _inside(value, 0):
                if thing is wanted:
                    return _joined(path, name + inner)
                if issubclass(type(thing), nn.Module):  # isinstance would wake lazy proxies
                    tail = next((p for p, m in thing.named_modules() if m is wanted), None)
                    if tail is None:
                        tail = next((p for p, m in thing.named_parameters() if m is wanted), None)
                    if tail is not None:
                        return _joined(_joined(path, name + inner), tail)
    return ""


_TORCH_OWN = frozenset(vars(nn.Module()))
_MANY = 1024  # elements of a container that are looked into: a list of samples is no list of layers


def _inside(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    yield "", value
    if depth < 4:
        if type(value) is list or type(value) is tuple:
            for i, item in enumerate(value[:_MANY]):
                yield from ((f"[{i}]{path}", thing) for path, thing in _inside(item, depth + 1))
        elif type(value) is dict and len(value) <= _MANY:
            for key, item in list(value.items()):
                yield from ((f"[{key!r}]{path}", thing) for path, thing in _inside(item, depth + 1))


def _own_parameters(module: nn.Module) -> Iterator[torch.Tensor]:
    held = module.__dict__.get("_parameters")  # a module whose __init__ has not run has none
    return (p for p in held.values() if p is not None) if isinstance(held, dict) else iter(())


def _children(module: nn.Module) -> Iterator[nn.Module]:
    held = module.__dict__.get("_modules")
    return (c for c in held.values() if c is not None) if isinstance(held, dict) else iter(())


def _topmost(module: nn.Module, above: Mapping[int, nn.Module]) -> nn.Module:
    seen = {id(module)}
    while (parent := above.get(id(module))) is not None and id(parent) not in seen:
        module = parent
        seen.add(id(module))
    return module


def _unwrapped(module: nn.Module) -> tuple[nn.Module, str]:
    """Return the module inside a wrapper such as DistributedDataParallel, and the path to be left out of names."""
    skipped = ""
    while (attribute := _WRAPPERS.get(type(module).__name__)) and isinstance(
        inner := module._modules.get(attribute), nn.Module
    ):
        module, skipped = inner, _joined(skipped, attribute)
    return module, skipped


def _without(path: str, skipped: str) -> str:
    return path[len(skipped) :].removeprefix(".") if skipped and (path + ".").startswith(skipped + ".") else path


def _has_children(module: nn.Module) -> bool:
    return bool(module.__dict__.get("_modules"))


def _joined(*parts: str) -> str:
    return ".".join(p for p in parts if p)


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    try:
        return tuple(tensor.shape)
    except RuntimeError:  # a lazy parameter has none yet
        return ()


def _settings(optimizer: torch.optim.Optimizer) -> Mapping[str, Any]:
    group = optimizer.param_groups[0] if optimizer.param_groups else {}
    kept = {k: v for k, v in group.items() if k != "params"}
    return {k: _plain(v) for k, v in kept.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return f"tensor on {value.device}" if value.device.type != "cpu" or value.numel() != 1 else value.item()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)
