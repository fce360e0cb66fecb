"""The plans of all statements on the large tables, as PostgreSQL carried them out: few rows, one partition.

A show lives its whole life in a database with weeks of sales, and the relay carries its events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from booking_fixtures import keys
from booking_house import booking_house
from booking_plans import Life, Statement, explain_everything, fill, statements
from event_stage import Stage, relay, until
from fixtures_stores import DatabaseFactory, Server
from service_harness import TestKeys

from services.booking.partitions import ALL
from services.kit.ids import new_show_id
from services.kit.outbox import OUTBOX_TABLES

__all__ = ["keys"]
TODAY = datetime.now(UTC).date()
LARGE = 500
"""Rows that nothing may read from end to end."""
SHOWS_TABLES = {each.table for each in ALL}
EVENT_TABLES = {each.table for each in OUTBOX_TABLES}

ALL_DUE = "WHERE r.holding AND r.expires_at <= clock_timestamp()"
"""The sweeper does not know whose time is over: it asks a small index of each partition (of holds that hold)."""


class Log:
    """What a server's log says from now on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = file.stat().st_size

    def more(self) -> str:
        """What was added since one last asked."""
        with self._file.open() as opened:
            opened.seek(self._read)
            text = opened.read()
            self._read = opened.tell()
        return text


@dataclass(frozen=True)
class Plans:
    """What was carried out, each partition's table, and how many rows each relation has."""

    statements: Sequence[Statement]
    table_of: dict[str, str]
    rows: dict[str, int]

    def partitions(self, statement: Statement, table: str) -> set[str]:
        return {relation for relation in statement.relations if self.table_of.get(relation) == table}


@pytest_asyncio.fixture(scope="module")
async def plans(
    postgres: Server,
    migrated_database_url: DatabaseFactory,
    valkey_cache: str,
    valkey_bus: str,
    keys: TestKeys,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Plans]:
    url = migrated_database_url("booking")
    fill(url, [new_show_id(TODAY + timedelta(days=7 * week), 7) for week in range(4) for _ in range(12)])
    explain_everything(url)
    log = Log(postgres.home.log / "server.log")
    async with booking_house(url, valkey_cache, keys, sweep=False) as house:
        await Life(house).live()
    text = log.more()
    stage = Stage(url, url, valkey_bus)
    stage.bus.flushall()
    with relay(stage, tmp_path_factory.mktemp("relay") / "log"):
        for number in range(1, 6):
            stage.happen("seen", "k", "happens while the relay looks")
            until(lambda number=number: len(stage.on_bus("seen")) == number)
            if number == 2:
                log.more()  # a new leader looks at everything once, and a new bus gets the last day
    seen = list(statements(text + log.more(), url))
    with psycopg.connect(url) as connection:
        table_of = dict(
            connection.execute("SELECT inhrelid::regclass::text, inhparent::regclass::text FROM pg_inherits").fetchall()
        )
        rows = dict(connection.execute("SELECT relid::regclass::text, n_live_tup FROM pg_stat_user_tables").fetchall())
    yield Plans(seen, table_of, rows)


def test_everything_that_writes_and_reads_was_carried_out(plans: Plans) -> None:
    done = {
        (statement.operation, plans.table_of.get(relation, relation))
        for statement in plans.statements
        for relation in statement.relations
    }
    for table, operations in {
        "seat_claims": ("Select", "Insert", "Update", "Delete"),
        "show_log": ("Select", "Insert"),
        "reservations": ("Select", "Insert", "Update"),
        "bookings": ("Select", "Insert", "Update"),
        "booking_items": ("Insert",),
        "captures": ("Select", "Insert"),
        "requests": ("Select", "Insert"),
        "outbox": ("Select", "Insert"),
        "outbox_sent": ("Select", "Insert"),
    }.items():
        assert {operation for operation, touched in done if touched == table} >= set(operations), table


def test_nothing_large_is_read_from_end_to_end(plans: Plans) -> None:
    assert {
        (node["Relation Name"], statement.text)
        for statement in plans.statements
        for node in statement.nodes
        if node.get("Node Type") == "Seq Scan" and plans.rows.get(node["Relation Name"], 0) >= LARGE
    } == set()
    assert sum(rows >= LARGE for rows in plans.rows.values()) >= 20, "there is too little to choose plans for"


def test_a_statement_opens_one_partition_of_a_table(plans: Plans) -> None:
    opened = {
        (statement.text, table): plans.partitions(statement, table)
        for statement in plans.statements
        for table in SHOWS_TABLES
    }
    several = {text for (text, _), partitions in opened.items() if len(partitions) > 1}
    assert len([text for text in several if ALL_DUE in text]) == 1
    assert {text for text in several if ALL_DUE not in text} == set()


def test_the_sweeper_finds_what_is_due_in_an_index_of_what_holds(plans: Plans) -> None:
    looks = [statement for statement in plans.statements if ALL_DUE in statement.text]
    assert looks
    for look in looks:
        scans = [node for node in look.nodes if "Index Name" in node]
        assert {node["Relation Name"] for node in scans} == {
            relation for relation, table in plans.table_of.items() if table == "reservations"
        }
        assert all(node["Index Name"].endswith(("_due", "expires_at_idx")) for node in scans)


def test_the_relay_leaves_the_days_alone_that_it_is_done_with(plans: Plans) -> None:
    looks = [
        plans.partitions(statement, "outbox") | plans.partitions(statement, "outbox_sent")
        for statement in plans.statements
        if "FROM outbox WHERE id >=" in statement.text
    ]
    assert len(looks) >= 3
    done_with = tuple(f"_{TODAY - timedelta(days=days):%Y%m%d}" for days in (1, 2))
    assert {relation for look in looks for relation in look if relation.endswith(done_with)} == set()
