"""Bad input is named."""

from __future__ import annotations

import uuid

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from marquee.user import v1 as user_v1
from services.kit.errors import CardDataRefused, InvalidArgument
from services.kit.validation import looks_like_card, validate

GOOD = user_v1.RegisterRequest(email="ana@example.org", name="Ana", password="correct horse")


def check(request: Message) -> None:
    validate(request, request.SerializeToString())


def fields_of(request: Message) -> list[str]:
    with pytest.raises(InvalidArgument) as refusal:
        check(request)
    return [each.field for each in refusal.value.violations]


def test_good_input_passes() -> None:
    check(GOOD)


def test_every_wrong_field_is_named() -> None:
    assert sorted(set(fields_of(user_v1.RegisterRequest(email="x", phone="1")))) == [
        "email",
        "name",
        "password",
        "phone",
    ]


def test_an_item_is_named_with_its_place() -> None:
    assert fields_of(user_v1.UpdatePreferencesRequest(genres=["Drama", "<b>"])) == ["genres[1]"]


def test_a_nul_character_is_named_wherever_no_rule_forbids_it() -> None:
    request = user_v1.RegisterRequest()
    request.CopyFrom(GOOD)
    request.password = "correct\x00horse"
    assert fields_of(request) == ["password"]
    user = user_v1.User(roles=["a", "b\x00"], preferences=user_v1.Preferences(genres=["\x00"]))
    assert fields_of(user) == ["roles[1]"]


CARDS = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "5555-5555-5555-4444",
    "pay 378282246310005 now",
    "6011000990139424",
    "1 4111111111111111",
    "ref 4111 1111 1111 1111 12/29",
]
NO_CARDS = ["4111111111111112", "+919812345678", "123456789012", "2026-11-22 10:30:00", "A4111111111111111"]


@pytest.mark.parametrize("length", [16, 43, 50, 65, 90, 97, 100])
def test_a_card_number_is_refused_whatever_stands_beside_it_on_the_wire(length: int) -> None:
    # The byte before the text is its length: "A" for 65.
    assert looks_like_card("4111111111111111".ljust(length, "."))
    request = user_v1.RegisterRequest()
    request.CopyFrom(GOOD)
    request.name = "4111111111111111".ljust(length, ".")
    with pytest.raises(CardDataRefused):
        check(request)


@pytest.mark.parametrize("text", CARDS)
def test_a_card_number_is_refused_in_any_text(text: str) -> None:
    request = user_v1.RegisterRequest()
    request.CopyFrom(GOOD)
    request.name = text
    with pytest.raises(CardDataRefused) as refusal:
        check(request)
    assert [each.field for each in refusal.value.violations] == ["name"]
    assert text not in str(refusal.value)


@pytest.mark.parametrize("text", NO_CARDS)
def test_other_numbers_are_no_cards(text: str) -> None:
    assert not looks_like_card(text)


@given(st.integers(0, 2**128 - 1))
def test_an_id_is_never_a_card(number: int) -> None:
    assert not looks_like_card(str(uuid.UUID(int=number, version=4)))


@given(st.binary(max_size=300))
def test_whatever_decodes_passes_or_is_refused_with_its_field(raw: bytes) -> None:
    try:
        request = user_v1.RegisterRequest.FromString(raw)
    except Exception:  # not a message at all: the door's case
        return
    try:
        validate(request, raw)
    except InvalidArgument as refusal:
        assert refusal.violations
    except CardDataRefused as refusal:
        assert refusal.violations
