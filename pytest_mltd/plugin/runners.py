"""Where a trial of a test runs: in a fork of this process, or in a fresh interpreter. What comes back is plain data.

In the child the test's reports are kept instead of being told to the session: nothing of a trial is printed, counted or written
to a JUnit file before the parent knows what came of all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

from pytest_mltd.plugin import planting
from pytest_mltd.plugin.trial import Trial, trying
from pytest_mltd.probes import children, witness

if TYPE_CHECKING:
    from pytest_mltd.core.findings import Finding
    from pytest_mltd.core.trials import Condition, Outcome

TRIAL_FILE = "MLTD_TRIAL"  # names the folder of a trial to the interpreter that runs it
# Whether this session was started so that the working folder can be imported from (``python -m pytest``), or not (``pytest``).
_SEES_FOLDER = "" in sys.path or os.getcwd() in sys.path
# What would make the inner pytest do more, or something else, than run one test.
SCRUBBED = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_", TRIAL_FILE)


NEUTRAL: Mapping[str, Any] = {
    "numprocesses": None, "dist": "no", "tx": [], "maxfail": 0, "xmlpath": None, "usepdb": False, "trace": False,
    "lf": False, "failedfirst": False, "newfirst": False, "cacheclear": False, "stepwise": False, "stepwise_skip": False,
    "cacheshow": None, "collectonly": False, "keyword": "", "markexpr": "", "deselect": None, "report_log": None,
    "htmlpath": None, "mltd_repro": False, "mltd_incident": "",
}  # fmt: skip


@dataclass(slots=True)
class Ran:
    """One run of a test: how it ended, and what the session has to be told of it."""

    outcome: Outcome
    reports: list[pytest.TestReport] = field(default_factory=list)
    extra: Mapping[str, Any] = field(default_factory=dict)
    hung: bool = False
    unsafe: bool = False  # no fork of this process will come to work

    @property
    def reread(self) -> list[str]:
        return list(self.extra.get("witness", {}).get("reread", ()))

    @property
    def drawn(self) -> list[tuple[str, str]]:
        return [(what, line) for what, line in self.extra.get("witness", {}).get("drawn", ())]


def run_here(item: pytest.Item, condition: Condition, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a test in this process, which exists for nothing else, and return what is to be told of it.

    Args:
        item: the test.
        condition: what is imposed on it.
        job: ``folder`` for its traces; ``before_ns``, ``began_ns`` and ``protected`` as for `witness.watch`; ``strict``:
            whether a write to a file that was there before always ends the run, or only once the test has used mltd;
            ``watch``: the step from which on to look for the operation that makes it not finite, None not to.
    """
    folder = Path(job["folder"])
    folder.mkdir(exist_ok=True)
    witness.go_offline(str(folder))
    reports: list[pytest.TestReport] = []
    tell_only(reports, item.session)
    _keep_examples_apart()
    with warnings.catch_warnings(record=True) as warned, trying(item, condition) as trial, _watching(job) as born:
        seen = witness.watch(
            before_ns=job["before_ns"],
            began_ns=job["began_ns"],
            protected=job["protected"],
            forbids=lambda: job["strict"] or trial.used or _is_recording(),
        )
        left = ""
        try:
            runtestprotocol(item, log=True, nextitem=None)
        except pytest.exit.Exception as leaving:
            left = f"exit: {leaving.msg}"
        except KeyboardInterrupt:
            left = "interrupt"
    return {
        "left": left,
        "outcome": trial.outcome(_saved(trial, folder), seen.wrote, tuple(map(witness.near, seen.changed))).as_dict(),
        "reports": [item.config.hook.pytest_report_to_serializable(config=item.config, report=r) for r in reports],
        "warnings": [_plain_warning(w) for w in warned],
        "loaded": children.loaded(),
        "witness": seen.as_dict(),
        "baselines": trial.baselines,
        "notes": trial.notes,
        "metrics": trial.metrics,
        "sliced": trial.sliced,
        "born": None if (found := born()) is None else found.as_dict(),
        "fault": planting.account_of(trial),
    }


@contextlib.contextmanager
def _watching(job: Mapping[str, Any]) -> Iterator[Callable[[], Finding | None]]:
    if job.get("watch") is None:
        yield lambda: None
        return
    from pytest_mltd.recording.origin import watching

    with watching(job["watch"]) as born:
        yield born


def in_fork(item: pytest.Item, condition: Condition, job: Mapping[str, Any], threads: int | None, still: float) -> Ran:
    """Run a test in a fork of this process."""
    terminal = item.config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None:
        terminal.flush()
    try:
        ended = children.in_child(lambda: run_here(item, condition, job), still=still, threads=threads)
    except pytest.fail.Exception as error:  # a time limit of another plugin's, raised out of our waiting
        return _died(item, str(error))
    if ended.payload is None:
        ran = _died(item, ended.reason, hung=ended.hung)
        ran.unsafe = ended.unsafe
        return ran
    return _received(item, ended.payload)


def in_fresh_interpreter(item: pytest.Item, condition: Condition, job: Mapping[str, Any], still: float) -> Ran:
    """Run a test in a new process that starts pytest as this one was started and runs this one test."""
    config, folder = item.config, Path(job["folder"])
    folder.mkdir(exist_ok=True)
    (folder / "trial.json").write_text(json.dumps({"nodeid": item.nodeid, "condition": asdict(condition), **job}))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(SCRUBBED)}
    environment[TRIAL_FILE] = str(folder)
    if condition.hash_seed is not None and "PYTHONHASHSEED" not in environment:
        environment["PYTHONHASHSEED"] = str(condition.hash_seed)
    with open(folder / "output", "w+b") as output:
        process = subprocess.Popen(
            [sys.executable, *([] if _SEES_FOLDER else ["-P"]), "-m", "pytest", *_arguments(config, folder)],
            cwd=config.invocation_params.dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        reason = children.wait_for(process, still)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    result = folder / "result.json"
    if result.exists():
        return _received(item, json.loads(result.read_text()))
    if reason:
        return _died(item, reason)
    return _undecided(item, f"the fresh interpreter did not run the test: {_last_line(printed)}")


class Guest:
    """The plugin of the inner pytest: it runs the one test that it was started for, and writes down what came of it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.job = json.loads((self.folder / "trial.json").read_text())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Iterator[None]:
        """Take back what the outer session's arguments ask of the whole session: workers, files, other tests."""
        option = config.option
        for name, neutral in {**NEUTRAL, "basetemp": str(self.folder / "tmp")}.items():
            if hasattr(option, name):
                setattr(option, name, neutral)
        path = self.job["nodeid"].partition("::")[0]
        config.args = option.file_or_dir = [str(config.rootpath / path)]
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid == self.job["nodeid"]][:1]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool:
        from pytest_mltd.core.trials import Condition

        payload = run_here(item, Condition(**self.job["condition"]), self.job)
        part = self.folder / "result.part"
        part.write_text(json.dumps(payload, default=str))
        part.rename(self.folder / "result.json")
        children.stop_workers()
        return True


def show_warnings(ran: Ran) -> None:
    """Let this session see the warnings of a run in a child."""
    for w in ran.extra.get("warnings", ()):
        warnings.showwarning(w["message"], _category(w["category"]), w["filename"], w["lineno"])


def failing(
    item: pytest.Item, reports: list[pytest.TestReport], message: str, sections: tuple[tuple[str, str], ...] = ()
) -> list[pytest.TestReport]:
    """Return the reports of a test with its call failing with a message of ours; what it printed is kept."""
    reports = reports or [_report(item, when) for when in ("setup", "call", "teardown")]
    call = next((r for r in reports if r.when == "call" and not hasattr(r, "context")), None)
    if call is None:  # it ended in its set-up
        call = reports[0]
    call.outcome = "failed"
    call.longrepr = _longrepr(item, message)
    call.sections.extend(sections)
    if hasattr(call, "wasxfail"):
        del call.wasxfail
    return reports


def _longrepr(item: pytest.Item, message: str) -> Any:
    """Return a failure as pytest keeps it, so that its first line stands in the short summary too."""
    from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback

    path, line, _ = item.location
    return ReprExceptionInfo(
        reprtraceback=ReprTraceback([ReprEntryNative([message + "\n"])], None, "native"),
        reprcrash=ReprFileLocation(str(item.config.rootpath / path), (line or 0) + 1, message),
    )


def _report(item: pytest.Item, when: Any) -> pytest.TestReport:
    now = time.time()
    keywords: Any = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(
        item.nodeid, item.location, keywords, "passed", None, when, duration=0, start=now, stop=now
    )


def tell_only(heard: list[pytest.TestReport], session: pytest.Session) -> None:
    """Keep reports from the session in this child. The `subtests` fixture tells its own, whatever ``log=`` says."""
    real = session.gethookproxy

    class Deaf:
        def __init__(self, path: os.PathLike[str]) -> None:
            self._hooks = real(path)

        def __getattr__(self, name: str) -> Any:
            return _listen if name == "pytest_runtest_logreport" else getattr(self._hooks, name)

    def _listen(report: pytest.TestReport) -> None:
        heard.append(report)

    session.gethookproxy = Deaf  # type: ignore[assignment,method-assign]


def _keep_examples_apart() -> None:
    """Let no run of a trial find the failing examples that an earlier one saved: it would begin with them."""
    database = sys.modules.get("hypothesis.database")
    for name in ("save", "delete", "move"):
        kind = getattr(database, "DirectoryBasedExampleDatabase", None)
        if kind is not None:
            setattr(kind, name, lambda *args, **kwargs: None)


def _is_recording() -> bool:
    hooks = sys.modules.get("pytest_mltd.recording.hooks")  # not imported for this: it imports torch
    return hooks is not None and bool(hooks.installed())


def _saved(trial: Trial, folder: Path) -> tuple[str, ...]:
    paths = []
    for number, trace in enumerate(trial.observed.traces):
        paths.append(str(trace.save(folder / f"{number}.mltd")))
    return tuple(paths)


def _received(item: pytest.Item, payload: Mapping[str, Any]) -> Ran:
    from pytest_mltd.core.trials import outcome_from_dict

    if payload["left"].startswith("exit: "):
        pytest.exit(payload["left"].removeprefix("exit: "))
    if payload["left"]:
        raise KeyboardInterrupt
    reports = [
        item.config.hook.pytest_report_from_serializable(config=item.config, data=_with_tuples(data))
        for data in payload["reports"]
    ]
    return Ran(outcome_from_dict(payload["outcome"]), reports, payload)


def _with_tuples(data: dict[str, Any]) -> dict[str, Any]:
    """Give a report back the tuples that JSON made lists of; pytest looks for them."""
    for name in ("longrepr", "location"):
        if isinstance(data.get(name), list):
            data[name] = tuple(data[name])
    for name in ("sections", "user_properties"):
        data[name] = [tuple(pair) for pair in data.get(name, ())]
    return data


def _died(item: pytest.Item, reason: str, *, hung: bool = False) -> Ran:
    from pytest_mltd.core.trials import Outcome, fingerprint

    outcome = Outcome(kind="failed", fingerprint=fingerprint("died", reason, item.nodeid), text=reason)
    return Ran(
        outcome, failing(item, [], f"the test's process did not come to its end: {reason}", _printed(item)), hung=hung
    )


def _undecided(item: pytest.Item, reason: str) -> Ran:
    from pytest_mltd.core.trials import Outcome

    return Ran(Outcome(kind="undecided", reason=reason), failing(item, [], reason))


def _printed(item: pytest.Item) -> tuple[tuple[str, str], ...]:
    """Return what a child wrote before it died: it wrote to this process's own capture files."""
    capture = item.config.pluginmanager.getplugin("capturemanager")
    try:
        out, err = capture.read_global_capture()
    except (AttributeError, AssertionError):  # capturing is off
        return ()
    return tuple((f"Captured {name} call", text) for name, text in (("stdout", out), ("stderr", err)) if text)


def _arguments(config: pytest.Config, folder: Path) -> list[str]:
    given = [str(a) for a in config.invocation_params.args]
    early = [a for name in os.environ.get("PYTEST_PLUGINS", "").split(",") if name for a in ("-p", name)]
    cache = ["-o", f"cache_dir={folder / 'cache'}"] if config.pluginmanager.hasplugin("cacheprovider") else []
    return [*early, *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *given, *cache]


def _plain_warning(warned: warnings.WarningMessage) -> dict[str, Any]:
    kind = warned.category
    return {
        "message": str(warned.message),
        "category": f"{kind.__module__}:{kind.__qualname__}",
        "filename": warned.filename,
        "lineno": warned.lineno,
    }


def _category(name: str) -> type[Warning]:
    module, _, attribute = name.partition(":")
    found = getattr(sys.modules.get(module), attribute, UserWarning)
    return found if isinstance(found, type) and issubclass(found, Warning) else UserWarning


def _last_line(text: str) -> str:
    lines = [line.strip("= ") for line in text.splitlines() if line.strip("= ")]
    return next(
        (line for line in lines if line.startswith(("ERROR", "E  "))), lines[-1] if lines else "it said nothing"
    )
