"""Payments at the very end of their hold, while somebody else waits for the seat."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from contextlib import suppress

from tests.prove.clients import GaveUp, Refused
from tests.prove.ledger import Status
from tests.prove.phase_money import Seats
from tests.prove.phases import Context, Phase, Result
from tests.prove.sale import Hall, Sale, open_sale
from tests.prove.stage import Pace, ShowOnSale

PAYMENTS = 1_000
MOST_TRIED = 3 * PAYMENTS
BATCH = 200
AT_ONCE = 50
NEAR_S = 0.05
TUNING = 20
RIVAL_TRIES = 5
PACE = Pace(hold_s=10.0, payment_window_s=2.5, sweep_s=0.1, poll_first_s=4.0, poll_longest_s=8.0)


async def latency(sale: Sale, seats: Seats) -> float:
    """The usual time from the provider's button to the confirmation, in seconds."""
    took = []
    for _ in range(TUNING):
        buyer = sale.crowd.new("finds out how long it takes")
        show, seat = seats.take()
        booking = await buyer.book(await buyer.hold(show, seat))
        payment = await buyer.initiate(booking)
        began = time.time()
        await buyer.pay(payment.provider_order_id)
        await buyer.sees_confirmed(booking.booking_id)
        confirmed = await sale.stage.rows(
            "SELECT extract(epoch FROM at) FROM captures WHERE booking_id = %s", booking.booking_id
        )
        took.append(float(confirmed[0][0]) - began)
    return statistics.median(took)


async def one(sale: Sale, seats: Seats, lead_s: float, offsets: list[float]) -> None:
    """A purchase whose money comes at the end of its window, give or take 50 ms, and a rival for its seat."""
    dice = sale.stage.randomly
    buyer, rival = sale.crowd.new("pays at the end of the hold"), sale.crowd.new("waits for the seat")
    show, seat = seats.take()
    with suppress(Refused, GaveUp):
        booking = await buyer.book(await buyer.hold(show, seat))
        order = (await buyer.initiate(booking)).provider_order_id
        end, offset = booking.pay_by_time.ToNanoseconds() / 1e9, dice.uniform(-NEAR_S, NEAR_S / 2)

        async def take_it() -> None:
            await rival.wait_until(end - 0.02)
            for _ in range(RIVAL_TRIES):
                with suppress(Refused, GaveUp):
                    await rival.hold(ShowOnSale(show.show_id, ()), seat, patience_s=2.0)
                    return
                await asyncio.sleep(0.04)

        waiting = asyncio.create_task(take_it()) if dice.random() < 0.7 else None
        await buyer.wait_until(end + offset - lead_s)
        offsets.append(time.time() + lead_s - end)
        await buyer.pay(order)
        if waiting is not None:
            await waiting


async def run(context: Context) -> Result:
    hall = Hall(shows=8, rows=20, seats_a_row=23)
    async with open_sale(context.folder, seed=context.seed, pace=PACE, hall=hall, viewers_a_show=1) as sale:
        seats, offsets = Seats(sale.stage.shows), list[float]()
        usual = await latency(sale, seats)
        room = asyncio.Semaphore(AT_ONCE)

        async def guarded(number: int) -> None:
            async with room:  # every second one is at the payer's end, the others at the confirmation's
                await one(sale, seats, usual if number % 2 else 0.0, offsets)

        while _near(offsets) < PAYMENTS and len(offsets) < MOST_TRIED:
            await asyncio.gather(*(guarded(number) for number in range(BATCH)))
        judged = await sale.judge(patience_s=100.0)
    outcomes = Counter(row.outcome for show in judged.evidence.shows.values() for row in show.captures)
    both = neither = 0
    for capture in judged.evidence.captures:
        kept = judged.evidence.seen_bookings[capture.booking_id].status is Status.CONFIRMED
        both += kept and capture.refunded > 0
        neither += not kept and capture.refunded != capture.amount
    near = _near(offsets)
    late = {row.booking_id: row for row in judged.evidence.seen_bookings.values()}
    after = sum(each.captured_at_ms > late[each.booking_id].pay_by_ms for each in judged.evidence.captures)
    result = Result(problems=judged.problems())
    result.figures = {
        "payments at the end of the hold": len(offsets),
        "within 50 ms of it, at the button or (half of them) at the confirmation": near,
        "usual time from button to confirmation, ms": usual * 1000,
        "captured before the end": len(judged.evidence.captures) - after,
        "captured after the end": after,
        **{f"outcome: {outcome}": count for outcome, count in sorted(outcomes.items())},
        "confirmed and paid back": both,
        "neither confirmed nor paid back": neither,
        "facts checked": sum(judged.findings.examined.values()),
        "violations": len(judged.findings.violations),
    }
    result.demand(near >= PAYMENTS, f"only {near} of {len(offsets)} payments came within 50 ms of the end")
    result.demand(both == neither == 0, f"{both} captures were confirmed and paid back, {neither} are nowhere")
    for outcome in ("CONFIRMED", "LATE"):
        result.demand(outcomes[outcome] >= PAYMENTS // 20, f"only {outcomes[outcome]} were {outcome}")
    return result


def _near(offsets: list[float]) -> int:
    """How many were as near as they should be; a busy machine is late now and then."""
    return sum(abs(offset) <= NEAR_S for offset in offsets)


PHASE = Phase(
    "holds-end",
    "Money at the end of the hold",
    "1,000 payments within 50 ms of the end of their hold, while others wait for the seat: each is confirmed or paid "
    "back, never both and never neither.",
    1.5,
    run,
)
