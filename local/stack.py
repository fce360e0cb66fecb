"""A whole stack, or some of its parts, as one thing that starts, is watched, and stops; for ``up``, tests and benches.

async with Stack(folder, parts={"postgres", "cache"}) as stack:
    stack.part("postgres").kill()
    await stack.part("postgres").ready()
"""

from __future__ import annotations

import asyncio
import contextlib
import graphlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from local import disk, edge, lock, ports, status
from local.home import CHECKOUT, Home
from local.keys import service_keys, user_keys
from local.part import Part
from local.parts import PORTS, SERVICES, Plan, all_parts
from local.process import Process, State
from local.tokens import SERVICE_TOKEN_RENEWED_EVERY_S, renew_service_tokens
from local.trouble import Trouble

TEND_EVERY_S = 0.5


def _silent(_: str) -> None:
    """Tell nobody."""


class Stack:
    """Parts that run together, with their state in one folder.

    Args:
        root: where everything is kept. Another stack may not run there at the same time.
        edge_port: the port of REST, grpc-web and gRPC; None picks a free one.
        parts: names of the parts to start, those they need included by themselves; None starts all.
        rate_limits: whether the edge enforces them.
        postgres_settings: set over those of `postgres.SETTINGS`.
        environment: more variables, by part.
        tell: gets sentences about what happens, for a person.
        started: gets a part's name and seconds when it is ready for the first time.
    """

    def __init__(
        self,
        root: Path,
        *,
        edge_port: int | None = None,
        parts: Collection[str] | None = None,
        rate_limits: bool = True,
        postgres_settings: Mapping[str, str] | None = None,
        environment: Mapping[str, Mapping[str, str]] | None = None,
        tell: Callable[[str], None] = _silent,
        started: Callable[[str, float], None] | None = None,
    ) -> None:
        self.home = Home(root.resolve())
        self._edge_port = edge_port
        self._wanted = parts
        self._rate_limits = rate_limits
        self._postgres_settings = postgres_settings or {}
        self._environment = environment or {}
        self._tell = tell
        self._started = started
        self._processes: dict[str, Process] = {}
        self._plan: Plan | None = None
        self._tending: asyncio.Task[None] | None = None
        self._lock = contextlib.ExitStack()

    @property
    def plan(self) -> Plan:
        """Ports, URLs and addresses, once started."""
        if self._plan is None:
            raise RuntimeError("the stack was not started")
        return self._plan

    @property
    def edge_url(self) -> str:
        return self.plan.edge_url

    @property
    def parts(self) -> list[Process]:
        return list(self._processes.values())

    def part(self, name: str) -> Process:
        """The running part ``name``: its state and process id, ``kill()``, ``freeze()``, ..."""
        return self._processes[name]

    def url(self, name: str) -> str:
        """What a client of the store or the edge opens."""
        url = self.part(name).part.url
        if url is None:
            raise KeyError(f"{name} has no URL")
        return url

    def address(self, name: str) -> str:
        """``host:port`` of any part that listens, also of one that is not in this stack (yet)."""
        return self.plan.address(name)

    def database_url(self, service: str) -> str:
        return self.plan.database_url(service)

    def env_for(self, name: str) -> dict[str, str]:
        """The variables that ``name`` gets, to start another process like it."""
        return {**_inherited(), **self.part(name).part.env}

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start every part, each as soon as what it needs is ready.

        Raises:
            Trouble: says what is wrong and what to do. Some parts may run; `stop` ends them.
        """
        try:
            await self._begin()
        except lock.Held as other:
            raise Trouble(
                f"a stack runs here already (process {other.pid}); `python -m local status` tells about it, "
                "`python -m local stop` ends it."
            ) from None
        except OSError as error:
            raise (Trouble(disk.FULL) if disk.is_full(error) else error) from error

    async def _begin(self) -> None:
        self._lock.enter_context(lock.held(self.home.lock))
        self.home.make()
        end_leftovers(self.home)
        disk.demand_room(self.home.root)
        disk.demand_room(self.home.postgres)
        self._have_keys()
        self._plan = self._make_plan()
        chosen = choose(all_parts(self._plan), self._wanted)
        if self._edge_port is not None and any(part.name == "edge" for part in chosen):
            ports.demand(self._edge_port)
        for part in chosen:
            self._processes[part.name] = Process(
                part,
                log=self.home.log / f"{part.name}.log",
                environment=_inherited(),
                tell=self._tell,
                changed=self._write_status,
            )
        ready = {part.name: asyncio.Event() for part in chosen}
        try:
            async with asyncio.TaskGroup() as group:
                for part in chosen:
                    group.create_task(self._bring_up(part, ready), name=f"start {part.name}")
        except* (Trouble, OSError) as several:
            raise _first(several) from None
        self._tending = asyncio.create_task(self._tend(), name="tend keys")

    def _make_plan(self) -> Plan:
        chosen = ports.choose(PORTS, self.home.ports)
        edge_port = self._edge_port if self._edge_port is not None else ports.pick(chosen.values())
        return Plan(
            home=self.home,
            ports={**chosen, "edge": edge_port},
            rate_limits=self._rate_limits,
            postgres_settings=self._postgres_settings,
            environment=self._environment,
        )

    async def _bring_up(self, part: Part, ready: Mapping[str, asyncio.Event]) -> None:
        if part.prepare is not None:
            await part.prepare()
        for name in (*part.needs, *part.after):
            if name in ready:
                await ready[name].wait()
        process = self._processes[part.name]
        await process.up()
        ready[part.name].set()
        if self._started is not None:
            self._started(part.name, process.started_in_s)

    async def stop(self) -> None:
        """Stop every part, those that others need last. Safe to call again, and after a start that failed."""
        if self._tending is not None:
            self._tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._tending
            self._tending = None
        for level in reversed(levels([process.part for process in self.parts])):
            await asyncio.gather(*(self._processes[name].down() for name in level))
        self._lock.close()

    def _have_keys(self) -> None:
        now = time.time()
        user_keys(self.home.keys).ensure(now)
        service_keys(self.home.keys).ensure(now)
        self._renew_tokens(now)

    def _renew_tokens(self, now: float) -> None:
        self._tokens_renewed = now
        renew_service_tokens(service_keys(self.home.keys).signing(now), (*SERVICES, "relay"), self.home.keys, now)

    async def _tend(self) -> None:
        """Renew service tokens, drop keys that nobody needs, and tell the edge when the keys changed.

        Looks at the clock on the wall, which goes on while a laptop sleeps.
        """
        ring = user_keys(self.home.keys)
        seen = ring.jwks.stat().st_mtime_ns
        while True:
            await asyncio.sleep(TEND_EVERY_S)
            try:
                now = time.time()
                if not 0 <= now - self._tokens_renewed < SERVICE_TOKEN_RENEWED_EVERY_S:
                    self._renew_tokens(now)
                for key in ring.retire(now):
                    self._tell(f"key {key.kid} has left: every token it signed has expired")
                changed = ring.jwks.stat().st_mtime_ns
                if changed != seen and "edge" in self._processes:
                    await edge.render(self.home, self._processes["edge"].part.env)
                    self._tell("the edge has the changed keys")
                seen = changed
            except (Trouble, OSError) as error:
                self._tell(f"keys: {error}")
                await asyncio.sleep(10)

    def _write_status(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the supervisor
            status.write(self.home.status, [status.of(process) for process in self.parts])

    @property
    def is_ready(self) -> bool:
        """Whether every part is."""
        return all(process.state in (State.READY, State.DONE) for process in self.parts)


def choose(parts: list[Part], wanted: Collection[str] | None) -> list[Part]:
    """The parts in ``wanted`` and all that they need."""
    if wanted is None:
        return parts
    by_name = {part.name: part for part in parts}
    chosen: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in by_name:
            raise Trouble(f"there is no part {name!r}; there are {', '.join(by_name)}.")
        if name not in chosen:
            chosen.add(name)
            waiting.extend(by_name[name].needs)
    return [part for part in parts if part.name in chosen]


def levels(parts: list[Part]) -> list[list[str]]:
    """Names of the parts, grouped so that each group needs only earlier ones."""
    names = {part.name for part in parts}
    order = graphlib.TopologicalSorter(
        {part.name: [name for name in (*part.needs, *part.after) if name in names] for part in parts}
    )
    order.prepare()
    groups = []
    while order.is_active():
        group = list(order.get_ready())
        order.done(*group)
        groups.append(group)
    return groups


def end_leftovers(home: Home) -> None:
    """End what a supervisor that was killed left behind (where the kernel did not do it already)."""
    try:
        before = status.read(home.status)
    except (ValueError, TypeError):
        return  # half a file of an old version; PostgreSQL's own leftovers are found by its pid file
    for part in before:
        process = part.process()
        if process is not None:
            with contextlib.suppress(Exception):
                process.terminate()
                process.wait(5)
            if part.lives:
                process.kill()


def _inherited() -> dict[str, str]:
    """Our environment, so that ``MARQUEE_HOLD_SECONDS=30 make run`` works, with the code on the path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "gen")])}


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group: parts that fail together fail for one reason."""
    error: BaseException = several
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
