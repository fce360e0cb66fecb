"""Bugs that are planted on purpose, each of which the history checker must find: each takes away one thing that keeps
seats, money or events right, in the way in which it is lost in real systems."""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutants.mutations import FUNCTIONS, Mutation
from tests.prove.campaign import Goals, Script
from tests.prove.findings import Rule
from tests.prove.sale import Hall
from tests.prove.stage import Pace
from tests.prove.trouble import LAST_BOOKING, LAST_CAPTURE, Trouble, kill, kill_after

BOOKING = "services/booking"
NO_GOALS = Goals(payments=0, late_captures=0, double_captures=0, failed_then_captured=0)
HASTE = Pace(hold_s=3.0, payment_window_s=3.0, sweep_s=1.5, poll_first_s=1.0, poll_longest_s=4.0)
"""Much ends in little time, and what ended is often taken over before it is swept."""
ENOUGH_S = 14.0


def edit(file: str, before: str, after: str) -> Mutation:
    return Mutation(file, file, before, after, test="")


@dataclass(frozen=True)
class Plant:
    """One bug, and the trouble under which it shows.

    Args:
        found_by: the rules of which at least one must be found broken.
    """

    name: str
    edits: tuple[Mutation, ...]
    found_by: frozenset[Rule]
    troubles: tuple[Trouble, ...] = (Trouble("kill -9 of payment", kill("payment")),)

    def problems(self) -> list[str]:
        """Why it cannot be planted; empty when it can."""
        return [problem for each in self.edits if (problem := each.problem())]

    def script(self, seed: int) -> Script:
        return hasty_script(seed, self.troubles)


def hasty_script(seed: int, troubles: tuple[Trouble, ...]) -> Script:
    """A quarter of a minute in small halls."""
    return Script(
        seed,
        rate=12.0,
        at_least_s=ENOUGH_S,
        most_s=ENOUGH_S,
        troubles=troubles,
        goals=NO_GOALS,
        pace=HASTE,
        patience_s=15.0,
        calm_s=1.0,
        hall=Hall(seats_a_row=8),
    )


AFTER_COMMITS = (
    Trouble("kill -9 of booking just after a capture's commit", kill_after("booking", LAST_CAPTURE)),
    Trouble("kill -9 of booking just after a booking's commit", kill_after("booking", LAST_BOOKING)),
) * 2

PLANTS = (
    Plant(
        "a lock without fence: money books seats that somebody else holds by now",
        (
            edit(
                FUNCTIONS,
                "        ELSIF booking.status = 1 THEN\n",
                "        ELSIF booking.status IN (1, 4) THEN\n",
            ),
            edit(
                FUNCTIONS,
                "            IF booking.matching = cardinality(booking.seat_nos) THEN\n",
                "            IF true THEN\n",
            ),
        ),
        frozenset({Rule.OWNER}),
    ),
    Plant(
        "a sweeper without status guard: seats that are paid for are freed when their hold would have ended",
        (
            edit(
                FUNCTIONS,
                "          AND r.holding\n          AND r.expires_at <= moment;\n",
                "          AND r.expires_at <= moment;\n",
            ),
            edit(
                FUNCTIONS,
                "          AND reservation_id = ANY (ids)\n          AND status = 2\n        RETURNING seat_no\n",
                "          AND reservation_id = ANY (ids)\n        RETURNING seat_no\n",
            ),
        ),
        frozenset({Rule.OWNER}),
    ),
    Plant(
        "an outbox written after commit: a crash in between loses the event",
        (
            edit(
                f"{BOOKING}/conversions.py",
                """
                await add(connection, new)
                await announce(connection, new)
""",
                """
                await add(connection, new)
    async with bookings.transaction() as connection:
        await announce(connection, new)
""",
            ),
            edit(
                f"{BOOKING}/consumers.py",
                """
    await outbox.append(connection, told)

    async def after() -> None:
        desk.tell([each.change for each in outcomes if each.change is not None])
""",
                """
    async def after() -> None:
        async with desk.bookings.transaction() as later:
            await outbox.append(later, told)
        desk.tell([each.change for each in outcomes if each.change is not None])
""",
            ),
        ),
        frozenset({Rule.EVENTS}),
        troubles=AFTER_COMMITS,
    ),
    Plant(
        "an expiry on the app's clock, which is two seconds fast",
        (
            edit(
                FUNCTIONS,
                "FUNCTION expire_due(most_shows integer)\n",
                "FUNCTION expire_due(most_shows integer, app_now timestamptz)\n",
            ),
            edit(
                FUNCTIONS,
                "              AND r.expires_at <= clock_timestamp()\n",
                "              AND r.expires_at <= app_now\n",
            ),
            edit(
                FUNCTIONS,
                "        moment := clock_timestamp();\n        SELECT array_agg(r.reservation_id), array_agg(",
                "        moment := app_now;\n        SELECT array_agg(r.reservation_id), array_agg(",
            ),
            edit(
                f"{BOOKING}/store/holds.py",
                '"SELECT show_id, version, freed, booking_ids FROM expire_due(%s)", (most_shows,)',
                '"SELECT show_id, version, freed, booking_ids FROM expire_due(%s, %s)",\n'
                "                (most_shows, datetime.now().astimezone() + timedelta(seconds=2)),",
            ),
        ),
        frozenset({Rule.CLOCK}),
    ),
    Plant(
        "a lost idempotency key: a hold that is asked for again is another hold",
        (
            edit(
                FUNCTIONS,
                """
        INSERT INTO requests (user_id, request_id, show_id, method, content, answer_id, answer_expires_at)
        VALUES (user_ids[i], request_ids[i], locked, 'hold', contents[i], new_ids[i], expires_at);
""",
                "",
            ),
        ),
        frozenset({Rule.REPLAY}),
    ),
    Plant(
        "a takeover that leaves the old reservation active",
        (
            edit(
                FUNCTIONS,
                "            freed := end_holds(locked, stale, 4::smallint, 4::smallint, moment);\n",
                """
            WITH gone AS (
                DELETE FROM seat_claims c
                WHERE c.show_id = locked AND c.reservation_id = ANY (stale)
                RETURNING c.seat_no
            ), let_go AS (
                UPDATE reservations r
                SET holding = false
                WHERE r.show_id = locked AND r.reservation_id = ANY (stale)
            )
            SELECT coalesce(array_agg(gone.seat_no), '{}') INTO freed FROM gone;
""",
            ),
        ),
        frozenset({Rule.END}),
    ),
)
