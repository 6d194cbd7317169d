"""Where a figure comes from: package versions, the commit, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy")


def provenance() -> dict[str, str]:
    """Versions of everything that shapes a result, and the commit."""
    return versions() | {"commit": commit()}


def versions() -> dict[str, str]:
    """Version of Python and of every package that shapes a result, where installed."""
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def commit() -> str:
    """The clone's commit, with "-dirty" where files differ from it; "unknown" outside a clone."""
    if not (ROOT / ".git").exists():
        return "unknown"
    command = ["git", "describe", "--always", "--dirty"]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()


def machine() -> str:
    """Processor and number of cores in words."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"
