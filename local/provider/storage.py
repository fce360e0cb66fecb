"""The SQLite file behind the ledger: its tables and its transactions.

Everything runs in one thread and each statement takes microseconds, so the event loop calls SQLite directly.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    receipt TEXT,
    notes TEXT NOT NULL,
    auto_capture INTEGER NOT NULL,
    unique_receipt INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'created',
    attempts INTEGER NOT NULL DEFAULT 0,
    amount_paid INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS orders_by_receipt ON orders (receipt);

CREATE TABLE IF NOT EXISTS payments (
    id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL REFERENCES orders (id),
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    method TEXT NOT NULL,
    status TEXT NOT NULL,
    amount_refunded INTEGER NOT NULL DEFAULT 0 CHECK (amount_refunded BETWEEN 0 AND amount),
    error_description TEXT,
    created_at INTEGER NOT NULL,
    -- Milliseconds; a payment that failed and was captured later has both.
    failed_at_ms INTEGER,
    captured_at_ms INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS payments_by_order ON payments (order_id);
CREATE INDEX IF NOT EXISTS payments_by_time ON payments (created_at);

CREATE TABLE IF NOT EXISTS refunds (
    id TEXT PRIMARY KEY,
    payment_id TEXT NOT NULL REFERENCES payments (id),
    amount INTEGER NOT NULL CHECK (amount > 0),
    currency TEXT NOT NULL,
    receipt TEXT,
    notes TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- When a pending refund is to be settled.
    settle_at_ms INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS refunds_by_payment ON refunds (payment_id);
CREATE INDEX IF NOT EXISTS refunds_unsettled ON refunds (settle_at_ms) WHERE status = 'pending';

CREATE TABLE IF NOT EXISTS idempotency_keys (
    key TEXT PRIMARY KEY,
    content TEXT NOT NULL,
    refund_id TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS webhooks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    body BLOB NOT NULL,
    -- The secret at the time of the event: a retry is signed with the old one, as Razorpay documents.
    secret TEXT NOT NULL,
    due_at_ms INTEGER NOT NULL,
    deliveries_left INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS webhooks_due ON webhooks (due_at_ms) WHERE deliveries_left > 0;

CREATE TABLE IF NOT EXISTS settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
"""


def open_database(file: Path) -> sqlite3.Connection:
    """Open (and where needed create) the ledger.

    WAL with `synchronous=NORMAL`: what was committed survives kill -9 of the process; only a power cut may lose
    the last moments, which no test of ours simulates.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(SCHEMA)
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements of the block, or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
