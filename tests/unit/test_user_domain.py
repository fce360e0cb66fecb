"""The user service's rules."""

from __future__ import annotations

import unicodedata
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import InvalidArgument
from services.user.domain import (
    FORGOTTEN_AFTER,
    FREE_ATTEMPTS,
    LONGEST_WAIT_SECONDS,
    STRANGER,
    Attempts,
    Email,
    Password,
    RefreshToken,
    Verdict,
    account_key,
    device_name,
    email_of,
    judge,
    name_of,
    new_password,
    place_of,
    refresh_token_hash,
    seconds_to_wait,
    session_id_of,
)

GRACE = timedelta(seconds=10)


def attempts(count: int, seconds: float = 0.0) -> Attempts:
    return Attempts(count, timedelta(seconds=seconds))


# --- Slowing down


def test_the_first_attempts_are_free_then_the_wait_doubles_up_to_a_minute() -> None:
    assert [seconds_to_wait(attempts(count)) for count in range(14)] == [0] * 5 + [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_time_that_passed_counts_towards_the_wait() -> None:
    assert seconds_to_wait(attempts(8, 3.0)) == 5.0
    assert seconds_to_wait(attempts(8, 8.0)) == 0.0


@given(count=st.integers(0, 2**31 - 1), seconds=st.floats(0, 10_000_000))
def test_nobody_is_ever_locked_out_for_longer_than_a_minute(count: int, seconds: float) -> None:
    wait = seconds_to_wait(attempts(count, seconds))
    assert 0 <= wait <= LONGEST_WAIT_SECONDS
    assert seconds_to_wait(attempts(count, seconds + wait + 0.001)) == 0
    if count < FREE_ATTEMPTS or seconds >= FORGOTTEN_AFTER.total_seconds():
        assert wait == 0


# --- Refresh tokens


@pytest.mark.parametrize(
    ("since_spent", "latest", "verdict"),
    [
        (None, True, Verdict.GOOD),
        (None, False, Verdict.GOOD),
        (0, True, Verdict.REPEATED),
        (10, True, Verdict.REPEATED),
        (10.001, True, Verdict.STOLEN),
        (0, False, Verdict.STOLEN),
        (1_000_000, True, Verdict.STOLEN),
    ],
)
def test_a_refresh_token_is_good_repeated_or_stolen(since_spent: float | None, latest: bool, verdict: Verdict) -> None:
    spent = None if since_spent is None else timedelta(seconds=since_spent)
    assert judge(RefreshToken(spent, latest), GRACE) is verdict


def test_without_a_grace_every_repeat_later_than_at_once_is_a_theft() -> None:
    assert judge(RefreshToken(timedelta(microseconds=1), latest=True), timedelta(0)) is Verdict.STOLEN


@given(st.text())
def test_any_text_can_be_looked_up_as_a_token(text: str) -> None:
    assert len(refresh_token_hash(text)) == 32


@given(st.text())
def test_a_session_claim_is_a_session_or_none(text: str) -> None:
    assert session_id_of(text) is None or len(str(session_id_of(text))) == 36


# --- What people type


@given(st.emails())
def test_an_address_has_one_form(email: str) -> None:
    assert email_of(email) == email_of(f" {email.upper()} ") == email_of(email_of(email))
    assert account_key(email_of(email)) == account_key(email_of(email.swapcase()))


@given(st.text(max_size=100))
def test_a_name_is_refused_by_name_or_can_be_seen(text: str) -> None:
    try:
        name = name_of(text)
    except InvalidArgument as refusal:
        assert [each.field for each in refusal.violations] == ["name"]
    else:
        assert name == name.strip() == unicodedata.normalize("NFC", name)
        assert not any(unicodedata.category(each) == "Cc" for each in name)
        assert any(not each.isspace() for each in name)


@pytest.mark.parametrize("name", ["Ana", "José", "नेहा", "क्‍ष", "李", "O'Neil-Ng 3rd", "🎬", "محمد"])
def test_real_names_pass(name: str) -> None:
    assert name_of(name) == unicodedata.normalize("NFC", name)


@given(st.text(max_size=128))
def test_a_password_is_refused_by_name_or_within_its_bounds(text: str) -> None:
    try:
        password = new_password(text, Email("ana@example.org"))
    except InvalidArgument as refusal:
        assert [each.field for each in refusal.violations] == ["password"]
    else:
        assert 10 <= len(password.secret) <= 1024
        assert Password.typed(unicodedata.normalize("NFD", text)) == password


@pytest.mark.parametrize(
    "text", ["", "short", "x" * 9, "ab\u0301" * 0 + "a\u0301" * 9, " " * 20, "\u200b" * 20, "z" * 20, "Ana@Example.org"]
)
def test_weak_passwords_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        new_password(text, Email("ana@example.org"))


def test_a_password_is_not_shown() -> None:
    assert "secret thing" not in repr(Password.typed("secret thing"))


@given(st.text())
def test_a_device_name_is_short_and_printable(text: str) -> None:
    name = device_name(text)
    assert len(name) <= 200 and all(" " <= each <= "~" for each in name)


# --- Places


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("203.0.113.7", "ipv4:203.0.113.7:5000"),
        ("203.0.113.7", "203.0.113.7:99"),
        ("2001:db8:1:2::7", "2001:db8:1:2:ffff::1"),
        ("2001:db8:1:2::7", "ipv6:%5B2001:db8:1:2::9%5D:5000"),
        ("2001:db8:1:2::7", "[2001:db8:1:2::9]:5000"),
    ],
)
def test_one_place_however_it_is_written(one: str, other: str) -> None:
    assert place_of(one) == place_of(other) != STRANGER


def test_places_differ() -> None:
    assert place_of("203.0.113.7") != place_of("203.0.113.8")
    assert place_of("2001:db8:1:2::7") != place_of("2001:db8:1:3::7")


@pytest.mark.parametrize("peer", ["", "unknown", "unix:/tmp/x", "999.1.1.1", "[", "[::", "::1]", "a:b:c"])
def test_who_cannot_be_placed_is_a_stranger(peer: str) -> None:
    assert place_of(peer) == STRANGER


@given(st.text())
def test_no_peer_is_an_error(peer: str) -> None:
    assert isinstance(place_of(peer), bytes)
