"""A sale while the stores are flushed, stopped, filled and restarted."""

from __future__ import annotations

from collections import defaultdict

from tests.prove.campaign import Script, run_campaign
from tests.prove.phases import Context, Phase, Result
from tests.prove.plants import NO_GOALS
from tests.prove.trouble import STORE_TROUBLES


async def run(context: Context) -> Result:
    script = Script(context.seed, at_least_s=1.0, most_s=1.0, troubles=STORE_TROUBLES, goals=NO_GOALS)
    campaign = await run_campaign(context.folder / "stage", script, say=context.say)
    judged = campaign.judged
    result = Result(problems=campaign.problems(), details=campaign.text)
    served: dict[str, list[float]] = defaultdict(list)
    for recovery in campaign.recoveries:
        served[recovery.name].append(max(recovery.hold_s or 99.0, recovery.payment_s or 99.0))
        result.figures[f"{recovery.name}: a hold and a payment again after, s"] = max(served[recovery.name])
        if recovery.viewers_s is not None:
            result.figures[f"{recovery.name}: viewers right again after, s"] = recovery.viewers_s
    result.figures |= {
        "operations": len(judged.record.history.operations),
        "facts checked": sum(judged.findings.examined.values()),
        "violations": len(judged.findings.violations),
    }
    return result


PHASE = Phase(
    "stores",
    "Stores that forget, stop, are full and restart",
    "The cache is flushed, stopped, full and killed, the bus is stopped and full, PostgreSQL is restarted and stopped, "
    "each in the middle of a sale: it goes on, and nothing is lost. While only the cache is away, nobody waits for it.",
    1.5,
    run,
)
