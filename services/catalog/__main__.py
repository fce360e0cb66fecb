"""``python -m services.catalog [serve|migrate]``: the composition root."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc

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
from services.kit.database import open_engine
from services.kit.lifecycle import Lifecycle
from services.kit.paging import PageTokens
from services.kit.server import GrpcServer

SERVICES = ("marquee.catalog.v1.CatalogService", "marquee.catalog.v1.CatalogAdminService")


async def add_servicers(
    server: grpc.aio.Server, settings: CatalogSettings, stack: AsyncExitStack, *, clock: Clock = system_clock
) -> None:
    """Open what the servicers need on ``stack`` and add them to ``server``."""
    engine = await stack.enter_async_context(
        open_engine(
            settings.database_url.get_secret_value(),
            size=settings.database_pool_size,
            wait_seconds=settings.database_pool_wait_seconds,
        )
    )
    caches = await stack.enter_async_context(open_caches(settings.cache_url.get_secret_value()))
    booking = await stack.enter_async_context(
        open_booking(
            settings.booking_address,
            settings.service_token_file,
            timeout_seconds=settings.availability_timeout_seconds,
        )
    )
    library = Library(
        # One statement an answer: without a transaction it costs one round trip instead of three.
        engine=engine.execution_options(isolation_level="AUTOCOMMIT"),
        caches=caches,
        seats_left=SeatsLeft(booking, fresh_seconds=settings.availability_seconds),
        clock=clock,
    )
    desk = Desk(engine=engine, caches=caches, clock=clock)
    pages = PageTokens(settings.page_key.get_secret_value())
    catalog_v1.add_CatalogServiceServicer_to_server(CatalogServicer(library, pages), server)
    catalog_v1.add_CatalogAdminServiceServicer_to_server(CatalogAdminServicer(desk, library, pages), server)


async def serve(settings: CatalogSettings) -> None:
    """Answer calls until told to stop."""
    async with AsyncExitStack() as stack:
        server = GrpcServer(settings, SERVICES, Lifecycle())
        await add_servicers(server.grpc, settings, stack)
        await server.serve_until_signal()


if __name__ == "__main__":
    service_command("catalog", CatalogSettings, serve)()
