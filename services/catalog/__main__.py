"""``python -m services.catalog [serve|migrate]``: the composition root."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
from sqlalchemy.ext.asyncio import AsyncEngine

from marquee.catalog import v1 as catalog_v1
from services.catalog.admin_servicer import CatalogAdminServicer
from services.catalog.clients import SeatsLeft, open_booking
from services.catalog.servicer import CatalogServicer
from services.catalog.settings import CatalogSettings
from services.catalog.usecases.desk import Desk
from services.catalog.usecases.reading import Library
from services.kit.caches import open_caches
from services.kit.clock import Clock, system_clock
from services.kit.command import service_command
from services.kit.engine import open_engine
from services.kit.lifecycle import Lifecycle
from services.kit.paging import PageTokens
from services.kit.replicas import asked_by_customer, open_reads
from services.kit.server import GrpcServer

SERVICES = ("marquee.catalog.v1.CatalogService", "marquee.catalog.v1.CatalogAdminService")


async def add_servicers(
    server: grpc.aio.Server, settings: CatalogSettings, stack: AsyncExitStack, *, clock: Clock = system_clock
) -> None:
    """Open what the servicers need on ``stack`` and add them to ``server``."""
    open_catalog = functools.partial(
        open_engine, size=settings.database_pool_size, wait_seconds=settings.database_pool_wait_seconds
    )
    engine = await stack.enter_async_context(open_catalog(settings.database_url.get_secret_value()))
    reading = _autocommitting(engine)

    @asynccontextmanager
    async def open_replica(url: str) -> AsyncIterator[AsyncEngine]:
        async with open_catalog(url) as replica:
            yield _autocommitting(replica)

    reads = await stack.enter_async_context(open_reads(settings, reading, open_replica, may_be_old=asked_by_customer))
    caches = await stack.enter_async_context(open_caches(settings.cache_url.get_secret_value()))
    booking = await stack.enter_async_context(
        open_booking(
            settings.booking_address,
            settings.service_token_file,
            timeout_seconds=settings.availability_timeout_seconds,
        )
    )
    library = Library(
        engine=reading,
        reads=reads,
        caches=caches,
        seats_left=SeatsLeft(booking, fresh_seconds=settings.availability_seconds),
        clock=clock,
    )
    desk = Desk(engine=engine, reads=reads, caches=caches, clock=clock)
    pages = PageTokens(settings.page_key.get_secret_value())
    catalog_v1.add_CatalogServiceServicer_to_server(CatalogServicer(library, pages), server)
    catalog_v1.add_CatalogAdminServiceServicer_to_server(CatalogAdminServicer(desk, library, pages), server)


def _autocommitting(engine: AsyncEngine) -> AsyncEngine:
    """One statement an answer: without a transaction it costs one round trip instead of three."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


async def serve(settings: CatalogSettings) -> None:
    """Answer calls until told to stop."""
    async with AsyncExitStack() as stack:
        server = GrpcServer(settings, SERVICES, Lifecycle())
        await add_servicers(server.grpc, settings, stack)
        await server.serve_until_signal()


if __name__ == "__main__":
    service_command("catalog", CatalogSettings, serve)()
