"""Where evidence comes from: the commit, what differs from it, the environment, the time.

Git is asked by its own command, with a time limit, without taking its locks; a folder without git, or a machine without it, is
fine. Package versions are read from their metadata: nothing is imported for it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

GIT_TIMEOUT = 3.0  # seconds for the questions that read the whole tree; the largest repositories answer in about one
GIT_PATIENCE = 10.0  # seconds for those that take milliseconds on a machine that is not stalled
MAX_FILES = 3_000  # files whose content goes into the digest of the tree; of further ones size and time of change
MAX_BYTES = 32 * 2**20  # bytes read for that digest, 0.02 s of sha256
PACKAGES = (
    "torch numpy pandas polars pyarrow duckdb narwhals scikit-learn scipy lightning pytorch-lightning transformers "
    "accelerate safetensors great-expectations pytest pytest-xdist pytest-mltd"
).split()
VARIABLES = (
    "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS ATEN_CPU_CAPABILITY CUBLAS_WORKSPACE_CONFIG "
    "CUDA_VISIBLE_DEVICES PYTHONHASHSEED"
).split()
CODE = frozenset(
    ".py .pyi .pyx .ipynb .toml .yaml .yml .cfg .ini .sh .c .cc .cpp .cu .h .hpp .cuh .patch .diff".split()
)
# A git hook that runs pytest exports these, and git would answer for another folder.
ELSEWHERE = frozenset("GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_OBJECT_DIRECTORY GIT_PREFIX".split())
DOCUMENTS = frozenset([".md", ".rst"])
# What we, and people, write into a folder `incidents`: no part of the code.
OURS = frozenset([".jsonl", ".md", ".toml"])


def provenance(rootdir: str | Path | None = None, *, fresh: bool = False) -> dict[str, Any]:
    """Return where and when this is: plain values, about 0.1 s the first time in a process, then only the time is new.

    ``commit``, ``committed`` (its time), ``branch`` and ``dirty`` are git's, "" and False without it. ``tree`` is a digest of
    what differs from the commit (changed files, and code that git does not know yet), or of all code below ``rootdir``
    where there is no git; "" means that nothing differs. ``code`` is a digest of all files as they are, the same for two
    commits between which only a ledger or a document changed. A ledger, a report and an untracked file that is no code
    count for neither: they are written by the very run. ``environment`` has Python, the system, the versions of the
    usual packages and the variables that change bits. ``time`` is UTC, ISO 8601.

    Ask before the tests run: the state is then the one whose code was imported. ``fresh`` asks git again, for a process
    that holds several test sessions.
    """
    if fresh:
        _code_facts.cache_clear()
    root = os.path.realpath(rootdir or os.getcwd())
    facts = dict(_code_facts(root))
    return {**facts, "environment": {**_environment(), **_accelerator()}, "time": now()}


def now() -> str:
    """Return the time as UTC to the second, "2026-11-24T12:00:00+00:00"."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def source_digest(function: Callable[..., Any]) -> str:
    """Return a digest of a test's own source, so that a test changed between red and green is noticed.

    Comments, formatting, the docstring and the marker that ties it to an incident are left out. Functions that the
    test calls are not seen. Returns "" where there is no source.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError, ValueError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.decorator_list = [d for d in node.decorator_list if "mark.mltd(" not in ast.unparse(d)]
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def committed_bytes(path: str | Path) -> bytes | None:
    """Return a file as the last commit has it; None when git does not know it, or there is no git."""
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        return None
    return _git(str(path.parent), "show", f"HEAD:./{path.name}")


@functools.cache
def _code_facts(root: str) -> dict[str, Any]:
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None:
        found = _digest_of_code(root)
        return {"commit": "", "committed": "", "branch": "", "dirty": False, "tree": found, "code": found}
    folder = os.fsdecode(top).rstrip("\n")
    status = _status(folder)
    head = dict(line[2:].split(" ", 1) for line in status if line.startswith("# ") and " " in line[2:])
    commit = head.get("branch.oid", "").strip()
    if not status or commit == "(initial)":
        # Nothing is committed yet, or git took too long: the code itself has to do.
        commit, found = commit if commit != "(initial)" else "", _digest_of_code(root)
        return {"commit": commit, "committed": "", "branch": "", "dirty": True, "tree": found, "code": found}
    changed = [entry for entry in map(_entry, status) if entry is not None]
    return {
        "commit": commit,
        "committed": _commit_time(folder),
        "branch": "" if head.get("branch.head") == "(detached)" else head.get("branch.head", ""),
        "dirty": bool(changed),
        "tree": _digest(folder, changed) if changed else "",
        "code": _digest_of_all(folder, [path for path, _ in changed]),
    }


def _status(folder: str) -> list[str]:
    """Return git's porcelain lines; without the untracked files where looking for them takes too long."""
    asked = ("status", "--porcelain=v2", "--branch", "-z", "--no-renames")
    answer = _git(folder, *asked, "--untracked-files=all", timeout=GIT_TIMEOUT)
    if answer is None:
        answer = _git(folder, *asked, "--untracked-files=no", timeout=GIT_TIMEOUT)
    return [os.fsdecode(line) for line in (answer or b"").split(b"\0") if line]


def _entry(line: str) -> tuple[str, str] | None:
    """Return (path, what git says of it) of one porcelain line that counts as a change of the code, or None."""
    kind = line[:1]
    fields = {"1": 8, "u": 10, "?": 1}.get(kind)
    if fields is None:
        return None
    path = line.split(" ", fields)[-1]
    if _is_ours(path) or (kind == "?" and os.path.splitext(path)[1] not in CODE):
        return None
    return path, line.split(" ")[2] if kind in "1u" else "?"


def _is_ours(path: str) -> bool:
    """Tell whether a path is a ledger, a report or a story, which the run itself changes."""
    folder, _, name = path.rpartition("/")
    parts = folder.split("/")
    return ".mltd" in parts or ("incidents" in parts and os.path.splitext(name)[1] in OURS)


def _digest_of_all(folder: str, changed: Iterable[str]) -> str:
    """Return a digest of every file that counts, by git's own digests, those of changed files computed as git would."""
    listing = _git(folder, "ls-tree", "-r", "-z", "--full-tree", "HEAD", timeout=GIT_TIMEOUT)
    if listing is None:
        return ""
    files: dict[str, str] = {}
    for line in os.fsdecode(listing).split("\0"):
        said, _, path = line.partition("\t")
        if path and not _is_ours(path) and os.path.splitext(path)[1] not in DOCUMENTS:
            files[path] = said.split(" ")[-1]
    budget = MAX_BYTES
    for path in sorted(changed):
        if os.path.splitext(path)[1] in DOCUMENTS:
            continue
        content, used = _content(os.path.join(folder, path), budget, as_git=True)
        budget -= used
        files[path] = content
    total = hashlib.sha256()
    for path, content in sorted(files.items()):
        if content != "gone":
            total.update(f"{path}\0{content}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()[:16]


def _commit_time(folder: str) -> str:
    answer = _git(folder, "show", "-s", "--format=%ct", "HEAD")
    try:
        return datetime.fromtimestamp(int(answer or b""), UTC).isoformat(timespec="seconds")
    except (ValueError, OSError, OverflowError):
        return ""


def _git(folder: str, *arguments: str, timeout: float | None = None) -> bytes | None:
    """Ask git; None when there is no git, no repository, or no answer in time."""
    environment = {k: v for k, v in os.environ.items() if k not in ELSEWHERE}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", folder, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=GIT_PATIENCE if timeout is None else timeout,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout if done.returncode == 0 else None


def _digest_of_code(root: str) -> str:
    paths = sorted(_code_below(root))
    return _digest(root, [(p, "") for p in paths]) if paths else ""


def _code_below(root: str) -> Iterator[str]:
    """Yield the code files below a folder, relative to it, virtual environments and hidden folders left out."""
    looked = 0
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not skipped(folder, n))
        looked += 1 + len(files)
        if looked > 20 * MAX_FILES:  # a home folder, say: whatever was found until here has to do
            return
        for name in files:
            if Path(name).suffix in CODE and not (Path(folder).name == "incidents" and Path(name).suffix in OURS):
                yield os.path.relpath(os.path.join(folder, name), root)


def skipped(folder: str, name: str) -> bool:
    """Tell whether a folder holds no code of the project: hidden, installed, or generated."""
    if name.startswith(".") or name in ("__pycache__", "node_modules", "site-packages", "build", "dist"):
        return True
    return os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))


def _digest(folder: str, entries: Iterable[tuple[str, str]]) -> str:
    total = hashlib.sha256()
    budget = MAX_BYTES
    for number, (path, said) in enumerate(sorted(entries)):
        content, used = _content(os.path.join(folder, path), budget if number < MAX_FILES else 0)
        budget -= used
        total.update(f"{path}\0{said}\0{content}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()[:16]


def _content(path: str, budget: int, *, as_git: bool = False) -> tuple[str, int]:
    """Return what stands for a file's content, and the bytes read for it."""
    try:
        if os.path.islink(path):
            return f"link {os.readlink(path)}", 0
        found = os.stat(path)
        if not os.path.isfile(path):
            return "no file", 0
        if found.st_size > budget:
            return f"{found.st_size} bytes of {found.st_mtime_ns}", 0
        data = Path(path).read_bytes()
    except OSError:
        return "gone", 0
    if as_git:
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest(), len(data)
    return hashlib.sha256(data).hexdigest(), len(data)


@functools.cache
def _environment() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": os.cpu_count() or 0,
    }
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except Exception:  # not installed, or its metadata is broken: either way there is no version to tell
            continue
    return facts | {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            line = next((line for line in file.read(8192).splitlines() if line.startswith("model name")), "")
    except OSError:
        line = ""
    return line.partition(":")[2].strip() or platform.processor()


def _accelerator() -> dict[str, str]:
    """Name the accelerator if this process already uses one; asking must not wake it."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            return {"accelerator": str(torch.cuda.get_device_name())}
    except Exception:  # a half-imported or stubbed torch: then there is nothing to name
        pass
    return {}
