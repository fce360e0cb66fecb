"""The session's stores, as other tests meet them."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import redis


def test_each_database_is_fresh_and_its_own(database_url: Callable[[str], str]) -> None:
    first, second = database_url("booking"), database_url("booking")
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE shows (id int)")
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('shows')").fetchone() == (None,)


def test_the_bus_forgets_nothing_and_the_cache_may(valkey_cache: str, valkey_bus: str) -> None:
    bus, cache = redis.Redis.from_url(valkey_bus), redis.Redis.from_url(valkey_cache)
    assert bus.config_get("appendfsync") == {"appendfsync": "always"}
    assert bus.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert cache.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
    assert cache.config_get("appendonly") == {"appendonly": "no"}
