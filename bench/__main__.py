"""``make bench``: what the product's parts cost, each against its floor, in turn, in one run.

The stack is the shipped one (fsync on, validation, both token checks, limits evaluated with wide buckets), in a
temporary folder of its own. A round measures each figure and its floor next to each other; what is quoted is the median
of the rounds' ratios. A round with an error, or with a generator near its own limit, is void and says so.

``python -m bench --help`` lists the other subjects, which take longer.
"""

from __future__ import annotations

import asyncio

import typer
from rich.console import Console

from bench import bookings, calls, confirms, growth, machine, overload, streams_long
from bench import sustained as sustained_sale
from bench.rounds import Round, report
from bench.stage import open_stage

app = typer.Typer(add_completion=False)
ROUNDS = typer.Option(5, help="measured rounds, after one to warm up")
CALLS = typer.Option(3_000, help="calls of each kind in a round; half as many confirmations, a fifth as many bookings")


@app.callback(invoke_without_command=True)
def main(context: typer.Context, rounds: int = ROUNDS, count: int = CALLS) -> None:
    """What the product's parts cost, each against its floor. Without a subject: core, with these options."""
    if context.invoked_subcommand is None:
        core(rounds, count)


@app.command()
def core(rounds: int = ROUNDS, count: int = CALLS) -> None:
    """Holds, the edge, refusals, confirmations, whole bookings: ratios, rates, CPU by part (5 minutes)."""
    asyncio.run(_core(rounds, count))


@app.command()
def streams(
    rounds: int = typer.Option(5, help="measured rounds against the raw loop"),
    count: int = typer.Option(5_000, help="streams"),
) -> None:
    """Live streams: pushes and memory against a raw loop, growth with viewers, lateness, a restart (15 minutes)."""
    asyncio.run(streams_long.run(rounds, count))


@app.command()
def sustained(
    minutes: float = typer.Option(10.0, help="how long is sold"),
    rate: float = typer.Option(sustained_sale.PROMISED_A_SECOND, help="buyers who come a second"),
    fast: bool = typer.Option(False, "--fast", help="as many buyers as it can serve, instead of a rate"),
    edge: bool = typer.Option(False, "--edge", help="buyers come through Envoy, not to the services themselves"),
) -> None:
    """Whole bookings at a steady rate, with seat maps read beside: rate, p99 of each step, memory (12 minutes)."""
    asyncio.run(sustained_sale.run(minutes, None if fast else rate, by_edge=edge))


@app.command("growth")
def grow(
    seats: str = typer.Option("100,500,5000,50000", help="seats a show, each measured; empty leaves them out"),
    shows: str = typer.Option("1000,50000,500000", help="shows with claims"),
    viewers: str = typer.Option("100,500,1000,2000,5000", help="viewers of one show"),
) -> None:
    """How cost grows with the seats of a show, with shows that have claims, and with viewers (10 minutes)."""
    asyncio.run(growth.run(_numbers(seats), _numbers(shows), _numbers(viewers)))


@app.command("overload")
def overloaded(minutes: float = typer.Option(3.0, help="of overload")) -> None:
    """Three times more holds than there is room for: what is still done, and how soon it is over (5 minutes)."""
    asyncio.run(overload.run(minutes))


async def _core(rounds: int, count: int) -> None:
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
        report(console, made, (*calls.RATIOS, *confirms.RATIOS, *bookings.RATIOS))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number.strip()]


if __name__ == "__main__":
    app(prog_name="python -m bench")
