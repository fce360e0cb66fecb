"""The real PostgreSQL and Valkey for a session of tests, started with the code that starts them for `make run`.

Each is one server for the whole session, up in about a second. PostgreSQL's does not sync to disk; tests that pull
plugs start a `local.stack.Stack` of their own.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql

from local import ports, valkey
from local import postgres as cluster
from local.home import Home
from local.part import Account
from local.process import account_options, before_exec
from services.kit.migrations import migrate

PATIENCE_S = 20
DatabaseFactory = Callable[[str], str]


@dataclass(frozen=True)
class Server:
    """PostgreSQL while the session lasts."""

    home: Home
    port: int

    def url(self, database: str) -> str:
        return cluster.url(self.home, self.port, database)


@contextmanager
def running(
    argv: tuple[str, ...],
    cwd: Path,
    ready: Callable[[], object],
    account: Account | None = None,
    stop: signal.Signals = signal.SIGKILL,
) -> Iterator[subprocess.Popen[bytes]]:
    """The process while the block lasts; it dies with the test run, however that ends.

    ``stop`` must be one that the program handles or none can ignore: a run in a shell's background ignores some.
    """
    log = cwd / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=before_exec(stop),
            **account_options(account),
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                ready()
                break
            except (psycopg.OperationalError, redis.RedisError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{argv[0]} did not start:\n{log.read_text()}") from None
                time.sleep(0.02)
        yield process
    finally:
        process.send_signal(stop)
        process.wait(PATIENCE_S)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One PostgreSQL for the session; ask for `database_url` to get a database."""
    home = Home(tmp_path_factory.mktemp("postgres"))
    home.make()
    try:
        cluster.make_cluster(home)
        server = Server(home, ports.pick())
        argv = cluster.server_argv(home, server.port, cluster.HASTY)
        account = cluster.account()
        with running(
            argv,
            home.log,
            lambda: psycopg.connect(server.url("postgres")).close(),
            account,
            cluster.STOP_AT_ONCE,
        ):
            yield server
    finally:
        with suppress(OSError):
            home.wipe()


@pytest.fixture(scope="session")
def database_url(postgres: Server) -> DatabaseFactory:
    """``database_url("booking")`` makes an empty database of its own, each time, and answers its URL."""
    numbers = itertools.count(1)

    def create(name: str, template: str = "template0") -> str:
        database = f"{name}_{next(numbers)}"
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(database), sql.Identifier(template)
                )
            )
        return postgres.url(database)

    return create


@pytest.fixture(scope="session")
def migrated_database_url(postgres: Server, database_url: Callable[..., str]) -> DatabaseFactory:
    """``migrated_database_url("booking")`` makes a database with the service's tables: migrated once, then copied."""
    templates: dict[str, str] = {}

    def create(service: str) -> str:
        if service not in templates:
            url = database_url(f"{service}_template")
            migrate(service, url)
            templates[service] = url.rpartition("/")[2]
        return str(database_url(service, templates[service]))

    return create


@contextmanager
def valkey_server(home: Home, name: str, settings: tuple[str, ...]) -> Iterator[str]:
    home.make()
    port = ports.pick()
    argv = valkey.server_argv(home, name, port, settings)
    url = valkey.url(home, name, port)

    def ready() -> None:
        with redis.Redis.from_url(url) as client:
            client.ping()

    with running(argv, valkey.folder(home, name), ready):
        yield url


@pytest.fixture(scope="session")
def valkey_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey set up as the cache; a test that wants it empty flushes it."""
    with valkey_server(Home(tmp_path_factory.mktemp("cache")), "cache", valkey.CACHE) as url:
        yield url


@pytest.fixture(scope="session")
def valkey_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey set up as the bus; a test that wants it empty flushes it."""
    with valkey_server(Home(tmp_path_factory.mktemp("bus")), "bus", valkey.BUS) as url:
        yield url
