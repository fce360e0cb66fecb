"""Trying the demo data alone: ``python -m local.demo --database-url postgresql://... [--seed 50000]``."""

from __future__ import annotations

import asyncio
import time
from datetime import date
from typing import Annotated

import typer

from local.demo import load, seed_shows


def main(
    database_url: Annotated[str, typer.Option(help="the catalogue's database, migrated")],
    today: Annotated[str, typer.Option(help="the first day with shows, 2026-11-22; now when empty")] = "",
    seed: Annotated[int, typer.Option(help="make a day of so many load-test shows instead")] = 0,
) -> None:
    """Load the demo data."""
    began = time.monotonic()
    day = date.fromisoformat(today) if today else None
    if seed:
        print(asyncio.run(seed_shows(database_url, seed, day=day)))
    else:
        print(asyncio.run(load(database_url, today=day)))
    print(f"{time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    typer.run(main)
