"""A show carries the names of its title, venue and screen: when one changes, its shows to come are announced anew."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from services.catalog.announcements import changed
from services.catalog.messages.shows import show_message
from services.catalog.store import shows
from services.catalog.usecases.desk import Change
from services.kit.caches import SHOW
from services.kit.outbox import append


async def announce_shows(
    change: Change,
    *,
    now: datetime,
    title_id: UUID | None = None,
    venue_id: UUID | None = None,
    screen_id: UUID | None = None,
) -> None:
    """Give the shows to come of a title, venue or screen a new version and announce each."""
    renamed = await shows.renew_to_come(
        change.connection, now=now, title_id=title_id, venue_id=venue_id, screen_id=screen_id
    )
    change.makes_stale(SHOW, [each.show.show_id for each in renamed])
    await append(change.connection, [changed(show_message(each)) for each in renamed])
