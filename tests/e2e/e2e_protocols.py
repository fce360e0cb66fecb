"""Three ways to say one thing: REST, gRPC and grpc-web, each a small client with one interface.

A request is a dict as JSON has it (``{"showId": ...}``), and so is an answer, whichever protocol carried them:

    reservation = await client.by(token).call("CreateReservation", {"showId": show_id, "seats": ["C7"], ...})
    async with client.watch("WatchSeats", {"showId": show_id}) as updates:
        snapshot = await updates.next()
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import copy
import json
import re
import struct
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import httpx
from google.protobuf import json_format, symbol_database
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

import marquee.booking.v1
import marquee.catalog.v1
import marquee.payment.v1
import marquee.user.v1  # noqa: F401 (their messages must be known by name)
from gateway import contracts
from gateway.contracts import HttpRule, Rpc

Json = dict[str, Any]
RPCS: Mapping[str, Rpc] = {rpc.name: rpc for rpc in contracts.read().rpcs}
EDGE_RPCS = tuple(rpc for rpc in RPCS.values() if rpc.at_edge)
INTERNAL_RPCS = tuple(rpc for rpc in RPCS.values() if not rpc.at_edge)
PATIENCE_S = 20.0
RAW = "google.api.HttpBody"


@dataclass(frozen=True)
class Answer:
    """What came back, good or bad."""

    code: int
    """gRPC's code; 0 is good."""
    http_status: int
    body: Json = field(default_factory=dict)
    reason: str = ""
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Mapping[str, str] = field(default_factory=dict)
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    text: str = ""
    """Everything of it that a client could read, to search it for what should not be there."""

    @property
    def told(self) -> tuple[object, ...]:
        """What somebody who compares two answers can compare. Request ids and dates differ by nature."""
        return (self.code, self.reason, self.message, dict(self.metadata), dict(self.violations), self.body)


class Refused(AssertionError):
    """A call that should have been done was not."""

    def __init__(self, rpc: str, answer: Answer) -> None:
        super().__init__(f"{rpc}: {answer.reason or answer.code} {answer.message} {dict(answer.violations)}")
        self.answer = answer


class Updates(Protocol):
    async def next(self, patience_s: float = PATIENCE_S) -> Json: ...


class Client:
    """What the three have in common. ``by`` gives the same client for another caller."""

    name = ""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def by(self, token: str | None) -> Client:
        other = copy.copy(self)
        other.headers = {**self.headers, "authorization": f"Bearer {token}"} if token else {}
        return other

    def with_headers(self, **headers: str) -> Client:
        other = copy.copy(self)
        other.headers = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return other

    async def call(self, rpc: str, request: Json | None = None) -> Json:
        """The answer's message.

        Raises:
            Refused: the call was not done.
        """
        answer = await self.ask(rpc, request)
        if answer.code:
            raise Refused(rpc, answer)
        return answer.body

    async def ask(self, rpc: str, request: Json | None = None) -> Answer:
        """The answer, good or bad; of a stream the first message."""
        raise NotImplementedError

    def watch(self, rpc: str, request: Json) -> contextlib.AbstractAsyncContextManager[Updates]:
        raise NotImplementedError


# --- messages -------------------------------------------------------------------------------------------------------


def message_class(name: str) -> type[Message]:
    found: type[Message] = symbol_database.Default().GetSymbol(name)
    return found


def encoded(rpc: Rpc, request: Json | None) -> bytes:
    return json_format.ParseDict(request or {}, message_class(rpc.request)()).SerializeToString()


def decoded(rpc: Rpc, wire: bytes) -> Json:
    return as_json(message_class(rpc.response).FromString(wire))


def as_json(message: Message) -> Json:
    """As proto3 JSON has it, zero values printed."""
    found: Json = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return found


def refusal(details: bytes, *, code: int, message: str, http_status: int, headers: httpx.Headers) -> Answer:
    status = status_pb2.Status.FromString(details)
    info, bad, text = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), [message]
    for packed in status.details:
        packed.Unpack(info)
        packed.Unpack(bad)
        text.append(packed.value.decode(errors="replace"))
    assert not details or status.code == code
    return Answer(
        code=code,
        http_status=http_status,
        reason=info.reason,
        message=message,
        metadata=dict(info.metadata),
        violations={each.field: each.description for each in bad.field_violations},
        headers=headers,
        text="\n".join(text),
    )


class _Queue:
    """Messages of a stream, each awaited with patience."""

    def __init__(self, messages: AsyncIterator[Json]) -> None:
        self._messages = messages

    async def next(self, patience_s: float = PATIENCE_S) -> Json:
        async with asyncio.timeout(patience_s):
            return await anext(self._messages)


# --- REST -----------------------------------------------------------------------------------------------------------


class Rest(Client):
    """JSON over HTTP. Each good answer must be printed exactly as protobuf prints it, zero values too."""

    name = "rest"

    def __init__(self, http: httpx.AsyncClient) -> None:
        super().__init__()
        self._http = http

    async def ask(self, rpc: str, request: Json | None = None) -> Answer:
        built = self._http.build_request(**rest_request(RPCS[rpc], request or {}, self.headers))
        if RPCS[rpc].server_streaming:
            return await self._first(RPCS[rpc], built)
        return rest_answer(RPCS[rpc], await self._http.send(built))

    async def send(self, rpc: Rpc, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        """Anything, well-formed or not."""
        built = self._http.build_request(method, url, content=content, headers={**self.headers, **headers})
        return await self._first(rpc, built) if rpc.server_streaming else rest_answer(rpc, await self._http.send(built))

    async def _first(self, rpc: Rpc, request: httpx.Request) -> Answer:
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code >= 400:
                await response.aread()
                return rest_answer(rpc, response)
            async with asyncio.timeout(PATIENCE_S):
                line = await anext(response.aiter_lines(), "{}")
            return Answer(0, response.status_code, json.loads(line), headers=response.headers, text=line)
        finally:
            await response.aclose()

    @contextlib.asynccontextmanager
    async def watch(self, rpc: str, request: Json) -> AsyncIterator[Updates]:
        built = self._http.build_request(**rest_request(RPCS[rpc], request, self.headers), timeout=None)
        response = await self._http.send(built, stream=True)
        try:
            if response.status_code != 200:
                await response.aread()
                raise Refused(rpc, rest_answer(RPCS[rpc], response))
            yield _Queue(self._lines(RPCS[rpc], response))
        finally:
            await response.aclose()

    async def _lines(self, rpc: Rpc, response: httpx.Response) -> AsyncIterator[Json]:
        async for line in response.aiter_lines():
            if line:
                yield printed_whole(rpc, json.loads(line))


def rest_request(rpc: Rpc, request: Json, headers: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of ``httpx.AsyncClient.build_request``."""
    left = copy.deepcopy(request)
    rule, values = _binding(rpc, left)
    path = rule.template
    for name, value in values.items():
        path = path.replace("{" + name + "}", urllib.parse.quote(value, safe=""))
    if not rule.body:
        return {"method": rule.method, "url": path, "params": _query(left), "headers": dict(headers)}
    if rule.body != "*":
        payload = left.get(camel(rule.body), {})
        content = base64.b64decode(payload.get("data", ""))
        kind = {"content-type": payload.get("contentType", "application/json")}
        return {"method": rule.method, "url": path, "content": content, "headers": {**kind, **headers}}
    content = json.dumps(left).encode()
    kind = {"content-type": "application/json"}
    return {"method": rule.method, "url": path, "content": content, "headers": {**kind, **headers}}


def _binding(rpc: Rpc, request: Json) -> tuple[HttpRule, dict[str, str]]:
    """The first REST binding whose path the request can fill, and what it takes out of the request for it."""
    for rule in rpc.http_rules:
        if all(_look(request, name) for name in rule.path_fields):
            return rule, {name: _take(request, name) for name in rule.path_fields}
    return rpc.http_rules[0], {name: _take(request, name) or "-" for name in rpc.http_rules[0].path_fields}


def _look(request: Json, path: str) -> str:
    for name in path.split("."):
        request = request.get(camel(name), {})
    return str(request or "")


def _take(request: Json, path: str) -> str:
    *parents, last = path.split(".")
    for name in parents:
        request = request.get(camel(name), {})
    return str(request.pop(camel(last), ""))


def _query(values: Json, prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += _query(value, f"{prefix}{name}.")
        else:
            pairs += [(prefix + name, _word(each)) for each in (value if isinstance(value, list) else [value])]
    return pairs


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda match: match.group(1).upper(), name)


def rest_answer(rpc: Rpc, response: httpx.Response) -> Answer:
    status, headers, text = response.status_code, response.headers, response.text
    if status < 400:
        if rpc.response == RAW:
            body = {"contentType": headers["content-type"], "data": base64.b64encode(response.content).decode()}
        else:
            body = printed_whole(rpc, response.json())
        return Answer(0, status, body, headers=headers, text=text)
    said = response.json()
    assert set(said) == {"code", "message", "details"}, text
    info: Json = next((each for each in said["details"] if each["@type"].endswith("/google.rpc.ErrorInfo")), {})
    bad: Json = next((each for each in said["details"] if each["@type"].endswith("/google.rpc.BadRequest")), {})
    return Answer(
        code=said["code"],
        http_status=status,
        reason=info.get("reason", ""),
        message=said["message"],
        metadata=info.get("metadata", {}),
        violations={each["field"]: each["description"] for each in bad.get("fieldViolations", [])},
        headers=headers,
        text=text,
    )


def printed_whole(rpc: Rpc, body: Json) -> Json:
    """``body``, which must be what protobuf itself prints: lowerCamelCase, nothing unknown, zero values there."""
    expected = as_json(json_format.ParseDict(body, message_class(rpc.response)()))
    assert body == expected, f"{rpc.name} is not printed as protobuf does it"
    return body


# --- gRPC -----------------------------------------------------------------------------------------------------------


class Grpc(Client):
    """gRPC over h2c, by grpc.aio."""

    name = "grpc"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__()
        self._channel = channel

    async def ask(self, rpc: str, request: Json | None = None) -> Answer:
        return await self.send(RPCS[rpc], encoded(RPCS[rpc], request))

    async def send(self, rpc: Rpc, wire: bytes, path: str = "") -> Answer:
        """Any bytes, well-formed or not."""
        metadata, path = tuple(self.headers.items()), path or rpc.path
        try:
            if rpc.server_streaming:
                stream = self._channel.unary_stream(path)(wire, metadata=metadata, timeout=PATIENCE_S)
                reply = await stream.read()
                headers = _headers(await stream.initial_metadata())
                stream.cancel()
                body = b"" if reply is grpc.aio.EOF else reply
            else:
                call = self._channel.unary_unary(path)(wire, metadata=metadata, timeout=PATIENCE_S)
                body = await call
                headers = _headers(await call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            return _grpc_refusal(error)
        said = decoded(rpc, body)
        return Answer(0, 200, said, headers=headers, text=json.dumps(said, ensure_ascii=False))

    @contextlib.asynccontextmanager
    async def watch(self, rpc: str, request: Json) -> AsyncIterator[Updates]:
        described = RPCS[rpc]
        stream = self._channel.unary_stream(described.path)(
            encoded(described, request), metadata=tuple(self.headers.items())
        )
        try:
            yield _Queue(self._messages(described, stream))
        finally:
            stream.cancel()

    async def _messages(self, rpc: Rpc, stream: grpc.aio.UnaryStreamCall[bytes, bytes]) -> AsyncIterator[Json]:
        try:
            async for wire in stream:
                yield decoded(rpc, wire)
        except grpc.aio.AioRpcError as error:
            raise Refused(rpc.name, _grpc_refusal(error)) from None


def _grpc_refusal(error: grpc.aio.AioRpcError) -> Answer:
    details = next((value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"), b"")
    return refusal(
        details if isinstance(details, bytes) else b"",
        code=error.code().value[0],
        message=error.details() or "",
        http_status=200,
        headers=httpx.Headers([*_headers(error.initial_metadata()).items(), *_texts(error.trailing_metadata())]),
    )


def _headers(metadata: Any) -> httpx.Headers:
    return httpx.Headers(_texts(metadata))


def _texts(metadata: Any) -> list[tuple[str, str]]:
    return [(key, value) for key, value in metadata or () if isinstance(value, str)]


# --- grpc-web -------------------------------------------------------------------------------------------------------


class GrpcWeb(Client):
    """grpc-web's frames over HTTP/1.1, made and read by hand.

    https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md

    Args:
        text: ``grpc-web-text``: the frames in base64, as browsers without binary streams need them.
    """

    def __init__(self, http: httpx.AsyncClient, *, text: bool = False) -> None:
        super().__init__()
        self._http = http
        self._text = text
        self.name = "grpc-web-text" if text else "grpc-web"

    async def ask(self, rpc: str, request: Json | None = None) -> Answer:
        return await self.send(RPCS[rpc], encoded(RPCS[rpc], request))

    async def send(self, rpc: Rpc, wire: bytes, path: str = "") -> Answer:
        """One frame with any bytes in it, well-formed or not."""
        return await self.post(rpc, self._encoded(frame(wire)), path)

    async def post(self, rpc: Rpc, content: bytes, path: str = "", patience_s: float = PATIENCE_S) -> Answer:
        """Anything for a body, frames or not."""
        response = await self._http.send(self._request(path or rpc.path, content, patience_s), stream=True)
        try:
            first, trailers = b"", dict(response.headers)
            async with asyncio.timeout(PATIENCE_S):
                async for kind, content in self._frames(response):
                    if kind & TRAILERS:
                        trailers |= read_trailers(content)
                    else:
                        first = content
                        if rpc.server_streaming:
                            trailers["grpc-status"] = "0"
                            break
        finally:
            await response.aclose()
        return self._answer(rpc, response, trailers, first)

    def _answer(self, rpc: Rpc, response: httpx.Response, trailers: Mapping[str, str], wire: bytes) -> Answer:
        assert response.status_code == 200, "grpc-web tells its errors in trailers"
        headers = httpx.Headers(dict(trailers))
        code = int(trailers["grpc-status"])
        if code:
            details = trailers.get("grpc-status-details-bin", "")
            return refusal(
                base64.b64decode(details + "=" * (-len(details) % 4)),
                code=code,
                message=urllib.parse.unquote(trailers.get("grpc-message", "")),
                http_status=200,
                headers=headers,
            )
        said = decoded(rpc, wire)
        return Answer(0, 200, said, headers=headers, text=json.dumps(said, ensure_ascii=False))

    @contextlib.asynccontextmanager
    async def watch(self, rpc: str, request: Json) -> AsyncIterator[Updates]:
        described = RPCS[rpc]
        built = self._request(described.path, self._encoded(frame(encoded(described, request))), timeout=None)
        response = await self._http.send(built, stream=True)
        try:
            yield _Queue(self._messages(described, response))
        finally:
            await response.aclose()

    async def _messages(self, rpc: Rpc, response: httpx.Response) -> AsyncIterator[Json]:
        trailers = dict(response.headers)
        async for kind, content in self._frames(response):
            if kind & TRAILERS:
                trailers |= read_trailers(content)
            else:
                yield decoded(rpc, content)
        if int(trailers.get("grpc-status", "0")):
            raise Refused(rpc.name, self._answer(rpc, response, trailers, b""))

    def _request(self, path: str, content: bytes, timeout: float | None = PATIENCE_S) -> httpx.Request:
        kind = "application/grpc-web-text+proto" if self._text else "application/grpc-web+proto"
        headers = {"content-type": kind, "accept": kind, "x-grpc-web": "1", **self.headers}
        return self._http.build_request("POST", path, content=content, headers=headers, timeout=timeout)

    def _encoded(self, frames: bytes) -> bytes:
        return base64.b64encode(frames) if self._text else frames

    async def _frames(self, response: httpx.Response) -> AsyncIterator[tuple[int, bytes]]:
        left = b""
        async for chunk in self._bytes(response):
            left += chunk
            while len(left) >= 5 and len(left) >= 5 + struct.unpack(">I", left[1:5])[0]:
                end = 5 + struct.unpack(">I", left[1:5])[0]
                yield left[0], left[5:end]
                left = left[end:]
        assert not left, "half a frame at the end"

    async def _bytes(self, response: httpx.Response) -> AsyncIterator[bytes]:
        if not self._text or "grpc-web-text" not in response.headers.get("content-type", ""):
            async for chunk in response.aiter_bytes():
                yield chunk
            return
        left = b""
        async for chunk in response.aiter_bytes():
            left += chunk
            whole = len(left) - len(left) % 4
            yield unpadded(left[:whole])
            left = left[whole:]
        if left:
            raise binascii.Error("base64 that is not whole")


TRAILERS = 0x80
"""The bit of a frame's first byte that tells trailers from a message."""


def frame(wire: bytes, kind: int = 0) -> bytes:
    return struct.pack(">BI", kind, len(wire)) + wire


def read_trailers(content: bytes) -> dict[str, str]:
    rows = [row.split(":", 1) for row in content.decode().split("\r\n") if row]
    return {name.strip().lower(): value.strip() for name, value in rows}


def unpadded(text: bytes) -> bytes:
    """Base64 of several pieces, one after the other, each perhaps padded."""
    return b"".join(base64.b64decode(piece) for piece in re.findall(rb"[^=]+={0,2}", text))
