"""Keyset paging in SQL: conditions gathered, one row more than asked read to learn whether there is a next page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import text
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

Item = TypeVar("Item")
SortKey = list[str | int | float]
"""Where a page begins: the sort key of the row before it, as a page token carries it."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some rows in order; ``after`` is the last one's sort key when more follow."""

    items: Sequence[Item]
    after: SortKey | None


@dataclass(slots=True)
class Where:
    """Conditions that all must hold, with their parameters."""

    conditions: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def add(self, condition: str, **parameters: Any) -> None:
        self.conditions.append(condition)
        self.parameters.update(parameters)

    def __str__(self) -> str:
        return "\n  AND ".join(self.conditions) if self.conditions else "TRUE"


async def rows_of_page(
    connection: AsyncConnection, select: str, where: Where, order: str, size: int
) -> tuple[Sequence[RowMapping], bool]:
    """At most ``size`` rows, and whether more follow."""
    statement = f"{select}\nWHERE {where}\nORDER BY {order}\nLIMIT :size"
    found = (await connection.execute(text(statement), {**where.parameters, "size": size + 1})).mappings().all()
    return found[:size], len(found) > size
