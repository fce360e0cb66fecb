"""Where the stack meets the demo data: the catalogue's (``local/demo/``) and the user service's accounts.

Both are loaded by processes of their own, so that the supervisor stays small and neither can take it down.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import Mapping

from local import postgres, status
from local.home import CHECKOUT, Home
from local.stack import Stack
from local.trouble import Trouble

LOAD = "import asyncio, sys; from local.demo import load; print(asyncio.run(load(sys.argv[1])))"


def is_there() -> bool:
    """Whether this checkout has demo data."""
    return importlib.util.find_spec("local.demo") is not None


async def load(stack: Stack) -> None:
    """Have the demo data and the demo accounts in ``stack``; what is there already stays as it is.

    Raises:
        Trouble: some of it could not be loaded.
    """
    await asyncio.gather(
        _run("-c", LOAD, stack.database_url("catalog"), environment=stack.env_for("catalog")),
        _run("-m", "services.user", "accounts", "--demo", environment=stack.env_for("user")),
    )


async def _run(*arguments: str, environment: Mapping[str, str]) -> None:
    loader = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        env=environment,
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await loader.communicate()
    except asyncio.CancelledError:
        loader.kill()
        await loader.wait()
        raise
    if loader.returncode != 0:
        last = "\n".join(said.decode(errors="replace").strip().splitlines()[-8:])
        raise Trouble(f"the demo data could not be loaded, everything else runs:\n{last}")


def seed_shows(home: Home, shows: int) -> None:
    """Add ``shows`` shows on one day to the running stack."""
    from local import demo

    stores = [part for part in status.read(home.status) if part.name == "postgres" and part.address]
    if not stores or stores[0].address is None:
        raise Trouble("the stack that runs here has no PostgreSQL; `make run` starts everything.")
    url = postgres.url(home, int(stores[0].address.rpartition(":")[2]), "catalog")
    began = time.monotonic()
    print(asyncio.run(demo.seed_shows(url, shows)))
    print(f"{shows} shows in {time.monotonic() - began:.1f} s")
