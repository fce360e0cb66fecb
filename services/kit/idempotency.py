"""One effect for a request that comes several times: ``request_id`` names it, its content must be the same.

The answer is stored in the effect's own transaction (``kit/migrations.py`` makes the table); refusals are not stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from services.kit.database import Connection, session_of
from services.kit.errors import RequestIdReused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection as AlchemyConnection

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer, and of which request: the full name of its message and a hash of its content."""

    method: str
    content: bytes
    answer: bytes

    @classmethod
    def of(cls, request: Message, answer: Message) -> StoredAnswer:
        return cls(request.DESCRIPTOR.full_name, content_hash(request), answer.SerializeToString())

    def to(self, request: Message, answer_type: type[Answer]) -> Answer:
        """What to answer ``request``, which has the id that this was stored under.

        Raises:
            RequestIdReused: it has other content.
        """
        if (self.method, self.content) != (request.DESCRIPTOR.full_name, content_hash(request)):
            raise RequestIdReused
        return answer_type.FromString(self.answer)


def content_hash(request: Message) -> bytes:
    """16 bytes that stand for a request's whole content."""
    return hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()


async def once(
    connection: Connection | AlchemyConnection,
    *,
    caller: str,
    request: Message,
    answer_type: type[Answer],
    effect: Callable[[], Awaitable[Answer]],
) -> Answer:
    """Do ``effect`` and store its answer, or give the stored one; ``connection`` must be in a transaction.

    Calls with one id wait for each other (a transaction-wide advisory lock). A request without an id is simply done.

    Raises:
        RequestIdReused: the id came before with other content.
    """
    request_id: str = getattr(request, "request_id", "")
    if not request_id:
        return await effect()
    session = await session_of(connection)
    await session.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{caller}/{request_id.lower()}",))
    earlier = await stored_answer(session, caller=caller, request_id=request_id)
    if earlier is not None:
        return earlier.to(request, answer_type)
    answer = await effect()
    stored = StoredAnswer.of(request, answer)
    cursor = await session.execute(
        """
        INSERT INTO requests (caller, request_id, method, content, answer)
        VALUES (%s, %s::uuid, %s, %s, %s)
        ON CONFLICT DO NOTHING
        """,
        (caller, request_id, stored.method, stored.content, stored.answer),
    )
    if not cursor.rowcount:
        raise RequestIdReused  # by a call that stores its answer without waiting for the lock
    return answer


async def stored_answer(connection: Connection, *, caller: str, request_id: str) -> StoredAnswer | None:
    """What was answered to an earlier request with this id."""
    cursor = await connection.execute(
        """
        SELECT method, content, answer
        FROM requests
        WHERE caller = %s
          AND request_id = %s::uuid
        """,
        (caller, request_id),
    )
    row = await cursor.fetchone()
    return StoredAnswer(row[0], bytes(row[1]), bytes(row[2])) if row else None
