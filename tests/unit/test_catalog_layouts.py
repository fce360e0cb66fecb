"""A seating plan becomes seats that can be told apart, drawn and counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalog.domain.layouts import (
    MOST_SEATS,
    LayoutPlan,
    RowPlan,
    StandingPlan,
    require_plan,
    seats_of,
    standing_areas_of,
)
from services.catalog.messages.layouts import plan_message, plan_of
from services.kit.errors import InvalidArgument

CATEGORIES = st.sampled_from(["REGULAR", "PREMIUM", "RECLINER"])


@st.composite
def rows(draw: st.DrawFn) -> RowPlan:
    seats = draw(st.integers(1, 60))
    numbers = st.lists(st.integers(1, seats), max_size=4, unique=True).map(tuple)
    name = draw(st.text("ABCXYZ", min_size=1, max_size=3))
    return RowPlan(name, seats, draw(CATEGORIES), draw(numbers), draw(numbers))


plans = st.builds(
    LayoutPlan,
    st.just("Hall"),
    st.lists(rows(), max_size=12, unique_by=lambda row: row.row).map(tuple),
    st.lists(
        st.builds(StandingPlan, st.text("abc", min_size=1, max_size=5), CATEGORIES, st.integers(1, 500)),
        max_size=3,
        unique_by=lambda area: area.name,
    ).map(tuple),
).filter(lambda plan: plan.capacity > 0)


@given(plans)
def test_ordinals_are_dense_and_labels_unique(plan: LayoutPlan) -> None:
    require_plan(plan, "layout")
    seats, areas = list(seats_of(plan)), list(standing_areas_of(plan))
    assert [seat.seat_no for seat in seats] == list(range(len(seats)))
    assert len({seat.label for seat in seats}) == len(seats)
    first = len(seats)
    for area in areas:
        assert area.first_seat_no == first
        first += area.capacity
    assert first == plan.capacity


@given(plans)
def test_every_seat_has_a_category_with_a_price(plan: LayoutPlan) -> None:
    named = {seat.category for seat in seats_of(plan)} | {area.category for area in standing_areas_of(plan)}
    assert set(plan.categories) == named and len(plan.categories) == len(named)


@given(plans)
def test_no_two_seats_are_drawn_on_each_other(plan: LayoutPlan) -> None:
    seats = list(seats_of(plan))
    assert len({(seat.x, seat.y) for seat in seats}) == len(seats)
    assert all(seat.x >= 0 for seat in seats)


@given(plans)
def test_aisles_make_room_after_their_seat(plan: LayoutPlan) -> None:
    by_label = {seat.label: seat for seat in seats_of(plan)}
    for row in plan.rows:
        for number in range(1, row.seats):
            step = by_label[f"{row.row}{number + 1}"].x - by_label[f"{row.row}{number}"].x
            assert step == (2 if number in row.aisles_after else 1)


@given(plans)
def test_what_is_stored_comes_back(plan: LayoutPlan) -> None:
    assert plan_of(plan_message(plan)) == plan


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        (LayoutPlan("Empty"), "layout.rows"),
        (LayoutPlan("Twice", (RowPlan("A", 1, "X"), RowPlan("A", 1, "X"))), "layout.rows[1].row"),
        (LayoutPlan("Aisle", (RowPlan("A", 3, "X", aisles_after=(1, 4)),)), "layout.rows[0].aisles_after[1]"),
        (LayoutPlan("Wheel", (RowPlan("A", 3, "X", wheelchairs=(0,)),)), "layout.rows[0].wheelchairs[0]"),
        (
            LayoutPlan("Huge", tuple(RowPlan(f"R{index}", 200, "X") for index in range(MOST_SEATS // 200 + 1))),
            "layout.rows",
        ),
        (
            LayoutPlan("Field", (), tuple(StandingPlan(str(index), "X", 50_000) for index in range(4))),
            "layout.standing_areas",
        ),
    ],
)
def test_a_plan_that_cannot_be_built_is_refused_by_field(plan: LayoutPlan, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        require_plan(plan, "layout")
    assert [violation.field for violation in refused.value.violations] == [field]
