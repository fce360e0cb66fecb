"""The demo's films: the 300 most-voted of vega-datasets, with languages and formats made up by plausible rules."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from local.demo.chance import dice, named_id
from services.catalog.domain.titles import Format, Movie, TitleState

FILE = Path(__file__).parent / "data" / "movies.csv"
FILMS = 300
COMING_SOON = 24
"""How many are announced only."""
SPECTACLES = ("Action", "Adventure")
SPECIAL_FORMATS_SINCE = 1999
DURATIONS = {"Comedy": 104, "Romantic Comedy": 108, "Horror": 101, "Action": 121, "Adventure": 118, "Musical": 115}
"""Minutes, where the dataset has none."""


def films() -> list[Movie]:
    """The best known first."""
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["votes"]]
    rows.sort(key=lambda row: (-int(row["votes"]), row["title"], row["release_date"]))
    chosen = rows[:FILMS]
    # Every twelfth is to come, so that both lists have well-known ones.
    every = FILMS // COMING_SOON
    return [_film(row, coming=place % every == every - 1) for place, row in enumerate(chosen)]


def _film(row: Mapping[str, str], *, coming: bool) -> Movie:
    chance = dice("film", row["title"], row["release_date"])
    released = date.fromisoformat(row["release_date"]) if row["release_date"] else None
    genre = row["genre"]
    minutes = int(row["running_minutes"] or 0) or DURATIONS.get(genre, 116) + chance.randint(-9, 14)
    return Movie(
        movie_id=named_id("movie", row["title"], row["release_date"]),
        title=row["title"],
        synopsis=_synopsis(row, released),
        release_date=released,
        genres=tuple(genre.split("/")) if genre else ("Drama",),
        languages=_languages(genre, chance.random()),
        formats=_formats(genre, released, chance.random()),
        duration_minutes=minutes,
        certificate="" if row["certificate"] in ("", "Not Rated", "Open") else row["certificate"],
        director=row["director"],
        rating=float(row["rating"] or 0),
        votes=int(row["votes"]),
        state=TitleState.COMING_SOON if coming else TitleState.NOW_SHOWING,
    )


def _synopsis(row: Mapping[str, str], released: date | None) -> str:
    kind = (row["genre"] or "film").lower()
    article = "An" if kind[0] in "aeiou" else "A"
    by = f" by {row['director']}" if row["director"] else ""
    year = f", first shown in {released.year}" if released else ""
    return f"{article} {kind}{by}{year}."


def _languages(genre: str, luck: float) -> tuple[str, ...]:
    """All are in English; what draws crowds is dubbed."""
    if genre in SPECTACLES:
        return ("en", "hi", "ta", "te") if luck < 0.5 else ("en", "hi")
    if genre in ("Horror", "Thriller/Suspense", "Musical"):
        return ("en", "hi") if luck < 0.6 else ("en",)
    return ("en", "hi") if luck < 0.15 else ("en",)


def _formats(genre: str, released: date | None, luck: float) -> tuple[Format, ...]:
    """Spectacles of the last decades come in 3D and IMAX too."""
    if genre in SPECTACLES and released is not None and released.year >= SPECIAL_FORMATS_SINCE:
        if luck < 0.45:
            return (Format.TWO_D, Format.THREE_D, Format.IMAX)
        if luck < 0.75:
            return (Format.TWO_D, Format.THREE_D)
    return (Format.TWO_D, Format.IMAX) if luck > 0.93 else (Format.TWO_D,)
