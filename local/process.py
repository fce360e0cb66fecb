"""One part while it runs: started, watched, started again when it dies, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from local import disk
from local.part import Account, Part
from local.trouble import Trouble

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses before the first, second, ... restart in a row; the last one repeats."""
CALM_S = 20.0
"""After this long without dying a part counts as well, and its next restart is quick again."""
SETTLED_S = 1.0
"""A part without a probe counts as ready when it lived that long: most mistakes end it sooner."""
PROBE_EVERY_S = 0.05
LOG_KEPT_BYTES = 20 * 1024 * 1024

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class State(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class Died(Exception):
    """The process ended before it was ready."""


def before_exec(orphan_signal: signal.Signals) -> Callable[[], None] | None:
    """Run in the child before its program: has the kernel end it when the supervisor is gone, however that went.

    Runs after the change of user, which would clear the setting. The library is loaded beforehand, as a child of a
    process with threads may do little before ``exec``.
    """
    if _libc is None:
        return None
    libc, supervisor = _libc, os.getpid()

    def bind() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
        if os.getppid() != supervisor:  # it died in between
            os._exit(1)

    return bind


def account_options(account: Account | None) -> dict[str, object]:
    """How ``subprocess`` is told to run something as ``account``."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def ending(code: int) -> str:
    """How a process ended, from its return code."""
    return f"signal {-code}" if code < 0 else f"exit {code}"


class Process:
    """A part and its process, from the first start to the end of the stack."""

    def __init__(
        self,
        part: Part,
        *,
        log: Path,
        environment: Mapping[str, str],
        tell: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.part = part
        self.log = log
        self.state = State.WAITING
        self.restarts = 0
        self.started_in_s = 0.0
        self._spawned = 0.0
        self._environment = {**environment, **part.env}
        self._tell = tell
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._is_up = asyncio.Event()
        self._spawning = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    @property
    def created(self) -> float | None:
        """When its process was created (with the id it names one process for ever, where ids are used again)."""
        try:
            return psutil.Process(self.pid).create_time() if self.pid else None
        except psutil.Error:
            return None

    async def up(self) -> None:
        """Start it for the first time.

        Raises:
            Trouble: it did not become ready.
        """
        began = time.monotonic()
        self._enter(State.STARTING)
        self._turn_log()
        try:
            await self._start()
        except Died as death:
            raise Trouble(self._why(str(death))) from death
        self.started_in_s = time.monotonic() - began
        if self.part.once:
            self._enter(State.DONE)
            return
        self._enter(State.READY)
        self._watch = asyncio.create_task(self._keep_alive(), name=f"keep {self.part.name} alive")

    async def down(self) -> None:
        """Stop it: politely, and after its patience by force. Also where it never became ready."""
        self._stopping.set()
        async with self._spawning:
            process = self._process
        if process is not None and process.returncode is None:
            self.send(self.part.stop_signal)
            self.send(signal.SIGCONT)  # one that is frozen cannot stop
            try:
                await asyncio.wait_for(process.wait(), self.part.stop_patience_s)
            except TimeoutError:
                self._tell(f"{self.part.name} did not stop within {self.part.stop_patience_s:.0f} s; killed")
                self._kill_group(process.pid)
                await process.wait()
        if self._watch is not None:
            await self._watch
        self._enter(State.STOPPED)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its process, if there is one."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9: what tests do to see that nothing is lost."""
        self._is_up.clear()  # whoever waits for `ready` next means the process that follows
        self.send(signal.SIGKILL)

    def stop_signal(self) -> None:
        """Ask it to stop, as an orchestrator does; it drains, ends and is started again."""
        self._is_up.clear()
        self.send(self.part.stop_signal)

    def freeze(self) -> None:
        """Stop its clock: it keeps its connections and answers nothing, until `thaw`."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    async def ready(self, patience_s: float = 30) -> None:
        """Wait until it is ready, for instance after `kill`."""
        async with asyncio.timeout(patience_s):
            await self._is_up.wait()

    async def _start(self) -> None:
        await self._spawn()
        await self._become_ready()

    async def _spawn(self) -> None:
        async with self._spawning:
            if self._stopping.is_set():
                raise Died("the stack is stopping")
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                try:
                    self._process = await asyncio.create_subprocess_exec(
                        *self.part.argv,
                        env=self._environment,
                        cwd=self.part.cwd,
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # Ctrl-C is for the supervisor, which stops the parts in order
                        preexec_fn=before_exec(self.part.orphan_signal),
                        **account_options(self.part.account),  # type: ignore[arg-type]
                    )
                except FileNotFoundError as missing:
                    raise Trouble(
                        f"{self.part.name} cannot start: {missing.filename} is missing; `make setup` installs it."
                    ) from missing
        self._spawned = time.monotonic()
        self._changed()

    async def _become_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + self.part.patience_s
        while True:
            if process.returncode is not None:
                if self.part.once and process.returncode == 0:
                    return
                raise Died(f"stopped while starting ({ending(process.returncode)})")
            if not self.part.once and await self._is_ready():
                return
            if time.monotonic() > deadline:
                self._kill_group(process.pid)
                await process.wait()
                raise Died(f"was not ready within {self.part.patience_s:.0f} s")
            await asyncio.sleep(PROBE_EVERY_S)

    async def _is_ready(self) -> bool:
        if self.part.probe is None:
            return time.monotonic() - self._spawned > SETTLED_S
        try:
            return await asyncio.wait_for(self.part.probe(), 2)
        except (OSError, TimeoutError):
            return False

    async def _keep_alive(self) -> None:
        """Start the part again whenever it dies, until the stack stops."""
        failures = 0
        while True:
            assert self._process is not None
            ready_since = time.monotonic()
            code = await self._process.wait()
            if self._stopping.is_set():
                return
            died = time.monotonic()
            failures = 0 if died - ready_since > CALM_S else failures
            how = ending(code)
            self._enter(State.RESTARTING)
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                if self._stopping.is_set():
                    return
                failures += 1
                try:
                    await self._start()
                    break
                except (Died, Trouble, OSError) as again:
                    if self._stopping.is_set():
                        return
                    if failures in (3, 10) or failures % 50 == 0:  # say it, but do not fill the screen
                        self._tell(f"{self.part.name} stopped ({how}) and does not come back: {self._why(str(again))}")
            self.restarts += 1
            self._enter(State.READY)
            self._tell(f"{self.part.name} stopped ({how}); restarted in {time.monotonic() - died:.1f} s")

    def _enter(self, state: State) -> None:
        self.state = state
        if state in (State.READY, State.DONE):
            self._is_up.set()
        else:
            self._is_up.clear()
        self._changed()

    def _kill_group(self, pid: int) -> None:
        """Kill the process and what it started: it leads a session of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def _turn_log(self) -> None:
        """Keep one earlier log, so that logs of a stack that is started every day do not grow for ever."""
        if self.log.exists() and self.log.stat().st_size > LOG_KEPT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _why(self, what: str) -> str:
        """A sentence about a part that failed, with what it last wrote."""
        tail = ""
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 4000))
                tail = log.read().decode(errors="replace").rstrip()
        if disk.is_full(tail):
            return f"{self.part.name} {what}: {disk.FULL}"
        last = "\n".join(f"    {line}" for line in tail.splitlines()[-8:])
        return f"{self.part.name} {what}. {self.log} says why" + (f", it ends with:\n{last}" if last else ".")
