"""Whole bookings: hold, book, begin to pay, pay, be confirmed; as fast as they go, and for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psutil  # type: ignore[import-untyped]
import psycopg

from bench import buyers
from bench.buyers import Sale, Sold
from bench.holds import HoldCalls
from bench.rounds import Round
from bench.stage import Stage, client_core

SHOWS = 4_000
CONFIRMED = "SELECT count(*), max(updated_at) FROM bookings WHERE status = 2 AND created_at >= %s"
PATIENCE_SECONDS = 60
PROMISED_A_SECOND = 167


class Bookings:
    """The subject ``bookings``."""

    def __init__(self, stage: Stage, calls: HoldCalls, count: int) -> None:
        self._stage = stage
        self._calls = calls
        self._count = count

    @classmethod
    async def of(cls, stage: Stage, count: int) -> Bookings:
        return cls(stage, await HoldCalls.of(stage.stack, stage.users, shows=SHOWS), count)

    async def round(self) -> Round:
        made = Round()
        spending = self._stage.spending()
        sold, confirmed, seconds = await self._sell(self._count)
        made.rates["whole booking"] = confirmed / seconds
        made.spent["whole booking"] = {
            **{part: cpu / self._count for part, cpu in spending.so_far().items()},
            "client": sold.client_cpu / self._count,
        }
        whole = [sum(times) for times in zip(*sold.latencies.values(), strict=False)]
        if whole:
            whole.sort()
            made.tail["whole booking"] = (whole[len(whole) // 2], whole[int(len(whole) * 0.99)])
        if sold.refused or confirmed != sold.paid:
            made.void["whole booking"] = f"refused: {sold.refused}, {sold.paid} paid, {confirmed} confirmed"
        return made

    async def sustain(self, minutes: float, say: Callable[[str], None], rate: float = PROMISED_A_SECOND) -> None:
        """Sell at ``rate`` buyers a second; says each minute what memory is used, and at last what was reached."""
        count = int(minutes * 60 * rate)
        watching = asyncio.create_task(self._tell_memory(say))
        try:
            sold, confirmed, seconds = await self._sell(count, rate=rate)
        finally:
            watching.cancel()
        say(
            f"{count} buyers at {rate:.0f}/s: {sold.paid} paid, {confirmed} confirmed, refused"
            f" {sold.refused or 'none'}, {sold.turned_away} turned away,"
            f" {confirmed / seconds:.0f} confirmed/s over {seconds:.0f} s"
        )
        for step in buyers.STEPS:
            p50, p99 = (sold.percentile(step, share) * 1e3 for share in (0.5, 0.99))
            say(f"  {step:<9} p50 {p50:6.1f} ms  p99 {p99:6.1f} ms")

    async def _sell(self, count: int, rate: float | None = None) -> tuple[Sold, int, float]:
        """What buyers met, how many bookings were confirmed, and the seconds until the last was."""
        stack = self._stage.stack
        sale = Sale(
            stack.address("booking"),
            stack.address("payment"),
            self._calls.take(count),
            rate=rate,
            in_flight=48 if rate is None else 400,
            core=client_core(),
        )
        async with await psycopg.AsyncConnection.connect(stack.database_url("booking"), autocommit=True) as connection:
            row = await (await connection.execute("SELECT clock_timestamp()")).fetchone()
            assert row is not None
            began = row[0]
            sold: Sold = await asyncio.get_running_loop().run_in_executor(self._stage.generators, buyers.sell, sale)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while True:
                found = await (await connection.execute(CONFIRMED, (began,))).fetchone()
                assert found is not None
                if found[0] >= sold.paid or time.monotonic() > deadline:
                    break
                await asyncio.sleep(0.05)
        return sold, found[0], (found[1] - began).total_seconds() if found[1] else 0.0

    async def _tell_memory(self, say: Callable[[str], None]) -> None:
        minute = 0
        while True:
            sizes = {
                process.part.name: psutil.Process(process.pid).memory_info().rss / 2**20
                for process in self._stage.stack.parts
                if process.pid is not None and psutil.pid_exists(process.pid)
            }
            told = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items())
            say(f"  minute {minute}, RSS in MiB: {told}")
            minute += 1
            await asyncio.sleep(60)
