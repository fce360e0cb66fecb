"""What the machine's parts spend while something is measured."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]


def describe() -> str:
    """Processor, cores, memory, system, Python: what figures mean nothing without."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123 - not a file of ours
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    memory = psutil.virtual_memory().total / 2**30
    load = psutil.getloadavg()[0]
    system = f"{platform.system()} {platform.release()}"
    python = f"Python {platform.python_version()} of {sys.base_prefix}"
    return f"{name}, {psutil.cpu_count()} cores, {memory:.0f} GiB, {system}, {python}, load {load:.1f}"


@dataclass
class Spending:
    """CPU seconds of process trees since it was made."""

    roots: Mapping[str, int]

    def __post_init__(self) -> None:
        self._started = time.perf_counter()
        self._before = {name: _cpu(pid) for name, pid in self.roots.items()}

    def so_far(self) -> dict[str, float]:
        return {name: max(0.0, _cpu(pid) - self._before[name]) for name, pid in self.roots.items()}


def _cpu(pid: int) -> float:
    """Of a process and its children, the ended ones included."""
    total = 0.0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        ended = root.cpu_times()
        total += ended.children_user + ended.children_system
    except psutil.NoSuchProcess:
        pass
    return total
