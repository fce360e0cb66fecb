"""Each planted bug is found by the history checker, and without any there is nothing to find."""

from __future__ import annotations

import asyncio

from tests.prove.hunt import WITHOUT, copy_of_the_project, hunt, sell
from tests.prove.phases import Context, Phase, Result
from tests.prove.plants import PLANTS

MINUTES_EACH = 3.0


async def run(context: Context) -> Result:
    return await asyncio.to_thread(_run, context)


def _run(context: Context) -> Result:
    result = Result()
    with copy_of_the_project() as copy:
        clean = sell(copy, WITHOUT, context.seed)
        result.figures["without a bug: operations"] = clean["operations"]
        result.figures["without a bug: violations"] = sum(len(found) for found in clean["violations"].values())
        result.demand(not clean["violations"], f"without any bug the checker finds {clean['violations']}")
        for number, plant in enumerate(PLANTS):
            if problems := plant.problems():
                result.problems += problems
                continue
            catch = hunt(copy, plant, seed=context.seed + 100 * number, minutes=MINUTES_EACH, say=context.say)
            rules = ", ".join(f"{count} {rule}" for rule, count in catch.found.items()) or "nothing"
            found = f"caught in sale {catch.sales} after {catch.seconds:.0f} s and {catch.operations:,} operations"
            result.figures[plant.name] = f"{found if catch.caught else 'MISSED'}: {rules}"
            result.demand(catch.caught, f"not caught within {MINUTES_EACH:g} minutes: {plant.name}; it found {rules}")
            result.details += f"{plant.name}\n    {catch.first}\n"
    return result


PHASE = Phase(
    "plants",
    "Planted bugs",
    "Six bugs, each planted in a copy of the project that then sells for a quarter of a minute at a time, are each "
    "found by the same checker within their minutes. A bug that is missed fails the proof.",
    6.0,
    run,
)
