"""Booking's store functions on a real PostgreSQL, step by step against `model_seats`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID, uuid4, uuid5

import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pydantic import SecretStr

from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1
from marquee.edge import v1 as edge_v1
from marquee.payment import v1 as payment_v1
from services.booking import usecases
from services.booking.__main__ import open_desk
from services.booking.consumers import confirm, copy_shows
from services.booking.desk import Desk
from services.booking.domain import SeatState, owner_refund, quote, read_wish
from services.booking.messages import money, quote_bytes, quote_items
from services.booking.settings import BookingSettings
from services.booking.store.holds import HoldWish
from services.kit.bus import ReceivedEvent
from services.kit.call import UserId
from services.kit.database import Pool, open_pool
from services.kit.errors import Refusal
from services.kit.ids import new_id_of_show
from tests.prove.halls import FLOOR, new_layout, new_show
from tests.prove.model_seats import FLOOR as PLACES
from tests.prove.model_seats import MOST_ACTIVE, MOST_AN_HOUR, SEATS, Held, Model

USERS = tuple(uuid5(UUID(int=0), name) for name in ("ann", "bob", "cy"))
LABELS = [f"A{number + 1}" for number in range(SEATS)]
LONG_S, OVER_S = 3600.0, 0.000_001
"""How long things last that are not due, and that are due as soon as they are made."""
WHOEVER = st.sampled_from(USERS)
SOME_SEATS = st.sets(st.integers(0, SEATS - 1), max_size=4).map(lambda seats: tuple(sorted(seats)))
Result = TypeVar("Result")


@dataclass
class House:
    """Stores on one database; ``desks[due]`` is one whose holds and payment windows are over at once, or last."""

    runner: asyncio.Runner
    pool: Pool
    desks: dict[bool, Desk]
    layout: catalog_v1.Layout

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)


def _event(topic: str, key: str, message: Any) -> ReceivedEvent:
    payload = message.SerializeToString()
    return ReceivedEvent(uuid4(), topic, key, message.DESCRIPTOR.full_name, payload, {}, datetime.now(UTC))


class Seats(RuleBasedStateMachine):
    """One show, three users."""

    house: ClassVar[House]
    reached: ClassVar[Counter[str]] = Counter()

    @initialize()
    def open(self) -> None:
        self.model = Model()
        self.numbers = 0
        self.house.do(self._open())

    async def _open(self) -> None:
        show = new_show(self.house.layout)
        changed = _event("catalog.changed", show.show_id, catalog_v1.CatalogChanged(show=show))
        self.desk = self.house.desks[False]
        async with self.desk.bookings.transaction() as connection:
            await copy_shows(connection, [changed], desk=self.desk)
        found = await self.desk.shows.find(UUID(show.show_id))
        assert found is not None
        self.show, self.show_id = found, found.show_id

    def _request(self, data: st.DataObject, user: UUID) -> UUID:
        """A new request id, or one that this user has used."""
        used = [request for who, request in self.model.requests if who == user]
        if used and data.draw(st.integers(0, 5)) == 0:
            return data.draw(st.sampled_from(used))
        self.numbers += 1
        return uuid5(self.show_id, str(self.numbers))

    # --- holds --------------------------------------------------------------------------------------------------------

    @rule(
        data=st.data(),
        wishes=st.lists(st.tuples(WHOEVER, SOME_SEATS, st.integers(0, 2)).filter(lambda w: w[1] or w[2]), min_size=1,
                        max_size=3),
        due=st.booleans(),
    )  # fmt: skip
    def hold(self, data: st.DataObject, wishes: list[tuple[UUID, tuple[int, ...], int]], due: bool) -> None:
        """A batch."""
        batch = [self._wish(self._request(data, user), user, seats, standing) for user, seats, standing in wishes]
        outcomes = self.house.do(self.house.desks[due].holds.add(batch))
        for wish, (user, seats, standing), outcome in zip(batch, wishes, outcomes, strict=True):
            expected = self.model.hold(wish.reservation_id, user, wish.request_id, seats, standing, due=due)
            hold = outcome.reservation_id
            assert Held(outcome.outcome, hold, frozenset(outcome.taken)) == expected, (outcome, expected)
            if hold is not None:
                mine = self.model.holds[hold]
                assert (set(outcome.seat_nos), outcome.fence) == (set(mine.seats), mine.fence)

    def _wish(self, request: UUID, user: UUID, seats: tuple[int, ...], standing: int) -> HoldWish:
        asked = read_wish(self.show.layout, [LABELS[seat] for seat in seats], [(FLOOR, standing)] if standing else [])
        priced = quote(asked.places, self.show.prices, "INR", self.desk.rates)
        return HoldWish(
            show_id=self.show_id,
            show_row_version=self.show.version,
            user_id=user,
            request_id=request,
            content=f"{seats} {standing}".encode(),
            reservation_id=new_id_of_show(self.show_id),
            seat_nos=asked.seat_nos,
            standing=asked.standing,
            quote=quote_bytes(priced),
            total=priced.total,
        )

    @rule(data=st.data(), user=WHOEVER, seats=SOME_SEATS.filter(len), due=st.booleans())
    def buy(self, data: st.DataObject, user: UUID, seats: tuple[int, ...], due: bool) -> None:
        """A hold and its booking at once, so that more of them are there."""
        before = len(self.model.holds)
        self.hold(data, [(user, seats, 0)], due=False)
        if len(self.model.holds) > before:
            self._book(data, list(self.model.holds)[-1], user, due=due)

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), user=WHOEVER)
    def release(self, data: st.DataObject, user: UUID) -> None:
        hold = data.draw(st.sampled_from(list(self.model.holds)))
        outcome, change = self.house.do(self.desk.holds.release(hold, user))
        assert outcome == self.model.release(hold, user)
        assert (change is not None) == (outcome == "RELEASED")

    @rule()
    def sweep(self) -> None:
        ours = [each for each in self.house.do(self.desk.holds.expire_due()) if each.change.show_id == self.show_id]
        freed = self.model.sweep()
        assert [set(each.change.change.freed) for each in ours] == ([] if freed is None else [freed])

    # --- bookings -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), user=st.none() | WHOEVER, due=st.booleans())
    def book(self, data: st.DataObject, user: UUID | None, due: bool) -> None:
        hold = data.draw(st.sampled_from(list(self.model.holds)))
        self._book(data, hold, user or self.model.holds[hold].user, due=due)

    def _book(self, data: st.DataObject, hold: UUID, user: UUID, *, due: bool) -> None:
        wish = booking_v1.CreateBookingRequest(request_id=str(self._request(data, user)), reservation_id=str(hold))
        outcome, booking = self._ask(usecases.create_booking(wish, UserId(str(user)), desk=self.house.desks[due]))
        new = UUID(booking.booking_id) if booking else UUID(int=0)
        expected = self.model.book(new, hold, user, UUID(wish.request_id), due=due)
        assert outcome == ("OK" if expected == "REPLAY" else expected), (outcome, expected)
        if expected == "REPLAY":
            assert self.model.requests[user, UUID(wish.request_id)][2] == new

    @precondition(lambda self: self.model.sales)
    @rule(
        data=st.data(),
        captures=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=3),
    )
    def money_comes(self, data: st.DataObject, captures: list[tuple[int, int]]) -> None:
        """A batch of captures, some of them seen before, some of a wrong amount."""
        # The eldest first: their ids are another time's others, and a run must be the same when it is made again.
        sales = list(self.model.sales)
        chosen = sorted(data.draw(st.lists(st.integers(0, len(sales) - 1), min_size=1, max_size=3)))
        events, expected = [], 0
        before = self.model.refunds
        for sale, (number, wrong) in zip((sales[each] for each in chosen), captures, strict=False):
            capture = f"{sale}/{number}"
            amount = self._total(sale) + (wrong == 0)
            completed = payment_v1.PaymentCompleted(
                payment_id=str(sale), booking_id=str(sale), capture_id=capture, amount=money(amount, "INR")
            )
            events.append(_event("payment.completed", str(sale), completed))
            self.model.confirm(sale, capture, right_amount=wrong != 0)
        expected = self.model.refunds - before
        asked = self.house.do(self._take(events))
        assert asked == expected, f"{asked} refunds were asked for, {expected} are right"

    async def _take(self, events: list[ReceivedEvent]) -> int:
        """Handle captures; how many refunds that asks for."""
        async with self.desk.bookings.transaction() as connection:
            count = "SELECT count(*) FROM outbox WHERE aggregatetype = 'payment.refund_requested'"
            before = await (await connection.execute(count)).fetchone()
            await confirm(connection, events, desk=self.desk)
            after = await (await connection.execute(count)).fetchone()
        assert before is not None
        assert after is not None
        return int(after[0]) - int(before[0])

    def _total(self, sale: UUID) -> int:
        seats = [seat for seat in self.model.sales[sale].seats if seat < SEATS]
        places = len(self.model.sales[sale].seats) - len(seats)
        asked = read_wish(self.show.layout, [LABELS[seat] for seat in seats], [(FLOOR, places)] if places else [])
        return quote(asked.places, self.show.prices, "INR", self.desk.rates).total

    @precondition(lambda self: self.model.sales)
    @rule(data=st.data(), user=st.none() | WHOEVER)
    def cancel(self, data: st.DataObject, user: UUID | None) -> None:
        sale = data.draw(st.sampled_from(list(self.model.sales)))
        user = user or self.model.sales[sale].user
        wish = booking_v1.CancelBookingRequest(request_id=str(self._request(data, user)), booking_id=str(sale))
        outcome, booking = self._ask(usecases.cancel_booking(wish, UserId(str(user)), desk=self.desk))
        refund = owner_refund(quote_items(booking.quote), 50) if booking else 0  # two days before: 50 %
        expected = self.model.cancel(sale, user, UUID(wish.request_id), refund)
        assert outcome == ("OK" if expected == "REPLAY" else expected), (outcome, expected)

    @rule(data=st.data(), block=SOME_SEATS, unblock=SOME_SEATS, admin=WHOEVER)
    def keep_back(self, data: st.DataObject, block: tuple[int, ...], unblock: tuple[int, ...], admin: UUID) -> None:
        unblock = tuple(seat for seat in unblock if seat not in block)
        if not block and not unblock:
            return
        wish = booking_v1.BlockSeatsRequest(
            request_id=str(self._request(data, admin)),
            show_id=str(self.show_id),
            block=[LABELS[seat] for seat in block],
            unblock=[LABELS[seat] for seat in unblock],
        )
        outcome, version = self._ask(usecases.block_seats(wish, UserId(str(admin)), desk=self.desk))
        expected = self.model.block(admin, UUID(wish.request_id), block, unblock)
        assert outcome == ("OK" if expected == "REPLAY" else expected), (outcome, expected)
        if version is not None:
            assert version == self.model.requests[admin, UUID(wish.request_id)][2]

    def _ask(self, work: Coroutine[Any, Any, Result]) -> tuple[str, Result | None]:
        """OK and the answer, or the refusal's reason."""
        try:
            return "OK", self.house.do(work)
        except Refusal as refusal:
            return edge_v1.ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_"), None

    # --- what is stored -----------------------------------------------------------------------------------------------

    @invariant()
    def the_claims_are_the_models(self) -> None:
        if not hasattr(self, "show_id"):
            return
        rows = self._rows(
            """
            SELECT v.version, v.taken, c.seat_no, c.status, c.reservation_id, c.fence
            FROM show_versions v
            LEFT JOIN seat_claims c ON c.show_id = v.show_id
            WHERE v.show_id = %s
            """
        )
        claims = {row[2]: (SeatState(row[3]), row[4], row[5]) for row in rows if row[2] is not None}
        assert rows[0][:2] == (self.model.version, len(self.model.claims))
        assert claims == self.model.claims

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        async def ask() -> list[tuple[Any, ...]]:
            async with self.house.pool.connection() as connection:
                return await (await connection.execute(query.encode(), (self.show_id,))).fetchall()

        return self.house.do(ask())

    def teardown(self) -> None:
        """Reservations, bookings, log and events are the model's, too; then nothing is left for other runs' sweeps."""
        if not hasattr(self, "show_id"):
            return
        holds = self._rows("SELECT reservation_id, status, holding, booking_id FROM reservations WHERE show_id = %s")
        assert {row[0]: row[1:] for row in holds} == {
            key: (int(hold.status), hold.holding, hold.booking) for key, hold in self.model.holds.items()
        }
        sales = self._rows("SELECT booking_id, status, version, refund FROM bookings WHERE show_id = %s")
        assert {row[0]: row[1:] for row in sales} == {
            key: (int(sale.status), sale.version, sale.refund) for key, sale in self.model.sales.items()
        }
        log = self._rows("SELECT freed, held, booked, blocked FROM show_log WHERE show_id = %s ORDER BY version")
        assert len(log) == self.model.version
        states: dict[int, int] = {}
        for row in log:
            for state, seats in zip((None, 2, 3, 4), row, strict=True):
                states.update(dict.fromkeys(seats, state))
        assert {seat: state for seat, state in states.items() if state} == {
            seat: int(claim[0]) for seat, claim in self.model.claims.items()
        }
        expired = self._rows(
            """
            SELECT count(*)
            FROM outbox o
            JOIN bookings b ON o.aggregateid = b.booking_id::text
            WHERE b.show_id = %s
              AND o.aggregatetype = 'booking.expired'
            """
        )
        assert expired == [(self.model.expired,)]
        self.sweep()
        Seats.reached += self.model.reached


@contextmanager
def open_seats(database_url: str) -> Iterator[House]:
    """Let `Seats` run on a migrated database of booking's."""
    nowhere = Path("/nonexistent")

    def settings(lasts_s: float) -> BookingSettings:
        return BookingSettings(
            database_url=SecretStr(database_url),
            catalog_address="127.0.0.1:9",
            user_jwks_file=nowhere,
            service_jwks_file=nowhere,
            service_token_file=nowhere,
            hold_seconds=lasts_s,
            payment_window_seconds=lasts_s,
            most_active_holds=MOST_ACTIVE,
            most_holds_an_hour=MOST_AN_HOUR,
            batch_gather_seconds=0.0,
        )

    async def open_house(stack: AsyncExitStack, runner: asyncio.Runner) -> House:
        pool = await stack.enter_async_context(open_pool(database_url, size=2, name="machine"))
        desks = {due: await open_desk(settings(OVER_S if due else LONG_S), stack) for due in (False, True)}
        layout = new_layout(1, SEATS, standing=len(PLACES))
        async with pool.connection() as connection:
            await connection.execute(
                "INSERT INTO layouts (layout_id, layout) VALUES (%s, %s)",
                (layout.layout_id, layout.SerializeToString()),
            )
        return House(runner, pool, desks, layout)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()
        Seats.house = runner.run(open_house(stack, runner))
        try:
            yield Seats.house
        finally:
            runner.run(stack.aclose())
