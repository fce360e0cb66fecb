"""The fixture ``stage`` for the tests of events; import ``staged`` where it is used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from event_stage import Stage, make_stage


@pytest.fixture(name="stage")
def staged(database_url: Callable[[str], str], valkey_bus: str) -> Stage:
    return make_stage(database_url, valkey_bus)
