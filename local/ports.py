"""Ports: which are free, who has one that is not, and the ones this stack chose before."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from local import files
from local.trouble import Trouble

CHOICE = range(*map(int, os.environ.get("MARQUEE_PORTS", "20000-32000").split("-")))
"""Tests that run side by side have ranges of their own, so that none takes what another one has just found free.

Below the range from which Linux takes the near end of outgoing connections (32768 on): such a connection must not sit
on the port of a part that is just being restarted."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def pick(taken: Iterable[int] = ()) -> int:
    """A free port that is not among ``taken``."""
    avoid = set(taken)
    for _ in range(1000):
        port = random.choice(CHOICE)  # noqa: S311  # two stacks that start at once should not try the same ones
        if port not in avoid and is_free(port):
            return port
    raise Trouble(f"no free port between {CHOICE.start} and {CHOICE.stop}; end what listens on them (see `ss -tlnp`).")


def choose(names: Iterable[str], remembered: Path) -> dict[str, int]:
    """A port for each name: last time's where it is still free, so that bookmarks and open tools go on working."""
    before: dict[str, int] = {}
    if remembered.exists():
        try:
            before = json.loads(remembered.read_text())
        except ValueError:
            before = {}  # a disk that was full once; nothing depends on the old numbers
    chosen = dict(before)
    for name in names:
        if name not in before or not is_free(before[name]):
            chosen[name] = pick(chosen.values())
    if chosen != before:
        files.replace(remembered, json.dumps(chosen, indent=1).encode())
    return chosen


def holder(port: int) -> str | None:
    """Who listens on ``port``, as ``name (process 123)``, if this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return None
    return None


def demand(port: int) -> None:
    """Refuse to go on when the edge's port is taken."""
    if is_free(port) and is_free(port, "0.0.0.0"):  # noqa: S104  # asks about all interfaces, listens on none
        return
    if port < 1024:
        raise Trouble(f"port {port} is taken, or only root may use it; choose another: `EDGE_PORT=8081 make run`.")
    who = holder(port)
    raise Trouble(
        f"port {port} is taken by {who or 'another process'}; stop it, or choose another port: "
        f"`EDGE_PORT={pick() if port == 8081 else 8081} make run`."
    )
