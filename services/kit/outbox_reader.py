"""What a relay asks of a service's database: rows to send, marks for what was sent, sleep, and the end of what is old.

**Order.** Rows go out by ``(created_at, id)``. Within a key that is the order in which they were committed: a writer
first locks its aggregate and then inserts, ``created_at`` is the clock at the insert, and so the next writer's rows are
later. Each look is one statement, thus one snapshot: when it shows a row of a key, it shows all earlier ones of it.

**Nothing is skipped.** Neither ``id`` nor ``created_at`` is the order of *commits*: a row may become visible after
later ones were sent. So a look never begins behind the last row sent, but at the *floor*: the start of the oldest
transaction that was writing just before the look. What is not visible yet belongs to it or to a later one, and is not
older.

**Few partitions.** Ids begin with the time, and the outbox is split by their day. So a look also names the lowest id
that it can find, a little below the time that it begins at, and PostgreSQL leaves the other days alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.rows import class_row

from services.kit import partitions
from services.kit.database import Connection
from services.kit.ids import first_uuid7
from services.kit.outbox import OUTBOX, OUTBOX_AHEAD, OUTBOX_SENT, OUTBOX_TABLES, RELAY_ASLEEP

CLOCK_SLACK = timedelta(seconds=1)
"""How far the database's clock may step back without a row waiting for the next full sweep."""

ID_SLACK = timedelta(minutes=1)
"""How far a row's id may be older than its ``created_at``; both are made at the insert."""

UNSEEN_WRITERS_SLACK = timedelta(seconds=60)
"""How long a writer may take when we may not see the sessions of other roles; services' timeouts are shorter."""

COLUMNS = "id, aggregatetype AS topic, aggregateid AS key, type, payload, headers::text AS headers, created_at"

OLDEST_WRITER = """
    SELECT least(statement_timestamp(), min(xact_start) FILTER (WHERE backend_xid IS NOT NULL)),
           bool_or(query = '<insufficient privilege>')
    FROM pg_stat_activity
    WHERE datname = current_database()
      AND pid <> pg_backend_pid()
"""
UNSENT = f"""
    SELECT {COLUMNS}
    FROM outbox
    WHERE id >= %(first_id)s
      AND created_at >= coalesce(%(since)s, '-infinity'::timestamptz)
      AND created_at < coalesce(%(before)s, 'infinity'::timestamptz)
      AND NOT EXISTS (
          SELECT
          FROM outbox_sent
          WHERE outbox_sent.id = outbox.id
            AND outbox_sent.id >= %(first_id)s
      )
    ORDER BY created_at, id
    LIMIT %(at_most)s
"""
SINCE = f"""
    SELECT {COLUMNS}
    FROM outbox
    WHERE id >= %(first_id)s
      AND created_at >= %(since)s
    ORDER BY created_at, id
"""
MARK = """
    INSERT INTO outbox_sent (id)
    SELECT unnest(%s::uuid[])
    ON CONFLICT DO NOTHING
"""
UNSENT_IN_PART = """
    EXISTS (
        SELECT
        FROM {part} AS part
        WHERE NOT EXISTS (
            SELECT
            FROM outbox_sent
            WHERE outbox_sent.id = part.id
              AND outbox_sent.id >= {low}
              AND outbox_sent.id < {high}
        )
    )
"""
EVENTS_OF_PART = "EXISTS (SELECT FROM outbox WHERE id >= {low} AND id < {high})"
DROP_INBOX = """
    DELETE FROM inbox
    WHERE ctid = ANY (ARRAY(
        SELECT ctid
        FROM inbox
        WHERE received_at < clock_timestamp() - %s::interval
        ORDER BY received_at
        LIMIT %s
    ))
"""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row as it lies in the outbox; ``headers`` is JSON."""

    id: UUID
    topic: str
    key: str
    type: str
    payload: bytes
    headers: str
    created_at: datetime


class OutboxReader:
    """The outbox of one database, read by the one relay that leads there.

    Args:
        connection: the session that holds the lead; autocommitting. It is used for nothing else.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asleep = False

    async def begin(self) -> None:
        """Set the session up. Marks need not be durable at once: a lost one means an event twice, never none.

        Raises:
            psycopg.errors.UndefinedTable: the service's tables are not there yet.
        """
        await self._connection.execute("SET synchronous_commit = off")
        await self._connection.execute("SET statement_timeout = '120s'")  # sweeps and refills read much
        # Planning a look took as long as the look. A migration that breaks a prepared one ends this session, and the
        # relay begins another.
        self._connection.prepare_threshold = 1
        await self._connection.execute("SELECT FROM outbox, outbox_sent, inbox LIMIT 0")
        await self._connection.execute("LISTEN outbox")

    async def floor(self) -> datetime:
        """The time before which no row can appear any more. Ask before the look that it is meant for."""
        cursor = await self._connection.execute(OLDEST_WRITER)
        row = await cursor.fetchone()
        assert row is not None
        oldest: datetime = row[0]
        return oldest - (UNSEEN_WRITERS_SLACK if row[1] else CLOCK_SLACK)

    async def now(self) -> datetime:
        """The database's clock."""
        cursor = await self._connection.execute("SELECT clock_timestamp()")
        row = await cursor.fetchone()
        assert row is not None
        at: datetime = row[0]
        return at

    async def unsent(
        self, *, at_most: int, since: datetime | None = None, before: datetime | None = None
    ) -> list[OutboxRow]:
        """The oldest rows that were not sent."""
        async with self._connection.cursor(binary=True, row_factory=class_row(OutboxRow)) as cursor:
            values = {"first_id": first_id(since), "since": since, "before": before, "at_most": at_most}
            await cursor.execute(UNSENT, values)
            return await cursor.fetchall()

    async def all_since(self, since: datetime, *, page: int) -> AsyncGenerator[Sequence[OutboxRow], None]:
        """Every row since then, sent or not, of one snapshot; the session is in a transaction meanwhile."""
        async with (
            self._connection.transaction(),
            self._connection.cursor("since", binary=True, row_factory=class_row(OutboxRow)) as cursor,
        ):
            await cursor.execute(SINCE, {"first_id": first_id(since), "since": since}, binary=True)
            while rows := await cursor.fetchmany(page):
                yield rows

    async def mark(self, rows: Sequence[OutboxRow]) -> None:
        """Remember that these were sent."""
        await self._connection.execute(MARK, ([row.id for row in rows],))

    async def fall_asleep(self) -> bool:
        """Ask writers to wake us. False when one that could not know it is still in its transaction: look again soon.

        After True look once more before waiting; then whoever inserts either was seen or will notify.
        """
        cursor = await self._connection.execute("SELECT pg_try_advisory_lock(%s)", (RELAY_ASLEEP,))
        row = await cursor.fetchone()
        self._asleep = row is not None and bool(row[0])
        return self._asleep

    async def wait(self, seconds: float) -> None:
        """Until a writer notifies, or so long."""
        async for _ in self._connection.notifies(timeout=seconds, stop_after=1):
            pass

    async def wake_up(self) -> None:
        """Writers need not notify any more."""
        if self._asleep:
            await self._connection.execute("SELECT pg_advisory_unlock(%s)", (RELAY_ASLEEP,))
            self._asleep = False

    async def drop_old(self, older_than: timedelta, *, at_most: int) -> int:
        """Delete old inbox rows, at most so many; tells how many."""
        cursor = await self._connection.execute(DROP_INBOX, (older_than, at_most))
        return cursor.rowcount

    async def tend_partitions(self, keep: timedelta) -> list[str]:
        """Have partitions for the next days, and drop those whose events are all older than ``keep``.

        Answers which of those stay because they have an event that was not sent.
        """
        today = await partitions.today(self._connection)
        for each in OUTBOX_TABLES:
            await partitions.make_ahead(self._connection, each, today=today, ahead=OUTBOX_AHEAD)
        before = (await self.now() - keep).date()
        unsent = await partitions.drop(self._connection, OUTBOX, before=before, unless=UNSENT_IN_PART)
        await partitions.drop(self._connection, OUTBOX_SENT, before=before, unless=EVENTS_OF_PART)
        return unsent


def first_id(since: datetime | None) -> UUID:
    """The lowest id that an event can have which was written then or later."""
    return first_uuid7(since - ID_SLACK) if since is not None else UUID(int=0)
