"""Rows of the ledger as the JSON entities that Razorpay documents."""

import json
from collections.abc import Mapping
from typing import Any, Protocol


class Row(Protocol):
    """What is read of a row of SQLite's, by column."""

    def __getitem__(self, column: str, /) -> Any: ...


def order_entity(row: Row) -> dict[str, Any]:
    """https://razorpay.com/docs/api/orders/entity"""
    return {
        "id": row["id"],
        "entity": "order",
        "amount": row["amount"],
        "amount_paid": row["amount_paid"],
        "amount_due": row["amount"] - row["amount_paid"],
        "currency": row["currency"],
        "receipt": row["receipt"],
        "offer_id": None,
        "status": row["status"],
        "attempts": row["attempts"],
        "notes": json.loads(row["notes"]),
        "created_at": row["created_at"],
    }


def payment_entity(row: Row, notes: Mapping[str, str]) -> dict[str, Any]:
    """https://razorpay.com/docs/api/payments/entity; `notes` are the order's."""
    failed = row["status"] == "failed"
    refunded = row["amount_refunded"]
    return {
        "id": row["id"],
        "entity": "payment",
        "amount": row["amount"],
        "currency": row["currency"],
        "status": row["status"],
        "order_id": row["order_id"],
        "international": False,
        "method": row["method"],
        "amount_refunded": refunded,
        "refund_status": None if refunded == 0 else "full" if refunded == row["amount"] else "partial",
        "captured": row["captured_at_ms"] is not None,
        "description": None,
        "notes": dict(notes),
        "error_code": "BAD_REQUEST_ERROR" if failed else None,
        "error_description": row["error_description"] if failed else None,
        "error_source": "customer" if failed else None,
        "error_step": "payment_authentication" if failed else None,
        "error_reason": "payment_failed" if failed else None,
        "created_at": row["created_at"],
    }


def refund_entity(row: Row) -> dict[str, Any]:
    """https://razorpay.com/docs/api/refunds/entity"""
    return {
        "id": row["id"],
        "entity": "refund",
        "amount": row["amount"],
        "currency": row["currency"],
        "payment_id": row["payment_id"],
        "notes": json.loads(row["notes"]),
        "receipt": row["receipt"],
        "acquirer_data": {"arn": None},
        "created_at": row["created_at"],
        "batch_id": None,
        "status": row["status"],
        "speed_processed": "normal",
        "speed_requested": "normal",
    }


def collection(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Razorpay's list of entities."""
    return {"entity": "collection", "count": len(items), "items": items}
