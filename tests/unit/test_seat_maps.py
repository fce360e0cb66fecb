"""A seat map put together from bytes is the one that would be drawn seat by seat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from marquee.booking import v1 as booking_v1
from services.booking.domain import Layout, Seat, SeatState, Show, StandingArea
from services.booking.live_map import LiveMap
from services.booking.messages import money
from services.booking.seat_maps import seat_map
from services.booking.store.seats import Claim, Claims

MOST_SEATS = 40
MOST_PLACES = 30
PRICES = {"REGULAR": 20_000, "FREE": 0, "FLOOR": 99_950}

texts = st.text(min_size=1, max_size=300)  # from 128 bytes on, lengths on the wire take two
coordinates = st.floats(0, 500, width=32)
seats = st.lists(
    st.tuples(texts, texts, st.integers(0, 300), st.sampled_from(["REGULAR", "FREE", "NO PRICE"]), coordinates,
              coordinates, st.booleans()),
    max_size=MOST_SEATS,
)  # fmt: skip
places = st.integers(0, MOST_PLACES)
states = st.lists(st.sampled_from(SeatState), min_size=MOST_SEATS + MOST_PLACES, max_size=MOST_SEATS + MOST_PLACES)


def _show(layout: Layout, capacity: int) -> Show:
    start = datetime(2026, 12, 1, 18, tzinfo=UTC)
    return Show(
        show_id=uuid4(), version=1, title="A film", city_id="mumbai", venue_id="1", venue_name="A house",
        screen_name="1", time_zone="Asia/Kolkata", start_time=start, sale_opens=start - timedelta(days=3),
        sale_closes=start, layout=layout, layout_version=3, capacity=capacity, currency="INR", prices=PRICES,
        refund_tiers=(), cancelled=False,
    )  # fmt: skip


@given(drawn=seats, standing=places, found=states)
def test_it_is_what_would_be_drawn_seat_by_seat(
    drawn: list[tuple[str, str, int, str, float, float, bool]], standing: int, found: list[SeatState]
) -> None:
    layout = Layout.of(
        uuid4(),
        [Seat(n, label, row, number, category, x, y, wheelchair)
         for n, (label, row, number, category, x, y, wheelchair) in enumerate(drawn)],
        [StandingArea("Floor", "FLOOR", len(drawn), standing)] if standing else [],
    )  # fmt: skip
    capacity = len(drawn) + standing
    show = _show(layout, capacity)
    live = LiveMap(show, "epoch")
    taken = [Claim(n, state, None) for n, state in enumerate(found[:capacity]) if state is not SeatState.AVAILABLE]
    live.replace(Claims(7, tuple(taken)), "epoch")

    expected = booking_v1.SeatMap(
        show_id=str(show.show_id), version=7, layout_version=3, layout_id=str(layout.layout_id), epoch="epoch",
        available=capacity - len(taken),
    )  # fmt: skip
    for seat in layout.seats:
        expected.seats.add(
            label=seat.label, seat_no=seat.seat_no, row=seat.row, number=seat.number, category=seat.category,
            price=money(PRICES[seat.category], "INR") if seat.category in PRICES else None, x=seat.x, y=seat.y,
            wheelchair=seat.wheelchair, status=booking_v1.SeatStatus.ValueType(found[seat.seat_no]),
        )  # fmt: skip
    for area in layout.areas:
        free = found[area.first_seat_no : area.first_seat_no + standing].count(SeatState.AVAILABLE)
        expected.standing_areas.add(
            name="Floor", category="FLOOR", price=money(99_950, "INR"), capacity=standing, available=free,
            first_seat_no=area.first_seat_no,
        )  # fmt: skip
    assert booking_v1.SeatMap.FromString(seat_map(show, live)) == expected
