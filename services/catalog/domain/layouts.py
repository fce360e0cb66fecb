"""Seating plans: from what an administrator describes to numbered seats. A layout never changes once it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from services.kit.errors import InvalidArgument

MOST_SEATS = 20_000
"""Numbered seats of one layout: its message stays below gRPC's 4 MiB."""
MOST_PLACES = 150_000
"""Seats and standing places: the live map is a bit for each."""


@dataclass(frozen=True, slots=True)
class RowPlan:
    """``seats`` places numbered from 1, left to right; an aisle follows each number in ``aisles_after``."""

    row: str
    seats: int
    category: str
    aisles_after: tuple[int, ...] = ()
    wheelchairs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StandingPlan:
    """An area without numbered places."""

    name: str
    category: str
    capacity: int


@dataclass(frozen=True, slots=True)
class LayoutPlan:
    """Rows from the stage backwards, then standing areas."""

    name: str
    rows: tuple[RowPlan, ...] = ()
    standing_areas: tuple[StandingPlan, ...] = ()

    @property
    def capacity(self) -> int:
        return sum(row.seats for row in self.rows) + sum(area.capacity for area in self.standing_areas)

    @property
    def categories(self) -> tuple[str, ...]:
        """Each once, in the order in which the plan names them."""
        of_rows = [row.category for row in self.rows]
        return tuple(dict.fromkeys([*of_rows, *(area.category for area in self.standing_areas)]))


@dataclass(frozen=True, slots=True)
class Layout:
    """A plan that a screen has, or had. ``layout_version`` counts a screen's layouts from 1."""

    layout_id: UUID
    screen_id: UUID
    layout_version: int
    plan: LayoutPlan


@dataclass(frozen=True, slots=True)
class Seat:
    """A numbered seat. ``x`` and ``y`` are seat widths from the left and from the stage."""

    seat_no: int
    label: str
    row: str
    number: int
    category: str
    x: float
    y: float
    wheelchair: bool


@dataclass(frozen=True, slots=True)
class StandingArea:
    """Its places are the ordinals ``first_seat_no`` to ``first_seat_no + capacity - 1``."""

    name: str
    category: str
    first_seat_no: int
    capacity: int


def require_plan(plan: LayoutPlan, field: str) -> None:
    """A plan that can be built.

    Raises:
        InvalidArgument: names what is wrong: a row or area twice, an aisle or wheelchair place outside its row, no
            place at all, or too many.
    """
    seen: dict[str, int] = {}
    for index, row in enumerate(plan.rows):
        path = f"{field}.rows[{index}]"
        if row.row in seen:
            raise InvalidArgument.of(f"{path}.row", f"is the name of rows[{seen[row.row]}] too")
        seen[row.row] = index
        for name, numbers in (("aisles_after", row.aisles_after), ("wheelchairs", row.wheelchairs)):
            for place, number in enumerate(numbers):
                if not 1 <= number <= row.seats:
                    raise InvalidArgument.of(f"{path}.{name}[{place}]", f"must be from 1 to {row.seats}")
    areas: set[str] = set()
    for index, area in enumerate(plan.standing_areas):
        if area.name in areas:
            raise InvalidArgument.of(f"{field}.standing_areas[{index}].name", "is the name of another area too")
        areas.add(area.name)
    if plan.capacity == 0:
        raise InvalidArgument.of(f"{field}.rows", "a layout needs a row or a standing area")
    if sum(row.seats for row in plan.rows) > MOST_SEATS:
        raise InvalidArgument.of(f"{field}.rows", f"must not have more than {MOST_SEATS} seats together")
    if plan.capacity > MOST_PLACES:
        raise InvalidArgument.of(f"{field}.standing_areas", f"a layout has at most {MOST_PLACES} places")


def seats_of(plan: LayoutPlan) -> Iterator[Seat]:
    """The plan's seats with ordinals 0, 1, ... in the order of its rows. Rows are centred on the widest one."""
    widest = max((row.seats + len(row.aisles_after) for row in plan.rows), default=0)
    seat_no = 0
    for y, row in enumerate(plan.rows):
        aisles, wheelchairs = set(row.aisles_after), set(row.wheelchairs)
        x = (widest - row.seats - len(aisles)) / 2
        for number in range(1, row.seats + 1):
            yield Seat(
                seat_no=seat_no,
                label=f"{row.row}{number}",
                row=row.row,
                number=number,
                category=row.category,
                x=x,
                y=float(y),
                wheelchair=number in wheelchairs,
            )
            seat_no += 1
            x += 2 if number in aisles else 1


def standing_areas_of(plan: LayoutPlan) -> Iterator[StandingArea]:
    """The plan's standing areas, whose ordinals follow the seats'."""
    first = sum(row.seats for row in plan.rows)
    for area in plan.standing_areas:
        yield StandingArea(area.name, area.category, first, area.capacity)
        first += area.capacity
