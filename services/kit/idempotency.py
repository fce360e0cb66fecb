"""One effect for a request that comes several times: ``request_id`` names it, its content must be the same.

For services that write with SQLAlchemy. The answer is stored in the effect's own transaction; refusals are not stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.errors import RequestIdReused

Answer = TypeVar("Answer", bound=Message)


def content_hash(request: Message) -> bytes:
    """16 bytes that stand for a request's whole content."""
    return hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()


async def once(
    connection: AsyncConnection,
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
    method = request.DESCRIPTOR.full_name
    content = content_hash(request)
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"{caller}/{request_id.lower()}"}
    )
    row = (
        await connection.execute(
            text("SELECT method, content, answer FROM requests WHERE caller = :caller AND request_id = :request_id"),
            {"caller": caller, "request_id": request_id},
        )
    ).one_or_none()
    if row is not None:
        if row.method != method or bytes(row.content) != content:
            raise RequestIdReused
        return answer_type.FromString(bytes(row.answer))
    answer = await effect()
    await connection.execute(
        text("""
            INSERT INTO requests (caller, request_id, method, content, answer)
            VALUES (:caller, :request_id, :method, :content, :answer)
        """),
        {
            "caller": caller,
            "request_id": request_id,
            "method": method,
            "content": content,
            "answer": answer.SerializeToString(),
        },
    )
    return answer
