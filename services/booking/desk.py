"""What a use case of booking works with, put together once in ``__main__.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
import structlog

from services.booking.announcer import Announcer
from services.booking.conversions import BookBatches
from services.booking.domain import Rates
from services.booking.live_maps import LiveMaps
from services.booking.shows import Shows
from services.booking.signals import BookingSignals
from services.booking.store.bookings import BookingStore
from services.booking.store.holds import HoldOutcome, HoldStore, HoldWish
from services.booking.store.seats import Change, SeatStore, ShowChange
from services.kit.batcher import Batcher
from services.kit.database import SESSION_ENDED
from services.kit.errors import Overloaded

log = structlog.get_logger()
HoldBatches = Batcher[HoldWish, HoldOutcome]


@dataclass(frozen=True)
class Desk:
    """Stores, live maps and the rest. ``tell`` is called after every commit that changed seats."""

    shows: Shows
    seats: SeatStore
    holds: HoldStore
    hold_batches: HoldBatches
    bookings: BookingStore
    book_batches: BookBatches
    live: LiveMaps
    signals: BookingSignals
    announcer: Announcer
    rates: Rates

    def tell(self, changes: Sequence[ShowChange]) -> None:
        """Tell viewers and lists of committed changes. Lost? The next poll repairs viewers."""
        if changes:
            self.live.publish(changes)
            self.announcer.changed(change.show_id for change in changes)


def hold_batches(
    holds: HoldStore, live: LiveMaps, announcer: Announcer, *, at_once: int, most: int, gather_seconds: float
) -> HoldBatches:
    """Holds that arrive together share a call, a commit and a publish."""

    async def flush(wishes: Sequence[HoldWish]) -> Sequence[HoldOutcome]:
        outcomes = await _once_more(holds, wishes)
        changes = [
            ShowChange(
                wish.show_id,
                Change(outcome.fence, freed=outcome.freed, held=outcome.seat_nos, user_id=wish.user_id),
            )
            for wish, outcome in zip(wishes, outcomes, strict=True)
            if outcome.outcome == "HELD"
        ]
        if changes:
            live.publish(changes)
            announcer.changed(change.show_id for change in changes)
        return outcomes

    return Batcher(flush, lane=lambda wish: wish.show_id, at_once=at_once, most=most, gather_seconds=gather_seconds)


async def _once_more(holds: HoldStore, wishes: Sequence[HoldWish]) -> list[HoldOutcome]:
    """A connection that PostgreSQL closed fails once; the request ids make it safe to ask again on another."""
    try:
        return await holds.add(wishes)
    except psycopg.errors.LockNotAvailable:
        raise Overloaded("too many people want this show at once; try again", retry_after_seconds=1) from None
    except psycopg.errors.QueryCanceled:
        raise
    except (psycopg.OperationalError, *SESSION_ENDED) as error:
        log.warning("hold_batch_repeated", error=f"{type(error).__name__}: {error}"[:200])
        return await holds.add(wishes)
