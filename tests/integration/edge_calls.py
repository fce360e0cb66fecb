"""One call in each of the three protocols, answered in one shape."""

from __future__ import annotations

import base64
import json
import re
import struct
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from gateway.contracts import HttpRule, Rpc

SOME_ID = "0b0e7a52-6f2a-4c8e-9d4e-0c5f4c1b2a3d"

PROTOCOLS = ("rest", "grpc", "grpc-web")


@dataclass(frozen=True)
class Reply:
    """An answer, whichever protocol it came in."""

    http_status: int
    code: int
    reason: str
    domain: str
    message: str
    headers: dict[str, str]
    body: bytes = b""
    details: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def violations(self) -> dict[str, str]:
        """The fields at fault, each with its rule."""
        found = [detail for detail in self.details if detail["@type"].endswith("google.rpc.BadRequest")]
        return {each["field"]: each["description"] for detail in found for each in detail["fieldViolations"]}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def rest_path(rule: HttpRule) -> str:
    return re.sub(r"\{[^}]*\}", SOME_ID, rule.template)


async def call(
    protocol: str,
    rpc: Rpc,
    *,
    http: httpx.AsyncClient,
    channel: grpc.aio.Channel,
    headers: dict[str, str] | None = None,
    request: bytes = b"",
) -> Reply:
    match protocol:
        case "rest":
            return await rest(rpc, http=http, headers=headers)
        case "grpc":
            return await native(rpc, channel=channel, headers=headers, request=request)
        case _:
            return await web(rpc, http=http, headers=headers, request=request)


async def rest(rpc: Rpc, *, http: httpx.AsyncClient, headers: dict[str, str] | None = None) -> Reply:
    rule = rpc.http_rules[0]
    content = b"{}" if rule.body else None
    sent = {"content-type": "application/json"} if rule.body else {}
    return reply_of(await http.request(rule.method, rest_path(rule), content=content, headers=sent | (headers or {})))


def reply_of(response: httpx.Response) -> Reply:
    """A REST answer; an error's body must be a google.rpc.Status with an ErrorInfo."""
    headers = dict(response.headers)
    if response.status_code < 400:
        return Reply(response.status_code, 0, "", "", "", headers, response.content)
    body = response.json()
    info = next(detail for detail in body["details"] if detail["@type"].endswith("google.rpc.ErrorInfo"))
    assert set(body) == {"code", "message", "details"}
    return Reply(
        response.status_code,
        body["code"],
        info["reason"],
        info["domain"],
        body["message"],
        headers,
        response.content,
        body["details"],
    )


async def native(
    rpc: Rpc, *, channel: grpc.aio.Channel, headers: dict[str, str] | None = None, request: bytes = b""
) -> Reply:
    metadata = tuple((headers or {}).items())
    if rpc.server_streaming:
        stream = channel.unary_stream(rpc.path)(request, metadata=metadata, timeout=10)
        try:
            body = b"".join([message async for message in stream])
        except grpc.aio.AioRpcError as error:
            return native_error(error)
        return Reply(200, 0, "", "", "", _texts(await stream.initial_metadata()), body)
    unary = channel.unary_unary(rpc.path)(request, metadata=metadata, timeout=10)
    try:
        body = await unary
    except grpc.aio.AioRpcError as error:
        return native_error(error)
    return Reply(200, 0, "", "", "", _texts(await unary.initial_metadata()), body)


def native_error(error: grpc.aio.AioRpcError) -> Reply:
    """A refusal in gRPC."""
    both = {**_texts(error.initial_metadata()), **_texts(error.trailing_metadata())}
    details = next((v for k, v in error.trailing_metadata() if k == "grpc-status-details-bin"), b"")
    assert isinstance(details, bytes)
    return _status_reply(error.code().value[0], error.details() or "", details, both)


def _texts(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata if isinstance(value, str)}


async def web(
    rpc: Rpc, *, http: httpx.AsyncClient, headers: dict[str, str] | None = None, request: bytes = b""
) -> Reply:
    sent = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"} | (headers or {})
    response = await http.post(rpc.path, content=b"\0" + struct.pack(">I", len(request)) + request, headers=sent)
    assert response.status_code == 200, response.text
    trailers = dict(response.headers)
    body, rest_of_body = b"", response.content
    while rest_of_body:
        kind, size = rest_of_body[0], struct.unpack(">I", rest_of_body[1:5])[0]
        frame, rest_of_body = rest_of_body[5 : 5 + size], rest_of_body[5 + size :]
        if kind & 0x80:
            trailers |= {
                k.strip(): v.strip() for k, v in (row.split(":", 1) for row in frame.decode().split("\r\n") if row)
            }
        else:
            body += frame
    code = int(trailers["grpc-status"])
    if code == 0:
        return Reply(200, 0, "", "", "", trailers, body)
    details = trailers.get("grpc-status-details-bin", "")
    message = urllib.parse.unquote(trailers.get("grpc-message", ""))
    return _status_reply(code, message, base64.b64decode(details + "=" * (-len(details) % 4)), trailers)


def _status_reply(code: int, message: str, details: bytes, headers: dict[str, str]) -> Reply:
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    if status.details:
        assert status.code == code
        assert status.details[0].Unpack(info)
    told = json_format.MessageToDict(status, always_print_fields_with_no_presence=True)
    return Reply(200, code, info.reason, info.domain, message, headers, details=told["details"])
