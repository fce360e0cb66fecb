"""A long sale under fire: everybody at once, and kill -9 of each part in turn for the whole run."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict

from tests.prove.campaign import Goals, Script, run_campaign
from tests.prove.phases import Context, Phase, Result
from tests.prove.stage import Pace
from tests.prove.trouble import MORE_TROUBLES

BEFORE_AND_AFTER_S = 40.0
"""Of a phase's time: the start of the stack, and what is still open after the sale."""
GOALS = Goals(payments=1000, late_captures=100, double_captures=100, failed_then_captured=100)


async def run(context: Context) -> Result:
    seconds = max(60.0, context.minutes * 60 - BEFORE_AND_AFTER_S)
    script = Script(
        context.seed,
        at_least_s=seconds,
        most_s=seconds + 120,
        troubles=MORE_TROUBLES,
        goals=GOALS,
        pace=Pace(sweep_s=0.6, poll_longest_s=32.0),
    )
    campaign = await run_campaign(context.folder / "stage", script, say=context.say)
    judged = campaign.judged
    judged.record.history.write(context.folder.parent / "sale-history.jsonl")
    slowest: dict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    for recovery in campaign.recoveries:
        count[recovery.name] += 1
        slowest[recovery.name] = max(slowest[recovery.name], recovery.hold_s or 99.0, recovery.payment_s or 99.0)
    counts = judged.record.history.counts()
    result = Result(
        figures={
            "operations": counts["operations"],
            "calls": counts["calls"],
            "messages of live streams": counts["messages of live streams"],
            "facts checked": sum(judged.findings.examined.values()),
            "violations": len(judged.findings.violations),
            **{name.replace("_", " "): value for name, value in asdict(judged.exercised).items()},
            "troubles": len(campaign.recoveries),
            **{f"{name}, times": number for name, number in count.items()},
            **{f"{name}, slowest until a hold and a payment, s": value for name, value in slowest.items()},
            **{f"facts: {rule}": number for rule, number in judged.findings.examined.items()},
        },
        problems=campaign.problems(),
        notes=[f"{number:,} {what}" for what, number in judged.findings.notes.items()],
        details=campaign.text,
    )
    result.notes.append("every operation is in .prove/.../sale-history.jsonl")
    return result


PHASE = Phase(
    "sale",
    "A sale under fire",
    "Buyers of thirteen kinds, dawdlers, viewers, staff and bots, while each part is killed (-9) in turn, Valkeys "
    "forget, and the provider delays, repeats, shuffles and drops its reports. The history checker holds every answer, "
    "every map on a screen and the provider's own books against each show's log.",
    5.0,
    run,
)
