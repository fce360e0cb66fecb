"""Fixtures that every test may ask for."""

from fixtures_stores import (
    database_url,
    migrated_database_url,
    postgres,
    valkey_bus,
    valkey_cache,
)

__all__ = ["database_url", "migrated_database_url", "postgres", "valkey_bus", "valkey_cache"]
