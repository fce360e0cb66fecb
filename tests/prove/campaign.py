"""A sale under fire, from the first buyer to the checker's verdict: a minute in a test, longer elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.prove.buyers import Crowd, Kind
from tests.prove.ledger import Exercised
from tests.prove.sale import Hall, Judged, Sale, open_sale
from tests.prove.stage import Pace
from tests.prove.trading import trading
from tests.prove.trouble import TROUBLES, Probe, ProviderMoods, Recovery, Trouble

CALM_S = 1.5
"""Between the recovery from one fault and the next."""


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
    hall: Hall = field(default_factory=Hall)
    patience_s: float = 100.0
    calm_s: float = 3.0


@dataclass(frozen=True)
class Campaign:
    """What a sale under fire came to."""

    script: Script
    judged: Judged
    recoveries: Sequence[Recovery]
    text: str

    def problems(self) -> list[str]:
        """Everything that is wrong; empty when all is well."""
        return [
            *self.judged.problems(),
            *(recovery.problem for recovery in self.recoveries if recovery.problem),
            *self.script.goals.missed(self.judged.exercised),
        ]


async def run_campaign(folder: Path, script: Script, *, say: Callable[[str], None] = print) -> Campaign:
    """Sell while each trouble happens, wait until nothing is open, look at everything, and check."""
    began = time.monotonic()
    say(f"\nsale under fire: seed {script.seed}")
    async with open_sale(folder, seed=script.seed, pace=script.pace, hall=script.hall, rate=script.rate) as sale:
        probe = Probe(sale.crowd, await sale.one_more_show(listed=False))
        say(f"stack and {script.hall.shows} shows after {time.monotonic() - began:.1f} s")
        moods = ProviderMoods(sale.stage)
        recoveries: list[Recovery] = []
        await _sell(sale, moods, probe, recoveries, script, say)
        judged = await sale.judge(patience_s=script.patience_s, calm_s=script.calm_s)
        webhooks = (await sale.stage.books_summary())["webhooks"]
    silent = sum(moods.never_reported(capture.captured_at_ms) for capture in judged.evidence.captures)
    provider = {"captures never reported": silent, **{f"webhooks: {name}": n for name, n in webhooks.items()}}
    text = report(judged, provider, sale.crowd) + f"\n{time.monotonic() - began:.1f} s in all"
    say(text)
    return Campaign(script, judged, recoveries, text)


async def _sell(
    sale: Sale,
    moods: ProviderMoods,
    probe: Probe,
    recoveries: list[Recovery],
    script: Script,
    say: Callable[[str], None],
) -> None:
    """Until enough has happened and everybody went home."""
    crowd, began = sale.crowd, time.monotonic()
    async with trading(sale, moods=moods):
        await asyncio.sleep(2.0)
        for number, trouble in enumerate(itertools.cycle(script.troubles)):
            if number >= len(script.troubles) and time.monotonic() - began > script.at_least_s:
                break
            recoveries.append(await probe.recovery(trouble, sale.viewers))
            say(recoveries[-1].line())
            if not script.at_least_s and _enough(crowd, script.goals):
                crowd.rate = script.rate / 3  # a slow machine has been at it for long; keep it from drowning
            await asyncio.sleep(CALM_S)
        while time.monotonic() - began < script.most_s and not _enough(crowd, script.goals):
            await asyncio.sleep(0.5)
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


# --- for people -------------------------------------------------------------------------------------------------------


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Two columns for a person."""
    lines = [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in rows]
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value:>12}" for name, value in lines)])


def report(judged: Judged, provider: Mapping[str, int], crowd: Crowd) -> str:
    """The counts."""
    evidence, findings = judged.evidence, judged.findings
    ends = Counter(booking.status.value for booking in evidence.seen_bookings.values())
    steps = Counter(row.cause for show in evidence.shows.values() for row in show.log)
    return "\n".join(
        [
            table("Operations", judged.record.history.counts().items()),
            table("Exercised, by the provider's books", [*asdict(judged.exercised).items(), *provider.items()]),
            table("Buyers", crowd.begun.most_common()),
            table("How they ended", crowd.ended.most_common()),
            table("Answers that were not OK", judged.record.codes.most_common()),
            table("Steps of the shows' logs", steps.most_common()),
            table("Bookings in the end", ends.most_common()),
            table("Money, minor units", asdict(judged.sums).items()),
            table("Facts checked", [(rule.name.lower(), count) for rule, count in findings.examined.items()]),
            table("Worth knowing", findings.notes.items()),
            *(["VIOLATIONS", *findings.lines()] if findings.violations else ["no violation"]),
            f"settled {judged.settled_s:.1f} s after the last buyer",
        ]
    )
