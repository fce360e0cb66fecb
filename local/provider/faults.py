"""What the simulator is told to do wrong, so that its clients can show that they cope."""

import random
import sqlite3
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


class Faults(BaseModel):
    """Everything is off by default. Percentages are of 100."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Webhooks.
    webhook_delay_ms: int = Field(0, ge=0, le=3_600_000)
    # Each event is delivered this many times.
    webhook_repeat: int = Field(1, ge=1, le=5)
    # Each delivery is put off by a random time up to this, so that they overtake one another.
    webhook_shuffle_ms: int = Field(0, ge=0, le=60_000)
    # Never delivered at all.
    webhook_drop_percent: int = Field(0, ge=0, le=100)

    # The API under /v1/.
    api_latency_ms: int = Field(0, ge=0, le=60_000)
    # 500 without an effect.
    api_error_percent: int = Field(0, ge=0, le=100)
    # The effect happens, and the answer is lost: 500.
    api_lost_answer_percent: int = Field(0, ge=0, le=100)

    # Refunds stay `pending` for this long.
    refund_pending_ms: int = Field(0, ge=0, le=3_600_000)
    # A refund that was pending ends `failed`.
    refund_fail_percent: int = Field(0, ge=0, le=100)


@dataclass(frozen=True)
class DeliveryPlan:
    """When and how often one event will be sent."""

    delays_ms: int
    times: int
    dropped: bool


class FaultBook:
    """The faults in force; kept in the ledger's file, so that a restart forgets none."""

    def __init__(self, connection: sqlite3.Connection, chance: random.Random) -> None:
        self._connection = connection
        self._chance = chance
        row = connection.execute("SELECT value FROM settings WHERE name = 'faults'").fetchone()
        self.current = Faults.model_validate_json(row["value"]) if row else Faults()

    def change(self, faults: Faults) -> None:
        """From now on do these, and only these, wrong."""
        self._connection.execute(
            "INSERT INTO settings (name, value) VALUES ('faults', ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (faults.model_dump_json(),),
        )
        self.current = faults

    def happens(self, percent: int) -> bool:
        """Whether something that goes wrong in `percent` of all cases goes wrong now."""
        return percent > 0 and self._chance.random() * 100 < percent

    def plan_delivery(self) -> DeliveryPlan:
        """What becomes of one webhook event."""
        faults = self.current
        return DeliveryPlan(
            delays_ms=faults.webhook_delay_ms + self._chance.randint(0, faults.webhook_shuffle_ms),
            times=faults.webhook_repeat,
            dropped=self.happens(faults.webhook_drop_percent),
        )

    def plan_retry_jitter_ms(self) -> int:
        """How much a repeated delivery is put off while webhooks are shuffled."""
        return self._chance.randint(0, self.current.webhook_shuffle_ms)
