"""Valkey by its URL: one server, or the nodes of a cluster and which of them has a key.

``redis://:password@one:7000/0`` is one server. ``redis://:password@one:7000,two:7000,three:7000/0?cluster=true`` names
some nodes of a cluster (Redis Cluster's protocol); the others are learnt from them. Every option of the URL is the
nodes' too.

A single server is a cluster of one, so that whoever uses Valkey is written once. Each node has a client of its own: one
that is down takes neither the others' connections nor their patience. ``docs/decisions/valkey-cluster.md`` says why
this is not ``redis.asyncio.RedisCluster``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import structlog
from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

log = structlog.get_logger()

LOOK_SECONDS = 0.5
"""The least time between two looks at who has which slots."""
LOOK_TIMEOUT_SECONDS = 1.0

Node = TypeVar("Node")


def urls_of(url: str) -> tuple[list[str], bool]:
    """The URLs of the servers that ``url`` names, and whether they are a cluster's.

    Raises:
        ValueError: it names several servers and no cluster.
    """
    parts = urlsplit(url)
    options = parse_qsl(parts.query)
    is_cluster = ("cluster", "true") in options
    rest = urlencode([option for option in options if option[0] != "cluster"])
    login, at, hosts = parts.netloc.rpartition("@")
    servers = [
        urlunsplit((parts.scheme, f"{login}{at}{host}", parts.path, rest, parts.fragment)) for host in hosts.split(",")
    ]
    if len(servers) > 1 and not is_cluster:
        raise ValueError("a URL of several Valkeys needs `?cluster=true`")
    return servers, is_cluster


def url_of_node(like: str, host: str, port: int) -> str:
    """The URL of another server, reached as ``like`` is."""
    parts = urlsplit(like)
    login, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login}{at}{host}:{port}"))


class Nodes(Generic[Node]):
    """What a process has for each node: a client, and whatever goes with it. Use ``open_nodes``.

    Args:
        url: of a server or of a cluster.
        open_node: makes it, from a node's URL; called once for each node, and not to wait.
    """

    def __init__(self, url: str, open_node: Callable[[str], Node]) -> None:
        self._seeds, self.is_cluster = urls_of(url)
        self._open = open_node
        self._nodes: dict[str, Node] = {}
        self._owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._doubted = asyncio.Event()
        self.looked = asyncio.Event()
        """Set after each look at the cluster; whoever waits for one clears it."""
        if not self.is_cluster:
            self._owners = [self._node(self._seeds[0])] * REDIS_CLUSTER_HASH_SLOTS

    def all(self) -> Sequence[Node]:
        """Every node that was ever known."""
        return list(self._nodes.values())

    def of(self, key: str) -> Node | None:
        """The node that has ``key``; None while nobody told."""
        return self._owners[key_slot(key.encode())]

    def doubt(self) -> None:
        """Look anew, soon: a node did not answer, or said that a key is elsewhere."""
        if self.is_cluster:
            self._doubted.set()

    def _node(self, url: str) -> Node:
        if url not in self._nodes:
            self._nodes[url] = self._open(url)
        return self._nodes[url]

    async def look(self) -> bool:
        """Ask the nodes, one after the other, who has which slots; whether one of them told."""
        for url in dict.fromkeys([*self._nodes, *self._seeds]):
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(LOOK_TIMEOUT_SECONDS), Redis.from_url(url, protocol=2) as client:
                    self._read(url, await client.execute_command("CLUSTER SLOTS"))  # type: ignore[no-untyped-call]
                self.looked.set()
                return True
        return False

    def _read(self, asked: str, ranges: Sequence[Any]) -> None:
        """Answers are ``[first slot, last slot, [host, port, id, ...], its replicas ...]``."""
        owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_replicas in ranges:
            # A node that was told no name of its own leaves out the host: it is the one we asked.
            name = host.decode() or str(urlsplit(asked).hostname)
            node = self._node(url_of_node(self._seeds[0], name, port))
            owners[first : last + 1] = [node] * (last - first + 1)
        self._owners = owners

    async def keep_looking(self) -> None:
        """Follow the cluster as it changes."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            if not await self.look():
                self._doubted.set()
                log.debug("valkey_cluster_unknown")
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def open_nodes(url: str, open_node: Callable[[str], Node]) -> AsyncIterator[Nodes[Node]]:
    """The nodes of ``url``, which need not be there yet; who made clients for them closes them."""
    nodes = Nodes(url, open_node)
    if not nodes.is_cluster:
        yield nodes
        return
    if not await nodes.look():
        nodes.doubt()
    looking = asyncio.create_task(nodes.keep_looking())
    try:
        yield nodes
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
