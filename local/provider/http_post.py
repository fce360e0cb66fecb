"""A small HTTP/1.1 client that only posts.

Webhooks are sent three for each payment, hundreds of payments a second, and share one core with the ledger: a general
client costs several times what the rest of a delivery does.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

_HEAD_LIMIT = 64 * 1024


class HttpPoster:
    """Posts to one address over connections that are kept open. Not for HTTPS: the simulator stays on its machine."""

    def __init__(self, url: str) -> None:
        """Raises ValueError where `url` isn't one of plain HTTP."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"webhooks go to http://host[:port]/path only, not to {url!r}")
        self._host = parts.hostname
        self._port = parts.port or 80
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = f"POST {target} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes, headers: Mapping[str, str]) -> int:
        """The status of the answer.

        Raises:
            OSError: the server can't be reached.
            EOFError: it hung up in the middle of its answer.
            ValueError: its answer isn't HTTP.
        """
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                break
            writer.close()
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=_HEAD_LIMIT)
        kept = False
        try:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"{self._head}{lines}content-length: {len(body)}\r\n\r\n".encode() + body)
            status, kept = await _read_answer(reader)
        finally:
            # Also when it is cancelled by its timeout: what may still arrive belongs to nobody.
            if kept:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return status

    def close(self) -> None:
        """Hang up."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status, and whether the connection may be used again."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    status = int(first.split(" ", 2)[1])
    headers = {
        name.strip().lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in lines)
    }
    if headers.get("transfer-encoding") == "chunked":
        await _skip_chunks(reader)
    elif "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    elif status != 204:
        return status, False
    return status, headers.get("connection") != "close"


async def _skip_chunks(reader: asyncio.StreamReader) -> None:
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        await reader.readexactly(size + 2)
        if size == 0:
            return
