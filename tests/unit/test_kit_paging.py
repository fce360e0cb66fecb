"""Page tokens are signed and belong to one request's filters."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee.catalog import v1 as catalog_v1
from services.kit.errors import InvalidPageToken
from services.kit.paging import PageTokens

TOKENS = PageTokens("k" * 32)


def movies(**fields: object) -> catalog_v1.ListMoviesRequest:
    return catalog_v1.ListMoviesRequest(**fields)  # type: ignore[arg-type]


def test_the_first_page_has_no_token() -> None:
    assert TOKENS.read(movies()) is None


@given(st.lists(st.one_of(st.text(), st.integers(-(2**53), 2**53))))
def test_a_token_comes_back_as_it_was(after: list[str | int | float]) -> None:
    token = TOKENS.make(movies(city_id="mumbai"), after)
    assert TOKENS.read(movies(city_id="mumbai", page_token=token)) == after


def test_the_page_size_may_change_but_not_the_filters() -> None:
    token = TOKENS.make(movies(city_id="mumbai", page_size=10), ["x"])
    assert TOKENS.read(movies(city_id="mumbai", page_size=50, page_token=token)) == ["x"]
    with pytest.raises(InvalidPageToken):
        TOKENS.read(movies(city_id="delhi", page_token=token))


def test_a_token_is_for_one_kind_of_request() -> None:
    token = TOKENS.make(movies(), ["x"])
    with pytest.raises(InvalidPageToken):
        TOKENS.read(catalog_v1.ListVenuesRequest(page_token=token))


def test_a_token_of_another_key_is_refused() -> None:
    token = PageTokens("other" * 8).make(movies(), ["x"])
    with pytest.raises(InvalidPageToken):
        TOKENS.read(movies(page_token=token))


@given(st.integers(min_value=0), st.integers(0, 7))
def test_a_token_with_one_bit_changed_is_refused(place: int, bit: int) -> None:
    token = TOKENS.make(movies(), ["2026-11-22", 7])
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[place % len(raw)] ^= 1 << bit
    with pytest.raises(InvalidPageToken):
        TOKENS.read(movies(page_token=base64.urlsafe_b64encode(raw).decode().rstrip("=")))


@given(st.text(min_size=1))
def test_nonsense_is_refused(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        TOKENS.read(movies(page_token=token))


def test_a_short_key_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="MARQUEE_PAGE_KEY"):
        PageTokens("short")
