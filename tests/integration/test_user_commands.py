"""What an operator types: ``python -m services.user migrate | accounts | grant | revoke``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg

from local.home import CHECKOUT
from tests.integration.service_harness import TestKeys


def test_an_operator_sets_up_a_database_with_demo_accounts_and_roles(
    database_url: Callable[[str], str], tmp_path: Path
) -> None:
    keys, url = TestKeys.make(tmp_path), database_url("user")
    environment = {
        **os.environ,
        "MARQUEE_DATABASE_URL": url,
        "MARQUEE_USER_JWKS_FILE": str(keys.users.jwks),
        "MARQUEE_SERVICE_JWKS_FILE": str(keys.services.jwks),
        "MARQUEE_SERVICE_TOKEN_FILE": str(keys.folder / "service.token"),
        "MARQUEE_SIGNING_KEYS_DIR": str(keys.users.folder),
    }

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "services.user", *words],
            cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    assert run("migrate")[0] == 0
    assert run("accounts")[0] == 0
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (0,)
        assert run("accounts", "--demo")[1].count("created") == 3
        assert run("accounts", "--demo")[1].count("is there") == 3
        assert run("grant", "Customer@demo.marquee.test", "staff")[1].strip().endswith("customer, staff")
        assert run("revoke", "customer@demo.marquee.test", "staff")[1].strip().endswith(": customer")
        assert run("grant", "nobody@example.org", "admin") == (1, "nobody@example.org has no account.\n")
        assert run("grant", "customer@demo.marquee.test", "wizard")[0] == 2
        roles = connection.execute("SELECT roles FROM users ORDER BY email").fetchall()
    assert roles == [(["admin", "customer"],), (["customer"],), (["staff", "customer"],)]
