"""What clients were told, against what is stored: nothing acknowledged is lost, and all of it fits one order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from marquee.booking import v1 as booking_v1
from services.booking.domain import BookingState, ReservationState
from services.booking.messages import minor_units
from tests.prove.check_log import Replayed
from tests.prove.evidence import BookingRow, Evidence, ReservationRow, ShowRecord
from tests.prove.findings import Findings, Rule
from tests.prove.history import Act, History, Moment, Operation, Outcome, taken_together

REUSED = "REQUEST_ID_REUSED"
EFFECTS = {Act.HOLD, Act.BOOK, Act.INITIATE, Act.CANCEL, Act.BLOCK}


@dataclass(frozen=True, slots=True)
class Placed:
    """An operation and the version at which it had its effect."""

    operation: Operation
    version: int


def check_answers(
    history: History,
    evidence: Evidence,
    replayed: Mapping[str, Replayed],
    findings: Findings,
    *,
    refusal_lag_s: float,
) -> dict[str, list[Placed]]:
    """All checks of this file; answers where in each show's log the operations stand."""
    acknowledged(history, evidence, findings)
    looks(history, evidence, findings)
    replays(history, evidence, findings)
    placed = placements(history, evidence, replayed)
    for show_id, ones in placed.items():
        in_real_time_order(show_id, ones, findings)
        within_their_calls(evidence.shows[show_id], ones, findings)
    refusals(history, evidence, replayed, placed, findings, lag_s=refusal_lag_s)
    return placed


# --- acknowledged -----------------------------------------------------------------------------------------------------


def acknowledged(history: History, evidence: Evidence, findings: Findings) -> None:
    """Every hold, release, booking, cancellation and block that was acknowledged is stored as it was told."""
    reservations = {row.reservation_id: row for show in evidence.shows.values() for row in show.reservations.values()}
    bookings = {row.booking_id: row for show in evidence.shows.values() for row in show.bookings.values()}
    for each in history.answered(Act.HOLD):
        held: booking_v1.Reservation = each.answer
        row = reservations.get(UUID(held.reservation_id))
        _same(
            findings,
            f"{each.client}'s hold {held.reservation_id}",
            _told_hold(each),
            _stored_hold(row) if row else None,
        )
    for each in history.answered(Act.RELEASE):
        reservation = reservations.get(UUID(each.request.reservation_id))
        gone = {ReservationState.RELEASED, ReservationState.EXPIRED}  # expired: it was asked for, and came too late
        findings.demand(
            reservation is not None and reservation.status in gone,
            Rule.ACKNOWLEDGED,
            f"{each.client}'s release of {each.request.reservation_id} is lost",
        )
    for each in history.answered(Act.BOOK):
        booked: booking_v1.Booking = each.answer
        booking = bookings.get(UUID(booked.booking_id))
        what = f"{each.client}'s booking {booked.booking_id}"
        _same(findings, what, _told_booking(each), _stored_booking(booking) if booking else None)
        held_by = reservations.get(UUID(booked.reservation_id))
        findings.demand(
            held_by is not None
            and (held_by.status, str(held_by.booking_id)) == (ReservationState.CONVERTED, booked.booking_id),
            Rule.ACKNOWLEDGED,
            f"{what}: its reservation {booked.reservation_id} does not name it",
        )
    for each in history.answered(Act.CANCEL):
        cancelled = bookings.get(UUID(each.request.booking_id))
        refund = minor_units(each.answer.refund)
        findings.demand(
            cancelled is not None and (cancelled.status, cancelled.refund) == (BookingState.CANCELLED, refund),
            Rule.ACKNOWLEDGED,
            f"{each.client}'s cancellation of {each.request.booking_id} with {refund} back is lost",
        )
    for each in history.answered(Act.BLOCK):
        _block_is_logged(each, evidence.shows[each.request.show_id], history.halls[each.request.show_id], findings)


def _same(findings: Findings, what: str, told: tuple[object, ...], stored: tuple[object, ...] | None) -> None:
    now = "it is not there" if stored is None else f"now {stored}"
    findings.demand(told == stored, Rule.ACKNOWLEDGED, f"{what}: acknowledged as {told}, {now}")


def _told_hold(each: Operation) -> tuple[object, ...]:
    told: booking_v1.Reservation = each.answer
    return each.user_id, tuple(told.seat_nos), told.fence, _time(told.create_time), minor_units(told.quote.total)


def _stored_hold(row: ReservationRow) -> tuple[object, ...]:
    return row.user_id, row.seat_nos, row.fence, row.created_at, row.total


def _told_booking(each: Operation) -> tuple[object, ...]:
    told: booking_v1.Booking = each.answer
    amount = minor_units(told.quote.total)
    return each.user_id, told.reservation_id, told.reference, tuple(told.seat_nos), amount, _time(told.pay_by_time)


def _stored_booking(row: BookingRow) -> tuple[object, ...]:
    return row.user_id, str(row.reservation_id), row.reference, row.seat_nos, row.total, row.pay_by


def _time(stamp: Any) -> datetime:
    moment: datetime = stamp.ToDatetime(tzinfo=UTC)
    return moment


def _block_is_logged(each: Operation, show: ShowRecord, labels: tuple[str, ...], findings: Findings) -> None:
    version = each.answer.version
    row = show.log[version - 1] if 0 < version <= len(show.log) else None
    numbers = {label: seat_no for seat_no, label in enumerate(labels)}
    told = ({numbers[label] for label in each.request.block}, {numbers[label] for label in each.request.unblock})
    findings.demand(
        row is not None
        and (row.cause, row.actor) == ("block", each.user_id)
        and (set(row.blocked), set(row.freed)) == told,
        Rule.ACKNOWLEDGED,
        f"{each.client}'s block at version {version} of {each.request.show_id} is lost",
    )


def looks(history: History, evidence: Evidence, findings: Findings) -> None:
    """What owners see is what is stored, at the end; and a booking that they look at never becomes an older one."""
    reservations = {
        str(row.reservation_id): row for show in evidence.shows.values() for row in show.reservations.values()
    }
    bookings = {str(row.booking_id): row for show in evidence.shows.values() for row in show.bookings.values()}
    last_hold = {each.answer.reservation_id: each for each in history.answered(Act.SEE_RESERVATION)}
    last_booking: dict[str, Operation] = {}
    for each in sorted(history.answered(Act.SEE_BOOKING), key=lambda one: one.ended.steady_ns):
        before = last_booking.get(each.answer.booking_id)
        if before is not None and before.ended.steady_ns < each.began.steady_ns:
            newer = each.answer.version >= before.answer.version
            findings.demand(
                newer, Rule.ORDER, f"{each.client} saw booking {each.answer.booking_id} become an older one"
            )
        last_booking[each.answer.booking_id] = each
    for reservation_id in {each.answer.reservation_id for each in history.answered(Act.HOLD)}:
        row, seen = reservations.get(reservation_id), last_hold.get(reservation_id)
        _agree(
            findings,
            f"reservation {reservation_id}",
            (seen.answer.status, seen.answer.fence, seen.answer.booking_id) if seen else None,
            (int(row.status), row.fence, str(row.booking_id or "")) if row else None,
        )
    for booking_id in {each.answer.booking_id for each in history.answered(Act.BOOK)}:
        booking, seen = bookings.get(booking_id), last_booking.get(booking_id)
        _agree(
            findings,
            f"booking {booking_id}",
            (seen.answer.status, seen.answer.version, minor_units(seen.answer.refund)) if seen else None,
            (int(booking.status), booking.version, booking.refund) if booking else None,
        )


def _agree(findings: Findings, what: str, seen: object, there: object) -> None:
    agree = seen is not None and seen == there
    findings.demand(agree, Rule.ACKNOWLEDGED, f"{what}: its owner sees {seen}, it is {there}")


# --- the same request -------------------------------------------------------------------------------------------------


def replays(history: History, evidence: Evidence, findings: Findings) -> None:
    """Equal answers to equal requests; none for other content; one effect."""
    kept = {(each.user_id, each.request_id): each for each in evidence.kept}
    for (user_id, request_id), repeats in history.by_request().items():
        repeats = sorted(repeats, key=lambda each: each.began.steady_ns)
        answered = [each for each in repeats if each.outcome is Outcome.OK]
        for first, again in ((a, b) for a in answered[:1] for b in repeats):
            if again is first or again.began.steady_ns < first.ended.steady_ns:
                continue
            same = (again.act, _bytes(again.request)) == (first.act, _bytes(first.request))
            what = f"{first.client}'s {first.act} {request_id}"
            match again.outcome:
                case Outcome.OK:
                    equal = same and _bytes(again.answer) == _bytes(first.answer)
                    findings.demand(equal, Rule.REPLAY, f"{what}: repeated, it has another answer")
                case Outcome.REFUSED if same and _is_over(first, again):
                    findings.notes["repeats of a hold that was over by then, refused as SEAT_TAKEN"] += 1
                case Outcome.REFUSED:  # which is right for other content only
                    findings.demand(not same, Rule.REPLAY, f"{what}: acknowledged, and its repeat says {again.reason}")
        stored = kept.get((user_id, request_id))
        if not answered and stored is not None and repeats[-1].outcome is Outcome.REFUSED:
            findings.demand(
                repeats[-1].reason == REUSED,
                Rule.REPLAY,
                f"{repeats[-1].client}'s {request_id} was refused ({repeats[-1].reason}), and it has an effect",
            )
    made: dict[UUID, set[str]] = {}
    for each in evidence.kept:
        if each.method == "hold" and each.answer_id is not None:
            made.setdefault(each.answer_id, set()).add(each.request_id)
    for show in evidence.shows.values():
        for reservation_id in show.reservations:
            findings.demand(
                len(made.get(reservation_id, ())) == 1,
                Rule.REPLAY,
                f"reservation {reservation_id} belongs to {len(made.get(reservation_id, ()))} requests, not to one",
            )


def _is_over(first: Operation, again: Operation) -> bool:
    """A known limit (docs/proof.md): a process that knows the seats to be another's by now says so first."""
    over = first.act is Act.HOLD and _wall(again.ended) >= _time(first.answer.expire_time)
    return over and again.reason == "SEAT_TAKEN"


def _bytes(content: object) -> object:
    return content.SerializeToString(deterministic=True) if isinstance(content, Message) else content


# --- one order --------------------------------------------------------------------------------------------------------


def placements(history: History, evidence: Evidence, replayed: Mapping[str, Replayed]) -> dict[str, list[Placed]]:
    """The version at which each operation had its effect, for those that certainly had one, by show."""
    placed: dict[str, list[Placed]] = {show_id: [] for show_id in evidence.shows}
    show_of = {
        str(identifier): show_id
        for show_id, show in evidence.shows.items()
        for identifier in (*show.reservations, *show.bookings)
    }
    for each in taken_together(history.of(*EFFECTS)).values():
        if each.outcome is not Outcome.OK:
            continue
        match each.act:
            case Act.HOLD:
                placed[each.request.show_id].append(Placed(each, each.answer.fence))
            case Act.BLOCK:
                placed[each.request.show_id].append(Placed(each, each.answer.version))
            case Act.CANCEL if show_id := show_of.get(each.request.booking_id):
                version = replayed[show_id].cancelled.get(UUID(each.request.booking_id))
                if version is not None:
                    placed[show_id].append(Placed(each, version))
    for each in history.answered(Act.RELEASE):
        show_id = show_of.get(each.request.reservation_id, "")
        version = replayed[show_id].released.get(UUID(each.request.reservation_id)) if show_id else None
        if version is not None:
            placed[show_id].append(Placed(each, version))
    return placed


def in_real_time_order(show_id: str, placed: Iterable[Placed], findings: Findings) -> None:
    """Whoever began after another's answer has the higher version; so the versions are one order of all."""
    earliest: Placed | None = None  # of those with higher versions, the one that ended first
    for each in sorted(placed, key=lambda one: -one.version):
        findings.look(Rule.ORDER)
        if earliest is not None and earliest.operation.ended.steady_ns < each.operation.began.steady_ns:
            findings.object(
                Rule.ORDER,
                f"show {show_id}: {each.operation.client} has version {each.version}, but began after "
                f"{earliest.operation.client} had been told {earliest.version}",
            )
        if earliest is None or each.operation.ended.steady_ns < earliest.operation.ended.steady_ns:
            earliest = each


def within_their_calls(show: ShowRecord, placed: Iterable[Placed], findings: Findings) -> None:
    """The time that the log gives a step lies within the call that asked for it."""
    log = {row.version: row for row in show.log}
    for each in placed:
        row = log.get(each.version)
        if row is None:
            findings.demand(False, Rule.ACKNOWLEDGED, f"{each.operation.client}'s version {each.version} is not logged")
            continue
        began, ended = (_wall(moment) for moment in (each.operation.began, each.operation.ended))
        # A wish that was asked for several times ends, for us, with the first answer; the step may only be earlier.
        findings.demand(
            began <= row.at <= ended,
            Rule.CLOCK,
            f"show {show.show_id} at version {row.version}: its time {row.at} is not within {each.operation.client}'s "
            f"call, {began} to {ended}",
        )


def _wall(moment: Moment) -> datetime:
    return datetime.fromtimestamp(moment.wall_ns / 1e9, UTC)


# --- refusals ---------------------------------------------------------------------------------------------------------


def refusals(
    history: History,
    evidence: Evidence,
    replayed: Mapping[str, Replayed],
    placed: Mapping[str, list[Placed]],
    findings: Findings,
    *,
    lag_s: float,
) -> None:
    """A seat that was refused as taken was taken at some version that was there during the call; a hold that was
    refused as expired had reached its end."""
    known = {show_id: _Versions(evidence.shows[show_id], ones) for show_id, ones in placed.items()}
    for each in history.of(Act.HOLD):
        if each.reason != "SEAT_TAKEN" or each.request.show_id not in known:
            continue
        show_id, labels = each.request.show_id, history.halls[each.request.show_id]
        named = [label for label in each.facts.get("seats", "").split(",") if label in labels] or each.request.seats
        low, high = known[show_id].during(each, lag_s)
        for label in named:
            spans = replayed[show_id].taken.get(labels.index(label), [])
            findings.demand(
                any(first <= high and last >= low for first, last in spans),
                Rule.REFUSED,
                f"show {show_id}: {each.client} was refused {label}, which was free from version {low} to {high}",
            )
    ends = {each.answer.reservation_id: _time(each.answer.expire_time) for each in history.answered(Act.HOLD)}
    for each in history.of(Act.BOOK):
        if each.reason == "RESERVATION_EXPIRED" and each.request.reservation_id in ends:
            end = ends[each.request.reservation_id]
            early = f"{each.client} was told at {_wall(each.ended)} that a hold is over that lasts until {end}"
            findings.demand(_wall(each.ended) >= end, Rule.CLOCK, early)


class _Versions:
    """Which versions of a show may have been the current one during a call."""

    def __init__(self, show: ShowRecord, placed: Iterable[Placed]) -> None:
        self._times = [row.at for row in show.log]
        self._versions = [row.version for row in show.log]
        ends = sorted((each.operation.ended.steady_ns, each.version) for each in placed)
        self._ends = [ended for ended, _ in ends]
        self._highest: list[int] = []
        for _, version in ends:
            self._highest.append(max(version, self._highest[-1] if self._highest else 0))

    def during(self, operation: Operation, lag_s: float) -> tuple[int, int]:
        """From the highest that was acknowledged before the call, to the last whose time came before its end."""
        told = bisect_right(self._ends, operation.began.steady_ns - int(lag_s * 1e9))
        low = self._highest[told - 1] if told else 0
        before_end = bisect_right(self._times, _wall(operation.ended))
        return low, self._versions[before_end - 1] if before_end else 0
