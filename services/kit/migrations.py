"""Bringing a service's database up to date, and the tables that every service's database has.

Functions in SQL have one text, ``services/<service>/migrations/*_functions.sql``, which is run each time after the
revisions: a revision changes tables, a changed function needs none (unless it goes away, or what it takes or answers
changes: then a revision drops it).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import psycopg
import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from services.kit.engine import connect_args
from services.kit.outbox import OUTBOX, OUTBOX_AHEAD, OUTBOX_SENT, RELAY_ASLEEP
from services.kit.partitions import partition

log = structlog.get_logger()
KIT = Path(__file__).parent
LOCK = 7_205_301  # any number, as long as only migrations use it


WAKE = """
    CREATE TRIGGER outbox_wake AFTER INSERT ON outbox
        FOR EACH STATEMENT EXECUTE FUNCTION outbox_wake()
"""


class Executes(Protocol):
    """What revisions know as ``alembic.op``, which is a module and not the `Operations` that it stands for."""

    def execute(self, sqltext: str, /) -> None: ...


def migrate(service: str, url: str, *, revision: str = "head") -> None:
    """Run the Alembic revisions in ``services/<service>/migrations/`` that ``url``'s database lacks.

    An earlier ``revision`` than the newest leaves the database as that one did, for tests of what comes after.
    Several processes may call this at once; one works, the others wait.
    """
    folder = KIT.parent / service / "migrations"
    config = Config()
    config.set_main_option("script_location", str(KIT / "alembic"))
    config.set_main_option("version_locations", str(folder))
    config.set_main_option("path_separator", "newline")
    engine = create_engine("postgresql+psycopg://", connect_args=connect_args(url), poolclass=NullPool)
    with engine.connect() as lock, engine.connect() as connection:
        lock.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
        if revision == "head":
            # The driver itself, because colons and percent signs in SQL are nobody's parameters here.
            driver: Any = connection.connection.driver_connection
            for functions in sorted(folder.glob("*_functions.sql")):
                driver.execute(functions.read_text())
            partition_event_tables(driver)
            driver.commit()
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
        {WAKE};
    """)


def partition_event_tables(connection: psycopg.Connection[Any]) -> None:
    """Partition the outbox, and what was sent of it, by day, unless they are."""
    partition(connection, OUTBOX_SENT, ahead=OUTBOX_AHEAD)
    if partition(connection, OUTBOX, ahead=OUTBOX_AHEAD):
        connection.execute("DROP TRIGGER outbox_wake ON outbox_default")
        connection.execute(WAKE)


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
