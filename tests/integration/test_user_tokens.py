"""Access tokens: attacks on them, the published keys, and keys that follow one another without an error."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from marquee.user import v1 as user_v1
from tests.integration.service_harness import Metadata, bearer, reason
from tests.integration.user_service import UserService, as_owner, reason_for, refused, user_service

PROFILE = user_v1.GetProfileRequest()


@pytest.fixture(scope="module")
async def users(
    migrated_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[UserService]:
    folder: Path = tmp_path_factory.mktemp("user")
    async with user_service(folder, migrated_database_url("user")) as running:
        yield running


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def by_hand(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token that no honest library makes."""
    head = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{head}.{b64(sign(head.encode()))}"


def bad_tokens(users: UserService, user_id: str) -> dict[str, str]:
    keys = users.served.keys
    good = keys.user_claims(user_id, roles=["customer", "admin"])
    signing = keys.users.signing(time.time())
    public_pem = signing.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    point = public_pem.replace(b"\n", b"")
    stranger = ec.generate_private_key(ec.SECP256R1())
    header, payload, signature = keys.sign_user(good).split(".")
    other_payload = b64(json.dumps({**good, "sub": str(uuid.uuid4())}).encode())

    def hs256(secret: bytes) -> str:
        return by_hand(
            {"alg": "HS256", "kid": signing.kid}, good, lambda text: hmac.digest(secret, text, hashlib.sha256)
        )

    def spoiled(**changes: Any) -> str:
        return keys.sign_user({key: value for key, value in {**good, **changes}.items() if value is not None})

    return {
        "signed by a stranger with our kid": jwt.encode(good, stranger, "ES256", headers={"kid": signing.kid}),
        "signed by a stranger with a kid of its own": jwt.encode(good, stranger, "ES256", headers={"kid": "other"}),
        "a key in its own header": jwt.encode(
            good,
            stranger,
            "ES256",
            headers={"kid": signing.kid, "jwk": json.loads(jwt.algorithms.ECAlgorithm.to_jwk(stranger.public_key()))},
        ),
        "without a kid": jwt.encode(good, signing.private, "ES256"),
        "a kid that is no text": by_hand({"alg": "ES256", "kid": ["x"]}, good, lambda text: b"x" * 64),
        "a kid that is a path": by_hand({"alg": "ES256", "kid": "../../dev/null"}, good, lambda text: b""),
        "alg none": by_hand({"alg": "none", "kid": signing.kid}, good, lambda text: b""),
        "alg None": by_hand({"alg": "nOnE", "kid": signing.kid}, good, lambda text: b""),
        "without an alg": by_hand({"kid": signing.kid}, good, lambda text: b""),
        "HS256 with the public key": hs256(public_pem),
        "HS256 with the public key on one line": hs256(point),
        "HS256 with the JWKS": hs256(keys.users.jwks.read_bytes()),
        "a signature of zeros": f"{header}.{payload}.{b64(bytes(64))}",
        "a signature cut off": f"{header}.{payload}.{signature[:-8]}",
        "without a signature": f"{header}.{payload}.",
        "claims changed after signing": f"{header}.{other_payload}.{signature}",
        "expired": spoiled(exp=int(time.time()) - 1),
        "never expiring": spoiled(exp=None),
        "an expiry that is no number": spoiled(exp="tomorrow"),
        "from the future": spoiled(iat=int(time.time()) + 3600),
        "not before an hour": spoiled(nbf=int(time.time()) + 3600),
        "for another audience": spoiled(aud="marquee"),
        "for no audience": spoiled(aud=None),
        "from another issuer": spoiled(iss="https://evil.invalid"),
        "without a subject": spoiled(sub=None),
        "a subject that is no id": spoiled(sub="admin"),
        "roles that are no list": spoiled(roles="admin"),
        "without roles": spoiled(roles=None),
        "a service's token signed with a user's key": keys.sign_user(
            {**good, "iss": "https://marquee.invalid/services", "aud": "marquee"}
        ),
        "not a token": "abc",
        "dots": "..",
        "much too long": "A" * 8_000,
    }


async def test_every_bad_token_is_refused(users: UserService) -> None:
    user_id = (await users.register()).user.user_id
    await users.stub.GetProfile(PROFILE, metadata=users.served.as_user(user_id))  # a good one passes
    for name, token in bad_tokens(users, user_id).items():
        for call in (
            users.stub.GetProfile(PROFILE, metadata=bearer(token)),
            users.internal.GetUser(user_v1.GetUserRequest(user_id=user_id), metadata=bearer(token)),
            users.stub.GetJwks(user_v1.GetJwksRequest(), metadata=bearer(token)),  # anyone may, but not with that
        ):
            error = await refused(call)
            assert (error.code(), reason(error)) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"), name


@pytest.mark.parametrize("authorization", [None, "Basic YTpi", "Bearer", "Bearer ", "x"])
async def test_without_a_token_there_is_nothing(users: UserService, authorization: str | None) -> None:
    metadata: Metadata = (("authorization", authorization),) if authorization is not None else ()
    assert await reason_for(users.stub.GetProfile(PROFILE, metadata=metadata)) == "UNAUTHENTICATED"


async def test_users_and_services_do_not_pass_through_each_others_doors(users: UserService) -> None:
    signed_in = await users.register()
    ask = user_v1.GetUserRequest(user_id=signed_in.user.user_id)
    assert await reason_for(users.stub.GetProfile(PROFILE, metadata=users.served.as_service())) == "PERMISSION_DENIED"
    assert await reason_for(users.internal.GetUser(ask, metadata=as_owner(signed_in))) == "PERMISSION_DENIED"
    admin = users.served.as_user(signed_in.user.user_id, roles=["admin"])
    assert await reason_for(users.internal.GetUser(ask, metadata=admin)) == "PERMISSION_DENIED"
    assert await reason_for(users.internal.GetUser(ask)) == "UNAUTHENTICATED"
    nobody = users.served.as_user(signed_in.user.user_id, roles=["wizard"])
    assert await reason_for(users.stub.GetProfile(PROFILE, metadata=nobody)) == "PERMISSION_DENIED"


async def test_the_published_keys_verify_tokens_and_hold_nothing_private(users: UserService) -> None:
    signed_in = await users.register()
    answer = await users.stub.GetJwks(user_v1.GetJwksRequest())
    assert answer.content_type == "application/jwk-set+json"
    keys = jwt.PyJWKSet.from_json(answer.data.decode())
    kid = jwt.get_unverified_header(signed_in.access_token)["kid"]
    claims = jwt.decode(signed_in.access_token, keys[kid], algorithms=["ES256"], audience="marquee-edge")
    assert claims["sub"] == signed_in.user.user_id
    assert all("d" not in key for key in json.loads(answer.data)["keys"])


async def test_a_key_that_follows_another_costs_no_error(users: UserService) -> None:
    """People refresh and read their profiles all the while; nobody notices but by the ``kid`` of new tokens."""
    ring = users.served.keys.users
    until = time.monotonic() + 5.0
    kids: set[str] = set()
    calls = 0

    async def live(signed_in: user_v1.SignIn) -> None:
        nonlocal calls
        older = as_owner(signed_in)
        while time.monotonic() < until:
            signed_in = await users.stub.RefreshSession(
                user_v1.RefreshSessionRequest(refresh_token=signed_in.refresh_token)
            )
            await users.stub.GetProfile(PROFILE, metadata=as_owner(signed_in))
            await users.stub.GetProfile(PROFILE, metadata=older)
            kids.add(jwt.get_unverified_header(signed_in.access_token)["kid"])
            calls += 3
            await asyncio.sleep(0.02)

    async def rotate() -> None:
        await asyncio.sleep(0.5)
        ring.announce(time.time(), lead_s=2.0)

    people = [await users.register() for _ in range(4)]
    await asyncio.gather(*(live(each) for each in people), rotate())
    assert len(kids) == 2 and calls > 100


async def test_a_signing_key_that_is_not_due_or_not_usable_does_not_sign(users: UserService) -> None:
    ring = users.served.keys.users
    folder = ring.folder
    before = jwt.get_unverified_header((await users.register()).access_token)["kid"]
    (folder / f"{int(time.time()) - 1}-half.pem").write_text("-----BEGIN PRIVATE KEY-----\nMIG")
    (folder / "no-number.pem").write_text("x")
    (folder / f"{int(time.time()) + 3600}-later.pem").write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    await asyncio.sleep(1.1)
    signed_in = await users.register()
    assert jwt.get_unverified_header(signed_in.access_token)["kid"] == before
