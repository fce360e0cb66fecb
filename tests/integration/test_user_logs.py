"""Nothing secret is written to the log, whatever happens."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import grpc
import psycopg

from local.home import CHECKOUT
from marquee.user import v1 as user_v1
from tests.integration.service_harness import TestKeys, bearer
from tests.integration.user_service import refused

PASSWORD = "a password to look for"


async def test_a_days_work_leaves_no_secret_in_the_log(
    migrated_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    """The service as its own process, as it is run; it also stops when it is told to."""
    keys = TestKeys.make(tmp_path / "keys")
    url = migrated_database_url("user")
    environment = {
        **os.environ,
        "MARQUEE_LISTEN": "127.0.0.1:0",
        "MARQUEE_DATABASE_URL": url,
        "MARQUEE_USER_JWKS_FILE": str(keys.users.jwks),
        "MARQUEE_SERVICE_JWKS_FILE": str(keys.services.jwks),
        "MARQUEE_SERVICE_TOKEN_FILE": str(keys.folder / "service.token"),
        "MARQUEE_SIGNING_KEYS_DIR": str(keys.users.folder),
        "MARQUEE_DRAIN_SECONDS": "0",
        "MARQUEE_LOG_LEVEL": "debug",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.user",
        cwd=CHECKOUT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = b""
        while not (found := re.search(rb'"port": ?(\d+)', lines)):
            line = await asyncio.wait_for(process.stdout.readline(), 20)
            assert line, f"ended early:\n{lines.decode()}"
            lines += line
        secrets = await _a_days_work(int(found[1]), keys, url)
        process.send_signal(signal.SIGTERM)
        rest, _ = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    log = (lines + rest).decode()
    assert process.returncode == 0
    assert "login_slowed" in log and "refresh_reuse" in log and "call_failed" in log
    for secret in secrets:
        assert secret not in log


async def _a_days_work(port: int, keys: TestKeys, url: str) -> set[str]:
    """Successes, refusals and a failure of ours; answers what must not be seen."""
    email = f"{uuid.uuid4().hex}@example.org"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: user_v1.UserServiceAsyncStub = user_v1.UserServiceStub(channel)
        request = user_v1.RegisterRequest(request_id=str(uuid.uuid4()), email=email, name="Asha", password=PASSWORD)
        first = await stub.Register(request)
        second = await stub.Register(request)
        for _ in range(7):
            await refused(stub.Login(user_v1.LoginRequest(email=email, password=PASSWORD + "!")))
        cookie = ("cookie", f"__Host-marquee_refresh={second.refresh_token}")
        await stub.RefreshSession(user_v1.RefreshSessionRequest(), metadata=(cookie,))
        third = await stub.RefreshSession(user_v1.RefreshSessionRequest(refresh_token=first.refresh_token))
        await stub.RefreshSession(user_v1.RefreshSessionRequest(refresh_token=third.refresh_token))
        await refused(stub.RefreshSession(user_v1.RefreshSessionRequest(refresh_token=first.refresh_token)))
        await refused(stub.GetProfile(user_v1.GetProfileRequest(), metadata=bearer(first.access_token[:-3])))
        with psycopg.connect(url, autocommit=True) as connection:  # a failure whose statement holds values
            hashes = {row[0] for row in connection.execute("SELECT password_hash FROM users").fetchall()}
            connection.execute("ALTER TABLE users RENAME COLUMN password_hash TO gone")
            other = user_v1.RegisterRequest(email="b@example.org", name="B", password=PASSWORD)
            await refused(stub.Register(other))
    tokens = {each.refresh_token for each in (first, second, third)} | {first.access_token, second.access_token}
    private = {path.read_text().splitlines()[1] for path in keys.users.folder.glob("*.pem")}
    return (
        {PASSWORD, email, "b@example.org", "argon2id$", url.split(":")[2].partition("@")[0]} | tokens | hashes | private
    )
