"""A Redis Cluster of three Valkeys, whose nodes can be killed and whose slots can be moved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from fixtures_stores import PATIENCE_S, running
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from local import files, ports, valkey
from local.home import Home

NODES = 3


class Node:
    """One Valkey of a cluster."""

    def __init__(self, home: Home, name: str) -> None:
        self.port = ports.pick()
        self.bus_port = ports.pick([self.port])
        self.url = valkey.url(home, name, self.port)
        secret = (home.keys / f"{name}.password").read_text().strip()
        settings = (*valkey.NODE, f"cluster-port {self.bus_port}", f"primaryauth {secret}")
        self._argv = valkey.server_argv(home, name, self.port, settings)
        self._folder = valkey.folder(home, name)
        self._process = ExitStack()

    def start(self) -> None:
        self._process.enter_context(running(self._argv, self._folder, lambda: self("PING")))

    def kill(self) -> None:
        """kill -9. It knows its slots again when it is started, and none of their content."""
        self._process.close()

    def __call__(self, *command: str | int) -> Any:
        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*command)

    def info(self) -> str:
        return str(self("CLUSTER", "INFO").decode())

    def slots(self) -> list[tuple[int, int, int]]:
        """(first, last, port of the node that has them), as this node knows."""
        return sorted((each[0], each[1], each[2][1]) for each in self("CLUSTER", "SLOTS"))


class Cluster:
    """The nodes, each with a third of the slots to begin with. ``url`` names two of them."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        seeds = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:2])
        login = nodes[0].url.rpartition("@")[0]
        self.url = f"{login}@{seeds}/0?cluster=true"

    def form(self) -> None:
        for number, node in enumerate(self.nodes):
            first, end = (REDIS_CLUSTER_HASH_SLOTS * each // len(self.nodes) for each in (number, number + 1))
            node("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            node("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0]("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        self.agree()

    def agree(self) -> None:
        """Wait until every node says that all is well, and the same of who has which slots."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._agrees():
            assert time.monotonic() < deadline, f"the cluster did not form: {[node.info() for node in self.nodes]}"
            time.sleep(0.05)

    def _agrees(self) -> bool:
        slots = [node.slots() for node in self.nodes]
        return (
            all("cluster_state:ok" in node.info() for node in self.nodes)
            and all(each == slots[0] for each in slots)
            and {port for _, _, port in slots[0]} == {node.port for node in self.nodes}
        )

    def owner(self, key: str) -> Node:
        slot = key_slot(key.encode())
        for first, last, port in self.nodes[0].slots():
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def move(self, key: str) -> Node:
        """Move the slot of ``key``, with all that is in it, to the next node; answers that."""
        slot, old = key_slot(key.encode()), self.owner(key)
        new = self.nodes[(self.nodes.index(old) + 1) % len(self.nodes)]
        old("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", new("CLUSTER", "MYID").decode())
        deadline = time.monotonic() + PATIENCE_S
        while self.owner(key) is not new:
            assert time.monotonic() < deadline, f"slot {slot} did not move"
            time.sleep(0.05)
        self.agree()
        return new


@pytest.fixture
def valkey_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes set up as the cache, with one password."""
    home = Home(tmp_path / "cluster")
    home.make()
    names = [f"node{number}" for number in range(1, NODES + 1)]
    secret = files.secret(home.keys / f"{names[0]}.password")
    for name in names[1:]:
        files.replace(home.keys / f"{name}.password", secret.encode(), 0o600)
    nodes = [Node(home, name) for name in names]
    try:
        for node in nodes:
            node.start()
        cluster = Cluster(nodes)
        cluster.form()
        yield cluster
    finally:
        for node in nodes:
            node.kill()
