"""What the number of shows costs: holds on some of 1,000, 50,000 and 500,000 shows that have claims.

The shows are written into booking's database beside the demo's (``claims.sql``), ten booked seats each: that many can
be filled in a minute or two. Holds are for shows taken at random, so that with many of them each is for another show,
which the process does not have in memory: that is a part of what growth costs.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from rich.table import Table

from bench.holds import METHOD, SEATS, HoldCalls, labels_of
from bench.rounds import Round
from bench.stage import Stage, client_core
from bench.wire import Load

CLAIMS = 10
HOLDS_BEFORE, HOLDS = 500, 3_000
MIB = 2**20
HERE = Path(__file__).parent
TEMPLATE = """
    SELECT show_id, layout_id
    FROM shows
    WHERE NOT cancelled
      AND capacity BETWEEN 100 AND 500
      AND sale_opens < now()
      AND start_time > now()
    LIMIT 1
"""
TABLES = ("shows", "show_versions", "seat_claims")
SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint
    FROM pg_partition_tree(%s)
"""
PLAIN_SIZE = "SELECT pg_total_relation_size(%s)"


@dataclass(frozen=True)
class Filled:
    """What ``shows`` shows with claims cost. ``bytes`` by table, with its indexes."""

    shows: int
    filled_seconds: float
    bytes: dict[str, int]
    round: Round


async def measure(stage: Stage, counts: Iterable[int], say: Callable[[str], None]) -> list[Filled]:
    """Each of ``counts``, which are shows with claims; what one leaves is a part of the next."""
    url = stage.stack.database_url("booking")
    found: list[Filled] = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute(TEMPLATE)).fetchone()
        if row is None:
            raise SystemExit("bench: there is no show to copy; was the demo data loaded?")
        show_id, layout_id = row
        labels = (await labels_of(stage.stack, [layout_id]))[layout_id]
        have, taken = 0, CLAIMS
        for count in sorted(counts):
            seconds = await _fill(connection, show_id, have, count)
            have = count
            free, taken = labels[taken:], taken + SEATS * -(-(HOLDS_BEFORE + HOLDS) // count)
            say(f"{count:,} shows with {CLAIMS} claims each: filled in {seconds:.0f} s")
            found.append(await _measure(stage, connection, free, count, seconds))
            say(f"{count:,} shows: {found[-1].round.line()}")
    return found


def table(found: Sequence[Filled]) -> Table:
    """A row for each number of shows; CPU is a hold's, in microseconds."""
    made = Table(
        *("shows with claims", "claims", "holds/s", "hold p50; p99 ms", "its CPU us: booking; PG"),
        *(f"{name} MiB" for name in TABLES),
        "filled in s",
        title=f"growth with shows, {CLAIMS} claims each, beside the demo's shows",
    )
    for each in found:
        cpu, tail = each.round.spent["hold"], each.round.tail["hold"]
        made.add_row(
            f"{each.shows:,}",
            f"{each.shows * CLAIMS:,}",
            f"{each.round.rates['hold']:,.0f}" + ("*" if "hold" in each.round.void else ""),
            f"{tail[0] * 1e3:.1f}; {tail[1] * 1e3:.1f}",
            f"{cpu.get('booking', 0) * 1e6:,.0f}; {cpu.get('postgres', 0) * 1e6:,.0f}",
            *(f"{each.bytes[name] / MIB:,.0f}" for name in TABLES),
            f"{each.filled_seconds:.0f}",
        )
    void = [f"{each.shows:,} shows: {why}" for each in found for why in each.round.void.values()]
    made.caption = "* void: " + "; ".join(void) if void else None
    return made


async def _fill(connection: psycopg.AsyncConnection, template: uuid.UUID, have: int, want: int) -> float:
    """Add shows up to ``want``; the seconds it took."""
    began = time.perf_counter()
    parameters = {
        "first": f"{have}",
        "last": f"{want - 1}",
        "claims": f"{CLAIMS}",
        "template": f"'{template}'",
    }
    await connection.execute((HERE / "claims.sql").read_text() % parameters)
    await connection.execute("VACUUM ANALYZE shows, show_versions, seat_claims, bench.grown")
    await connection.execute("CHECKPOINT")
    return time.perf_counter() - began


async def _measure(
    stage: Stage, connection: psycopg.AsyncConnection, labels: list[str], count: int, seconds: float
) -> Filled:
    cursor = await connection.execute(
        "SELECT show_id FROM bench.grown ORDER BY random() LIMIT %s", (HOLDS_BEFORE + HOLDS,)
    )
    shows = [(str(row[0]), labels) for row in await cursor.fetchall()]
    calls = HoldCalls(stage.users, shows, crowded=0)
    made, address = Round(), stage.stack.address("booking")
    await stage.fire(Round(), "", Load(address, METHOD, calls.take(HOLDS_BEFORE), core=client_core()))
    await stage.fire(made, "hold", Load(address, METHOD, calls.take(HOLDS), core=client_core()))
    sizes = {}
    for name in TABLES:
        query = SIZE if name == "seat_claims" else PLAIN_SIZE
        row = await (await connection.execute(query, (name,))).fetchone()
        sizes[name] = int(row[0]) if row else 0
    return Filled(count, seconds, sizes, made)
