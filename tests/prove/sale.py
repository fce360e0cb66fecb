"""A sale that is judged at its end: a stage, halls, viewers, the record of everybody, and the checker's verdict.

async with open_sale(folder, seed=7) as sale:
    ...                             # people do things, and things are done to Marquee
    judged = await sale.judge()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.prove import ledger
from tests.prove.buyers import WEIGHTS, Crowd, Kind
from tests.prove.checker import check
from tests.prove.clients import Record
from tests.prove.evidence import Evidence
from tests.prove.findings import Findings
from tests.prove.gathering import gather, look_at_everything, settled
from tests.prove.ledger import Exercised, Sums
from tests.prove.stage import Pace, ShowOnSale, Stage, open_stage
from tests.prove.viewers import Viewer, watching

VIEWERS_A_SHOW = 2


@dataclass(frozen=True)
class Hall:
    """How large the halls are, and how many go on sale at the beginning."""

    shows: int = 4
    rows: int = 20
    seats_a_row: int = 20


@dataclass(frozen=True)
class Judged:
    """What the checker says of a sale, and what it was told.

    Args:
        settled_s: how long after the last buyer nothing was open any more.
        late_viewers: viewers that were still behind ten seconds after the end.
    """

    record: Record
    evidence: Evidence
    findings: Findings
    settled_s: float
    late_viewers: Sequence[str]

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
            *self.late_viewers,
            *(f"an answer that says neither no nor later: {surprise}" for surprise in self.record.surprises[:5]),
        ]


@dataclass
class Sale:
    """What goes on."""

    stage: Stage
    record: Record
    crowd: Crowd
    viewers: Sequence[Viewer]
    hall: Hall

    async def one_more_show(self, *, listed: bool = True) -> ShowOnSale:
        return await self.stage.put_on_sale(rows=self.hall.rows, seats=self.hall.seats_a_row, listed=listed)

    async def judge(self, *, patience_s: float = 100.0, calm_s: float = 3.0, refusal_lag_s: float = 0.0) -> Judged:
        """Wait until nothing is open, let everybody look at everything once more, and check.

        Args:
            patience_s: what is still open after it is a violation.
            calm_s: waited on top, for what comes once too often.
            refusal_lag_s: how old may be what a process knows when it refuses seats by itself; 0 with one process.
        """
        settled_s = await settled(self.stage, patience_s=patience_s, calm_s=calm_s)
        await look_at_everything(self.stage, self.record)
        behind = await asyncio.gather(*(viewer.until_current(10) for viewer in self.viewers), return_exceptions=True)
        evidence = await gather(self.stage)
        findings = check(self.record.history, evidence, refusal_lag_s=refusal_lag_s)
        late = [str(each) for each in behind if isinstance(each, BaseException)]
        return Judged(self.record, evidence, findings, settled_s, late)


@asynccontextmanager
async def open_sale(
    folder: Path,
    *,
    seed: int,
    pace: Pace | None = None,
    hall: Hall | None = None,
    rate: float = 9.0,
    weights: Mapping[Kind, int] = WEIGHTS,
    viewers_a_show: int = VIEWERS_A_SHOW,
    **stack: Any,
) -> AsyncIterator[Sale]:
    """A stack of its own with shows on sale and viewers before them; gone when the block ends.

    ``stack`` is what `open_stage` takes besides.
    """
    hall = hall or Hall()
    async with open_stage(folder, seed=seed, pace=pace, **stack) as stage:
        record = Record()
        record.history.halls = stage.halls
        crowd = Crowd(stage, record, rate=rate, weights=weights)
        sale = Sale(stage, record, crowd, (), hall)
        for _ in range(hall.shows):
            await sale.one_more_show()
        sale.viewers = [
            Viewer(stage, record, f"viewer {number}", show.show_id)
            for show in stage.shows
            for number in range(viewers_a_show)
        ]
        async with watching(sale.viewers):
            yield sale
