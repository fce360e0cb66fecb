"""Keeping screens and their layouts."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

from marquee.catalog import v1 as catalog_v1
from services.catalog.announcements import changed
from services.catalog.domain.errors import InUse, Retired, missing, require_version
from services.catalog.domain.layouts import Layout, require_plan
from services.catalog.domain.titles import Format, require_text
from services.catalog.domain.venues import Screen
from services.catalog.messages.layouts import plan_of
from services.catalog.messages.values import uuid_of
from services.catalog.messages.venues import screen_message
from services.catalog.store import shows, venues
from services.catalog.usecases.desk import LOCK, Change, Desk
from services.catalog.usecases.renaming import announce_shows
from services.kit.caches import VENUE
from services.kit.call import UserId
from services.kit.idempotency import once
from services.kit.outbox import append


async def create_screen(request: catalog_v1.CreateScreenRequest, *, by: UserId, desk: Desk) -> catalog_v1.Screen:
    """Add a screen with its first layout.

    Raises:
        InvalidArgument: names the field.
        NotFound, Retired: the venue.
        RequestIdReused
    """
    venue_id = uuid_of(request.venue_id, "venue_id")
    require_text(request.name, "name")
    plan = plan_of(request.layout)
    require_plan(plan, "layout")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Screen:
            venue = await venues.find_venue(change.connection, venue_id, lock="FOR SHARE")
            if venue is None:
                raise missing("venue", venue_id)
            if venue.retired:
                raise Retired("venue", venue_id)
            layout = Layout(uuid4(), uuid4(), 1, plan)
            screen = Screen(
                screen_id=layout.screen_id,
                venue_id=venue_id,
                name=request.name.strip(),
                formats=tuple(map(Format, request.formats)),
                layout_id=layout.layout_id,
                layout_version=layout.layout_version,
                capacity=plan.capacity,
            )
            await venues.add_layout(change.connection, layout)
            await venues.add_screen(change.connection, screen)
            return await _announce(change, screen)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Screen, effect=effect)


async def update_screen(request: catalog_v1.UpdateScreenRequest, *, by: UserId, desk: Desk) -> catalog_v1.Screen:
    """Rename a screen, change its formats, or give it a new layout. Shows that exist keep the layout they have.

    Raises:
        InvalidArgument: names the field.
        NotFound, Retired, Conflict, RequestIdReused
    """
    screen_id = uuid_of(request.screen_id, "screen_id")
    if request.name:
        require_text(request.name, "name")
    plan = plan_of(request.layout) if request.HasField("layout") else None
    if plan is not None:
        require_plan(plan, "layout")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Screen:
            present = await venues.find_screen(change.connection, screen_id, lock=LOCK)
            if present is None:
                raise missing("screen", screen_id)
            if present.retired:
                raise Retired("screen", screen_id)
            require_version(request.version, present.version)
            screen = replace(
                present,
                name=request.name.strip() or present.name,
                formats=tuple(map(Format, request.formats)) or present.formats,
                version=present.version + 1,
            )
            if plan is not None:
                layout = Layout(uuid4(), screen_id, present.layout_version + 1, plan)
                await venues.add_layout(change.connection, layout)
                screen = replace(
                    screen,
                    layout_id=layout.layout_id,
                    layout_version=layout.layout_version,
                    capacity=plan.capacity,
                )
            await venues.save_screen(change.connection, screen)
            if screen.name != present.name:
                await announce_shows(change, now=desk.clock(), screen_id=screen_id)
            return await _announce(change, screen)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Screen, effect=effect)


async def retire_screen(request: catalog_v1.RetireScreenRequest, *, by: UserId, desk: Desk) -> catalog_v1.Screen:
    """Close a screen that has no show to come; closing it again answers it as it is.

    Raises:
        NotFound, InUse, RequestIdReused
    """
    screen_id = uuid_of(request.screen_id, "screen_id")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Screen:
            present = await venues.find_screen(change.connection, screen_id, lock=LOCK)
            if present is None:
                raise missing("screen", screen_id)
            if present.retired:
                return screen_message(present)
            to_come = await shows.count_to_come(change.connection, now=desk.clock(), screen_id=screen_id)
            if to_come:
                raise InUse("screen", to_come)
            screen = replace(present, retired=True, version=present.version + 1)
            await venues.save_screen(change.connection, screen)
            return await _announce(change, screen)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Screen, effect=effect)


async def list_screens(venue_id: UUID, *, desk: Desk) -> list[Screen]:
    """A venue's screens, retired ones too, by name.

    Raises:
        NotFound: the venue.
    """
    async with desk.engine.connect() as connection:
        if await venues.find_venue(connection, venue_id) is None:
            raise missing("venue", venue_id)
        return await venues.screens_of(connection, venue_id, retired_too=True)


async def _announce(change: Change, screen: Screen) -> catalog_v1.Screen:
    message = screen_message(screen)
    change.makes_stale(VENUE, [screen.venue_id])
    await append(change.connection, [changed(message)])
    return message
