"""``python -m local``: the whole system on one machine. ``make run`` is ``python -m local up``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from typing import Annotated

import psutil  # type: ignore[import-untyped]
import typer

from local import demo_data, lock, status, up
from local.console import Terminal
from local.home import CHECKOUT, Home
from local.keys import user_keys
from local.tokens import synthetic_access_tokens
from local.trouble import Trouble

STOP_PATIENCE_S = 60
HOME = Home(CHECKOUT / ".local")
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The whole system on one machine: PostgreSQL, Valkey, Envoy and every service.",
)


@app.command("up")
def start(
    demo: Annotated[bool, typer.Option(help="load the demo data and its accounts")] = True,
    edge_port: Annotated[str, typer.Option(envvar="EDGE_PORT", help="REST, grpc-web and gRPC")] = "8080",
    rate_limits: Annotated[str, typer.Option(envvar="EDGE_RATE_LIMITS", help="on or off")] = "on",
) -> None:
    """Start everything and keep it running until Ctrl-C."""
    if rate_limits not in ("on", "off"):
        raise Trouble(f"EDGE_RATE_LIMITS={rate_limits} is neither on nor off.")
    asyncio.run(
        up.supervise(
            HOME.root,
            edge_port=up.edge_port_from(edge_port),
            rate_limits=rate_limits == "on",
            demo=demo,
            terminal=Terminal(),
        )
    )


@app.command("status")
def show_status(as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False) -> None:
    """What each part does: state, process id, address, and the URL of stores."""
    running = lock.holder(HOME.lock) is not None
    parts = status.read(HOME.status) if running else []
    if as_json:
        print(json.dumps([asdict(part) for part in parts], indent=1))
    elif not running:
        print("nothing runs here; `make run` starts everything")
    else:
        Terminal().status_table(parts)


@app.command()
def stop() -> None:
    """Stop the stack that runs in this checkout, and wait until it is gone."""
    pid = lock.holder(HOME.lock)
    if not pid:
        print("nothing runs here")
        return
    os.kill(pid, signal.SIGTERM)
    try:
        psutil.Process(pid).wait(STOP_PATIENCE_S)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired as still:
        raise Trouble(f"process {pid} is still stopping after {STOP_PATIENCE_S} s; `kill -9 {pid}` ends it.") from still
    print("stopped")


@app.command()
def reset() -> None:
    """Remove everything that the stack of this checkout keeps: data, keys, logs."""
    pid = lock.holder(HOME.lock)
    if pid is not None:
        raise Trouble(f"the stack runs (process {pid}); stop it first: Ctrl-C there, or `make stop`.")
    HOME.wipe()
    print("all data of the stack on this machine is gone; `make run` starts afresh")


@app.command()
def tokens(
    count: Annotated[int, typer.Option(min=1, help="how many users")] = 1,
    role: Annotated[str, typer.Option(help="customer, staff, admin")] = "customer",
) -> None:
    """Access tokens of synthetic users, one a line, for load tests; good for 12 hours."""
    HOME.make()
    now = time.time()
    ring = user_keys(HOME.keys)
    ring.ensure(now)
    for token in synthetic_access_tokens(ring.signing(now), count, role, now):
        print(token)


@app.command()
def rotate_keys(
    lead_s: Annotated[float, typer.Option(envvar="KEY_LEAD_S", min=5, help="seconds until the new key signs")] = 60,
) -> None:
    """Publish the next signing key now, sign with it a little later, drop the old one when its tokens are over."""
    HOME.make()
    now = time.time()
    ring = user_keys(HOME.keys)
    ring.ensure(now)
    key = ring.announce(now, lead_s)
    print(f"key {key.kid} is published and signs in {lead_s:.0f} s; the old one leaves when its last token has expired")


@app.command()
def seed(shows: Annotated[int, typer.Option(min=1, help="how many")] = 50_000) -> None:
    """Add a day with many shows to the running stack."""
    if lock.holder(HOME.lock) is None:
        raise Trouble("nothing runs here; `make run` first, and `make seed` in another terminal.")
    demo_data.seed_shows(HOME, shows)


def main() -> None:
    try:
        app()
    except Trouble as trouble:
        print(f"marquee: {trouble}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
