"""``make bench``: what a hold, the edge and a confirmation cost, each against its floor, in turn, in one run.

The stack is the shipped one (fsync on, validation, both token checks, limits evaluated with wide buckets), in a
temporary folder of its own. A round measures each figure and its floor next to each other; what is quoted is the median
of the rounds' ratios. A round with an error, or with a generator near its own limit, is void and says so.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from bench import machine, wire
from bench.confirms import Confirmations
from bench.holds import METHOD, HoldCalls
from bench.wire import Load, Measured
from local import demo_data, ports, tokens
from local.keys import user_keys
from local.stack import Stack

USERS = 1_000
SHOWS = 1_500
AIMS = {"hold / echo": 0.45, "edge / direct": 0.60, "confirm / pgbench": 0.30}


@dataclass
class Round:
    """One round's rates (a second) and why some are void."""

    rates: dict[str, float] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)
    spent: dict[str, dict[str, float]] = field(default_factory=dict)
    tail: dict[str, tuple[float, float]] = field(default_factory=dict)


class Bench:
    def __init__(self, stack: Stack, calls: HoldCalls, echo: tuple[str, int], console: Console, count: int) -> None:
        self._stack = stack
        self._calls = calls
        self._echo_address, self._echo_pid = echo
        self._console = console
        self._count = count
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self._confirmations = Confirmations(stack)

    async def round(self) -> Round:
        made = Round()
        await self._rpc(made, "echo", self._echo_address)
        await self._rpc(made, "hold", self._stack.address("booking"))
        await self._rpc(made, "hold by the edge", f"localhost:{self._stack.plan.ports['edge']}")
        await self._rpc(made, "hold again", self._stack.address("booking"))
        for name, confirm in (
            ("confirm", self._confirmations.by_service),
            ("pgbench", self._confirmations.by_pgbench),
        ):
            spending = self._spending()
            confirmed = await confirm(self._count // 2)
            made.rates[name] = confirmed.rate
            made.spent[name] = {part: cpu / confirmed.count for part, cpu in spending.so_far().items()}
        return made

    async def _rpc(self, made: Round, name: str, address: str) -> None:
        load = Load(address, METHOD, self._calls.take(self._count), core=_client_core())
        spending = self._spending()
        measured: Measured = await asyncio.get_running_loop().run_in_executor(self._pool, wire.run, load)
        spent = spending.so_far()
        made.rates[name] = measured.rate
        made.tail[name] = (measured.percentile(0.5), measured.percentile(0.99))
        made.spent[name] = {part: cpu / self._count for part, cpu in spent.items()}
        made.spent[name]["client"] = measured.client_cpu / self._count
        if measured.bad:
            made.void[name] = f"{measured.bad} calls were refused"
        elif measured.saturated:
            made.void[name] = f"the generator used {measured.client_cpu / measured.seconds:.0%} of its core"

    def _spending(self) -> machine.Spending:
        roots = {process.part.name: process.pid for process in self._stack.parts if process.pid is not None}
        return machine.Spending({**roots, "echo": self._echo_pid})


def _client_core() -> int | None:
    """The last processor, where the system lets a process choose."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


async def _echo(stack: Stack) -> tuple[str, asyncio.subprocess.Process]:
    address = f"127.0.0.1:{ports.pick(stack.plan.ports.values())}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.echo"),
        env={**stack.env_for("booking"), "MARQUEE_LISTEN": address},
        stdout=asyncio.subprocess.DEVNULL,
    )
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection(*address.split(":"))
            writer.close()
            return address, process
        except OSError:
            await asyncio.sleep(0.05)
    raise SystemExit("bench: the echo service did not start")


async def _run(rounds: int, count: int) -> None:
    console = Console(width=110)
    console.print(f"machine: {machine.describe()}")
    folder = Path(tempfile.mkdtemp(prefix="marquee-bench-"))
    stack = Stack(folder, rate_limits=False, tell=console.print)
    echo: asyncio.subprocess.Process | None = None
    try:
        async with stack:
            await demo_data.load(stack)
            address, echo = await _echo(stack)
            key = user_keys(stack.home.keys).signing(time.time())
            users = list(tokens.synthetic_access_tokens(key, USERS, "customer", time.time()))
            calls = await HoldCalls.of(stack, users, shows=SHOWS)
            bench = Bench(stack, calls, (address, echo.pid), console, count)
            warm = await bench.round()
            console.print(f"warm-up: {_line(warm)}")
            made = []
            for number in range(1, rounds + 1):
                made.append(await bench.round())
                console.print(f"round {number}: {_line(made[-1])}")
            _report(console, made)
    finally:
        if echo is not None and echo.returncode is None:
            echo.terminate()
            await echo.wait()
        stack.home.wipe()
        shutil.rmtree(folder, ignore_errors=True)


def _line(made: Round) -> str:
    return ", ".join(
        f"{name} {rate:,.0f}/s" + (" VOID" if name in made.void else "") for name, rate in made.rates.items()
    )


def _ratios(made: list[Round], above: str, below: str, beside: str | None = None) -> list[float]:
    """Round by round; a floor that was measured before and after is the mean of the two."""
    names = [name for name in (above, below, beside) if name]
    good = [each for each in made if not any(name in each.void for name in names)]
    return [
        each.rates[above] / ((each.rates[below] + each.rates[beside]) / 2 if beside else each.rates[below])
        for each in good
    ]


def _report(console: Console, made: list[Round]) -> None:
    table = Table("ratio", "median", "least to most", "valid rounds", "aim", title="ratios")
    for name, ratios in (
        ("hold / echo", _ratios(made, "hold", "echo")),
        ("edge / direct", _ratios(made, "hold by the edge", "hold", "hold again")),
        ("confirm / pgbench", _ratios(made, "confirm", "pgbench")),
    ):
        aim = AIMS[name]
        if ratios:
            median = statistics.median(ratios)
            verdict = "reached" if median >= aim else "SHORT"
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            table.add_row(name, f"{median:.2f}", spread, f"{len(ratios)} of {len(made)}", f">= {aim:.2f} {verdict}")
        else:
            table.add_row(name, "void", "", f"0 of {len(made)}", f">= {aim:.2f}")
    console.print(table)

    parts = ("client", "edge", "echo", "booking", "postgres", "relay", "cache", "bus")
    table = Table("what", "a second", "p50 ms", "p99 ms", *parts, title="rates, and CPU microseconds a call by part")
    for name in made[0].rates:
        rates = statistics.median(each.rates[name] for each in made)
        tails = [each.tail[name] for each in made if name in each.tail]
        p50, p99 = (f"{statistics.median(tail[i] for tail in tails) * 1e3:.1f}" if tails else "" for i in (0, 1))
        spent = [f"{statistics.median(each.spent[name].get(part, 0.0) for each in made) * 1e6:.0f}" for part in parts]
        table.add_row(name, f"{rates:,.0f}", p50, p99, *spent)
    console.print(table)
    for number, each in enumerate(made, 1):
        for name, why in each.void.items():
            console.print(f"round {number}: {name} is void: {why}")


def main(
    rounds: int = typer.Option(5, help="measured rounds, after one to warm up"),
    count: int = typer.Option(6_000, help="calls of each kind in a round"),
) -> None:
    """Measure holds, the edge and confirmations against their floors."""
    asyncio.run(_run(rounds, count))


if __name__ == "__main__":
    typer.run(main)
