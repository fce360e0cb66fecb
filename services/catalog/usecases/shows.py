"""Keeping shows: scheduling them one by one or in bulk, changing their sale, cancelling them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from marquee.catalog import v1 as catalog_v1
from services.catalog.announcements import changed
from services.catalog.domain.errors import Retired, ScreenBusy, missing, require_version
from services.catalog.domain.layouts import Layout
from services.catalog.domain.shows import (
    NamedShow,
    Show,
    ShowState,
    business_date,
    require_apart,
    require_changeable,
    require_fit,
    require_prices,
    require_sale_window,
    times_for,
)
from services.catalog.domain.titles import Event, Format, Movie, TitleState
from services.catalog.domain.venues import Screen, Venue
from services.catalog.messages.shows import prices_of, show_message, tiers_of
from services.catalog.messages.values import optional_uuid_of, time_of, uuid_of
from services.catalog.store import shows, titles, venues
from services.catalog.store.page import Page
from services.catalog.usecases.desk import Desk
from services.catalog.usecases.reading import Where
from services.kit.caches import SHOW
from services.kit.call import UserId
from services.kit.errors import InvalidArgument
from services.kit.idempotency import once
from services.kit.ids import new_show_id
from services.kit.outbox import append

LOCK = "FOR NO KEY UPDATE OF shows"
Plans = Mapping[str, catalog_v1.ShowPlan]
"""What to schedule, by where it stands in the request (``shows[3]``)."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the shows that are being scheduled refer to, locked so that it stays as it is until they are committed."""

    titles: Mapping[UUID, Movie | Event]
    screens: Mapping[UUID, Screen]
    venues: Mapping[UUID, Venue]
    layouts: Mapping[UUID, Layout]
    regions: Mapping[str, int]


async def create_show(request: catalog_v1.CreateShowRequest, *, by: UserId, desk: Desk) -> catalog_v1.Show:
    """Schedule a show on a screen that is free then.

    Raises:
        InvalidArgument: names the field below ``show``.
        NotFound, Retired, ScreenBusy, RequestIdReused
    """
    async with desk.change() as change:

        async def effect() -> catalog_v1.Show:
            return (await _schedule(change.connection, {"show": request.show}, desk.clock()))[0]

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Show, effect=effect)


async def create_shows(
    request: catalog_v1.CreateShowsRequest, *, by: UserId, desk: Desk
) -> catalog_v1.CreateShowsResponse:
    """Schedule all the shows or none.

    Raises:
        InvalidArgument: names the field below ``shows[3]``.
        NotFound, Retired, ScreenBusy: the metadata's ``field`` names the show.
        RequestIdReused
    """
    plans = {f"shows[{index}]": plan for index, plan in enumerate(request.shows)}
    async with desk.change() as change:

        async def effect() -> catalog_v1.CreateShowsResponse:
            return catalog_v1.CreateShowsResponse(shows=await _schedule(change.connection, plans, desk.clock()))

        return await once(
            change.connection,
            caller=by,
            request=request,
            answer_type=catalog_v1.CreateShowsResponse,
            effect=effect,
        )


async def update_show(request: catalog_v1.UpdateShowRequest, *, by: UserId, desk: Desk) -> catalog_v1.Show:
    """Change prices, sale window or refund policy. Holds and bookings keep the quote they were given.

    Raises:
        InvalidArgument: names the field.
        NotFound, Conflict, ShowNotOnSale, RequestIdReused
    """
    show_id = uuid_of(request.show_id, "show_id")
    prices = prices_of(request.prices, "prices")
    tiers = tiers_of(request.refund_policy, "refund_policy") if request.HasField("refund_policy") else None
    on_sale = time_of(request.on_sale_time, "on_sale_time") if request.HasField("on_sale_time") else None
    off_sale = time_of(request.off_sale_time, "off_sale_time") if request.HasField("off_sale_time") else None
    async with desk.change() as change:

        async def effect() -> catalog_v1.Show:
            named = await shows.find_show(change.connection, show_id, lock=LOCK)
            if named is None:
                raise missing("show", show_id)
            present = named.show
            require_version(request.version, present.version)
            require_changeable(present, desk.clock())
            show = replace(
                present,
                on_sale_time=on_sale or present.on_sale_time,
                off_sale_time=off_sale or present.off_sale_time,
                refund_tiers=present.refund_tiers if tiers is None else tiers,
                version=present.version + 1,
            )
            require_sale_window(show.on_sale_time, show.off_sale_time, show.end_time, "")
            if prices:
                show = replace(show, prices=require_prices(prices, list(present.prices), "prices"))
            await shows.save_show(change.connection, show)
            message = show_message(replace(named, show=show))
            change.makes_stale(SHOW, [show_id])
            await append(change.connection, [changed(message)])
            return message

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Show, effect=effect)


async def cancel_show(request: catalog_v1.CancelShowRequest, *, by: UserId, desk: Desk) -> catalog_v1.Show:
    """Cancel a show; booking ends every hold and refunds every buyer upon the event. Once more answers it as it is.

    Raises:
        NotFound, RequestIdReused
    """
    show_id = uuid_of(request.show_id, "show_id")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Show:
            named = await shows.find_show(change.connection, show_id, lock=LOCK)
            if named is None:
                raise missing("show", show_id)
            if named.show.state is ShowState.CANCELLED:
                return show_message(named)
            show = replace(named.show, state=ShowState.CANCELLED, version=named.show.version + 1)
            await shows.save_show(change.connection, show)
            message = show_message(replace(named, show=show))
            change.makes_stale(SHOW, [show_id])
            await append(change.connection, [changed(message, reason=request.reason)])
            return message

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Show, effect=effect)


async def list_all_shows(wanted: shows.ShowFilter, where: Where, *, desk: Desk) -> Page[NamedShow]:
    """Shows of any state, past ones too, by start."""
    async with desk.engine.connect() as connection:
        return await shows.list_shows(connection, wanted, after=where.after, size=where.size, now=None)


async def _schedule(connection: AsyncConnection, plans: Plans, now: datetime) -> list[catalog_v1.Show]:
    """Add the shows and announce each.

    The screens are locked, in the order of their ids, before anything is looked at: whoever schedules on one of them
    waits, and then sees these shows.
    """
    parts = await _lock_parts(connection, plans)
    named = [_show(plan, parts, now, field) for field, plan in plans.items()]
    fields = list(plans)
    wanted = [(each.show.screen_id, each.show.start_time, each.show.end_time) for each in named]
    require_apart(wanted, fields)
    collision = await shows.first_collision(connection, wanted)
    if collision is not None:
        place, other = collision
        raise ScreenBusy(f"{fields[place]}.screen_id", other_show_id=other)
    try:
        await shows.add_shows(connection, [each.show for each in named])
    except IntegrityError as error:
        if "shows_apart" in str(error.orig):
            raise ScreenBusy(f"{fields[0]}.screen_id") from None
        raise
    messages = [show_message(each) for each in named]
    await append(connection, [changed(message) for message in messages])
    return messages


async def _lock_parts(connection: AsyncConnection, plans: Plans) -> Parts:
    screens = await venues.lock_screens(
        connection, sorted({uuid_of(plan.screen_id, f"{field}.screen_id") for field, plan in plans.items()})
    )
    found: dict[UUID, Movie | Event] = {}
    for movie_id in sorted({uuid_of(plan.movie_id, "movie_id") for plan in plans.values() if plan.movie_id}):
        movie = await titles.find_movie(connection, movie_id, lock="FOR SHARE")
        if movie is not None:
            found[movie_id] = movie
    for event_id in sorted({uuid_of(plan.event_id, "event_id") for plan in plans.values() if plan.event_id}):
        event = await titles.find_event(connection, event_id, lock="FOR SHARE")
        if event is not None:
            found[event_id] = event
    places = await venues.find_venues(connection, [screen.venue_id for screen in screens.values()])
    layouts = await venues.find_layouts(connection, [screen.layout_id for screen in screens.values()])
    regions = await venues.regions_of(connection, [venue.city_id for venue in places.values()])
    return Parts(found, screens, places, layouts, regions)


def _show(plan: catalog_v1.ShowPlan, parts: Parts, now: datetime, field: str) -> NamedShow:
    """The show that an administrator describes.

    Raises:
        InvalidArgument: names the field below ``field``.
        NotFound, Retired: its title, screen or venue.
    """
    movie_id = optional_uuid_of(plan.movie_id, f"{field}.movie_id")
    event_id = optional_uuid_of(plan.event_id, f"{field}.event_id")
    kind, title_id = ("movie", movie_id) if movie_id is not None else ("event", event_id)
    if title_id is None:
        raise InvalidArgument.of(f"{field}.movie_id", "name exactly one of movie_id and event_id")
    title = parts.titles.get(title_id)
    if title is None:
        raise missing(kind, title_id, f"{field}.{kind}_id")
    if title.state is TitleState.RETIRED:
        raise Retired(kind, title_id, f"{field}.{kind}_id")
    screen_id = uuid_of(plan.screen_id, f"{field}.screen_id")
    screen = parts.screens.get(screen_id)
    if screen is None:
        raise missing("screen", screen_id, f"{field}.screen_id")
    if screen.retired:
        raise Retired("screen", screen_id, f"{field}.screen_id")
    venue = parts.venues[screen.venue_id]
    if venue.retired:
        raise Retired("venue", venue.venue_id, f"{field}.screen_id")
    format_ = Format(plan.format)
    require_fit(title, screen, format_, plan.language, field)
    times = times_for(
        start=time_of(plan.start_time, f"{field}.start_time"),
        end=time_of(plan.end_time, f"{field}.end_time") if plan.HasField("end_time") else None,
        on_sale=time_of(plan.on_sale_time, f"{field}.on_sale_time") if plan.HasField("on_sale_time") else None,
        off_sale=time_of(plan.off_sale_time, f"{field}.off_sale_time") if plan.HasField("off_sale_time") else None,
        duration_minutes=title.duration_minutes,
        now=now,
        field=field,
    )
    layout = parts.layouts[screen.layout_id]
    prices = require_prices(prices_of(plan.prices, f"{field}.prices"), layout.plan.categories, f"{field}.prices")
    day = business_date(times.start, venue.time_zone)
    show = Show(
        show_id=new_show_id(day, parts.regions[venue.city_id]),
        movie_id=movie_id,
        event_id=event_id,
        venue_id=venue.venue_id,
        screen_id=screen_id,
        city_id=venue.city_id,
        start_time=times.start,
        end_time=times.end,
        business_date=day,
        language=plan.language or (title.languages[0] if title.languages else ""),
        format=format_,
        layout_id=screen.layout_id,
        layout_version=screen.layout_version,
        prices=prices,
        on_sale_time=times.on_sale,
        off_sale_time=times.off_sale,
        refund_tiers=tiers_of(plan.refund_policy, f"{field}.refund_policy"),
        organizer_id=title.organizer_id if isinstance(title, Event) else venue.organizer_id,
        capacity=screen.capacity,
        time_zone=venue.time_zone,
    )
    return NamedShow(show, title.title, venue.name, screen.name)
