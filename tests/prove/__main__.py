"""The proof: ``python -m tests.prove``, or ``make prove``. What is done is remembered, not done again unless asked."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from local.home import CHECKOUT
from tests.prove import (
    machine,
    phase_disk,
    phase_frozen,
    phase_holds_end,
    phase_links,
    phase_machines,
    phase_money,
    phase_plants,
    phase_relay,
    phase_sale,
    phase_stores,
    report,
)
from tests.prove.phases import Context, Done, Memory, Phase, Result, digest_of_the_code, shares

STATE = CHECKOUT / ".prove"
REPORT = STATE / "report.md"
PHASES: Sequence[Phase] = (
    phase_sale.PHASE,
    phase_money.PHASE,
    phase_holds_end.PHASE,
    phase_relay.PHASE,
    phase_frozen.PHASE,
    phase_links.PHASE,
    phase_stores.PHASE,
    phase_disk.PHASE,
    phase_plants.PHASE,
    phase_machines.PHASE,
)
LEAST_LEFT = 0.5
"""Part of its share that must be left of the time for a phase to begin."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def chosen(words: argparse.Namespace) -> list[Phase]:
    """The phases that were asked for, in their order."""
    known = {phase.name for phase in PHASES}
    for word in [*words.only, *(word for word in words.again if word != "all")]:
        if word not in known:
            sys.exit(f"there is no part {word!r}; there are {', '.join(phase.name for phase in PHASES)}")
    return [phase for phase in PHASES if not words.only or phase.name in words.only]


async def run_phase(phase: Phase, *, seed: int, minutes: float, memory: Memory) -> Done:
    """One phase, in a folder of its own that is gone afterwards; what breaks it is a problem like any other."""
    folder = memory.folder / f"{phase.name}.running"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began, clock = datetime.now(UTC), time.monotonic()
    try:
        result = await phase.run(Context(seed, minutes, folder, say))
    except Exception as error:
        say(traceback.format_exc())
        result = Result(problems=[f"it broke: {type(error).__name__}: {error}"[:2000]])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - clock
    return Done(phase.name, seed, f"{began:%Y-%m-%d %H:%M} UTC", seconds, machine.commit(), result)


def command(seed: int, minutes: float) -> str:
    return f"make prove PROVE_MINUTES={minutes:g} PROVE_SEED={seed} PROVE_AGAIN=all"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="time to use; phases that count need what they need"
    )
    parser.add_argument("--seed", type=int, help="of everything that is drawn; a new one each time if not given")
    parser.add_argument("--only", nargs="*", default=[], help="these parts alone")
    parser.add_argument("--again", nargs="*", default=[], help="parts to run again although they are done; or: all")
    words = parser.parse_args()
    seed = words.seed if words.seed is not None else random.SystemRandom().randrange(1_000_000)
    memory = Memory(STATE / digest_of_the_code())
    wanted = chosen(words)
    for phase in wanted:
        if phase.name in words.again or "all" in words.again:
            memory.forget(phase.name)
    todo = [phase for phase in wanted if (done := memory.find(phase.name)) is None or not done.holds]
    ends = time.monotonic() + words.minutes * 60
    for number, phase in enumerate(todo):
        left = (ends - time.monotonic()) / 60
        share = shares({each.name: each.share for each in todo[number:]}, left)[phase.name]
        if number and share < LEAST_LEFT * phase.share * min(1.0, words.minutes / 30):
            say(f"\nthe {words.minutes:g} minutes are over; the next `make prove` goes on with {phase.title!r}")
            break
        say(f"\n== {phase.title} (seed {seed}, {share:.1f} min)")
        done = asyncio.run(run_phase(phase, seed=seed, minutes=share, memory=memory))
        memory.keep(done)
        say(f"== {phase.title}: {'holds' if done.holds else 'DOES NOT HOLD'} ({done.seconds:.0f} s)")
    finish(memory, seed, words.minutes)


def finish(memory: Memory, seed: int, minutes: float) -> None:
    """Write and print the report; the exit code is 0 when every part is done and holds."""
    done = {phase.name: found for phase in PHASES if (found := memory.find(phase.name)) is not None}
    facts = {"commit": machine.commit(), **machine.describe()}
    text = report.write(PHASES, done, facts, command(seed, minutes))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(text)
    say(f"\n{text}\n{Path(REPORT).relative_to(CHECKOUT)} is this report")
    broken = [name for name, each in done.items() if not each.holds]
    sys.exit(1 if broken else (2 if len(done) < len(PHASES) else 0))


if __name__ == "__main__":
    main()
