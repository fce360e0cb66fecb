-- Who writes claims. The rules that all of these keep: the first statement takes the show's row, so that the following
-- ones see what the last writer committed; time is clock_timestamp() read after that lock; a batch takes its shows in
-- the order of their ids; a refusal is a returned value, so that the rest of a batch goes on.
--
-- Tables are partitioned by ranges of show_id. A statement that names the show finds its partition when it starts, also
-- with a plan that was made before for all shows; whoever knows only a reservation or a booking names the shows around it.


-- The lowest and the highest id that the show can have which this reservation or booking belongs to: they share 48 bits.
CREATE OR REPLACE FUNCTION first_show_of(id uuid) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (left(id::text, 13) || '-0000-0000-000000000000')::uuid;

CREATE OR REPLACE FUNCTION last_show_of(id uuid) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (left(id::text, 13) || '-ffff-ffff-ffffffffffff')::uuid;


-- The show of a reservation or of a booking; NULL for an unknown one. Functions, because a join, and also ANY (ids), would
-- open the partitions of many shows.
CREATE OR REPLACE FUNCTION show_of_reservation(id uuid) RETURNS uuid LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT r.show_id
        FROM reservations r
        WHERE r.reservation_id = id
          AND r.show_id BETWEEN first_show_of(id) AND last_show_of(id)
    );
END $$;

CREATE OR REPLACE FUNCTION show_of_booking(id uuid) RETURNS uuid LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT b.show_id
        FROM bookings b
        WHERE b.booking_id = id
          AND b.show_id BETWEEN first_show_of(id) AND last_show_of(id)
    );
END $$;


-- Some bookings, each looked for in its own partition.
CREATE OR REPLACE FUNCTION bookings_of(ids uuid[]) RETURNS SETOF bookings LANGUAGE plpgsql STABLE AS $$
DECLARE
    id uuid;
BEGIN
    FOREACH id IN ARRAY ids LOOP
        RETURN QUERY SELECT *
        FROM bookings b
        WHERE b.booking_id = id
          AND b.show_id BETWEEN first_show_of(id) AND last_show_of(id);
    END LOOP;
END $$;


-- End holds of one show whose row the caller has locked: frees their claims, ends the reservations with `new_status`
-- and the bookings that wait for payment with `new_booking_status`, and announces bookings that expire.
-- Answers the freed seats.
CREATE OR REPLACE FUNCTION end_holds(
    of_show uuid, ids uuid[], new_status smallint, new_booking_status smallint, at timestamptz
) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    freed integer[];
BEGIN
    WITH gone AS (
        DELETE FROM seat_claims
        WHERE show_id = of_show
          AND seat_no = ANY (ARRAY(
              SELECT unnest(seat_nos)
              FROM reservations
              WHERE show_id = of_show
                AND reservation_id = ANY (ids)
          ))
          AND reservation_id = ANY (ids)
          AND status = 2
        RETURNING seat_no
    )
    SELECT coalesce(array_agg(seat_no ORDER BY seat_no), '{}') INTO freed
    FROM gone;

    UPDATE reservations
    SET holding = false,
        status = CASE WHEN status = 1 THEN new_status ELSE status END
    WHERE show_id = of_show
      AND reservation_id = ANY (ids)
      AND holding;

    WITH ended AS (
        UPDATE bookings
        SET status = new_booking_status, version = version + 1, updated_at = at
        WHERE show_id = of_show
          AND reservation_id = ANY (ids)
          AND status = 1
        RETURNING booking_id, expired_event
    )
    INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
    SELECT 'booking.expired', booking_id::text, 'marquee.booking.v1.BookingExpired', expired_event
    FROM ended
    WHERE new_booking_status = 4;

    RETURN freed;
END $$;


-- Hold the wishes of a batch, each wholly or not at all. Wish i wants the next seat_counts[i] of `seats`, and for each of
-- the next standing_counts[i] triples (first_seat_no, capacity, quantity) of `standings` that many places of an area.
-- The wishes of one show stand together, and the shows in the order of their ids.
CREATE OR REPLACE FUNCTION hold_seats(
    show_ids uuid[], show_row_versions integer[], user_ids uuid[], request_ids uuid[], contents bytea[],
    new_ids uuid[], seat_counts integer[], seats integer[], standing_counts integer[], standings integer[],
    quotes bytea[], totals bigint[],
    hold_for interval, most_active integer, most_an_hour integer
) RETURNS TABLE (
    place integer, outcome text, reservation_id uuid, fence integer, seat_nos integer[], quote bytea,
    created_at timestamptz, expires_at timestamptz, taken integer[], freed integer[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    locked        uuid;
    show_version  integer;
    show_taken    integer;
    show_row      shows%ROWTYPE;
    seen          requests%ROWTYPE;
    wanted        integer[];
    free_places   integer[];
    stale         uuid[];
    active_count  integer;
    recent_count  integer;
    first_seat    integer := 1;
    first_area    integer := 1;
    moment        timestamptz;
BEGIN
    FOR i IN 1 .. array_length(show_ids, 1) LOOP
        place := i;
        reservation_id := NULL; fence := NULL; seat_nos := NULL; quote := NULL; taken := NULL; freed := NULL;
        created_at := NULL; expires_at := NULL;
        wanted := seats[first_seat : first_seat + seat_counts[i] - 1];
        first_seat := first_seat + seat_counts[i];
        first_area := first_area + standing_counts[i];

        IF locked IS DISTINCT FROM show_ids[i] THEN
            IF locked IS NOT NULL THEN
                UPDATE show_versions v SET version = show_version, taken = show_taken WHERE v.show_id = locked;
            END IF;
            locked := show_ids[i];
            SELECT v.version, v.taken INTO show_version, show_taken
            FROM show_versions v
            WHERE v.show_id = locked
            FOR UPDATE;
            SELECT * INTO show_row FROM shows s WHERE s.show_id = locked;
        END IF;
        IF show_version IS NULL THEN
            outcome := 'NOT_FOUND'; RETURN NEXT; CONTINUE;
        END IF;
        moment := clock_timestamp();

        SELECT * INTO seen
        FROM requests r
        WHERE r.user_id = user_ids[i]
          AND r.request_id = request_ids[i];
        IF FOUND THEN
            IF seen.show_id = locked AND seen.method = 'hold' AND seen.content = contents[i] THEN
                SELECT 'REPLAY', r.reservation_id, r.fence, r.seat_nos, r.quote, r.created_at, seen.answer_expires_at
                INTO outcome, reservation_id, fence, seat_nos, quote, created_at, expires_at
                FROM reservations r
                WHERE r.show_id = locked
                  AND r.reservation_id = seen.answer_id;
            ELSE
                outcome := 'REQUEST_ID_REUSED';
            END IF;
            RETURN NEXT; CONTINUE;
        END IF;

        IF show_row.version <> show_row_versions[i] THEN
            outcome := 'STALE_SHOW'; RETURN NEXT; CONTINUE;
        END IF;
        IF show_row.cancelled OR moment >= show_row.sale_closes THEN
            outcome := 'SALE_OVER'; RETURN NEXT; CONTINUE;
        END IF;
        IF moment < show_row.sale_opens THEN
            outcome := 'SALE_NOT_OPEN'; RETURN NEXT; CONTINUE;
        END IF;

        -- Standing places: the first that are free.
        outcome := NULL;
        FOR area IN first_area - standing_counts[i] .. first_area - 1 LOOP
            SELECT array_agg(n) INTO free_places
            FROM (
                SELECT n
                FROM generate_series(standings[3 * area - 2], standings[3 * area - 2] + standings[3 * area - 1] - 1) n
                WHERE NOT EXISTS (
                    SELECT FROM seat_claims c
                    WHERE c.show_id = locked
                      AND c.seat_no = n
                      AND NOT (c.status = 2 AND c.expires_at <= moment)
                )
                ORDER BY n
                LIMIT standings[3 * area]
            ) AS free;
            IF coalesce(array_length(free_places, 1), 0) < standings[3 * area] THEN
                outcome := 'STANDING_SOLD_OUT';
            END IF;
            wanted := wanted || free_places;
        END LOOP;
        IF outcome IS NOT NULL THEN
            RETURN NEXT; CONTINUE;
        END IF;

        SELECT array_agg(c.seat_no ORDER BY c.seat_no) FILTER (WHERE NOT (c.status = 2 AND c.expires_at <= moment)),
               array_agg(DISTINCT c.reservation_id) FILTER (WHERE c.status = 2 AND c.expires_at <= moment)
        INTO taken, stale
        FROM seat_claims c
        WHERE c.show_id = locked
          AND c.seat_no = ANY (wanted);
        IF taken IS NOT NULL THEN
            outcome := 'SEAT_TAKEN'; RETURN NEXT; CONTINUE;
        END IF;

        -- After the seats, so that whoever wants a taken seat learns that first.
        SELECT count(*) FILTER (WHERE r.status = 1 AND r.expires_at > moment),
               count(*) FILTER (WHERE r.created_at > moment - interval '1 hour')
        INTO active_count, recent_count
        FROM reservations r
        WHERE r.show_id = locked
          AND r.user_id = user_ids[i];
        IF active_count >= most_active OR recent_count >= most_an_hour THEN
            outcome := CASE WHEN active_count >= most_active THEN 'TOO_MANY_HOLDS' ELSE 'TOO_MANY_AN_HOUR' END;
            RETURN NEXT; CONTINUE;
        END IF;

        -- An expired hold is taken over: it, and its booking, end in this same version.
        freed := '{}';
        IF stale IS NOT NULL THEN
            freed := end_holds(locked, stale, 4::smallint, 4::smallint, moment);
            show_taken := show_taken - cardinality(freed);
            freed := ARRAY(SELECT unnest(freed) EXCEPT SELECT unnest(wanted));
        END IF;

        show_version := show_version + 1;
        show_taken := show_taken + cardinality(wanted);
        outcome := 'HELD';
        reservation_id := new_ids[i];
        fence := show_version;
        seat_nos := wanted;
        quote := quotes[i];
        created_at := moment;
        expires_at := moment + hold_for;

        INSERT INTO seat_claims (show_id, seat_no, status, reservation_id, user_id, expires_at, fence)
        SELECT locked, n, 2, new_ids[i], user_ids[i], expires_at, show_version
        FROM unnest(wanted) n;

        INSERT INTO reservations (
            show_id, reservation_id, user_id, status, holding, seat_nos, quote, total, fence, created_at, expires_at
        ) VALUES (
            locked, new_ids[i], user_ids[i], 1, true, wanted, quotes[i], totals[i], show_version, moment, expires_at
        );

        INSERT INTO show_log (show_id, version, freed, held, cause, actor, at)
        VALUES (locked, show_version, freed, wanted, 'hold', user_ids[i], moment);

        INSERT INTO requests (user_id, request_id, show_id, method, content, answer_id, answer_expires_at)
        VALUES (user_ids[i], request_ids[i], locked, 'hold', contents[i], new_ids[i], expires_at);

        RETURN NEXT;
    END LOOP;
    IF locked IS NOT NULL THEN
        UPDATE show_versions v SET version = show_version, taken = show_taken WHERE v.show_id = locked;
    END IF;
END $$;


-- Give a user's reservation back. Answers its show, the outcome (RELEASED; or ENDED, CONVERTED, NOT_FOUND), the version and what became free.
CREATE OR REPLACE FUNCTION release_hold(of_reservation uuid, of_user uuid)
RETURNS TABLE (outcome text, show_id uuid, version integer, freed integer[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    reservation reservations%ROWTYPE;
    moment      timestamptz;
BEGIN
    SELECT r.show_id INTO show_id
    FROM reservations r
    WHERE r.reservation_id = of_reservation
      AND r.show_id BETWEEN first_show_of(of_reservation) AND last_show_of(of_reservation)
      AND r.user_id = of_user;
    IF show_id IS NULL THEN
        outcome := 'NOT_FOUND'; RETURN NEXT; RETURN;
    END IF;

    SELECT v.version INTO version FROM show_versions v WHERE v.show_id = release_hold.show_id FOR UPDATE;
    moment := clock_timestamp();
    SELECT * INTO reservation
    FROM reservations r
    WHERE r.show_id = release_hold.show_id
      AND r.reservation_id = of_reservation;
    IF reservation.status <> 1 THEN
        outcome := CASE WHEN reservation.status = 2 THEN 'CONVERTED' ELSE 'ENDED' END;
        RETURN NEXT; RETURN;
    END IF;

    outcome := 'RELEASED';
    freed := end_holds(show_id, ARRAY[of_reservation], 3::smallint, 3::smallint, moment);
    version := version + 1;
    UPDATE show_versions v
    SET version = release_hold.version, taken = v.taken - cardinality(freed)
    WHERE v.show_id = release_hold.show_id;
    INSERT INTO show_log (show_id, version, freed, cause, actor, at)
    VALUES (show_id, version, freed, 'release', of_user, moment);
    RETURN NEXT;
END $$;


-- End what is due: holds whose time is over and bookings that were not paid in theirs, at most `most_shows` shows a call.
-- A call waits for no lock while it has one: else a show that is stuck (its lock's owner was stopped, say) would keep all
-- others that are due locked and unswept. So only the show that is due longest is waited for, briefly; of the others, those
-- that are busy are left to the next call. As nobody waits here with a lock, the order of the ids need not be kept.
-- A hundred times as many holds are looked at, or one show that is stuck with many of them would hide the others.
CREATE OR REPLACE FUNCTION expire_due(most_shows integer)
RETURNS TABLE (show_id uuid, version integer, freed integer[], booking_ids uuid[]) LANGUAGE plpgsql
SET lock_timeout = '250ms'
AS $$
#variable_conflict use_column
DECLARE
    due        uuid[];
    moment     timestamptz;
    has_locks  boolean := false;
    has_waited boolean := false;
BEGIN
    FOR show_id IN
        SELECT first.show_id
        FROM (
            SELECT r.show_id, r.expires_at
            FROM reservations r
            WHERE r.holding
              AND r.expires_at <= clock_timestamp()
            ORDER BY r.expires_at
            LIMIT 100 * most_shows
        ) AS first
        GROUP BY first.show_id
        ORDER BY min(first.expires_at)
        LIMIT most_shows
    LOOP
        SELECT v.version INTO version FROM show_versions v WHERE v.show_id = expire_due.show_id FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            CONTINUE WHEN has_locks OR has_waited;
            has_waited := true;
            BEGIN
                SELECT v.version INTO version FROM show_versions v WHERE v.show_id = expire_due.show_id FOR UPDATE;
            EXCEPTION WHEN lock_not_available THEN
                CONTINUE;
            END;
        END IF;
        has_locks := true;
        moment := clock_timestamp();
        SELECT array_agg(r.reservation_id), array_agg(r.booking_id) FILTER (WHERE r.booking_id IS NOT NULL)
        INTO due, booking_ids
        FROM reservations r
        WHERE r.show_id = expire_due.show_id
          AND r.holding
          AND r.expires_at <= moment;
        CONTINUE WHEN due IS NULL;

        freed := end_holds(show_id, due, 4::smallint, 4::smallint, moment);
        version := version + 1;
        UPDATE show_versions v
        SET version = expire_due.version, taken = v.taken - cardinality(freed)
        WHERE v.show_id = expire_due.show_id;
        INSERT INTO show_log (show_id, version, freed, cause, at)
        VALUES (show_id, version, freed, 'expire', moment);
        RETURN NEXT;
    END LOOP;
END $$;


-- Money has come in for bookings. HELD becomes BOOKED where every fence still matches; late money books the same seats
-- if all are free; everything else goes back (the caller announces it in this transaction). `confirmed` is the booking
-- as it is then.
CREATE OR REPLACE FUNCTION confirm_captures(
    of_bookings uuid[], of_captures text[], of_payments uuid[], amounts bigint[], currencies text[]
) RETURNS TABLE (
    place integer, outcome text, show_id uuid, booking_id uuid, version integer, booked integer[], confirmed bookings
) LANGUAGE plpgsql
-- In a session that plans each statement anew that would take longer than all that is done here.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    booking record;
    moment  timestamptz;
    i       integer;
BEGIN
    FOR i, show_id IN
        SELECT wanted.place, show_of_booking(wanted.id)
        FROM unnest(of_bookings) WITH ORDINALITY AS wanted (id, place)
        ORDER BY show_of_booking, wanted.place
    LOOP
        place := i; booking_id := of_bookings[i]; version := NULL; booked := NULL; confirmed := NULL; outcome := NULL;
        IF show_id IS NULL THEN
            outcome := 'NOT_FOUND'; RETURN NEXT; CONTINUE;
        END IF;

        SELECT v.version INTO version FROM show_versions v WHERE v.show_id = confirm_captures.show_id FOR UPDATE;
        moment := clock_timestamp();
        -- Each table's show is named by the variable: by another table's column it would not find its partition.
        SELECT b.reservation_id, b.user_id, b.status, b.seat_nos, b.total, b.currency,
               EXISTS (
                   SELECT FROM captures c
                   WHERE c.show_id = confirm_captures.show_id
                     AND c.booking_id = of_bookings[i]
                     AND c.capture_id = of_captures[i]
               ) AS seen,
               (
                   SELECT count(*)
                   FROM seat_claims c
                   WHERE c.show_id = confirm_captures.show_id
                     AND c.seat_no = ANY (b.seat_nos)
                     AND c.reservation_id = b.reservation_id
                     AND c.status = 2
                     AND c.fence = (
                         SELECT r.fence
                         FROM reservations r
                         WHERE r.show_id = confirm_captures.show_id
                           AND r.reservation_id = b.reservation_id
                     )
               ) AS matching
        INTO booking
        FROM bookings b
        WHERE b.show_id = confirm_captures.show_id
          AND b.booking_id = of_bookings[i];
        IF booking.seen THEN
            outcome := 'SEEN'; RETURN NEXT; CONTINUE;
        END IF;

        IF amounts[i] <> booking.total OR currencies[i] <> booking.currency THEN
            outcome := 'MISMATCH';
        ELSIF booking.status = 2 THEN
            outcome := 'DUPLICATE';
        ELSIF booking.status = 3 THEN
            outcome := 'CANCELLED';
        ELSIF booking.status = 1 THEN
            IF booking.matching = cardinality(booking.seat_nos) THEN
                outcome := 'CONFIRMED';
                UPDATE seat_claims c
                SET status = 3, expires_at = NULL
                WHERE c.show_id = confirm_captures.show_id
                  AND c.seat_no = ANY (booking.seat_nos);
            ELSE
                outcome := 'LATE';
            END IF;
        ELSE
            -- Late money: the same seats, if nobody has them now and the show is still to come.
            IF EXISTS (
                SELECT FROM shows s
                WHERE s.show_id = confirm_captures.show_id
                  AND (s.cancelled OR s.start_time <= moment)
            ) OR EXISTS (
                SELECT FROM seat_claims c
                WHERE c.show_id = confirm_captures.show_id
                  AND c.seat_no = ANY (booking.seat_nos)
            ) THEN
                outcome := 'LATE';
            ELSE
                outcome := 'CONFIRMED';
                INSERT INTO seat_claims (show_id, seat_no, status, reservation_id, user_id, fence)
                SELECT show_id, n, 3, booking.reservation_id, booking.user_id, version + 1
                FROM unnest(booking.seat_nos) n;
                UPDATE show_versions v
                SET taken = v.taken + cardinality(booking.seat_nos)
                WHERE v.show_id = confirm_captures.show_id;
            END IF;
        END IF;

        INSERT INTO captures (show_id, booking_id, capture_id, payment_id, amount, outcome, at)
        VALUES (show_id, of_bookings[i], of_captures[i], of_payments[i], amounts[i], outcome, moment);

        IF outcome = 'CONFIRMED' THEN
            version := version + 1;
            booked := booking.seat_nos;
            UPDATE show_versions v SET version = confirm_captures.version WHERE v.show_id = confirm_captures.show_id;
            INSERT INTO show_log (show_id, version, booked, cause, actor, at)
            VALUES (show_id, version, booked, 'confirm', booking.user_id, moment);
            UPDATE reservations r
            SET holding = false
            WHERE r.show_id = confirm_captures.show_id
              AND r.reservation_id = booking.reservation_id;
            UPDATE bookings b
            SET status = 2, payment_id = of_payments[i], capture_id = of_captures[i],
                version = b.version + 1, updated_at = moment
            WHERE b.show_id = confirm_captures.show_id
              AND b.booking_id = of_bookings[i]
            RETURNING b.* INTO confirmed;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;


-- Let a booking take over an active reservation, whose seats stay held for one payment window. The caller writes the
-- booking itself in the same transaction. Outcome: CONVERTED; or REPLAY with the stored answer, REQUEST_ID_REUSED,
-- NOT_FOUND, or what the reservation is instead (EXPIRED, RELEASED, TAKEN_OVER).
CREATE OR REPLACE FUNCTION convert_reservation(
    of_reservation uuid, of_user uuid, of_request uuid, of_content bytea, of_booking uuid, pay_within interval
) RETURNS TABLE (
    outcome text, answer bytea, show_id uuid, seat_nos integer[], quote bytea, total bigint,
    moment timestamptz, pay_by timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    seen        requests%ROWTYPE;
    reservation reservations%ROWTYPE;
BEGIN
    SELECT r.show_id INTO show_id
    FROM reservations r
    WHERE r.reservation_id = of_reservation
      AND r.show_id BETWEEN first_show_of(of_reservation) AND last_show_of(of_reservation)
      AND r.user_id = of_user;
    IF show_id IS NOT NULL THEN
        PERFORM FROM show_versions v WHERE v.show_id = convert_reservation.show_id FOR UPDATE;
    END IF;
    moment := clock_timestamp();

    SELECT * INTO seen FROM requests r WHERE r.user_id = of_user AND r.request_id = of_request;
    IF FOUND THEN
        answer := seen.answer;
        outcome := CASE
            WHEN seen.method = 'book' AND seen.content = of_content THEN 'REPLAY'
            ELSE 'REQUEST_ID_REUSED'
        END;
        RETURN NEXT; RETURN;
    END IF;
    IF show_id IS NULL THEN
        outcome := 'NOT_FOUND'; RETURN NEXT; RETURN;
    END IF;

    SELECT * INTO reservation
    FROM reservations r
    WHERE r.show_id = convert_reservation.show_id
      AND r.reservation_id = of_reservation;
    outcome := CASE
        WHEN reservation.status = 2 THEN 'TAKEN_OVER'
        WHEN reservation.status = 3 THEN 'RELEASED'
        WHEN reservation.status = 4 OR reservation.expires_at <= moment THEN 'EXPIRED'
        ELSE 'CONVERTED'
    END;
    IF outcome = 'CONVERTED' THEN
        seat_nos := reservation.seat_nos; quote := reservation.quote; total := reservation.total;
        pay_by := moment + pay_within;
        UPDATE reservations r
        SET status = 2, booking_id = of_booking, expires_at = pay_by
        WHERE r.show_id = convert_reservation.show_id
          AND r.reservation_id = of_reservation;
        UPDATE seat_claims c
        SET expires_at = pay_by
        WHERE c.show_id = convert_reservation.show_id
          AND c.seat_no = ANY (reservation.seat_nos)
          AND c.reservation_id = of_reservation;
    END IF;
    RETURN NEXT;
END $$;
