"""Halls and shows to sell, as the catalogue would tell of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from google.type.money_pb2 import Money

from marquee.catalog import v1 as catalog_v1
from services.kit.ids import new_show_id

FLOOR = "Floor"


def new_layout(rows: int, seats: int, *, standing: int = 0) -> catalog_v1.Layout:
    """Rows A, B, ... of so many seats, and perhaps a floor to stand on."""
    layout = catalog_v1.Layout(layout_id=str(uuid4()), layout_version=1, capacity=rows * seats + standing)
    for row in range(rows):
        name = chr(ord("A") + row)
        for number in range(1, seats + 1):
            layout.seats.add(
                seat_no=row * seats + number - 1,
                label=f"{name}{number}",
                row=name,
                number=number,
                category="REGULAR",
                x=number,
                y=row,
            )
    if standing:
        layout.standing_areas.add(name=FLOOR, category="REGULAR", first_seat_no=rows * seats, capacity=standing)
    return layout


def new_show(layout: catalog_v1.Layout) -> catalog_v1.Show:
    """A show that is on sale since yesterday and begins in two days."""
    now = datetime.now(UTC)
    start = now + timedelta(days=2)
    show = catalog_v1.Show(
        show_id=str(new_show_id(start.date(), 7)),
        title="The Long Night",
        venue_id=str(uuid4()),
        venue_name="Regal",
        screen_name="Screen 1",
        city_id="mumbai",
        time_zone="Asia/Kolkata",
        layout_id=layout.layout_id,
        layout_version=1,
        capacity=layout.capacity,
        state=catalog_v1.SHOW_STATE_SCHEDULED,
        version=1,
        prices=[catalog_v1.CategoryPrice(category="REGULAR", price=Money(currency_code="INR", units=200))],
        refund_policy=catalog_v1.RefundPolicy(tiers=[catalog_v1.RefundTier(minutes_before=60, percent=50)]),
    )
    show.start_time.FromDatetime(start)
    show.off_sale_time.FromDatetime(start)
    show.on_sale_time.FromDatetime(now - timedelta(days=1))
    return show
