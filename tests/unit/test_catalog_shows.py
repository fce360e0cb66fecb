"""When shows may be, which day they belong to, and what they must cost."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalog.domain import masks
from services.catalog.domain.errors import ScreenBusy
from services.catalog.domain.shows import (
    RefundTier,
    business_date,
    require_apart,
    require_prices,
    require_tiers,
    starts_on,
    times_for,
)
from services.kit.errors import InvalidArgument
from services.kit.money import Money

ZONES = ("Asia/Kolkata", "America/New_York", "Australia/Lord_Howe", "Pacific/Kiritimati", "Pacific/Pago_Pago")
moments = st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def field_of(error: pytest.ExceptionInfo[InvalidArgument]) -> str:
    return error.value.violations[0].field


# --- The business day


@given(moments, st.sampled_from(ZONES))
def test_a_business_day_goes_from_four_to_four_by_the_venues_clock(start: datetime, zone: str) -> None:
    local = start.astimezone(ZoneInfo(zone))
    expected = local.date() if local.hour >= 4 else local.date() - timedelta(days=1)
    assert business_date(start, zone) == expected


@given(moments, st.sampled_from(ZONES))
def test_the_bounds_of_a_day_hold_every_start_on_it(start: datetime, zone: str) -> None:
    earliest, latest = starts_on(business_date(start, zone))
    assert earliest <= start <= latest


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        # Clocks go back at 02:00 on 1 November 2026: 01:30 comes twice, both times on the evening before.
        (datetime(2026, 11, 1, 1, 30, fold=0, tzinfo=NEW_YORK), date(2026, 10, 31)),
        (datetime(2026, 11, 1, 1, 30, fold=1, tzinfo=NEW_YORK), date(2026, 10, 31)),
        (datetime(2026, 11, 1, 4, 0, tzinfo=NEW_YORK), date(2026, 11, 1)),
        # Clocks go forward at 02:00 on 8 March 2026.
        (datetime(2026, 3, 8, 3, 59, tzinfo=NEW_YORK), date(2026, 3, 7)),
        (datetime(2026, 3, 8, 4, 0, tzinfo=NEW_YORK), date(2026, 3, 8)),
    ],
)
def test_a_day_with_a_change_of_clocks_ends_at_four_too(local: datetime, expected: date) -> None:
    assert business_date(local.astimezone(UTC), NEW_YORK.key) == expected


# --- Times


def times(**given: datetime | int | None) -> object:
    whole = {
        "start": NOW + timedelta(days=1),
        "end": None,
        "on_sale": None,
        "off_sale": None,
        "duration_minutes": 100,
        "now": NOW,
        "field": "show",
        **given,
    }
    return times_for(**whole)  # type: ignore[arg-type]


def test_what_is_left_open_is_filled_in() -> None:
    made = times_for(
        start=NOW + timedelta(days=1),
        end=None,
        on_sale=None,
        off_sale=None,
        duration_minutes=100,
        now=NOW,
        field="show",
    )
    assert made.end - made.start == timedelta(minutes=120)
    assert (made.on_sale, made.off_sale) == (NOW, made.start)


@pytest.mark.parametrize(
    ("given_times", "field"),
    [
        ({"start": NOW}, "show.start_time"),
        ({"start": NOW + timedelta(days=4000)}, "show.start_time"),
        ({"duration_minutes": 0}, "show.end_time"),
        ({"end": NOW}, "show.end_time"),
        ({"end": NOW + timedelta(days=9)}, "show.end_time"),
        ({"on_sale": NOW + timedelta(days=1)}, "show.off_sale_time"),
        ({"off_sale": NOW + timedelta(days=2)}, "show.off_sale_time"),
    ],
)
def test_times_that_cannot_be_are_refused_by_field(given_times: dict[str, datetime | int], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        times(**given_times)
    assert field_of(refused) == field


# --- Shows together

spans = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 200), st.integers(1, 40)).map(
        lambda each: (UUID(int=each[0]), NOW + timedelta(minutes=each[1]), NOW + timedelta(minutes=each[1] + each[2]))
    ),
    min_size=1,
    max_size=12,
)


@given(spans)
def test_shows_that_meet_on_a_screen_are_found_and_others_are_not(
    wanted: list[tuple[UUID, datetime, datetime]],
) -> None:
    meets = any(
        one[0] == other[0] and one[1] < other[2] and other[1] < one[2]
        for place, one in enumerate(wanted)
        for other in wanted[:place]
    )
    fields = [f"shows[{place}]" for place in range(len(wanted))]
    if meets:
        with pytest.raises(ScreenBusy):
            require_apart(wanted, fields)
    else:
        require_apart(wanted, fields)


# --- Prices and refunds

categories = st.lists(st.sampled_from("ABCDEF"), min_size=1, unique=True)


@given(categories, categories)
def test_prices_cover_exactly_the_layouts_categories(layout: list[str], priced: list[str]) -> None:
    prices = [(category, Money(100 * place)) for place, category in enumerate(priced, start=1)]
    if set(layout) == set(priced):
        assert require_prices(prices, layout, "prices") == dict(prices)
        assert list(require_prices(prices, layout, "prices")) == layout
    else:
        with pytest.raises(InvalidArgument):
            require_prices(prices, layout, "prices")


def test_a_category_has_one_price_in_the_currency_of_all() -> None:
    with pytest.raises(InvalidArgument) as twice:
        require_prices([("A", Money(1)), ("A", Money(2))], ["A"], "prices")
    assert field_of(twice) == "prices[1].category"
    with pytest.raises(InvalidArgument) as mixed:
        require_prices([("A", Money(1)), ("B", Money(2, "USD"))], ["A", "B"], "prices")
    assert field_of(mixed) == "prices[1].price.currency_code"


def test_refund_tiers_go_from_the_earliest_and_never_grow() -> None:
    require_tiers((RefundTier(100, 80), RefundTier(10, 80), RefundTier(0, 0)), "policy")
    with pytest.raises(InvalidArgument) as disorder:
        require_tiers((RefundTier(10, 80), RefundTier(10, 50)), "policy")
    assert field_of(disorder) == "policy.tiers[1].minutes_before"
    with pytest.raises(InvalidArgument) as growing:
        require_tiers((RefundTier(100, 50), RefundTier(10, 80)), "policy")
    assert field_of(growing) == "policy.tiers[1].percent"


# --- Masks


def test_a_star_is_every_field_that_has_a_value() -> None:
    allowed = frozenset({"title", "state"})
    assert masks.chosen(["*"], allowed, "movie") == allowed
    assert masks.chosen(["*"], allowed, "movie", unset=("state",)) == {"title"}
    assert masks.chosen(["movie.title"], allowed, "movie") == {"title"}


@given(st.lists(st.text(max_size=12), max_size=4))
def test_a_mask_changes_known_fields_or_is_refused(paths: list[str]) -> None:
    allowed = frozenset({"title", "state"})
    try:
        assert masks.chosen(paths, allowed, "movie") <= allowed
    except InvalidArgument as error:
        assert error.violations[0].field == "update_mask"
