"""How cost grows: with the seats of a show, with shows that have claims, with viewers. Each size is measured once."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from bench import growth_seats, growth_shows, machine, streams_long
from bench.findings import table
from bench.stage import open_stage
from bench.streams import ENVIRONMENT


async def run(seats: Sequence[int], shows: Sequence[int], viewers: Sequence[int]) -> None:
    """Measure each of these sizes, each kind in a stack of its own; none of a kind leaves it out."""
    console = Console(width=170)
    console.print(f"machine: {machine.describe()}")
    if seats:
        async with open_stage() as stage:
            console.print(growth_seats.table(await growth_seats.measure(stage, seats, console.print)))
    if shows:
        async with open_stage() as stage:
            console.print(growth_shows.table(await growth_shows.measure(stage, shows, console.print)))
    if viewers:
        async with open_stage(ENVIRONMENT) as stage:
            console.print(table(await streams_long.growth(stage, viewers), "viewers of one show"))
    console.print(f"machine: {machine.describe()}")
