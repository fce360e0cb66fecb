"""Shows: when they may be, which day they belong to, what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import IntEnum
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

from services.catalog.domain.errors import ScreenBusy, ShowNotOnSale
from services.catalog.domain.titles import Event, Format, Movie
from services.catalog.domain.venues import Screen
from services.kit.errors import InvalidArgument
from services.kit.money import Money

DAY_ENDS = time(4, 0)
"""Local time at which a venue's business day ends: a show at 01:30 belongs to the evening before."""
CLEANING = timedelta(minutes=20)
LONGEST = timedelta(days=3)
"""Of one show. Readers rely on it: what is not over began less than this ago."""
FARTHEST = timedelta(days=3 * 366)
"""How far ahead a show may be scheduled."""


class ShowState(IntEnum):
    SCHEDULED = 1
    CANCELLED = 2


@dataclass(frozen=True, slots=True)
class RefundTier:
    """Until ``minutes_before`` the start, ``percent`` of the seats' price is given back."""

    minutes_before: int
    percent: int


@dataclass(frozen=True, slots=True)
class Show:
    """One screening or performance. Exactly one of ``movie_id`` and ``event_id`` is set; times are UTC."""

    show_id: UUID
    movie_id: UUID | None
    event_id: UUID | None
    venue_id: UUID
    screen_id: UUID
    city_id: str
    start_time: datetime
    end_time: datetime
    business_date: date
    language: str
    format: Format
    layout_id: UUID
    layout_version: int
    prices: Mapping[str, Money]
    on_sale_time: datetime
    off_sale_time: datetime
    refund_tiers: tuple[RefundTier, ...]
    organizer_id: UUID | None
    capacity: int
    time_zone: str
    state: ShowState = ShowState.SCHEDULED
    version: int = 1


@dataclass(frozen=True, slots=True)
class NamedShow:
    """A show with the names that people know its parts by."""

    show: Show
    title: str
    venue_name: str
    screen_name: str


def business_date(start: datetime, zone: str) -> date:
    """The venue's day that a show starting at ``start`` belongs to."""
    local = start.astimezone(ZoneInfo(zone))
    return local.date() - timedelta(days=1) if local.time() < DAY_ENDS else local.date()


@dataclass(frozen=True, slots=True)
class Times:
    """When a show is, and when it is sold."""

    start: datetime
    end: datetime
    on_sale: datetime
    off_sale: datetime


def times_for(
    *,
    start: datetime,
    end: datetime | None,
    on_sale: datetime | None,
    off_sale: datetime | None,
    duration_minutes: int,
    now: datetime,
    field: str,
) -> Times:
    """Fill in what an administrator left open, and check the whole.

    Raises:
        InvalidArgument: names the time that cannot be, below ``field``.
    """
    if start <= now:
        raise InvalidArgument.of(f"{field}.start_time", "must be in the future")
    if start > now + FARTHEST:
        raise InvalidArgument.of(f"{field}.start_time", f"must not be more than {FARTHEST.days} days ahead")
    if end is None:
        if not duration_minutes:
            raise InvalidArgument.of(f"{field}.end_time", "is needed, because the title's duration is unknown")
        end = start + timedelta(minutes=duration_minutes) + CLEANING
    if end <= start:
        raise InvalidArgument.of(f"{field}.end_time", "must be after start_time")
    if end - start > LONGEST:
        raise InvalidArgument.of(f"{field}.end_time", f"must be within {LONGEST.days} days of start_time")
    on_sale = min(now, start) if on_sale is None else on_sale
    off_sale = start if off_sale is None else off_sale
    require_sale_window(on_sale, off_sale, end, field)
    return Times(start, end, on_sale, off_sale)


def require_sale_window(on_sale: datetime, off_sale: datetime, end: datetime, field: str) -> None:
    """Sale begins before it ends, and ends by the end of the show.

    Raises:
        InvalidArgument: names ``off_sale_time`` below ``field``.
    """
    path = f"{field}.off_sale_time" if field else "off_sale_time"
    if off_sale <= on_sale:
        raise InvalidArgument.of(path, "must be after on_sale_time")
    if off_sale > end:
        raise InvalidArgument.of(path, "must not be after the show's end")


def require_prices(prices: Sequence[tuple[str, Money]], categories: Sequence[str], field: str) -> dict[str, Money]:
    """Exactly one price for each category of the layout, all in one currency.

    Raises:
        InvalidArgument: names the price, or the category that has none.
    """
    by_category: dict[str, Money] = {}
    for index, (category, price) in enumerate(prices):
        if category not in categories:
            raise InvalidArgument.of(
                f"{field}[{index}].category", f"is not one of the layout's: {', '.join(categories)}"
            )
        if category in by_category:
            raise InvalidArgument.of(f"{field}[{index}].category", "has a price already")
        if price.currency != prices[0][1].currency:
            raise InvalidArgument.of(f"{field}[{index}].price.currency_code", "must be the same for all prices")
        by_category[category] = price
    for category in categories:
        if category not in by_category:
            raise InvalidArgument.of(field, f"has no price for {category}")
    return {category: by_category[category] for category in categories}


def require_tiers(tiers: Sequence[RefundTier], field: str) -> None:
    """From the earliest to the latest, each for its own time, giving back no more the later it is.

    Raises:
        InvalidArgument: names the tier.
    """
    for index, (earlier, later) in enumerate(pairwise(tiers), start=1):
        path = f"{field}.tiers[{index}]"
        if later.minutes_before >= earlier.minutes_before:
            raise InvalidArgument.of(f"{path}.minutes_before", "must be less than the tier's before it")
        if later.percent > earlier.percent:
            raise InvalidArgument.of(f"{path}.percent", "must not be more than the tier's before it")


def require_fit(title: Movie | Event, screen: Screen, format_: Format, language: str, field: str) -> None:
    """The screen can show it, and the title comes so.

    Raises:
        InvalidArgument: names ``format`` or ``language``.
    """
    if format_ not in screen.formats:
        raise InvalidArgument.of(f"{field}.format", "is not one of the screen's formats")
    if isinstance(title, Movie):
        if format_ is Format.LIVE:
            raise InvalidArgument.of(f"{field}.format", "FORMAT_LIVE is not for films")
        if title.formats and format_ not in title.formats:
            raise InvalidArgument.of(f"{field}.format", "is not one of the film's formats")
    elif format_ is not Format.LIVE:
        raise InvalidArgument.of(f"{field}.format", "must be FORMAT_LIVE for an event")
    if language and title.languages and language not in title.languages:
        raise InvalidArgument.of(f"{field}.language", f"is not one of the title's: {', '.join(title.languages)}")


def require_changeable(show: Show, now: datetime) -> None:
    """Prices and sale window stay once a show is cancelled or has begun.

    Raises:
        ShowNotOnSale: it is or has.
    """
    if show.state is ShowState.CANCELLED:
        raise ShowNotOnSale("the show is cancelled")
    if show.start_time <= now:
        raise ShowNotOnSale("the show has begun")


def require_apart(wanted: Sequence[tuple[UUID, datetime, datetime]], fields: Sequence[str]) -> None:
    """Shows that are scheduled together do not meet on a screen.

    Args:
        wanted: screen, start and end of each.
        fields: where each stands in the request.

    Raises:
        ScreenBusy: names the two.
    """
    in_order = sorted(range(len(wanted)), key=lambda index: (wanted[index][0], wanted[index][1]))
    latest: int | None = None  # the show of this screen that ends last so far
    for index in in_order:
        if latest is not None and wanted[index][0] == wanted[latest][0]:
            if wanted[index][1] < wanted[latest][2]:
                raise ScreenBusy(f"{fields[index]}.screen_id", other_field=fields[latest])
            if wanted[index][2] < wanted[latest][2]:
                continue
        latest = index


def starts_on(day: date) -> tuple[datetime, datetime]:
    """UTC bounds within which every show of business date ``day`` starts, whatever its venue's zone."""
    midnight = datetime.combine(day, time(0), UTC)
    return midnight - timedelta(hours=12), midnight + timedelta(hours=46)
