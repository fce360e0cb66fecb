"""Bringing a service's database up to date, and the tables that every service's database has."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from services.kit.outbox import RELAY_ASLEEP

log = structlog.get_logger()
KIT = Path(__file__).parent
LOCK = 7_205_301  # any number, as long as only migrations use it


class Executes(Protocol):
    """What revisions know as ``alembic.op``, which is a module and not the `Operations` that it stands for."""

    def execute(self, sqltext: str, /) -> None: ...


def migrate(service: str, url: str) -> None:
    """Run the Alembic revisions in ``services/<service>/migrations/`` that ``url``'s database lacks.

    Several processes may call this at once; one works, the others wait.
    """
    config = Config()
    config.set_main_option("script_location", str(KIT / "alembic"))
    config.set_main_option("version_locations", str(KIT.parent / service / "migrations"))
    config.set_main_option("path_separator", "newline")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with engine.connect() as lock, engine.connect() as connection:
        lock.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    engine.dispose()
    log.info("migrated", database=service)


def create_event_tables(op: Executes) -> None:
    """The outbox, what the relay has sent of it, and the inbox. ``outbox``'s columns are Debezium's Event Router's.

    Rows of the outbox are only ever inserted. A trigger wakes the relay at commit, if it sleeps: commits that notify
    wait for each other (measured with 8 writers: 4,000/s that always notify, 12,000/s that do so only when needed).
    """
    op.execute(f"""
        CREATE TABLE outbox (
            id            uuid        NOT NULL DEFAULT uuidv7() PRIMARY KEY,
            aggregatetype text        NOT NULL,
            aggregateid   text        NOT NULL,
            type          text        NOT NULL,
            payload       bytea       NOT NULL,
            headers       jsonb       NOT NULL DEFAULT '{{}}',
            created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX outbox_created_at ON outbox (created_at);

        CREATE TABLE outbox_sent (
            id      uuid        NOT NULL PRIMARY KEY,
            sent_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );

        CREATE TABLE inbox (
            consumer    text        NOT NULL,
            event_id    uuid        NOT NULL,
            received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            failure     text,       -- why it had no effect, when the consumer gave up on it
            PRIMARY KEY (consumer, event_id)
        );
        CREATE INDEX inbox_received_at ON inbox (received_at);

        CREATE FUNCTION outbox_wake() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT pg_try_advisory_xact_lock_shared({RELAY_ASLEEP}) THEN
                PERFORM pg_notify('outbox', '');
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER outbox_wake AFTER INSERT ON outbox
            FOR EACH STATEMENT EXECUTE FUNCTION outbox_wake();
    """)


def create_request_table(op: Executes) -> None:
    """Answers by ``(caller, request_id)``, so that a repeated request has one effect. See ``kit/idempotency.py``."""
    op.execute("""
        CREATE TABLE requests (
            caller     text        NOT NULL,
            request_id uuid        NOT NULL,
            method     text        NOT NULL,
            content    bytea       NOT NULL,
            answer     bytea       NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (caller, request_id)
        );
        CREATE INDEX requests_created_at ON requests (created_at);
    """)
