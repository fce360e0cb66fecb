"""A real Envoy on a rendered configuration, with keys that the test holds."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import check, render
from gateway.contracts import Contracts
from gateway.settings import Address, Settings

ISSUER = "https://marquee.invalid/users"
AUDIENCE = "marquee-edge"


@dataclass
class Keys:
    """The user service's signing keys, the newest last, and their public file."""

    file: Path
    private: list[ec.EllipticCurvePrivateKey] = field(default_factory=list)

    def add(self) -> None:
        self.private.append(ec.generate_private_key(ec.SECP256R1()))

    def publish(self) -> None:
        self.file.write_text(json.dumps({"keys": [self._public(index) for index in range(len(self.private))]}))

    def _public(self, index: int) -> dict[str, Any]:
        key: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.private[index].public_key()))
        return key | {"kid": f"k{index}", "alg": "ES256", "use": "sig"}

    def token(
        self, user: str, *, key: int = -1, signer: ec.EllipticCurvePrivateKey | None = None, **claims: Any
    ) -> str:
        index = key % len(self.private)
        return jwt.encode(
            claims_of(user) | claims,
            signer or self.private[index],
            algorithm="ES256",
            headers={"kid": f"k{index}"},
        )


def claims_of(user: str) -> dict[str, Any]:
    now = int(time.time())
    roles = ["customer", "staff", "admin"]
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "roles": roles, "iat": now, "exp": now + 900, "jti": user}


@dataclass
class RunningEdge:
    url: str
    address: str
    admin: str
    keys: Keys
    settings: Settings
    contracts: Contracts
    folder: Path
    log: Path
    base: Path = render.BASE

    def render_again(self) -> tuple[str, ...]:
        return render.write(render.render(self.settings, self.contracts, base=self.base), self.folder)

    async def logged(self, request_id: str) -> dict[str, Any]:
        """The access log's line of one request."""
        async with asyncio.timeout(10):
            while True:
                for line in self.log_lines():
                    if line["request_id"] == request_id:
                        return line
                await asyncio.sleep(0.05)

    def log_lines(self) -> list[dict[str, Any]]:
        """All of the access log's."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@asynccontextmanager
async def running(
    folder: Path, contracts: Contracts, backend_port: int, *, base: Path = render.BASE, **settings: Any
) -> AsyncIterator[RunningEdge]:
    """Envoy, from ready to gone."""
    keys = Keys(folder / "jwks.json")
    keys.add()
    keys.publish()
    port, admin_port = free_port(), free_port()
    backend = Address(host="127.0.0.1", port=backend_port)
    values: dict[str, Any] = {
        "listen_host": "127.0.0.1",
        "port": port,
        "admin_port": admin_port,
        "jwks_file": keys.file,
        "services": dict.fromkeys(contracts.owners, backend),
        # So that each test can have a client address of its own, in x-forwarded-for.
        "trusted_hops": 1,
        "cors_origins": ("https://app.example.org",),
    }
    edge = RunningEdge(
        url=f"http://127.0.0.1:{port}",
        address=f"127.0.0.1:{port}",
        admin=f"http://127.0.0.1:{admin_port}",
        keys=keys,
        settings=Settings.model_validate(values | settings),
        contracts=contracts,
        folder=folder / "rendered",
        log=folder / "envoy.log",
        base=base,
    )
    edge.render_again()
    with edge.log.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(check.envoy_binary()),
            *("-c", str(edge.folder / render.BOOTSTRAP)),
            *("--concurrency", "1", "--disable-hot-restart", "--drain-time-s", "1", "--log-level", "warning"),
            *("--file-flush-interval-msec", "50"),
            stdout=log,
            stderr=log,
        )
        try:
            await _ready(edge, process)
            yield edge
        finally:
            process.terminate()
            await process.wait()


async def _ready(edge: RunningEdge, process: asyncio.subprocess.Process) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(200):
            if process.returncode is not None:
                break
            try:
                if (await client.get(f"{edge.url}/healthz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError(f"Envoy did not become ready:\n{edge.log.read_text()[-4000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
