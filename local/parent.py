"""When ``make`` is told to stop, it must reach us.

From a terminal, Ctrl-C reaches every process of the group. But ``kill -INT`` of ``make`` alone, which is what a script
does, makes it wait for us without a word, and ``kill -9`` of it leaves us behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil  # type: ignore[import-untyped]

LOOK_EVERY_S = 0.25


def _is_make(pid: int) -> bool:
    try:
        return str(psutil.Process(pid).name()) in ("make", "gmake")
    except psutil.Error:
        return False


def _catches_interrupts(pid: int) -> bool:
    """Whether the process has a handler for SIGINT; ``make`` takes its own away when it was interrupted (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGINT - 1))


async def gives_up() -> None:
    """Return when the ``make`` that started us was interrupted or is gone; never, when nothing of the kind did.

    One that ignores interrupts from the start, as in a shell's background, is only watched for being gone.
    """
    parent = os.getppid()
    if not _is_make(parent):
        await asyncio.Event().wait()
    hears = _catches_interrupts(parent)
    while os.getppid() == parent and _catches_interrupts(parent) == hears:  # noqa: ASYNC110  # nobody would set an event
        await asyncio.sleep(LOOK_EVERY_S)
