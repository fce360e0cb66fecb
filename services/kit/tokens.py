"""Checking tokens: every service does it again, whatever the edge said.

Two issuers are trusted: the user service (people) and the platform (services). Keys come as JWKS files, which are read
again when they change, so that keys rotate without a restart.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import jwt

from services.kit.call import Caller, ServiceCaller, UserCaller, UserId
from services.kit.errors import Unauthenticated

ALGORITHM = "ES256"
CACHED_TOKENS = 50_000
FILE_CHECK_SECONDS = 1.0
ROLES = frozenset({"customer", "staff", "admin"})


class KeyFile:
    """A JWKS file. Looks at most once a second whether it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: dict[str, jwt.PyJWK] = {}
        self._seen: tuple[int, int] | None = None
        self._next_look = 0.0

    def find(self, kid: str) -> jwt.PyJWK | None:
        self._refresh()
        return self._keys.get(kid)

    def generation(self) -> tuple[int, int] | None:
        """Changes whenever the file does."""
        self._refresh()
        return self._seen

    def _refresh(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + FILE_CHECK_SECONDS
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen == self._seen:
                return
            entries = json.loads(self._path.read_text())["keys"]
            self._keys = {entry["kid"]: jwt.PyJWK(entry, algorithm=ALGORITHM) for entry in entries}
        except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError):
            return  # the last good keys stay; the file is replaced atomically, so this mends itself
        self._seen = seen


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs, for whom, and with which keys."""

    issuer: str
    audience: str
    keys: KeyFile


class TokenVerifier:
    """Turns a bearer token into the caller it stands for."""

    def __init__(self, *, users: Issuer, services: Issuer) -> None:
        self._users = users
        self._services = services
        self._known: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._generation: tuple[object, object] = (None, None)

    def verify(self, token: str) -> Caller:
        """The caller that ``token`` stands for; remembered until it expires or the keys change.

        Raises:
            Unauthenticated: forged, expired, for another audience, or signed by nobody we trust.
        """
        generation = (self._users.keys.generation(), self._services.keys.generation())
        if generation != self._generation:
            self._known.clear()
            self._generation = generation
        known = self._known.get(token)
        if known is not None and known[1] > time.time():
            return known[0]
        caller, expires_at = self._check(token)
        self._known[token] = (caller, expires_at)
        if len(self._known) > CACHED_TOKENS:
            self._known.popitem(last=False)
        return caller

    def _check(self, token: str) -> tuple[Caller, float]:
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            if not isinstance(kid, str) or header.get("alg") != ALGORITHM:
                raise Unauthenticated("the access token is not valid")
            for issuer in (self._users, self._services):
                key = issuer.keys.find(kid)
                if key is None:
                    continue
                claims = jwt.decode(
                    token,
                    key.key,
                    algorithms=[ALGORITHM],
                    audience=issuer.audience,
                    issuer=issuer.issuer,
                    options={"require": ["exp", "iat", "sub", "aud", "iss"]},
                )
                caller = self._user(claims) if issuer is self._users else ServiceCaller(str(claims["sub"]))
                return caller, float(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the access token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            raise Unauthenticated("the access token is not valid") from None
        raise Unauthenticated("the access token is not valid")

    @staticmethod
    def _user(claims: dict[str, object]) -> UserCaller:
        roles = claims.get("roles")
        if not isinstance(roles, list):
            raise ValueError("roles")
        return UserCaller(
            user_id=UserId(str(UUID(str(claims["sub"])))),
            session_id=str(claims.get("sid", "")),
            roles=frozenset(str(role) for role in roles) & ROLES,
        )
