"""PostgreSQL with a streaming replica: real servers, which tests kill, freeze, promote and start again."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from fixtures_stores import PATIENCE_S, running
from psycopg import sql

from local import ports
from local import postgres as cluster
from local.home import Home
from services.kit.migrations import migrate

REPLICA = "replica_1"
TOLD = {"log_statement": "all", "shared_buffers": "64MB", "wal_keep_size": "256MB"}
"""Which server answered a read is seen in its log."""


@dataclass
class Postgres:
    """One server, which may be killed and started again on its port."""

    home: Home
    settings: Mapping[str, str]
    port: int = field(default_factory=ports.pick)
    _running: ExitStack = field(default_factory=ExitStack)
    _process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        return cluster.url(self.home, self.port, database)

    def start(self) -> None:
        cluster.end_leftover(self.home)
        self._process = self._running.enter_context(
            running(
                cluster.server_argv(self.home, self.port, self.settings),
                self.home.log,
                lambda: psycopg.connect(self.url("postgres")).close(),
                cluster.account(),
                cluster.STOP_AT_ONCE,
            )
        )

    def stop(self) -> None:
        self._running.close()

    def kill(self) -> None:
        """kill -9 of the server with all its processes at once, as a machine that loses its power."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        for process in (server, *server.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._running.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """None of its processes runs while the block lasts; connections stay open."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        processes = (server, *server.children(recursive=True))
        try:
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)

    def sql(self, statement: str, *parameters: Any, database: str = "postgres") -> list[Any]:
        """The first column of what it answers."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return [row[0] for row in cursor.fetchall()] if cursor.description else []

    def statements(self, text: str) -> int:
        """How many statements with ``text`` in them it was sent."""
        return (self.home.log / "server.log").read_bytes().count(text.encode())


@dataclass
class Pair:
    """A primary and its replica."""

    primary: Postgres
    replica: Postgres
    _names: list[str] = field(default_factory=list)

    def migrated(self, service: str) -> str:
        """The name of a new database with the service's tables, on both."""
        name = f"{service}_{len(self._names) + 1}"
        self._names.append(name)
        with psycopg.connect(self.primary.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        migrate(service, self.primary.url(name))
        self.catch_up()
        return name

    def url(self, database: str) -> str:
        """Of whichever of the two takes writes."""
        login = self.primary.url(database).rpartition("@")[0]
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.replica.port}"
        return f"{login}@{hosts}/{database}?target_session_attrs=read-write"

    def catch_up(self) -> None:
        """Wait until the replica has all that the primary wrote so far."""
        (end,) = self.primary.sql("SELECT pg_current_wal_insert_lsn()")
        wait_for(lambda: self.replica.sql("SELECT pg_last_wal_replay_lsn() >= %s", end) == [True], "the replica lags")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The replica gets the log and does not replay it while the block lasts."""
        self.replica.sql("SELECT pg_wal_replay_pause()")
        wait_for(lambda: self.replica.sql("SELECT pg_get_wal_replay_pause_state()") == ["paused"], "it did not pause")
        try:
            yield
        finally:
            self.replica.sql("SELECT pg_wal_replay_resume()")


def wait_for(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.02)


@contextmanager
def replicated(
    folder: Path, primary_settings: Mapping[str, str], replica_settings: Mapping[str, str]
) -> Iterator[Pair]:
    """A primary with a replica that follows it."""
    homes = Home(folder / "primary"), Home(folder / "replica")
    try:
        for home in homes:
            home.make()
        cluster.make_cluster(homes[0])
        primary, replica = Postgres(homes[0], primary_settings), Postgres(homes[1], replica_settings)
        try:
            primary.start()
            cluster.make_replica(homes[1], homes[0], primary.port, REPLICA)
            replica.start()
            yield Pair(primary, replica)
        finally:
            replica.stop()
            primary.stop()
    finally:
        for home in homes:
            with suppress(OSError):
                home.wipe()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """An asynchronous replica, for a module's tests."""
    with replicated(tmp_path_factory.mktemp("pair"), TOLD, TOLD) as made:
        yield made
