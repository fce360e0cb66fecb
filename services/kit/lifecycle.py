"""Whether the process is about to stop; streams tell their viewers to reconnect when it is."""

from __future__ import annotations

import asyncio


class Lifecycle:
    """Shared by the server and whatever has long work in hand."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
