"""One effect for a request that comes several times, where the effect needs calls that no transaction may wait for.

Like `services.kit.idempotency`, over the same table, for psycopg: the answer can be looked up before the calls, and is
stored in the transaction of the effect after them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from services.kit.database import Connection
from services.kit.errors import RequestIdReused
from services.kit.idempotency import content_hash
from services.payment import store
from services.payment.store import StoredAnswer

Answer = TypeVar("Answer", bound=Message)


async def earlier_answer(
    connection: Connection, *, caller: str, request_id: str, request: Message, answer_type: type[Answer]
) -> Answer | None:
    """The answer to an earlier request with this id and content.

    Raises:
        RequestIdReused: the id came before with other content.
    """
    found = await store.stored_answer(connection, caller=caller, request_id=request_id)
    if found is None:
        return None
    if (found.method, found.content) != (request.DESCRIPTOR.full_name, content_hash(request)):
        raise RequestIdReused
    return answer_type.FromString(found.answer)


async def once(
    connection: Connection,
    *,
    caller: str,
    request_id: str,
    request: Message,
    answer_type: type[Answer],
    effect: Callable[[], Awaitable[Answer]],
) -> Answer:
    """Do ``effect`` and store its answer, or give the stored one; ``connection`` must be in a transaction.

    Raises:
        RequestIdReused: the id came before with other content.
    """
    await store.lock_request(connection, caller, request_id)
    earlier = await earlier_answer(
        connection, caller=caller, request_id=request_id, request=request, answer_type=answer_type
    )
    if earlier is not None:
        return earlier
    answer = await effect()
    await store.store_answer(
        connection,
        caller=caller,
        request_id=request_id,
        answer=StoredAnswer(request.DESCRIPTOR.full_name, content_hash(request), answer.SerializeToString()),
    )
    return answer
