"""Fixtures that every test may ask for."""

import os

# Before the first `import grpc`: stacks fork while tests have channels open, and gRPC's handlers crash such children.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from fixtures_cluster import valkey_cluster
from fixtures_replicas import pair
from fixtures_stores import (
    database_url,
    migrated_database_url,
    postgres,
    valkey_bus,
    valkey_cache,
)

__all__ = [
    "database_url",
    "migrated_database_url",
    "pair",
    "postgres",
    "valkey_bus",
    "valkey_cache",
    "valkey_cluster",
]
