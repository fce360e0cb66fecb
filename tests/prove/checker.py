"""The history checker. Pure: what everybody did and what is stored in, what is wrong out.

It does not ask Marquee what happened: it plays each show's log again, and holds every answer that a client got, every
map that a viewer saw and every entry in the provider's books against it.
"""

from __future__ import annotations

from tests.prove.check_answers import check_answers
from tests.prove.check_events import check_events
from tests.prove.check_log import Replay
from tests.prove.check_money import check_money
from tests.prove.check_viewers import check_viewers
from tests.prove.evidence import Evidence
from tests.prove.findings import Findings
from tests.prove.history import History


def check(history: History, evidence: Evidence, *, refusal_lag_s: float = 0.0) -> Findings:
    """Everything that must hold (``findings.Rule``).

    Args:
        refusal_lag_s: how old may be what a process of booking knows when it refuses a seat without asking PostgreSQL.
            One process alone knows all that it did itself, so nothing; several hear of each other's changes later.
    """
    findings = Findings()
    replayed = {show_id: Replay(show, findings).run() for show_id, show in evidence.shows.items()}
    placed = check_answers(history, evidence, replayed, findings, refusal_lag_s=refusal_lag_s)
    check_viewers(history, evidence, replayed, placed, findings)
    check_money(history, evidence, findings)
    check_events(evidence, findings)
    return findings
