"""What is not HTTP as the edge takes it says why; headers that it mends, and those that it keeps to itself."""

from __future__ import annotations

import asyncio
import json

import pytest
from edge_backend import refusing
from edge_calls import SOME_ID, Reply
from edge_fixtures import RPCS, World, world

__all__ = ["world"]

PATH = "must not hold an escaped slash, backslash or NUL (%2F, %5C, %00) nor a fragment (#)"


async def ask(world: World, head: str) -> Reply:
    """Send it as it stands; clients would mend or refuse it."""
    reader, writer = await asyncio.open_connection(*world.edge.address.split(":"))
    try:
        writer.write(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
        async with asyncio.timeout(5):
            top = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(row.split(": ", 1) for row in top.split("\r\n")[1:] if row)
            content = await reader.readexactly(int(headers["content-length"]))
    finally:
        writer.close()
    body = json.loads(content)
    info = body["details"][0]
    status = int(top.split(" ")[1])
    return Reply(
        status, body["code"], info["reason"], info["domain"], body["message"], headers, content, body["details"]
    )


@pytest.mark.parametrize(
    ("head", "field", "rule"),
    [
        (f"GET /api/v1/movies/{SOME_ID}%2Fshows HTTP/1.1\nhost: x", "path", PATH),
        (f"GET /api/v1/movies/{SOME_ID}%5cshows HTTP/1.1\nhost: x", "path", PATH),
        ("GET /api/v1/movies/%00 HTTP/1.1\nhost: x", "path", PATH),
        ("GET /api/v1/cities#more HTTP/1.1\nhost: x", "path", PATH),
        ("GET http://x/somewhere/%2f HTTP/1.1\nhost: x", "path", PATH),
        ("GET /api/v1/cities HTTP/1.1", "host", "is missing"),
        (
            "GET /api/v1/cities HTTP/1.1\nhost: x\nconnection: upgrade\nupgrade: websocket",
            "upgrade",
            "no other protocol is spoken here",
        ),
        (
            "POST /api/v1/users/login HTTP/1.1\nhost: x\ntransfer-encoding: gzip",
            "transfer-encoding",
            "must be chunked, or left out",
        ),
        ("GET /api/v1/cities HTTP/1.0\nhost: x", "", "HTTP/1.1 or HTTP/2 is needed"),
        ("GET /api/v1/cities HTTP/1.1\nhost: x\nno header", "", "the request is not well-formed HTTP"),
        ("GET /api/v1/cities HTTP/1.1\nhost: x y", "", "the request is not well-formed HTTP"),
        ("BREW /api/v1/cities HTTP/1.1\nhost: x", "", "the request is not well-formed HTTP"),
        ("hello", "", "the request is not well-formed HTTP"),
    ],
)
async def test_http_that_is_refused_says_why(world: World, head: str, field: str, rule: str) -> None:
    reply = await ask(world, head)
    assert (reply.http_status, reply.reason, reply.domain) == (400, "INVALID_ARGUMENT", "marquee")
    assert reply.message == (f"{field}: {rule}" if field else rule)
    assert reply.violations == ({field: rule} if field else {})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "beaRer", "bearer  "])
async def test_the_authorizations_scheme_may_be_written_in_any_way(world: World, scheme: str) -> None:
    headers = {"authorization": world.signed_in()["authorization"].replace("Bearer", scheme)}
    for protocol in ("rest", "grpc", "grpc-web"):
        assert (await world.call(protocol, RPCS["GetProfile"], headers)).ok, protocol


@pytest.mark.parametrize("scheme", ["Basic", "Bear", "Token", "Bearer:", ""])
async def test_another_scheme_is_no_token(world: World, scheme: str) -> None:
    headers = {"authorization": world.signed_in()["authorization"].replace("Bearer", scheme).strip()}
    assert (await world.call("rest", RPCS["GetProfile"], headers)).http_status == 401


async def test_rest_does_not_get_the_headers_of_grpc(world: World) -> None:
    def of_grpc(headers: dict[str, str]) -> set[str]:
        return {"grpc-status", "grpc-message", "grpc-status-details-bin"} & set(headers)

    world.backend.answers[RPCS["GetLayout"].path] = refusing(5, "NOT_FOUND", "no")
    for path in ("/api/v1/cities", f"/api/v1/layouts/{SOME_ID}", f"/api/v1/shows/{SOME_ID}/seats:watch", "/api/v1/no"):
        assert of_grpc(dict((await world.rest("GET", path)).headers)) == set()
    assert of_grpc((await world.call("rest", RPCS["GetProfile"])).headers) == set()
    for protocol in ("grpc", "grpc-web"):
        assert (await world.call(protocol, RPCS["GetLayout"])).code == 5
        assert (await world.call(protocol, RPCS["GetProfile"])).code == 16


async def test_the_log_tells_only_a_grpc_status_that_was_given(world: World) -> None:
    world.backend.answers[RPCS["GetLayout"].path] = refusing(5, "NOT_FOUND", "no")
    for protocol, status, grpc_status in (("rest", "404", None), ("grpc", "200", "5"), ("grpc-web", "200", "5")):
        line = await world.edge.logged((await world.call(protocol, RPCS["GetLayout"])).headers["x-request-id"])
        told = line["grpc_status"]
        assert (str(line["status"]), told if told is None else str(told)) == (status, grpc_status), protocol
