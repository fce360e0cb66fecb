"""What is owed for bookings: payment asks, for many buyers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import structlog

from marquee.booking import v1 as booking_v1
from services.booking.desk import Desk
from services.booking.desks import Desks
from services.booking.domain import BookingNotPayable, BookingState, Show, no_such
from services.booking.messages import money
from services.booking.store.bookings import BookingRow
from services.kit.errors import DeadlineExceeded, Refusal, Unavailable
from services.kit.surprises import as_refusal

log = structlog.get_logger()


async def get_payables(wanted: Sequence[tuple[UUID, UUID]], *, desks: Desks) -> list[booking_v1.Payable | Refusal]:
    """What is owed for each (booking, user), in their order; or why nothing is.

    NotFound: there is none, or it is somebody else's. BookingNotPayable: it is paid, cancelled, or its payment window
    is over. Unavailable: its region is being moved.
    """
    found: dict[UUID, tuple[BookingRow, bool, Show | None] | Refusal] = {}

    async def look(desk: Desk, booking_ids: Sequence[UUID]) -> None:
        try:
            payables = await desk.bookings.payables(booking_ids)
        except Exception as error:  # a database that is away must not keep the bookings of others from being paid
            refusal = as_refusal(error)
            if isinstance(refusal, Unavailable | DeadlineExceeded):
                log.warning("payables_not_read", error=f"{type(error).__name__}: {error}"[:200])
            else:
                log.error("payables_not_read", exc_info=error)
            found.update(dict.fromkeys(booking_ids, refusal))
            return
        for booking_id, (row, is_open) in payables.items():
            found[booking_id] = row, is_open, await desk.shows.find_or_none(row.show_id)

    await asyncio.gather(*(look(desk, ids) for desk, ids in desks.by_desk({booking_id for booking_id, _ in wanted})))
    answers: list[booking_v1.Payable | Refusal] = []
    for booking_id, user_id in wanted:
        known = found.get(booking_id)
        if desks.is_closed(booking_id):
            answers.append(desks.moving())
        elif isinstance(known, Refusal):
            answers.append(known)
        elif known is None or known[0].user_id != user_id:
            answers.append(no_such("booking"))
        else:
            answers.append(_payable(*known))
    return answers


def _payable(row: BookingRow, is_open: bool, show: Show | None) -> booking_v1.Payable | Refusal:
    if not is_open:
        state = row.status.name.lower().replace("_", " ")
        late = row.status is BookingState.PENDING_PAYMENT
        return BookingNotPayable("its payment window is over" if late else f"the booking is {state}")
    places = f"{len(row.seat_nos)} place{'s' if len(row.seat_nos) > 1 else ''}"
    payable = booking_v1.Payable(
        booking_id=str(row.booking_id),
        amount=money(row.total, row.currency),
        reference=row.reference,
        description=f"{show.title}, {places}" if show else places,
    )
    payable.pay_by_time.FromDatetime(row.pay_by)
    return payable
