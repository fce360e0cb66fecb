"""gRPC messages that do not come whole are refused at once; those that do arrive, whatever their size."""

from __future__ import annotations

import base64
import struct

import grpc
import pytest
from edge_backend import message_class
from edge_calls import native_error
from edge_fixtures import CONTRACTS, RPCS, World, open_world, world

from gateway.contracts import Contracts

__all__ = ["world"]

WHOLE = "must be one whole message, behind five bytes that tell its length"
GOOD = b"\0\0\0\0\x02\x08\x05"  # page_size: 5
BROKEN = {
    "nothing": b"",
    "half a length": b"\0\0\0",
    "a length alone": b"\0\0\0\0\5",
    "half a message": GOOD[:-1],
    "a length beyond bounds": b"\0\xff\xff\xff\xff" + GOOD,
    "unknown flags": b"\x7f" + GOOD[1:],
    "trailers": b"\x80\0\0\0\x06a: b\r\n",
}
KINDS = ("application/grpc", "application/grpc+proto", "application/grpc-web+proto", "application/grpc-web-text+proto")


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("name", ["ListCities", "WatchSeats", "HandleCallback"])
async def test_a_message_that_is_not_whole_is_refused_at_once(world: World, what: str, name: str) -> None:
    before = len(world.backend.arrivals)
    for kind in KINDS:
        content = base64.b64encode(BROKEN[what]) if "text" in kind else BROKEN[what]
        response = await world.rest("POST", RPCS[name].path, content=content, headers={"content-type": kind}, timeout=3)
        assert (response.status_code, response.headers["grpc-status"]) == (200, "3")
        assert response.headers["grpc-message"] == f"request: {WHOLE}"
    assert len(world.backend.arrivals) == before


async def test_the_refusal_tells_its_details(world: World) -> None:
    none_at_all = world.channel.stream_unary(RPCS["ListCities"].path)(iter(()), timeout=3)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await none_at_all
    reply = native_error(refused.value)
    assert (reply.code, reply.reason, reply.violations) == (3, "INVALID_ARGUMENT", {"request": WHOLE})


@pytest.mark.parametrize("content", ["*!*", "AAA", "AAAA*AAA", "="])
async def test_text_that_is_no_base64_is_refused(world: World, content: str) -> None:
    headers = {"content-type": "application/grpc-web-text+proto"}
    response = await world.rest("POST", RPCS["ListCities"].path, content=content, headers=headers)
    assert (response.status_code, response.headers["grpc-status"]) == (200, "3")
    assert response.headers["grpc-message"] == "request: must be base64, as its content type says"


async def test_an_unknown_rpc_is_not_found_whatever_its_message(world: World) -> None:
    for content in (b"", GOOD):
        response = await world.rest(
            "POST", "/no.Such/Rpc", content=content, headers={"content-type": "application/grpc-web+proto"}
        )
        assert response.headers["grpc-status"] == "5"


def callback(size: int) -> bytes:
    request = message_class(RPCS["HandleCallback"].request)(provider="razorpay")
    request.payload.data = b"x" * size  # type: ignore[attr-defined]
    return request.SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 200, 60_000, 250_000])
async def test_whole_messages_arrive_whatever_their_size(world: World, size: int) -> None:
    rpc = RPCS["HandleCallback"]
    request = callback(size)
    framed = b"\0" + struct.pack(">I", len(request)) + request
    for protocol in ("grpc", "grpc-web"):
        assert (await world.call(protocol, rpc, request=request)).ok
        assert world.backend.last(rpc.path).request.payload.data == b"x" * size  # type: ignore[attr-defined]
    headers = {"content-type": "application/grpc-web-text+proto", "x-grpc-web": "1"}
    response = await world.rest("POST", rpc.path, content=base64.b64encode(framed), headers=headers)
    assert response.headers.get("grpc-status", "0") == "0"
    assert world.backend.last(rpc.path).request.payload.data == b"x" * size  # type: ignore[attr-defined]


async def test_compressed_messages_arrive(world: World) -> None:
    async with grpc.aio.insecure_channel(world.edge.address, compression=grpc.Compression.Gzip) as channel:
        await channel.unary_unary(RPCS["HandleCallback"].path)(callback(5_000), timeout=5)
    assert world.backend.last(RPCS["HandleCallback"].path).request.payload.data == b"x" * 5_000  # type: ignore[attr-defined]


async def test_a_stream_of_requests_is_not_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No RPC is one today. Made one, ListCities reaches its service although its first message is still to come."""
    files = type(CONTRACTS.files)()
    files.CopyFrom(CONTRACTS.files)
    for method in (m for file in files.file for service in file.service for m in service.method):
        if method.name == "ListCities":
            method.client_streaming = True
    async for streaming in open_world(tmp_path_factory.mktemp("streams"), Contracts(files)):
        call = streaming.channel.stream_unary(RPCS["ListCities"].path)(timeout=5)
        await call.write(b"")
        assert await call == b""
        assert streaming.backend.last(RPCS["ListCities"].path)
