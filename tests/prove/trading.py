"""Everybody at once: buyers, staff, bots and readers of maps, while something is done to Marquee.

async with trading(sale):
    ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.prove.others import Bot, Staff, Successors
from tests.prove.sale import Sale
from tests.prove.trouble import ProviderMoods
from tests.prove.viewers import MapReader

BOTS = 2
SUCCESSIONS = 3
FULL = 0.75
"""Part of a hall that buyers asked for, after which another show goes on sale."""


@asynccontextmanager
async def trading(sale: Sale, *, moods: ProviderMoods | None = None) -> AsyncIterator[None]:
    """People trade while the block lasts; at its end every buyer goes home, and the provider errs no more.

    Raises:
        RuntimeError: somebody of the staff, the bots or the readers failed in a way that nobody foresaw.
    """
    stage, crowd = sale.stage, sale.crowd
    stop = asyncio.Event()
    unwatched = await sale.one_more_show(listed=False)
    selling = asyncio.create_task(crowd.run(stop))
    others = [
        asyncio.create_task(work)
        for work in (
            *([moods.run()] if moods else []),
            _restock(sale),
            Staff(stage, sale.record).run(),
            MapReader(stage, sale.record).run(),
            *(Bot(stage, sale.record, f"bot {number}").run() for number in range(BOTS)),
            *(Successors(stage, sale.record, unwatched, label).run() for label in unwatched.labels[:SUCCESSIONS]),
        )
    ]
    try:
        yield
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


async def _restock(sale: Sale) -> None:
    """Put another show on sale when the halls fill; buyers stay away from the full ones. For ever; cancel it."""
    while True:
        await asyncio.sleep(1.0)
        seats = sum(len(show.labels) for show in sale.stage.shows)
        if sum(show.asked for show in sale.stage.shows) > FULL * seats:
            with suppress(Exception):  # PostgreSQL may be away just now
                await sale.one_more_show()
