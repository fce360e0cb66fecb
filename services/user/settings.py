"""Settings of the user service."""

from __future__ import annotations

from pathlib import Path

from argon2 import PasswordHasher
from pydantic import Field

from services.kit.settings import ServiceSettings


class UserSettings(ServiceSettings):
    """What the user service needs beyond what every service does."""

    signing_keys_dir: Path = Field(
        description="private keys of access tokens, `<not_before unix seconds>-<kid>.pem`; new files are noticed"
    )
    access_token_seconds: int = Field(default=15 * 60, ge=60, le=3600)

    session_idle_days: int = Field(default=30, ge=1, le=365, description="a session ends so long after its last use")
    session_most_days: int = Field(default=180, ge=1, le=730, description="and so long after sign-in in any case")
    refresh_grace_seconds: float = Field(
        default=10.0, ge=0, le=60, description="a spent refresh token may come again so soon, if its answer was lost"
    )

    cookie_secure: bool = Field(default=True, description="false only where the edge speaks plain HTTP (one machine)")

    # OWASP's second choice for argon2id, about 20 ms: https://cheatsheetseries.owasp.org (Password Storage).
    argon2_memory_kib: int = Field(default=19 * 1024, ge=8)
    argon2_iterations: int = Field(default=2, ge=1)
    argon2_lanes: int = Field(default=1, ge=1)
    password_threads: int = Field(default=2, ge=1, le=32, description="hashes computed at once")
    password_waiting: int = Field(default=64, ge=1, description="sign-ins under way; further ones are OVERLOADED")

    def password_hasher(self) -> PasswordHasher:
        """argon2id with these costs."""
        return PasswordHasher(
            time_cost=self.argon2_iterations, memory_cost=self.argon2_memory_kib, parallelism=self.argon2_lanes
        )
