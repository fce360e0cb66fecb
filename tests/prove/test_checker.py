"""The checker finds what is wrong: a good history, and one thing after the other spoiled in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest

from marquee.booking import v1 as booking_v1
from marquee.payment import v1 as payment_v1
from services.booking.domain import BookingState, ReservationState, SeatState
from services.booking.messages import money
from tests.prove.checker import check
from tests.prove.evidence import (
    Announced,
    BookingRow,
    CaptureRow,
    Claim,
    Evidence,
    Kept,
    LogRow,
    ReservationRow,
    ShowRecord,
)
from tests.prove.findings import Findings, Rule
from tests.prove.history import Act, History, Moment, Operation, Outcome, Sight, SightKind
from tests.prove.ledger import Capture, Refund

SHOW = "00000000-0000-8000-8000-000000000001"
SEATS = ("A1", "A2", "A3", "A4", "A5", "A6")
BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
PRICE = 20_000


def named(name: str) -> UUID:
    return uuid5(UUID(int=0), name)


def at(second: float) -> datetime:
    return BEGIN + timedelta(seconds=second)


def moment(second: float) -> Moment:
    return Moment(int(second * 1e9), int(at(second).timestamp() * 1e9))


@dataclass
class World:
    """What happened in one show, by its own account and by its clients'.

    Ann buys A1 and A2 (versions 1, 2). Bob holds A3 for a second, Cy takes it over (4) and gives it back (5). Staff
    block A6 (6). Dee books A4, pays too late to keep it (7, 8) and gets her money back. Eve is refused A1. Fay buys A5
    and cancels (9 to 11). Gil watches.
    """

    history: History = field(default_factory=History)
    log: list[LogRow] = field(default_factory=list)
    reservations: dict[str, ReservationRow] = field(default_factory=dict)
    bookings: dict[str, BookingRow] = field(default_factory=dict)
    captures: list[CaptureRow] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    books: list[Capture] = field(default_factory=list)
    events: list[Announced] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    unlisted: set[str] = field(default_factory=set)
    taken: int = 3
    version: int = 11

    def evidence(self) -> Evidence:
        show = ShowRecord(
            show_id=SHOW,
            capacity=len(SEATS),
            version=self.version,
            taken=self.taken,
            claims=self.claims,
            log=self.log,
            reservations={row.reservation_id: row for row in self.reservations.values()},
            bookings={row.booking_id: row for row in self.bookings.values()},
            captures=self.captures,
        )
        listed = {(row.user_id, row.booking_id) for who, row in self.bookings.items() if who not in self.unlisted}
        return Evidence({SHOW: show}, self.events, self.books, self.kept, frozenset(listed))

    def check(self) -> Findings:
        return check(self.history, self.evidence())

    # --- changes ------------------------------------------------------------------------------------------------------

    def logged(self, version: int, cause: str, who: str | None, second: float, **seats: tuple[int, ...]) -> None:
        states = {"freed": (), "held": (), "booked": (), "blocked": (), **seats}
        self.log.append(LogRow(version, **states, cause=cause, actor=named(who) if who else None, at=at(second)))

    def change_log(self, version: int, **changes: Any) -> None:
        self.log[version - 1] = replace(self.log[version - 1], **changes)

    def change_reservation(self, who: str, **changes: Any) -> None:
        self.reservations[who] = replace(self.reservations[who], **changes)

    def change_booking(self, who: str, **changes: Any) -> None:
        self.bookings[who] = replace(self.bookings[who], **changes)

    def done(self, who: str, act: Act, request: Any, answer: Any, began: float, ended: float, **more: Any) -> Operation:
        what = {"outcome": Outcome.OK, **more}
        return self.history.add(
            client=who, user_id=named(who), act=act, request=request, answer=answer,
            began=moment(began), ended=moment(ended), **what,
        )  # fmt: skip

    def find(self, who: str, act: Act) -> int:
        return next(
            number for number, each in enumerate(self.history.operations) if (each.client, each.act) == (who, act)
        )

    def change_operation(self, who: str, act: Act, **changes: Any) -> None:
        number = self.find(who, act)
        self.history.operations[number] = replace(self.history.operations[number], **changes)

    # --- what people do -----------------------------------------------------------------------------------------------

    def hold(self, who: str, seats: tuple[int, ...], version: int, second: float, *, ends: float) -> None:
        reservation_id, request_id = named(f"{who}'s hold"), named(f"{who}'s wish")
        self.logged(version, "hold", who, second, held=seats)
        self.reservations[who] = ReservationRow(
            reservation_id, named(who), ReservationState.EXPIRED, False, seats, PRICE * len(seats), version,
            at(second), at(ends), None,
        )  # fmt: skip
        self.kept.append(Kept(named(who), str(request_id), "hold", reservation_id))
        answer = booking_v1.Reservation(
            reservation_id=str(reservation_id), show_id=SHOW, seat_nos=seats, fence=version,
            quote=booking_v1.Quote(total=money(PRICE * len(seats), "INR")),
        )  # fmt: skip
        answer.create_time.FromDatetime(at(second))
        answer.expire_time.FromDatetime(at(ends))
        request = booking_v1.CreateReservationRequest(
            request_id=str(request_id), show_id=SHOW, seats=[SEATS[seat] for seat in seats]
        )
        self.done(who, Act.HOLD, request, answer, second - 0.1, second + 0.1)

    def book(self, who: str, second: float, *, pay_by: float) -> None:
        row, booking_id = self.reservations[who], named(f"{who}'s booking")
        self.change_reservation(who, status=ReservationState.CONVERTED, booking_id=booking_id, expires_at=at(pay_by))
        self.bookings[who] = BookingRow(
            booking_id, row.reservation_id, named(who), "MQ", BookingState.EXPIRED, row.seat_nos, row.total,
            at(pay_by), None, None, 0, 2,
        )  # fmt: skip
        request_id = named(f"{who}'s order")
        self.kept.append(Kept(named(who), str(request_id), "book", None))
        answer = booking_v1.Booking(
            booking_id=str(booking_id), reservation_id=str(row.reservation_id), reference="MQ", seat_nos=row.seat_nos,
            quote=booking_v1.Quote(total=money(row.total, "INR")),
        )  # fmt: skip
        answer.pay_by_time.FromDatetime(at(pay_by))
        request = booking_v1.CreateBookingRequest(request_id=str(request_id), reservation_id=str(row.reservation_id))
        self.done(who, Act.BOOK, request, answer, second - 0.1, second + 0.1)
        self.tell("booking.created", who)

    def pay(self, who: str, second: float, outcome: str) -> None:
        row, capture_id = self.bookings[who], f"{who}'s capture"
        self.done(who, Act.PAY, {"order_id": who}, [{"id": capture_id, "status": "captured"}], second - 0.2, second)
        self.books.append(Capture(capture_id, who, str(row.booking_id), row.total, 0, False))
        self.captures.append(CaptureRow(row.booking_id, capture_id, row.total, outcome, at(second)))
        self.events.append(
            Announced("payment.completed", "", payment_v1.PaymentCompleted(capture_id=capture_id).SerializeToString())
        )

    def confirm(self, who: str, version: int, second: float) -> None:
        self.pay(who, second, "CONFIRMED")
        self.logged(version, "confirm", who, second, booked=self.bookings[who].seat_nos)
        self.change_booking(
            who, status=BookingState.CONFIRMED, payment_id=named("payment"), capture_id=f"{who}'s capture"
        )
        self.tell("booking.confirmed", who)

    def refund(self, who: str, amount: int) -> None:
        capture = next(each for each in self.books if each.capture_id == f"{who}'s capture")
        done = replace(capture, refunds=(Refund("refund", amount, "processed"),))
        self.books[self.books.index(capture)] = done
        for message, topic in (
            (payment_v1.RefundRequested(capture_id=capture.capture_id), "payment.refund_requested"),
            (payment_v1.PaymentRefunded(capture_id=capture.capture_id), "payment.refunded"),
        ):
            self.events.append(Announced(topic, "", message.SerializeToString()))

    def tell(self, topic: str, who: str) -> None:
        self.events.append(Announced(topic, str(self.bookings[who].booking_id), b""))

    def see(self, version: int, second: float, seats: bytes, kind: SightKind = SightKind.DELTA) -> None:
        self.history.sights.append(Sight("gil", SHOW, 1, kind, moment(second), version, version, seats))

    def look_at_everything(self) -> None:
        for who, row in self.reservations.items():
            seen = booking_v1.Reservation(
                reservation_id=str(row.reservation_id), fence=row.fence, booking_id=str(row.booking_id or ""),
                status=booking_v1.ReservationStatus.ValueType(row.status),
            )  # fmt: skip
            self.done(who, Act.SEE_RESERVATION, None, seen, 90, 91)
        for who, booking in self.bookings.items():
            status = booking_v1.BookingStatus.ValueType(booking.status)
            looked = booking_v1.Booking(booking_id=str(booking.booking_id), status=status, version=booking.version)
            if booking.refund:
                looked.refund.CopyFrom(money(booking.refund, "INR"))
            self.done(who, Act.SEE_BOOKING, None, looked, 90, 91)


@pytest.fixture
def world() -> World:
    made = World()
    made.history.halls = {SHOW: SEATS}
    made.hold("ann", (0, 1), 1, 1, ends=11)
    made.book("ann", 2, pay_by=12)
    made.confirm("ann", 2, 3)
    made.hold("bob", (2,), 3, 4, ends=5)
    made.hold("cy", (2,), 4, 6, ends=16)
    made.logged(5, "release", "cy", 7, freed=(2,))
    made.change_reservation("cy", status=ReservationState.RELEASED)
    made.done("cy", Act.RELEASE, booking_v1.ReleaseReservationRequest(reservation_id=str(named("cy's hold"))),
              booking_v1.Reservation(), 6.9, 7.1)  # fmt: skip
    made.logged(6, "block", "staff", 8, blocked=(5,))
    made.done("staff", Act.BLOCK, booking_v1.BlockSeatsRequest(request_id="block", show_id=SHOW, block=["A6"]),
              booking_v1.BlockSeatsResponse(version=6), 7.9, 8.1)  # fmt: skip
    made.hold("dee", (3,), 7, 9, ends=10)
    made.book("dee", 9.5, pay_by=11)
    made.logged(8, "expire", None, 12, freed=(3,))
    made.tell("booking.expired", "dee")
    made.pay("dee", 13, "LATE")
    made.refund("dee", PRICE)
    made.done("eve", Act.HOLD, booking_v1.CreateReservationRequest(request_id="eve", show_id=SHOW, seats=["A1"]), None,
              3.5, 3.6, outcome=Outcome.REFUSED, reason="SEAT_TAKEN", facts={"seats": "A1"})  # fmt: skip
    made.hold("fay", (4,), 9, 14, ends=24)
    made.book("fay", 14.5, pay_by=25)
    made.confirm("fay", 10, 15)
    made.logged(11, "cancel", "fay", 16, freed=(4,))
    made.change_booking("fay", status=BookingState.CANCELLED, refund=PRICE // 2, version=3)
    made.refund("fay", PRICE // 2)
    made.tell("booking.cancelled", "fay")
    cancelled = booking_v1.Booking(booking_id=str(named("fay's booking")), refund=money(PRICE // 2, "INR"))
    cancel = booking_v1.CancelBookingRequest(request_id="cancel", booking_id=cancelled.booking_id)
    made.done("fay", Act.CANCEL, cancel, cancelled, 15.9, 16.1)
    made.claims = [
        Claim(0, SeatState.BOOKED, named("ann's hold"), 1),
        Claim(1, SeatState.BOOKED, named("ann's hold"), 1),
        Claim(5, SeatState.BLOCKED, None, 6),
    ]
    made.see(0, 0.5, bytes([1, 1, 1, 1, 1, 1]), SightKind.SNAPSHOT)
    made.see(2, 3.2, bytes([3, 3, 1, 1, 1, 1]))
    made.see(4, 6.2, bytes([3, 3, 2, 1, 1, 1]))
    made.see(11, 17, bytes([3, 3, 1, 1, 1, 4]))
    made.look_at_everything()
    return made


def test_a_good_history_is_good_and_every_rule_looked_at_something(world: World) -> None:
    findings = world.check()
    assert findings.violations == []
    assert set(findings.examined) == set(Rule)


def assert_found(world: World, rule: Rule, text: str) -> None:
    found = world.check().of(rule)
    assert any(text in each for each in found), f"{rule.name} says {found}"


# --- the log ----------------------------------------------------------------------------------------------------------


def test_a_version_that_is_missing(world: World) -> None:
    del world.log[4]
    assert_found(world, Rule.VERSIONS, "gaps")


def test_a_seat_that_is_held_while_somebody_has_booked_it(world: World) -> None:
    world.change_log(7, held=(1,))
    world.change_reservation("dee", seat_nos=(1,))
    assert_found(world, Rule.OWNER, "seat 1 was held while it was BOOKED")


def test_money_that_books_seats_which_another_one_holds(world: World) -> None:
    world.change_log(2, booked=(0, 2))
    world.change_log(3, at=at(2.5))
    world.log[1], world.log[2] = (
        replace(world.log[2], version=2),
        replace(world.log[1], version=3),
    )
    world.change_reservation("bob", fence=2)
    assert_found(world, Rule.OWNER, "were booked while one was HELD")


def test_a_sweeper_that_frees_what_is_booked(world: World) -> None:
    world.change_log(8, freed=(0, 3))
    assert_found(world, Rule.OWNER, "expire freed seat 0, which was BOOKED")


def test_a_confirmed_booking_whose_seats_are_gone(world: World) -> None:
    world.log.append(LogRow(12, (0, 1), (), (), (), "show_cancelled", None, at(20)))
    world.version, world.claims, world.taken = 12, world.claims[2:], 1
    assert_found(world, Rule.OWNER, "is CONFIRMED with seats (0, 1), and has set()")


def test_a_takeover_that_takes_only_a_part(world: World) -> None:
    world.change_log(3, held=(2, 4))
    world.change_reservation("bob", seat_nos=(2, 4))
    assert_found(world, Rule.OWNER, "took only some of")


def test_a_takeover_that_leaves_the_old_reservation_active(world: World) -> None:
    world.change_reservation("bob", status=ReservationState.ACTIVE)
    assert_found(world, Rule.END, "is active, yet its seats left it at version 4")


def test_a_hold_that_ends_before_its_time(world: World) -> None:
    world.change_reservation("bob", expires_at=at(6.5))
    assert_found(world, Rule.CLOCK, "before its time")
    world.change_reservation("bob", expires_at=at(5))
    world.change_reservation("dee", expires_at=at(13))
    assert_found(world, Rule.CLOCK, "1.000 s before its time")


def test_a_clock_that_goes_back(world: World) -> None:
    world.change_log(8, at=at(14.2))
    assert_found(world, Rule.CLOCK, "is before its predecessor's")


def test_a_time_that_is_not_within_the_call(world: World) -> None:
    world.change_log(5, at=at(7.5))
    assert_found(world, Rule.CLOCK, "is not within cy's call")


def test_a_hold_that_is_refused_as_expired_too_early(world: World) -> None:
    book = booking_v1.CreateBookingRequest(request_id="x", reservation_id=str(named("bob's hold")))
    refused = {"outcome": Outcome.REFUSED, "reason": "RESERVATION_EXPIRED"}
    world.done("bob", Act.BOOK, book, None, 4.2, 4.3, **refused)
    assert_found(world, Rule.CLOCK, "that a hold is over that lasts until")


def test_a_step_without_its_reservation_or_capture(world: World) -> None:
    world.change_log(4, actor=named("eve"))
    assert_found(world, Rule.CHANGE, "no reservation has that fence")
    world.captures.pop(0)
    assert_found(world, Rule.CHANGE, "no capture paid for them")


def test_an_expiry_that_changes_nothing(world: World) -> None:
    world.change_log(8, freed=())
    assert_found(world, Rule.CHANGE, "expire freed nothing")


def test_somebody_who_gives_back_or_cancels_what_is_anothers(world: World) -> None:
    world.change_log(5, actor=named("bob"))
    assert_found(world, Rule.CHANGE, "of another user")
    world.change_log(11, freed=(0, 1))
    assert_found(world, Rule.CHANGE, "not those of one booking")


def test_staff_who_block_what_is_taken(world: World) -> None:
    world.change_log(6, blocked=(0,))
    assert_found(world, Rule.OWNER, "seat 0 was blocked while it was BOOKED")


def test_claims_and_counts_that_the_log_does_not_lead_to(world: World) -> None:
    world.claims[0] = replace(world.claims[0], reservation_id=named("dee's hold"))
    world.taken = 5
    found = world.check().of(Rule.END)
    assert len(found) == 2


def test_what_is_still_open_at_the_end(world: World) -> None:
    world.change_reservation("dee", holding=True)
    world.change_booking("dee", status=BookingState.PENDING_PAYMENT)
    assert_found(world, Rule.END, "holds long after its time")
    assert_found(world, Rule.END, "is PENDING_PAYMENT long after")


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["ann", "cy", "dee"])
def test_a_hold_that_was_acknowledged_and_is_lost(world: World, lost: str) -> None:
    del world.reservations[lost]
    assert_found(world, Rule.ACKNOWLEDGED, f"{lost}'s hold")


def test_a_booking_that_was_acknowledged_and_is_lost_or_another(world: World) -> None:
    world.change_booking("ann", total=1)
    assert_found(world, Rule.ACKNOWLEDGED, "ann's booking")
    del world.bookings["ann"]
    assert_found(world, Rule.ACKNOWLEDGED, "it is not there")


def test_a_release_a_cancellation_or_a_block_that_is_lost(world: World) -> None:
    world.change_reservation("cy", status=ReservationState.CONVERTED)
    assert_found(world, Rule.ACKNOWLEDGED, "cy's release")
    world.change_booking("fay", refund=1)
    assert_found(world, Rule.ACKNOWLEDGED, "fay's cancellation")
    world.change_log(6, blocked=(4,))
    assert_found(world, Rule.ACKNOWLEDGED, "staff's block")


def test_a_payment_that_was_acknowledged_and_is_lost(world: World) -> None:
    world.done("ann", Act.INITIATE, None, payment_v1.Payment(payment_id="p"), 2.1, 2.2)
    assert_found(world, Rule.ACKNOWLEDGED, "ann's payment p is lost")


def test_an_owner_who_sees_something_else_than_there_is(world: World) -> None:
    world.change_operation("dee", Act.SEE_BOOKING, answer=booking_v1.Booking(booking_id=str(named("dee's booking"))))
    assert_found(world, Rule.ACKNOWLEDGED, "its owner sees")


def test_a_booking_that_becomes_an_older_one(world: World) -> None:
    newer = booking_v1.Booking(booking_id=str(named("ann's booking")), version=9)
    world.done("ann", Act.SEE_BOOKING, None, newer, 50, 51)
    assert_found(world, Rule.ORDER, "become an older one")


def test_versions_that_are_not_in_the_order_of_real_time(world: World) -> None:
    world.change_operation("cy", Act.HOLD, ended=moment(3.85), began=moment(3.8))
    assert_found(world, Rule.ORDER, "bob has version 3, but began after cy had been told 4")


def test_a_repeat_that_gets_another_answer_or_none(world: World) -> None:
    first = world.history.operations[world.find("ann", Act.HOLD)]
    again = world.done("ann", Act.HOLD, first.request, first.answer, 2, 2.1)
    assert world.check().violations == []
    world.history.operations.remove(again)
    world.done("ann", Act.HOLD, first.request, booking_v1.Reservation(reservation_id=str(named("new"))), 2, 2.1)
    assert_found(world, Rule.REPLAY, "it has another answer")
    world.history.operations.pop()
    world.done("ann", Act.HOLD, first.request, None, 2, 2.1, outcome=Outcome.REFUSED, reason="SEAT_TAKEN")
    assert_found(world, Rule.REPLAY, "its repeat says SEAT_TAKEN")


def test_other_content_under_a_used_request_id(world: World) -> None:
    first = world.history.operations[world.find("ann", Act.HOLD)]
    other = booking_v1.CreateReservationRequest(request_id=first.request_id, show_id=SHOW, seats=["A2"])
    world.done("ann", Act.HOLD, other, first.answer, 2, 2.1)
    assert_found(world, Rule.REPLAY, "it has another answer")


def test_one_request_with_two_effects_or_an_effect_without_a_request(world: World) -> None:
    world.kept[0] = replace(world.kept[0], answer_id=named("another hold"))
    assert_found(world, Rule.REPLAY, "belongs to 0 requests")


def test_a_refusal_with_an_effect(world: World) -> None:
    world.kept.append(Kept(named("eve"), "eve", "hold", None))
    assert_found(world, Rule.REPLAY, "was refused (SEAT_TAKEN), and it has an effect")


def test_a_seat_that_is_refused_and_was_free(world: World) -> None:
    world.change_operation("eve", Act.HOLD, facts={"seats": "A4"})
    assert_found(world, Rule.REFUSED, "eve was refused A4, which was free from version 1 to 2")


# --- viewers ----------------------------------------------------------------------------------------------------------


def test_a_map_that_is_not_the_logs(world: World) -> None:
    world.see(11, 18, bytes([3, 3, 2, 1, 1, 4]))
    assert_found(world, Rule.VIEWERS, "shows seats [2] wrong at version 11")


def test_a_viewer_who_goes_back_sees_the_future_or_ends_behind(world: World) -> None:
    world.see(4, 18, bytes([3, 3, 2, 1, 1, 1]))
    assert_found(world, Rule.VIEWERS, "went back from version 11 to 4")
    assert_found(world, Rule.VIEWERS, "ends at 4, not at 11")
    world.history.sights.insert(2, replace(world.history.sights[2], at=moment(5)))
    assert_found(world, Rule.VIEWERS, "before anybody asked for it")


def test_a_heartbeat_that_says_another_version(world: World) -> None:
    last = world.history.sights[-1]
    world.history.sights.append(replace(last, kind=SightKind.HEARTBEAT, said_version=12))
    assert_found(world, Rule.VIEWERS, "its heartbeat says 12")


def test_a_seat_map_that_is_not_the_logs(world: World) -> None:
    seats = [booking_v1.SeatView(seat_no=number, status=booking_v1.SEAT_STATUS_AVAILABLE) for number in range(6)]
    world.done("ann", Act.SEE_MAP, None, booking_v1.SeatMap(show_id=SHOW, version=2, seats=seats), 5, 6)
    assert_found(world, Rule.VIEWERS, "ann's map of show")


# --- money and events -------------------------------------------------------------------------------------------------


def test_money_that_is_nowhere(world: World) -> None:
    world.books[1] = replace(world.books[1], refunds=())
    assert_found(world, Rule.MONEY, "is expired")
    assert_found(world, Rule.MONEY, "the sums do not add up")
    assert_found(world, Rule.MONEY, "was to go back (LATE)")


def test_money_that_booking_never_heard_of(world: World) -> None:
    world.books.append(replace(world.books[0], capture_id="lost"))
    assert_found(world, Rule.MONEY, "lost never reached booking")


def test_a_booking_that_two_captures_confirmed(world: World) -> None:
    world.captures.append(replace(world.captures[0], capture_id="second"))
    assert_found(world, Rule.MONEY, "was confirmed by 2 captures")


def test_a_payment_whose_owner_sees_other_sums_than_the_books(world: World) -> None:
    paid = payment_v1.Payment(
        payment_id="p", provider_order_id="ann", amount=money(2 * PRICE, "INR"),
        status=payment_v1.PAYMENT_STATUS_CAPTURED,
    )  # fmt: skip
    world.done("ann", Act.INITIATE, None, paid, 2.1, 2.2)
    world.done("ann", Act.SEE_PAYMENT, None, paid, 50, 51)
    assert world.check().violations == []
    refunded = payment_v1.Payment()
    refunded.CopyFrom(paid)
    refunded.status = payment_v1.PAYMENT_STATUS_REFUNDED
    world.done("ann", Act.SEE_PAYMENT, None, refunded, 52, 53)
    assert_found(world, Rule.MONEY, "payment p is PAYMENT_STATUS_REFUNDED")


def test_money_that_was_taken_and_is_not_in_the_books(world: World) -> None:
    world.done("ann", Act.PAY, {}, [{"id": "gone", "status": "captured"}], 2.1, 2.2)
    assert_found(world, Rule.ACKNOWLEDGED, "gone is not in the books")


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("booking.created", "has 0 booking.created"),
        ("booking.confirmed", "has 0 booking.confirmed"),
        ("booking.cancelled", "has 0 booking.cancelled"),
        ("booking.expired", "has 0 booking.expired"),
        ("payment.refund_requested", "was asked back 0 times, not 1"),
        ("payment.completed", "has 0 payment.completed"),
        ("payment.refunded", "has 0 payment.refunded, 1 are done"),
    ],
)
def test_an_event_that_was_never_written(world: World, topic: str, text: str) -> None:
    world.events = [event for event in world.events if event.topic != topic]
    assert_found(world, Rule.EVENTS, text)


def test_an_event_that_was_written_twice(world: World) -> None:
    world.events += [event for event in world.events if event.topic == "payment.refund_requested"]
    assert_found(world, Rule.EVENTS, "was asked back 2 times, not 1")


def test_an_event_without_its_effect(world: World) -> None:
    world.unlisted.add("dee")
    assert_found(world, Rule.EVENTS, "is not in its owner's list")
