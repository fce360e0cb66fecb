"""Booking's rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.booking.domain import (
    MOST_SEATS_A_HOLD,
    REFERENCE_ALPHABET,
    Layout,
    Place,
    QuoteItem,
    Rates,
    Seat,
    ShowNotOnSale,
    StandingArea,
    UnknownSeat,
    new_reference,
    owner_refund,
    quote,
    read_wish,
    refund_percent,
    sale_window,
    share,
)
from services.kit.errors import InvalidArgument

RATES = Rates(fee=500, most_fee=6_000, gst_threshold=10_000, gst_low=500, gst_high=1_800, gst_fee=1_800)
amounts = st.integers(0, 10**9)
tiers = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 100)), max_size=6)
START = datetime(2026, 12, 1, 18, tzinfo=UTC)


def layout() -> Layout:
    seats = [
        Seat(seat_no=number, label=f"A{number + 1}", row="A", number=number + 1, category="REGULAR",
             x=number, y=0, wheelchair=False)
        for number in range(20)
    ]  # fmt: skip
    return Layout.of(uuid4(), seats, [StandingArea("Floor", "STANDING", 20, 100), StandingArea("Pit", "PIT", 120, 5)])


@given(amounts, st.integers(0, 10_000))
def test_a_share_is_rounded_to_the_nearest_minor_unit(amount: int, basis_points: int) -> None:
    assert abs(share(amount, basis_points) * 10_000 - amount * basis_points) <= 5_000
    assert share(amount, 10_000) == amount
    assert share(amount, 0) == 0


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=10))
def test_a_quotes_parts_add_up_exactly(prices: list[int]) -> None:
    by_category = {f"C{index}": price for index, price in enumerate(prices)}
    made = quote([Place("A1", category) for category in by_category], by_category, "INR", RATES)
    assert made.total == made.subtotal + made.fees + made.taxes == sum(item.total for item in made.items)
    assert [item.price for item in made.items] == prices
    assert all(item.fee <= RATES.most_fee for item in made.items)


def test_gst_has_two_rates_and_one_threshold() -> None:
    made = quote([Place("A1", "LOW"), Place("A2", "HIGH")], {"LOW": 10_000, "HIGH": 10_001}, "INR", RATES)
    assert [item.price_tax for item in made.items] == [500, 1_800]


def test_a_category_without_a_price_is_not_on_sale() -> None:
    with pytest.raises(ShowNotOnSale):
        quote([Place("A1", "GOLD")], {}, "INR", RATES)


@given(tiers, st.integers(-10_000, 20_000))
def test_the_best_tier_that_still_holds_decides(policy: list[tuple[int, int]], minutes_left: int) -> None:
    percent = refund_percent(policy, START, START - timedelta(minutes=minutes_left))
    holding = [each for minutes, each in policy if minutes <= minutes_left]
    assert percent == max(holding, default=0)


@given(st.lists(st.tuples(amounts, amounts, amounts, amounts), min_size=1, max_size=10), st.integers(0, 100))
def test_an_owners_refund_is_never_more_than_was_paid_for_seats(
    items: list[tuple[int, int, int, int]], percent: int
) -> None:
    made = [QuoteItem("A1", "REGULAR", *each) for each in items]
    refund = owner_refund(made, percent)
    assert 0 <= refund <= sum(item.price + item.price_tax for item in made)
    assert owner_refund(made, 100) == sum(item.price + item.price_tax for item in made)


@given(st.permutations(["A3", "A1", "A2"]))
def test_a_wish_is_read_in_the_order_of_the_hall(labels: list[str]) -> None:
    wish = read_wish(layout(), labels, [("Pit", 1), ("Floor", 2)])
    assert wish.seat_nos == (0, 1, 2)
    assert [place.label for place in wish.places] == ["A1", "A2", "A3", "Floor", "Floor", "Pit"]


def test_a_wish_names_what_is_wrong_with_it() -> None:
    with pytest.raises(UnknownSeat) as refused:
        read_wish(layout(), ["A1", "Q1"], [])
    assert refused.value.violations[0].field == "seats[1]"
    with pytest.raises(UnknownSeat) as refused:
        read_wish(layout(), [], [("Roof", 1)])
    assert refused.value.violations[0].field == "standing[0].area"
    with pytest.raises(InvalidArgument):
        read_wish(layout(), [], [("Floor", 1), ("Floor", 1)])
    with pytest.raises(InvalidArgument):
        read_wish(layout(), ["A1"], [("Floor", MOST_SEATS_A_HOLD)])


def test_every_place_has_a_label() -> None:
    hall = layout()
    assert [hall.label_of(number) for number in (0, 19, 20, 119, 120, 124)] == [
        "A1", "A20", "Floor", "Floor", "Pit", "Pit",
    ]  # fmt: skip
    with pytest.raises(LookupError):
        hall.label_of(125)


def test_nothing_is_sold_after_the_start() -> None:
    opens, closes = sale_window(START - timedelta(days=7), START + timedelta(hours=1), START)
    assert (opens, closes) == (START - timedelta(days=7), START)


def test_references_are_easy_to_read_out() -> None:
    references = {new_reference() for _ in range(1_000)}
    assert len(references) == 1_000
    assert all(len(each) == 10 and set(each[2:]) <= set(REFERENCE_ALPHABET) for each in references)
