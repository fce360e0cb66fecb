"""Nonsense for every field of a message, from its descriptor alone: as JSON, and as protobuf's own values.

A `Place` is one field of a request, however deep. JSON can say things that protobuf cannot (a word where a number
belongs), and protobuf things that JSON cannot (the timestamp of the year 300 million).
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from e2e_protocols import Json
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

DEEPEST = 5
WRITTEN_AS_TEXT = frozenset({"google.protobuf.Timestamp", "google.protobuf.FieldMask", "google.protobuf.Duration"})
"""Messages that JSON writes as a string."""
PASSED_AS_IS = "@@raw:"
"""Begins a string whose rest goes into the JSON text unquoted."""

TEXTS: dict[str, str] = {
    "nothing": "",
    "blank": " \t ",
    "NUL": "a\0b",
    "control characters": "a\x01\x07\x1b[31m\x7fb",
    "newlines": "a\r\nx-injected: 1\r\n\r\nb",
    "emoji": "👩‍👩‍👧‍👦🎬" * 3,
    "right to left": "\u202eمرحبا\u202c\u200f",
    "combining": "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘",
    "SQL": "' OR 1=1; DROP TABLE shows; --",
    "LIKE": "%_%\\%",
    "template": "${jndi:ldap://x}{{7*7}}%s%n%x",
    "markup": "<script>alert(1)</script>&amp;\"'",
    "path": "../../../../etc/passwd",
    "long": "x" * 5_000,
    "very long": "é" * 15_000,
    "longer than headers may be": "x" * 40_000,
    "bad UUID": "0b0e7a52-6f2a-4c8e-9d4e-0c5f4c1b2a3",
    "UUID in braces": "{0b0e7a52-6f2a-4c8e-9d4e-0c5f4c1b2a3d}",
    "UUID of zeros": "00000000-0000-0000-0000-000000000000",
    "UUID of ones": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "UUID of nothing": "0b0e7a52-6f2a-4c8e-9d4e-0c5f4c1b2a3d",
    "card number": "4111 1111 1111 1111",
    "number": "-1",
    "word null": "null",
    "day that is none": "2026-02-31",
    "year 0": "0000-01-01",
    "year 9999": "9999-12-31",
    "base64": "AAAA" * 8,
}
NUMBERS: dict[int, tuple[int, ...]] = {
    FieldDescriptor.CPPTYPE_INT32: (-1, 0, 13, -(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 101, 2**31, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-1, 0, 253_402_300_800, -62_135_596_801, -(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
REALS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -0.0, 1e30, 181.0)
ENUMS = (-1, 0, 3, 99, 2**31 - 1, -(2**31))
WRONG_TYPES: dict[str, Any] = {
    "null": None,
    "a word": "wrörd",
    "a number": 17,
    "a negative number": -1,
    "a fraction": 3.5,
    "too large a number": 2**64,
    "a huge number": PASSED_AS_IS + "1e400",
    "NaN": PASSED_AS_IS + "NaN",
    "Infinity": PASSED_AS_IS + "-Infinity",
    "the word NaN": "NaN",
    "true": True,
    "an empty list": [],
    "a list of null": [None],
    "an empty object": {},
    "an object": {"no": {"such": ["field"]}},
    "a deep list": PASSED_AS_IS + "[" * 200 + "]" * 200,
    "a deep object": PASSED_AS_IS + '{"a":' * 200 + "1" + "}" * 200,
    "half a surrogate": PASSED_AS_IS + '"\\ud800"',
    "a bad escape": PASSED_AS_IS + '"\\x41"',
}
TIMES = (
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "10000-01-01T00:00:00Z",
    "2026-02-31T00:00:00Z",
    "2026-11-22T24:61:61Z",
    "2026-11-22",
    "2026-11-22T10:00:00",
    "2026-11-22T10:00:00+99:99",
    "1969-12-31T23:59:59Z",
    "2199-12-31T00:00:00Z",
    "yesterday",
)
MASKS = ("", "*", "*,*", "no_such", "a.b.c.d", "version", "__class__", "title,title", ",,,", "Title", "title " * 50)
NAMES_OF_ENUMS = ("", "NO_SUCH_NAME", "0", "99", "-1", "lower_case")


@dataclass(frozen=True)
class Place:
    """A field, as the way to it from the request. ``within`` means the first element of a repeated one."""

    way: tuple[FieldDescriptor, ...]
    within: bool = False

    @property
    def field(self) -> FieldDescriptor:
        return self.way[-1]

    @property
    def name(self) -> str:
        """``show.prices[0].price.units``"""
        parts = [each.name + ("[0]" if each.is_repeated else "") for each in self.way[:-1]]
        return ".".join([*parts, self.field.name + ("[0]" if self.within else "")])

    @property
    def whole_list(self) -> bool:
        return self.field.is_repeated and not self.within


def places(descriptor: Descriptor, way: tuple[FieldDescriptor, ...] = ()) -> Iterator[Place]:
    """Every field of a request, those of the messages in it too."""
    for field in descriptor.fields:
        yield Place((*way, field))
        if field.is_repeated:
            yield Place((*way, field), within=True)
        if field.message_type is not None and len(way) < DEEPEST:
            yield from places(field.message_type, (*way, field))


# --- as JSON ----------------------------------------------------------------------------------------------------------


def json_nonsense(place: Place) -> Iterator[tuple[str, Any]]:
    """What to write there, each with a name for it."""
    if any(each.message_type and each.message_type.full_name in WRITTEN_AS_TEXT for each in place.way[:-1]):
        return
    yield from WRONG_TYPES.items()
    field = place.field
    if place.whole_list:
        return
    if field.message_type is not None:
        texts = {"google.protobuf.Timestamp": TIMES, "google.protobuf.FieldMask": MASKS}
        yield from ((each or "nothing", each) for each in texts.get(field.message_type.full_name, ()))
    elif field.enum_type is not None:
        yield from ((f"enum {each!r}", each) for each in (*NAMES_OF_ENUMS, *ENUMS))
    elif field.type == FieldDescriptor.TYPE_BYTES:
        yield from (("not base64", "*!*"), ("half base64", "AAA"))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield from TEXTS.items()
        yield "huge", "x" * 70_000
    elif field.cpp_type in NUMBERS:
        yield from ((str(each), each) for each in NUMBERS[field.cpp_type])
        yield from (("in quotes", "12abc"), ("2**40", 2**40), ("spaced", " 1 "), ("hex", "0x10"))


def put_json(request: Json, place: Place, value: Any) -> Json:
    """``request`` with ``value`` there."""
    changed = copy.deepcopy(request)
    target: Any = changed
    for field in place.way[:-1]:
        if field.is_repeated:
            if not target.get(field.json_name):
                target[field.json_name] = [{}]
            target = target[field.json_name][0]
        else:
            target = target.setdefault(field.json_name, {})
    name = place.field.json_name
    if place.within:
        target[name] = [value, *target.get(name, [])[1:]]
    else:
        target[name] = value
    return changed


def written(request: Any) -> bytes:
    """JSON, with what cannot be written in JSON."""
    text = json.dumps(request)
    while (start := text.find('"' + PASSED_AS_IS)) >= 0:
        raw, end = json.JSONDecoder().raw_decode(text, start)
        text = text[:start] + raw.removeprefix(PASSED_AS_IS) + text[end:]
    return text.encode()


# --- as protobuf ------------------------------------------------------------------------------------------------------


def wire_nonsense(place: Place) -> Iterator[tuple[str, Any]]:
    """Values that the field's type has room for, each with a name for it."""
    field = place.field
    if place.whole_list:
        yield from (("no items", 0), ("the same item thrice", 3), ("very many items", 2_500))
    elif field.message_type is not None:
        yield from (("left out", None), ("an empty message", {}))
    elif field.enum_type is not None:
        yield from ((f"enum {each}", each) for each in ENUMS)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        yield from (("bytes", b"\xff\x00\xfe" * 40), ("no bytes", b""))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield from TEXTS.items()
        yield "not UTF-8", NOT_UTF8
        yield "huge", "x" * 70_000
    elif field.cpp_type in NUMBERS:
        yield from ((str(each), each) for each in NUMBERS[field.cpp_type])
    elif field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        yield from ((str(each), each) for each in REALS)


NOT_UTF8 = "(these bytes are exchanged)"


def put_wire(request: Message, place: Place, value: Any) -> bytes:
    """The wire form of ``request`` with ``value`` there."""
    changed = type(request)()
    changed.CopyFrom(request)
    target: Any = changed
    for field in place.way[:-1]:
        target = getattr(target, field.name)
        if field.is_repeated:
            target = target[0] if target else target.add()
    name, field = place.field.name, place.field
    if place.whole_list:
        _set_length(getattr(target, name), field, value)
    elif place.within and field.message_type is None:
        items = getattr(target, name)
        items[:] = [value, *items[1:]]
    elif field.message_type is not None:
        _set_message(target, place, value)
    else:
        setattr(target, name, value)
    wire: bytes = changed.SerializeToString()
    return wire.replace(NOT_UTF8.encode(), b"\xff\xfe\xc0\x80" + b"\x80" * (len(NOT_UTF8) - 4))


def _set_length(items: Any, field: FieldDescriptor, length: int) -> None:
    if field.message_type is not None:
        first = items[0] if items else items.add()
        kept = type(first)()
        kept.CopyFrom(first)
        del items[:]
        items.extend([kept] * length)
    else:
        empty: Any = "A1" if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else 1
        items[:] = [items[0] if items else empty] * length


def _set_message(target: Any, place: Place, value: Any) -> None:
    name = place.field.name
    if place.within:
        items = getattr(target, name)
        first = items[0] if items else items.add()
        first.Clear()
        return
    target.ClearField(name)
    if value is not None:
        getattr(target, name).SetInParent()


# --- whole requests ---------------------------------------------------------------------------------------------------


def broken_bodies(chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Bodies that are no JSON object at all."""
    yield from {
        "no body": b"",
        "a brace": b"{",
        "half a string": b'{"a": "',
        "a list": b"[]",
        "a word": b'"word"',
        "a number": b"17",
        "null": b"null",
        "no JSON": b"requestId=1&showId=2",
        "single quotes": b"{'a': 1}",
        "a trailing comma": b'{"requestId": "x",}',
        "two values": b"{}{}",
        "a name twice": b'{"requestId": "a", "requestId": "b"}',
        "an unknown field": b'{"noSuchField": 1, "__proto__": {"a": 1}}',
        "a byte order mark": b"\xef\xbb\xbf{}",
        "UTF-16": "{}".encode("utf-16"),
        "bytes that are not UTF-8": b'{"requestId": "\xff\xfe"}',
        "deep lists": b"[" * 20_000,
        "deep objects": b'{"a":' * 10_000,
        "a huge body": b'{"requestId": "' + b"x" * 3_000_000 + b'"}',
        "random bytes": chance.randbytes(300),
    }.items()


def broken_messages(chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Bytes that are no message."""
    yield from {
        "a varint without end": b"\x08" + b"\xff" * 20,
        "a length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
        "half a field": b"\x0a\x05ab",
        "field number 0": b"\x02\x01a",
        "wire type 7": b"\x0f\x01",
        "an endless group": b"\x0b" * 500,
        "the wrong wire type": b"\x08\x01\x10\x01\x18\x01\x20\x01\x28\x01",
        "an unknown field": b"\xfa\x3e\x03abc",
        "deep messages": b"\x12\x80\x01" * 200,
        "a huge message": b"\x0a\x80\x80\xc0\x01" + b"x" * (3 << 20),
    }.items()
    for number in range(4):
        yield f"random bytes {number}", chance.randbytes(chance.randrange(1, 200))
