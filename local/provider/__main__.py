"""The composition root: `PROVIDER_DATA_DIR=... PROVIDER_KEY_ID=... python -m local.provider`."""

import asyncio
import contextlib
import random
import signal
import socket
import sys

import uvloop
from aiohttp import web
from pydantic import ValidationError

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
"""Connections that wait to be accepted: a crowd of buyers comes at once."""
LAST_ANSWERS_S = 5.0
"""How long a stop waits for requests that are under way; whoever started us waits twice as long."""


async def serve(settings: ProviderSettings, listener: socket.socket) -> None:
    """Run until SIGTERM or SIGINT; requests that are under way then are still answered, within `LAST_ANSWERS_S`."""
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
    app = web.Application()
    app.add_routes([*api.routes(), *checkout.routes(), *control.routes()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=LAST_ANSWERS_S)
    await runner.setup()
    background = [asyncio.create_task(_settle_refunds(ledger))]
    if sender is not None:
        background.append(asyncio.create_task(sender.run()))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    print(f"provider simulator on http://{settings.listen}, ledger in {settings.database}", flush=True)
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
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


def _bind(settings: ProviderSettings) -> socket.socket:
    """Take the port, before the ledger is opened: where the one is another's, so is the other, likely."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)  # only this says whether another one listens
    except OSError as error:
        sys.exit(f"provider simulator: {settings.listen}: {error.strerror}. Set PROVIDER_LISTEN to another port.")
    return listener


def main() -> None:
    """Read the settings and serve."""
    try:
        settings = ProviderSettings()
    except ValidationError as error:
        missing = ", ".join(f"PROVIDER_{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors())
        sys.exit(f"provider simulator: {missing}")
    uvloop.run(serve(settings, _bind(settings)))


if __name__ == "__main__":
    main()
