-- Each of these does a batch in one call. Lock order, here and elsewhere: payments by the order of their bookings' ids,
-- then what is under them. Time is clock_timestamp() read after the locks.

-- Give each booking its one payment, and keep that the provider is about to be asked for its order, where it has none.
-- Who asked before with the same request id gets that answer instead, and nothing is done. The bookings come in the
-- order of their ids.
CREATE OR REPLACE FUNCTION open_payments(
    callers text[], request_ids uuid[], of_bookings uuid[], of_users uuid[], amounts bigint[], currencies text[],
    methods text[], providers text[], pay_bys timestamptz[], descriptions text[]
) RETURNS TABLE (
    place integer, message text, content bytea, answer bytea,
    payment_id uuid, booking_id uuid, user_id uuid, amount_minor bigint, currency text, method text, status text,
    provider text, provider_order_id text, pay_by timestamptz, failure text, version integer, created_at timestamptz,
    updated_at timestamptz, moment timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_payment payments%ROWTYPE;
BEGIN
    FOR i IN 1 .. cardinality(of_bookings) LOOP
        SELECT r.method, r.content, r.answer
        INTO message, content, answer
        FROM requests r
        WHERE r.caller = callers[i]
          AND r.request_id = request_ids[i];
        IF message IS NULL THEN
            INSERT INTO payments (
                booking_id, user_id, amount_minor, currency, method, provider, pay_by, description
            ) VALUES (
                of_bookings[i], of_users[i], amounts[i], currencies[i], methods[i], providers[i], pay_bys[i],
                descriptions[i]
            )
            ON CONFLICT (booking_id) DO NOTHING
            RETURNING * INTO found_payment;
            IF NOT FOUND THEN
                -- Locked before what is under it: whoever answers does so too, and the next wish of this booking would
                -- wait for him with the call locked.
                SELECT * INTO found_payment FROM payments p WHERE p.booking_id = of_bookings[i] FOR UPDATE;
            END IF;
            IF found_payment.provider_order_id IS NULL
                AND (found_payment.user_id, found_payment.amount_minor, found_payment.currency)
                    = (of_users[i], amounts[i], currencies[i])
            THEN
                INSERT INTO provider_calls AS known (key, kind, state)
                VALUES ('open_order/' || found_payment.payment_id, 'open_order', 'IN_PROGRESS')
                ON CONFLICT (key) DO UPDATE
                SET state = 'IN_PROGRESS', tries = known.tries + 1, started_at = clock_timestamp(), ended_at = NULL;
            END IF;
        ELSE
            found_payment := NULL;
        END IF;
        RETURN QUERY SELECT
            i, message, content, answer,
            found_payment.payment_id, found_payment.booking_id, found_payment.user_id, found_payment.amount_minor,
            found_payment.currency, found_payment.method, found_payment.status, found_payment.provider,
            found_payment.provider_order_id, found_payment.pay_by, found_payment.failure, found_payment.version,
            found_payment.created_at, found_payment.updated_at, clock_timestamp();
    END LOOP;
END $$;


-- Bring payments to the checkout and keep what is answered, each only if its payment is as it was seen and nothing was
-- answered to the request yet. Answers which were done; whose payment is not among them looks again.
CREATE OR REPLACE FUNCTION answer_initiations(
    of_payments uuid[], seen_versions integer[], new_versions integer[], order_ids text[], methods text[],
    statuses text[], failures text[], updated_ats timestamptz[],
    callers text[], request_ids uuid[], messages text[], contents bytea[], answers bytea[]
) RETURNS SETOF integer LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. cardinality(of_payments) LOOP
        PERFORM FROM payments p
        WHERE p.payment_id = of_payments[i]
          AND p.version = seen_versions[i]
        FOR UPDATE;
        CONTINUE WHEN NOT FOUND;

        INSERT INTO requests (caller, request_id, method, content, answer)
        VALUES (callers[i], request_ids[i], messages[i], contents[i], answers[i])
        ON CONFLICT (caller, request_id) DO NOTHING;
        CONTINUE WHEN NOT FOUND;

        IF new_versions[i] <> seen_versions[i] THEN
            UPDATE payments p
            SET provider_order_id = order_ids[i],
                method = methods[i],
                status = statuses[i],
                failure = failures[i],
                version = new_versions[i],
                updated_at = updated_ats[i]
            WHERE p.payment_id = of_payments[i];
            UPDATE provider_calls c
            SET state = 'DONE', problem = '', ended_at = clock_timestamp()
            WHERE c.key = 'open_order/' || of_payments[i]
              AND c.state <> 'DONE';
        END IF;
        RETURN NEXT i;
    END LOOP;
END $$;


-- Keep the webhooks that came, and lock and read the payments of some orders. The first row tells which of the events are
-- new (`new_events`) and the time; each further one is a payment with what is under it.
CREATE OR REPLACE FUNCTION lock_for_reports(of_provider text, events jsonb, of_orders text[])
RETURNS TABLE (
    new_events text[], moment timestamptz,
    payment_id uuid, booking_id uuid, user_id uuid, amount_minor bigint, currency text, method text, status text,
    provider text, provider_order_id text, pay_by timestamptz, failure text, version integer, created_at timestamptz,
    updated_at timestamptz, attempt_ids text[], attempt_states smallint[], captured bigint, refunded bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    locked_ids uuid[];
BEGIN
    WITH added AS (
        INSERT INTO webhook_events (provider, event_id, type, facts)
        SELECT of_provider, e.event_id, e.type, e.facts
        FROM jsonb_to_recordset(events) AS e (event_id text, type text, facts jsonb)
        ORDER BY e.event_id
        ON CONFLICT (provider, event_id) DO NOTHING
        RETURNING event_id
    )
    SELECT coalesce(array_agg(event_id), '{}') INTO new_events
    FROM added;

    SELECT array_agg(locked.payment_id) INTO locked_ids
    FROM (
        SELECT p.payment_id
        FROM payments p
        WHERE p.provider = of_provider
          AND p.provider_order_id = ANY (of_orders)
        ORDER BY p.booking_id
        FOR UPDATE
    ) AS locked;

    moment := clock_timestamp();
    RETURN NEXT;
    -- A statement of its own, so that it sees what the last holder of each lock committed.
    RETURN QUERY SELECT
        NULL::text[], moment,
        p.payment_id, p.booking_id, p.user_id, p.amount_minor, p.currency, p.method, p.status,
        p.provider, p.provider_order_id, p.pay_by, p.failure, p.version, p.created_at,
        p.updated_at, a.ids, a.states, coalesce(a.captured, 0)::bigint, coalesce(r.refunded, 0)::bigint
    FROM payments p
    CROSS JOIN LATERAL (
        SELECT array_agg(attempt_id) AS ids, array_agg(state) AS states,
               sum(amount_minor) FILTER (WHERE state = 4 AND NOT mismatched) AS captured
        FROM attempts
        WHERE attempts.payment_id = p.payment_id
    ) AS a
    LEFT JOIN LATERAL (
        SELECT sum(refunds.amount_minor) AS refunded
        FROM refunds
        JOIN attempts ON attempts.attempt_id = refunds.capture_id
        WHERE refunds.payment_id = p.payment_id
          AND refunds.status = 'PROCESSED'
          AND NOT attempts.mismatched
    ) AS r ON a.captured > 0
    WHERE p.payment_id = ANY (locked_ids);
END $$;


-- Keep what reports changed of payments that the caller has locked, and the events that tell of it.
CREATE OR REPLACE FUNCTION settle_payments(
    at timestamptz, of_payments uuid[], statuses text[], failures text[],
    attempt_ids text[], attempt_payments uuid[], states smallint[], amounts bigint[], currencies text[],
    attempt_failures text[], mismatches boolean[],
    topics text[], keys text[], types text[], payloads bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO attempts AS known (
        attempt_id, payment_id, state, amount_minor, currency, failure, mismatched, captured_at
    )
    SELECT a.attempt_id, a.payment_id, a.state, a.amount, a.currency, a.failure, a.mismatched,
           CASE WHEN a.state = 4 THEN at END
    FROM unnest(
        attempt_ids, attempt_payments, states, amounts, currencies, attempt_failures, mismatches
    ) AS a (attempt_id, payment_id, state, amount, currency, failure, mismatched)
    ON CONFLICT (attempt_id) DO UPDATE
    SET state = excluded.state,
        failure = excluded.failure,
        mismatched = excluded.mismatched,
        captured_at = excluded.captured_at;

    UPDATE payments
    SET status = s.status, failure = s.failure, version = version + 1, updated_at = at
    FROM unnest(of_payments, statuses, failures) AS s (payment_id, status, failure)
    WHERE payments.payment_id = s.payment_id;

    IF cardinality(topics) > 0 THEN
        INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
        SELECT e.topic, e.key, e.type, e.payload
        FROM unnest(topics, keys, types, payloads) AS e (topic, key, type, payload);
    END IF;
END $$;
