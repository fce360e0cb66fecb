"""Several processes of booking on one database, each of which can be stopped and asked by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import grpc
import psutil  # type: ignore[import-untyped]

from local import ports, probes
from local.process import Process
from marquee.booking import v1 as booking_v1
from tests.prove.stage import CHANNEL_OPTIONS, Stage

LEADER = """
    SELECT a.client_port
    FROM pg_locks l
    JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory'
      AND l.granted
      AND a.datname = current_database()
      AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('consumer/booking', 0)
"""


@dataclass(frozen=True)
class Worker:
    """One process of booking, and calls to it alone."""

    process: Process
    booking: booking_v1.BookingServiceStub

    def has_connection(self, port: int) -> bool:
        """Whether a connection that ends at its own ``port`` is its."""
        if self.process.pid is None:
            return False
        connections = psutil.Process(self.process.pid).net_connections("tcp")
        return any(connection.laddr.port == port for connection in connections)


async def leader(stage: Stage, workers: list[Worker]) -> Worker | None:
    """The one whose consumer takes booking's events now."""
    rows = await stage.rows(LEADER)
    return next((worker for worker in workers if rows and worker.has_connection(rows[0][0])), None)


@asynccontextmanager
async def booking_workers(stage: Stage, more: Sequence[Mapping[str, str]]) -> AsyncIterator[list[Worker]]:
    """The stack's own process of booking, and one more for each of ``more``: what its environment has besides."""
    main = stage.stack.part("booking")
    async with AsyncExitStack() as cleanup:
        workers = []
        for number, variables in enumerate(({}, *more)):
            process, address = main, stage.stack.address("booking")
            if number:
                address = f"127.0.0.1:{ports.pick()}"
                part = replace(
                    main.part,
                    name=f"booking-{number}",
                    env={**main.part.env, **variables, "MARQUEE_LISTEN": address},
                    probe=probes.grpc_health(address),
                    address=address,
                    patience_s=60,
                )
                process = Process(
                    part,
                    log=stage.stack.home.log / f"{part.name}.log",
                    environment=stage.stack.env_for("booking"),
                    tell=lambda _: None,
                    changed=lambda: None,
                )
                cleanup.push_async_callback(process.down)
                await process.up()
            channel = await cleanup.enter_async_context(grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS))
            workers.append(Worker(process, booking_v1.BookingServiceStub(channel)))
        yield workers
