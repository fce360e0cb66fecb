"""Keys and tokens of the one-machine stack: valid under the published keys, and rotated without a gap."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import pytest

from local.keys import ACCESS_TOKEN_LIFE_S, OLD_KEY_STAYS_S, KeyRing, service_keys, user_keys
from local.tokens import renew_service_tokens, synthetic_access_tokens, synthetic_user
from local.trouble import Trouble


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    ring = user_keys(tmp_path)
    ring.ensure(time.time())
    return ring


def published(ring: KeyRing) -> set[str]:
    return {key["kid"] for key in json.loads(ring.jwks.read_text())["keys"]}


def verified(token: str, ring: KeyRing, audience: str) -> dict[str, object]:
    keys = jwt.PyJWKSet.from_json(ring.jwks.read_text())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return dict(jwt.decode(token, key, algorithms=["ES256"], audience=audience))


def test_synthetic_tokens_are_valid_and_name_the_same_users_each_time(ring: KeyRing) -> None:
    now = time.time()
    tokens = list(synthetic_access_tokens(ring.signing(now), 3, "customer", now))
    claims = [verified(token, ring, "marquee-edge") for token in tokens]
    assert [claim["sub"] for claim in claims] == [str(synthetic_user(number)) for number in range(3)]
    assert len({str(claim["jti"]) for claim in claims}) == 3
    assert claims[0]["roles"] == ["customer"]
    assert claims[0]["iss"] == "https://marquee.invalid/users"


def test_service_tokens_are_valid_under_the_services_keys_only(tmp_path: Path, ring: KeyRing) -> None:
    services = service_keys(tmp_path)
    services.ensure(time.time())
    renew_service_tokens(services.signing(time.time()), ["booking"], tmp_path, time.time())
    token = (tmp_path / "booking.token").read_text()
    assert verified(token, services, "marquee")["sub"] == "system:serviceaccount:marquee:booking"
    with pytest.raises(KeyError):
        verified(token, ring, "marquee")


def test_private_keys_and_tokens_are_for_their_owner_only(tmp_path: Path, ring: KeyRing) -> None:
    renew_service_tokens(ring.signing(time.time()), ["booking"], tmp_path, time.time())
    secret = [*ring.folder.glob("*.pem"), tmp_path / "booking.token"]
    assert len(secret) == 2
    assert [path.stat().st_mode & 0o077 for path in secret] == [0, 0]


def test_a_key_is_published_before_it_signs_and_stays_until_its_tokens_are_over(ring: KeyRing) -> None:
    now = time.time()
    old = ring.signing(now)
    new = ring.announce(now, lead_s=60)
    assert published(ring) == {old.kid, new.kid}
    assert ring.signing(now + 59).kid == old.kid
    assert ring.signing(now + 61).kid == new.kid

    last_token_ends = now + 60 + ACCESS_TOKEN_LIFE_S
    assert ring.retire(last_token_ends + 1) == []
    assert [key.kid for key in ring.retire(now + 61 + OLD_KEY_STAYS_S)] == [old.kid]
    assert published(ring) == {new.kid}
    assert [path.name for path in ring.folder.glob("*.pem")] == [new.file_name]


def test_one_rotation_at_a_time(ring: KeyRing) -> None:
    ring.announce(time.time(), lead_s=60)
    with pytest.raises(Trouble, match="already published"):
        ring.announce(time.time(), lead_s=60)


def test_a_second_start_keeps_the_keys(ring: KeyRing) -> None:
    before = published(ring)
    ring.ensure(time.time())
    assert published(ring) == before
