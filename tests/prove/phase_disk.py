"""PostgreSQL's disk is full in the middle of a sale; then there is room again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from local.home import Home
from local.postgres import account
from tests.prove.phases import Context, Phase, Result
from tests.prove.sale import Hall, open_sale
from tests.prove.trading import trading
from tests.prove.trouble import Probe, Trouble

SIZE_MB = 480
FULL_S = 12.0
BEFORE_S = 8.0
SERVED_WITHIN_S = 30.0
MIB = 1024 * 1024
FULL, PANIC = "No space left on device", "PANIC:"


def why_not(folder: Path) -> str:
    """Why a tmpfs cannot be mounted here; empty when it can."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tmpfs(folder, 1):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        return " ".join(said.split())
    finally:
        folder.rmdir()


@contextmanager
def tmpfs(folder: Path, size_mb: int) -> Iterator[None]:
    """A file system in memory, of that size, at ``folder``."""
    who = account()
    owner = f",uid={who.uid},gid={who.gid}" if who else ""
    options = f"size={size_mb}m,mode=0700{owner}"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True, text=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True, text=True)


@contextmanager
def small_disk(home: Home) -> Iterator[None]:
    """PostgreSQL's data lies on a small disk while the block lasts."""
    if account() is not None:
        home.make_outside()
    home.postgres.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tmpfs(home.postgres, SIZE_MB):
        yield


def fill(folder: Path) -> Path:
    """Use up all that is free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (MIB, 4096):
            try:
                while True:
                    file.write(os.urandom(16) * (size // 16))
            except OSError:
                continue
    return ballast


async def run(context: Context) -> Result:
    reason = why_not(context.folder / "try")
    if reason:
        return Result(notes=[f"A FULL DISK WAS NOT TRIED: no tmpfs can be mounted here ({reason})."])
    hall = Hall(shows=3, rows=20, seats_a_row=20)
    async with open_sale(
        context.folder / "stage", seed=context.seed, hall=hall, viewers_a_show=1, around=small_disk
    ) as sale:
        stage = sale.stage
        probe = Probe(sale.crowd, await sale.one_more_show(listed=False))
        history = sale.record.history
        async with trading(sale):
            await asyncio.sleep(BEFORE_S)
            before = len(history.operations)
            ballast = fill(stage.stack.home.postgres)
            began = time.monotonic()
            restarts = stage.stack.part("postgres").restarts
            await asyncio.sleep(FULL_S / 2)
            with suppress(psycopg.Error):  # the log's segment ends, and there is no room for another one
                await stage.rows("SELECT pg_switch_wal()", database="postgres")
            await asyncio.sleep(FULL_S / 2)
            refused = sum(each.tries for each in history.operations[before:]) - len(history.operations[before:])

            async def make_room(_: object) -> None:
                ballast.unlink()

            recovery = await probe.recovery(Trouble("room again", make_room, served_within_s=SERVED_WITHIN_S), ())
            took = time.monotonic() - began
            await asyncio.sleep(BEFORE_S)
        judged = await sale.judge()
        restarts = stage.stack.part("postgres").restarts - restarts
        log = (stage.stack.home.log / "postgres.log").read_text(errors="replace")
    result, lines = Result(problems=judged.problems()), log.splitlines()
    result.figures = {
        "size of PostgreSQL's disk, MB": SIZE_MB,
        "full for, s": FULL_S,
        "'No space left on device' in PostgreSQL's log": log.count(FULL),
        "of them panics: it could not even write its log": sum(FULL in line and PANIC in line for line in lines),
        "starts of PostgreSQL by its supervisor meanwhile": restarts,
        "calls in vain meanwhile": refused,
        "a hold and a payment again after room was made, s": max(recovery.hold_s or 99.0, recovery.payment_s or 99.0),
        "full and back, s": took,
        "operations": len(history.operations),
        "acknowledged and missing": len([v for v in judged.findings.violations if v.rule.name == "ACKNOWLEDGED"]),
        "facts checked": sum(judged.findings.examined.values()),
        "violations": len(judged.findings.violations),
    }
    result.demand(log.count(FULL) > 0, "the disk was never full")
    result.demand(not recovery.problem, recovery.problem)
    return result


PHASE = Phase(
    "disk",
    "A full disk",
    "PostgreSQL's data lies on a small tmpfs, which is filled to the last byte in the middle of a sale. When there is "
    "room again, the sale goes on and nothing that was acknowledged is missing.",
    1.0,
    run,
)
