"""The catalogue's settings."""

from __future__ import annotations

from pydantic import Field

from services.kit.settings import ServiceSettings


class CatalogSettings(ServiceSettings):
    """``MARQUEE_...``; see ``docs/architecture.md``."""

    availability_seconds: float = Field(default=2.0, ge=0, description="how old the number of free seats may be")
    availability_timeout_seconds: float = Field(
        default=0.5, gt=0, description="for booking's answer; lists go without it when it takes longer"
    )
