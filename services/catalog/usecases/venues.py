"""Keeping venues."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from marquee.catalog import v1 as catalog_v1
from services.catalog.announcements import changed
from services.catalog.domain import masks
from services.catalog.domain.errors import InUse, Retired, missing, require_version
from services.catalog.domain.venues import VENUE_FIELDS, Venue
from services.catalog.messages.values import take_fields, uuid_of
from services.catalog.messages.venues import venue_message, venue_of
from services.catalog.store import shows, venues
from services.catalog.store.page import Page
from services.catalog.usecases.desk import LOCK, Change, Desk, pick
from services.catalog.usecases.reading import Where
from services.catalog.usecases.renaming import announce_shows
from services.kit.caches import VENUE
from services.kit.call import UserId
from services.kit.errors import InvalidArgument
from services.kit.idempotency import once
from services.kit.outbox import append


async def create_venue(request: catalog_v1.CreateVenueRequest, *, by: UserId, desk: Desk) -> catalog_v1.Venue:
    """Add a venue without screens, in its city's zone unless it names one.

    Raises:
        InvalidArgument: names the field below ``venue``.
        NotFound: the city.
        RequestIdReused
    """
    wish = venue_of(request.venue, "venue")
    if not wish.city_id:
        raise InvalidArgument.of("venue.city_id", "is needed")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Venue:
            city = await venues.find_city(change.connection, wish.city_id)
            if city is None:
                raise missing("city", wish.city_id, "venue.city_id")
            venue = replace(wish, venue_id=uuid4(), time_zone=wish.time_zone or city.time_zone, version=1)
            await venues.add_venue(change.connection, venue)
            return await _announce(change, venue)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Venue, effect=effect)


async def update_venue(request: catalog_v1.UpdateVenueRequest, *, by: UserId, desk: Desk) -> catalog_v1.Venue:
    """Change the fields that the mask names; city and zone stay.

    Raises:
        InvalidArgument: names ``update_mask`` or the field below ``venue``.
        NotFound, Retired, Conflict, RequestIdReused
    """
    venue_id = uuid_of(request.venue.venue_id, "venue.venue_id")
    fields = masks.chosen(request.update_mask.paths, VENUE_FIELDS, "venue")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Venue:
            present = await venues.find_venue(change.connection, venue_id, lock=LOCK)
            if present is None:
                raise missing("venue", venue_id)
            if present.retired:
                raise Retired("venue", venue_id)
            require_version(request.venue.version, present.version)
            # What the mask leaves out is read as it is, so that only what is asked for can be wrong.
            full = venue_message(present)
            take_fields(full, request.venue, fields)
            wish = venue_of(full, "venue")
            venue = replace(present, **pick(wish, fields), version=present.version + 1)
            await venues.save_venue(change.connection, venue)
            if venue.name != present.name:
                await announce_shows(change, now=desk.clock(), venue_id=venue_id)
            return await _announce(change, venue)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Venue, effect=effect)


async def retire_venue(request: catalog_v1.RetireVenueRequest, *, by: UserId, desk: Desk) -> catalog_v1.Venue:
    """Close a venue that has no show to come; closing it again answers it as it is.

    Raises:
        NotFound, InUse, RequestIdReused
    """
    venue_id = uuid_of(request.venue_id, "venue_id")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Venue:
            # Whoever adds a show holds the venue FOR SHARE until its commit, so the count below sees that show.
            present = await venues.find_venue(change.connection, venue_id, lock=LOCK)
            if present is None:
                raise missing("venue", venue_id)
            if present.retired:
                return venue_message(present)
            to_come = await shows.count_to_come(change.connection, now=desk.clock(), venue_id=venue_id)
            if to_come:
                raise InUse("venue", to_come)
            venue = replace(present, retired=True, version=present.version + 1)
            await venues.save_venue(change.connection, venue)
            return await _announce(change, venue)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Venue, effect=effect)


async def list_all_venues(city_id: str, where: Where, *, desk: Desk) -> Page[Venue]:
    """Venues, retired ones too, the last created first."""
    async with desk.engine.connect() as connection:
        return await venues.list_all_venues(connection, city_id, after=where.after, size=where.size)


async def _announce(change: Change, venue: Venue) -> catalog_v1.Venue:
    message = venue_message(venue)
    change.makes_stale(VENUE, [venue.venue_id])
    await append(change.connection, [changed(message)])
    return message
