"""Layouts as messages."""

from __future__ import annotations

from marquee.catalog import v1 as catalog_v1
from services.catalog.domain.layouts import Layout, LayoutPlan, RowPlan, StandingPlan, seats_of, standing_areas_of


def plan_of(message: catalog_v1.LayoutPlan) -> LayoutPlan:
    return LayoutPlan(
        name=message.name,
        rows=tuple(
            RowPlan(row.row, row.seats, row.category, tuple(row.aisles_after), tuple(row.wheelchairs))
            for row in message.rows
        ),
        standing_areas=tuple(StandingPlan(area.name, area.category, area.capacity) for area in message.standing_areas),
    )


def plan_message(plan: LayoutPlan) -> catalog_v1.LayoutPlan:
    return catalog_v1.LayoutPlan(
        name=plan.name,
        rows=[
            catalog_v1.RowPlan(
                row=row.row,
                seats=row.seats,
                category=row.category,
                aisles_after=row.aisles_after,
                wheelchairs=row.wheelchairs,
            )
            for row in plan.rows
        ],
        standing_areas=[
            catalog_v1.StandingAreaPlan(name=area.name, category=area.category, capacity=area.capacity)
            for area in plan.standing_areas
        ],
    )


def layout_message(layout: Layout) -> catalog_v1.Layout:
    return catalog_v1.Layout(
        layout_id=str(layout.layout_id),
        screen_id=str(layout.screen_id),
        layout_version=layout.layout_version,
        name=layout.plan.name,
        seats=[
            catalog_v1.Seat(
                seat_no=seat.seat_no,
                label=seat.label,
                row=seat.row,
                number=seat.number,
                category=seat.category,
                x=seat.x,
                y=seat.y,
                wheelchair=seat.wheelchair,
            )
            for seat in seats_of(layout.plan)
        ],
        standing_areas=[
            catalog_v1.StandingArea(
                name=area.name, category=area.category, first_seat_no=area.first_seat_no, capacity=area.capacity
            )
            for area in standing_areas_of(layout.plan)
        ],
        capacity=layout.plan.capacity,
    )
