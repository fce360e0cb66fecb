"""Processes of booking are stopped in the middle of their work, past the end of a hold, while somebody else gets the
seat; then they go on, with what they believed before."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

from marquee.booking import v1 as booking_v1
from tests.prove.buyers import Buyer, hold_wish
from tests.prove.clients import GaveUp, Refused
from tests.prove.history import Act
from tests.prove.phases import Context, Phase, Result
from tests.prove.sale import Hall, Sale, open_sale
from tests.prove.stage import Pace, ShowOnSale
from tests.prove.workers import Worker, booking_workers, leader

STOPS = 50
OF_CAPTURES = 10
"""Of the stops: those of the process that takes captures."""
VICTIMS = 5
"""Processes that are stopped in the middle of a booking, several at a time."""
PATIENT = {"MARQUEE_HOLD_SECONDS": "300"}
"""Two more processes, whose holds last: who got the seat there still has it when the stopped process goes on."""
MOST_TRIES = 4
"""Stops for each one that counts; what was done in time before the stop does not."""
INTO_A_BOOKING_S, INTO_A_CAPTURE_S = 0.02, 0.03
LEAD_IS_LOST_S = 6.5
"""PostgreSQL ends the session of a leader that says nothing for 5 s."""
PATIENCE_S = 40.0
PACE = Pace(hold_s=1.5, payment_window_s=1.5, sweep_s=0.25, poll_first_s=4.0, poll_longest_s=8.0)
REFUSAL_LAG_S = 3.0
"""Other processes' changes may be unknown to one for 2.5 s (``live.TRUSTED_SECONDS``)."""


@dataclass
class Stops:
    """What came of them."""

    made: int = 0
    in_time: int = 0
    """The work was done before the stop: nobody else got the seat."""
    stale: int = 0
    refused: int = 0
    how: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    longest_s: float = 0.0

    def refuse(self, how: str) -> None:
        self.refused += 1
        self.how[how] = self.how.get(how, 0) + 1


WHO_HOLDS = """
    SELECT state, wait_event, clock_timestamp() - xact_start, left(query, 90)
    FROM pg_stat_activity
    WHERE datname = current_database()
      AND xact_start < clock_timestamp() - interval '1 second'
"""


async def get_it(rival: Buyer, by: Worker, show: ShowOnSale, seat: str) -> booking_v1.Reservation | None:
    """The seat, as soon as it is free; None when it is sold instead.

    One request, asked for again and again: a hold may be made whose answer came too late, and must not be in the way.
    """
    wish, deadline = hold_wish(show.show_id, seat), time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(Refused, GaveUp):
            held: booking_v1.Reservation = await rival.ask(Act.HOLD, by.booking.CreateReservation, wish, patience_s=5.0)
            return held
        await asyncio.sleep(0.1)
    return None


async def stop_a_booking(sale: Sale, victim: Worker, other: Worker, show: ShowOnSale, seat: str, stops: Stops) -> None:
    """Stop a process while it makes a booking of a hold; somebody else has the seat when it goes on."""
    loser, winner = sale.crowd.new("books in a process that is stopped"), sale.crowd.new("gets the seat meanwhile")
    held = await loser.ask(Act.HOLD, victim.booking.CreateReservation, hold_wish(show.show_id, seat))
    wish = booking_v1.CreateBookingRequest(request_id=held.reservation_id, reservation_id=held.reservation_id)
    booking = asyncio.create_task(
        loser.ask(Act.BOOK, victim.booking.CreateBooking, wish, patience_s=PATIENCE_S, timeout_s=PATIENCE_S)
    )
    await asyncio.sleep(sale.stage.randomly.uniform(0.0, INTO_A_BOOKING_S))
    victim.process.freeze()
    stops.made += 1
    began = time.monotonic()
    why: object = ()
    try:
        won = await get_it(winner, other, show, seat)
        if won is None:
            refusals = [each.reason for each in sale.record.history.operations if each.client == winner.name]
            why = refusals[-3:], await sale.stage.rows(WHO_HOLDS)
    finally:
        victim.process.thaw()
        stops.longest_s = max(stops.longest_s, time.monotonic() - began)
    if won is None:
        stops.problems.append(f"nobody got seat {seat} within {PATIENCE_S:.0f} s of a stop: {why}")
        booking.cancel()
        return
    stops.stale += won.fence > held.fence
    try:
        made = await booking
    except (Refused, GaveUp) as error:
        stops.refuse(f"booking refused: {getattr(error, 'reason', 'no answer')}")
    else:  # it was made before the stop; the hold's second life, as a booking, ended during it
        try:
            await loser.initiate(made)
        except Refused as refused:
            stops.refuse(f"payment refused: {refused.reason}")
        else:
            stops.problems.append(f"booking {made.booking_id} could be paid although {won.reservation_id} has the seat")
    await winner.release(won)


async def stop_a_capture(sale: Sale, workers: list[Worker], show: ShowOnSale, seat: str, stops: Stops) -> None:
    """Stop the process that takes captures when one is on its way; another one takes over, and the seat is lost."""
    victim = await leader(sale.stage, workers)
    if victim is None:
        await asyncio.sleep(0.5)
        return
    quick = next(worker for worker in workers[:-2] if worker is not victim)
    other = next(worker for worker in workers[-2:] if worker is not victim)
    loser, winner = sale.crowd.new("pays while captures stop"), sale.crowd.new("gets the seat meanwhile")
    held = await loser.ask(Act.HOLD, quick.booking.CreateReservation, hold_wish(show.show_id, seat))
    wish = booking_v1.CreateBookingRequest(request_id=held.reservation_id, reservation_id=held.reservation_id)
    booking = await loser.ask(Act.BOOK, quick.booking.CreateBooking, wish)
    order = (await loser.initiate(booking)).provider_order_id
    await loser.pay(order)
    await asyncio.sleep(sale.stage.randomly.uniform(0.0, INTO_A_CAPTURE_S))
    victim.process.freeze()
    stops.made += 1
    began = time.monotonic()
    try:
        await asyncio.sleep(0.1)
        look = booking_v1.GetBookingRequest(booking_id=booking.booking_id)
        seen = await loser.ask(Act.SEE_BOOKING, other.booking.GetBooking, look)
        if seen.status == booking_v1.BOOKING_STATUS_CONFIRMED:
            stops.in_time += 1
            return
        won = await get_it(winner, other, show, seat)
        why: object = ()
        if won is None:
            # Its commit may have been on its way when it was stopped, and not visible yet when we looked.
            seen = await loser.ask(Act.SEE_BOOKING, other.booking.GetBooking, look)
            if seen.status == booking_v1.BOOKING_STATUS_CONFIRMED:
                stops.in_time += 1
                return
            why = booking_v1.BookingStatus.Name(seen.status), await sale.stage.rows(WHO_HOLDS)
        await asyncio.sleep(max(0.0, LEAD_IS_LOST_S - (time.monotonic() - began)))
    finally:
        victim.process.thaw()
        stops.longest_s = max(stops.longest_s, time.monotonic() - began)
    if won is None:
        stops.problems.append(f"nobody got seat {seat} within {PATIENCE_S:.0f} s of a stop: {why}")
        return
    stops.stale += won.fence > held.fence
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        outcome = await sale.stage.rows("SELECT outcome FROM captures WHERE booking_id = %s", booking.booking_id)
        if outcome:
            if outcome[0][0] == "LATE":
                stops.refuse("capture refused: LATE, and paid back")
            else:
                stops.problems.append(f"the capture of {booking.booking_id} was {outcome[0][0]}; another has the seat")
            await winner.release(won)
            return
        await asyncio.sleep(0.2)
    stops.problems.append(f"nobody took the capture of {booking.booking_id} within {PATIENCE_S:.0f} s")


async def run(context: Context) -> Result:
    of_bookings, of_captures = Stops(), Stops()
    hall = Hall(shows=VICTIMS + 1, rows=20, seats_a_row=20)
    async with (
        open_sale(context.folder, seed=context.seed, pace=PACE, hall=hall, viewers_a_show=1) as sale,
        booking_workers(sale.stage, [{}] * VICTIMS + [PATIENT] * 2) as workers,
    ):
        *victims, untouched, _ = workers[1:]

        async def one_after_the_other(number: int, victim: Worker) -> None:
            show = sale.stage.shows[number]
            for seat in show.labels:
                if of_bookings.stale >= STOPS - OF_CAPTURES or of_bookings.made > MOST_TRIES * STOPS:
                    return
                with suppress(Refused, GaveUp):
                    await stop_a_booking(sale, victim, untouched, show, seat, of_bookings)

        await asyncio.gather(*(one_after_the_other(*each) for each in enumerate(victims)))
        context.say(f"stopped in a booking: {of_bookings}")
        show = sale.stage.shows[-1]
        for seat in show.labels:
            if of_captures.stale >= OF_CAPTURES or of_captures.made > MOST_TRIES * OF_CAPTURES:
                break
            with suppress(Refused, GaveUp):
                await stop_a_capture(sale, workers, show, seat, of_captures)
        context.say(f"stopped before a capture: {of_captures}")
        judged = await sale.judge(refusal_lag_s=REFUSAL_LAG_S)
    stale, refused = of_bookings.stale + of_captures.stale, of_bookings.refused + of_captures.refused
    result = Result(problems=[*of_bookings.problems, *of_captures.problems, *judged.problems()])
    result.figures = {
        "processes of booking": len(workers),
        "stops (SIGSTOP) in the middle of a booking": of_bookings.made,
        "stops of the process that takes captures": of_captures.made,
        "of them too late to matter: the work was done": of_bookings.in_time + of_captures.in_time,
        "stops during which another got the seat": stale,
        "stale fences refused": f"{refused} of {stale}",
        **{how: count for stops in (of_bookings, of_captures) for how, count in sorted(stops.how.items())},
        "longest stop, s": max(of_bookings.longest_s, of_captures.longest_s),
        "operations": len(judged.record.history.operations),
        "facts checked": sum(judged.findings.examined.values()),
        "violations": len(judged.findings.violations),
    }
    result.demand(stale >= STOPS, f"only {stale} stops during which another got the seat")
    result.demand(refused == stale, f"{stale - refused} stale fences were not refused")
    return result


PHASE = Phase(
    "frozen",
    "Processes that are stopped",
    "A process of booking is stopped (SIGSTOP) in the middle of a booking, or just before it takes a capture, until "
    "the hold is over and somebody else has the seat. When it goes on, its stale fence is refused, 50 times of 50.",
    3.0,
    run,
)
