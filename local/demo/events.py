"""The demo's events: invented concerts, plays, matches and comedy, each for a kind of venue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from local.demo.chance import named_id
from services.catalog.domain.titles import Event, EventKind, TitleState

CONCERT, PLAY, MATCH, COMEDY = EventKind.CONCERT, EventKind.PLAY, EventKind.MATCH, EventKind.COMEDY


def _event(
    title: str, kind: EventKind, minutes: int, genres: tuple[str, ...], languages: tuple[str, ...], about: str
) -> Event:
    return Event(
        event_id=named_id("event", title),
        title=title,
        description=about,
        kind=kind,
        genres=genres,
        languages=languages,
        duration_minutes=minutes,
        organizer_id=named_id("organizer", title),
        state=TitleState.NOW_SHOWING,
    )


EVENTS: Mapping[str, Sequence[Event]] = {
    "theatre": (
        _event("The Tiger's Wedding", PLAY, 130, ("Comedy",), ("hi",), "A village plans a wedding nobody asked for."),
        _event("Monsoon Letters", PLAY, 115, ("Drama",), ("en",), "Forty years of letters, read on one wet night."),
        _event("Abhimanyu", PLAY, 150, ("Epic",), ("hi",), "The sixth day of the war, told by those who watched."),
        _event("The Last Tram", PLAY, 100, ("Drama",), ("bn", "en"), "Strangers in the last tram to the depot."),
        _event("Salt March", PLAY, 120, ("Musical",), ("hi", "en"), "A musical in 24 songs, one for each day."),
        _event("A House by the Ghat", PLAY, 110, ("Thriller",), ("hi",), "Someone in the house is not alive."),
        _event("Standing Room", COMEDY, 80, ("Stand-up",), ("en",), "An hour about parents, landlords and trains."),
        _event("Chai and Chaos", COMEDY, 90, ("Improv",), ("hi", "en"), "Five players, no script, your suggestions."),
        _event("The Accountants", COMEDY, 75, ("Sketch",), ("en",), "Sketches for those who keep receipts."),
    ),
    "club": (
        _event("Night Ferry", CONCERT, 110, ("Indie",), ("en",), "New songs and old ones, played close and loud."),
        _event("Dub Station", CONCERT, 180, ("Electronic",), (), "Three hours of bass from four cities."),
    ),
    "arena": (
        _event("Raga at Dusk", CONCERT, 160, ("Classical",), (), "Sitar, sarod and tabla, an evening in three parts."),
        _event(
            "The Kites: Open Sky Tour", CONCERT, 140, ("Rock",), ("en", "hi"), "The band's first tour in nine years."
        ),
        _event(
            "Playback Gold", CONCERT, 150, ("Film music",), ("hi",), "Sixty songs of sixty years with a full orchestra."
        ),
        _event("Bhangra Nation", CONCERT, 130, ("Folk",), ("pa",), "Dhol, dance and a floor that shakes."),
        _event("Qawwali Night", CONCERT, 170, ("Sufi",), ("ur", "hi"), "Two parties, one stage, until late."),
    ),
    "stadium": (
        _event("City Derby: Blues v Reds", MATCH, 120, ("Football",), (), "The oldest quarrel of the league."),
        _event("T20: Lions v Falcons", MATCH, 210, ("Cricket",), (), "Twenty overs a side under lights."),
        _event("T20: Chargers v Royals", MATCH, 210, ("Cricket",), (), "A semi-final place at stake."),
        _event("Hockey: North v South", MATCH, 100, ("Hockey",), (), "The zonal final."),
    ),
}
"""Twenty of them, by the kind of venue that fits them."""


def events() -> list[Event]:
    return [event for some in EVENTS.values() for event in some]
