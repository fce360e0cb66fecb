"""Where everything is measured: the shipped stack in a folder of its own, two floors beside it, and one generator."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import machine, wire
from bench.rounds import Round
from bench.wire import Load, Measured
from local import demo_data, ports, tokens
from local.keys import user_keys
from local.stack import Stack

USERS = 1_000


@dataclass(frozen=True)
class Stage:
    """The stack and what loads it.

    Args:
        users: access tokens of synthetic customers.
        floors: address and process id of the echo services: ``echo`` behind the kit's door, ``bare`` without.
    """

    stack: Stack
    users: list[str]
    floors: Mapping[str, tuple[str, int]]
    generators: ProcessPoolExecutor

    @property
    def edge(self) -> str:
        return f"localhost:{self.stack.plan.ports['edge']}"

    def spending(self) -> machine.Spending:
        """Begin to count what every part spends."""
        roots = {process.part.name: process.pid for process in self.stack.parts if process.pid is not None}
        return machine.Spending({**roots, **{name: pid for name, (_, pid) in self.floors.items()}})

    async def fire(self, made: Round, name: str, load: Load, *, refusals: bool = False) -> Measured:
        """Send ``load`` from a process of its own, and enter what came of it under ``name``.

        Args:
            refusals: whether every call should be refused, rather than none.
        """
        spending = self.spending()
        measured: Measured = await asyncio.get_running_loop().run_in_executor(self.generators, wire.run, load)
        spent = spending.so_far()
        count = measured.good + measured.bad
        wrong = measured.good if refusals else measured.bad
        made.rates[name] = (count - wrong) / measured.seconds
        made.tail[name] = (measured.percentile(0.5), measured.percentile(0.99))
        made.spent[name] = {**{part: cpu / count for part, cpu in spent.items()}, "client": measured.client_cpu / count}
        if wrong:
            made.void[name] = f"{wrong} calls were {'not ' if refusals else ''}refused"
        elif measured.saturated:
            made.void[name] = f"the generator used {measured.client_cpu / measured.seconds:.0%} of its core"
        return measured


def client_core() -> int | None:
    """The last processor, where the system lets a process choose."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


@asynccontextmanager
async def open_stage(environment: Mapping[str, Mapping[str, str]] | None = None) -> AsyncIterator[Stage]:
    """Start everything with demo data; nothing of it is left afterwards. ``environment``: more variables, by part."""
    folder = Path(tempfile.mkdtemp(prefix="marquee-bench-"))
    stack = Stack(folder, rate_limits=False, environment=environment)
    try:
        async with stack, AsyncExitStack() as floors:
            await demo_data.load(stack)
            addresses = {
                name: await floors.enter_async_context(floor(stack, "bench.echo", name)) for name in ("echo", "bare")
            }
            key = user_keys(stack.home.keys).signing(time.time())
            users = list(tokens.synthetic_access_tokens(key, USERS, "customer", time.time()))
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as generators:
                yield Stage(stack, users, addresses, generators)
    finally:
        stack.home.wipe()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def floor(stack: Stack, module: str, *arguments: str) -> AsyncIterator[tuple[str, int]]:
    """A server beside the stack's own, told what booking is told: its address and process id."""
    port = ports.pick(stack.plan.ports.values())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env={**stack.env_for("booking"), "MARQUEE_LISTEN": f"127.0.0.1:{port}"},
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # as the stack's parts: Linux shares processors out by session
    )
    try:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.05)
        else:
            raise SystemExit(f"bench: {module} did not start")
        yield f"127.0.0.1:{port}", process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
