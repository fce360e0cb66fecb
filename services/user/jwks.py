"""The public keys as anybody may have them, from the file that every service reads."""

from __future__ import annotations

import json
from pathlib import Path

from services.kit.clock import Clock
from services.kit.errors import Unavailable

LOOK_SECONDS = 1.0
PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "kid", "use", "alg")


class PublishedKeys:
    """The JWKS file, read again at most once a second."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._body = b""
        self._read_at = float("-inf")

    def body(self) -> bytes:
        """A JWK set (RFC 7517) in JSON. Only public members pass, whatever the file holds.

        Raises:
            Unavailable: there is no such file yet.
        """
        now = self._clock().timestamp()
        if not 0 <= now - self._read_at < LOOK_SECONDS:
            self._read_at = now
            try:
                keys = json.loads(self._path.read_bytes())["keys"]
                public = [{name: key[name] for name in PUBLIC_MEMBERS if name in key} for key in keys]
                self._body = json.dumps({"keys": public}, separators=(",", ":")).encode()
            except (OSError, ValueError, KeyError, TypeError):
                pass  # the last good set stays; the file is replaced as a whole, so this mends itself
        if not self._body:
            raise Unavailable("the keys are not there yet; try again", retry_after_seconds=1)
        return self._body
