"""Server streams over hand-made HTTP/2 frames: about 2 us of CPU a push, so that the server is what limits the rate."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from bench import wire
from bench.streams_crowd import JITTER_SECONDS, Audience, Crowd, Viewer

FRAME = struct.Struct(">HBBBI")
"""A frame's header: its length (3 bytes), kind, flags, stream."""
SETTINGS = struct.Struct(">HIHI")
GIVEN_BACK = 2**24
"""Bytes after which a connection's window is opened again."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return FRAME.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


class RedialledLine:
    """One connection after another, for the viewers that share it."""

    def __init__(self, crowd: Crowd, audience: Audience) -> None:
        self._crowd = crowd
        self._audience = audience
        self._waiting: deque[Viewer] = deque()
        self._connection: StreamConnection | None = None
        self._dialling: asyncio.Task[None] | None = None

    def take(self, viewer: Viewer) -> None:
        """Open a stream for ``viewer``, as soon as there is a connection."""
        self._waiting.append(viewer)
        if self._connection is not None:
            self._connection.open(self._waiting)
        elif self._dialling is None:
            self._dialling = asyncio.create_task(self._dial())

    def close(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        if self._connection is not None:
            self._connection.close()

    async def _dial(self) -> None:
        host, port = self._audience.address.rsplit(":", 1)
        while self._connection is None:
            try:
                _, self._connection = await asyncio.get_running_loop().create_connection(
                    lambda: StreamConnection(self._crowd, self._audience.window, self._gone), host, int(port)
                )
            except OSError:
                await asyncio.sleep(random.uniform(0, JITTER_SECONDS))  # noqa: S311 - no secret
        self._dialling = None
        self._connection.open(self._waiting)

    def _gone(self, connection: StreamConnection) -> None:
        if self._connection is connection:
            self._connection = None
            if self._waiting and self._dialling is None:
                self._dialling = asyncio.create_task(self._dial())


class StreamConnection(asyncio.Protocol):
    """One HTTP/2 connection.

    Args:
        window: bytes that each stream may receive in all.
        gone: told when no more streams can be opened here.
    """

    def __init__(self, crowd: Crowd, window: int, gone: Callable[[StreamConnection], None]) -> None:
        self._crowd = crowd
        self._stream_window = window
        self._gone = gone
        self._viewers: dict[int, Viewer] = {}
        self._waiting: deque[Viewer] = deque()
        self._stream = -1
        self._window = wire.FIRST_WINDOW
        self._received = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = SETTINGS.pack(1, 0, 4, self._stream_window)  # no header table; the first window of each stream
        grown = struct.pack(">I", wire.LARGEST_WINDOW - wire.FIRST_WINDOW)
        self._transport.write(
            wire.PREFACE + _frame(wire.SETTINGS, 0, 0, settings) + _frame(wire.WINDOW_UPDATE, 0, 0, grown)
        )

    def open(self, viewers: deque[Viewer]) -> None:
        """Open a stream for each of ``viewers``; those that the server's window has no room for stay, and follow."""
        self._waiting = viewers
        out = bytearray()
        while viewers:
            request = viewers[0].request()
            if len(request) > self._window:
                break
            viewer = viewers.popleft()
            self._window -= len(request)
            self._stream += 2
            self._viewers[self._stream] = viewer
            out += _frame(wire.HEADERS, wire.END_HEADERS, self._stream, viewer.head)
            out += _frame(wire.DATA, wire.END_STREAM, self._stream, request)
        if out:
            self._transport.write(bytes(out))

    def close(self) -> None:
        self._viewers.clear()
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        viewers, self._viewers = self._viewers, {}
        for viewer in viewers.values():
            self._crowd.ended(viewer)

    def _leave(self) -> None:
        self._waiting = deque()
        self._gone(self)

    def data_received(self, data: bytes) -> None:
        now = time.time()
        if self._rest:
            data = self._rest + data
        crowd, viewers, unpack = self._crowd, self._viewers, FRAME.unpack_from
        at, end, pushes = 0, len(data), 0
        while end - at >= 9:
            high, low, kind, flags, stream = unpack(data, at)
            begin = at + 9
            after = begin + (high << 8 | low)
            if after > end:
                break
            at = after
            if kind != wire.DATA:
                self._other(kind, flags, stream, data[begin:after])
                continue
            self._received += after - begin
            viewer = viewers.get(stream)
            if viewer is None:
                continue
            payload = data[begin:after]
            known = viewer.knows.leads_to.get(payload)
            if known is None or viewer.partial:
                crowd.read(viewer, payload)
            else:
                pushes += 1
                if known is not viewer.knows:
                    known.reached.append(now)
                    viewer.knows = known
            if not viewer.greeted:
                crowd.greeted(viewer)
        self._rest = data[at:]
        crowd.pushes += pushes
        if self._received > GIVEN_BACK:
            self._transport.write(_frame(wire.WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0

    def _other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == wire.RST_STREAM or (kind == wire.HEADERS and flags & wire.END_STREAM):
            viewer = self._viewers.pop(stream, None)
            if viewer is not None:
                self._crowd.ended(viewer)
        elif kind == wire.SETTINGS and not flags & wire.ACK:
            self._transport.write(_frame(wire.SETTINGS, wire.ACK, 0, b""))
        elif kind == wire.PING and not flags & wire.ACK:
            self._transport.write(_frame(wire.PING, wire.ACK, 0, payload))
        elif kind == wire.WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload)
            self.open(self._waiting)
        elif kind == wire.GOAWAY:
            self._leave()
