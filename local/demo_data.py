"""Where the stack meets the demo data: the catalogue's (``local/demo/``) and the user service's accounts.

Both are loaded by processes of their own, so that the supervisor stays small and neither can take it down.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import Mapping

import psycopg

from local import postgres, status
from local.home import CHECKOUT, Home
from local.stack import Stack
from local.trouble import Trouble

LOAD = "import asyncio, os; from local.demo import load; print(asyncio.run(load(os.environ['MARQUEE_DATABASE_URL'])))"
SHOWS_TO_COME = "SELECT count(*) FROM shows WHERE start_time > now()"
LONGEST_NEWS_SECONDS = 60


def is_there() -> bool:
    """Whether this checkout has demo data."""
    return importlib.util.find_spec("local.demo") is not None


async def load(stack: Stack) -> None:
    """Have the demo data and the demo accounts in ``stack``, ready for sale; what is there already stays as it is.

    Raises:
        Trouble: some of it could not be loaded.
    """
    await asyncio.gather(
        _run("-c", LOAD, environment=stack.env_for("catalog")),
        _run("-m", "services.user", "accounts", "--demo", environment=stack.env_for("user")),
    )
    if {"booking", "relay"} <= {process.part.name for process in stack.parts}:
        await _booking_knows_the_shows(stack)


async def _booking_knows_the_shows(stack: Stack) -> None:
    """Booking learns of the shows by events; before that, nobody can hold a seat of them."""
    deadline = time.monotonic() + LONGEST_NEWS_SECONDS
    while time.monotonic() < deadline:
        if await _shows_to_come(stack, "booking") >= await _shows_to_come(stack, "catalog"):
            return
        await asyncio.sleep(0.1)
    raise Trouble("booking is slow to learn of the demo shows, everything else runs; seats can be held a little later.")


async def _shows_to_come(stack: Stack, service: str) -> int:
    async with await psycopg.AsyncConnection.connect(stack.database_url(service)) as connection:
        row = await (await connection.execute(SHOWS_TO_COME)).fetchone()
    return row[0] if row else 0


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
