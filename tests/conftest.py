"""Fixtures that every test may ask for."""

import os
from pathlib import Path

import pytest

# Before the first `import grpc`: stacks fork while tests have channels open, and gRPC's handlers crash such children.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    first = 20_000 + int(worker.removeprefix("gw")) % 6 * 2_000
    os.environ["MARQUEE_PORTS"] = f"{first}-{first + 2_000}"  # before the first `import local.ports`

from fixtures_cluster import valkey_cluster
from fixtures_replicas import pair
from fixtures_stores import (
    database_url,
    migrated_database_url,
    postgres,
    valkey_bus,
    valkey_cache,
)

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests stay together when several processes share them out: those of a file, as they share its stores; all
    end-to-end ones, as they share a whole stack."""
    for item in items:
        place = item.path.relative_to(HERE)
        item.add_marker(pytest.mark.xdist_group("e2e" if place.parts[0] == "e2e" else str(place)))


__all__ = [
    "database_url",
    "migrated_database_url",
    "pair",
    "postgres",
    "valkey_bus",
    "valkey_cache",
    "valkey_cluster",
]
