"""Point 7: nobody gets at what is another's, whichever token, protocol or door they try."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from e2e_protocols import EDGE_RPCS, INTERNAL_RPCS, RPCS, Answer, Client, Grpc, GrpcWeb, Json, encoded, message_class
from e2e_system import Customer, House, System, book, buy, hold, initiate, new_id

from gateway.contracts import Rpc
from local.keys import SigningKey, service_keys, user_keys
from local.tokens import service_token
from marquee.edge import v1 as edge_v1

AT_ONCE = 16


@pytest.fixture
async def doors(system: System) -> AsyncIterator[dict[str, Grpc]]:
    """Each service's own port, past the edge."""
    async with AsyncExitStack() as stack:
        owners = sorted({rpc.owner for rpc in RPCS.values()})
        yield {
            owner: Grpc(await stack.enter_async_context(grpc.aio.insecure_channel(system.stack.address(owner))))
            for owner in owners
        }


async def all_of(calls: Iterable[Any]) -> list[Any]:
    """The results of many calls, some at once."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(call: Any) -> Any:
        async with room:
            return await call

    return list(await asyncio.gather(*map(one, calls)))


# --- what belongs to somebody else ------------------------------------------------------------------------------------

OWNED = ("reservation_id", "booking_id", "payment_id", "session_id")


@pytest.fixture(scope="module")
async def belongings(system: System, house: House) -> dict[str, list[str]]:
    """Ids of one customer's things, in each state that they can be in."""
    owner = await system.new_customer()
    alice = system.rest.by(owner.token)
    show = await house.new_bookable_show()
    confirmed, paid = await buy(system, alice, show, "A1")
    pending = await book(alice, show, "A2")
    unpaid = await initiate(alice, pending)
    cancelled = await book(alice, show, "A3")
    await alice.call("CancelBooking", {"requestId": new_id(), "bookingId": cancelled["bookingId"]})
    released = await hold(alice, show, "A4")
    await alice.call("ReleaseReservation", {"reservationId": released["reservationId"]})
    active = await hold(alice, show, "A5")
    return {
        "reservation_id": [each["reservationId"] for each in (active, released, pending)],
        "booking_id": [each["bookingId"] for each in (pending, confirmed, cancelled)],
        "payment_id": [each["paymentId"] for each in (unpaid, paid)],
        "session_id": [each["sessionId"] for each in (await alice.call("ListSessions"))["sessions"]],
    }


def takes_an_id(rpc: Rpc) -> str | None:
    """The field of the request that names something a customer owns."""
    names = [field.name for field in message_class(rpc.request).DESCRIPTOR.fields]
    return next((name for name in OWNED if name in names), None)


ID_RPCS = [rpc for rpc in EDGE_RPCS if takes_an_id(rpc) and edge_v1.ROLE_CUSTOMER in rpc.policy.allow]  # type: ignore[union-attr]


def test_every_call_that_takes_an_id_of_ones_own_is_tried() -> None:
    assert {rpc.name for rpc in ID_RPCS} == {
        *("GetReservation", "ReleaseReservation", "CreateBooking"),
        *("GetBooking", "WatchBooking", "CancelBooking"),
        *("InitiatePayment", "GetPaymentStatus", "RevokeSession"),
    }


def request_for(rpc: Rpc, field: str, value: str) -> Json:
    names = {each.name for each in message_class(rpc.request).DESCRIPTOR.fields}
    request: Json = {camel_id(field): value}
    if "request_id" in names:
        request["requestId"] = new_id()
    if "method" in names:
        request["method"] = "PAYMENT_METHOD_UPI"
    return request


def camel_id(field: str) -> str:
    return field.removesuffix("_id") + "Id"


def missing_like(known: str) -> list[str]:
    """Ids of nothing: one at random, and one that looks like ``known``, of the same show."""
    near = known[:-4] + format((int(known[-4:], 16) + 1) % 0x10000, "04x")
    return [str(uuid.uuid4()), near]


@pytest.mark.parametrize("rpc", ID_RPCS, ids=lambda rpc: rpc.name)
async def test_another_users_id_is_answered_like_a_missing_one(
    rpc: Rpc, system: System, doors: dict[str, Grpc], belongings: dict[str, list[str]]
) -> None:
    mallory = await system.new_customer()
    field = takes_an_id(rpc)
    assert field is not None
    ways = [*system.clients.values(), doors[rpc.owner]]
    for way in (each.by(mallory.token) for each in ways):
        for known in belongings[field]:
            theirs = await way.ask(rpc.name, request_for(rpc, field, known))
            assert (theirs.code, theirs.reason) == (5, "NOT_FOUND"), way.name
            for missing in missing_like(known):
                none = await way.ask(rpc.name, request_for(rpc, field, missing))
                assert told_of(none) == told_of(theirs), way.name


def told_of(answer: Answer) -> tuple[object, ...]:
    """All that a caller sees, but what differs by nature."""
    headers = {key: value for key, value in answer.headers.items() if key not in ("x-request-id", "date")}
    return (answer.http_status, answer.told, answer.text, headers)


async def test_the_owner_still_has_everything(system: System, house: House) -> None:
    """So that the test above does not pass because nothing is there."""
    owner = await system.new_customer()
    alice = system.rest.by(owner.token)
    booking, payment = await buy(system, alice, await house.new_bookable_show(), "A1")
    assert (await alice.call("GetBooking", {"bookingId": booking["bookingId"]}))["status"] == "BOOKING_STATUS_CONFIRMED"
    assert (await alice.ask("GetPaymentStatus", {"paymentId": payment["paymentId"]})).code == 0
    assert (await system.admin.ask("GetPaymentStatus", {"paymentId": payment["paymentId"]})).code == 0


async def test_lists_hold_ones_own_only(system: System, belongings: dict[str, list[str]]) -> None:
    mallory = system.rest.by((await system.new_customer()).token)
    assert (await mallory.call("ListBookings"))["bookings"] == []
    sessions = {each["sessionId"] for each in (await mallory.call("ListSessions"))["sessions"]}
    assert not sessions & set(belongings["session_id"])


async def test_another_users_request_id_means_nothing(system: System, house: House) -> None:
    """A request id that somebody else used does not show their answer."""
    alice, mallory = [system.rest.by((await system.new_customer()).token) for _ in range(2)]
    show = await house.new_bookable_show()
    wish = {"requestId": new_id(), "showId": show["showId"], "seats": ["A1"]}
    await alice.call("CreateReservation", wish)
    assert (await mallory.ask("CreateReservation", wish)).reason == "SEAT_TAKEN"


# --- tokens that are wrong --------------------------------------------------------------------------------------------


def good_claims(key: SigningKey) -> Json:
    now = int(time.time())
    return {
        "iss": "https://marquee.invalid/users",
        "aud": "marquee-edge",
        "sub": str(uuid.uuid4()),
        "sid": str(uuid.uuid4()),
        "roles": ["customer", "staff", "admin"],
        "iat": now,
        "exp": now + 900,
        "jti": str(uuid.uuid4()),
    }


def signed(key: SigningKey, **claims: Any) -> str:
    """A token by the user service's own key; good, but for ``claims``."""
    content = {name: value for name, value in {**good_claims(key), **claims}.items() if value is not None}
    return jwt.encode(content, key.private, algorithm="ES256", headers={"kid": key.kid})


def by_hand(key: SigningKey, algorithm: str, secret: bytes | None) -> str:
    """What PyJWT refuses to make."""
    parts = ({"alg": algorithm, "typ": "JWT", "kid": key.kid}, good_claims(key))
    unsigned = ".".join(text_of(json.dumps(part).encode()) for part in parts)
    return f"{unsigned}.{text_of(hmac.digest(secret, unsigned.encode(), 'sha256')) if secret else ''}"


def text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def public_pem(key: SigningKey) -> bytes:
    return key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def forged(key: SigningKey) -> str:
    """By a key of our own, under the name of the right one."""
    other = SigningKey(0, key.kid, ec.generate_private_key(ec.SECP256R1()))
    return signed(other)


def changed_claims(key: SigningKey) -> str:
    """A real token whose claims were exchanged and whose signature was kept."""
    header, _, signature = signed(key, roles=["customer"]).split(".")
    return f"{header}.{text_of(json.dumps(good_claims(key)).encode())}.{signature}"


WRONG_TOKENS: dict[str, Callable[[SigningKey], str]] = {
    "nonsense": lambda _: "nonsense",
    "forged": forged,
    "with changed claims": changed_claims,
    "expired": lambda key: signed(key, iat=int(time.time()) - 960, exp=int(time.time()) - 60),
    "without expiry": lambda key: signed(key, exp=None),
    "for another audience": lambda key: signed(key, aud="marquee"),
    "without audience": lambda key: signed(key, aud=None),
    "of another issuer": lambda key: signed(key, iss="https://mallory.invalid"),
    "of an unknown key": lambda key: signed(SigningKey(0, "unknown", key.private)),
    "alg none": lambda key: by_hand(key, "none", None),
    "HS256 with the public key": lambda key: by_hand(key, "HS256", public_pem(key)),
}


@pytest.fixture
def key(system: System) -> SigningKey:
    """With which the running user service signs."""
    return user_keys(system.stack.home.keys).signing(time.time())


@pytest.mark.parametrize("kind", WRONG_TOKENS)
async def test_a_wrong_token_is_unauthenticated_in_every_call_through_every_door(
    kind: str, system: System, doors: dict[str, Grpc], key: SigningKey
) -> None:
    token = WRONG_TOKENS[kind](key)
    ways = [(rpc, way.by(token)) for rpc in EDGE_RPCS for way in (*system.clients.values(), doors[rpc.owner])]
    answers = await all_of(way.ask(rpc.name, {}) for rpc, way in ways)
    for (rpc, way), answer in zip(ways, answers, strict=True):
        assert (answer.code, answer.reason) == (16, "UNAUTHENTICATED"), (rpc.name, way.name)
        assert answer.http_status == (401 if way.name == "rest" else 200)


async def test_a_good_token_by_the_same_hand_is_taken(system: System, doors: dict[str, Grpc], key: SigningKey) -> None:
    """So that the test above does not pass because all its tokens are broken."""
    good = signed(key)
    for way in (*system.clients.values(), doors["booking"]):
        assert (await way.by(good).call("ListBookings"))["bookings"] == []


async def test_a_call_without_a_token_is_unauthenticated_where_one_is_needed(
    system: System, doors: dict[str, Grpc]
) -> None:
    closed = [rpc for rpc in EDGE_RPCS if not rpc.open_to_anyone]
    ways = [(rpc, way) for rpc in closed for way in (*system.clients.values(), doors[rpc.owner])]
    answers = await all_of(way.ask(rpc.name, {}) for rpc, way in ways)
    for (rpc, way), answer in zip(ways, answers, strict=True):
        assert (answer.code, answer.reason) == (16, "UNAUTHENTICATED"), (rpc.name, way.name)


@pytest.mark.parametrize("name", ["access_token", "token", "authorization", "bearer", "q"])
async def test_a_token_in_the_address_is_refused_and_stays_out_of_the_logs(name: str, system: System) -> None:
    token = (await system.new_customer()).token
    for path in ("/api/v1/bookings", "/api/v1/users/profile", "/api/v1/cities"):
        for query in (f"{name}={token}", f"pageSize=1&{name}=Bearer%20{token}"):
            response = await system.http.get(f"{path}?{query}")
            assert response.status_code == 401
            assert response.json()["details"][0]["reason"] == "UNAUTHENTICATED"
    rpc = RPCS["ListBookings"]
    for client in (Grpc(system.channel), GrpcWeb(system.http), GrpcWeb(system.http, text=True)):
        answer = await client.send(rpc, b"", f"{rpc.path}?{name}={token}")
        assert (answer.code, answer.reason) in ((5, "NOT_FOUND"), (16, "UNAUTHENTICATED"))
    assert system.log_lines(token) == []


# --- roles and services -----------------------------------------------------------------------------------------------


async def test_a_customer_may_not_do_what_is_the_administrators(
    system: System, doors: dict[str, Grpc], key: SigningKey
) -> None:
    admins = [rpc for rpc in EDGE_RPCS if list(rpc.policy.allow) == [edge_v1.ROLE_ADMIN]]  # type: ignore[union-attr]
    assert len(admins) > 20
    for roles in (["customer"], ["staff"], ["superuser"], []):
        token = signed(key, roles=roles)
        ways = [(rpc, way.by(token)) for rpc in admins for way in (*system.clients.values(), doors[rpc.owner])]
        answers = await all_of(way.ask(rpc.name, {}) for rpc, way in ways)
        for (rpc, way), answer in zip(ways, answers, strict=True):
            assert (answer.code, answer.reason) == (7, "PERMISSION_DENIED"), (rpc.name, way.name, roles)
            assert answer.http_status == (403 if way.name == "rest" else 200)


async def test_internal_calls_are_not_found_at_the_edge(system: System) -> None:
    own = service_token(service_keys(system.stack.home.keys).signing(time.time()), "booking", time.time())
    tokens = [None, system.admin_token, own]
    for rpc in INTERNAL_RPCS:
        for token in tokens:
            for client in (each.by(token) for each in system.clients.values() if each.name != "rest"):
                answer = await client.ask(rpc.name, {})
                assert (answer.code, answer.reason) == (5, "NOT_FOUND"), (rpc.name, client.name)
            for method, content in (("POST", b"{}"), ("POST", encoded(rpc, {})), ("GET", None)):
                headers = {
                    "content-type": "application/json",
                    **({"authorization": f"Bearer {token}"} if token else {}),
                }
                response = await system.http.request(method, rpc.path, content=content, headers=headers)
                assert response.status_code == 404
                assert response.json()["details"][0]["reason"] == "NOT_FOUND"


async def test_internal_calls_take_services_only_and_services_no_others(
    system: System, doors: dict[str, Grpc], key: SigningKey
) -> None:
    own = service_token(service_keys(system.stack.home.keys).signing(time.time()), "payment", time.time())
    for rpc in INTERNAL_RPCS:
        door = doors[rpc.owner]
        assert (await door.ask(rpc.name, {})).reason == "UNAUTHENTICATED"
        assert (await door.by(signed(key)).ask(rpc.name, {})).reason == "PERMISSION_DENIED"
        assert (await door.by(own).ask(rpc.name, {})).reason in ("", "INVALID_ARGUMENT")
    for rpc in EDGE_RPCS:
        if not rpc.open_to_anyone:
            assert (await doors[rpc.owner].by(own).ask(rpc.name, {})).reason == "PERMISSION_DENIED"
    for client in system.clients.values():
        assert (await client.by(own).ask("GetProfile")).reason == "UNAUTHENTICATED"


async def test_a_service_cannot_ask_for_somebody_elses_booking_in_a_users_name(
    system: System, doors: dict[str, Grpc], belongings: dict[str, list[str]]
) -> None:
    """GetPayables names the user; payment passes on who asked it, and booking checks."""
    own = service_token(service_keys(system.stack.home.keys).signing(time.time()), "payment", time.time())
    mallory: Customer = await system.new_customer()
    booking: Client = doors["booking"].by(own)
    wanted = [
        {"bookingId": booking_id, "userId": mallory.user_id} for booking_id in (belongings["booking_id"][0], new_id())
    ]
    theirs, none = (await booking.ask("GetPayables", {"wanted": wanted})).body["answers"]
    assert theirs == none
    assert theirs["refusal"]["details"][0]["reason"] == "NOT_FOUND"
