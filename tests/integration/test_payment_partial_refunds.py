"""Part of a capture goes back once: so much stays that the provider's own limit stops no second refund."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from payment_harness import PRICE, PaymentStack, payment_stack

from marquee.payment import v1 as payment_v1

PART = PRICE.minor // 4


@pytest.fixture
async def stack(tmp_path: Path, migrated_database_url: Callable[[str], str]) -> AsyncIterator[PaymentStack]:
    async with payment_stack(tmp_path, migrated_database_url("payment"), provider_tries=1) as it:
        yield it


async def test_a_partial_refund_goes_back_once_however_often_its_answer_is_lost(stack: PaymentStack) -> None:
    payment = await stack.initiate()
    [capture] = await stack.simulator.pay(payment.provider_order_id)
    await stack.reaches(payment.payment_id, payment_v1.PAYMENT_STATUS_CAPTURED)
    await stack.simulator.faults(api_lost_answer_percent=100, webhook_drop_percent=100)
    await stack.request_refund(capture["id"], PART)
    await asyncio.sleep(2.5)  # two tries, a second apart, whose answers are lost
    await stack.simulator.faults(webhook_drop_percent=100)
    await stack.reaches(payment.payment_id, payment_v1.PAYMENT_STATUS_PARTIALLY_REFUNDED)
    assert [refund["amount"] for refund in (await stack.ledger())["refunds"]] == [PART]
