"""The pure rules of booking as a state machine: wishes, quotes, and what goes back to those who cancel."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.booking.domain import (
    MOST_SEATS_A_HOLD,
    Layout,
    Quote,
    Rates,
    Seat,
    StandingArea,
    UnknownSeat,
    owner_refund,
    quote,
    read_wish,
    refund_percent,
)
from services.kit.errors import InvalidArgument

START = datetime(2030, 1, 1, 20, tzinfo=UTC)
CATEGORIES = ("REGULAR", "RECLINER")
PERCENT = st.integers(0, 10_000)


def half_up(value: Fraction) -> int:
    return int(value + Fraction(1, 2))


class Till(RuleBasedStateMachine):
    """Sells and takes back; the model counts in exact fractions."""

    @initialize(
        seats=st.integers(1, 12),
        floor=st.integers(1, 20),
        prices=st.tuples(st.integers(0, 2_000_000), st.integers(0, 2_000_000)),
        rates=st.builds(Rates, PERCENT, st.integers(0, 10_000), st.integers(0, 20_000), PERCENT, PERCENT, PERCENT),
        tiers=st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 100)), max_size=4),
    )
    def open(self, seats: int, floor: int, prices: tuple[int, int], rates: Rates, tiers: list[tuple[int, int]]) -> None:
        self.layout = Layout.of(
            UUID(int=1),
            [Seat(n, f"A{n + 1}", "A", n + 1, CATEGORIES[n % 2], float(n), 0.0, False) for n in range(seats)],
            [StandingArea("Floor", CATEGORIES[0], seats, floor)],
        )
        self.prices = dict(zip(CATEGORIES, prices, strict=True))
        self.rates, self.tiers = rates, tiers
        self.sold: list[Quote] = []
        self.taken = self.back = 0
        self.refunds: list[tuple[Quote, int, int]] = []

    @rule(data=st.data(), places=st.integers(0, 12), standing=st.integers(0, 11), shuffled=st.randoms())
    def wish(self, data: st.DataObject, places: int, standing: int, shuffled: object) -> None:
        labels = data.draw(st.permutations([seat.label for seat in self.layout.seats]))[:places]
        areas = [("Floor", standing)] if standing else []
        if len(labels) + standing > MOST_SEATS_A_HOLD:
            self._refused(labels, areas, InvalidArgument, "seats")
            return
        read = read_wish(self.layout, labels, areas)
        assert [self.layout.label_of(n) for n in read.seat_nos] == sorted(labels, key=lambda name: int(name[1:]))
        assert len(read.places) == len(labels) + standing
        priced = quote(read.places, self.prices, "INR", self.rates)
        assert priced == quote(read_wish(self.layout, sorted(labels), areas).places, self.prices, "INR", self.rates)
        for item, place in zip(priced.items, read.places, strict=True):
            price = self.prices[place.category]
            fee = min(half_up(Fraction(price * self.rates.fee, 10_000)), self.rates.most_fee)
            gst = self.rates.gst_high if price > self.rates.gst_threshold else self.rates.gst_low
            tax = (half_up(Fraction(price * gst, 10_000)), half_up(Fraction(fee * self.rates.gst_fee, 10_000)))
            assert (item.price, item.fee, item.price_tax, item.fee_tax) == (price, fee, *tax)
        self.sold.append(priced)
        self.taken += priced.total

    @rule(data=st.data(), wrong=st.sampled_from(["seat", "area", "twice"]))
    def nonsense(self, data: st.DataObject, wrong: str) -> None:
        labels = data.draw(st.permutations([seat.label for seat in self.layout.seats]))[:3]
        if wrong == "seat":
            self._refused([*labels, "Z99"], [], UnknownSeat, f"seats[{len(labels)}]")
        elif wrong == "area":
            self._refused(labels, [("Roof", 1)], UnknownSeat, "standing[0].area")
        else:
            self._refused(labels, [("Floor", 1), ("Floor", 2)], InvalidArgument, "standing[1].area")

    def _refused(self, labels: list[str], areas: list[tuple[str, int]], why: type[InvalidArgument], field: str) -> None:
        try:
            read_wish(self.layout, labels, areas)
        except InvalidArgument as refusal:
            assert type(refusal) is why
            assert [violation.field for violation in refusal.violations] == [field]
        else:
            raise AssertionError(f"{labels} {areas} passed")

    @precondition(lambda self: self.sold)
    @rule(data=st.data(), minutes=st.integers(0, 6_000))
    def cancel(self, data: st.DataObject, minutes: int) -> None:
        ticket = self.sold.pop(data.draw(st.integers(0, len(self.sold) - 1)))
        percent = refund_percent(self.tiers, START, START - timedelta(minutes=minutes))
        assert percent == max([share for before, share in self.tiers if minutes >= before], default=0)
        assert percent >= refund_percent(self.tiers, START, START - timedelta(minutes=minutes - 1)), "later gives more"
        refund = owner_refund(ticket.items, percent)
        assert refund == sum(half_up(Fraction((item.price + item.price_tax) * percent, 100)) for item in ticket.items)
        self.back += refund
        self.refunds.append((ticket, percent, refund))

    @invariant()
    def the_till_is_right(self) -> None:
        """Sums are exact; nobody gets more back than price and tax, and never a fee."""
        if not hasattr(self, "sold"):
            return
        for ticket in self.sold:
            assert ticket.total == ticket.subtotal + ticket.fees + ticket.taxes
        for ticket, percent, refund in self.refunds:
            most = sum(item.price + item.price_tax for item in ticket.items)
            assert 0 <= refund <= most
            assert (refund == most) if percent == 100 else True
        assert self.back <= self.taken
