"""What people had on their screens, message by message, against the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from marquee.booking import v1 as booking_v1
from tests.prove.check_answers import Placed
from tests.prove.check_log import FREE, Replayed
from tests.prove.evidence import Evidence
from tests.prove.findings import Findings, Rule
from tests.prove.history import Act, History, Sight, SightKind


@dataclass
class _Screen:
    connection: int = -1
    version: int = -1
    last: Sight | None = None


def check_viewers(
    history: History,
    evidence: Evidence,
    replayed: Mapping[str, Replayed],
    placed: Mapping[str, Iterable[Placed]],
    findings: Findings,
) -> None:
    """Each message's map is the log's; versions only grow in a stream; at the end everybody has the newest."""
    asked = {show_id: _asked_at(ones) for show_id, ones in placed.items()}
    screens: dict[tuple[str, str], _Screen] = {}
    for sight in history.sights:
        if sight.show_id not in replayed:
            continue
        screen = screens.setdefault((sight.viewer, sight.show_id), _Screen())
        who = f"{sight.viewer} of show {sight.show_id}"
        findings.look(Rule.VIEWERS)
        there = replayed[sight.show_id].maps.get(sight.version)
        if there is None:
            findings.object(Rule.VIEWERS, f"{who} is at version {sight.version}, which the log does not have")
        elif sight.seats != there:
            wrong = [n for n, (seen, real) in enumerate(zip(sight.seats, there, strict=True)) if seen != real]
            findings.object(Rule.VIEWERS, f"{who} shows seats {wrong[:6]} wrong at version {sight.version}")
        if sight.connection == screen.connection and sight.version < screen.version:
            findings.object(Rule.VIEWERS, f"{who} went back from version {screen.version} to {sight.version}")
        if sight.kind is SightKind.HEARTBEAT and sight.said_version != sight.version:
            findings.object(Rule.VIEWERS, f"{who} has version {sight.version}, its heartbeat says {sight.said_version}")
        began = asked[sight.show_id].get(sight.version, 0)
        if sight.at.steady_ns < began:
            findings.object(Rule.VIEWERS, f"{who} saw version {sight.version} before anybody asked for it")
        screen.connection, screen.version, screen.last = sight.connection, sight.version, sight
    for (viewer, show_id), screen in screens.items():
        newest = evidence.shows[show_id].version
        at_end = screen.version == newest
        findings.demand(at_end, Rule.VIEWERS, f"{viewer} of show {show_id} ends at {screen.version}, not at {newest}")
    _maps_that_were_asked_for(history, replayed, findings)


def _asked_at(placed: Iterable[Placed]) -> dict[int, int]:
    return {each.version: each.operation.began.steady_ns for each in placed}


def _maps_that_were_asked_for(history: History, replayed: Mapping[str, Replayed], findings: Findings) -> None:
    for each in history.answered(Act.SEE_MAP):
        seat_map: booking_v1.SeatMap = each.answer
        if seat_map.show_id not in replayed:
            continue
        there = replayed[seat_map.show_id].maps.get(seat_map.version, b"")
        seen = bytearray([FREE]) * len(there)
        for seat in seat_map.seats:
            seen[seat.seat_no] = seat.status
        findings.demand(
            bytes(seen) == there,
            Rule.VIEWERS,
            f"{each.client}'s map of show {seat_map.show_id} is not the log's at version {seat_map.version}",
        )
