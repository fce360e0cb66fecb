"""More than a service has room for: who is refused, how it is told, and who is not refused whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from edge_backend import Context, message_class
from edge_calls import PROTOCOLS, Reply
from edge_fixtures import RPCS, World, open_world
from google.protobuf.message import Message

from gateway import admission, render

HOLD = RPCS["CreateReservation"]
LOGGED = 20
"""Of 100 refusals; in ``envoy/edge.yaml`` it is one."""
ROOM = 4
"""Calls of a crowd that may be with the service at once; in ``envoy/edge.yaml`` they are more."""


@dataclass
class Gate:
    """Keeps the calls that reach the service until it is opened."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    inside: int = 0

    async def __call__(self, _: Message, __: Context) -> Message:
        self.inside += 1
        await self.open.wait()
        return message_class(HOLD.response)()

    async def filled(self, count: int) -> None:
        """Until ``count`` calls have reached the service."""
        async with asyncio.timeout(10):
            while self.inside < count:
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
async def narrow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """An edge whose limits start at ``ROOM`` calls and never grow."""
    base = tmp_path_factory.mktemp("base")
    for source in render.BASE.iterdir():
        text = source.read_text()
        if source.name == "edge.yaml":
            assert text.count("    least: ") == text.count("    most: ") == 3
            lines = text.splitlines()
            text = "\n".join(
                f"    {line.split()[0]} {ROOM}" if line.startswith(("    least: ", "    most: ")) else line
                for line in lines
            )
            text = text.replace("percent_sampled: {numerator: 1,", f"percent_sampled: {{numerator: {LOGGED},")
        (base / source.name).write_text(text)
    async for world in open_world(tmp_path_factory.mktemp("narrow"), base=base):
        yield world


@pytest.fixture
def taken_by() -> str:
    """The protocol of those who are in."""
    return "grpc"


@pytest.fixture
async def crowded(narrow: World, taken_by: str) -> AsyncIterator[World]:
    """The crowd's room is taken by calls that the service keeps."""
    gate = narrow.backend.answers[HOLD.path] = Gate()
    within = [asyncio.create_task(narrow.call(taken_by, HOLD, narrow.signed_in())) for _ in range(ROOM)]
    await gate.filled(ROOM)
    try:
        yield narrow
    finally:
        gate.open.set()
        assert [reply.code for reply in await asyncio.gather(*within)] == [0] * ROOM, "those who are in are served"
        del narrow.backend.answers[HOLD.path]


@pytest.mark.parametrize("taken_by", PROTOCOLS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_one_too_many_is_refused_in_the_one_shape_and_told_when_to_come_again(
    crowded: World, protocol: str
) -> None:
    reached = len(crowded.backend.arrivals)
    reply = await crowded.call(protocol, HOLD, crowded.signed_in())
    assert (reply.code, reply.reason, reply.domain) == (grpc.StatusCode.UNAVAILABLE.value[0], "OVERLOADED", "marquee")
    assert reply.http_status == (503 if protocol == "rest" else 200)
    assert reply.headers["retry-after"] == "1"
    assert retry_delay(reply) == "1s"
    assert "x-request-id" in reply.headers
    assert len(crowded.backend.arrivals) == reached, "the service learns nothing of it"


def retry_delay(reply: Reply) -> str:
    (found,) = [detail["retryDelay"] for detail in reply.details if detail["@type"].endswith("google.rpc.RetryInfo")]
    return str(found)


async def test_the_log_tells_which_limit_it_was_now_and_then(crowded: World) -> None:
    replies = await asyncio.gather(*(crowded.call("grpc", HOLD, crowded.signed_in()) for _ in range(100)))
    assert {reply.reason for reply in replies} == {"OVERLOADED"}
    async with asyncio.timeout(10):
        while not (refused := [line for line in crowded.edge.log_lines() if line["details"] == admission.REACHED]):
            await asyncio.sleep(0.05)
    # REST is refused before it is known as an RPC; its path tells.
    assert {line["rpc"] for line in refused if line["path"] == HOLD.path} == {"BookingService.CreateReservation"}
    assert {line["rpc"] for line in refused if line["path"] != HOLD.path} <= {None}
    assert len(refused) < 60  # of all that this edge refused until now, too


SPELLINGS = (
    "/api/v1/reservations",
    "/api/v1/reservations/",
    "/api/v1/reservations//",
    "//api/v1/reservations",
    "/api/v1/./reservations",
    "/api/v1/shows/../reservations",
    "/api/v1/reservation%73",
    "/api/v1/%72eservations",
    "/api/v1/reservations:",
    "/api/v1/reservations:x",
    "/api/v1/reservations:cancel",
    "/api/v1/Reservations",
)
SEATS = (
    "/api/v1/shows/0198/seats",
    "/api/v1/shows/0198/seats/",
    "/api/v1/shows/01:98/seats",
    "/api/v1/shows/0198:watch/seats",
    "/api/v1/shows/01%3A98/seats",
    "/api/v1/shows/0198/seats:",
)


@pytest.mark.parametrize(
    ("method", "path"), [*(("POST", each) for each in SPELLINGS), *(("GET", each) for each in SEATS)]
)
async def test_no_way_of_writing_a_rest_path_leads_past_the_limit(crowded: World, method: str, path: str) -> None:
    reached = len(crowded.backend.arrivals)
    reply = await crowded.rest(method, path, headers=crowded.signed_in(), content="{}" if method == "POST" else None)
    assert reply.status_code in (404, 503), reply.text
    assert len(crowded.backend.arrivals) == reached


async def test_what_is_written_as_usual_finds_the_limit(crowded: World) -> None:
    for path in SPELLINGS[:3]:
        assert (await crowded.rest("POST", path, headers=crowded.signed_in(), content="{}")).status_code == 503


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "name",
    ["WatchSeats", "WatchBooking", "CreateBooking", "GetBooking", "ReleaseReservation", "ListShows", "InitiatePayment"],
)
async def test_a_crowd_keeps_nobody_else_out(crowded: World, name: str, protocol: str) -> None:
    assert (await crowded.call(protocol, RPCS[name], crowded.signed_in())).ok


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_providers_reports_come_through(crowded: World, protocol: str) -> None:
    assert (await crowded.call(protocol, RPCS["HandleCallback"])).ok


async def test_refused_tokens_take_nobodys_room(narrow: World) -> None:
    for _ in range(3 * ROOM):
        assert (await narrow.call("grpc", HOLD, {"authorization": "Bearer nonsense"})).reason == "UNAUTHENTICATED"
    gate = narrow.backend.answers[HOLD.path] = Gate()
    within = [asyncio.create_task(narrow.call("grpc", HOLD, narrow.signed_in())) for _ in range(ROOM)]
    await gate.filled(ROOM)
    gate.open.set()
    assert all(reply.ok for reply in await asyncio.gather(*within))
    del narrow.backend.answers[HOLD.path]


async def test_who_is_refused_for_want_of_room_spends_nothing_of_his_limit(crowded: World) -> None:
    somebody = crowded.signed_in()
    for _ in range(30):  # more than the holds that one user may ask for at once
        assert (await crowded.call("grpc", HOLD, somebody)).reason == "OVERLOADED"


async def test_who_is_slow_to_send_takes_nobodys_room(narrow: World) -> None:
    port = int(narrow.edge.address.rpartition(":")[2])
    token = narrow.signed_in()["authorization"]
    slow = []
    for _ in range(3 * ROOM):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /api/v1/reservations HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\ncontent-length: 100\r\n\r\n"
        writer.write(head.encode() + b"{")
        await writer.drain()
        slow.append(writer)
    await asyncio.sleep(0.2)
    try:
        assert (await narrow.call("grpc", HOLD, narrow.signed_in())).ok
        assert (await narrow.call("rest", HOLD, narrow.signed_in())).ok
    finally:
        for writer in slow:
            writer.close()


@pytest.mark.parametrize("name", ["WatchSeats", "WatchBooking"])
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
async def test_open_streams_take_no_room(narrow: World, name: str, protocol: str) -> None:
    stream = RPCS[name]
    opened = asyncio.Event()

    async def stay(_: Message, __: Context) -> Message:
        await opened.wait()
        return message_class(stream.response)()

    narrow.backend.answers[stream.path] = stay
    before = len(narrow.backend.arrivals)
    watching = [asyncio.create_task(narrow.call(protocol, stream, narrow.signed_in())) for _ in range(3 * ROOM)]
    async with asyncio.timeout(10):
        while len(narrow.backend.arrivals) < before + len(watching):
            await asyncio.sleep(0.005)
    try:
        replies = [await narrow.call("grpc", name, narrow.signed_in()) for name in (HOLD, RPCS["GetBooking"])]
    finally:
        opened.set()
    assert all(reply.ok for reply in (*replies, *await asyncio.gather(*watching)))
    del narrow.backend.answers[stream.path]


async def test_room_is_given_back_by_callers_who_left(narrow: World) -> None:
    gate = narrow.backend.answers[HOLD.path] = Gate()
    leaving = [asyncio.create_task(narrow.call("grpc", HOLD, narrow.signed_in())) for _ in range(ROOM)]
    await gate.filled(ROOM)
    for call in leaving:
        call.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    gate.open.set()
    async with asyncio.timeout(10):
        while not (await narrow.call("grpc", HOLD, narrow.signed_in())).ok:
            await asyncio.sleep(0.02)
    del narrow.backend.answers[HOLD.path]


async def test_a_burst_finds_room_in_an_edge_that_nobody_has_called_yet(tmp_path: Path) -> None:
    async for world in open_world(tmp_path):
        gate = world.backend.answers[HOLD.path] = Gate()
        burst = [asyncio.create_task(world.call("grpc", HOLD, world.signed_in())) for _ in range(64)]
        await gate.filled(64)
        gate.open.set()
        assert all(reply.ok for reply in await asyncio.gather(*burst))
