"""Sells in a copy of the project in which a bug was planted, and sees the history checker find it.

The copy runs its own code: ``python -m tests.prove.hunt NUMBER SEED ANSWER.json`` there does one sale and writes what
the checker found.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutants.__main__ import LEFT_OUT, Copy
from tests.mutants.mutations import ROOT
from tests.prove.campaign import run_campaign
from tests.prove.plants import AFTER_COMMITS, PLANTS, Plant, hasty_script

LONGEST_SALE_S = 180.0
"""After it a sale is taken as stuck."""
WITHOUT = -1
"""The number of the sale without any bug."""


@dataclass(frozen=True)
class Catch:
    """What became of one planted bug.

    Args:
        found: how often each rule was broken.
        first: the first violation of a rule that should find it.
    """

    name: str
    caught: bool
    sales: int
    seconds: float
    operations: int
    found: dict[str, int]
    first: str


@contextmanager
def copy_of_the_project() -> Iterator[Copy]:
    """A copy to plant in; gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="marquee-plants-") as folder:
        copy = Copy(Path(folder).resolve() / "marquee")
        shutil.copytree(ROOT, copy.root, ignore=LEFT_OUT, symlinks=True)
        if not copy.is_used():
            raise RuntimeError("the sale would import the original instead of its copy")
        yield copy


def hunt(copy: Copy, plant: Plant, *, seed: int, minutes: float, say: Callable[[str], None]) -> Catch:
    """Sell with ``plant`` in the copy, again and again, until the checker finds it or its minutes are over."""
    originals = {each.file: (copy.root / each.file).read_text() for each in plant.edits}
    for each in plant.edits:
        each.apply(copy.root)
    began, sales, operations, found, first = time.monotonic(), 0, 0, dict[str, int](), ""
    try:
        while not first and time.monotonic() - began < minutes * 60:
            sales += 1
            answer = sell(copy, PLANTS.index(plant), seed + sales)
            operations += answer["operations"]
            found = {rule: len(lines) for rule, lines in answer["violations"].items()}
            first = next((answer["violations"][rule.name][0] for rule in plant.found_by if rule.name in found), "")
    finally:
        for file, text in originals.items():
            (copy.root / file).write_text(text)
    catch = Catch(plant.name, bool(first), sales, time.monotonic() - began, operations, found, first)
    say(f"{'caught' if catch.caught else 'MISSED':<7} {plant.name} ({catch.seconds:.0f} s, {operations:,} operations)")
    say(f"        {first or found}")
    return catch


def sell(copy: Copy, number: int, seed: int) -> dict[str, Any]:
    """One sale in the copy; what the checker found there.

    Raises:
        RuntimeError: it did not come to an end.
    """
    answer = copy.root / "answer.json"
    answer.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.prove.hunt", str(number), str(seed), str(answer)],
        cwd=copy.root,
        env=copy.environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST_SALE_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"a sale with plant {number} broke:\n{(done.stdout + done.stderr)[-3000:]}")
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


async def _sell_here(number: int, seed: int, folder: Path) -> str:
    script = hasty_script(seed, AFTER_COMMITS) if number == WITHOUT else PLANTS[number].script(seed)
    campaign = await run_campaign(folder, script)
    violations: dict[str, list[str]] = {}
    for each in campaign.judged.findings.violations:
        violations.setdefault(each.rule.name, []).append(each.what)
    return json.dumps({"operations": len(campaign.judged.record.history.operations), "violations": violations})


if __name__ == "__main__":
    answer_file = Path(sys.argv[3])
    answer_file.write_text(asyncio.run(_sell_here(int(sys.argv[1]), int(sys.argv[2]), answer_file.parent / "sale")))
