"""Accounts, sessions, refresh tokens, counted sign-in attempts"""

from alembic import op

from services.kit.migrations import create_event_tables, create_request_table

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE users (
            user_id           uuid        NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
            email             text        NOT NULL CHECK (email = lower(email)),
            phone             text        NOT NULL DEFAULT '',
            name              text        NOT NULL,
            password_hash     text        NOT NULL,
            roles             text[]      NOT NULL DEFAULT '{customer}'
                                          CHECK (roles <@ '{customer,staff,admin}' AND roles <> '{}'),
            language          text        NOT NULL DEFAULT '',
            genres            text[]      NOT NULL DEFAULT '{}',
            city_id           text        NOT NULL DEFAULT '',
            notify_email      boolean     NOT NULL DEFAULT true,
            notify_sms        boolean     NOT NULL DEFAULT false,
            notify_push       boolean     NOT NULL DEFAULT false,
            notify_marketing  boolean     NOT NULL DEFAULT false,
            created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
            updated_at        timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE UNIQUE INDEX users_email ON users (email);

        CREATE TABLE sessions (
            session_id   uuid        NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
            user_id      uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
            user_agent   text        NOT NULL DEFAULT '',
            created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
            last_used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            expires_at   timestamptz NOT NULL,
            ended_at     timestamptz,
            ended_by     text        CHECK (ended_by IN ('logout', 'revoked', 'reuse', 'too_many'))
        );
        CREATE INDEX sessions_of_user ON sessions (user_id, created_at DESC);
        CREATE INDEX sessions_over ON sessions (least(expires_at, ended_at));

        -- Spent ones stay as long as their session, so that one that comes back is recognised.
        CREATE TABLE refresh_tokens (
            token_hash bytea       NOT NULL PRIMARY KEY,
            session_id uuid        NOT NULL REFERENCES sessions ON DELETE CASCADE,
            issued_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
            spent_at   timestamptz
        );
        CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id, spent_at);

        -- Attempts that did not succeed (yet), also on addresses that have no account. `place` is where a known
        -- device is, or empty for everybody else. Here and not in the cache: losing the cache must not let guesses in.
        CREATE TABLE login_attempts (
            account_key bytea       NOT NULL,
            place       bytea       NOT NULL,
            attempts    integer     NOT NULL DEFAULT 0,
            last_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (account_key, place)
        );
        CREATE INDEX login_attempts_last_at ON login_attempts (last_at);

        CREATE TABLE known_places (
            account_key bytea       NOT NULL,
            place       bytea       NOT NULL,
            last_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (account_key, place)
        );
        CREATE INDEX known_places_last_at ON known_places (last_at);
    """)
    create_event_tables(op)
    create_request_table(op)
