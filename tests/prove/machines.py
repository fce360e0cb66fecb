"""Runs state machines: ``python -m tests.prove.machines NAME RUNS SEED [DATABASE_URL]`` prints what it did as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as with_seed
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.prove.machine_live import LiveMaps
from tests.prove.machine_payment import Paying
from tests.prove.machine_seats import Seats, open_seats
from tests.prove.machine_till import Till

STEPS_A_RUN = 20
MACHINES: Mapping[str, type[RuleBasedStateMachine]] = {
    "till": Till,
    "paying": Paying,
    "live": LiveMaps,
    "seats": Seats,
}


@dataclass(frozen=True)
class Ran:
    """How often a machine ran without a disagreement, of how many steps in all."""

    name: str
    seed: int
    runs: int
    steps: int
    seconds: float
    reached: Mapping[str, int]


def run_machine(machine: type[RuleBasedStateMachine], *, runs: int, seed: int) -> Ran:
    """Run a machine ``runs`` times from ``seed``.

    Raises:
        AssertionError: the code and its model disagree; hypothesis has printed the shortest steps that show it.
    """
    counts = {"runs": 0, "steps": 0}

    class Counted(machine):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            counts["runs"] += 1

        def check_invariants(self, *args: Any, **kwargs: Any) -> None:
            counts["steps"] += 1
            super().check_invariants(*args, **kwargs)

    Counted.__name__ = Counted.__qualname__ = machine.__name__
    began = time.monotonic()
    run_state_machine_as_test(
        with_seed(seed)(Counted),
        settings=settings(
            max_examples=runs,
            stateful_step_count=STEPS_A_RUN,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    reached = dict(sorted(Seats.reached.items())) if machine is Seats else {}
    # Some runs more were begun, and given up because too much was drawn in them: they count as none.
    done = min(counts["runs"], runs)
    return Ran(machine.__name__, seed, done, counts["steps"], time.monotonic() - began, reached)


def main(name: str, runs: str, number: str, url: str = "") -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with open_seats(url) if name == "seats" else nullcontext():
        ran = run_machine(MACHINES[name], runs=int(runs), seed=int(number))
    sys.stdout.write(json.dumps(asdict(ran)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
