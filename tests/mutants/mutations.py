"""The mutations. Each takes away one thing that keeps seats and money right; ``before`` stands once in its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FUNCTIONS = "services/booking/migrations/0001_functions.sql"
BOOKING = "services/booking"
PAYMENT = "services/payment"
HOLDS = "tests/integration/test_booking_holds.py"
BOOKINGS = "tests/integration/test_booking_bookings.py"
RACES = "tests/integration/test_booking_races.py"
CONSUMERS = "tests/integration/test_events_consumers.py"
PAYMENT_FLOW = "tests/integration/test_payment_flow.py"
PAYMENT_RECOVERY = "tests/integration/test_payment_recovery.py"
PAYMENT_BATCHES = "tests/integration/test_payment_batches.py"
PARTIAL_REFUNDS = "tests/integration/test_payment_partial_refunds.py"


@dataclass(frozen=True)
class Mutation:
    """One change for the worse.

    Args:
        name: what is taken away.
        file: relative to the project.
        before: exactly this text, once in the file.
        after: what stands there instead.
        test: the test that must go red.
    """

    name: str
    file: str
    before: str
    after: str
    test: str

    def problem(self, root: Path = ROOT) -> str:
        """Why this mutation cannot be made; empty when it can."""
        path = root / self.file
        count = path.read_text().count(self.before) if path.exists() else 0
        return "" if count == 1 else f"{self.name}: its text stands {count} times in {self.file}, not once"

    def apply(self, root: Path) -> None:
        path = root / self.file
        path.write_text(path.read_text().replace(self.before, self.after))


MUTATIONS = (
    Mutation(
        "fence dropped: money books a hold that was lost and won again",
        FUNCTIONS,
        """
                     AND c.status = 2
                     AND c.fence = (
                         SELECT r.fence
                         FROM reservations r
                         WHERE r.show_id = confirm_captures.show_id
                           AND r.reservation_id = b.reservation_id
                     )
""",
        """
                     AND c.status = 2
""",
        f"{BOOKINGS}::test_money_finds_a_stale_fence_and_goes_back",
    ),
    # --- status guards ------------------------------------------------------------------------------------------------
    Mutation(
        "status guard removed: ending a hold frees booked seats",
        FUNCTIONS,
        """
          AND reservation_id = ANY (ids)
          AND status = 2
        RETURNING seat_no
""",
        """
          AND reservation_id = ANY (ids)
        RETURNING seat_no
""",
        f"{RACES}::test_ending_a_hold_leaves_what_is_booked_alone",
    ),
    Mutation(
        "status guard removed: ending a hold expires a confirmed booking",
        FUNCTIONS,
        """
          AND reservation_id = ANY (ids)
          AND status = 1
        RETURNING booking_id, expired_event
""",
        """
          AND reservation_id = ANY (ids)
        RETURNING booking_id, expired_event
""",
        f"{RACES}::test_ending_a_hold_leaves_what_is_booked_alone",
    ),
    Mutation(
        "status guard removed: money confirms a cancelled booking",
        FUNCTIONS,
        "        ELSIF booking.status = 3 THEN\n            outcome := 'CANCELLED';\n",
        "",
        f"{BOOKINGS}::test_money_for_a_cancelled_booking_goes_back",
    ),
    Mutation(
        "status guard removed: a hold is released although a booking has it",
        FUNCTIONS,
        "    IF reservation.status <> 1 THEN\n        outcome := CASE WHEN reservation.status = 2",
        "    IF false THEN\n        outcome := CASE WHEN reservation.status = 2",
        f"{BOOKINGS}::test_a_reservation_becomes_one_booking_however_often_it_is_asked_for",
    ),
    Mutation(
        "status guard removed: a hold is booked after its time",
        FUNCTIONS,
        "WHEN reservation.status = 4 OR reservation.expires_at <= moment THEN 'EXPIRED'",
        "WHEN reservation.status = 4 THEN 'EXPIRED'",
        f"{RACES}::test_a_hold_that_nobody_swept_cannot_be_booked_after_its_time",
    ),
    Mutation(
        "status guard removed: the sweeper looks at the clock alone",
        FUNCTIONS,
        """
        WHERE r.show_id = expire_due.show_id
          AND r.holding
          AND r.expires_at <= moment;
""",
        """
        WHERE r.show_id = expire_due.show_id
          AND r.expires_at <= moment;
""",
        f"{RACES}::test_a_sweep_that_finds_nothing_due_changes_nothing",
    ),
    # --- row locks ----------------------------------------------------------------------------------------------------
    Mutation(
        "row lock removed: a hold does not wait for the show's writer",
        FUNCTIONS,
        "            WHERE v.show_id = locked\n            FOR UPDATE;\n",
        "            WHERE v.show_id = locked;\n",
        f"{RACES}::test_a_hold_waits_for_the_shows_writer_and_sees_what_it_did",
    ),
    Mutation(
        "row lock removed: two captures confirm at once",
        FUNCTIONS,
        "WHERE v.show_id = confirm_captures.show_id FOR UPDATE;",
        "WHERE v.show_id = confirm_captures.show_id;",
        f"{RACES}::test_two_captures_that_come_at_once_confirm_once",
    ),
    Mutation(
        "row lock removed: a release does not wait for the booking that takes over",
        FUNCTIONS,
        "WHERE v.show_id = release_hold.show_id FOR UPDATE;",
        "WHERE v.show_id = release_hold.show_id;",
        f"{RACES}::test_a_release_waits_for_the_booking_that_takes_the_hold_over",
    ),
    # --- owners -------------------------------------------------------------------------------------------------------
    Mutation(
        "owner check removed: anybody reads a reservation",
        f"{BOOKING}/store/holds.py",
        "                  AND user_id = %s\n",
        "                  AND (true OR user_id = %s)\n",
        f"{HOLDS}::test_somebody_elses_reservation_is_answered_like_a_missing_one",
    ),
    Mutation(
        "owner check removed: anybody releases a reservation",
        FUNCTIONS,
        """
      AND r.user_id = of_user;
    IF show_id IS NULL THEN
        outcome := 'NOT_FOUND'; RETURN NEXT; RETURN;
""",
        """;
    IF show_id IS NULL THEN
        outcome := 'NOT_FOUND'; RETURN NEXT; RETURN;
""",
        f"{RACES}::test_nobody_else_changes_a_reservation_or_a_booking",
    ),
    Mutation(
        "owner check removed: anybody books a reservation",
        FUNCTIONS,
        """
      AND r.user_id = of_user;
    IF show_id IS NOT NULL THEN
""",
        """;
    IF show_id IS NOT NULL THEN
""",
        f"{RACES}::test_nobody_else_changes_a_reservation_or_a_booking",
    ),
    Mutation(
        "owner check removed: anybody reads and cancels a booking",
        f"{BOOKING}/store/bookings.py",
        "FROM bookings WHERE booking_id = %s AND user_id = %s",
        "FROM bookings WHERE booking_id = %s AND (true OR user_id = %s)",
        f"{BOOKINGS}::test_only_the_owner_and_services_see_a_booking",
    ),
    Mutation(
        "owner check removed: anybody pays for a booking",
        f"{BOOKING}/payables.py",
        "elif known is None or known[0].user_id != user_id:",
        "elif known is None:",
        f"{BOOKINGS}::test_only_the_owner_and_services_see_a_booking",
    ),
    Mutation(
        "owner check removed: anybody reads a payment",
        f"{PAYMENT}/usecases.py",
        'if view is None or not (view.payment.user_id == UUID(caller.user_id) or "admin" in caller.roles):',
        "if view is None:",
        f"{PAYMENT_FLOW}::test_another_users_booking_and_payment_are_not_found",
    ),
    # --- the inbox ----------------------------------------------------------------------------------------------------
    Mutation(
        "inbox skipped: an event has its effect at every delivery",
        "services/kit/inbox.py",
        "    new = {row[0] for row in await cursor.fetchall()}\n",
        "    new = {event.event_id for event in events}\n",
        f"{CONSUMERS}::test_an_event_delivered_often_has_one_effect",
    ),
    # --- clocks -------------------------------------------------------------------------------------------------------
    Mutation(
        "app clock used: whether a show has begun",
        f"{BOOKING}/usecases.py",
        "            if moment >= show.start_time:\n",
        "            if datetime.now(show.start_time.tzinfo) >= show.start_time:\n",
        f"{RACES}::test_nothing_that_decides_about_seats_asks_pythons_clock",
    ),
    Mutation(
        "app clock used: when a booking was made",
        f"{BOOKING}/conversions.py",
        "        created_at=conversion.moment,\n",
        "        created_at=datetime.now(conversion.moment.tzinfo),\n",
        f"{RACES}::test_nothing_that_decides_about_seats_asks_pythons_clock",
    ),
    Mutation(
        "clock read before the lock: a hold misses what expired while it waited",
        FUNCTIONS,
        """
            outcome := 'NOT_FOUND'; RETURN NEXT; CONTINUE;
        END IF;
        moment := clock_timestamp();

        SELECT * INTO seen
""",
        """
            outcome := 'NOT_FOUND'; RETURN NEXT; CONTINUE;
        END IF;
        moment := now();

        SELECT * INTO seen
""",
        f"{RACES}::test_a_hold_that_waited_for_the_lock_sees_what_expired_meanwhile",
    ),
    Mutation(
        "clock read before the lock: a booking misses that its hold ended",
        FUNCTIONS,
        """
    moment := clock_timestamp();

    SELECT * INTO seen FROM requests r WHERE r.user_id = of_user AND r.request_id = of_request;
""",
        """
    moment := now();

    SELECT * INTO seen FROM requests r WHERE r.user_id = of_user AND r.request_id = of_request;
""",
        f"{RACES}::test_a_booking_that_waited_past_its_holds_end_comes_too_late",
    ),
    Mutation(
        "clock read before the lock: a cancellation misses that the show began",
        f"{BOOKING}/store/bookings.py",
        'connection.execute("SELECT clock_timestamp()")',
        'connection.execute("SELECT now()")',
        f"{RACES}::test_a_cancellation_that_waited_past_the_shows_start_comes_too_late",
    ),
    # --- the outbox ---------------------------------------------------------------------------------------------------
    Mutation(
        "outbox after commit: a booking without its event",
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
        f"{RACES}::test_a_booking_exists_only_with_its_event",
    ),
    Mutation(
        "outbox after commit: a cancellation without its refund",
        f"{BOOKING}/usecases.py",
        """
        await outbox.append(connection, events)
        await keep_answer(
            connection,
            user_id=user,
            request_id=request_id,
            show_id=row.show_id,
            method="cancel",
            content=content,
            answer=booking.SerializeToString(),
        )
""",
        """
        await keep_answer(
            connection,
            user_id=user,
            request_id=request_id,
            show_id=row.show_id,
            method="cancel",
            content=content,
            answer=booking.SerializeToString(),
        )
    async with desk.bookings.transaction() as connection:
        await outbox.append(connection, events)
""",
        f"{RACES}::test_a_cancellation_exists_only_with_its_refund",
    ),
    Mutation(
        "outbox after commit: a confirmation, or a refund, that nobody hears of",
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
        f"{RACES}::test_a_confirmation_exists_only_with_its_event",
    ),
    # --- once a request -----------------------------------------------------------------------------------------------
    Mutation(
        "idempotency key lost: a hold's answer is not kept",
        FUNCTIONS,
        """
        INSERT INTO requests (user_id, request_id, show_id, method, content, answer_id, answer_expires_at)
        VALUES (user_ids[i], request_ids[i], locked, 'hold', contents[i], new_ids[i], expires_at);
""",
        "",
        f"{HOLDS}::test_a_repeated_request_has_one_effect_and_one_answer",
    ),
    Mutation(
        "idempotency key lost: a refund's call to the provider has none",
        f"{PAYMENT}/providers/razorpay.py",
        '        headers = {"x-refund-idempotency": key}\n',
        "        headers: dict[str, str] = {}\n",
        f"{PARTIAL_REFUNDS}::test_a_partial_refund_goes_back_once_however_often_its_answer_is_lost",
    ),
    Mutation(
        "idempotency key lost: the provider opens an order each time it is asked",
        f"{PAYMENT}/providers/razorpay.py",
        '                    "unique_receipt": True,\n',
        '                    "unique_receipt": False,\n',
        f"{PAYMENT_RECOVERY}::test_an_order_whose_answer_was_lost_is_opened_once",
    ),
    # --- payments that others change ----------------------------------------------------------------------------------
    Mutation(
        "row lock removed: reports of one payment are settled side by side",
        f"{PAYMENT}/migrations/payment_functions.sql",
        "        ORDER BY p.booking_id\n        FOR UPDATE\n",
        "        ORDER BY p.booking_id\n",
        f"{PAYMENT_BATCHES}::test_reports_that_come_at_once_to_two_processes_do_not_undo_each_other",
    ),
    Mutation(
        "version guard removed: a buyer who comes back undoes what arrived meanwhile",
        f"{PAYMENT}/migrations/payment_functions.sql",
        "          AND p.version = seen_versions[i]\n",
        "",
        f"{PAYMENT_BATCHES}::test_a_buyer_who_comes_back_while_money_arrives_does_not_undo_it",
    ),
    Mutation(
        "the provider is called before that is written down",
        f"{PAYMENT}/migrations/payment_functions.sql",
        "            IF found_payment.provider_order_id IS NULL\n",
        "            IF false\n",
        f"{PAYMENT_RECOVERY}::test_an_order_whose_answer_was_lost_is_opened_once",
    ),
    # --- the takeover -------------------------------------------------------------------------------------------------
    Mutation(
        "takeover leaves the old reservation and its booking as they were",
        FUNCTIONS,
        "            freed := end_holds(locked, stale, 4::smallint, 4::smallint, moment);\n",
        """
            WITH gone AS (
                DELETE FROM seat_claims c
                WHERE c.show_id = locked AND c.reservation_id = ANY (stale)
                RETURNING c.seat_no
            )
            SELECT array_agg(gone.seat_no) INTO freed FROM gone;
""",
        f"{RACES}::test_a_takeover_ends_the_old_booking_and_its_late_money_goes_back",
    ),
    Mutation(
        "takeover leaves the old reservation active",
        FUNCTIONS,
        "        status = CASE WHEN status = 1 THEN new_status ELSE status END\n",
        "        status = status\n",
        f"{HOLDS}::test_an_expired_hold_is_taken_over_in_one_version",
    ),
)
