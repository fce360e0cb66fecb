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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import uvloop

from bench.percentiles import percentile

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
STATUS_200 = 0x88
"""``:status 200`` in HPACK's static table; it stands first, or behind a table size update."""
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535
GIVE_UP_SECONDS = 60

Done = Callable[[bytes | None], None]
"""Told a call's answer: its message, or None when it was refused."""


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
        return percentile(self.latencies, share)


def run(load: Load) -> Measured:
    """Send ``load`` and measure it. Call it in a process of its own."""
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(load))


async def _run(load: Load) -> Measured:
    heads: dict[str, bytes] = {}
    requests = []
    for token, body in load.calls:
        if token not in heads:
            heads[token] = head(load.address, load.method, token, rest=load.rest)
        requests.append((heads[token], body if load.rest else message(body)))
    source = iter(requests)
    links = [await connect(load.address, rest=load.rest) for _ in range(load.connections)]
    flights = [Flight(link, source, load.in_flight) for link in links]
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for flight in flights:
        flight.begin()
    done = asyncio.gather(*(flight.done for flight in flights))
    await asyncio.wait(
        (done, *(link.lost for link in links)), timeout=GIVE_UP_SECONDS, return_when=asyncio.FIRST_COMPLETED
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    if not done.done():
        raise TimeoutError("a connection was lost, or calls were not answered")
    for link in links:
        link.close()
    return Measured(
        good=sum(flight.good for flight in flights),
        bad=sum(flight.bad for flight in flights),
        seconds=seconds,
        client_cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        latencies=tuple(sorted(latency for flight in flights for latency in flight.latencies)),
    )


async def connect(address: str, *, rest: bool = False) -> Link:
    """A connection that is ready for calls."""
    host, port = address.rsplit(":", 1)
    _, link = await asyncio.get_running_loop().create_connection(lambda: Link(rest=rest), host, int(port))
    await asyncio.wait_for(link.settled, 10)
    return link


def message(body: bytes) -> bytes:
    """A serialized message as gRPC frames it."""
    return b"\0" + struct.pack(">I", len(body)) + body


def head(address: str, method: str, token: str, *, rest: bool = False) -> bytes:
    """An HPACK block of literals that are never indexed, so that it is the same for every stream."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", address.encode()),
        (b"content-type", b"application/json" if rest else b"application/grpc"),
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


class Link(asyncio.Protocol):
    """One HTTP/2 connection. An answer is its message's bytes, or None when the call was refused.

    Args:
        rest: whether calls are REST: an answer that is not a 200 is a refusal.
    """

    def __init__(self, *, rest: bool = False) -> None:
        self._rest = rest
        self._buffer = bytearray()
        self._out = bytearray()
        self._stream = -1
        self._window = FIRST_WINDOW
        self._received = 0
        self._held_back: deque[tuple[bytes, bytes, Done]] = deque()
        self._open: dict[int, Done] = {}
        self._bodies: dict[int, bytearray] = {}
        self._fine: set[int] = set()
        loop = asyncio.get_running_loop()
        self.settled: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = struct.pack(">HIHI", 1, 0, 4, LARGEST_WINDOW)  # no header table, endless stream windows
        grown = struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW)
        self._transport.write(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, grown))

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.settled, self.lost):
            if not future.done():
                future.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def close(self) -> None:
        self.lost.cancel()
        self._transport.close()

    def call(self, head: bytes, body: bytes, done: Done) -> None:
        """Ask; ``flush`` sends what was asked, as the end of every read does."""
        if len(body) > self._window or self._held_back:
            self._held_back.append((head, body, done))
            return
        self._stream += 2
        self._window -= len(body)
        self._open[self._stream] = done
        self._out += _frame(HEADERS, END_HEADERS, self._stream, head) + _frame(DATA, END_STREAM, self._stream, body)

    def flush(self) -> None:
        if self._out:
            self._transport.write(bytes(self._out))
            self._out.clear()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        buffer, at = self._buffer, 0
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
                if length:
                    self._bodies.setdefault(stream, bytearray()).extend(buffer[payload:at])
            elif kind == HEADERS and self._rest and STATUS_200 in buffer[payload : payload + 2]:
                self._fine.add(stream)
            if kind in (DATA, HEADERS):
                if flags & END_STREAM:
                    self._end(stream)
            elif kind == RST_STREAM:
                self._bodies.pop(stream, None)
                self._end(stream)
            elif kind == SETTINGS and not flags & ACK:
                self._transport.write(_frame(SETTINGS, ACK, 0, b""))
                if not self.settled.done():
                    self.settled.set_result(None)
            elif kind == PING and not flags & ACK:
                self._transport.write(_frame(PING, ACK, 0, bytes(buffer[payload:at])))
            elif kind == WINDOW_UPDATE and stream == 0:
                self._window += int.from_bytes(buffer[payload:at])
                waiting, self._held_back = self._held_back, deque()
                for entry in waiting:
                    self.call(*entry)
        del buffer[:at]
        if self._received > 2**24:
            self._transport.write(_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        self.flush()

    def _end(self, stream: int) -> None:
        done, body = self._open.pop(stream, None), self._bodies.pop(stream, None)
        if self._rest and stream not in self._fine:
            body = None
        self._fine.discard(stream)
        if done is not None:
            done(None if body is None else bytes(body) if self._rest else bytes(body[5:]))


class Flight:
    """Keeps ``in_flight`` calls of ``source`` under way on a link until there are no more."""

    def __init__(self, link: Link, source: Iterator[tuple[bytes, bytes]], in_flight: int) -> None:
        self._link = link
        self._source = source
        self._in_flight = in_flight
        self._under_way = 0
        self.good = self.bad = 0
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        for _ in range(self._in_flight):
            self._next()
        self._link.flush()

    def _next(self) -> None:
        request = next(self._source, None)
        if request is not None:
            self._under_way += 1
            self._link.call(*request, partial(self._answered, time.perf_counter()))
        elif not self._under_way and not self.done.done():
            self.done.set_result(None)

    def _answered(self, asked: float, body: bytes | None) -> None:
        self.latencies.append(time.perf_counter() - asked)
        self._under_way -= 1
        if body is None:
            self.bad += 1
        else:
            self.good += 1
        self._next()
