"""A load generator that costs next to nothing: gRPC, or REST, over hand-made HTTP/2 frames, in a process of its own.

A client library would take as much CPU a call as the service that it measures. Here every request is made beforehand,
and of an answer only its frames' headers are read: it was good when a message came, refused when only trailers did. A
REST call was good when the status was 200.
"""

from __future__ import annotations

import asyncio
import os
import resource
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
STATUS_200 = 0x88
"""``:status 200`` in HPACK's static table; it stands first, or behind a table size update."""
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535
GIVE_UP_SECONDS = 60


@dataclass(frozen=True)
class Load:
    """What to send.

    Args:
        address: ``host:port`` of a server that speaks h2c.
        method: ``/marquee.booking.v1.BookingService/CreateReservation``, or the path of a REST POST.
        calls: (access token, serialized request) of each call, sent once each.
        rest: whether the requests are JSON for a REST path.
        connections: how many connections share the calls.
        in_flight: calls that wait for their answer, on each connection.
        core: the processor to stay on; None for any.
    """

    address: str
    method: str
    calls: Sequence[tuple[str, bytes]]
    connections: int = 4
    in_flight: int = 16
    core: int | None = None
    rest: bool = False


@dataclass(frozen=True)
class Measured:
    """What came of a load. Times are seconds."""

    good: int
    bad: int
    seconds: float
    client_cpu: float
    latencies: tuple[float, ...] = field(repr=False)

    @property
    def rate(self) -> float:
        return self.good / self.seconds

    @property
    def saturated(self) -> bool:
        """Whether the generator may have been what limited the rate."""
        return self.client_cpu / self.seconds > 0.85

    def percentile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def run(load: Load) -> Measured:
    """Send ``load`` and measure it. Call it in a process of its own."""
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(load))


async def _run(load: Load) -> Measured:
    host, port = load.address.rsplit(":", 1)
    heads: dict[str, bytes] = {}
    requests = []
    for token, body in load.calls:
        head = heads.setdefault(token, _head(load, token))
        requests.append((head, body if load.rest else b"\0" + struct.pack(">I", len(body)) + body))
    source = iter(requests)
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(load.connections):
        _, connection = await loop.create_connection(
            lambda: Connection(source, load.in_flight, rest=load.rest), host, int(port)
        )
        connections.append(connection)
    await asyncio.wait_for(asyncio.gather(*(connection.settled for connection in connections)), 10)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for connection in connections:
        connection.begin()
    await asyncio.wait_for(asyncio.gather(*(connection.done for connection in connections)), GIVE_UP_SECONDS)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    for connection in connections:
        connection.close()
    return Measured(
        good=sum(connection.good for connection in connections),
        bad=sum(connection.bad for connection in connections),
        seconds=seconds,
        client_cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        latencies=tuple(sorted(latency for connection in connections for latency in connection.latencies)),
    )


def _head(load: Load, token: str) -> bytes:
    """An HPACK block of literals that are never indexed, so that it is the same for every stream."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", load.method.encode()),
        (b":authority", load.address.encode()),
        (b"content-type", b"application/json" if load.rest else b"application/grpc"),
        (b"te", b"trailers"),
        (b"authorization", b"Bearer " + token.encode()),
    )
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(value: bytes) -> bytes:
    """A string of HPACK (RFC 7541, 5.2), without Huffman coding."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, digits = len(value) - 127, bytearray([127])
    while rest >= 128:
        digits.append(rest % 128 + 128)
        rest //= 128
    digits.append(rest)
    return bytes(digits) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


class Connection(asyncio.Protocol):
    """One HTTP/2 connection that keeps ``in_flight`` calls under way until ``source`` has no more."""

    def __init__(self, source: Iterator[tuple[bytes, bytes]], in_flight: int, *, rest: bool = False) -> None:
        self._source = source
        self._rest = rest
        self._in_flight = in_flight
        self._buffer = bytearray()
        self._stream = -1
        self._window = FIRST_WINDOW
        self._received = 0
        self._held_back: tuple[bytes, bytes] | None = None
        self._idle = 0
        self._open: dict[int, float] = {}
        self._answered: set[int] = set()
        self.good = self.bad = 0
        self.latencies: list[float] = []
        loop = asyncio.get_running_loop()
        self.settled: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = struct.pack(">HIHI", 1, 0, 4, LARGEST_WINDOW)  # no header table, endless stream windows
        grown = struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW)
        self._transport.write(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, grown))

    def begin(self) -> None:
        self._send(self._in_flight)

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.settled, self.done):
            if not future.done():
                future.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def _send(self, count: int) -> None:
        out = bytearray()
        now = time.perf_counter()
        for sent in range(count):
            request = self._held_back or next(self._source, None)
            self._held_back = None
            if request is None:
                break
            head, body = request
            if len(body) > self._window:
                self._held_back, self._idle = request, self._idle + count - sent
                break
            self._stream += 2
            self._window -= len(body)
            self._open[self._stream] = now
            out += _frame(HEADERS, END_HEADERS, self._stream, head) + _frame(DATA, END_STREAM, self._stream, body)
        if out:
            self._transport.write(bytes(out))
        if not self._open and self._held_back is None and not self.done.done():
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        buffer, at, ended = self._buffer, 0, 0
        while len(buffer) - at >= 9:
            length = buffer[at] << 16 | buffer[at + 1] << 8 | buffer[at + 2]
            if len(buffer) - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9]) & LARGEST_WINDOW
            payload = at + 9
            at = payload + length
            if kind == DATA:
                self._received += length
                if length and not self._rest:
                    self._answered.add(stream)
            elif kind == HEADERS and self._rest and STATUS_200 in buffer[payload : payload + 2]:
                self._answered.add(stream)
            if kind in (DATA, HEADERS):
                if flags & END_STREAM:
                    ended += self._end(stream, stream in self._answered)
            elif kind == RST_STREAM:
                ended += self._end(stream, False)
            elif kind == SETTINGS and not flags & ACK:
                self._transport.write(_frame(SETTINGS, ACK, 0, b""))
                if not self.settled.done():
                    self.settled.set_result(None)
            elif kind == PING and not flags & ACK:
                self._transport.write(_frame(PING, ACK, 0, bytes(buffer[payload:at])))
            elif kind == WINDOW_UPDATE and stream == 0:
                self._window += int.from_bytes(buffer[payload:at])
                ended, self._idle = ended + self._idle, 0
        del buffer[:at]
        if self._received > 2**24:
            self._transport.write(_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        if ended:
            self._send(ended)

    def _end(self, stream: int, good: bool) -> int:
        started = self._open.pop(stream, None)
        if started is None:
            return 0
        self._answered.discard(stream)
        self.latencies.append(time.perf_counter() - started)
        if good:
            self.good += 1
        else:
            self.bad += 1
        return 1
