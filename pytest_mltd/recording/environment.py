"""The settings that change bits, and where a run was made."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from pytest_mltd.recording import digests

_VARIABLES = (
    "PYTHONHASHSEED",
    "CUBLAS_WORKSPACE_CONFIG",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_CBWR",
)


def settings() -> dict[str, Any]:
    """Return what decides the bits of a result besides the program: threads, kernels, determinism, precision.

    Two runs whose settings differ are not expected to be equal bit for bit (measured for threads, CPU capability, oneDNN).
    """
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": bool(
            torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and torch._C._get_mkldnn_enabled()
        ),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "digest": digests.ALGORITHM,
        **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # asking must not start CUDA
        found |= {
            "device": torch.cuda.get_device_name(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
        }
    return found


def provenance() -> dict[str, Any]:
    """Return where a run was made: versions, platform, command, working folder, commit, time."""
    numpy = sys.modules.get("numpy")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": getattr(numpy, "__version__", ""),
        "platform": platform.platform(),
        "argv": list(sys.argv),
        "folder": os.getcwd(),
        "commit": commit_of(Path.cwd()),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "process": os.getpid(),
    }


def commit_of(folder: Path) -> str:
    """Return the commit that a folder's checkout stands on, read from its files; "" outside of git or when unreadable."""
    try:
        place = next((p / ".git" for p in (folder, *folder.parents) if (p / ".git").exists()), None)
        if place is None:
            return ""
        if place.is_file():  # a worktree points to its place
            place = (place.parent / place.read_text().partition("gitdir:")[2].strip()).resolve()
        head = (place / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        return _resolved(place, head.removeprefix("ref: "))
    except OSError:
        return ""


def _resolved(place: Path, ref: str) -> str:
    common = place / "commondir"
    shared = (place / common.read_text().strip()).resolve() if common.exists() else place
    for folder in (place, shared):
        if (folder / ref).exists():
            return (folder / ref).read_text().strip()
    packed = shared / "packed-refs"
    lines = packed.read_text().splitlines() if packed.exists() else []
    return next((line.split()[0] for line in lines if line.endswith(" " + ref)), "")
