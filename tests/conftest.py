"""Fixtures that every test may ask for."""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

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


class ByFile(LoadFileScheduling):
    """Which tests stay together when several processes share them out: those of a file, as they share its stores; all
    end-to-end ones, as they share a whole stack."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/e2e" if file.startswith("tests/e2e/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


__all__ = [
    "database_url",
    "migrated_database_url",
    "pair",
    "postgres",
    "valkey_bus",
    "valkey_cache",
    "valkey_cluster",
]
