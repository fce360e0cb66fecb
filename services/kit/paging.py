"""Page tokens: where the next page begins, signed and bound to the request's filters."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence

from google.protobuf.message import Message

from services.kit.errors import InvalidPageToken

MAC_BYTES = 16


class PageTokens:
    """Makes and reads page tokens.

    Args:
        key: the secret that signs them, the same in all processes; at least 32 characters.
    """

    def __init__(self, key: str) -> None:
        if len(key) < 32:
            raise ValueError("MARQUEE_PAGE_KEY must have at least 32 characters")
        self._key = key.encode()

    def make(self, request: Message, after: Sequence[str | int | float]) -> str:
        """A token for the page that begins after the row with the sort key ``after``."""
        body = json.dumps(list(after), separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(request, body) + body).decode().rstrip("=")

    def read(self, request: Message) -> list[str | int | float] | None:
        """The sort key after which the asked page begins; None for the first page.

        Raises:
            InvalidPageToken: not ours, or made for a request with other filters.
        """
        token: str = getattr(request, "page_token", "")
        if not token:
            return None
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            mac, body = raw[:MAC_BYTES], raw[MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(request, body)):
                raise InvalidPageToken
            after = json.loads(body)
        except (ValueError, UnicodeDecodeError):
            raise InvalidPageToken from None
        return list(after)

    def _mac(self, request: Message, body: bytes) -> bytes:
        """Bound to the kind of request, its filters (all fields but the page's own) and the caller's key."""
        filters = type(request)()
        filters.CopyFrom(request)
        for field in ("page_token", "page_size"):
            filters.ClearField(field)
        content = filters.DESCRIPTOR.full_name.encode() + b"\0" + filters.SerializeToString(deterministic=True)
        return hmac.digest(self._key, hashlib.sha256(content).digest() + body, "sha256")[:MAC_BYTES]
