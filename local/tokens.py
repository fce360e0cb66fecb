"""Tokens that ``local/`` issues itself: services' own, and those of synthetic customers for load tests.

The claims are those of docs/architecture.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import jwt

from local import files
from local.keys import SigningKey

SERVICE_TOKEN_LIFE_S = 60 * 60
SERVICE_TOKEN_RENEWED_EVERY_S = 20 * 60
SYNTHETIC_TOKEN_LIFE_S = 12 * 60 * 60
SYNTHETIC = uuid.UUID("5b0f3c5e-2c3f-5d0e-9a57-6d6172717565")
"""Namespace of synthetic users: the n-th one is the same user in every run."""


def service_token(key: SigningKey, service: str, now: float) -> str:
    """What ``service`` shows to other services, as a projected service-account token on Kubernetes."""
    claims = {
        "iss": "https://marquee.invalid/services",
        "aud": "marquee",
        "sub": f"system:serviceaccount:marquee:{service}",
        "iat": int(now),
        "exp": int(now) + SERVICE_TOKEN_LIFE_S,
    }
    return jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": key.kid})


def renew_service_tokens(key: SigningKey, services: Iterable[str], folder: Path, now: float) -> None:
    """Write ``<service>.token`` for each; a service reads its file again when it changes."""
    for service in services:
        files.replace(folder / f"{service}.token", service_token(key, service, now).encode(), 0o600)


def synthetic_user(number: int) -> uuid.UUID:
    """The id of the ``number``-th synthetic user."""
    return uuid.uuid5(SYNTHETIC, f"customer {number}")


def synthetic_access_tokens(key: SigningKey, count: int, role: str, now: float) -> Iterator[str]:
    """Access tokens of ``count`` different users who exist only in their tokens."""
    for number in range(count):
        user = synthetic_user(number)
        claims = {
            "iss": "https://marquee.invalid/users",
            "aud": "marquee-edge",
            "sub": str(user),
            "sid": str(uuid.uuid5(user, "session")),
            "roles": [role],
            "iat": int(now),
            "exp": int(now) + SYNTHETIC_TOKEN_LIFE_S,
            "jti": str(uuid.uuid4()),
        }
        yield jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": key.kid})
