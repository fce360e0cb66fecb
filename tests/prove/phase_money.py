"""Money, and reports of it that come often, late, in any order or never."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

from marquee.booking import v1 as booking_v1
from tests.prove.buyers import Buyer
from tests.prove.clients import GaveUp, Refused
from tests.prove.phases import Context, Phase, Result
from tests.prove.sale import Hall, Judged, Sale, open_sale
from tests.prove.stage import Pace, ShowOnSale

PAYMENTS = 3_000
NEVER_REPORTED = 150
"""Of payments on top, none of whose reports comes."""
AT_ONCE = 40
MOOD_S = 1.0
PACE = Pace(hold_s=30.0, payment_window_s=60.0, poll_first_s=3.0, poll_longest_s=6.0)


@dataclass
class Seats:
    """Each seat of all shows once, so that nobody has to look for a free one."""

    shows: list[ShowOnSale]
    _next: int = field(default=0)

    def take(self) -> tuple[ShowOnSale, str]:
        number, self._next = self._next, self._next + 1
        show = self.shows[number % len(self.shows)]
        return show, show.labels[number // len(self.shows)]


async def buy(sale: Sale, seats: Seats, count: int, name: str) -> list[booking_v1.Booking]:
    """``count`` buyers, each of whom holds, books and pays once; the bookings that were paid."""
    room, paid = asyncio.Semaphore(AT_ONCE), []

    async def one() -> None:
        async with room:
            buyer: Buyer = sale.crowd.new(name)
            with suppress(Refused, GaveUp):
                show, seat = seats.take()
                booking = await buyer.book(await buyer.hold(show, seat))
                await buyer.pay((await buyer.initiate(booking)).provider_order_id)
                paid.append(booking)

    await asyncio.gather(*(one() for _ in range(count)))
    return paid


async def moods(sale: Sale) -> None:
    """Each second: every report 1 to 5 times, up to two seconds late each time, and one in five never. Cancel it."""
    dice = sale.stage.randomly
    while True:
        await sale.stage.provider_fault(
            webhook_repeat=dice.randint(1, 5), webhook_shuffle_ms=2_000, webhook_drop_percent=20
        )
        await asyncio.sleep(MOOD_S)


async def run(context: Context) -> Result:
    hall = Hall(shows=8, rows=20, seats_a_row=21)
    async with open_sale(context.folder, seed=context.seed, pace=PACE, hall=hall, viewers_a_show=0) as sale:
        seats = Seats(sale.stage.shows)
        began = time.monotonic()
        shuffling = asyncio.create_task(moods(sale))
        try:
            paid = await buy(sale, seats, PAYMENTS + PAYMENTS // 50, "pays, reported in any way")
        finally:
            shuffling.cancel()
            await asyncio.gather(shuffling, return_exceptions=True)
        took = time.monotonic() - began
        await sale.stage.provider_fault(webhook_drop_percent=100)
        silent = await buy(sale, seats, NEVER_REPORTED, "pays, never reported")
        await sale.stage.provider_fault()
        judged = await sale.judge(patience_s=150.0)
        webhooks = (await sale.stage.books_summary())["webhooks"]
    confirmed, captures = _confirmed(judged), judged.evidence.captures
    result = Result(problems=judged.problems())
    result.figures = {
        "payments, each reported 1 to 5 times, shuffled, 20 % dropped": len(paid),
        "payments never reported": len(silent),
        "reports the provider had to make": webhooks["events"],
        "reports it never made": webhooks["dropped"],
        "captures in the provider's books": len(captures),
        "confirmed bookings": len(confirmed),
        "captures lost": sum(booking.booking_id not in confirmed for booking in paid),
        "captured twice, or kept twice": len(judged.evidence.captures)
        - len({c.order_id for c in judged.evidence.captures}),
        "never reported, found by asking the provider": sum(booking.booking_id in confirmed for booking in silent),
        "minor units captured": judged.sums.captured,
        "minor units of confirmed bookings": judged.sums.confirmed,
        "minor units paid back": judged.sums.refunded,
        "payments a second": len(paid) / took,
        "facts checked": sum(judged.findings.examined.values()),
        "violations": len(judged.findings.violations),
    }
    result.demand(len(paid) >= PAYMENTS, f"only {len(paid)} payments were made")
    result.demand(webhooks["dropped"] > 0.1 * webhooks["events"], "too few reports were dropped")
    for booking in (*paid, *silent):
        result.demand(booking.booking_id in confirmed, f"booking {booking.booking_id} was paid and is not confirmed")
    return result


def _confirmed(judged: Judged) -> set[str]:
    return {row.booking_id for row in judged.evidence.seen_bookings.values() if row.status.value == "confirmed"}


PHASE = Phase(
    "money",
    "Money, however it is reported",
    "3,000 payments whose reports (webhooks) come one to five times, shuffled, one in five never; and some of which "
    "nothing at all is reported. None is lost, none is captured or kept twice; what is never reported is found by the "
    "reconciler, which asks the provider.",
    4.0,
    run,
)
