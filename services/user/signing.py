"""Signing access tokens (ES256), with keys that follow one another without a restart and without an error.

A key is a file ``<not_before>-<kid>.pem``. The newest whose ``not_before`` (Unix seconds) has passed signs; its public
half stands in the JWKS for a while before that, so every verifier knows it by then.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.user.domain import Account, SessionId

log = structlog.get_logger()

ALGORITHM = "ES256"
LOOK_SECONDS = 1.0
FILE_NAME = re.compile(r"([0-9]{1,12})-([A-Za-z0-9_-]{1,64})\.pem")


@dataclass(frozen=True, slots=True)
class SigningKey:
    not_before: int
    kid: str
    private: ec.EllipticCurvePrivateKey


class SigningKeys:
    """The keys in ``folder``, looked at again at most once a second."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._keys: dict[str, SigningKey] = {}
        self._bad: set[str] = set()
        self._looked_at = float("-inf")

    def current(self) -> SigningKey:
        """The key that signs now.

        Raises:
            Unavailable: there is none.
        """
        now = self._clock().timestamp()
        if not 0 <= now - self._looked_at < LOOK_SECONDS:
            self._look()
            self._looked_at = now
        ready = [key for key in self._keys.values() if key.not_before <= now]
        if not ready:
            raise Unavailable("nobody can be signed in just now; try again", retry_after_seconds=5)
        return max(ready, key=lambda key: (key.not_before, key.kid))

    def _look(self) -> None:
        try:
            names = {path.name for path in self._folder.iterdir() if path.suffix == ".pem"}
        except OSError as error:
            log.warning("signing_folder_unreadable", folder=str(self._folder), error=str(error))
            return  # the keys we have stay good
        self._keys = {name: key for name, key in self._keys.items() if name in names}
        self._bad &= names
        for name in names - self._keys.keys():
            key = self._read(name)
            if key is not None:
                self._keys[name] = key
                self._bad.discard(name)
                log.info("signing_material_found", kid=key.kid, not_before=key.not_before)
            elif name not in self._bad:
                self._bad.add(name)  # said once; it may still be being written
                log.warning("signing_file_not_usable", file=name)

    def _read(self, name: str) -> SigningKey | None:
        match = FILE_NAME.fullmatch(name)
        if match is None:
            return None
        try:
            private = load_pem_private_key((self._folder / name).read_bytes(), password=None)
        except (OSError, ValueError, TypeError):
            return None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
            return None
        return SigningKey(int(match[1]), match[2], private)


class AccessTokens:
    """Makes access tokens; ``docs/architecture.md`` lists the claims."""

    def __init__(self, keys: SigningKeys, clock: Clock, *, issuer: str, audience: str, seconds: int) -> None:
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self.seconds = seconds

    def make(self, account: Account, session_id: SessionId) -> str:
        """A token for one session of one account.

        Raises:
            Unavailable: there is no key to sign with.
        """
        key = self._keys.current()
        now = int(self._clock().timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": account.user_id,
            "sid": session_id,
            "roles": list(account.roles),
            "iat": now,
            "exp": now + self.seconds,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid})
