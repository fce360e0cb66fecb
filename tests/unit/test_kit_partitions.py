"""Which partitions are missing, and what ids say of days."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.ids import (
    business_date_of,
    day_of_uuid7,
    first_id_of,
    first_uuid7,
    first_uuid7_of,
    new_id_of_show,
    new_show_id,
    shows_around,
)
from services.kit.partitions import BUSINESS_DAYS, Partitioned, Span

days = st.dates(date(2020, 1, 1), date(2199, 1, 1))
regions = st.integers(0, 65535)


def table(length: int) -> Partitioned:
    return Partitioned("t", "id", BUSINESS_DAYS, days=length)


@given(day=days, region=regions)
def test_a_days_ids_lie_between_its_first_one_and_the_next_days(day: date, region: int) -> None:
    show_id = new_show_id(day, region)
    assert first_id_of(day) <= show_id < first_id_of(day + timedelta(days=1))
    assert business_date_of(first_id_of(day)) == day


@given(day=days, region=regions, others=st.lists(days, max_size=4))
def test_a_show_is_among_those_around_what_belongs_to_it(day: date, region: int, others: list[date]) -> None:
    show_id = new_show_id(day, region)
    low, high = shows_around([new_id_of_show(show_id)])
    assert low <= show_id <= high
    assert business_date_of(low) == business_date_of(high) == day
    low, high = shows_around([new_id_of_show(show_id), *(new_id_of_show(new_show_id(other, 1)) for other in others)])
    assert low <= show_id <= high
    assert {business_date_of(low), business_date_of(high)} <= {day, *others}


def test_no_show_is_around_nothing() -> None:
    low, high = shows_around([])
    assert not low <= new_show_id(date(2026, 5, 1), 1) <= high


@given(moment=st.integers(0, 1 << 34).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_the_first_uuid7_of_a_moment_is_of_its_day(moment: datetime) -> None:
    assert first_uuid7_of(moment.date()) <= first_uuid7(moment) < first_uuid7_of(moment.date() + timedelta(days=1))
    assert day_of_uuid7(first_uuid7(moment)) == moment.date()


def test_before_1970_there_is_no_uuid7() -> None:
    assert first_uuid7(datetime(1, 1, 1, tzinfo=UTC)) == UUID(int=0)


@given(
    first=st.dates(date(2020, 1, 1), date(2030, 1, 1)),
    count=st.integers(0, 60),
    length=st.integers(1, 28),
    before=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 9)), max_size=6),
)
def test_missing_partitions_cover_all_days_and_touch_nothing_that_is_there(
    first: date, count: int, length: int, before: list[tuple[int, int]]
) -> None:
    have: list[Span] = []
    for offset, days_ in before:  # partitions of any other length, which do not touch each other
        span = Span(first + timedelta(days=offset - 20), first + timedelta(days=offset - 20 + days_))
        if all(span.end <= other.first or other.end <= span.first for other in have):
            have.append(span)
    last = first + timedelta(days=count)
    spans = have + table(length).missing(have, first, last)
    for day in (first + timedelta(days=n) for n in range(count + 1)):
        assert sum(span.first <= day < span.end for span in spans) == 1
    ordered = sorted(spans, key=lambda span: span.first)
    assert all(one.end <= other.first for one, other in itertools.pairwise(ordered))
    assert table(length).missing(spans, first, last) == []


@pytest.mark.parametrize(
    ("length", "first"), [(7, date(2026, 11, 18)), (28, date(2026, 10, 28)), (1, date(2026, 11, 22))]
)
def test_partitions_begin_at_the_same_days_whoever_makes_them(length: int, first: date) -> None:
    for day in (first, first + timedelta(days=length - 1)):
        assert table(length).missing([], day, day) == [Span(first, first + timedelta(days=length))]
