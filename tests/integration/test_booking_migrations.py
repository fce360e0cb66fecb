"""Booking's database as earlier revisions left it."""

from __future__ import annotations

import psycopg
from fixtures_stores import DatabaseFactory

from services.kit.migrations import migrate

CONFIRM_BEFORE_0004 = """
    CREATE FUNCTION confirm_captures(
        of_bookings uuid[], of_captures text[], of_payments uuid[], amounts bigint[], currencies text[]
    ) RETURNS TABLE (
        place integer, outcome text, show_id uuid, booking_id uuid, version integer, booked integer[]
    ) LANGUAGE plpgsql AS 'BEGIN END'
"""


def functions(url: str) -> dict[str, str]:
    """The text of each function, by its name and arguments."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("""
            SELECT oid::regprocedure::text, pg_get_functiondef(oid)
            FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
              AND prokind = 'f'
        """)
        return dict(rows.fetchall())


def test_a_function_that_answers_more_than_before_takes_its_place(database_url: DatabaseFactory) -> None:
    new, old = database_url("booking"), database_url("booking")
    migrate("booking", new)
    migrate("booking", old, revision="0003")
    with psycopg.connect(old) as connection:
        connection.execute(CONFIRM_BEFORE_0004)
    for _ in range(2):  # the second time it is there already
        migrate("booking", old)
        assert functions(old) == functions(new)
