"""What viewers notice: how late a change is, what many of them cost, and how long a restart keeps them away."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence

import psutil  # type: ignore[import-untyped]
import psycopg
from rich.console import Console

from bench import machine
from bench.findings import Finding, table
from bench.rounds import report
from bench.stage import Stage, client_core, open_stage
from bench.streams import ENVIRONMENT, RATIOS, Streams, booking_pid, resident, restarted
from bench.streams_changes import changing, shows_to_watch
from bench.streams_crowd import Audience
from bench.streams_viewers import Known, Step, open_viewers

CROWDS = (100, 500, 1_000, 2_000, 5_000)
LATE_VIEWERS = 2_000
STALLED_WINDOW = 512
"""Bytes that a viewer who stalls takes in all: a snapshot and some deltas."""
RESTART_SHOWS = 5
SETTLE_SECONDS = 3.0
MIB = 2**20


async def run(rounds: int, count: int) -> None:
    """Rounds of ``count`` streams against the raw loop, and all of this page."""
    console = Console(width=160)
    console.print(f"machine: {machine.describe()}")
    async with open_stage(ENVIRONMENT) as stage:
        streams, made = await Streams.of(stage, count), []
        for number in range(rounds):
            made.append(await streams.round())
            console.print(f"round {number + 1}: {made[-1].line()}")
        report(console, made, RATIOS)
        console.print(table(await growth(stage), "streams"))
        found = [*await commit_to_viewer(stage, LATE_VIEWERS), *await restart(stage, count)]
        console.print(table(found, "streams"))
    console.print(f"machine: {machine.describe()}")


async def growth(stage: Stage, crowds: Sequence[int] = CROWDS) -> list[Finding]:
    """What a push and a stream cost as viewers get more, each crowd before a service that was started anew."""
    found = []
    for count in crowds:
        pushed = await (await Streams.of(stage, count)).product(count)
        figure = (
            f"{pushed.a_second:,.0f} pushes/s, {pushed.server_cpu * 1e6:.0f} us of CPU a push,"
            f" {pushed.memory / 1024:.0f} KiB a stream, all open in {pushed.opened_in:.1f} s"
        )
        found.append(Finding(f"{count:,} viewers", f"{figure} ({pushed.wrong})" if pushed.wrong else figure))
    return found


async def commit_to_viewer(
    stage: Stage, viewers: int, *, a_second: float = 5.0, seconds: float = 20.0
) -> list[Finding]:
    """From a change's time in the log to its arrival at each viewer of the show, on one clock.

    The log's time is taken under the show's lock, before the commit, so what is measured is too long by the commit.
    """
    await restarted(stage)
    shows = await shows_to_watch(stage, 1)
    async with open_viewers(client_core()) as crowd:
        await crowd.add(Audience(stage.stack.address("booking"), [shows[0].show_id], stage.users, viewers))
        async with changing(stage, shows, a_second) as changes:
            await asyncio.sleep(SETTLE_SECONDS)
            await crowd.forget_times()
            await asyncio.sleep(seconds)
        await asyncio.sleep(1)
        steps, counted = await crowd.steps(), await crowd.count()
    late = sorted(await _lateness(stage, steps))
    if not late:
        raise SystemExit("bench: no viewer saw a change")
    p50, p99 = (late[int(share * (len(late) - 1))] for share in (0.5, 0.99))
    seen = f"{len(late):,} arrivals, {counted.gaps} gaps, {changes.failed} failed changes"
    holds = sorted(changes.seconds)
    return [
        Finding(f"{viewers:,} viewers, {a_second:g} changes/s: commit to viewer, p50", f"{p50 * 1e3:.0f} ms ({seen})"),
        Finding("the same, p99", f"{p99 * 1e3:.0f} ms", "<= 400 ms", p99 <= 0.4 and counted.gaps == 0),
        Finding("a change's call meanwhile, p50", f"{statistics.median(holds) * 1e3:.0f} ms"),
        Finding("the same, longest", f"{holds[-1] * 1e3:.0f} ms"),
    ]


async def _lateness(stage: Stage, steps: Sequence[Step]) -> list[float]:
    """Seconds from each change to each viewer's getting it."""
    show_ids = {step.show_id for step in steps}
    made_at: dict[tuple[str, int], float] = {}
    async with await psycopg.AsyncConnection.connect(stage.stack.database_url("booking")) as connection:
        cursor = await connection.execute(
            "SELECT show_id, version, extract(epoch FROM at)::float8 FROM show_log WHERE show_id = ANY (%s::uuid[])",
            (list(show_ids),),
        )
        async for show_id, version, at in cursor:
            made_at[str(show_id), version] = at
    return [
        reached - made_at[step.show_id, version]
        for step in steps
        for version in range(step.since + 1, step.version + 1)
        for reached in step.reached
    ]


async def restart(stage: Stage, streams: int, *, stalled: float = 0.1, a_second: float = 5.0) -> list[Finding]:
    """The service is told to stop, as by an orchestrator, and started again, while seats change.

    Viewers come back with what they know, within 0.3 s of their stream's end, and as often until they are served.
    """
    await restarted(stage)
    shows = await shows_to_watch(stage, RESTART_SHOWS)
    show_ids, address = [show.show_id for show in shows], stage.stack.address("booking")
    slow = int(streams * stalled)
    healthy = Audience(address, show_ids, stage.users, streams - slow, returning=True)
    async with open_viewers(client_core()) as crowd:
        await crowd.add(healthy)
        await crowd.add(Audience(address, show_ids, stage.users, slow, connections=2, window=STALLED_WINDOW))
        async with changing(stage, shows, a_second) as changes:
            await asyncio.sleep(30)  # until those who stall take nothing more
            before, counted = resident(booking_pid(stage)), await crowd.count()
            asked = time.time()
            async with asyncio.TaskGroup() as meanwhile:
                restarting = meanwhile.create_task(_stopped_and_ready(stage))
                absences = await crowd.all_back(counted.lost + healthy.count)
            await asyncio.sleep(SETTLE_SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
        known, after = await crowd.known(), await crowd.count()
        right = await _right(stage, known)
        memory = resident(booking_pid(stage))
    stopped, ready = restarting.result()
    ended, last = max(lost for lost, _ in absences), max(back for _, back in absences)
    away = sorted(back - lost for lost, back in absences)
    return [
        Finding(
            f"{streams:,} streams of {RESTART_SHOWS} shows, {slow} of them stalled, restart:"
            " from the signal until the last one was back",
            f"{last - asked:.1f} s (streams ended by {ended - asked:.1f} s, the process by {stopped - asked:.1f} s,"
            f" the next one was ready at {ready - asked:.1f} s)",
            "<= 10 s",
            last - asked <= 10,
        ),
        Finding(
            "away, from a stream's end to the next one's first message, p50 and longest",
            f"{away[len(away) // 2]:.1f} s, {away[-1]:.1f} s",
        ),
        Finding(
            "viewers whose map is PostgreSQL's afterwards",
            f"{right:,} of {healthy.count:,} ({after.gaps} gaps, {len(changes.seconds)} changes,"
            f" {after.refused} refused tries)",
            "all",
            right == healthy.count and after.gaps == 0,
        ),
        Finding(
            "the service's memory with stalled viewers, before; after", f"{before / MIB:.0f}; {memory / MIB:.0f} MiB"
        ),
    ]


async def _stopped_and_ready(stage: Stage) -> tuple[float, float]:
    """Restart the service: when it had stopped, and when it was ready again (Unix seconds)."""
    old = booking_pid(stage)
    starting = asyncio.create_task(restarted(stage))
    await asyncio.to_thread(_until_gone, old)
    stopped = time.time()
    await starting
    return stopped, time.time()


def _until_gone(pid: int) -> None:
    while psutil.pid_exists(pid):
        time.sleep(0.02)


async def _right(stage: Stage, known: Sequence[Known]) -> int:
    """How many viewers know exactly PostgreSQL's version and claims."""
    right = 0
    async with await psycopg.AsyncConnection.connect(stage.stack.database_url("booking")) as connection:
        for each in known:
            cursor = await connection.execute(
                """
                SELECT v.version, c.seat_no, c.status
                FROM show_versions v
                LEFT JOIN seat_claims c ON c.show_id = v.show_id
                WHERE v.show_id = %s::uuid
                """,
                (each.show_id,),
            )
            rows = await cursor.fetchall()
            seats = {seat_no: status for _, seat_no, status in rows if seat_no is not None}
            if (each.version, each.seats) == (rows[0][0], seats):
                right += each.viewers
    return right
