"""The cache and the notices on a Redis Cluster of three Valkeys: nodes die, slots move, and nobody notices for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from booking_fixtures import keys
from booking_house import House, booking_house
from fixtures_cluster import Cluster, Node
from fixtures_stores import DatabaseFactory
from service_harness import TestKeys
from test_booking_watch import Viewer, truth, watching

from services.booking.live_maps import channel_of
from services.kit.caches import MOVIE, TOMBSTONE, open_caches, shelf_key
from services.kit.valkey import urls_of

__all__ = ["keys"]
NEVER = 3600.0


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


# --- notices ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_processes(
    url: str, cache_url: str, keys: TestKeys, *, poll_seconds: float
) -> AsyncIterator[tuple[House, House]]:
    """One that sells and one that shows; the second polls as told."""
    async with (
        booking_house(url, cache_url, keys, most_holds_an_hour=10_000) as selling,
        booking_house(url, cache_url, keys, sweep=False, poll_seconds=poll_seconds) as showing,
    ):
        yield selling, showing


def is_heard(node: Node, show_id: UUID) -> bool:
    """Whether somebody listens to the show's channel at this node."""
    return bool(node("PUBSUB", "SHARDNUMSUB", channel_of(show_id))[1])


async def hold_and_see(selling: House, viewer: Viewer, seat: str) -> None:
    await selling.hold(uuid4(), viewer.show_id, seat)
    version, states = await truth(selling, viewer.show_id)
    await until(lambda: viewer.version == version)
    assert viewer.seen() == states


async def test_viewers_follow_another_process_through_every_node(
    migrated_database_url: DatabaseFactory, valkey_cluster: Cluster, keys: TestKeys
) -> None:
    """Nobody polls here: what is seen came through the cluster, also after a node was restarted or a slot moved."""
    url = migrated_database_url("booking")
    async with two_processes(url, valkey_cluster.url, keys, poll_seconds=NEVER) as (selling, showing):
        viewers: dict[Node, Viewer] = {}
        while len(viewers) < len(valkey_cluster.nodes):
            show_id = await selling.add_show()
            viewers.setdefault(valkey_cluster.owner(channel_of(show_id)), Viewer(showing, show_id))
        async with watching(*viewers.values()):
            for node, viewer in viewers.items():
                await until(lambda node=node, viewer=viewer: is_heard(node, viewer.show_id))
                await hold_and_see(selling, viewer, "A1")

            node, viewer = next(iter(viewers.items()))
            node.kill()
            node.start()
            await asyncio.to_thread(valkey_cluster.agree)
            await until(lambda: is_heard(node, viewer.show_id))
            for each in viewers.values():
                await hold_and_see(selling, each, "A2")

            new = await asyncio.to_thread(valkey_cluster.move, channel_of(viewer.show_id))
            await until(lambda: is_heard(new, viewer.show_id))
            for each in viewers.values():
                await hold_and_see(selling, each, "A3")
            assert [viewer.gaps for viewer in viewers.values()] == [0] * len(viewers)


async def test_what_a_dead_node_does_not_tell_the_poll_repairs(
    migrated_database_url: DatabaseFactory, valkey_cluster: Cluster, keys: TestKeys
) -> None:
    url = migrated_database_url("booking")
    async with two_processes(url, valkey_cluster.url, keys, poll_seconds=0.3) as (selling, showing):
        show_id = await selling.add_show()
        viewer = Viewer(showing, show_id)
        node = valkey_cluster.owner(channel_of(show_id))
        async with watching(viewer):
            await hold_and_see(selling, viewer, "A1")
            node.kill()
            for seat in ("A2", "A3", "A4"):
                await hold_and_see(selling, viewer, seat)
            node.start()
            await until(lambda: is_heard(node, show_id))
            await hold_and_see(selling, viewer, "A5")


# --- caches -----------------------------------------------------------------------------------------------------------


def stored(cluster: Cluster, key: str) -> bytes | None:
    value = cluster.owner(name_of(key))("GET", name_of(key))
    return value if isinstance(value, bytes) else None


def name_of(key: str) -> str:
    return shelf_key(f"{MOVIE.name}:{key}")


class Source:
    """Where values come from; counts how often it is asked."""

    def __init__(self) -> None:
        self.version = 1
        self.loads = 0

    async def __call__(self) -> bytes | None:
        self.loads += 1
        return f"version {self.version}".encode()


async def test_what_is_cached_is_spread_over_the_nodes_and_forgotten_on_all(valkey_cluster: Cluster) -> None:
    films = [str(number) for number in range(60)]
    source = Source()
    async with open_caches(valkey_cluster.url) as one, open_caches(valkey_cluster.url) as other:
        for film in films:
            await one.get(MOVIE, film, source)
        assert all(node("DBSIZE") > 0 for node in valkey_cluster.nodes)
        for film in films:
            assert await other.get(MOVIE, film, source) == b"version 1"
        assert source.loads == len(films)
        source.version = 2
        await one.forget(MOVIE, films)
        assert {stored(valkey_cluster, film) for film in films} == {TOMBSTONE}
        for film in films:
            assert await one.get(MOVIE, film, source) == b"version 2"


async def test_a_moved_slot_keeps_what_is_cached(valkey_cluster: Cluster) -> None:
    source = Source()
    async with open_caches(valkey_cluster.url) as caches:
        await caches.get(MOVIE, "moves", source)
        await caches.get(MOVIE, "stays", source)
        await asyncio.to_thread(valkey_cluster.move, name_of("moves"))
        assert stored(valkey_cluster, "moves") == b"version 1"
        await caches.forget(MOVIE, ["moves"])  # refused by the old node, and owed until it is done
        await until(lambda: stored(valkey_cluster, "moves") == TOMBSTONE)
        assert stored(valkey_cluster, "stays") == b"version 1"


async def test_a_dead_node_takes_no_other_with_it(valkey_cluster: Cluster) -> None:
    films = [str(number) for number in range(60)]
    source = Source()
    async with open_caches(valkey_cluster.url) as caches:
        for film in films:
            await caches.get(MOVIE, film, source)
    dead = valkey_cluster.nodes[0]
    lost = [film for film in films if valkey_cluster.owner(name_of(film)) is dead]
    left = [film for film in films if film not in lost]
    assert lost
    dead.kill()
    survivors = Cluster(valkey_cluster.nodes[1:])
    async with open_caches(valkey_cluster.url) as caches:
        source.loads, source.version = 0, 2
        for film in films:
            assert await caches.get(MOVIE, film, source) == (b"version 2" if film in lost else b"version 1")
        assert source.loads == len(lost)
        await caches.forget(MOVIE, films)
        assert {stored(survivors, film) for film in left} == {TOMBSTONE}
        dead.start()
        await asyncio.to_thread(valkey_cluster.agree)
        await until(lambda: {stored(valkey_cluster, film) for film in lost} == {TOMBSTONE})


# --- addresses --------------------------------------------------------------------------------------------------------


def test_a_url_names_one_server_or_a_cluster() -> None:
    assert urls_of("redis://:secret@one:7000/0") == (["redis://:secret@one:7000/0"], False)
    assert urls_of("rediss://me:secret@one:7000,two:7001/0?cluster=true&ssl_cert_reqs=none") == (
        ["rediss://me:secret@one:7000/0?ssl_cert_reqs=none", "rediss://me:secret@two:7001/0?ssl_cert_reqs=none"],
        True,
    )
    with pytest.raises(ValueError, match="cluster=true"):
        urls_of("redis://one:7000,two:7001/0")
