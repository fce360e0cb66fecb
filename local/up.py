"""``python -m local up``: the supervisor of this checkout's stack."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from local import demo_data, parent
from local.console import Terminal
from local.stack import Stack
from local.trouble import Trouble


async def supervise(root: Path, *, edge_port: int, rate_limits: bool, demo: bool, terminal: Terminal) -> None:
    """Start everything, say where to go, keep it running until a signal, stop everything.

    Raises:
        Trouble: it did not start; nothing of it runs any more.
    """
    began = time.monotonic()
    stopping = _signalled()
    stack = Stack(
        root,
        edge_port=edge_port,
        rate_limits=rate_limits,
        tell=terminal.happened,
        started=terminal.part_ready,
    )
    starting = asyncio.create_task(_start(stack, demo=demo, terminal=terminal, began=began))
    until = asyncio.create_task(_first_of(stopping.wait(), parent.gives_up()))
    try:
        await asyncio.wait({starting, until}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting  # what went wrong, if it did
            await until
        terminal.say("")
    finally:
        for task in (starting, until):
            task.cancel()
        await asyncio.gather(starting, until, return_exceptions=True)
        with terminal.working("stopping"):
            await stack.stop()
    terminal.say("stopped; `make run` goes on with the same data")


async def _start(stack: Stack, *, demo: bool, terminal: Terminal, began: float) -> None:
    with terminal.working("starting"):
        await stack.start()
    loaded = demo and demo_data.is_there() and await _load_demo(stack, terminal)
    terminal.ready_panel(
        edge=stack.edge_url,
        seconds=time.monotonic() - began,
        demo=loaded,
        limits=stack.plan.rate_limits,
        has_edge=any(process.part.name == "edge" for process in stack.parts),
    )


async def _load_demo(stack: Stack, terminal: Terminal) -> bool:
    began = time.monotonic()
    try:
        with terminal.working("loading demo data"):
            await demo_data.load(stack)
    except Trouble as trouble:
        terminal.happened(str(trouble))
        return False
    terminal.part_ready("demo data", time.monotonic() - began)
    return True


async def _first_of(*reasons: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(reason) for reason in reasons]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _signalled() -> asyncio.Event:
    """Set by the first SIGINT, SIGTERM or SIGHUP; the parts get none of them, as each leads its own session.

    A second one ends the supervisor at once, and the kernel ends the parts.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os.kill(os.getpid(), signal.SIGKILL)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return stopping


def edge_port_from(text: str) -> int:
    """EDGE_PORT as a number.

    Raises:
        Trouble: it is none.
    """
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise Trouble(f"EDGE_PORT={text} is not a port; take a number from 1024 to 65535.")
    return int(text)
