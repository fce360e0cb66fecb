"""What the demo's seats cost, in rupees: by category, format, day and time of day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, time

from services.catalog.domain.shows import RefundTier
from services.catalog.domain.titles import Format
from services.kit.money import Money

CINEMA = {"REGULAR": 180, "PREMIUM": 260, "RECLINER": 440}
LIVE = {
    "STALLS": 900,
    "CIRCLE": 650,
    "BALCONY": 400,
    "LOWER": 2_400,
    "UPPER": 1_200,
    "FLOOR_FRONT": 3_500,
    "FLOOR": 1_500,
    "PAVILION": 3_000,
    "STAND": 900,
    "TERRACE": 400,
}
SURCHARGE = {Format.THREE_D: 60, Format.IMAX: 160}
METRO, WEEKEND, MATINEE = 1.25, 1.15, 0.8
MATINEE_ENDS = time(12, 0)
WEEKEND_DAYS = (4, 5, 6)  # Friday, Saturday, Sunday

CINEMA_REFUNDS = (RefundTier(minutes_before=360, percent=100), RefundTier(minutes_before=60, percent=50))
LIVE_REFUNDS = (RefundTier(minutes_before=7 * 1440, percent=100), RefundTier(minutes_before=2 * 1440, percent=50))


def prices(categories: Sequence[str], *, format_: Format, metro: bool, day: date, start: time) -> dict[str, Money]:
    """A price for each category, in whole tens of rupees."""
    factor = (METRO if metro else 1.0) * (WEEKEND if day.weekday() in WEEKEND_DAYS else 1.0)
    if format_ is not Format.LIVE and start < MATINEE_ENDS:
        factor *= MATINEE
    answer = {}
    for category in categories:
        base = CINEMA.get(category) or LIVE[category]
        answer[category] = Money(round((base + SURCHARGE.get(format_, 0)) * factor / 10) * 1_000)
    return answer
