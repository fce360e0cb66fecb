"""Webhook events that wait for their delivery, in the ledger's file: a kill loses none."""

import json
import secrets
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from local.provider.clock import Clock
from local.provider.faults import FaultBook

RETRY_FIRST_MS = 250
RETRY_LONGEST_MS = 5_000


@dataclass(frozen=True)
class Delivery:
    """One event that is due."""

    seq: int
    event_id: str
    body: bytes
    secret: str
    failures: int


class WebhookQueue:
    """Events are added in the transaction of what they tell of, and leave after their last 2xx.

    Args:
        first_secret: what they are signed with until `rotate_secret`.
        subscribed: the types that the merchant asked for; all when empty.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        clock: Clock,
        faults: FaultBook,
        first_secret: str,
        subscribed: Collection[str] = (),
    ) -> None:
        self._connection = connection
        self._subscribed = frozenset(subscribed)
        self._clock = clock
        self._faults = faults
        row = connection.execute("SELECT value FROM settings WHERE name = 'webhook_secret'").fetchone()
        self._secret: str = row["value"] if row else first_secret

    def rotate_secret(self, secret: str) -> None:
        """Sign every event from now on with `secret`; those that wait keep the one they have."""
        self._connection.execute(
            "INSERT INTO settings (name, value) VALUES ('webhook_secret', ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (secret,),
        )
        self._secret = secret

    def wants(self, event_type: str) -> bool:
        """Whether the merchant subscribed to such events; to all when it named none."""
        return not self._subscribed or event_type in self._subscribed

    def add(self, event_type: str, payload: dict[str, dict[str, Any]], *, delay_ms: int = 0) -> None:
        """Tell the merchant of `event_type`; call it inside the transaction of the change."""
        plan = self._faults.plan_delivery()
        now_ms = self._clock.now_ms()
        body = json.dumps(
            {
                "entity": "event",
                "account_id": "acc_marqueesimulat",
                "event": event_type,
                "contains": list(payload),
                "payload": {name: {"entity": entity} for name, entity in payload.items()},
                "created_at": now_ms // 1000,
            },
            separators=(",", ":"),
        ).encode()
        self._connection.execute(
            "INSERT INTO webhooks (event_id, type, body, secret, due_at_ms, deliveries_left, dropped)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                f"evt_{secrets.token_hex(10)}",
                event_type,
                body,
                self._secret,
                now_ms + plan.delays_ms + delay_ms,
                0 if plan.dropped else plan.times,
                int(plan.dropped),
            ),
        )

    def due(self, *, limit: int, except_for: set[int]) -> list[Delivery]:
        """Events whose time has come and that are not under way."""
        rows = self._connection.execute(
            "SELECT seq, event_id, body, secret, failures FROM webhooks"
            " WHERE deliveries_left > 0 AND due_at_ms <= ? ORDER BY due_at_ms, seq LIMIT ?",
            (self._clock.now_ms(), limit + len(except_for)),
        )
        return [Delivery(*row) for row in rows if row["seq"] not in except_for][:limit]

    def next_due_in_ms(self) -> int | None:
        """How long until the next event that is not due yet; None when there is none."""
        now_ms = self._clock.now_ms()
        row = self._connection.execute(
            "SELECT min(due_at_ms) AS due FROM webhooks WHERE deliveries_left > 0 AND due_at_ms > ?", (now_ms,)
        ).fetchone()
        return None if row["due"] is None else max(0, row["due"] - now_ms)

    def delivered(self, delivery: Delivery) -> None:
        """The merchant answered 2xx. A repeated event stays for its next time."""
        self._connection.execute(
            "UPDATE webhooks SET deliveries_left = deliveries_left - 1, due_at_ms = ? WHERE seq = ?",
            (self._clock.now_ms() + self._faults.plan_retry_jitter_ms(), delivery.seq),
        )

    def failed(self, delivery: Delivery) -> None:
        """The merchant didn't answer 2xx in time: try again, each time later."""
        wait_ms = min(RETRY_FIRST_MS * 2 ** min(delivery.failures, 10), RETRY_LONGEST_MS)
        self._connection.execute(
            "UPDATE webhooks SET failures = failures + 1, due_at_ms = ? WHERE seq = ?",
            (self._clock.now_ms() + wait_ms, delivery.seq),
        )

    def counts(self) -> dict[str, int]:
        """Events by what became of them."""
        row = self._connection.execute(
            "SELECT count(*) AS events,"
            " coalesce(sum(deliveries_left > 0), 0) AS pending,"
            " coalesce(sum(dropped), 0) AS dropped,"
            " coalesce(sum(failures), 0) AS failed_deliveries FROM webhooks"
        ).fetchone()
        return dict(row)
