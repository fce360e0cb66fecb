"""Who may pass the edge: every RPC, in every protocol, with every kind of wrong token."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from edge_calls import PROTOCOLS
from edge_fixtures import EDGE_RPCS, INTERNAL_RPCS, RPCS, World, bearer, world
from edge_process import Keys, claims_of

__all__ = ["world"]


def _unsigned(header: dict[str, str], claims: dict[str, object]) -> str:
    return ".".join(_text(json.dumps(part).encode()) for part in (header, claims)) + "."


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _alg_none(_: Keys) -> str:
    return _unsigned({"alg": "none", "typ": "JWT", "kid": "k0"}, claims_of("mallory"))


def _hs256_with_public_key(keys: Keys) -> str:
    """Signed with what everybody can read, in the hope that the verifier takes the public key for a secret."""
    key = keys.private[0].public_key()
    public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    # By hand, because PyJWT refuses to make such a token.
    signed = _unsigned({"alg": "HS256", "typ": "JWT", "kid": "k0"}, claims_of("mallory")).rstrip(".")
    return f"{signed}.{_text(hmac.digest(public, signed.encode(), 'sha256'))}"


def _without(claim: str) -> Callable[[Keys], str]:
    def sign(keys: Keys) -> str:
        claims = {key: value for key, value in claims_of("mallory").items() if key != claim}
        return jwt.encode(claims, keys.private[0], algorithm="ES256", headers={"kid": "k0"})

    return sign


WRONG_TOKENS: dict[str, Callable[[Keys], str]] = {
    "nonsense": lambda _: "nonsense",
    "forged": lambda keys: keys.token("mallory", signer=ec.generate_private_key(ec.SECP256R1())),
    "expired": lambda keys: keys.token("mallory", exp=int(time.time()) - 60),
    "without_expiry": _without("exp"),
    "wrong_audience": lambda keys: keys.token("mallory", aud="marquee"),
    "without_audience": _without("aud"),
    "wrong_issuer": lambda keys: keys.token("mallory", iss="https://mallory.invalid"),
    "alg_none": _alg_none,
    "hs256_with_public_key": _hs256_with_public_key,
}


async def test_every_rpc_asks_for_a_token_unless_its_policy_says_anyone(world: World) -> None:
    for rpc in EDGE_RPCS:
        for protocol in PROTOCOLS:
            reply = await world.call(protocol, rpc)
            if rpc.open_to_anyone:
                assert reply.ok, (rpc.name, protocol, reply)
            else:
                assert (reply.code, reply.reason, reply.domain) == (16, "UNAUTHENTICATED", "marquee"), (rpc, protocol)
                assert reply.http_status == (401 if protocol == "rest" else 200)
                assert reply.headers["www-authenticate"] == "Bearer"
            assert reply.headers["x-request-id"]


async def test_every_rpc_is_reached_with_a_good_token(world: World) -> None:
    for rpc in EDGE_RPCS:
        for protocol in PROTOCOLS:
            reply = await world.call(protocol, rpc, world.signed_in())
            assert reply.ok, (rpc.name, protocol, reply)
            assert world.backend.arrivals[-1].path == rpc.path


@pytest.mark.parametrize("kind", WRONG_TOKENS)
async def test_no_rpc_takes_a_wrong_token(world: World, kind: str) -> None:
    token = WRONG_TOKENS[kind](world.edge.keys)
    before = len(world.backend.arrivals)
    for rpc in EDGE_RPCS:
        for protocol in PROTOCOLS:
            reply = await world.call(protocol, rpc, bearer(token))
            assert (reply.code, reply.reason) == (16, "UNAUTHENTICATED"), (rpc.name, protocol, reply)
            assert reply.http_status == (401 if protocol == "rest" else 200)
    assert len(world.backend.arrivals) == before


@pytest.mark.parametrize("name", ["access_token", "accessToken", "token", "jwt", "whatever"])
@pytest.mark.parametrize("path", ["/api/v1/reservations/{id}", "/api/v1/cities", "/api/v1/users/profile"])
async def test_a_token_in_the_query_is_refused_and_never_used(world: World, name: str, path: str) -> None:
    token = world.edge.keys.token("somebody")
    for query in (f"?{name}={token}", f"?pageSize=1&{name}={token}"):
        response = await world.rest("GET", path.replace("{id}", "0b0e7a52-6f2a-4c8e-9d4e-0c5f4c1b2a3d") + query)
        assert response.status_code == 401
        assert response.json()["details"][0]["reason"] == "UNAUTHENTICATED"
        assert await world.edge.logged(response.headers["x-request-id"])
    assert token not in world.edge.log.read_text()


async def test_internal_rpcs_do_not_exist_here(world: World) -> None:
    assert INTERNAL_RPCS
    for rpc in INTERNAL_RPCS:
        for protocol in ("grpc", "grpc-web"):
            reply = await world.call(protocol, rpc, world.signed_in())
            assert (reply.code, reply.reason) == (5, "NOT_FOUND"), (rpc.name, protocol)
        for method in ("GET", "POST"):
            response = await world.rest(method, rpc.path, headers=world.signed_in())
            assert response.status_code == 404
            assert response.json()["details"][0]["reason"] == "NOT_FOUND"
    assert not {arrival.path for arrival in world.backend.arrivals} & {rpc.path for rpc in INTERNAL_RPCS}


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("method", ["POST", "GET", "HEAD", "DELETE", "OPTIONS"])
async def test_an_rpcs_own_path_is_for_grpc_alone(world: World, method: str, kind: str | None) -> None:
    """Its service would take the body for the begin of a message, and wait for the rest."""
    reached = len(world.backend.arrivals)
    headers = world.signed_in() | ({} if kind is None else {"content-type": kind})
    for rpc in EDGE_RPCS:
        for body in (b"{}", b"\x00\x00\x00\x00\x00") if method == "POST" else (b"",):
            response = await world.rest(method, rpc.path, headers=headers, content=body)
            assert response.status_code == 404, (rpc.name, response.text)
    assert len(world.backend.arrivals) == reached


async def test_an_rpcs_path_has_no_query(world: World) -> None:
    reached = len(world.backend.arrivals)
    response = await world.rest(
        "POST",
        f"{RPCS['ListCities'].path}?x=1",
        headers={"content-type": "application/grpc", "te": "trailers"},
        content=b"\x00\x00\x00\x00\x00",
    )
    assert (response.status_code, response.headers["grpc-status"]) == (200, "5")
    assert len(world.backend.arrivals) == reached


@pytest.mark.parametrize(
    "path",
    ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/no.Such/Rpc"],
)
async def test_the_services_own_doors_do_not_exist_here(world: World, path: str) -> None:
    for content_type in ("application/grpc-web+proto", "application/grpc", "application/json"):
        response = await world.rest("POST", path, headers={"content-type": content_type, **world.signed_in()})
        assert response.headers.get("grpc-status") == "5" or response.status_code == 404


async def test_a_valid_token_reaches_the_service_as_it_was_sent(world: World) -> None:
    headers = world.signed_in("carol")
    await world.call("rest", RPCS["GetProfile"], headers)
    assert world.backend.last(RPCS["GetProfile"].path).metadata["authorization"] == headers["authorization"]


async def test_names_that_a_service_might_believe_are_taken_from_clients(world: World) -> None:
    forged = {
        "x-user-id": "admin",
        "x-user-roles": "admin",
        "x-marquee-user": "admin",
        "x-jwt-payload": "e30",
        "x-envoy-original-method": "GET",
        "x-envoy-original-path": "/admin",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
    }
    for protocol in PROTOCOLS:
        assert (await world.call(protocol, RPCS["GetProfile"], forged | world.signed_in())).ok
        metadata = world.backend.arrivals[-1].metadata
        assert "admin" not in {metadata.get(name) for name in forged}
        assert not {"x-user-id", "x-user-roles", "x-marquee-user", "x-jwt-payload", "x-envoy-retry-on"} & set(metadata)
    native = await world.call("grpc", RPCS["GetProfile"], {"x-envoy-original-method": "GET"})
    assert (native.code, native.reason) == (16, "UNAUTHENTICATED")


async def test_a_refused_header_with_underscores_does_not_arrive(world: World) -> None:
    await world.rest("GET", "/api/v1/cities", headers={"x_user_id": "admin"})
    assert "x_user_id" not in world.backend.last(RPCS["ListCities"].path).metadata
