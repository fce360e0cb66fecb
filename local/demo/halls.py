"""The demo's seating plans: halls of 100 to 500 seats, theatres, and grounds with standing areas."""

from __future__ import annotations

from services.catalog.domain.layouts import LayoutPlan, RowPlan, StandingPlan


def row_name(number: int) -> str:
    """0 -> ``A``, 25 -> ``Z``, 26 -> ``AA``."""
    return chr(ord("A") + number) if number < 26 else row_name(number // 26 - 1) + row_name(number % 26)


def hall(
    name: str,
    *blocks: tuple[str, int, int],
    aisles: int = 2,
    standing: tuple[StandingPlan, ...] = (),
) -> LayoutPlan:
    """A hall with ``(category, rows, seats a row)`` from the screen backwards, and one or two aisles through it.

    The first and last seat of the last regular row are kept for wheelchairs.
    """
    rows: list[RowPlan] = []
    for index, (category, count, seats) in enumerate(blocks):
        for number in range(count):
            after = (seats // 2,) if aisles == 1 else (seats // 4, seats - seats // 4)
            last_of_first = index == 0 and number == count - 1
            rows.append(
                RowPlan(
                    row=row_name(len(rows)),
                    seats=seats,
                    category=category,
                    aisles_after=after,
                    wheelchairs=(1, seats) if last_of_first else (),
                )
            )
    return LayoutPlan(name, tuple(rows), standing)


STUDIO = hall("Studio, 100 seats", ("REGULAR", 4, 12), ("PREMIUM", 3, 12), ("RECLINER", 2, 8), aisles=1)
SMALL = hall("Small hall, 148 seats", ("REGULAR", 6, 14), ("PREMIUM", 3, 16), ("RECLINER", 2, 8), aisles=1)
MIDDLE = hall("Middle hall, 206 seats", ("REGULAR", 7, 16), ("PREMIUM", 4, 18), ("RECLINER", 2, 11))
LARGE = hall("Large hall, 306 seats", ("REGULAR", 9, 20), ("PREMIUM", 5, 20), ("RECLINER", 2, 13))
RECLINERS = hall("All recliners, 100 seats", ("RECLINER", 10, 10), aisles=1)
IMAX = hall("IMAX, 420 seats", ("REGULAR", 10, 24), ("PREMIUM", 6, 26), ("RECLINER", 2, 12))
IMAX_LARGE = hall("IMAX, 500 seats", ("REGULAR", 11, 26), ("PREMIUM", 6, 30), ("RECLINER", 2, 17))
CINEMA_HALLS = (STUDIO, SMALL, MIDDLE, LARGE, RECLINERS, IMAX, IMAX_LARGE)

THEATRE = hall("Theatre, 480 seats", ("STALLS", 12, 24), ("CIRCLE", 6, 22), ("BALCONY", 3, 20))
ARENA = hall(
    "Arena, 3900 places",
    ("LOWER", 20, 45),
    ("UPPER", 20, 50),
    standing=(StandingPlan("Front floor", "FLOOR_FRONT", 500), StandingPlan("Floor", "FLOOR", 1_500)),
)
STADIUM = hall(
    "Stadium, 9000 places",
    ("PAVILION", 20, 60),
    ("STAND", 40, 70),
    standing=(StandingPlan("East bank", "TERRACE", 2_500), StandingPlan("West bank", "TERRACE", 2_500)),
)
CLUB = LayoutPlan("Club, standing, 400 places", (), (StandingPlan("Floor", "FLOOR", 400),))
"""All of it standing: a layout without any seat."""
