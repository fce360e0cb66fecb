"""grpc-web as a browser sends and reads it, byte by byte, over HTTP/1.1.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

import base64
import struct

import httpx
from e2e_protocols import TRAILERS, read_trailers, unpadded
from e2e_system import House, System, new_id
from google.rpc import error_details_pb2, status_pb2

from marquee.booking import v1 as booking_v1
from marquee.catalog import v1 as catalog_v1

BINARY = "application/grpc-web+proto"
TEXT = "application/grpc-web-text+proto"


async def post(system: System, path: str, content: bytes, kind: str, **headers: str) -> httpx.Response:
    sent = {"content-type": kind, "accept": kind, "x-grpc-web": "1", **headers}
    return await system.http.post(path, content=content, headers=sent)


def framed(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


def frames(content: bytes) -> list[tuple[int, bytes]]:
    found = []
    while content:
        kind, size = struct.unpack(">BI", content[:5])
        found.append((kind, content[5 : 5 + size]))
        content = content[5 + size :]
    return found


CITIES = "/marquee.catalog.v1.CatalogService/ListCities"


async def test_an_answer_is_a_message_frame_and_a_trailers_frame(system: System) -> None:
    request = catalog_v1.ListCitiesRequest(page_size=2)
    response = await post(system, CITIES, framed(request.SerializeToString()), BINARY)
    assert response.http_version == "HTTP/1.1"
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/grpc-web")
    (kind, message), (trailing, trailers) = frames(response.content)
    assert kind == 0
    assert len(catalog_v1.ListCitiesResponse.FromString(message).cities) == 2
    assert trailing == TRAILERS
    assert read_trailers(trailers)["grpc-status"] == "0"


async def test_text_is_the_same_frames_in_base64(system: System) -> None:
    request = framed(catalog_v1.ListCitiesRequest(page_size=2).SerializeToString())
    response = await post(system, CITIES, base64.b64encode(request), TEXT)
    assert response.headers["content-type"].startswith("application/grpc-web-text")
    (_, message), (trailing, trailers) = frames(unpadded(response.content))
    assert len(catalog_v1.ListCitiesResponse.FromString(message).cities) == 2
    assert (trailing, read_trailers(trailers)["grpc-status"]) == (TRAILERS, "0")


async def test_a_refusal_tells_its_status_and_details(system: System) -> None:
    """Of a service, and of Envoy itself: both with HTTP 200, as grpc-web wants it."""
    show = booking_v1.GetSeatMapRequest(show_id=new_id()).SerializeToString()
    of_service = await post(system, "/marquee.booking.v1.BookingService/GetSeatMap", framed(show), BINARY)
    of_edge = await post(system, "/marquee.user.v1.UserService/GetProfile", framed(b""), BINARY)
    for response, code, reason in ((of_service, 5, "NOT_FOUND"), (of_edge, 16, "UNAUTHENTICATED")):
        assert response.status_code == 200
        trailers = dict(response.headers)
        for kind, content in frames(response.content):
            assert kind == TRAILERS
            trailers |= read_trailers(content)
        assert trailers["grpc-status"] == str(code)
        packed = trailers["grpc-status-details-bin"]
        status = status_pb2.Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
        info = error_details_pb2.ErrorInfo()
        assert status.code == code
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain) == (reason, "marquee")
        assert response.headers["x-request-id"]


async def test_a_stream_sends_each_message_as_a_frame_when_it_happens(system: System, house: House) -> None:
    show = await house.new_bookable_show()
    request = booking_v1.WatchSeatsRequest(show_id=show["showId"]).SerializeToString()
    sent = {"content-type": BINARY, "x-grpc-web": "1"}
    path = "/marquee.booking.v1.BookingService/WatchSeats"
    async with system.http.stream("POST", path, content=framed(request), headers=sent) as response:
        pieces = response.aiter_raw()
        (kind, snapshot), *_ = frames(await anext(pieces))
        assert kind == 0
        assert booking_v1.SeatUpdate.FromString(snapshot).snapshot.capacity == 50
        block = {"requestId": new_id(), "showId": show["showId"], "block": ["A1"]}
        await system.admin.call("BlockSeats", block)
        (_, delta), *_ = frames(await anext(pieces))
        change = booking_v1.SeatUpdate.FromString(delta).delta.changes[0]
        assert (change.status, list(change.seat_nos)) == (booking_v1.SEAT_STATUS_BLOCKED, [0])
