"""Point 9: nonsense in every field of every RPC is answered with a 4xx that names the field; never with a 5xx.

The nonsense comes from the contracts' own descriptors (fuzz_nonsense.py), the good requests around it from a house
that was built for it (fuzz_requests.py). MARQUEE_FUZZ_SEED repeats a run, MARQUEE_FUZZ_CALLS makes it longer.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from e2e_protocols import (
    EDGE_RPCS,
    RPCS,
    Answer,
    Grpc,
    GrpcWeb,
    Json,
    Rest,
    encoded,
    frame,
    message_class,
    rest_answer,
    rest_request,
)
from e2e_system import House, System, book, initiate, new_id
from fuzz_nonsense import (
    Place,
    broken_bodies,
    broken_messages,
    json_nonsense,
    places,
    put_json,
    put_wire,
    wire_nonsense,
    written,
)
from fuzz_requests import Ground, prepare

from gateway.contracts import Rpc
from local import files
from local.provider.webhooks import sign

AT_ONCE = 8
LEAST_CALLS = 2_000
CALLS = int(os.environ.get("MARQUEE_FUZZ_CALLS", "3500"))
"""How many to make; there are some 22,000."""
REFUSED_WITH = {
    3: "INVALID_ARGUMENT",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    10: "ABORTED",
    16: "UNAUTHENTICATED",
}
INSIDE = re.compile(
    r"Traceback|\.py\b|psycopg|sqlalchemy|asyncpg|site-packages|/work/|0x[0-9a-f]{8}|duplicate key|violates|"
    r"SELECT |INSERT |UPDATE |relation \"|column \"|Errno|upstream|password_hash|Exception\b",
)
"""What nobody outside should read."""

CONTENT_TYPES = ("text/plain", "application/xml", "multipart/form-data; boundary=x", "application/json; charset=x", "")
QUERIES = {
    "an unknown parameter": "noSuchField=1",
    "bytes that are not UTF-8": "pageToken=%ff%fe",
    "no name": "=1",
    "a broken escape": "pageToken=%zz",
    "many parameters": "&".join(f"a{number}=1" for number in range(500)),
}
TAILS = {"more path": "/more", "an action": ":noSuch", "a dot": "/..", "an escaped slash": "%2f.."}


@dataclass(frozen=True)
class Case:
    """One call with nonsense in it."""

    rpc: Rpc
    where: str
    what: str
    way: str
    send: Callable[[], Awaitable[Answer]]
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.rpc.name}({self.where}: {self.what}) by {self.way}"


@dataclass
class Report:
    """What came of it."""

    calls: int = 0
    by_way: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    refused_fields: int = 0
    named: int = 0
    faults: list[str] = field(default_factory=list)

    def judge(self, case: Case, answer: Answer) -> None:
        self.calls += 1
        self.by_way[case.way] += 1
        self.answers[answer.reason or ("done" if not answer.code else f"code {answer.code}")] += 1
        if inside := INSIDE.search(answer.text):
            self.faults.append(f"{case}: shows {inside.group()!r} in {answer.text[:300]}")
        if not answer.code:
            return
        if answer.http_status >= 500 or answer.code not in REFUSED_WITH:
            self.faults.append(f"{case}: {answer.http_status} {answer.code} {answer.reason} {answer.message[:200]}")
        elif not answer.reason:
            self.faults.append(f"{case}: {answer.code} without ErrorInfo: {answer.message[:200]}")
        elif answer.code == 3:
            self._naming(case, answer)

    def _naming(self, case: Case, answer: Answer) -> None:
        """What is at fault is named by a violation, whoever refused it: a service, or Envoy that could not read it."""
        self.refused_fields += 1
        named = any(case.place is None or related(case, name, told) for name, told in answer.violations.items())
        if named or is_no_http(case, answer):
            self.named += named
        else:
            self.faults.append(f"{case}: not named in {dict(answer.violations)} {answer.message[:200]}")

    def __str__(self) -> str:
        ways = ", ".join(f"{count} {way}" for way, count in sorted(self.by_way.items()))
        return (
            f"{self.calls} calls ({ways}); {self.refused_fields} bad fields, {self.named} named by a violation; "
            f"{dict(self.answers.most_common())}"
        )


def related(case: Case, violated: str, told: str) -> bool:
    """Whether a violation of ``violated`` is about the case's place: it, what it lies in, or what lies in it.

    A rule over several fields may name the one beside (an end before its start), or, as the request's own, say in words
    which. A field with a slash makes a path that is none.
    """
    place = case.place
    assert place is not None
    if violated == "path":
        return case.way == "rest" and any(place.name in rule.path_fields for rule in case.rpc.http_rules)
    if case.rpc.name == "BlockSeats" and told.endswith(" is not blocked"):
        return True  # nonsense that did no harm; which seats are blocked depends on the calls before
    ours, theirs = plain(place.name), plain(violated)
    if theirs == "request":
        return place.field.name in told or "not a marquee." in told
    beside = ours.rpartition(".")[0] == theirs.rpartition(".")[0] and ("." in ours or place.field.name in told)
    return ours == theirs or ours.startswith(f"{theirs}.") or theirs.startswith(f"{ours}.") or beside


def plain(path: str) -> str:
    return re.sub(r"\[[^]]*]", "", path)


def is_no_http(case: Case, answer: Answer) -> bool:
    """Not every text can be a method, or a header, as the raw webhook's content type is: then there is no request."""
    return case.where in ("method", "payload.content_type") and answer.message == "the request is not well-formed HTTP"


# --- the cases --------------------------------------------------------------------------------------------------------


class Fuzzer:
    """Makes and sends the calls."""

    def __init__(self, ground: Ground, chance: random.Random) -> None:
        self._ground = ground
        self._chance = chance
        system = ground.system
        self._http = system.http
        self._rest, self._grpc, self._web = Rest(system.http), Grpc(system.channel), GrpcWeb(system.http)
        self._web_text = GrpcWeb(system.http, text=True)

    def cases(self, rpc: Rpc) -> list[Case]:
        """All of one RPC's."""
        found = [*self._in_json(rpc), *self._in_messages(rpc), *self._bodies(rpc), *self._addresses(rpc)]
        found += [*self._wires(rpc), *self._frames(rpc)]
        self._chance.shuffle(found)
        return found

    def _in_json(self, rpc: Rpc) -> Iterator[Case]:
        for place in places(message_class(rpc.request).DESCRIPTOR):
            for what, value in json_nonsense(place):
                yield Case(rpc, place.name, what, "rest", self._json(rpc, place, value), place)

    def _json(self, rpc: Rpc, place: Place, value: object) -> Callable[[], Awaitable[Answer]]:
        async def send() -> Answer:
            request = put_json(self._ground.request(rpc), place, value)
            return await self.by_rest(rpc, request)

        return send

    async def by_rest(self, rpc: Rpc, request: Json, **more: str) -> Answer:
        headers = self._headers(rpc)
        try:
            built = rest_request(rpc, request, headers)
            self._http.build_request(**built)
        except (ValueError, TypeError, AttributeError):  # an address or raw body cannot be made of it
            built = rest_request(rpc, self._ground.request(rpc), headers)
            return await self._send(rpc, {**built, "content": written(request)})
        if rpc.http_rules[0].body == "*":
            built["content"] = written(json.loads(built["content"]))
        return await self._send(rpc, built)

    async def _send(self, rpc: Rpc, built: dict[str, object]) -> Answer:
        request = self._http.build_request(**built)  # type: ignore[arg-type]
        return await self._rest.send(
            rpc, request.method, str(request.url), request.content or None, dict(request.headers)
        )

    def _headers(self, rpc: Rpc) -> dict[str, str]:
        token = self._ground.token(rpc)
        return {"authorization": f"Bearer {token}"} if token else {}

    def _in_messages(self, rpc: Rpc) -> Iterator[Case]:
        for place in places(message_class(rpc.request).DESCRIPTOR):
            for what, value in wire_nonsense(place):
                way = self._chance.choice(("grpc", "grpc", "grpc-web", "grpc-web-text"))
                yield Case(rpc, place.name, what, way, self._message(rpc, place, value, way), place)

    def _message(self, rpc: Rpc, place: Place, value: object, way: str) -> Callable[[], Awaitable[Answer]]:
        async def send() -> Answer:
            good = message_class(rpc.request).FromString(encoded(rpc, self._ground.request(rpc)))
            return await self._by_wire(rpc, put_wire(good, place, value), way)

        return send

    async def _by_wire(self, rpc: Rpc, wire: bytes, way: str) -> Answer:
        client = {"grpc": self._grpc, "grpc-web": self._web, "grpc-web-text": self._web_text}[way]
        signed_in = client.by(self._ground.token(rpc))
        assert isinstance(signed_in, Grpc | GrpcWeb)
        return await signed_in.send(rpc, wire)

    def _wires(self, rpc: Rpc) -> Iterator[Case]:
        for what, wire in broken_messages(self._chance):
            way = self._chance.choice(("grpc", "grpc-web"))
            yield Case(rpc, "message", what, way, lambda wire=wire, way=way: self._by_wire(rpc, wire, way))

    def _bodies(self, rpc: Rpc) -> Iterator[Case]:
        """For calls with a body: bodies that are none, and content types that are not what is in them."""
        if not rpc.http_rules[0].body:
            return
        for what, body in broken_bodies(self._chance):
            yield Case(rpc, "body", what, "rest", lambda body=body: self._with_body(rpc, body, "application/json"))
        for kind in (
            "text/plain",
            "application/xml",
            "multipart/form-data; boundary=x",
            "application/json; charset=x",
            "",
        ):
            yield Case(rpc, "content-type", kind, "rest", lambda kind=kind: self._with_body(rpc, None, kind))

    async def _with_body(self, rpc: Rpc, body: bytes | None, kind: str) -> Answer:
        built = rest_request(rpc, self._ground.request(rpc), self._headers(rpc))
        if body is not None:
            built["content"] = body
        built["headers"] = {**built["headers"], "content-type": kind}
        return await self._send(rpc, built)

    def _addresses(self, rpc: Rpc) -> Iterator[Case]:
        """Path and query: fields twice, unknown ones, bytes that are no text, other methods."""
        rule = rpc.http_rules[0]
        queries = {
            "an unknown parameter": "noSuchField=1",
            "bytes that are not UTF-8": "pageToken=%ff%fe",
            "no name": "=1",
        }
        queries |= {"a broken escape": "pageToken=%zz", "many parameters": "&".join(f"a{n}=1" for n in range(500))}
        queries |= {f"{name} twice": f"{name}={new_id()}" for name in rule.path_fields}
        for what, query in queries.items():
            yield Case(rpc, "query", what, "rest", lambda query=query: self._at(rpc, "?" + query))
        for what, tail in {
            "more path": "/more",
            "an action": ":noSuch",
            "a dot": "/..",
            "an escaped slash": "%2f..",
        }.items():
            yield Case(rpc, "path", what, "rest", lambda tail=tail: self._at(rpc, tail))
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "BREW"):
            if method != rule.method:
                yield Case(rpc, "method", method, "rest", lambda method=method: self._at(rpc, "", method))

    async def _at(self, rpc: Rpc, tail: str, method: str = "") -> Answer:
        built = rest_request(rpc, self._ground.request(rpc), self._headers(rpc))
        request = self._http.build_request(**built)
        target = request.url.raw_path.decode()
        if tail.startswith("?") and "?" in target:
            tail = "&" + tail[1:]
        url = f"{str(self._http.base_url).rstrip('/')}{target}{tail}"
        sent = self._http.build_request(method or request.method, url, headers=request.headers, content=request.content)
        response = await self._http.send(sent, stream=True)
        try:
            if response.status_code < 400:  # another RPC's answer, perhaps, or a stream
                return Answer(0, response.status_code, headers=response.headers)
            await response.aread()
            if method == "HEAD":
                return Answer(5, response.status_code, reason="of a HEAD", headers=response.headers)
            return rest_answer(rpc, response)
        finally:
            await response.aclose()

    def _frames(self, rpc: Rpc) -> Iterator[Case]:
        """grpc-web: frames that are none."""
        good = frame(encoded(rpc, self._ground.requests[rpc.name]))
        frames = {"unknown flags": b"\x7f" + good[1:], "trailers only": frame(b"a: b\r\n", 0x80)}
        for what, body in {**frames, "none": b"", "not whole": good[:-1]}.items():
            yield Case(rpc, "frame", what, "grpc-web", lambda body=body: self.framed(rpc, body))
        yield Case(rpc, "frame", "broken base64", "grpc-web-text", lambda: self.framed(rpc, b"*!*", text=True))

    async def framed(self, rpc: Rpc, body: bytes, *, text: bool = False) -> Answer:
        client = (self._web_text if text else self._web).by(self._ground.token(rpc))
        assert isinstance(client, GrpcWeb)
        return await client.post(rpc, body)


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("MARQUEE_FUZZ_SEED", time.time_ns() % 1_000_000))


@pytest.fixture(scope="module")
async def ground(system: System, house: House) -> Ground:
    return await prepare(system, house)


@pytest.fixture
def fuzzer(ground: Ground, seed: int) -> Fuzzer:
    return Fuzzer(ground, random.Random(seed))


async def test_every_good_request_is_good(fuzzer: Fuzzer, ground: Ground) -> None:
    """Otherwise nonsense would be refused for something else."""
    refused = {"RefreshSession": "SESSION_ENDED", "HandleCallback": "BAD_SIGNATURE", "RevokeSession": "NOT_FOUND"}
    for rpc in EDGE_RPCS:
        if rpc.name not in ("RetireMovie", "RetireEvent", "RetireVenue", "RetireScreen", "CancelShow", "CreateBooking"):
            answer = await fuzzer.by_rest(rpc, ground.request(rpc))
            assert answer.reason == refused.get(rpc.name, ""), (rpc.name, answer)
            ground.learn(rpc, answer.body)


def some_of_each(cases: dict[str, list[Case]], chance: random.Random) -> dict[str, list[Case]]:
    """About `CALLS` of the cases, of each place as large a share, and one at least."""
    share = min(1.0, CALLS / sum(map(len, cases.values())))
    chosen: dict[str, list[Case]] = {}
    for rpc, several in cases.items():
        by_place: dict[tuple[str, bool], list[Case]] = {}
        for case in several:
            by_place.setdefault((case.where, case.way == "rest"), []).append(case)
        chosen[rpc] = [case for group in by_place.values() for case in group[: math.ceil(len(group) * share)]]
        chance.shuffle(chosen[rpc])
    return chosen


async def run(ground: Ground, cases: dict[str, list[Case]], report: Report) -> None:
    """RPC by RPC some at once; the cases of one RPC one after the other, as they build on each other."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one_rpc(several: list[Case]) -> None:
        for case in several:
            async with room:
                try:
                    answer = await case.send()
                except (httpx.InvalidURL, httpx.LocalProtocolError):
                    continue  # what this client will not send; other ways do
                except (httpx.HTTPError, TimeoutError, AssertionError, ValueError) as error:
                    report.faults.append(f"{case}: {type(error).__name__} {str(error)[:200]}")
                    continue
            report.judge(case, answer)
            ground.learn(case.rpc, answer.body)

    await asyncio.gather(*map(one_rpc, cases.values()))


@pytest.mark.timeout(1200)
async def test_nonsense_in_any_field_of_any_call_is_refused_by_name(
    fuzzer: Fuzzer, ground: Ground, seed: int, system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    report, began = Report(), time.monotonic()
    cases = some_of_each({rpc.name: fuzzer.cases(rpc) for rpc in EDGE_RPCS}, random.Random(seed))
    await run(ground, cases, report)
    with capsys.disabled():
        sys.stdout.write(f"\nfuzz seed {seed}: {report} in {time.monotonic() - began:.1f} s\n")
    assert not report.faults, "\n".join([f"{len(report.faults)} of {report.calls}, seed {seed}:", *report.faults[:60]])
    assert report.calls >= LEAST_CALLS
    assert system.log_lines("call_failed") == []


WEBHOOK_NONSENSE = (
    None,
    [],
    {},
    "",
    "x" * 5_000,
    "a\0b",
    "\ud800",
    -1,
    0,
    3.7,
    2**63,
    2**70,
    10**400,
    True,
    "1e400",
    "12",
)


async def test_a_signed_webhook_full_of_nonsense_is_taken_without_harm(
    system: System, house: House, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The provider is trusted to be the provider, not to make sense; what it sends is taken, so that it stops."""
    buyer = system.rest.by((await system.new_customer()).token)
    booking = await book(buyer, await house.new_bookable_show(), "A1")
    order = (await initiate(buyer, booking))["providerOrderId"]
    secret = files.secret(system.stack.home.keys / "webhook.secret")
    amount = {"amount": 100, "currency": "INR"}
    payment = {"id": "pay_fuzz", "order_id": order, "status": "failed", "error_description": "no", **amount}
    refund = {"id": "rfnd_fuzz", "payment_id": "pay_fuzz", "status": "processed", "receipt": "r", **amount}
    bodies = [b"", b"{", b"[]", b"null", b"\xff", b"[" * 20_000, b'{"event": "payment.captured"}']
    taken = {**payment, "id": "pay_taken", "order_id": "order_of_somebody_else", "status": "captured"}
    kinds = (("payment.failed", "payment", payment), ("payment.captured", "payment", taken))
    for event, kind, entity in (*kinds, ("refund.processed", "refund", refund)):
        good = {"event": event, "payload": {kind: {"entity": entity}}}
        for value in WEBHOOK_NONSENSE:
            bodies += [json.dumps({**good, name: value}).encode() for name in good]
            bodies += [
                json.dumps({**good, "payload": {kind: {"entity": {**entity, name: value}}}}).encode() for name in entity
            ]
        for raw in (b"1e400", b"NaN", b"-Infinity"):
            bodies.append(json.dumps(good).encode().replace(b"100", raw))
    random.Random(seed).shuffle(bodies)
    faults = []
    for number, body in enumerate(bodies):
        headers = {"x-razorpay-signature": sign(secret, body), "x-razorpay-event-id": f"fuzz-{number}"}
        response = await system.http.post("/api/v1/payments/callback/razorpay", content=body, headers=headers)
        if response.status_code != 200 or INSIDE.search(response.text):
            faults.append(f"{body[:300]!r}: {response.status_code} {response.text[:200]}")
    assert not faults, "\n".join(faults)
    assert (await buyer.call("GetBooking", {"bookingId": booking["bookingId"]}))["status"] == (
        "BOOKING_STATUS_PENDING_PAYMENT"
    )
    assert system.log_lines("call_failed") == []


@pytest.mark.parametrize("content", [b"", b"\0\0", frame(b"abc")[:-1]], ids=["none", "half a frame", "half a message"])
@pytest.mark.parametrize("name", ["ListCities", "WatchSeats", "GetProfile"])
async def test_a_message_that_does_not_come_whole_is_refused_at_once(name: str, content: bytes, fuzzer: Fuzzer) -> None:
    for text in (False, True):
        body = base64.b64encode(content) if text else content
        answer = await fuzzer.framed(RPCS[name], body, text=text)
        assert (answer.reason, list(answer.violations)) == ("INVALID_ARGUMENT", ["request"])
