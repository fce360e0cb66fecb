"""What a part of the stack is: a process, how to start it, and how to tell that it is ready."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Probe = Callable[[], Awaitable[bool]]
"""Asks a part once whether it is ready. May raise `OSError` or `TimeoutError`, which mean no."""


@dataclass(frozen=True)
class Account:
    """The user a part runs as, where that is not whoever started the stack."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of the stack."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the supervisor."""
    cwd: Path
    needs: tuple[str, ...] = ()
    """Parts it cannot do without: a stack that has this one has them, and they are ready before it starts."""
    after: tuple[str, ...] = ()
    """Parts that must be ready before this one starts, in a stack that has them."""
    probe: Probe | None = None
    """None: ready when it has run for a second."""
    patience_s: float = 30
    """How long it may take to become ready."""
    prepare: Callable[[], Awaitable[None]] | None = None
    """Done once before the first start, while the parts it needs may still be starting."""
    once: bool = False
    """A task rather than a server: ready when it ended well, and never restarted."""
    address: str | None = None
    """``host:port`` it listens on."""
    url: str | None = None
    """What a client of a store opens; holds its password."""
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_patience_s: float = 10
    """How long it may take to stop before it is killed."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """What it gets from the kernel (Linux) when the supervisor dies without stopping it."""
