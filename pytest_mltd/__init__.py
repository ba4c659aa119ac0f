"""Turn a broken training run into a pytest test that fails for the right reason, and keep it as the monitor.

::

    import pytest_mltd as mltd

    def test_training_is_healthy():
        with mltd.record() as run:
            train()
        mltd.assert_healthy(run)

Names resolve on first use: importing this module imports nothing else. `dir` of it lists them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pytest_mltd.checks.runs import activations as activations
    from pytest_mltd.checks.runs import batches as batches
    from pytest_mltd.checks.runs import calls as calls
    from pytest_mltd.checks.runs import collapse as collapse
    from pytest_mltd.checks.runs import decay as decay
    from pytest_mltd.checks.runs import divergence as divergence
    from pytest_mltd.checks.runs import drift as drift
    from pytest_mltd.checks.runs import gradients as gradients
    from pytest_mltd.checks.runs import losses as losses
    from pytest_mltd.checks.runs import metrics as metrics
    from pytest_mltd.checks.runs import objective as objective
    from pytest_mltd.checks.runs import overfitting as overfitting
    from pytest_mltd.checks.runs import ownership as ownership
    from pytest_mltd.checks.runs import posterior as posterior
    from pytest_mltd.checks.runs import precision as precision
    from pytest_mltd.checks.runs import rates as rates
    from pytest_mltd.checks.runs import reductions as reductions
    from pytest_mltd.checks.runs import symmetry as symmetry
    from pytest_mltd.checks.runs import underflow as underflow
    from pytest_mltd.checks.runs import updates as updates
    from pytest_mltd.checks.runs.activations import *
    from pytest_mltd.checks.runs.batches import *
    from pytest_mltd.checks.runs.calls import *
    from pytest_mltd.checks.runs.collapse import *
    from pytest_mltd.checks.runs.decay import *
    from pytest_mltd.checks.runs.divergence import *
    from pytest_mltd.checks.runs.drift import *
    from pytest_mltd.checks.runs.gradients import *
    from pytest_mltd.checks.runs.losses import *
    from pytest_mltd.checks.runs.metrics import *
    from pytest_mltd.checks.runs.objective import *
    from pytest_mltd.checks.runs.overfitting import *
    from pytest_mltd.checks.runs.ownership import *
    from pytest_mltd.checks.runs.posterior import *
    from pytest_mltd.checks.runs.precision import *
    from pytest_mltd.checks.runs.rates import *
    from pytest_mltd.checks.runs.reductions import *
    from pytest_mltd.checks.runs.symmetry import *
    from pytest_mltd.checks.runs.underflow import *
    from pytest_mltd.checks.runs.updates import *
    from pytest_mltd.checks.tables import leakage as leakage
    from pytest_mltd.checks.tables import overlap as overlap
    from pytest_mltd.checks.tables import splits as splits
    from pytest_mltd.checks.tables.leakage import *
    from pytest_mltd.checks.tables.overlap import *
    from pytest_mltd.checks.tables.splits import *
    from pytest_mltd.core.extras import MissingExtra as MissingExtra
    from pytest_mltd.core.findings import CheckFailed as CheckFailed
    from pytest_mltd.core.findings import Diagnosis as Diagnosis
    from pytest_mltd.core.findings import Finding as Finding
    from pytest_mltd.core.findings import NotAsked as NotAsked
    from pytest_mltd.core.traces import Trace as Trace
    from pytest_mltd.diagnosis import assert_healthy as assert_healthy
    from pytest_mltd.diagnosis import diagnose as diagnose
    from pytest_mltd.probes import accumulation as accumulation
    from pytest_mltd.probes import determinism as determinism
    from pytest_mltd.probes import model as model
    from pytest_mltd.probes import replicas as replicas
    from pytest_mltd.probes import resume as resume
    from pytest_mltd.probes import rounding as rounding
    from pytest_mltd.probes import targets as targets
    from pytest_mltd.probes import training as training
    from pytest_mltd.probes import workers as workers
    from pytest_mltd.probes.accumulation import *
    from pytest_mltd.probes.determinism import *
    from pytest_mltd.probes.model import *
    from pytest_mltd.probes.replicas import *
    from pytest_mltd.probes.resume import *
    from pytest_mltd.probes.rounding import *
    from pytest_mltd.probes.targets import *
    from pytest_mltd.probes.training import *
    from pytest_mltd.probes.workers import *
    from pytest_mltd.recording.origin import locate_nonfinite as locate_nonfinite
    from pytest_mltd.recording.recorder import record as record
    from pytest_mltd.recording.running import run as run
    from pytest_mltd.recording.seeds import seed_everything as seed_everything
    from pytest_mltd.recording.slices import tiny as tiny

else:  # a type checker that saw this would take every misspelt name for Any
    # Where the few names live that are not checks. Checks, their twins and their families are found in their files, so
    # adding one edits nothing here.
    _HOME = {
        "CheckFailed": "core.findings",
        "Diagnosis": "core.findings",
        "Finding": "core.findings",
        "MissingExtra": "core.extras",
        "NotAsked": "core.findings",
        "Trace": "core.traces",
        "diagnose": "diagnosis",
        "locate_nonfinite": "recording.origin",
        "record": "recording.recorder",
        "run": "recording.running",
        "seed_everything": "recording.seeds",
        "tiny": "recording.slices",
    }
    # Where checks live. Their files are read for names, not imported: one question does not load the others' engines.
    _ASKING = ("checks", "probes", "diagnosis")
    _found = None

    def __getattr__(name):
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        families, homes = _look()
        if name in families:
            value = _import(families[name], name)
        elif name in homes:
            value = getattr(_import(homes[name], name), name)
        else:
            raise AttributeError(_unknown(name, [*families, *homes]), name=name)
        globals()[name] = value
        return value

    def __dir__():
        families, homes = _look()
        return sorted({"__version__", *families, *homes})

    def _look():
        """Return where each family and each name lives, read once from the files of the package."""
        global _found
        if _found is None:
            families, homes = {}, {}
            for module, source in _sources():
                names = _asked_in(source)
                homes.update(dict.fromkeys(names, module))
                if names and module != f"{__name__}.diagnosis":
                    families[module.rpartition(".")[2]] = module
            homes.update({name: f"{__name__}.{home}" for name, home in _HOME.items()})
            _found = families, homes
        return _found

    def _asked_in(source):
        import re

        return re.findall(r"^(?:def )?((?:check|assert)_[a-z]\w*)(?= = |: .* = |\(|\[)", source, re.MULTILINE)

    def _sources():
        """Yield (module, text) for every file where a check may live, without importing one."""
        import pkgutil
        from importlib.util import find_spec

        for package in _ASKING:
            spec = find_spec(f"{__name__}.{package}")
            waiting = [] if spec is None else [spec]
            while waiting:
                spec = waiting.pop(0)
                yield spec.name, _text(spec)
                inside = pkgutil.iter_modules(spec.submodule_search_locations or (), spec.name + ".")
                waiting += [m.module_finder.find_spec(m.name) for m in inside]

    def _text(spec):
        try:
            with open(spec.origin, encoding="utf-8") as file:
                return file.read()
        except OSError:  # inside a zip; the other way round would fail under pytest, whose loader has no `get_source`
            return spec.loader.get_source(spec.name) or ""

    def _import(module, name):
        from importlib import import_module

        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            from pytest_mltd.core.extras import missing

            better = missing(error, f"mltd.{name}")
            if better is error:
                raise
            raise better from None

    def _unknown(name, known):
        from difflib import get_close_matches

        near = get_close_matches(name, known, n=1)
        return f"module {__name__!r} has no attribute {name!r}" + (f"; the nearest is {near[0]!r}" if near else "")
