"""Bad input, named: the rules stand in the contracts (protovalidate), two that hold everywhere stand here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf import descriptor
from google.protobuf.message import Message
from protovalidate import Validator

from services.kit.errors import CardDataRefused, InvalidArgument, Violation

_validator = Validator()
MAX_VIOLATIONS = 20

DIGIT_GROUPS = re.compile(rb"(?<![0-9A-Za-z+-])[0-9](?:[ -]?[0-9]){12,60}(?![0-9A-Za-z-])")
"""13 digits or more, in groups or not. A phone number's ``+`` tells it apart."""
CARD_DIGITS = range(13, 20)
UUID_SHAPED = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
DIGITS_ALIKE = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
THIRTEEN_DIGITS = b"0" * CARD_DIGITS.start


def validate(request: Message, raw: bytes) -> None:
    """Check ``request``, whose wire form is ``raw``.

    Raises:
        InvalidArgument: fields break their rules, or a text has a NUL character (PostgreSQL has no place for one).
        CardDataRefused: a text looks like a card number.
    """
    found = _validator.collect_violations(request)
    if found:
        violations = [_named(each.proto) for each in found[:MAX_VIOLATIONS]]
        first = violations[0]
        raise InvalidArgument(f"{first.field}: {first.description}", violations=violations)
    # Both searches are over the wire form first, because nearly every request passes it at once.
    if b"\x00" in raw:
        for path, text in texts(request):
            if "\x00" in text:
                raise InvalidArgument.of(path, "must not contain a NUL character")
    if THIRTEEN_DIGITS in raw.translate(DIGITS_ALIKE, b" -"):
        for path, text in texts(request):
            if looks_like_card(text):
                raise CardDataRefused(path)


def _named(violation: object) -> Violation:
    field = getattr(violation, "field", None)
    path = ""
    for element in getattr(field, "elements", None) or ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None and subscript.value is not None:
            path += f"[{subscript.value}]"
    message = getattr(violation, "message", "") or getattr(violation, "rule_id", "") or "is not valid"
    return Violation(path or "request", message)


def looks_like_card(text: str) -> bool:
    """Whether some groups of digits in ``text`` that stand together are 13 to 19 digits and satisfy the Luhn check."""
    if UUID_SHAPED.fullmatch(text):
        return False
    return any(_has_card(match.group()) for match in DIGIT_GROUPS.finditer(text.encode(errors="replace")))


def _has_card(run: bytes) -> bool:
    """Something else, also digits, may stand before the number or behind it."""
    groups = re.split(rb"[ -]", run)
    return any(
        len(digits) in CARD_DIGITS and _luhn(digits)
        for first in range(len(groups))
        for last in range(first, len(groups))
        for digits in (b"".join(groups[first : last + 1]),)
    )


def _luhn(digits: bytes) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = digit - ord("0")
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def texts(message: Message, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every text in ``message`` with its path."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if field.type == descriptor.FieldDescriptor.TYPE_STRING:
            if isinstance(value, str):
                yield path, value
            else:
                for index, text in enumerate(value):
                    yield f"{path}[{index}]", text
        elif field.type == descriptor.FieldDescriptor.TYPE_MESSAGE:
            if isinstance(value, Message):
                yield from texts(value, f"{path}.")
            else:
                for index, each in enumerate(value):
                    yield from texts(each, f"{path}[{index}].")
