"""The refresh token in a cookie, where a page's scripts cannot read it and other sites cannot send it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta


class RefreshCookie:
    """Writes and reads the cookie.

    Args:
        secure: only over HTTPS. Then its name begins with ``__Host-``, which browsers accept from this very host only.
        lifetime: how long browsers keep it; as long as the session may lie idle.
    """

    def __init__(self, *, secure: bool, lifetime: timedelta) -> None:
        self._name = "__Host-marquee_refresh" if secure else "marquee_refresh"
        self._attributes = "Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
        self._seconds = int(lifetime.total_seconds())

    def holding(self, token: str) -> str:
        """A ``set-cookie`` that keeps ``token``."""
        return f"{self._name}={token}; Max-Age={self._seconds}; {self._attributes}"

    def cleared(self) -> str:
        """A ``set-cookie`` that makes the browser forget it."""
        return f"{self._name}=; Max-Age=0; {self._attributes}"

    def read(self, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        """The token that came in the metadata ``cookie``; empty when there is none."""
        for key, value in metadata:
            if key != "cookie" or not isinstance(value, str):
                continue
            for pair in value.split(";"):
                name, _, token = pair.strip().partition("=")
                if name == self._name:
                    return token.strip().strip('"')
        return ""
