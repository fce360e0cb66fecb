"""Confirmations: captures that wait on the bus, taken by the booking service, against the same writes in pgbench."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import redis.asyncio as redis

from bench import pgbench
from bench.rounds import Ratio, Round
from bench.stage import Stage
from marquee.payment import v1 as payment_v1

HERE = Path(__file__).parent
SEATS = 2
EACH = 50
"""Bookings a show, so that at most 100 of its seats are used."""
TOTAL_MINOR = 49_560
POLL_SECONDS = 0.02
GIVE_UP_SECONDS = 120


@dataclass(frozen=True)
class Confirmed:
    count: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds


RATIOS = (Ratio("confirm / the same writes in pgbench", "confirm", ("pgbench",), 0.40),)


class Confirmations:
    """The subject ``confirms``.

    Args:
        template: the show that those of the bookings are like; any that is large enough when None.
    """

    def __init__(self, stage: Stage, count: int, template: uuid.UUID | None = None) -> None:
        self._stage = stage
        self._count = count
        self._template = template
        self._stack = stage.stack
        self._url = stage.stack.database_url("booking")

    async def round(self) -> Round:
        made = Round()
        for name, confirm in (("confirm", self.by_service), ("pgbench", self.by_pgbench)):
            await self.prepare(self._count)
            spending = self._stage.spending()
            confirmed = await confirm()
            made.rates[name] = confirmed.rate
            made.spent[name] = {part: cpu / confirmed.count for part, cpu in spending.so_far().items()}
        return made

    async def prepare(self, count: int) -> None:
        """Make ``count`` bookings that wait for their money; those before them are forgotten."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            cursor = await connection.execute(
                "SELECT show_id FROM shows WHERE capacity >= 2 * %s AND show_id = coalesce(%s, show_id) LIMIT 1",
                (EACH, self._template),
            )
            row = await cursor.fetchone()
            if row is None:
                raise SystemExit("bench: there is no show to copy; was the demo data loaded?")
            parameters = {
                "shows": f"{count // EACH}",
                "each": f"{EACH}",
                "count": f"{count}",
                "template": f"'{row[0]}'",
                "quote": f"'\\x{_quote().hex()}'::bytea",
            }
            await connection.execute((HERE / "pending.sql").read_text() % parameters)
            await connection.execute("VACUUM ANALYZE seat_claims, bookings, reservations, show_versions")

    async def by_service(self) -> Confirmed:
        """Put a capture for every waiting booking on the bus, and wait until all are confirmed."""
        bus = redis.Redis.from_url(self._stack.url("bus"))
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            cursor = await connection.execute("SELECT booking_id, payment_id FROM bench.pending ORDER BY number")
            waiting = await cursor.fetchall()
            started = time.perf_counter()
            for first in range(0, len(waiting), 500):
                async with bus.pipeline(transaction=False) as pipeline:
                    for booking_id, payment_id in waiting[first : first + 500]:
                        pipeline.xadd("payment.completed", _event(booking_id, payment_id))
                    await pipeline.execute()
            done = 0
            while done < len(waiting):
                if time.perf_counter() - started > GIVE_UP_SECONDS:
                    raise SystemExit(f"bench: only {done} of {len(waiting)} bookings were confirmed")
                await asyncio.sleep(POLL_SECONDS)
                row = await (
                    await connection.execute(
                        "SELECT count(*) FROM captures c JOIN bench.pending p USING (show_id, booking_id)"
                        " WHERE c.outcome = 'CONFIRMED'"
                    )
                ).fetchone()
                done = row[0] if row else 0
            seconds = time.perf_counter() - started
        await bus.aclose()
        return Confirmed(len(waiting), seconds)

    async def by_pgbench(self) -> Confirmed:
        """The same writes by pgbench, a transaction for each confirmation."""
        return Confirmed(*await pgbench.run(self._stack, self._url, HERE / "confirm.pgbench", self._count))


def _quote() -> bytes:
    from services.booking.domain import Place, Rates, quote
    from services.booking.messages import quote_bytes

    rates = Rates(fee=500, most_fee=6_000, gst_threshold=10_000, gst_low=500, gst_high=1_800, gst_fee=1_800)
    made = quote([Place("A1", "R"), Place("A2", "R")], {"R": 20_000}, "INR", rates)
    assert made.total == TOTAL_MINOR, made.total
    return bytes(quote_bytes(made))


def _event(booking_id: uuid.UUID, payment_id: uuid.UUID) -> dict[bytes | str, bytes | str]:
    from services.booking.messages import money

    completed = payment_v1.PaymentCompleted(
        payment_id=str(payment_id),
        booking_id=str(booking_id),
        capture_id=f"pay_{booking_id.hex[:14]}",
        amount=money(TOTAL_MINOR, "INR"),
    )
    return {
        "id": str(uuid.uuid4()),
        "key": str(booking_id),
        "type": completed.DESCRIPTOR.full_name,
        "payload": completed.SerializeToString(),
        "headers": "{}",
        "created_at": datetime.now(UTC).isoformat(),
    }
