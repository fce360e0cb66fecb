"""10,000 runs of state machines, two processes at a time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence

import psycopg

from local.home import CHECKOUT
from local.postgres import HASTY
from local.stack import Stack
from tests.prove.machines import MACHINES, STEPS_A_RUN
from tests.prove.phases import Context, Phase, Result

SPLIT = (("seats", 1000), ("seats", 1000), ("seats", 1000), ("seats", 1000), ("till", 2000), ("paying", 2000),
         ("live", 2000))  # fmt: skip
"""(machine, runs). Each process has a database of its own: one process's sweeps would end the others' holds."""
AT_ONCE = 2
DISAGREEMENTS = ("AssertionError", "hypothesis.errors.Flaky")
"""How the lines begin that say what was wrong, among many of where."""


def copies(stack: Stack, numbers: Sequence[int]) -> dict[int, str]:
    """The URLs of as many copies of booking's database, which nobody uses yet."""
    with psycopg.connect(stack.database_url("postgres"), autocommit=True) as connection:
        for number in numbers:
            connection.execute(f"CREATE DATABASE machine_{number} TEMPLATE booking".encode())
    return {number: stack.database_url(f"machine_{number}") for number in numbers}


async def run(context: Context) -> Result:
    result = Result()
    stack = Stack(context.folder, parts={"databases"}, postgres_settings=HASTY)
    room = asyncio.Semaphore(AT_ONCE)
    try:
        async with stack:
            databases = copies(stack, [number for number, (name, _) in enumerate(SPLIT) if name == "seats"])

            async def one(number: int, name: str, runs: int) -> tuple[str, int, bytes, bytes]:
                async with room:
                    process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", "tests.prove.machines", name, str(runs), str(context.seed + number)),
                        *([databases[number]] if number in databases else []),
                        cwd=CHECKOUT,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                    )
                    try:
                        out, err = await process.communicate()
                    finally:
                        if process.returncode is None:
                            process.kill()
                    return name, process.returncode or 0, out, err

            ended = await asyncio.gather(*(one(number, *each) for number, each in enumerate(SPLIT)))
    finally:
        stack.home.wipe()
    totals = {name: [0, 0] for name in MACHINES}
    reached: dict[str, int] = {}
    for name, code, out, err in ended:
        if code != 0:
            said = (out + err).decode()
            why = [line for line in said.splitlines() if line.startswith(DISAGREEMENTS)]
            result.problems.append("\n".join([f"{name} disagrees with its model:", *why, said[-3000:]]))
            continue
        ran = json.loads(out)
        totals[name][0] += ran["runs"]
        totals[name][1] += ran["steps"]
        for what, count in ran["reached"].items():
            reached[what] = reached.get(what, 0) + count
    runs = sum(each[0] for each in totals.values())
    result.figures["runs in all"] = runs
    result.figures["steps in all"] = sum(each[1] for each in totals.values())
    for name, (count, steps) in totals.items():
        result.figures[f"{name}: runs of up to {STEPS_A_RUN} steps"] = count
        result.figures[f"{name}: steps"] = steps
    result.figures |= {f"seats reached: {what}": count for what, count in sorted(reached.items())}
    result.demand(runs >= 10_000 or bool(result.problems), f"only {runs} runs")
    for what in ("takeovers", "captures: late, CONFIRMED", "captures: late, LATE", "captures: DUPLICATE", "repeats"):
        result.demand(reached.get(what, 0) >= 10, f"only {reached.get(what, 0)} {what} were reached")
    return result


PHASE = Phase(
    "machines",
    "State machines",
    "Booking's and payment's pure rules, the live map, and booking's store functions on a real PostgreSQL do what "
    "small models say, whatever is asked in whatever order (hypothesis): `till` and `paying` are the rules of the two "
    "`domain.py`, `live` is the live map, `seats` the store.",
    3.0,
    run,
)
