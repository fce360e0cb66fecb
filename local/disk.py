"""Is there room? A database on a full disk fails in a hundred ways; this says it in one."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from local.trouble import Trouble

LEAST_FREE_BYTES = 300 * 1024 * 1024
"""A cluster with the demo data and its write-ahead log is about half of this."""


def demand_room(folder: Path, least: int = LEAST_FREE_BYTES) -> None:
    """Refuse to start on a disk that is full or nearly so."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < least:
        raise Trouble(
            f"only {free // 2**20} MB are free on the disk of {folder}, and {least // 2**20} MB are needed; "
            "free some space and try again (`make reset` removes this stack's data)."
        )


def is_full(error: BaseException | str) -> bool:
    """Whether an error, or what a tool printed, means a full disk."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)


FULL = "the disk is full; free some space and try again (`make reset` removes this stack's data)."
