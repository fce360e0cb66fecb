"""Every field that a client can send has a rule, or a reason why it needs none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from buf.validate import validate_pb2
from contract_files import CONTRACTS, MESSAGES
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

Type = FieldDescriptorProto

GOOGLE_TYPES = {
    "google.api.HttpBody": "raw bytes; bounded by max_request_bytes, judged by their signature",
    "google.protobuf.FieldMask": "the service refuses paths that it does not know",
    "google.protobuf.Timestamp": "bounded by its own type; the rules that need a clock are in the domain",
    "google.type.Date": "read into a calendar date by the service, which refuses impossible ones",
    "google.type.LatLng": "read by the service, which refuses what is not on Earth",
    "google.type.Money": "read into minor units by the service, which refuses other currencies and fractions of them",
}

ANY_VALUE_IS_MEANINGFUL = {
    "marquee.booking.v1.WatchSeatsRequest.after_version": "any version may be the viewer's last one",
    "marquee.catalog.v1.UpdateScreenRequest.version": "compared with the stored one",
    "marquee.catalog.v1.UpdateShowRequest.version": "compared with the stored one",
    "marquee.catalog.v1.Event.version": "compared with the stored one",
    "marquee.catalog.v1.Movie.version": "compared with the stored one",
    "marquee.catalog.v1.Venue.version": "compared with the stored one",
    "marquee.catalog.v1.Event.event_id": "ignored at creation; at an update it comes from the path and is looked up",
    "marquee.catalog.v1.Movie.movie_id": "ignored at creation; at an update it comes from the path and is looked up",
    "marquee.catalog.v1.Venue.venue_id": "ignored at creation; at an update it comes from the path and is looked up",
    "marquee.catalog.v1.Event.organizer_id": "read as a UUID by the service",
    "marquee.catalog.v1.Venue.organizer_id": "read as a UUID by the service",
    "marquee.catalog.v1.Movie.votes": "a count; only its type bounds it",
}


def _input_fields() -> Iterator[tuple[str, FieldDescriptorProto]]:
    """Every field of every request, and of the messages of ours in them."""
    waiting, seen = [rpc.request for rpc in CONTRACTS.rpcs], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in MESSAGES:
            continue
        seen.add(name)
        for field in MESSAGES[name].field:
            yield f"{name}.{field.name}", field
            if field.type == Type.TYPE_MESSAGE and not _is_forbidden(field):
                waiting.append(field.type_name.removeprefix("."))


def _rules(field: FieldDescriptorProto) -> validate_pb2.FieldRules | None:
    if not field.options.HasExtension(validate_pb2.field):
        return None
    rules: validate_pb2.FieldRules = field.options.Extensions[validate_pb2.field]
    return rules


def _is_forbidden(field: FieldDescriptorProto) -> bool:
    """A list that must be empty: what would stand in it is never read."""
    rules = _rules(field)
    return rules is not None and rules.repeated.HasField("max_items") and rules.repeated.max_items == 0


INPUT_FIELDS = sorted(_input_fields())


@pytest.mark.parametrize(("name", "field"), INPUT_FIELDS, ids=[name for name, _ in INPUT_FIELDS])
def test_every_input_field_has_a_rule(name: str, field: FieldDescriptorProto) -> None:
    if _rules(field) is not None or name in ANY_VALUE_IS_MEANINGFUL or field.type == Type.TYPE_BOOL:
        return
    if field.type == Type.TYPE_MESSAGE and field.label != Type.LABEL_REPEATED:
        type_name = field.type_name.removeprefix(".")
        assert type_name in MESSAGES or type_name in GOOGLE_TYPES, f"{name}: {type_name} has no rules"
        return
    pytest.fail(f"{name} takes anything: give it a (buf.validate.field) rule")


@pytest.mark.parametrize(("name", "field"), INPUT_FIELDS, ids=[name for name, _ in INPUT_FIELDS])
def test_every_list_and_text_is_bounded(name: str, field: FieldDescriptorProto) -> None:
    rules = _rules(field)
    if field.label == Type.LABEL_REPEATED:
        assert rules is not None
        assert rules.repeated.HasField("max_items"), f"{name}: say how many at most"
    elif field.type == Type.TYPE_STRING and name not in ANY_VALUE_IS_MEANINGFUL:
        assert rules is not None
        text = rules.string
        assert text.max_len or text.uuid or text.pattern or text.const, f"{name}: say how long at most"


def test_no_exemption_is_stale() -> None:
    names = {name for name, field in INPUT_FIELDS if _rules(field) is None}
    assert set(ANY_VALUE_IS_MEANINGFUL) <= names


def test_every_path_field_is_a_checked_id() -> None:
    fields = dict(INPUT_FIELDS)
    for rpc in CONTRACTS.edge_rpcs:
        for rule in rpc.http_rules:
            for path in rule.path_fields:
                if "." in path:
                    continue  # an admin's resource: see the exemptions above
                rules = _rules(fields[f"{rpc.request}.{path}"])
                assert rules is not None, f"{rpc.name}: {path}"
                assert rules.string.uuid or rules.string.pattern, f"{rpc.name}: {path}"
