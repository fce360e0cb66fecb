"""Whole bookings: hold, book, begin to pay, pay, be confirmed; as fast as they go, against the same writes alone."""

from __future__ import annotations

import asyncio
import time

import psycopg

from bench import buyers, calls
from bench.bookings_floor import BookingsFloor
from bench.buyers import Sale, Sold
from bench.holds import HoldCalls
from bench.percentiles import percentile
from bench.rounds import Ratio, Round
from bench.stage import Stage, client_core

SHOWS = 2_500
CONFIRMED = "SELECT count(*), max(updated_at) FROM bookings WHERE status = 2 AND created_at >= %s"
PATIENCE_SECONDS = 60
MOST_OF_A_CORE = 0.85
"""Buyers that use more of theirs may be what limited the rate."""
RATIOS = (Ratio("whole bookings / the same writes in pgbench", "whole booking", ("its writes in pgbench",), 0.10),)


class Bookings:
    """The subject ``bookings``."""

    def __init__(self, stage: Stage, calls: HoldCalls, floor: BookingsFloor, count: int) -> None:
        self._stage = stage
        self._calls = calls
        self._floor = floor
        self._count = count

    @classmethod
    async def of(cls, stage: Stage, count: int) -> Bookings:
        supply = await HoldCalls.of(stage.stack, stage.users, shows=SHOWS, after=calls.SHOWS)
        return cls(stage, supply, await BookingsFloor.of(stage.stack), count)

    async def round(self) -> Round:
        made = Round()
        spending = self._stage.spending()
        stack = self._stage.stack
        calls = self._calls.take(self._count)
        sale = Sale(stack.address("booking"), stack.address("payment"), calls, core=client_core())
        sold, confirmed, seconds = await sell(self._stage, sale)
        made.rates["whole booking"] = confirmed / seconds
        made.spent["whole booking"] = {
            **{part: cpu / self._count for part, cpu in spending.so_far().items()},
            "client": sold.client_cpu / self._count,
        }
        made.tail["whole booking"] = (percentile(sold.whole, 0.5), percentile(sold.whole, 0.99))
        if sold.refused or confirmed != sold.paid:
            made.void["whole booking"] = f"refused: {sold.refused}, {sold.paid} paid, {confirmed} confirmed"
        elif sold.client_cpu / sold.seconds > MOST_OF_A_CORE:
            made.void["whole booking"] = f"the buyers used {sold.client_cpu / sold.seconds:.0%} of their core"
        if confirmed:
            await self._floor.prepare(self._count)
            spending = self._stage.spending()
            count, seconds = await self._floor.sell()
            made.rates["its writes in pgbench"] = count / seconds
            made.spent["its writes in pgbench"] = {part: cpu / count for part, cpu in spending.so_far().items()}
        return made


async def sell(stage: Stage, sale: Sale) -> tuple[Sold, int, float]:
    """What buyers met, how many bookings were confirmed, and the seconds until the last was."""
    url = stage.stack.database_url("booking")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute("SELECT clock_timestamp()")).fetchone()
        assert row is not None
        began = row[0]
        sold: Sold = await asyncio.get_running_loop().run_in_executor(stage.generators, buyers.sell, sale)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = await (await connection.execute(CONFIRMED, (began,))).fetchone()
            assert found is not None
            if found[0] >= sold.paid or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
    return sold, found[0], (found[1] - began).total_seconds() if found[1] else 0.0
