"""Orders, payments and refunds: what the provider knows of the money."""

import hashlib
import json
import secrets
import sqlite3
from dataclasses import dataclass
from enum import Enum
from typing import Any

from local.provider.clock import Clock
from local.provider.entities import Row, order_entity, payment_entity, refund_entity
from local.provider.errors import ProviderError, UnknownIdError
from local.provider.faults import FaultBook
from local.provider.storage import transaction
from local.provider.webhook_queue import WebhookQueue

# One rupee; other currencies are not told apart here.
MIN_AMOUNT = 100
FAILURE = "Your payment was declined by the bank. Try another method, or try again."


class Outcome(Enum):
    """What becomes of a payment at the checkout page."""

    SUCCESS = "success"
    FAILURE = "failure"
    # The very same payment is first reported failed and then succeeds ("late authorization").
    FAILURE_THEN_SUCCESS = "failure_then_success"


class Method(Enum):
    """What is paid with."""

    UPI = "upi"
    CARD = "card"
    WALLET = "wallet"
    NETBANKING = "netbanking"


@dataclass(frozen=True)
class NewOrder:
    """What a merchant asks for; amounts in minor units."""

    amount: int
    currency: str
    receipt: str | None
    notes: dict[str, str]
    auto_capture: bool
    # The same receipt answers the same order instead of making another.
    unique_receipt: bool


@dataclass(frozen=True)
class NewRefund:
    """What a merchant asks to pay back; all that is left when `amount` is None."""

    payment_id: str
    amount: int | None
    receipt: str | None
    notes: dict[str, str]
    idempotency_key: str | None

    def fingerprint(self) -> str:
        """Equal for equal requests."""
        content = json.dumps([self.payment_id, self.amount, self.receipt, self.notes], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Window:
    """Which part of a listing is asked for; times in seconds."""

    since: int = 0
    until: int = 2**53
    count: int = 10
    skip: int = 0


def new_id(prefix: str) -> str:
    """An id as Razorpay's look: `pay_29bb0fbc66ae2f`."""
    return f"{prefix}_{secrets.token_hex(7)}"


class Ledger:
    """Every change and the webhooks that tell of it commit together."""

    def __init__(self, connection: sqlite3.Connection, *, clock: Clock, queue: WebhookQueue, faults: FaultBook) -> None:
        self._connection = connection
        self._clock = clock
        self._queue = queue
        self._faults = faults

    # Orders

    def create_order(self, wish: NewOrder) -> dict[str, Any]:
        """Open an order; with `unique_receipt`, the one that has this receipt already."""
        if wish.amount < MIN_AMOUNT:
            raise ProviderError("Order amount less than minimum amount allowed", field="amount")
        with transaction(self._connection):
            if wish.unique_receipt and wish.receipt is not None:
                row = self._connection.execute(
                    "SELECT * FROM orders WHERE receipt = ? AND unique_receipt = 1", (wish.receipt,)
                ).fetchone()
                if row is not None:
                    if (row["amount"], row["currency"]) != (wish.amount, wish.currency):
                        raise ProviderError("Order receipt should be unique.", field="receipt")
                    return order_entity(row)
            created = self._connection.execute(
                "INSERT INTO orders (id, amount, currency, receipt, notes, auto_capture, unique_receipt, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
                (
                    new_id("order"),
                    wish.amount,
                    wish.currency,
                    wish.receipt,
                    json.dumps(wish.notes),
                    int(wish.auto_capture),
                    int(wish.unique_receipt),
                    self._now(),
                ),
            ).fetchone()
            return order_entity(created)

    def order(self, order_id: str) -> dict[str, Any]:
        """One order."""
        return order_entity(self._order(order_id))

    def orders(self, window: Window, *, receipt: str | None = None) -> list[dict[str, Any]]:
        """Orders, the newest first; those of one receipt where it is given."""
        of_receipt, values = ("", ()) if receipt is None else ("receipt = ? AND", (receipt,))
        rows = self._connection.execute(
            f"SELECT * FROM orders WHERE {of_receipt} created_at BETWEEN ? AND ? ORDER BY rowid DESC LIMIT ? OFFSET ?",
            (*values, window.since, window.until, window.count, window.skip),
        )
        return [order_entity(row) for row in rows]

    # Payments

    def pay(
        self,
        order_id: str,
        outcome: Outcome,
        *,
        method: Method,
        amount: int | None = None,
        webhook_delay_ms: int = 0,
    ) -> dict[str, Any]:
        """One attempt of the buyer's at the checkout page.

        Razorpay closes an order that is paid, yet two attempts that run at once (or one that its bank reports late) may
        both succeed. So an order here can be paid again, which gives a second capture.

        Args:
            amount: other than the order's, to play a provider that errs.
            webhook_delay_ms: for the events of this payment, beyond what the faults say.
        """
        with transaction(self._connection):
            order = self._order(order_id)
            now_ms = self._clock.now_ms()
            failed = outcome is not Outcome.SUCCESS
            payment: dict[str, Any] = {
                "id": new_id("pay"),
                "order_id": order_id,
                "amount": order["amount"] if amount is None else amount,
                "currency": order["currency"],
                "method": method.value,
                "status": "failed" if failed else "created",
                "amount_refunded": 0,
                "error_description": FAILURE if failed else None,
                "created_at": now_ms // 1000,
                "failed_at_ms": now_ms if failed else None,
                "captured_at_ms": None,
            }
            notes = json.loads(order["notes"])
            if failed:
                self._tell_payment("payment.failed", payment, notes, webhook_delay_ms)
            if outcome is not Outcome.FAILURE:
                payment["status"] = "authorized"
                self._tell_payment("payment.authorized", payment, notes, webhook_delay_ms)
                if order["auto_capture"]:
                    payment |= {"status": "captured", "captured_at_ms": now_ms}
                    self._tell_payment("payment.captured", payment, notes, webhook_delay_ms)
            self._connection.execute(
                f"INSERT INTO payments ({', '.join(payment)}) VALUES ({', '.join('?' * len(payment))})",
                tuple(payment.values()),
            )
            self._note_attempt(order, payment, notes, webhook_delay_ms)
            return payment_entity(payment, notes)

    def capture(self, payment_id: str, *, amount: int, currency: str) -> dict[str, Any]:
        """Take money that is authorized; the merchant must name the full amount."""
        with transaction(self._connection):
            payment = self._payment(payment_id)
            if payment["captured_at_ms"] is not None:
                raise ProviderError("This payment has already been captured")
            if payment["status"] != "authorized":
                raise ProviderError("The payment status should be authorized for action to be taken")
            if amount != payment["amount"]:
                raise ProviderError("Capture amount must be equal to the amount authorized", field="amount")
            if currency != payment["currency"]:
                raise ProviderError("Currency mismatch with the authorized payment", field="currency")
            row = self._connection.execute(
                "UPDATE payments SET status = 'captured', captured_at_ms = ? WHERE id = ? RETURNING *",
                (self._clock.now_ms(), payment_id),
            ).fetchone()
            order = self._order(row["order_id"])
            notes = json.loads(order["notes"])
            self._tell_payment("payment.captured", row, notes, 0)
            self._note_paid(order, row, notes, 0)
            return payment_entity(row, notes)

    def payment(self, payment_id: str) -> dict[str, Any]:
        """One payment."""
        return self._payment_entity(payment_id)

    def payments(self, window: Window) -> list[dict[str, Any]]:
        """Payments, the newest first."""
        return self._payment_entities(
            "WHERE payments.created_at BETWEEN ? AND ?"
            " ORDER BY payments.created_at DESC, payments.rowid DESC LIMIT ? OFFSET ?",
            (window.since, window.until, window.count, window.skip),
        )

    def payments_of_order(self, order_id: str) -> list[dict[str, Any]]:
        """Every attempt at an order, the newest first."""
        self._order(order_id)
        return self._payment_entities("WHERE payments.order_id = ? ORDER BY payments.rowid DESC", (order_id,))

    # Refunds

    def refund(self, wish: NewRefund) -> dict[str, Any]:
        """Pay back some of a capture; the same idempotency key answers the same refund."""
        with transaction(self._connection):
            if wish.idempotency_key is not None:
                known = self._connection.execute(
                    "SELECT content, refund_id FROM idempotency_keys WHERE key = ?", (wish.idempotency_key,)
                ).fetchone()
                if known is not None:
                    if known["content"] != wish.fingerprint():
                        raise ProviderError("Different request body sent for the same idempotency key")
                    return refund_entity(self._refund(known["refund_id"]))
            payment = self._payment(wish.payment_id)
            if payment["captured_at_ms"] is None:
                raise ProviderError("The payment status should be captured for action to be taken")
            left = payment["amount"] - payment["amount_refunded"]
            amount = left if wish.amount is None else wish.amount
            if left == 0:
                raise ProviderError("The payment has been fully refunded already")
            if amount > left:
                raise ProviderError("The total refund amount is greater than the refund payment amount", field="amount")
            refund_id = new_id("rfnd")
            pending_ms = self._faults.current.refund_pending_ms
            now_ms = self._clock.now_ms()
            self._connection.execute(
                "INSERT INTO refunds (id, payment_id, amount, currency, receipt, notes, status, created_at,"
                " settle_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    refund_id,
                    wish.payment_id,
                    amount,
                    payment["currency"],
                    wish.receipt,
                    json.dumps(wish.notes),
                    "pending" if pending_ms else "processed",
                    now_ms // 1000,
                    now_ms + pending_ms if pending_ms else None,
                ),
            )
            self._add_refunded(wish.payment_id, amount)
            if wish.idempotency_key is not None:
                self._connection.execute(
                    "INSERT INTO idempotency_keys (key, content, refund_id) VALUES (?, ?, ?)",
                    (wish.idempotency_key, wish.fingerprint(), refund_id),
                )
            self._tell_refund("refund.created", refund_id)
            if not pending_ms:
                self._tell_refund("refund.processed", refund_id)
            return refund_entity(self._refund(refund_id))

    def settle_refunds(self) -> None:
        """End the refunds that were pending for long enough."""
        due = self._connection.execute(
            "SELECT id, payment_id, amount FROM refunds WHERE status = 'pending' AND settle_at_ms <= ?",
            (self._clock.now_ms(),),
        ).fetchall()
        for row in due:
            with transaction(self._connection):
                failed = self._faults.happens(self._faults.current.refund_fail_percent)
                status = "failed" if failed else "processed"
                self._connection.execute("UPDATE refunds SET status = ? WHERE id = ?", (status, row["id"]))
                if failed:
                    self._add_refunded(row["payment_id"], -row["amount"])
                self._tell_refund(f"refund.{status}", row["id"])

    def refund_by_id(self, refund_id: str) -> dict[str, Any]:
        """One refund."""
        return refund_entity(self._refund(refund_id))

    def refunds(self, window: Window, *, payment_id: str | None = None) -> list[dict[str, Any]]:
        """Refunds, the newest first; those of one payment where it is given."""
        if payment_id is not None:
            self._payment(payment_id)
        rows = self._connection.execute(
            "SELECT * FROM refunds WHERE created_at BETWEEN ? AND ? AND (? IS NULL OR payment_id = ?)"
            " ORDER BY rowid DESC LIMIT ? OFFSET ?",
            (window.since, window.until, payment_id, payment_id, window.count, window.skip),
        )
        return [refund_entity(row) for row in rows]

    # Inside a transaction

    def _note_attempt(self, order: sqlite3.Row, payment: Row, notes: dict[str, str], delay_ms: int) -> None:
        self._connection.execute(
            "UPDATE orders SET attempts = attempts + 1,"
            " status = CASE status WHEN 'paid' THEN 'paid' ELSE 'attempted' END WHERE id = ?",
            (order["id"],),
        )
        if payment["captured_at_ms"] is not None:
            self._note_paid(order, payment, notes, delay_ms)

    def _note_paid(self, order: sqlite3.Row, payment: Row, notes: dict[str, str], delay_ms: int) -> None:
        paid = self._connection.execute(
            "UPDATE orders SET status = 'paid', amount_paid = amount WHERE id = ? AND status <> 'paid' RETURNING *",
            (order["id"],),
        ).fetchone()
        if paid is not None and self._queue.wants("order.paid"):
            payload = {"payment": payment_entity(payment, notes), "order": order_entity(paid)}
            self._queue.add("order.paid", payload, delay_ms=delay_ms)

    def _add_refunded(self, payment_id: str, amount: int) -> None:
        self._connection.execute(
            "UPDATE payments SET amount_refunded = amount_refunded + ? WHERE id = ?", (amount, payment_id)
        )
        self._connection.execute(
            "UPDATE payments SET status = CASE WHEN amount_refunded = amount THEN 'refunded' ELSE 'captured' END"
            " WHERE id = ?",
            (payment_id,),
        )

    def _tell_payment(self, event_type: str, payment: Row, notes: dict[str, str], delay_ms: int) -> None:
        if self._queue.wants(event_type):
            self._queue.add(event_type, {"payment": payment_entity(payment, notes)}, delay_ms=delay_ms)

    def _tell_refund(self, event_type: str, refund_id: str) -> None:
        if self._queue.wants(event_type):
            refund = self._refund(refund_id)
            payload = {"refund": refund_entity(refund), "payment": self._payment_entity(refund["payment_id"])}
            self._queue.add(event_type, payload)

    # Rows

    def _now(self) -> int:
        return self._clock.now_ms() // 1000

    def _order(self, order_id: str) -> sqlite3.Row:
        return self._row("SELECT * FROM orders WHERE id = ?", order_id)

    def _payment(self, payment_id: str) -> sqlite3.Row:
        return self._row("SELECT * FROM payments WHERE id = ?", payment_id)

    def _payment_entity(self, payment_id: str) -> dict[str, Any]:
        found = self._payment_entities("WHERE payments.id = ?", (payment_id,))
        if not found:
            raise UnknownIdError
        return found[0]

    def _payment_entities(self, where: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        rows = self._connection.execute(
            "SELECT payments.*, orders.notes AS order_notes FROM payments"
            f" JOIN orders ON orders.id = payments.order_id {where}",
            values,
        )
        return [payment_entity(row, json.loads(row["order_notes"])) for row in rows]

    def _refund(self, refund_id: str) -> sqlite3.Row:
        return self._row("SELECT * FROM refunds WHERE id = ?", refund_id)

    def _row(self, query: str, entity_id: str) -> sqlite3.Row:
        row: sqlite3.Row | None = self._connection.execute(query, (entity_id,)).fetchone()
        if row is None:
            raise UnknownIdError
        return row
