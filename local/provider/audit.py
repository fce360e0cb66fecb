"""The whole ledger for those who check the books: the truth about the money that no service of ours wrote."""

import json
import sqlite3
from typing import Any


class Audit:
    """Reads only."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def everything(self) -> dict[str, Any]:
        """Each order, payment and refund, with its receipt and notes."""
        return {
            "orders": [
                {**dict(row), "notes": json.loads(row["notes"])}
                for row in self._connection.execute("SELECT * FROM orders ORDER BY rowid")
            ],
            "payments": [
                {**dict(row), "captured": row["captured_at_ms"] is not None}
                for row in self._connection.execute("SELECT * FROM payments ORDER BY rowid")
            ],
            "refunds": [
                {**dict(row), "notes": json.loads(row["notes"])}
                for row in self._connection.execute("SELECT * FROM refunds ORDER BY rowid")
            ],
        }

    def summary(self) -> dict[str, Any]:
        """Counts and sums; amounts in minor units, of all currencies together."""
        return {
            "orders": self._number("SELECT count(*) FROM orders"),
            "orders_paid": self._number("SELECT count(*) FROM orders WHERE status = 'paid'"),
            "payments": self._by_status("payments"),
            "captures": self._number("SELECT count(*) FROM payments WHERE captured_at_ms IS NOT NULL"),
            "captured_amount": self._number("SELECT sum(amount) FROM payments WHERE captured_at_ms IS NOT NULL"),
            "refunds": self._by_status("refunds"),
            "refunded_amount": self._number("SELECT sum(amount) FROM refunds WHERE status <> 'failed'"),
            # Orders that were paid more than once.
            "double_captures": self._number(
                "SELECT count(*) FROM (SELECT 1 FROM payments WHERE captured_at_ms IS NOT NULL"
                " GROUP BY order_id HAVING count(*) > 1)"
            ),
            # The same payment was reported failed first.
            "failed_then_captured": self._number(
                "SELECT count(*) FROM payments WHERE failed_at_ms IS NOT NULL AND captured_at_ms IS NOT NULL"
            ),
            # An attempt failed, and a later one of the same order was captured.
            "failed_attempt_then_captured": self._number(
                "SELECT count(DISTINCT paid.order_id) FROM payments AS paid JOIN payments AS failed"
                " ON failed.order_id = paid.order_id AND failed.id <> paid.id AND failed.status = 'failed'"
                " WHERE paid.captured_at_ms >= failed.failed_at_ms"
            ),
        }

    def _number(self, query: str) -> int:
        return self._connection.execute(query).fetchone()[0] or 0

    def _by_status(self, table: str) -> dict[str, int]:
        return {
            row[0]: row[1] for row in self._connection.execute(f"SELECT status, count(*) FROM {table} GROUP BY status")
        }
