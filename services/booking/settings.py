"""Booking's own settings (``MARQUEE_...`` in the environment)."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import Field, SecretStr, model_validator

from services.kit.settings import ServiceSettings


class BookingSettings(ServiceSettings):
    """Times, limits and rates of the booking service."""

    hold_seconds: float = Field(default=600, gt=0, description="how long a reservation holds its seats")
    payment_window_seconds: float = Field(default=600, gt=0, description="how long a booking waits for its payment")
    most_active_holds: int = Field(default=2, ge=1, description="a user's active reservations of one show")
    most_holds_an_hour: int = Field(default=30, ge=1, description="a user's new reservations of one show in an hour")

    fee_basis_points: int = Field(default=500, ge=0, le=10_000, description="convenience fee, of the price, 1/100 %")
    most_fee_minor: int = Field(default=6_000, ge=0, description="most convenience fee a place, minor units")
    gst_threshold_minor: int = Field(default=10_000, ge=0, description="prices above it bear the higher rate")
    gst_low_basis_points: int = Field(default=500, ge=0, le=10_000)
    gst_high_basis_points: int = Field(default=1_800, ge=0, le=10_000)
    gst_fee_basis_points: int = Field(default=1_800, ge=0, le=10_000)

    batches_at_once: int = Field(default=4, ge=1, le=16, description="batches under way when some are slow")
    batch_most: int = Field(default=32, ge=1, le=500)
    batch_gather_seconds: float = Field(
        default=0.03, ge=0, description="how long a batch that follows close upon another waits for company at most"
    )
    sweep_seconds: float = Field(default=0.25, gt=0, description="between looks for holds that are over")
    announce_seconds: float = Field(default=10.0, gt=0, description="between seat.availability events of a show")

    partition_seconds: float = Field(default=600, gt=0, description="between looks for partitions to make or archive")
    seats_kept_days: int = Field(
        default=14,
        ge=2,
        description="claims, log and reservations go to the schema `archive` so long after their shows",
    )
    bookings_kept_days: int | None = Field(
        default=None, ge=28, description="bookings, too, and out of their buyers' lists; never when unset"
    )

    region_databases: dict[str, SecretStr] = Field(
        default={}, description='further databases by name, as JSON: {"north": "postgresql://..."}'
    )
    regions: dict[int, str] = Field(
        default={}, description='which of them sells a region, as JSON: {"2": "north"}; `database_url` sells all others'
    )

    coalesce_seconds: float = Field(default=0.1, ge=0, description="the least time between two deltas of a show")
    poll_seconds: float = Field(default=1.0, gt=0, description="between checks of watched shows against PostgreSQL")
    heartbeat_seconds: float = Field(default=5.0, gt=0)
    linger_seconds: float = Field(default=30.0, ge=0, description="a live map outlives its last viewer by this")
    most_streams_a_user: int = Field(default=20, ge=1)
    most_streams_an_address: int = Field(default=500, ge=1, description="wide, because carriers share addresses")

    @model_validator(mode="after")
    def _regions_have_databases(self) -> Self:
        for region, name in self.regions.items():
            if name not in self.region_databases:
                raise ValueError(f"regions: region {region} is in `{name}`, which region_databases does not name")
        return self

    def of_database(self, name: str) -> Self:
        """The same settings for a process's work on one of ``region_databases``, which have no replicas."""
        return self.model_copy(
            update={"database_url": self.region_databases[name], "replica_database_url": SecretStr("")}
        )

    @property
    def hold_for(self) -> timedelta:
        return timedelta(seconds=self.hold_seconds)

    @property
    def pay_within(self) -> timedelta:
        return timedelta(seconds=self.payment_window_seconds)
