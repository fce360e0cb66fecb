"""What the edge makes of requests and answers: shapes, limits of size and time, headers, CORS, caching."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator

import grpc
import httpx
import pytest
from edge_backend import Context, message_class, refusing, sleeping
from edge_calls import PROTOCOLS, SOME_ID, reply_of
from edge_fixtures import CONTRACTS, EDGE_RPCS, RPCS, World, open_world, world
from google.api import httpbody_pb2
from google.protobuf.message import Message

from gateway.contracts import Contracts
from marquee.edge.v1 import errors_pb2, policy_pb2

__all__ = ["world"]

OTHER_ID = "11111111-1111-4111-8111-111111111111"
APP = "https://app.example.org"


@pytest.fixture(autouse=True)
def forget_answers(world: World) -> None:
    world.backend.answers.clear()


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_every_reason_of_a_service_arrives_with_its_code_and_status(world: World) -> None:
    rpc = RPCS["GetMovie"]
    disagreeing = {}
    for value in errors_pb2.ErrorReason.DESCRIPTOR.values:
        reason = value.name.removeprefix("ERROR_REASON_")
        answer = value.GetOptions().Extensions[errors_pb2.answer]
        world.backend.answers[rpc.path] = refusing(answer.code, reason, "no")
        for protocol in PROTOCOLS:
            reply = await world.call(protocol, rpc)
            assert (reply.code, reply.reason, reply.message) == (answer.code, reason, "no")
            if protocol == "rest":
                assert reply.details[0]["metadata"] == {"seats": "C7"}
                if reply.http_status != answer.http_status:
                    disagreeing[reason] = (reply.http_status, answer.http_status)
    # Envoy's own answer: no service refuses for size.
    assert set(disagreeing) == {"REQUEST_TOO_LARGE"}


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/api", 404, "NOT_FOUND"),
        ("GET", "/api/v2/movies", 404, "NOT_FOUND"),
        ("GET", "/api/v1/nothing", 404, "NOT_FOUND"),
        ("POST", f"/api/v1/shows/{SOME_ID}", 404, "NOT_FOUND"),
        ("GET", f"/api/v1/shows/{SOME_ID}/seats:steal", 404, "NOT_FOUND"),
        ("GET", "/api/v1/movies?colour=red", 400, "INVALID_ARGUMENT"),
        ("GET", "/api/v1/movies?pageSize=many", 400, "INVALID_ARGUMENT"),
        ("GET", "/api/v1/movies?format=FORMAT_9D", 400, "INVALID_ARGUMENT"),
        ("GET", f"/api/v1/movies/{SOME_ID}%2Fshows", 400, "INVALID_ARGUMENT"),
        ("POST", "/api/v1/users/login?email=a", 400, "INVALID_ARGUMENT"),
    ],
)
async def test_what_the_edge_refuses_itself_has_the_one_shape(
    world: World, method: str, path: str, status: int, reason: str
) -> None:
    reply = reply_of(await world.rest(method, path))
    assert (reply.http_status, reply.reason, reply.domain) == (status, reason, "marquee")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "named"),
    [('{"email": 5}', "email"), ('{"email": "a"', None), ("[1]", None), ('{"tokenDelivery":"X"}', "token")],
)
async def test_a_body_that_cannot_be_read_is_a_400_that_names_the_field(world: World, body: str, named: str) -> None:
    reply = reply_of(await world.rest("POST", "/api/v1/users/login", content=body))
    assert (reply.http_status, reply.reason) == (400, "INVALID_ARGUMENT")
    assert (named or "") in reply.message


async def test_a_call_that_takes_too_long_is_ended_in_every_protocol(tmp_path_factory: pytest.TempPathFactory) -> None:
    files = type(CONTRACTS.files)()
    files.CopyFrom(CONTRACTS.files)
    for method in (m for file in files.file for service in file.service for m in service.method):
        if method.name == "CreateReservation":
            method.options.Extensions[policy_pb2.policy].timeout.FromMilliseconds(300)
    async for hasty in open_world(tmp_path_factory.mktemp("hasty"), Contracts(files)):
        rpc = RPCS["CreateReservation"]
        hasty.backend.answers[rpc.path] = sleeping(5)
        for protocol in PROTOCOLS:
            started = time.monotonic()
            reply = await hasty.call(protocol, rpc, hasty.signed_in())
            assert (reply.code, reply.reason) == (4, "DEADLINE_EXCEEDED"), protocol
            assert reply.http_status == (504 if protocol == "rest" else 200)
            assert time.monotonic() - started < 2
            left = hasty.backend.last(rpc.path).seconds_left
            assert left is not None, "the service knows until when somebody waits"
            assert left <= (0.8 if protocol != "grpc" else 10)


async def test_a_service_that_is_gone_is_a_503_in_every_protocol(tmp_path_factory: pytest.TempPathFactory) -> None:
    async for gone in open_world(tmp_path_factory.mktemp("gone")):
        await gone.server.stop(0)
        for protocol in PROTOCOLS:
            reply = await gone.call(protocol, RPCS["CreateReservation"], gone.signed_in())
            assert (reply.code, reply.reason) == (14, "UNAVAILABLE"), protocol
            assert reply.http_status == (503 if protocol == "rest" else 200)


async def test_only_what_is_safe_to_repeat_is_tried_again(world: World) -> None:
    for name, attempts in (("GetSeatMap", 3), ("ReleaseReservation", 3), ("CreateReservation", 1)):
        rpc = RPCS[name]
        world.backend.answers[rpc.path] = refusing(14, "UNAVAILABLE", "restarting")
        before = len(world.backend.arrivals)
        assert (await world.call("rest", rpc, world.signed_in())).http_status == 503
        assert len(world.backend.arrivals) - before == attempts, name


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query", ["showId={}", "show_id={}", "show%5Fid={}", "%73howId={}", "SHOWID={}", "a=1&showId={}"]
)
async def test_a_query_parameter_does_not_override_the_path(world: World, query: str) -> None:
    before = len(world.backend.arrivals)
    for path in (f"/api/v1/shows/{SOME_ID}", f"/api/v1/shows/{SOME_ID}/seats", f"/api/v1/shows/{SOME_ID}/seats:watch"):
        assert (await world.rest("GET", f"{path}?{query.format(OTHER_ID)}")).status_code == 400
    assert len(world.backend.arrivals) == before


async def test_no_binding_of_any_rpc_lets_the_query_override_its_path(world: World) -> None:
    before = len(world.backend.arrivals)
    for rpc in EDGE_RPCS:
        for rule in rpc.http_rules:
            path = rule.pattern(SOME_ID)
            spellings = {path, f"{path}/", path.replace(":", "/")}  # the transcoder takes them all
            for field, spelling in itertools.product(rule.path_fields, spellings):
                camel = re.sub("_([a-z])", lambda match: match[1].upper(), field)
                for name in {field, camel}:
                    response = await world.rest(rule.method, f"{spelling}?{name}={OTHER_ID}", headers=world.signed_in())
                    assert response.status_code == 400, (rpc.name, spelling, name)
    assert len(world.backend.arrivals) == before


async def test_a_body_does_not_override_the_path(world: World) -> None:
    for method, path, body in (
        ("POST", f"/api/v1/bookings/{SOME_ID}:cancel", {"bookingId": OTHER_ID}),
        ("PATCH", f"/api/v1/admin/movies/{SOME_ID}", {"movie": {"movieId": OTHER_ID}}),
    ):
        response = await world.rest(method, path, json=body, headers=world.signed_in())
        assert response.status_code == 400 or OTHER_ID not in str(world.backend.arrivals[-1].request)


async def test_a_reader_may_send_back_the_id_that_the_path_names(world: World) -> None:
    response = await world.rest(
        "POST", f"/api/v1/bookings/{SOME_ID}:cancel", json={"bookingId": SOME_ID}, headers=world.signed_in()
    )
    assert response.status_code == 200


async def test_query_parameters_are_read_in_both_spellings(world: World) -> None:
    for query in ("cityId=new+york&pageSize=5", "city_id=new%20york&page_size=5"):
        assert (await world.rest("GET", f"/api/v1/movies?{query}")).status_code == 200
        assert "new york" in str(world.backend.last(RPCS["ListMovies"].path).request)


async def test_a_body_over_its_limit_is_a_413_in_every_protocol(world: World) -> None:
    login, callback = RPCS["Login"], "/api/v1/payments/callback/razorpay"
    assert (
        reply_of(await world.rest("POST", "/api/v1/users/login", content=b"x" * 66_000)).reason == "REQUEST_TOO_LARGE"
    )
    assert (await world.rest("POST", callback, content=b"x" * 200_000)).status_code == 200
    assert (await world.rest("POST", callback, content=b"x" * 262_145)).status_code == 413
    large = b"\x0a\xf0\xa2\x04" + b"x" * 70_000
    for protocol in ("grpc", "grpc-web"):
        reply = await world.call(protocol, login, request=large)
        assert (reply.code, reply.reason) == (8, "REQUEST_TOO_LARGE"), protocol


async def test_headers_without_bounds_are_refused(world: World) -> None:
    for headers in ({"x-filler": "x" * 40_000}, {f"x-filler-{number}": "x" for number in range(120)}):
        reply = reply_of(await world.rest("GET", "/api/v1/cities", headers=headers))
        assert (reply.http_status, reply.reason) == (431, "REQUEST_TOO_LARGE")
        assert reply.headers["x-request-id"]


async def test_a_webhook_arrives_as_it_was_sent(world: World) -> None:
    """The signature is over the raw bytes, so not one of them may change."""
    for body in (b'{"b":1,\n "a": 2}\xff', b"", bytes(range(256)) * 512):
        headers = {"x-razorpay-signature": "5eal", "x-razorpay-event-id": "evt_1", "content-type": "application/json"}
        response = await world.rest("POST", "/api/v1/payments/callback/razorpay", content=body, headers=headers)
        assert response.status_code == 200
        arrival = world.backend.last(RPCS["HandleCallback"].path)
        assert arrival.request.payload.data == body  # type: ignore[attr-defined]
        assert arrival.request.provider == "razorpay"  # type: ignore[attr-defined]
        assert arrival.metadata["x-razorpay-signature"] == "5eal"
        assert arrival.metadata["x-razorpay-event-id"] == "evt_1"


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_zero_values_are_printed_in_camel_case(world: World) -> None:
    seat_map = (await world.rest("GET", f"/api/v1/shows/{SOME_ID}/seats")).json()
    assert seat_map["layoutVersion"] == 0
    assert seat_map["seats"] == []


async def test_a_rest_stream_is_one_json_object_a_line_and_not_compressed(world: World) -> None:
    world.backend.answers[RPCS["WatchSeats"].path] = _large_update
    response = await world.rest("GET", f"/api/v1/shows/{SOME_ID}/seats:watch", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in response.headers
    lines = response.text.splitlines()
    assert len(lines) == 3
    assert all("snapshot" in json.loads(line) for line in lines)


async def test_large_answers_are_compressed(world: World) -> None:
    world.backend.answers[RPCS["GetMovie"].path] = _large_movie
    response = await world.rest("GET", f"/api/v1/movies/{SOME_ID}", headers={"accept-encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert len(response.json()["synopsis"]) == 4000


async def _large_update(_: Message, __: Context) -> Message:
    update = message_class("marquee.booking.v1.SeatUpdate")()
    update.snapshot.epoch = "x" * 4000  # type: ignore[attr-defined]
    return update


async def _large_movie(_: Message, __: Context) -> Message:
    return message_class("marquee.catalog.v1.Movie")(synopsis="x" * 4000)


@pytest.mark.parametrize("sent", ["7f0c2b9e-8d4f-4a63-9f3e-1b0a5e0c7d21", "my-own.request_id-1"])
async def test_a_request_id_of_the_clients_is_kept_and_told_to_the_service(world: World, sent: str) -> None:
    for protocol in PROTOCOLS:
        reply = await world.call(protocol, RPCS["GetMovie"], {"x-request-id": sent})
        assert reply.headers["x-request-id"] == sent
        assert world.backend.last(RPCS["GetMovie"].path).metadata["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["short", "with spaces and\ttabs", "x" * 65, '{"a":"json injection"}'])
async def test_a_malformed_request_id_is_replaced(world: World, sent: str) -> None:
    response = await world.rest("GET", "/api/v1/cities", headers={"x-request-id": sent})
    given = response.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}", given)
    assert world.backend.last(RPCS["ListCities"].path).metadata["x-request-id"] == given


async def test_replaced_request_ids_differ(world: World) -> None:
    responses = [await world.rest("GET", "/api/v1/cities", headers={"x-request-id": "?"}) for _ in range(50)]
    assert len({response.headers["x-request-id"] for response in responses}) == 50


async def test_only_successes_that_the_policy_calls_cacheable_are_kept(world: World) -> None:
    layout = RPCS["GetLayout"]
    assert (await world.call("rest", layout)).headers["cache-control"] == "public, max-age=86400"
    assert (await world.call("grpc-web", layout)).headers["cache-control"] == "no-store"
    assert (await world.call("rest", RPCS["GetSeatMap"])).headers["cache-control"] == "no-store"
    assert (await world.call("rest", RPCS["GetProfile"], world.signed_in())).headers["cache-control"] == "no-store"
    world.backend.answers[layout.path] = refusing(5, "NOT_FOUND", "no")
    assert (await world.call("rest", layout)).headers["cache-control"] == "no-store"


async def test_keys_are_served_with_their_own_content_type(world: World) -> None:
    async def keys(_: Message, __: Context) -> Message:
        return httpbody_pb2.HttpBody(content_type="application/jwk-set+json", data=b'{"keys":[]}')

    world.backend.answers[RPCS["GetJwks"].path] = keys
    response = await world.rest("GET", "/api/v1/users/jwks.json")
    assert response.headers["content-type"] == "application/jwk-set+json"
    assert response.headers["cache-control"] == "public, max-age=60"
    assert response.json() == {"keys": []}


async def test_every_answer_forbids_guessing_its_type(world: World) -> None:
    for path in ("/healthz", "/api/v1/cities", "/nothing", "/api/v1/users/profile"):
        assert (await world.rest("GET", path)).headers["x-content-type-options"] == "nosniff"


# --- browsers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/v1/reservations", "/marquee.booking.v1.BookingService/CreateReservation"])
async def test_a_browser_app_may_ask_before_it_calls(world: World, path: str) -> None:
    asked = {
        "origin": APP,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-grpc-web,x-request-id,grpc-timeout",
    }
    response = await world.rest("OPTIONS", path, headers=asked)
    assert response.status_code in (200, 204)
    assert response.headers["access-control-allow-origin"] == APP
    allowed = set(response.headers["access-control-allow-headers"].split(", "))
    assert set(asked["access-control-request-headers"].split(",")) <= allowed


async def test_a_browser_app_can_read_errors_and_limits(world: World) -> None:
    refused = await world.rest("GET", "/api/v1/users/profile", headers={"origin": APP})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == APP
    exposed = set(refused.headers["access-control-expose-headers"].split(", "))
    assert {
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "x-request-id",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "retry-after",
    } <= exposed


async def test_other_origins_get_no_permission(world: World) -> None:
    for method in ("OPTIONS", "GET"):
        headers = {"origin": "https://mallory.example", "access-control-request-method": "POST"}
        response = await world.rest(method, "/api/v1/cities", headers=headers)
        assert "access-control-allow-origin" not in response.headers


# --- streams and the site ---------------------------------------------------------------------------------------------


async def test_one_connection_carries_more_streams_than_envoys_defaults(world: World) -> None:
    """The default of a cluster ends at 1,024 requests, as would that of a connection."""
    gate = asyncio.Event()
    arrived = 0

    async def hold(_: Message, __: Context) -> Message:
        nonlocal arrived
        arrived += 1
        await gate.wait()
        return message_class("marquee.booking.v1.SeatUpdate")()

    world.backend.answers[RPCS["WatchSeats"].path] = hold
    streams = [
        world.channel.unary_stream(RPCS["WatchSeats"].path)(b"", metadata=(("x-forwarded-for", world.address()),))
        for _ in range(1_100)
    ]
    for _ in range(750):
        if arrived == len(streams):
            break
        await asyncio.sleep(0.02)
    ended = [(await stream.code(), await stream.details()) for stream in streams if stream.done()]
    gate.set()
    assert (arrived, ended) == (len(streams), [])
    for stream in streams:
        assert len([message async for message in stream]) == 3
    assert {await stream.code() for stream in streams} == {grpc.StatusCode.OK}


@pytest.fixture(scope="module")
async def with_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"\r\n":
                head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncache-control: max-age=9\r\n"
                writer.write(head + b"content-length: 8\r\n\r\nthe site")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async for world in open_world(tmp_path_factory.mktemp("site"), site={"host": "127.0.0.1", "port": port}):
            yield world


async def test_the_site_gets_what_is_no_api(with_site: World) -> None:
    for path in ("/", "/films/inception?from=home", "/assets/app.js"):
        response = await with_site.rest("GET", path)
        assert (response.status_code, response.text) == (200, "the site")
        assert response.headers["cache-control"] == "max-age=9"


async def test_the_site_gets_nothing_of_the_api(with_site: World) -> None:
    for path in (
        "/api/v1/nothing",
        "/api/v2",
        "/marquee.booking.v1.BookingInternalService/GetPayables",
        "/grpc.health.v1.Health/Check",
    ):
        response: httpx.Response = await with_site.rest("GET", path)
        assert (response.status_code, response.json()["code"]) == (404, 5)
