"""The provider simulator as its clients meet it: a process of its own, over HTTP."""

import asyncio
import hashlib
import hmac
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from provider_process import SECRET, Merchant, Simulator, free_port, merchant_on, running


@pytest.fixture
async def merchant() -> AsyncIterator[Merchant]:
    async with merchant_on(free_port()) as it:
        yield it


@pytest.fixture
async def simulator(tmp_path: Path, merchant: Merchant) -> AsyncIterator[Simulator]:
    with running(tmp_path, free_port(), merchant.url) as it:
        yield it
        await it.http.aclose()


async def test_an_order_is_paid_and_its_webhooks_are_signed(simulator: Simulator, merchant: Merchant) -> None:
    order = await simulator.order(receipt="r-1", notes={"booking": "b-1"})
    assert (order["status"], order["amount_due"], order["attempts"]) == ("created", 50_000, 0)

    answer = await simulator.http.post(f"/checkout/{order['id']}", data={"outcome": "success", "method": "card"})
    assert answer.status_code == 200

    await merchant.wait_for(3)
    assert sorted(merchant.events()) == ["order.paid", "payment.authorized", "payment.captured"]
    for headers, body in merchant.received:
        expected = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        assert headers["x-razorpay-signature"] == expected
    payments = (await simulator.http.get(f"/v1/orders/{order['id']}/payments")).json()
    assert payments["count"] == 1
    assert payments["items"][0]["captured"] is True
    assert payments["items"][0]["method"] == "card"
    assert (await simulator.http.get(f"/v1/orders/{order['id']}")).json()["status"] == "paid"


async def test_a_unique_receipt_answers_the_same_order(simulator: Simulator) -> None:
    first = await simulator.order(receipt="once", unique_receipt=True)
    again = await simulator.order(receipt="once", unique_receipt=True)
    assert again == first
    other = await simulator.http.post(
        "/v1/orders", json={"amount": 60_000, "currency": "INR", "receipt": "once", "unique_receipt": True}
    )
    assert other.status_code == 400
    assert other.json()["error"]["field"] == "receipt"
    found = (await simulator.http.get("/v1/orders", params={"receipt": "once"})).json()
    assert [item["id"] for item in found["items"]] == [first["id"]]


async def test_a_failed_attempt_may_be_followed_by_a_good_one_and_by_a_second_good_one(simulator: Simulator) -> None:
    order = await simulator.order()
    page = await simulator.http.post(f"/checkout/{order['id']}", data={"outcome": "failure"})
    assert "declined" in page.text
    await simulator.pay(order["id"], count=2)
    await simulator.pay((await simulator.order())["id"], outcome="failure_then_success")

    summary = (await simulator.http.get("/control/ledger/summary")).json()
    assert summary["captures"] == 3
    assert summary["double_captures"] == 1
    assert summary["failed_attempt_then_captured"] == 1
    assert summary["failed_then_captured"] == 1


async def test_refunds_never_exceed_their_capture_and_repeat_by_key(simulator: Simulator) -> None:
    order = await simulator.order()
    [payment] = await simulator.pay(order["id"])
    path = f"/v1/payments/{payment['id']}/refund"
    key = {"x-refund-idempotency": "refund-key-0001"}

    first = await simulator.http.post(path, json={"amount": 20_000, "receipt": "mine"}, headers=key)
    again = await simulator.http.post(path, json={"amount": 20_000, "receipt": "mine"}, headers=key)
    other = await simulator.http.post(path, json={"amount": 30_000, "receipt": "mine"}, headers=key)
    too_much = await simulator.http.post(path, json={"amount": 30_001})
    rest = await simulator.http.post(path, json={})
    nothing_left = await simulator.http.post(path, json={})

    assert first.json() == again.json()
    assert [other.status_code, too_much.status_code, nothing_left.status_code] == [400, 400, 400]
    assert rest.json()["amount"] == 30_000
    listed = (await simulator.http.get(f"/v1/payments/{payment['id']}/refunds")).json()["items"]
    assert [(item["amount"], item["receipt"]) for item in listed] == [(30_000, None), (20_000, "mine")]
    assert (await simulator.http.get(f"/v1/payments/{payment['id']}")).json()["status"] == "refunded"


async def test_calls_without_the_key_or_with_nonsense_are_refused(simulator: Simulator) -> None:
    stranger = await simulator.http.post("/v1/orders", json={}, auth=("rzp_test_key", "wrong"))
    assert stranger.status_code == 401
    for content in ({}, {"amount": "100", "currency": "INR"}, {"amount": 99, "currency": "INR"}, {"amount": 1000}):
        answer = await simulator.http.post("/v1/orders", json=content)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "BAD_REQUEST_ERROR"
    assert (await simulator.http.get("/v1/payments/pay_unknown")).status_code == 400
    assert (await simulator.http.post("/v1/orders", content=b"{")).status_code == 400


async def test_money_that_is_only_authorized_is_captured_on_request(simulator: Simulator) -> None:
    order = await simulator.order(payment_capture=0)
    [payment] = await simulator.pay(order["id"])
    assert payment["status"] == "authorized"
    path = f"/v1/payments/{payment['id']}/capture"
    assert (await simulator.http.post(path, json={"amount": 1, "currency": "INR"})).status_code == 400
    assert (await simulator.http.post(path, json={"amount": 50_000, "currency": "INR"})).json()["captured"] is True
    assert (await simulator.http.post(path, json={"amount": 50_000, "currency": "INR"})).status_code == 400


async def test_the_buyer_is_sent_back_only_to_the_web(simulator: Simulator) -> None:
    order = await simulator.order()
    path = f"/checkout/{order['id']}"
    back = await simulator.http.post(path, data={"outcome": "success", "return_url": "https://shop.test/done?a=1"})
    assert (back.status_code, back.headers["location"]) == (303, "https://shop.test/done?a=1")
    for url in ("javascript:alert(1)", "//evil.test", "data:text/html,x"):
        stays = await simulator.http.post(path, data={"outcome": "success", "return_url": url})
        assert stays.status_code == 200
    assert (await simulator.http.get("/checkout/order_unknown")).status_code == 404


async def test_webhooks_are_repeated_shuffled_dropped_and_delayed_on_demand(
    simulator: Simulator, merchant: Merchant
) -> None:
    await simulator.faults(webhook_repeat=3, webhook_shuffle_ms=50)
    order = await simulator.order()
    await simulator.pay(order["id"])
    await merchant.wait_for(9)
    assert len(set(merchant.event_ids())) == 3

    await simulator.faults(webhook_drop_percent=100)
    await simulator.pay((await simulator.order())["id"])
    await simulator.faults(webhook_delay_ms=600)
    await simulator.pay((await simulator.order())["id"])
    await asyncio.sleep(0.3)
    assert len(merchant.received) == 9
    await merchant.wait_for(12)


async def test_the_api_fails_and_loses_answers_on_demand(simulator: Simulator) -> None:
    wish = {"amount": 50_000, "currency": "INR", "receipt": "lost", "unique_receipt": True}
    await simulator.faults(api_error_percent=100)
    assert (await simulator.http.post("/v1/orders", json=wish)).status_code == 500
    await simulator.faults(api_lost_answer_percent=100)
    assert (await simulator.http.post("/v1/orders", json=wish)).status_code == 500
    await simulator.faults()
    assert (await simulator.http.get("/v1/orders", params={"receipt": "lost"})).json()["count"] == 1


async def test_a_call_counts_though_its_client_hangs_up_before_a_slow_answer(simulator: Simulator) -> None:
    await simulator.faults(api_latency_ms=300)
    with pytest.raises(httpx.ReadTimeout):
        await simulator.http.post(
            "/v1/orders", json={"amount": 50_000, "currency": "INR"}, timeout=httpx.Timeout(5, read=0.1)
        )
    async with asyncio.timeout(5):
        while (await simulator.http.get("/control/ledger/summary")).json()["orders"] == 0:
            await asyncio.sleep(0.05)


async def test_a_stop_waits_for_the_answers_under_way(simulator: Simulator) -> None:
    await simulator.faults(api_latency_ms=2000)
    order = asyncio.create_task(simulator.order())
    await asyncio.sleep(1)
    simulator.process.send_signal(signal.SIGINT)
    assert (await order)["status"] == "created"
    assert simulator.process.wait(5) == 0


async def test_a_rotated_secret_signs_later_events_only(simulator: Simulator, merchant: Merchant) -> None:
    await simulator.faults(webhook_delay_ms=300)
    order = await simulator.order()
    await simulator.pay(order["id"])
    await simulator.faults()
    answer = await simulator.http.post("/control/webhook-secret", json={"secret": "second-webhook-secret"})
    assert answer.status_code == 200
    other = await simulator.order()
    await simulator.pay(other["id"])
    await merchant.wait_for(6)
    for headers, body in merchant.received:
        old = json.loads(body)["payload"]["payment"]["entity"]["order_id"] == order["id"]
        secret = SECRET if old else "second-webhook-secret"
        assert headers["x-razorpay-signature"] == hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def test_a_refund_may_stay_pending_and_then_fail(simulator: Simulator, merchant: Merchant) -> None:
    order = await simulator.order()
    [payment] = await simulator.pay(order["id"])
    await simulator.faults(refund_pending_ms=100, refund_fail_percent=100)
    refund = (await simulator.http.post(f"/v1/payments/{payment['id']}/refund", json={})).json()
    assert refund["status"] == "pending"
    await merchant.wait_for(5)
    assert merchant.events()[-1] == "refund.failed"
    assert (await simulator.http.get(f"/v1/payments/{payment['id']}")).json()["amount_refunded"] == 0


async def test_only_the_events_that_were_subscribed_to_are_sent(tmp_path: Path, merchant: Merchant) -> None:
    with running(tmp_path, free_port(), merchant.url, events="payment.captured, payment.failed") as simulator:
        order = await simulator.order()
        await simulator.pay(order["id"], outcome="failure_then_success")
        await merchant.wait_for(2)
        assert (await simulator.http.get("/control/ledger/summary")).json()["webhooks"]["events"] == 2
        assert set(merchant.events()) == {"payment.failed", "payment.captured"}
        await simulator.http.aclose()


async def test_a_crowd_that_keeps_its_connections_keeps_nobody_out(simulator: Simulator) -> None:
    url = simulator.http.base_url
    writers: list[asyncio.StreamWriter] = []
    for _ in range(300):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writers.append(writer)
        writer.write(f"GET /control/health HTTP/1.1\r\nhost: {url.host}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            assert b" 200 " in await reader.readline()
    for writer in writers:
        writer.close()


async def test_a_kill_loses_neither_money_nor_webhooks(tmp_path: Path) -> None:
    simulator_port, merchant_port = free_port(), free_port()
    url = f"http://127.0.0.1:{merchant_port}/callback"
    with running(tmp_path, simulator_port, url) as simulator:
        orders = [await simulator.order() for _ in range(20)]
        for order in orders:
            await simulator.pay(order["id"])  # nobody listens yet
        before = (await simulator.http.get("/control/ledger")).json()
        simulator.process.send_signal(signal.SIGKILL)
        simulator.process.wait(5)
        await simulator.http.aclose()
    async with merchant_on(merchant_port) as merchant:
        merchant.status = 503
        with running(tmp_path, simulator_port, url) as simulator:
            assert (await simulator.http.get("/control/ledger")).json() == before
            await merchant.wait_for(10)
            merchant.status = 200
            async with asyncio.timeout(30):
                while (await simulator.http.get("/control/ledger/summary")).json()["webhooks"]["pending"]:
                    await asyncio.sleep(0.1)
            assert len(set(merchant.event_ids())) == 60
            await simulator.http.aclose()
