"""Writing files that others read while they change."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write ``path`` so that a reader sees the old content or the new one, never half of it."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def secret(path: Path) -> str:
    """The secret kept in ``path``, made on first use and readable by its owner alone."""
    if not path.exists():
        replace(path, secrets.token_urlsafe(32).encode(), 0o600)
    return path.read_text()
