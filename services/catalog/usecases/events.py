"""Keeping events: concerts, plays, matches."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from marquee.catalog import v1 as catalog_v1
from services.catalog.announcements import changed
from services.catalog.domain import masks
from services.catalog.domain.errors import Retired, missing, require_version
from services.catalog.domain.titles import EVENT_FIELDS, Event, TitleState, state_from
from services.catalog.messages.titles import event_message, event_of
from services.catalog.messages.values import take_fields, uuid_of
from services.catalog.store import titles
from services.catalog.store.page import Page
from services.catalog.usecases.desk import LOCK, Change, Desk, pick
from services.catalog.usecases.reading import Where
from services.catalog.usecases.renaming import announce_shows
from services.kit.caches import EVENT
from services.kit.call import UserId
from services.kit.idempotency import once
from services.kit.outbox import append


async def create_event(request: catalog_v1.CreateEventRequest, *, by: UserId, desk: Desk) -> catalog_v1.Event:
    """Add an event.

    Raises:
        InvalidArgument: names the field below ``event``.
        RequestIdReused
    """
    wish = event_of(request.event, "event")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Event:
            event = replace(wish, event_id=uuid4(), version=1)
            await titles.add_event(change.connection, event)
            return await _announce_event(change, event)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Event, effect=effect)


async def update_event(request: catalog_v1.UpdateEventRequest, *, by: UserId, desk: Desk) -> catalog_v1.Event:
    """Change the fields that the mask names.

    Raises:
        InvalidArgument: names ``update_mask`` or the field below ``event``.
        NotFound, Retired, Conflict, RequestIdReused
    """
    event_id = uuid_of(request.event.event_id, "event.event_id")
    unset = () if request.event.state else ("state",)
    fields = masks.chosen(request.update_mask.paths, EVENT_FIELDS, "event", unset=unset)
    if "state" in fields:
        state_from(request.event.state, "event.state")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Event:
            present = await titles.find_event(change.connection, event_id, lock=LOCK)
            if present is None:
                raise missing("event", event_id)
            if present.state is TitleState.RETIRED:
                raise Retired("event", event_id)
            require_version(request.event.version, present.version)
            full = event_message(present)
            take_fields(full, request.event, fields)
            wish = event_of(full, "event")
            event = replace(present, **pick(wish, fields), version=present.version + 1)
            await titles.save_event(change.connection, event)
            if event.title != present.title:
                await announce_shows(change, now=desk.clock(), title_id=event_id)
            return await _announce_event(change, event)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Event, effect=effect)


async def retire_event(request: catalog_v1.RetireEventRequest, *, by: UserId, desk: Desk) -> catalog_v1.Event:
    """Take an event off the lists. Its shows stay; retiring again answers it as it is.

    Raises:
        NotFound, RequestIdReused
    """
    event_id = uuid_of(request.event_id, "event_id")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Event:
            present = await titles.find_event(change.connection, event_id, lock=LOCK)
            if present is None:
                raise missing("event", event_id)
            if present.state is TitleState.RETIRED:
                return event_message(present)
            event = replace(present, state=TitleState.RETIRED, version=present.version + 1)
            await titles.save_event(change.connection, event)
            return await _announce_event(change, event)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Event, effect=effect)


async def list_all_events(state: TitleState | None, where: Where, *, desk: Desk) -> Page[Event]:
    """Events of any state, the last created first."""
    async with desk.engine.connect() as connection:
        return await titles.list_all_events(connection, state, after=where.after, size=where.size)


async def _announce_event(change: Change, event: Event) -> catalog_v1.Event:
    message = event_message(event)
    change.makes_stale(EVENT, [event.event_id])
    await append(change.connection, [changed(message)])
    return message
