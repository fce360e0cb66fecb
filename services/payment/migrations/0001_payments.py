"""Payments, their attempts and refunds, and what we have heard from and asked of providers."""

from alembic import op

from services.kit.migrations import create_event_tables, create_request_table

revision = "payment_0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    op.execute("""
        CREATE TABLE payments (
            payment_id        uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
            booking_id        uuid        NOT NULL UNIQUE,
            user_id           uuid        NOT NULL,
            amount_minor      bigint      NOT NULL CHECK (amount_minor > 0),
            currency          text        NOT NULL,
            method            text        NOT NULL,
            status            text        NOT NULL DEFAULT 'CREATED' CHECK (status IN
                ('CREATED', 'AUTHORIZED', 'CAPTURED', 'PARTIALLY_REFUNDED', 'REFUNDED', 'FAILED')),
            provider          text        NOT NULL,
            -- NULL until the provider has answered once.
            provider_order_id text        UNIQUE,
            pay_by            timestamptz NOT NULL,
            description       text        NOT NULL,
            failure           text        NOT NULL DEFAULT '',
            version           integer     NOT NULL DEFAULT 1,
            created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
            updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
            -- When the provider is asked next what became of the order; NULL when no more.
            next_poll_at      timestamptz,
            polls             integer     NOT NULL DEFAULT 0
        );
        CREATE INDEX payments_next_poll ON payments (next_poll_at) WHERE next_poll_at IS NOT NULL;

        -- A payment at the provider under one of our orders. One that is CAPTURED is called a capture.
        CREATE TABLE attempts (
            attempt_id   text        NOT NULL PRIMARY KEY,
            payment_id   uuid        NOT NULL REFERENCES payments,
            -- domain.AttemptState: 1 created, 2 failed, 3 authorized, 4 captured.
            state        smallint    NOT NULL CHECK (state BETWEEN 1 AND 4),
            amount_minor bigint      NOT NULL,
            currency     text        NOT NULL,
            failure      text        NOT NULL DEFAULT '',
            -- Not what the order asked for: paid back, and booking never hears of it.
            mismatched   boolean     NOT NULL DEFAULT false,
            created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
            captured_at  timestamptz
        );
        CREATE INDEX attempts_of_payment ON attempts (payment_id);

        -- What the provider reports of orders that we don't know (yet).
        CREATE TABLE unmatched (
            attempt_id   text        NOT NULL PRIMARY KEY,
            provider     text        NOT NULL,
            order_id     text        NOT NULL,
            state        smallint    NOT NULL,
            amount_minor bigint      NOT NULL,
            currency     text        NOT NULL,
            first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            next_look_at timestamptz DEFAULT clock_timestamp(),
            looks        integer     NOT NULL DEFAULT 0,
            outcome      text        NOT NULL DEFAULT ''
        );
        CREATE INDEX unmatched_next_look ON unmatched (next_look_at) WHERE next_look_at IS NOT NULL;

        CREATE TABLE refunds (
            refund_id          uuid        NOT NULL PRIMARY KEY,
            -- NULL: of a capture that belongs to nothing of ours.
            payment_id         uuid        REFERENCES payments,
            provider           text        NOT NULL,
            capture_id         text        NOT NULL,
            amount_minor       bigint      NOT NULL CHECK (amount_minor > 0),
            currency           text        NOT NULL,
            reason             text        NOT NULL,
            requested_by       text        NOT NULL,
            status             text        NOT NULL DEFAULT 'REQUESTED' CHECK (status IN
                ('REQUESTED', 'PENDING', 'PROCESSED', 'FAILED')),
            provider_refund_id text        UNIQUE,
            -- Counts up when the provider took a refund and then failed it; part of our idempotency key.
            generation         integer     NOT NULL DEFAULT 1,
            tries              integer     NOT NULL DEFAULT 0,
            next_try_at        timestamptz DEFAULT clock_timestamp(),
            problem            text        NOT NULL DEFAULT '',
            created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
            updated_at         timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX refunds_of_payment ON refunds (payment_id);
        CREATE INDEX refunds_of_capture ON refunds (capture_id);
        CREATE INDEX refunds_due ON refunds (next_try_at) WHERE status IN ('REQUESTED', 'PENDING');

        CREATE TABLE webhook_events (
            provider    text        NOT NULL,
            event_id    text        NOT NULL,
            type        text        NOT NULL,
            -- Ids and amounts only: the body also has the buyer's address and telephone number.
            facts       jsonb       NOT NULL,
            received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (provider, event_id)
        );
        CREATE INDEX webhook_events_received ON webhook_events (received_at);

        -- A call that may have had its effect although its answer never came. Written before the call is made.
        CREATE TABLE provider_calls (
            key        text        NOT NULL PRIMARY KEY,
            kind       text        NOT NULL CHECK (kind IN ('open_order', 'refund', 'capture')),
            state      text        NOT NULL CHECK (state IN ('IN_PROGRESS', 'DONE', 'REFUSED')),
            tries      integer     NOT NULL DEFAULT 1,
            problem    text        NOT NULL DEFAULT '',
            started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            ended_at   timestamptz
        );
        CREATE INDEX provider_calls_open ON provider_calls (started_at) WHERE state = 'IN_PROGRESS';
    """)
    create_event_tables(op)
    create_request_table(op)
