"""A sale under fire, from the first buyer to the verdict: a minute in a test, as long as is asked elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faults_buyers import Crowd
from faults_stage import Stage, open_stage
from faults_trouble import TROUBLES, Probe, ProviderMoods, Recovery, Trouble
from faults_verdict import Verdict, report, settled_verdict, table
from faults_viewers import Viewer, watching

SHOWS = 4
VIEWERS_A_SHOW = 2
CALM_S = 1.5
"""Between the recovery from one fault and the next."""
FULL = 0.75
"""Part of a hall that buyers asked for, after which another show goes on sale."""


@dataclass(frozen=True)
class Goals:
    """How much must have happened for the result to mean something."""

    payments: int = 300
    late_captures: int = 30
    double_captures: int = 30
    failed_then_captured: int = 30


@dataclass(frozen=True)
class Campaign:
    """What a sale under fire came to."""

    seed: int
    recoveries: Sequence[Recovery]
    verdict: Verdict
    viewers_wrong: list[str]
    surprises: list[str]
    text: str


async def run_campaign(
    folder: Path,
    *,
    seed: int,
    rate: float = 9.0,
    rounds: int = 1,
    at_least_s: float = 0.0,
    troubles: Sequence[Trouble] = TROUBLES,
    goals: Goals | None = None,
    most_s: float = 120.0,
    say: Callable[[str], None] = print,
) -> Campaign:
    """Sell at about ``rate`` buyers a second while each of ``troubles`` happens ``rounds`` times, then judge.

    The sale goes on until ``at_least_s`` have passed and so many buyers were sent that ``goals`` should be reached, at
    most ``most_s`` seconds.
    """
    began = time.monotonic()
    say(f"\nfaults: seed {seed}")
    async with open_stage(folder, seed=seed, poll_longest_s=16.0 * rounds) as stage:
        for _ in range(SHOWS):
            await stage.put_on_sale()
        probe_show = await stage.put_on_sale()
        stage.shows.remove(probe_show)
        say(f"stack and {SHOWS} shows after {time.monotonic() - began:.1f} s")
        crowd, moods = Crowd(stage, rate=rate), ProviderMoods(stage)
        probe = Probe(crowd, probe_show)
        viewers = [Viewer(stage, show.show_id) for show in stage.shows for _ in range(VIEWERS_A_SHOW)]
        stop = asyncio.Event()
        recoveries: list[Recovery] = []
        async with watching(viewers):
            selling = asyncio.create_task(crowd.run(stop))
            grumbling = asyncio.create_task(moods.run())
            restocking = asyncio.create_task(_restock(stage))
            sale_began = time.monotonic()
            try:
                await asyncio.sleep(2.0)
                for _ in range(rounds):
                    for trouble in troubles:
                        recoveries.append(await probe.recovery(trouble, viewers))
                        say(_line(recoveries[-1]))
                        if rounds == 1 and _enough(crowd, goals or Goals()):
                            crowd.rate = rate / 3  # a slow machine has been at it for long; keep it from drowning
                        await asyncio.sleep(CALM_S)
                while time.monotonic() - sale_began < most_s and (
                    time.monotonic() - sale_began < at_least_s or not _enough(crowd, goals or Goals())
                ):
                    await asyncio.sleep(0.5)
            finally:
                stop.set()
                for task in (grumbling, restocking):
                    task.cancel()
                await asyncio.gather(grumbling, restocking, return_exceptions=True)
            await stage.provider_fault()
            await selling
            say(f"sale over after {time.monotonic() - sale_began:.1f} s")
            stage.shows.append(probe_show)
            verdict = await settled_verdict(crowd)
            viewers_wrong = await _viewers_wrong(viewers)
        summary = await stage.ledger_summary()
        counts = Counter({f"webhooks: {name}": count for name, count in summary["webhooks"].items()})
        never_reported = sum(moods.never_reported(capture.captured_at_ms) for capture in verdict.captures)
        text = "\n".join(
            [
                report(verdict, crowd, never_reported, counts),
                table("Viewers' connections", [("in all", sum(viewer.connections for viewer in viewers))]),
                f"seed {seed}, {time.monotonic() - began:.1f} s in all",
            ]
        )
        say(text)
        return Campaign(seed, recoveries, verdict, viewers_wrong, stage.surprises, text)


def _enough(crowd: Crowd, goals: Goals) -> bool:
    """Whether enough was begun; one in six may come to nothing."""
    begun = crowd.diary.begun
    late = sum(count for kind, count in begun.items() if "after the window" in kind and "reported" not in kind)
    double = sum(count for kind, count in begun.items() if kind.startswith("pays twice"))
    failed = sum(count for kind, count in begun.items() if "captured after all" in kind)
    return (
        sum(begun.values()) * 5 > goals.payments * 7
        and late * 5 > goals.late_captures * 7
        and double * 5 > goals.double_captures * 7
        and failed * 5 > goals.failed_then_captured * 7
    )


async def _restock(stage: Stage) -> None:
    """Put another show on sale when the halls fill; buyers stay away from the full ones."""
    while True:
        await asyncio.sleep(1.0)
        seats = sum(len(show.labels) for show in stage.shows)
        if sum(show.asked for show in stage.shows) > FULL * seats:
            with suppress(Exception):  # PostgreSQL may be away just now
                await stage.put_on_sale()


async def _viewers_wrong(viewers: Sequence[Viewer]) -> list[str]:
    results = await asyncio.gather(*(viewer.until_right(10) for viewer in viewers), return_exceptions=True)
    return [str(result) for result in results if isinstance(result, BaseException)]


def _line(recovery: Recovery) -> str:
    def seconds(value: float | None) -> str:
        return "   -  " if value is None else f"{value:5.1f}s"

    viewers = f"  viewers right {seconds(recovery.viewers_s)}" if recovery.viewers_s or recovery.viewers_problem else ""
    return (
        f"{recovery.name:<42} hold {seconds(recovery.hold_s)}  payment {seconds(recovery.payment_s)}"
        f"  confirmed {seconds(recovery.confirmed_s)}{viewers}"
    )
