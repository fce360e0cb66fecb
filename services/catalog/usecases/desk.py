"""What changing the catalogue needs: a transaction, and caches that never tell what it replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.caches import SHOW_PAGES, Cached, Caches
from services.kit.clock import Clock
from services.kit.replicas import Reads

LOCK = "FOR NO KEY UPDATE"
"""Of the row that a change replaces: others may go on referring to it, nobody may change it or depend on its state."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change under way, and what it makes stale."""

    connection: AsyncConnection
    stale: dict[Cached, list[str]] = field(default_factory=dict)

    def makes_stale(self, kind: Cached, ids: Iterable[UUID]) -> None:
        self.stale.setdefault(kind, []).extend(map(str, ids))


@dataclass(frozen=True, slots=True)
class Desk:
    """Where an administrator works. ``reads`` are those of this process, which then show what was changed."""

    engine: AsyncEngine
    reads: Reads[AsyncEngine]
    caches: Caches
    clock: Clock

    @asynccontextmanager
    async def change(self) -> AsyncIterator[Change]:
        """One transaction, committed when the block ends well. What it makes stale is forgotten before and after."""
        async with self.engine.begin() as connection:
            change = Change(connection)
            yield change
            await self._forget(change)
        self.reads.wrote()
        await self._forget(change)
        self.caches.forget_all(SHOW_PAGES)  # whoever changed something sees it in this process's lists at once

    async def _forget(self, change: Change) -> None:
        for kind, keys in change.stale.items():
            await self.caches.forget(kind, keys)


def pick(wish: Any, fields: Iterable[str]) -> dict[str, Any]:
    """The values that ``wish`` has in ``fields``."""
    return {name: getattr(wish, name) for name in fields}
