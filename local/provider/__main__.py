"""The composition root: `PROVIDER_DATA_DIR=... PROVIDER_KEY_ID=... python -m local.provider`."""

import asyncio
import contextlib
import random
import signal
import socket
import sys

import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server
from pydantic import ValidationError
from starlette.routing import Router

from local.provider.api import RazorpayApi
from local.provider.audit import Audit
from local.provider.checkout import Checkout
from local.provider.clock import SystemClock
from local.provider.control import Control
from local.provider.faults import FaultBook
from local.provider.http_post import HttpPoster
from local.provider.ledger import Ledger
from local.provider.settings import ProviderSettings
from local.provider.storage import open_database
from local.provider.webhook_queue import WebhookQueue
from local.provider.webhooks import IDLE_S, WebhookSender

BACKLOG = 1024
MOST_CONNECTIONS = 20_000
"""Idle ones count. Granian accepts no further one (128 unless told), so a crowd of buyers would wait for each other."""


async def serve(settings: ProviderSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    clock = SystemClock()
    connection = open_database(settings.database)
    faults = FaultBook(connection, random.Random())  # noqa: S311 (chance, not secrets)
    queue = WebhookQueue(
        connection,
        clock=clock,
        faults=faults,
        first_secret=settings.webhook_secret,
        subscribed=settings.subscribed,
    )
    ledger = Ledger(connection, clock=clock, queue=queue, faults=faults)
    poster = HttpPoster(settings.webhook_url) if settings.webhook_url else None
    sender = None if poster is None else WebhookSender(queue, connection, poster=poster)

    def after_change() -> None:
        if sender is not None:
            sender.wake()

    api = RazorpayApi(ledger, faults, key_id=settings.key_id, key_secret=settings.key_secret, after_change=after_change)
    checkout = Checkout(ledger, after_change=after_change)
    control = Control(ledger, faults, queue, Audit(connection), after_change=after_change)
    # Without Starlette's middleware: errors are answered in each endpoint.
    app = Router(routes=[*api.routes(), *checkout.routes(), *control.routes()])
    server = Server(
        app,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGINL,
        websockets=False,
        log_enabled=False,
        backlog=BACKLOG,
        backpressure=MOST_CONNECTIONS,
    )
    background = [asyncio.create_task(_settle_refunds(ledger))]
    if sender is not None:
        background.append(asyncio.create_task(sender.run()))
    loop = asyncio.get_running_loop()
    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, server.stop)
    print(f"provider simulator on http://{settings.listen}, ledger in {settings.database}", flush=True)
    try:
        await server.serve()
    finally:
        for task in background:
            task.cancel()
        for task in background:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if poster is not None:
            poster.close()
        connection.close()


async def _settle_refunds(ledger: Ledger) -> None:
    while True:
        ledger.settle_refunds()
        await asyncio.sleep(IDLE_S)


def _refuse_taken_port(settings: ProviderSettings) -> None:
    """Granian's own message is a panic; a person gets a sentence."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            sys.exit(f"provider simulator: {settings.listen}: {error.strerror}. Set PROVIDER_LISTEN to another port.")


def main() -> None:
    """Read the settings and serve."""
    try:
        settings = ProviderSettings()
    except ValidationError as error:
        missing = ", ".join(f"PROVIDER_{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors())
        sys.exit(f"provider simulator: {missing}")
    _refuse_taken_port(settings)
    uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
