"""Money: ``google.type.Money`` outside, whole minor units (paise) and a currency inside."""

from __future__ import annotations

from dataclasses import dataclass

from google.type import money_pb2

from services.kit.errors import InvalidArgument

MINOR_UNITS = 100
"""Of every currency that we sell in so far. One with another exponent must bring its own table."""
NANOS_A_MINOR_UNIT = 1_000_000_000 // MINOR_UNITS
CURRENCIES = frozenset({"INR"})


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """``minor`` hundredths of ``currency`` (ISO 4217)."""

    minor: int
    currency: str = "INR"

    def __add__(self, other: Money) -> Money:
        if other.currency != self.currency:
            raise ValueError(f"cannot add {other.currency} to {self.currency}")
        return Money(self.minor + other.minor, self.currency)


def to_proto(amount: Money) -> money_pb2.Money:
    units, minor = divmod(abs(amount.minor), MINOR_UNITS)
    sign = -1 if amount.minor < 0 else 1
    return money_pb2.Money(currency_code=amount.currency, units=sign * units, nanos=sign * minor * NANOS_A_MINOR_UNIT)


def from_proto(money: money_pb2.Money, field: str) -> Money:
    """Read an amount that a caller sent.

    Raises:
        InvalidArgument: names ``field``: unknown currency, negative, too large, or finer than a minor unit.
    """
    if money.currency_code not in CURRENCIES:
        raise InvalidArgument.of(f"{field}.currency_code", f"must be one of {', '.join(sorted(CURRENCIES))}")
    if money.units < 0:
        raise InvalidArgument.of(f"{field}.units", "must not be negative")
    if money.units > 10_000_000:
        raise InvalidArgument.of(f"{field}.units", "must not be more than 10000000")
    if money.nanos % NANOS_A_MINOR_UNIT or not 0 <= money.nanos < 1_000_000_000:
        raise InvalidArgument.of(f"{field}.nanos", f"must be a multiple of {NANOS_A_MINOR_UNIT} from 0 to 999999999")
    return Money(money.units * MINOR_UNITS + money.nanos // NANOS_A_MINOR_UNIT, money.currency_code)
