"""Reads that may be some seconds old: from a streaming replica while it follows closely, else from the primary.

    async with open_reads(settings, pool, open_replica_pool) as reads:
        counts = await reads(lambda pool: count_seats(pool, show_ids))

Nobody sees a replica fail: what it does not answer well and in time, the primary is asked. Nobody misses what was
written before, where the writer says so: after ``reads.wrote()`` this process asks the replica nothing until it has
seen it catch up. ``docs/decisions/replicas-and-failover.md`` lists what is read where.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

import psycopg
import structlog

from services.kit.call import Anonymous, UserCaller, current_call
from services.kit.database import SESSION, Connection
from services.kit.errors import DeadlineExceeded, Unavailable
from services.kit.repeating import repeating
from services.kit.settings import ServiceSettings
from services.kit.surprises import as_refusal

log = structlog.get_logger()

LOOK_SECONDS = 0.5
"""Between looks at how far the replica is; also how long it rests after it failed, or after a write."""
PATIENCE_SECONDS = 1.0
"""A replica that has not answered by then is not waited for."""

PRIMARY_AT = "SELECT pg_current_wal_insert_lsn() - '0/0'"
REPLICA_AT = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() - '0/0' END"

Source = TypeVar("Source")
Answer = TypeVar("Answer")


class _Server:
    """A session that is opened when it is needed, and anew when it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None

    async def ask(self, query: str) -> Any:
        """The one value that ``query`` gives.

        Raises:
            psycopg.Error, TimeoutError: it did not answer.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._connection is None:
                    self._connection = await psycopg.AsyncConnection.connect(
                        self._url, autocommit=True, options=SESSION, connect_timeout=2
                    )
                row = await (await self._connection.execute(query)).fetchone()
        except BaseException:
            await self.close()
            raise
        return None if row is None else row[0]

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()  # at once: a server that is frozen answers no farewell


class Follower:
    """How far a replica has come, as this process last saw it.

    A look asks the primary where the end of its log is, and the replica how far it has replayed it. So everything is
    measured by this process's clock: the replica has what was written before the last look whose end it has reached.
    """

    def __init__(
        self,
        primary_url: str,
        replica_url: str,
        *,
        most_lag_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._primary = _Server(primary_url)
        self._replica = _Server(replica_url)
        self._most_lag_seconds = most_lag_seconds
        self._now = now
        self._ends: deque[tuple[float, int]] = deque(maxlen=1000)
        self._as_of = float("-inf")
        self._wrote_at = float("-inf")
        self._is_well = False

    def is_close(self) -> bool:
        """Whether it has all that this process wrote, and what others wrote until ``most_lag_seconds`` ago."""
        return self._as_of > self._wrote_at and self._as_of >= self._now() - self._most_lag_seconds

    def wrote(self) -> None:
        """Something was committed that whoever reads next must see."""
        self._wrote_at = self._now()

    def lose(self, error: BaseException | str) -> None:
        """It did not answer; the next look may find it well again."""
        if self._is_well:
            log.warning("replica_lost", error=f"{type(error).__name__}: {error}"[:200])
        self._is_well = False
        self._as_of = float("-inf")

    async def look(self) -> None:
        """To be called about twice a second."""
        at = self._now()
        try:
            self._ends.append((at, int(await self._primary.ask(PRIMARY_AT))))
        except (psycopg.Error, TimeoutError, OSError):
            self._ends.clear()  # the next primary may be another server, whose log has another end
        try:
            replayed = await self._replica.ask(REPLICA_AT)
        except (psycopg.Error, TimeoutError, OSError) as error:
            self.lose(error)
            return
        if replayed is None:
            self.lose("it replays no log: it is a primary now")
            return
        while self._ends and self._ends[0][1] <= replayed:
            self._as_of, _ = self._ends.popleft()
            if not self._is_well:
                log.info("replica_follows")
            self._is_well = True

    async def close(self) -> None:
        await self._primary.close()
        await self._replica.close()


class Reads(Generic[Source]):
    """Where a process reads what may be some seconds old. ``Source`` is what a query needs: a pool, an engine.

    Args:
        replica, follower: None where there is no replica.
        may_be_old: whether who asks just now may get an old answer.
    """

    def __init__(
        self,
        primary: Source,
        replica: Source | None = None,
        follower: Follower | None = None,
        *,
        may_be_old: Callable[[], bool] = lambda: True,
    ) -> None:
        self._primary = primary
        self._replica = replica
        self._follower = follower
        self._may_be_old = may_be_old
        self._abandoned: set[asyncio.Future[Any]] = set()

    def wrote(self) -> None:
        """This process has committed something that whoever reads next must see."""
        if self._follower is not None:
            self._follower.wrote()

    async def __call__(self, query: Callable[[Source], Awaitable[Answer]]) -> Answer:
        """What ``query`` answers, from the replica or from the primary. It may be called twice, so it only reads.

        Raises:
            Whatever ``query`` raises on the primary.
        """
        if self._replica is None or self._follower is None or not self._follower.is_close() or not self._may_be_old():
            return await query(self._primary)
        asking = asyncio.ensure_future(query(self._replica))
        try:
            # Not `wait_for`, which would wait until a frozen server has answered that it stopped answering.
            await asyncio.wait({asking}, timeout=PATIENCE_SECONDS)
            if asking.done():
                return asking.result()
            self._follower.lose(TimeoutError())
        except Exception as error:  # should the query be wrong, the primary says so
            if isinstance(as_refusal(error), Unavailable | DeadlineExceeded):
                self._follower.lose(error)
        finally:
            self._abandon(asking)
        return await query(self._primary)

    def _abandon(self, asking: asyncio.Future[Any]) -> None:
        """Let go of an answer that nobody waits for any more."""
        if not asking.done():
            asking.cancel()
            self._abandoned.add(asking)
            asking.add_done_callback(self._forget)

    def _forget(self, asking: asyncio.Future[Any]) -> None:
        self._abandoned.discard(asking)
        if not asking.cancelled():
            asking.exception()


def asked_by_customer() -> bool:
    """Whether a customer, or nobody in particular, is answered.

    Staff and administrators change what they read, perhaps through another process a moment ago; other services act on
    events, which may arrive before the replica has what they tell of.
    """
    call = current_call()
    match call.caller if call else None:
        case UserCaller() as user:
            return user.roles <= {"customer"}
        case Anonymous():
            return True
        case _:
            return False


@asynccontextmanager
async def open_reads(
    settings: ServiceSettings,
    primary: Source,
    open_source: Callable[[str], AbstractAsyncContextManager[Source]],
    *,
    may_be_old: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Reads[Source]]:
    """Reads as the settings say: without a replica in them, all from ``primary``."""
    url = settings.replica_database_url.get_secret_value()
    if not url:
        yield Reads(primary)
        return
    follower = Follower(
        settings.database_url.get_secret_value(), url, most_lag_seconds=settings.replica_most_lag_seconds
    )
    try:
        async with open_source(url) as replica, repeating("replica_look", follower.look, LOOK_SECONDS):
            yield Reads(primary, replica, follower, may_be_old=may_be_old)
    finally:
        await follower.close()
