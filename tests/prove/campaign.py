"""A sale under fire, from the first buyer to the checker's verdict: a minute in a test, longer elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.prove import ledger
from tests.prove.buyers import WEIGHTS, Crowd, Kind
from tests.prove.checker import check
from tests.prove.clients import Record
from tests.prove.evidence import Evidence
from tests.prove.findings import Findings
from tests.prove.gathering import look_at_everything, settled
from tests.prove.ledger import Exercised, Sums
from tests.prove.others import Bot, Staff
from tests.prove.stage import Pace, Stage, open_stage
from tests.prove.trouble import TROUBLES, Probe, ProviderMoods, Recovery, Trouble
from tests.prove.viewers import MapReader, Viewer, watching

SHOWS = 4
VIEWERS_A_SHOW = 2
BOTS = 2
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

    def missed(self, exercised: Exercised) -> list[str]:
        done = asdict(exercised)
        return [f"only {done[name]} {name}, not {goal}" for name, goal in asdict(self).items() if done[name] < goal]


@dataclass(frozen=True)
class Script:
    """What a campaign does.

    Args:
        seed: of everything that is drawn; what the machine does in between it cannot fix.
        rate: buyers a second.
        troubles: happen in turn, each at least once, again and again until the sale is over.
        at_least_s, most_s: how long the sale lasts, between its first buyer and the last new one.
        goals: the sale goes on until so much should have happened.
        patience_s: how long what is open may take to end after the sale.
    """

    seed: int
    rate: float = 9.0
    at_least_s: float = 0.0
    most_s: float = 120.0
    troubles: Sequence[Trouble] = TROUBLES
    goals: Goals = field(default_factory=Goals)
    pace: Pace = field(default_factory=Pace)
    weights: Mapping[Kind, int] = field(default_factory=lambda: WEIGHTS)
    patience_s: float = 100.0
    calm_s: float = 3.0
    seats_a_row: int = 20


@dataclass(frozen=True)
class Campaign:
    """What a sale under fire came to."""

    script: Script
    record: Record
    evidence: Evidence
    findings: Findings
    recoveries: Sequence[Recovery]
    late_viewers: Sequence[str]
    text: str

    @property
    def exercised(self) -> Exercised:
        return ledger.exercised(self.evidence.captures, self.evidence.seen_bookings)

    @property
    def sums(self) -> Sums:
        return ledger.sums(self.evidence.captures, self.evidence.seen_bookings)

    def problems(self) -> list[str]:
        """Everything that is wrong; empty when all is well."""
        return [
            *self.findings.lines(),
            *(recovery.problem for recovery in self.recoveries if recovery.problem),
            *self.late_viewers,
            *(f"an answer that says neither no nor later: {surprise}" for surprise in self.record.surprises[:5]),
            *self.script.goals.missed(self.exercised),
        ]


async def run_campaign(folder: Path, script: Script, *, say: Callable[[str], None] = print) -> Campaign:
    """Sell while each trouble happens, wait until nothing is open, look at everything, and check."""
    began = time.monotonic()
    say(f"\nsale under fire: seed {script.seed}")
    async with open_stage(folder, seed=script.seed, pace=script.pace) as stage:
        for _ in range(SHOWS):
            await stage.put_on_sale(seats=script.seats_a_row)
        probe_show = await stage.put_on_sale(listed=False)
        say(f"stack and {SHOWS} shows after {time.monotonic() - began:.1f} s")
        record = Record()
        record.history.halls = stage.halls
        crowd = Crowd(stage, record, rate=script.rate, weights=script.weights)
        moods, probe = ProviderMoods(stage), Probe(crowd, probe_show)
        viewers = [
            Viewer(stage, record, f"viewer {number}", show.show_id)
            for show in stage.shows
            for number in range(VIEWERS_A_SHOW)
        ]
        recoveries: list[Recovery] = []
        async with watching(viewers):
            await _sell(stage, crowd, moods, probe, viewers, recoveries, script, say)
            settled_s, _ = await settled(stage, patience_s=script.patience_s, calm_s=script.calm_s)
            await look_at_everything(stage, record)
            late_viewers = await _late(viewers)
        took_s, evidence = await settled(stage, patience_s=0.0, calm_s=0.0)
        findings = check(record.history, evidence)
        webhooks = (await stage.books_summary())["webhooks"]
    silent = sum(moods.never_reported(capture.captured_at_ms) for capture in evidence.captures)
    text = _report(crowd, evidence, findings, {"captures never reported": silent, **_named("webhooks: ", webhooks)})
    text += f"\nsettled {settled_s + took_s:.1f} s after the last buyer; {time.monotonic() - began:.1f} s in all"
    say(text)
    return Campaign(script, record, evidence, findings, recoveries, late_viewers, text)


async def _sell(
    stage: Stage,
    crowd: Crowd,
    moods: ProviderMoods,
    probe: Probe,
    viewers: Sequence[Viewer],
    recoveries: list[Recovery],
    script: Script,
    say: Callable[[str], None],
) -> None:
    """Until enough has happened and everybody went home."""
    stop, began = asyncio.Event(), time.monotonic()
    selling = asyncio.create_task(crowd.run(stop))
    others = [
        asyncio.create_task(work)
        for work in (
            moods.run(),
            _restock(stage, script.seats_a_row),
            Staff(stage, crowd.record).run(),
            MapReader(stage, crowd.record).run(),
            *(Bot(stage, crowd.record, f"bot {number}").run() for number in range(BOTS)),
        )
    ]
    try:
        await asyncio.sleep(2.0)
        for number, trouble in enumerate(itertools.cycle(script.troubles)):
            if number >= len(script.troubles) and time.monotonic() - began > script.at_least_s:
                break
            recoveries.append(await probe.recovery(trouble, viewers))
            say(recoveries[-1].line())
            if not script.at_least_s and _enough(crowd, script.goals):
                crowd.rate = script.rate / 3  # a slow machine has been at it for long; keep it from drowning
            await asyncio.sleep(CALM_S)
        while time.monotonic() - began < script.most_s and not _enough(crowd, script.goals):
            await asyncio.sleep(0.5)
    finally:
        stop.set()
        for task in others:
            task.cancel()
        results = await asyncio.gather(*others, return_exceptions=True)
    for result in results:
        if not isinstance(result, asyncio.CancelledError):
            raise RuntimeError("somebody left the sale early") from (result if isinstance(result, Exception) else None)
    await stage.provider_fault()
    await selling
    say(f"sale over after {time.monotonic() - began:.1f} s")


def _enough(crowd: Crowd, goals: Goals) -> bool:
    """Whether enough was begun; one in six may come to nothing."""
    begun = crowd.begun
    late = begun[Kind.PAYS_LATE] + begun[Kind.PAYS_LATE_TO_A_RIVAL] + begun[Kind.PAYS_TWICE_LATE]
    return (
        sum(begun.values()) * 5 > goals.payments * 7
        and late * 5 > goals.late_captures * 7
        and (begun[Kind.PAYS_TWICE] + begun[Kind.PAYS_TWICE_LATE]) * 5 > goals.double_captures * 7
        and begun[Kind.FAILED_THEN_CAPTURED] * 5 > goals.failed_then_captured * 7
    )


async def _restock(stage: Stage, seats_a_row: int) -> None:
    """Put another show on sale when the halls fill; buyers stay away from the full ones."""
    while True:
        await asyncio.sleep(1.0)
        seats = sum(len(show.labels) for show in stage.shows)
        if sum(show.asked for show in stage.shows) > FULL * seats:
            with suppress(Exception):  # PostgreSQL may be away just now
                await stage.put_on_sale(seats=seats_a_row)


async def _late(viewers: Sequence[Viewer]) -> list[str]:
    results = await asyncio.gather(*(viewer.until_current(10) for viewer in viewers), return_exceptions=True)
    return [str(result) for result in results if isinstance(result, BaseException)]


# --- for people -------------------------------------------------------------------------------------------------------


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Two columns for a person."""
    lines = [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in rows]
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value:>12}" for name, value in lines)])


def _named(prefix: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {prefix + name: count for name, count in counts.items()}


def _report(crowd: Crowd, evidence: Evidence, findings: Findings, provider: Mapping[str, int]) -> str:
    """The counts."""
    exercised = ledger.exercised(evidence.captures, evidence.seen_bookings)
    sums = ledger.sums(evidence.captures, evidence.seen_bookings)
    ends = Counter(booking.status.value for booking in evidence.seen_bookings.values())
    steps = Counter(row.cause for show in evidence.shows.values() for row in show.log)
    return "\n".join(
        [
            table("Operations", crowd.record.history.counts().items()),
            table("Exercised, by the provider's books", [*asdict(exercised).items(), *provider.items()]),
            table("Buyers", crowd.begun.most_common()),
            table("How they ended", crowd.ended.most_common()),
            table("Answers that were not OK", crowd.record.codes.most_common()),
            table("Steps of the shows' logs", steps.most_common()),
            table("Bookings in the end", ends.most_common()),
            table("Money, minor units", asdict(sums).items()),
            table("Facts checked", [(rule.name.lower(), count) for rule, count in findings.examined.items()]),
            table("Worth knowing", findings.notes.items()),
            *(["VIOLATIONS", *findings.lines()] if findings.violations else ["no violation"]),
        ]
    )
