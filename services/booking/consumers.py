"""What booking does when others' events arrive (and one of its own). Each handler runs in the inbox's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Protocol
from uuid import UUID, uuid5

import structlog

from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1
from marquee.payment import v1 as payment_v1
from services.booking.desk import Desk
from services.booking.desks import Desks
from services.booking.domain import Show, sale_window
from services.booking.messages import booking_message, minor_units, money
from services.booking.store.bookings import BookingRow, Capture, CaptureOutcome, list_for_user, lock_show
from services.booking.store.closures import close_show
from services.booking.store.seats import ShowChange
from services.booking.store.shows import ShowRow, keep_shows
from services.booking.usecases import REFUNDS, cancelled_event, refund_event
from services.kit import inbox, outbox
from services.kit.bus import ReceivedEvent
from services.kit.consumers import AfterCommit, Handler
from services.kit.database import Connection
from services.kit.outbox import Event

log = structlog.get_logger()

CONSUMER = "booking"


class AtDesk(Protocol):
    """Does what events ask for that belong to one desk's database, in a transaction there."""

    async def __call__(
        self, connection: Connection, events: Sequence[ReceivedEvent], *, desk: Desk
    ) -> AfterCommit | None: ...


def handlers(desks: Desks) -> Mapping[str, Handler]:
    """Topic by topic."""
    return {
        "catalog.changed": _at_desks(copy_shows, desks),
        "payment.completed": _at_desks(confirm, desks),
        "booking.created": _at_desks(list_bookings, desks),
    }


def _at_desks(handle: AtDesk, desks: Desks) -> Handler:
    """Give each event to the desk of its region, which its key tells.

    The consumer's transaction is home's. Another desk's commits before it, with an inbox of its own: should home's
    fail, the events come again and have been taken there.
    """

    async def handler(connection: Connection, events: Sequence[ReceivedEvent]) -> AfterCommit:
        by_desk: dict[int, tuple[Desk, list[ReceivedEvent]]] = {}
        for event in events:
            desk = _desk_of(event, desks)
            by_desk.setdefault(id(desk), (desk, []))[1].append(event)
        done = []
        for desk, some in by_desk.values():
            if desk is desks.home:
                done.append(await handle(connection, some, desk=desk))
                continue
            async with desk.bookings.transaction() as own:
                new = await inbox.take(own, CONSUMER, some)
                done.append(await handle(own, new, desk=desk) if new else None)

        async def after() -> None:
            for each in done:
                if each is not None:
                    await each()

        return after

    return handler


def _desk_of(event: ReceivedEvent, desks: Desks) -> Desk:
    """Raises Unavailable while the region is being moved, which a consumer waits out."""
    try:
        identifier = UUID(event.key)
    except ValueError:  # a city, say
        return desks.home
    return desks.of(identifier)


async def list_bookings(connection: Connection, events: Sequence[ReceivedEvent], *, desk: Desk) -> None:
    """Enter new bookings into their users' lists."""
    bookings: list[booking_v1.BookingCreated] = [event.read(booking_v1.BookingCreated) for event in events]
    await list_for_user(
        connection,
        [
            (UUID(each.user_id), each.booking.create_time.ToDatetime(tzinfo=UTC), UUID(each.booking.booking_id))
            for each in bookings
        ],
    )


# --- shows ------------------------------------------------------------------------------------------------------------


async def copy_shows(connection: Connection, events: Sequence[ReceivedEvent], *, desk: Desk) -> AfterCommit:
    """Keep booking's copy of shows; end all that a cancelled one sold."""
    rows: list[ShowRow] = []
    cancelled: dict[UUID, str] = {}
    for event in events:
        changed: catalog_v1.CatalogChanged = event.read(catalog_v1.CatalogChanged)
        if changed.WhichOneof("subject") != "show":
            continue
        row = show_row(changed.show)
        rows.append(row)
        if row.cancelled:
            cancelled[row.show_id] = changed.reason
    await keep_shows(connection, rows)

    changes: list[ShowChange] = []
    ended: list[UUID] = []
    for show_id in sorted(cancelled):
        locked = await lock_show(connection, show_id)
        assert locked is not None
        version, moment = locked
        change, bookings = await close_show(connection, show_id, version=version, moment=moment)
        changes.append(ShowChange(show_id, change))
        ended += [booking.booking_id for booking in bookings]
        told: list[Event] = []
        for booking in bookings:
            told.append(cancelled_event(booking_message(booking, None), str(booking.user_id), "show_cancelled"))
            if booking.refund:
                told.append(refund_event(booking, booking.refund, "show_cancelled"))
        await outbox.append(connection, told)
        log.info("show_cancelled", show_id=str(show_id), bookings=len(bookings), seats=len(change.freed))

    async def after() -> None:
        for row in rows:
            desk.shows.forget(row.show_id)
        desk.tell(changes)
        desk.signals.changed(ended)
        for show_id in cancelled:
            desk.live.close_show(show_id)

    return after


def show_row(show: catalog_v1.Show) -> ShowRow:
    """The catalogue's show as booking keeps it."""
    start = show.start_time.ToDatetime(tzinfo=UTC)
    opens, closes = sale_window(
        show.on_sale_time.ToDatetime(tzinfo=UTC),
        show.off_sale_time.ToDatetime(tzinfo=UTC) if show.HasField("off_sale_time") else start,
        start,
    )
    return ShowRow(
        show_id=UUID(show.show_id),
        version=show.version,
        title=show.title,
        city_id=show.city_id,
        venue_id=show.venue_id,
        venue_name=show.venue_name,
        screen_name=show.screen_name,
        time_zone=show.time_zone,
        start_time=start,
        sale_opens=opens,
        sale_closes=closes,
        layout_id=UUID(show.layout_id),
        layout_version=show.layout_version,
        capacity=show.capacity,
        currency=show.prices[0].price.currency_code if show.prices else "INR",
        prices={each.category: minor_units(each.price) for each in show.prices},
        refund_tiers=[(tier.minutes_before, tier.percent) for tier in show.refund_policy.tiers],
        cancelled=show.state == catalog_v1.SHOW_STATE_CANCELLED,
    )


# --- money ------------------------------------------------------------------------------------------------------------


async def confirm(connection: Connection, events: Sequence[ReceivedEvent], *, desk: Desk) -> AfterCommit:
    """Money has come in: confirm what it pays for, ask for the rest back. Captured = confirmed + refunded, always."""
    captures = [_capture(event.read(payment_v1.PaymentCompleted)) for event in events]
    outcomes = await desk.bookings.confirm(connection, captures)
    confirmed = [each.booking for each in outcomes if each.booking is not None]
    shows = await desk.shows.find_all(row.show_id for row in confirmed)
    told: list[Event] = []
    for each in outcomes:
        if each.booking is not None:
            told.append(_confirmed(each.booking, shows.get(each.booking.show_id)))
        elif each.outcome != "SEEN":
            told.append(_give_back(each))
    await outbox.append(connection, told)

    async def after() -> None:
        desk.tell([each.change for each in outcomes if each.change is not None])
        desk.signals.changed([row.booking_id for row in confirmed])

    return after


def _confirmed(row: BookingRow, show: Show | None) -> Event:
    message = booking_v1.BookingConfirmed(booking=booking_message(row, show), user_id=str(row.user_id))
    return Event("booking.confirmed", str(row.booking_id), message)


def _capture(completed: payment_v1.PaymentCompleted) -> Capture:
    return Capture(
        booking_id=UUID(completed.booking_id),
        payment_id=UUID(completed.payment_id),
        capture_id=completed.capture_id,
        amount=minor_units(completed.amount),
        currency=completed.amount.currency_code,
    )


def _give_back(each: CaptureOutcome) -> Event:
    """Ask payment to pay a whole capture back; for one capture always the same refund."""
    capture = each.capture
    log.info("capture_given_back", booking_id=str(capture.booking_id), why=each.outcome)
    message = payment_v1.RefundRequested(
        refund_id=str(uuid5(REFUNDS, f"capture/{capture.capture_id}")),
        booking_id=str(capture.booking_id),
        payment_id=str(capture.payment_id),
        capture_id=capture.capture_id,
        amount=money(capture.amount, capture.currency),
        reason=each.outcome.lower(),
    )
    return Event("payment.refund_requested", str(capture.booking_id), message)
