"""Toxiproxy: links that are slow, cut, half-open or reset. Found on the path, or fetched and built once with Go.

https://github.com/Shopify/toxiproxy
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from local import ports
from local.home import CHECKOUT
from tests.prove.child import child

SOURCE = "github.com/Shopify/toxiproxy/v2/cmd/server@latest"
FETCHED = CHECKOUT / ".prove" / "bin" / "server"
FETCH_PATIENCE_S = 600
START_PATIENCE_S = 15


class Missing(Exception):
    """There is no toxiproxy here, and none could be fetched; says why."""


def program() -> Path:
    """The server's binary.

    Raises:
        Missing: see there.
    """
    found = shutil.which("toxiproxy-server")
    if found:
        return Path(found)
    if not FETCHED.exists():
        if shutil.which("go") is None:
            raise Missing("neither toxiproxy-server nor Go is on this machine")
        FETCHED.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["go", "install", SOURCE],
            env={**os.environ, "GOBIN": str(FETCHED.parent)},
            capture_output=True,
            text=True,
            timeout=FETCH_PATIENCE_S,
            check=False,
        )
        if done.returncode != 0:
            raise Missing(f"`go install {SOURCE}` failed: {done.stderr.strip()[-300:]}")
    return FETCHED


class Toxiproxy:
    """A running server. Proxies are named; a name may stand for several."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._proxies: dict[str, list[str]] = {}

    async def add(self, link: str, upstream: str) -> str:
        """One more proxy of ``link``, to ``host:port``; where it listens."""
        listen = f"127.0.0.1:{ports.pick()}"
        name = f"{link}-{len(self._proxies.setdefault(link, []))}".replace(" ", "-")
        await self._post("/proxies", {"name": name, "listen": listen, "upstream": upstream, "enabled": True})
        self._proxies[link].append(name)
        return listen

    async def poison(self, link: str, toxic: str, **attributes: int) -> None:
        """Add a toxic in both directions of all proxies of ``link``."""
        for name in self._proxies[link]:
            for stream in ("upstream", "downstream"):
                wish = {"type": toxic, "name": f"{toxic}-{stream}", "stream": stream, "attributes": attributes}
                await self._post(f"/proxies/{name}/toxics", wish)

    async def cut(self, link: str) -> None:
        """Close every connection, and take no new ones."""
        for name in self._proxies[link]:
            await self._post(f"/proxies/{name}", {"enabled": False})

    async def heal(self) -> None:
        """All links are as new; connections that lost bytes remain as they are."""
        await self._post("/reset", {})

    async def _post(self, path: str, content: dict[str, Any]) -> None:
        (await self._http.post(path, json=content)).raise_for_status()


@asynccontextmanager
async def toxiproxy(folder: Path) -> AsyncIterator[Toxiproxy]:
    """A server while the block lasts.

    Raises:
        Missing: there is none.
    """
    binary, port = await asyncio.to_thread(program), ports.pick()
    with child([str(binary), "-port", str(port)], {"LOG_LEVEL": "error"}, folder / "toxiproxy.log"):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
            async with asyncio.timeout(START_PATIENCE_S):
                while True:
                    try:
                        (await http.get("/version")).raise_for_status()
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
            yield Toxiproxy(http)
