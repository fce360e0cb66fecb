"""``make bench``: what the product's parts cost, each against its floor, in turn, in one run.

The stack is the shipped one (fsync on, validation, both token checks, limits evaluated with wide buckets), in a
temporary folder of its own. A round measures each figure and its floor next to each other; what is quoted is the median
of the rounds' ratios. A round with an error, or with a generator near its own limit, is void and says so.
"""

from __future__ import annotations

import asyncio

import typer
from rich.console import Console

from bench import bookings, calls, confirms, machine, streams_long
from bench.rounds import Round, report
from bench.stage import open_stage


async def _run(rounds: int, count: int) -> None:
    console = Console(width=140)
    console.print(f"machine: {machine.describe()}")
    async with open_stage() as stage:
        subjects = (
            await calls.Calls.of(stage, count),
            confirms.Confirmations(stage, count // 2),
            await bookings.Bookings.of(stage, count // 5),
        )
        made: list[Round] = []
        for number in range(rounds + 1):
            one = Round()
            for subject in subjects:
                one.update(await subject.round())
            console.print(f"round {number}: {one.line()}" if number else f"warm-up: {one.line()}")
            if number:
                made.append(one)
        report(console, made, (*calls.RATIOS, *confirms.RATIOS))


def main(
    subject: str = typer.Argument("core", help="core, or streams: pushes, lateness, a restart (some minutes)"),
    rounds: int = typer.Option(5, help="measured rounds, after one to warm up"),
    count: int = typer.Option(5_000, help="calls of each kind in a round"),
) -> None:
    """Measure holds, the edge and confirmations, or the live streams, against their floors."""
    if subject not in ("core", "streams"):
        raise typer.BadParameter("must be core or streams", param_hint="subject")
    asyncio.run(streams_long.run(rounds, count) if subject == "streams" else _run(rounds, count))


if __name__ == "__main__":
    typer.run(main)
