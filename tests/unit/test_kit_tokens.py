"""Checking tokens without a server; the attacks on a running one stand in tests/integration/test_user_tokens.py."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

import pytest

from services.kit import tokens
from services.kit.call import ServiceCaller, UserCaller
from services.kit.errors import Unauthenticated
from services.kit.tokens import Issuer, KeyFile, TokenVerifier
from tests.integration.service_harness import TestKeys


@pytest.fixture
def keys(tmp_path: Path) -> TestKeys:
    return TestKeys.make(tmp_path)


def verifier(keys: TestKeys) -> TokenVerifier:
    return TokenVerifier(
        users=Issuer("https://marquee.invalid/users", "marquee-edge", KeyFile(keys.users.jwks)),
        services=Issuer("https://marquee.invalid/services", "marquee", KeyFile(keys.services.jwks)),
    )


def test_a_token_stands_for_its_person_or_its_service(keys: TestKeys) -> None:
    user_id, session_id = str(uuid.uuid4()), str(uuid.uuid4())
    check = verifier(keys)
    token = keys.user_token(user_id.upper(), roles=["admin", "wizard"], session_id=session_id)
    assert check.verify(token) == UserCaller(user_id, session_id, frozenset({"admin"}))  # type: ignore[arg-type]
    assert check.verify(keys.service_token("booking")) == ServiceCaller("system:serviceaccount:marquee:booking")


def test_a_token_that_was_remembered_still_expires(keys: TestKeys) -> None:
    check = verifier(keys)
    token = keys.sign_user({**keys.user_claims(uuid.uuid4()), "exp": int(time.time()) + 1})
    check.verify(token)
    time.sleep(1.1)
    with pytest.raises(Unauthenticated):
        check.verify(token)


def test_a_token_that_was_remembered_ends_with_its_key(keys: TestKeys) -> None:
    check = verifier(keys)
    token = keys.user_token(uuid.uuid4())
    check.verify(token)
    keys.users.jwks.write_text('{"keys": []}')
    time.sleep(tokens.FILE_CHECK_SECONDS + 0.1)
    with pytest.raises(Unauthenticated):
        check.verify(token)


def test_only_so_many_tokens_are_remembered(keys: TestKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CACHED_TOKENS", 3)
    check = verifier(keys)
    for _ in range(10):
        check.verify(keys.user_token(uuid.uuid4()))
    assert len(check._known) == 3


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"keys": 1}', '{"keys": [1]}', '{"keys": [{"kid": "a", "kty": "EC", "crv": "P-256"}]}']
)
def test_a_spoiled_key_file_leaves_the_last_good_keys(tmp_path: Path, keys: TestKeys, content: str) -> None:
    file = KeyFile(keys.users.jwks)
    kid = keys.users.keys()[0].kid
    assert file.find(kid) is not None
    keys.users.jwks.write_text(content)
    file._next_look = 0
    assert file.find(kid) is not None


def test_a_file_that_is_not_there_yet_is_found_later(tmp_path: Path, keys: TestKeys) -> None:
    path = tmp_path / "later.json"
    file = KeyFile(path)
    kid = json.loads(keys.users.jwks.read_text())["keys"][0]["kid"]
    assert file.find(kid) is None
    path.write_bytes(keys.users.jwks.read_bytes())
    file._next_look = 0
    assert file.find(kid) is not None
