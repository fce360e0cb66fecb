"""Points 3 and 4: a sale goes on while everything is killed or forgets; rupees and seats end where they belong.

It is the short form of the campaign of `make prove`, with the same checker (``tests/prove/checker.py``).
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.prove.campaign import Campaign, Script, run_campaign
from tests.prove.findings import Rule

pytestmark = [pytest.mark.timeout(420), pytest.mark.alone]


@pytest_asyncio.fixture(scope="module")
async def campaign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Campaign]:
    """One sale under fire, told on the terminal, for all tests here."""
    seed = random.SystemRandom().randrange(1_000_000)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        yield await run_campaign(tmp_path_factory.mktemp("faults"), Script(seed))


def test_enough_was_exercised(campaign: Campaign) -> None:
    """Point 4: fewer would prove nothing."""
    assert campaign.script.goals.missed(campaign.judged.exercised) == []


def test_service_is_back_in_time_after_each_fault(campaign: Campaign) -> None:
    """Points 3 and 4: a seat can be held and a payment be begun 15 s after a kill, 30 s after PostgreSQL's.

    Viewers are right again 10 s after a flush.
    """
    assert [recovery.problem for recovery in campaign.recoveries if recovery.problem] == []


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name.lower())
def test_the_history_keeps_every_rule(campaign: Campaign, rule: Rule) -> None:
    """Nothing acknowledged is lost, no seat has two owners, captured money is confirmed or refunded, and the rest."""
    assert campaign.judged.findings.of(rule) == []
    assert campaign.judged.findings.examined[rule] > 100


def test_every_viewer_ends_with_what_postgresql_has(campaign: Campaign) -> None:
    assert campaign.judged.late_viewers == []


def test_nobody_saw_an_error_that_says_neither_no_nor_later(campaign: Campaign) -> None:
    assert campaign.judged.record.surprises == []
