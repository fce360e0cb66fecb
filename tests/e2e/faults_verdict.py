"""What is left when everything has settled: the provider's books, the owners' bookings, the maps. And what is wrong."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import ledger
from faults_buyers import Crowd, Diary, Kept
from faults_stage import GaveUp, Refused, Stage
from ledger import Capture, Exercised, SeenBooking, Status, Sums

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1

AT_ONCE = 24
STATUSES = {
    booking_v1.BOOKING_STATUS_PENDING_PAYMENT: Status.PENDING,
    booking_v1.BOOKING_STATUS_CONFIRMED: Status.CONFIRMED,
    booking_v1.BOOKING_STATUS_CANCELLED: Status.CANCELLED,
    booking_v1.BOOKING_STATUS_EXPIRED: Status.EXPIRED,
}
One = TypeVar("One")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Verdict:
    """What was found at the end; every list is empty when all is well."""

    settled_after_s: float
    captures: Sequence[Capture]
    bookings: dict[str, SeenBooking]
    exercised: Exercised
    sums: Sums
    unsettled: list[str]
    lost: list[str]
    """Acknowledged, and not there any more, or not as it was."""
    misplaced: list[str]
    excessive_refunds: list[str]
    two_owners: list[str]
    wrong_maps: list[str]
    wrong_payments: list[str]


def minor(money: object) -> int:
    return int(money.units * 100 + money.nanos // 10_000_000)  # type: ignore[attr-defined]


def seen_booking(booking: booking_v1.Booking) -> SeenBooking:
    return SeenBooking(
        booking_id=booking.booking_id,
        show_id=booking.show_id,
        seat_nos=tuple(booking.seat_nos),
        status=STATUSES[booking.status],
        total=minor(booking.quote.total),
        refund=minor(booking.refund),
        pay_by_ms=booking.pay_by_time.ToMilliseconds(),
        was_paid=bool(booking.payment_id),
    )


async def settled_verdict(crowd: Crowd, *, patience_s: float = 100.0, calm_s: float = 3.0) -> Verdict:
    """Wait until nothing is open any more, then look whether it stays so, and judge."""
    began = time.monotonic()
    while True:
        open_still, _, _ = await _unsettled(crowd.stage, crowd.diary)
        took = time.monotonic() - began
        if not open_still or took > patience_s:
            break
        await asyncio.sleep(1.0)
    if not open_still:
        await asyncio.sleep(calm_s)  # a refund too many would come now
    open_still, captures, bookings = await _unsettled(crowd.stage, crowd.diary)
    return Verdict(
        settled_after_s=took,
        captures=captures,
        bookings=bookings,
        exercised=ledger.exercised(captures, bookings),
        sums=ledger.sums(captures, bookings),
        unsettled=open_still,
        lost=await _lost(crowd.stage, crowd.diary),
        misplaced=ledger.misplaced_captures(captures, bookings),
        excessive_refunds=ledger.refunds_beyond_their_capture(captures),
        two_owners=ledger.seats_with_two_owners(bookings.values()),
        wrong_maps=await _wrong_maps(crowd.stage, bookings.values()),
        wrong_payments=await _wrong_payments(crowd.stage, crowd.diary, captures),
    )


async def _unsettled(stage: Stage, diary: Diary) -> tuple[list[str], list[Capture], dict[str, SeenBooking]]:
    captures = ledger.read_ledger(await stage.ledger())
    bookings = {
        kept.answer.booking_id: seen_booking(now)
        for kept, now in await _ask_all(diary.bookings.values(), lambda kept: _booking(stage, kept))
        if now is not None
    }
    waiting = [f"booking {each.booking_id} is pending" for each in bookings.values() if each.status is Status.PENDING]
    waiting += [
        f"reservation {now.reservation_id} is active"
        for _, now in await _ask_all(diary.reservations.values(), lambda kept: _reservation(stage, kept))
        if now is not None and now.status == booking_v1.RESERVATION_STATUS_ACTIVE
    ]
    return waiting + ledger.misplaced_captures(captures, bookings), captures, bookings


async def _ask_all(
    things: Iterable[One], ask: Callable[[One], Awaitable[Other | None]]
) -> list[tuple[One, Other | None]]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(thing: One) -> tuple[One, Other | None]:
        async with room:
            return thing, await ask(thing)

    return list(await asyncio.gather(*(one(thing) for thing in things)))


async def _booking(stage: Stage, kept: Kept[booking_v1.Booking]) -> booking_v1.Booking | None:
    request = booking_v1.GetBookingRequest(booking_id=kept.answer.booking_id)
    try:
        return await stage.ask(stage.booking.GetBooking, request, kept.buyer)
    except (Refused, GaveUp):
        return None


async def _reservation(stage: Stage, kept: Kept[booking_v1.Reservation]) -> booking_v1.Reservation | None:
    request = booking_v1.GetReservationRequest(reservation_id=kept.answer.reservation_id)
    try:
        return await stage.ask(stage.booking.GetReservation, request, kept.buyer)
    except (Refused, GaveUp):
        return None


async def _payment(stage: Stage, kept: Kept[payment_v1.Payment]) -> payment_v1.Payment | None:
    request = payment_v1.GetPaymentStatusRequest(payment_id=kept.answer.payment_id)
    try:
        return await stage.ask(stage.payment.GetPaymentStatus, request, kept.buyer)
    except (Refused, GaveUp):
        return None


# --- nothing that was acknowledged is lost --------------------------------------------------------------------------


async def _lost(stage: Stage, diary: Diary) -> list[str]:
    booked = {kept.answer.reservation_id: kept.answer.booking_id for kept in diary.bookings.values()}
    wrong: list[str] = []
    for kept, now in await _ask_all(diary.reservations.values(), lambda kept: _reservation(stage, kept)):
        wrong += _changes(
            f"reservation {kept.answer.reservation_id}",
            _reservation_facts(kept.answer),
            now and _reservation_facts(now),
        )
        if now is not None:
            wrong += _wrong_end(now, booked, diary)
    for kept, booking in await _ask_all(diary.bookings.values(), lambda kept: _booking(stage, kept)):
        wrong += _changes(
            f"booking {kept.answer.booking_id}", _booking_facts(kept.answer), booking and _booking_facts(booking)
        )
        if booking is not None and kept.answer.booking_id in diary.cancelled:
            promised = diary.cancelled[kept.answer.booking_id].answer
            if (booking.status, booking.refund) != (booking_v1.BOOKING_STATUS_CANCELLED, promised.refund):
                wrong.append(f"booking {kept.answer.booking_id}: its cancellation was acknowledged and is lost")
    for kept, payment in await _ask_all(diary.payments.values(), lambda kept: _payment(stage, kept)):
        wrong += _changes(
            f"payment {kept.answer.payment_id}", _payment_facts(kept.answer), payment and _payment_facts(payment)
        )
    return wrong


def _changes(what: str, then: tuple[object, ...], now: tuple[object, ...] | None) -> list[str]:
    if now is None:
        return [f"{what}: acknowledged and not found"]
    return [] if then == now else [f"{what}: acknowledged as {then}, now {now}"]


def _reservation_facts(answer: booking_v1.Reservation) -> tuple[object, ...]:
    return (
        answer.show_id,
        tuple(answer.seats),
        answer.fence,
        answer.create_time.ToNanoseconds(),
        minor(answer.quote.total),
    )


def _booking_facts(answer: booking_v1.Booking) -> tuple[object, ...]:
    return (
        answer.show_id,
        answer.reservation_id,
        answer.reference,
        tuple(answer.seat_nos),
        minor(answer.quote.total),
        answer.pay_by_time.ToNanoseconds(),
    )


def _payment_facts(answer: payment_v1.Payment) -> tuple[object, ...]:
    return (answer.booking_id, answer.provider_order_id, minor(answer.amount), answer.checkout_url)


def _wrong_end(now: booking_v1.Reservation, booked: dict[str, str], diary: Diary) -> list[str]:
    what = f"reservation {now.reservation_id}"
    if now.status == booking_v1.RESERVATION_STATUS_ACTIVE:
        return [f"{what}: active long after its time"]
    if now.reservation_id in booked:
        if (now.status, now.booking_id) != (booking_v1.RESERVATION_STATUS_CONVERTED, booked[now.reservation_id]):
            return [
                f"{what}: its booking {booked[now.reservation_id]} was acknowledged, it says {now.booking_id or 'none'}"
            ]
    elif now.reservation_id in diary.released and now.status not in (
        booking_v1.RESERVATION_STATUS_RELEASED,
        booking_v1.RESERVATION_STATUS_EXPIRED,  # the release was asked for, and came too late
    ):
        return [f"{what}: its release was acknowledged and is lost"]
    return []


# --- payments as their owners see them ------------------------------------------------------------------------------


async def _wrong_payments(stage: Stage, diary: Diary, captures: Sequence[Capture]) -> list[str]:
    """Payments whose status or refunded sum is not what the provider's books say."""
    by_order: dict[str, list[Capture]] = defaultdict(list)
    for capture in captures:
        by_order[capture.order_id].append(capture)
    wrong = []
    for _, payment in await _ask_all(diary.payments.values(), lambda kept: _payment(stage, kept)):
        if payment is None:
            continue
        of_order = by_order[payment.provider_order_id]
        refunded, captured = sum(each.refunded for each in of_order), sum(each.amount for each in of_order)
        kept = captured - refunded
        fits = {
            payment_v1.PAYMENT_STATUS_CREATED: not of_order,
            payment_v1.PAYMENT_STATUS_FAILED: not of_order,
            # The second capture of a double one going back leaves it paid in full.
            payment_v1.PAYMENT_STATUS_CAPTURED: bool(of_order) and kept >= minor(payment.amount),
            payment_v1.PAYMENT_STATUS_PARTIALLY_REFUNDED: 0 < kept < minor(payment.amount),
            payment_v1.PAYMENT_STATUS_REFUNDED: bool(of_order) and kept == 0,
        }
        if not fits.get(payment.status, False) or minor(payment.refunded) != refunded:
            status = payment_v1.PaymentStatus.Name(payment.status)
            wrong.append(f"payment {payment.payment_id} is {status}, {captured} was captured and {refunded} went back")
    return wrong


# --- maps -----------------------------------------------------------------------------------------------------------


async def _wrong_maps(stage: Stage, bookings: Iterable[SeenBooking]) -> list[str]:
    """Maps, logs and claims that do not agree with each other, or with the bookings."""
    sold: dict[str, set[int]] = defaultdict(set)
    for booking in bookings:
        if booking.status is Status.CONFIRMED:
            sold[booking.show_id] |= set(booking.seat_nos)
    wrong = []
    someone = await stage.new_buyer()
    for show in stage.shows:
        request = booking_v1.GetSeatMapRequest(show_id=show.show_id)
        seat_map = await stage.ask(stage.booking.GetSeatMap, request, someone)
        shown = {
            seat.seat_no: seat.status for seat in seat_map.seats if seat.status != booking_v1.SEAT_STATUS_AVAILABLE
        }
        version, claims = await stage.seats_in_postgres(show.show_id)
        if (seat_map.version, shown) != (version, claims):
            wrong.append(
                f"show {show.show_id}: the map shows {seat_map.version}, {shown}; PostgreSQL has {version}, {claims}"
            )
        if await stage.seats_at_version(show.show_id, version) != claims:
            wrong.append(f"show {show.show_id}: its log leads elsewhere than its claims")
        logged, taken = (
            await stage.rows(
                """
                SELECT (SELECT array_agg(version ORDER BY version) FROM show_log WHERE show_id = v.show_id), v.taken
                FROM show_versions v
                WHERE v.show_id = %s
                """,
                show.show_id,
            )
        )[0]
        if (logged or []) != list(range(1, version + 1)):
            wrong.append(f"show {show.show_id}: its log has gaps below version {version}")
        if taken != len(claims):
            wrong.append(f"show {show.show_id}: {taken} seats are counted as taken, {len(claims)} are")
        booked = {seat_no for seat_no, state in claims.items() if state == booking_v1.SEAT_STATUS_BOOKED}
        if booked != sold[show.show_id]:
            wrong.append(
                f"show {show.show_id}: seats {sorted(booked ^ sold[show.show_id])[:9]} are booked or sold, not both"
            )
    return wrong


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Two columns for a person."""
    lines = [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in rows]
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value:>12}" for name, value in lines)])


def report(verdict: Verdict, crowd: Crowd, never_reported: int, summary: Counter[str]) -> str:
    """The counts."""
    ends = Counter(booking.status.value for booking in verdict.bookings.values())
    return "\n".join(
        [
            table(
                "Exercised, by the provider's books",
                [
                    *((name.replace("_", " "), count) for name, count in asdict(verdict.exercised).items()),
                    ("captures never reported", never_reported),
                    *summary.items(),
                ],
            ),
            table("Buyers", crowd.diary.begun.most_common()),
            table("How they ended", crowd.diary.ended.most_common()),
            table("Answers that were not OK", crowd.stage.codes.most_common()),
            table(
                "Acknowledged",
                [
                    ("reservations", len(crowd.diary.reservations)),
                    ("bookings", len(crowd.diary.bookings)),
                    ("payments", len(crowd.diary.payments)),
                ],
            ),
            table("Bookings in the end", ends.most_common()),
            table("Money, minor units", asdict(verdict.sums).items()),
            f"settled {verdict.settled_after_s:.1f} s after the last buyer",
        ]
    )
