"""Refusals in Razorpay's words and shape."""

from typing import Any


class ProviderError(Exception):
    """A call that is refused: answered as `{"error": {...}}`."""

    def __init__(
        self, description: str, *, field: str | None = None, reason: str = "input_validation_failed", status: int = 400
    ) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.field = field
        self.reason = reason

    def body(self) -> dict[str, Any]:
        """The JSON that Razorpay documents."""
        code = "SERVER_ERROR" if self.status >= 500 else "BAD_REQUEST_ERROR"
        error: dict[str, Any] = {
            "code": code,
            "description": self.description,
            "source": "internal" if self.status >= 500 else "business",
            "step": "payment_initiation",
            "reason": "server_error" if self.status >= 500 else self.reason,
            "metadata": {},
        }
        if self.field is not None:
            error["field"] = self.field
        return {"error": error}


class UnknownIdError(ProviderError):
    """No such entity; Razorpay answers 400, not 404."""

    def __init__(self) -> None:
        super().__init__("The id provided does not exist", field="id")
