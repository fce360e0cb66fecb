"""The state machines, some dozens of runs each; `make prove` runs them thousands of times."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.prove.machine_seats import open_seats
from tests.prove.machines import MACHINES, run_machine

RUNS = 40


@pytest.mark.parametrize("name", [name for name in MACHINES if name != "seats"])
def test_the_pure_rules_follow_their_model(name: str) -> None:
    assert run_machine(MACHINES[name], runs=RUNS, seed=1).steps > RUNS


def test_bookings_store_follows_its_model(migrated_database_url: Callable[[str], str]) -> None:
    with open_seats(migrated_database_url("booking")):
        assert run_machine(MACHINES["seats"], runs=RUNS, seed=1).steps > RUNS
