"""The booking service: ``python -m services.booking``. This is where its parts are put together."""

from __future__ import annotations

import asyncio
import functools
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress

import psycopg

from marquee.booking import v1 as booking_v1
from services.booking import consumers
from services.booking.announcer import Announcer
from services.booking.clients import CatalogClient
from services.booking.commands import add_partition_commands
from services.booking.conversions import book_batches
from services.booking.desk import Desk, hold_batches
from services.booking.desks import Desks
from services.booking.domain import Rates, SeatLimits
from services.booking.epochs import add_epoch_command
from services.booking.live_maps import LiveMaps
from services.booking.notices import open_notices
from services.booking.partitions import tend
from services.booking.region_commands import add_region_commands
from services.booking.servicer import BookingInternalServicer, BookingServicer
from services.booking.settings import BookingSettings
from services.booking.shows import Shows
from services.booking.signals import BookingSignals
from services.booking.store.bookings import BookingStore
from services.booking.store.holds import HoldStore
from services.booking.store.seats import SeatStore
from services.booking.store.shows import ShowStore
from services.booking.streams import StreamLimits
from services.booking.sweeper import sweep
from services.kit.channels import open_channel
from services.kit.command import service_command
from services.kit.consumers import Consumer
from services.kit.database import LASTING_PLANS, open_pool
from services.kit.lifecycle import Lifecycle
from services.kit.paging import PageTokens
from services.kit.repeating import repeating
from services.kit.replicas import open_reads
from services.kit.server import GrpcServer

SERVICES = ("marquee.booking.v1.BookingService", "marquee.booking.v1.BookingInternalService")


async def open_desk(settings: BookingSettings, stack: AsyncExitStack) -> Desk:
    """Connect to everything that booking needs; ``stack`` closes it again."""
    open_booking_pool = functools.partial(
        open_pool,
        size=settings.database_pool_size,
        wait_seconds=settings.database_pool_wait_seconds,
        name="booking",
        options=LASTING_PLANS,
    )
    pool = await stack.enter_async_context(open_booking_pool(settings.database_url.get_secret_value()))
    reads = await stack.enter_async_context(open_reads(settings, pool, open_booking_pool))
    catalog = await stack.enter_async_context(open_channel(settings.catalog_address, settings.service_token_file))
    notices = await stack.enter_async_context(open_notices(settings.cache_url.get_secret_value()))
    seats = SeatStore(pool, reads)
    holds = HoldStore(
        pool,
        hold_for=settings.hold_for,
        limits=SeatLimits(active_holds=settings.most_active_holds, holds_an_hour=settings.most_holds_an_hour),
    )
    live = LiveMaps(
        seats,
        notices,
        coalesce_seconds=settings.coalesce_seconds,
        linger_seconds=settings.linger_seconds,
    )
    announcer = Announcer(pool, seats)
    shows = Shows(ShowStore(pool), CatalogClient(catalog))
    bookings = BookingStore(pool, pay_within=settings.pay_within)
    return Desk(
        shows=shows,
        seats=seats,
        holds=holds,
        hold_batches=hold_batches(
            holds,
            live,
            announcer,
            at_once=settings.batches_at_once,
            most=settings.batch_most,
            gather_seconds=settings.batch_gather_seconds,
        ),
        bookings=bookings,
        book_batches=book_batches(
            bookings,
            shows,
            at_once=settings.batches_at_once,
            most=settings.batch_most,
            gather_seconds=settings.batch_gather_seconds,
        ),
        live=live,
        signals=BookingSignals(notices),
        announcer=announcer,
        rates=Rates(
            fee=settings.fee_basis_points,
            most_fee=settings.most_fee_minor,
            gst_threshold=settings.gst_threshold_minor,
            gst_low=settings.gst_low_basis_points,
            gst_high=settings.gst_high_basis_points,
            gst_fee=settings.gst_fee_basis_points,
        ),
    )


async def open_desks(settings: BookingSettings, stack: AsyncExitStack) -> Desks:
    """A desk for each database that the settings name."""
    home = await open_desk(settings, stack)
    others = {name: await open_desk(settings.of_database(name), stack) for name in settings.region_databases}
    desks = Desks(home, {region: others[name] for region, name in settings.regions.items()})
    with suppress(psycopg.OperationalError):  # a database that is away sells nothing, and is looked at again
        await desks.look()
    return desks


def background(desk: Desk, settings: BookingSettings) -> list[AbstractAsyncContextManager[None]]:
    """What every process of booking does beside its calls."""
    return [
        repeating("live_maps_comparison", desk.live.compare, settings.poll_seconds),
        repeating("availability_announcement", desk.announcer.announce, settings.announce_seconds),
        repeating("sweep", functools.partial(sweep, desk), settings.sweep_seconds),
    ]


async def serve(settings: BookingSettings) -> None:
    """Run until told to stop."""
    lifecycle = Lifecycle()
    async with AsyncExitStack() as stack:
        desks = await open_desks(settings, stack)
        for desk in desks.all():
            for work in background(desk, settings):
                await stack.enter_async_context(work)
        await stack.enter_async_context(repeating("closed_regions_look", desks.look, settings.poll_seconds))
        for each in (settings, *map(settings.of_database, settings.region_databases)):
            tending = functools.partial(tend, each)
            await stack.enter_async_context(repeating("partitions", tending, settings.partition_seconds))
        consumer = Consumer.on_valkey(
            consumers.CONSUMER,
            consumers.handlers(desks),
            database_url=settings.database_url.get_secret_value(),
            bus_url=settings.bus_url.get_secret_value(),
        )
        await stack.enter_async_context(consumer.running())
        server = GrpcServer(settings, SERVICES, lifecycle)
        limits = StreamLimits(
            most_a_user=settings.most_streams_a_user, most_an_address=settings.most_streams_an_address
        )
        pages = PageTokens(settings.page_key.get_secret_value())
        booking_v1.add_BookingServiceServicer_to_server(
            BookingServicer(desks, lifecycle, limits, pages, settings), server.grpc
        )
        booking_v1.add_BookingInternalServiceServicer_to_server(BookingInternalServicer(desks), server.grpc)
        waking = asyncio.create_task(_wake_streams(desks, lifecycle))
        await server.serve_until_signal()
        waking.cancel()


async def _wake_streams(desks: Desks, lifecycle: Lifecycle) -> None:
    """When the server drains, streams must not sit out their wait."""
    await lifecycle.draining.wait()
    for desk in desks.all():
        desk.live.wake_all()
        desk.signals.wake_all()


app = service_command("booking", BookingSettings, serve)
add_partition_commands(app)
add_epoch_command(app)
add_region_commands(app)

if __name__ == "__main__":
    app()
