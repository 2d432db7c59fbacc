"""What runs here: versions, processor, threads, accelerator; for `warpdraw info` and for measurements."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from . import __version__

# The instruction sets that the CPU kernels may use.
FEATURES = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_bf16")


def environment() -> dict[str, Any]:
    """A record of the software and the machine; every value is plain data."""
    return {
        "warpdraw": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": package_version("triton"),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu(),
    }


def package_version(name: str) -> str | None:
    """The version of an installed package, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's own name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Those of FEATURES that the processor has."""
    flags = set(_cpuinfo().get("flags", "").split())
    return [feature for feature in FEATURES if feature in flags]


def gpu() -> dict[str, Any]:
    """The CUDA device, or the reason why there is none."""
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        return {
            "available": True,
            "name": torch.cuda.get_device_name(),
            "capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
        }
    reason = "this torch was built without CUDA" if torch.version.cuda is None else "no CUDA device was found"
    return {"available": False, "reason": reason}


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
