"""Settings that every service has, read from the environment (``MARQUEE_...``). ``docs/architecture.md`` lists them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """One service's settings; each service adds its own in its ``settings.py``."""

    model_config = SettingsConfigDict(env_prefix="MARQUEE_", extra="ignore", frozen=True)

    listen: str = "127.0.0.1:0"
    database_url: SecretStr = SecretStr("")
    replica_database_url: SecretStr = Field(
        default=SecretStr(""), description="a streaming replica of it, for reads that may be old; none when empty"
    )
    replica_most_lag_seconds: float = Field(
        default=2.0, gt=0, le=4, description="a replica that is further behind is not read; caches rely on the limit"
    )
    cache_url: SecretStr = SecretStr("")
    bus_url: SecretStr = SecretStr("")

    user_jwks_file: Path
    service_jwks_file: Path
    service_token_file: Path

    user_token_issuer: str = "https://marquee.invalid/users"
    user_token_audience: str = "marquee-edge"
    service_token_issuer: str = "https://marquee.invalid/services"
    service_token_audience: str = "marquee"

    user_address: str = ""
    catalog_address: str = ""
    booking_address: str = ""
    payment_address: str = ""

    page_key: SecretStr = Field(default=SecretStr(""), description="signs page tokens; at least 32 characters")

    log_format: str = Field(default="json", pattern="^(json|console)$")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    database_pool_size: int = Field(default=8, ge=1, le=200)
    database_pool_wait_seconds: float = Field(default=5.0, gt=0)
    drain_seconds: float = Field(default=3.0, ge=0, description="between readiness going off and the first refusal")
    stop_seconds: float = Field(default=5.0, ge=0, description="for calls in flight, after the drain")
    default_deadline_seconds: float = Field(default=15.0, gt=0, description="for calls that bring none")
    max_request_bytes: int = Field(default=2 * 1024 * 1024, gt=0)
