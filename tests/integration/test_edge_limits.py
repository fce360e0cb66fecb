"""How often: every RPC over its limit in every protocol, and who shares a limit with whom."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from edge_calls import PROTOCOLS
from edge_fixtures import CONTRACTS, RPCS, World, open_world

from gateway import render
from gateway.contracts import Contracts
from marquee.edge.v1 import policy_pb2

REQUESTS = 3


def _tight() -> Contracts:
    """The contracts with 3 calls an hour for every RPC, so that each can be asked once too often."""
    files = type(CONTRACTS.files)()
    files.CopyFrom(CONTRACTS.files)
    for file in files.file:
        for service in file.service:
            for method in service.method:
                policy = method.options.Extensions[policy_pb2.policy]
                if policy.HasField("rate_limit"):
                    policy.rate_limit.requests = REQUESTS
                    policy.rate_limit.window.seconds = 3600
    return Contracts(files)


TIGHT = _tight()


@pytest.fixture(scope="module")
async def tight(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async for world in open_world(tmp_path_factory.mktemp("tight"), TIGHT):
        yield world


async def test_every_rpc_has_one_limit_for_its_three_protocols(tight: World) -> None:
    for rpc in TIGHT.edge_rpcs:
        caller = {"x-forwarded-for": tight.address(), **tight.signed_in()}
        for protocol in PROTOCOLS:
            assert (await tight.call(protocol, rpc, caller)).ok, (rpc.name, protocol)
        for protocol in PROTOCOLS:
            reply = await tight.call(protocol, rpc, caller)
            assert (reply.code, reply.reason, reply.domain) == (8, "RATE_LIMITED", "marquee"), (rpc.name, protocol)
            assert reply.http_status == (429 if protocol == "rest" else 200)
            assert int(reply.headers["retry-after"]) > 0
            assert reply.headers["x-ratelimit-limit"] == str(REQUESTS)
            assert reply.headers["x-ratelimit-remaining"] == "0"
            assert int(reply.headers["x-ratelimit-reset"]) > 0


async def test_what_is_left_is_told_on_success_too(tight: World) -> None:
    caller = tight.signed_in()
    for left in (2, 1, 0):
        reply = await tight.call("rest", RPCS["GetProfile"], caller)
        assert reply.headers["x-ratelimit-remaining"] == str(left)
        assert "retry-after" not in reply.headers


async def test_users_behind_one_address_do_not_share_a_limit(tight: World) -> None:
    shared = {"x-forwarded-for": tight.address()}
    for _ in range(8):
        assert (await tight.call("rest", RPCS["GetBooking"], shared | tight.signed_in())).ok


async def test_a_user_does_not_escape_by_changing_addresses(tight: World) -> None:
    caller = tight.signed_in()
    replies = [await tight.call("rest", RPCS["GetBooking"], caller) for _ in range(REQUESTS + 1)]
    assert [reply.ok for reply in replies] == [True] * REQUESTS + [False]


async def test_an_anonymous_caller_counts_by_address_where_users_count_by_name(tight: World) -> None:
    rpc = RPCS["GetSeatMap"]
    somewhere = {"x-forwarded-for": tight.address()}
    replies = [await tight.call("rest", rpc, somewhere) for _ in range(REQUESTS + 1)]
    assert [reply.ok for reply in replies] == [True] * REQUESTS + [False]
    assert (await tight.call("rest", rpc, somewhere | tight.signed_in())).ok
    assert (await tight.call("rest", rpc)).ok


async def test_an_ipv6_home_is_one_caller(tight: World) -> None:
    rpc = RPCS["ListCities"]
    addresses = [f"2001:db8:1:2::{host}" for host in range(1, REQUESTS + 2)]
    replies = [await tight.call("rest", rpc, {"x-forwarded-for": address}) for address in addresses]
    assert [reply.ok for reply in replies] == [True] * REQUESTS + [False]
    assert (await tight.call("rest", rpc, {"x-forwarded-for": "2001:db8:1:3::1"})).ok


async def test_an_address_that_a_client_puts_in_front_is_not_believed(tight: World) -> None:
    """With one trusted hop the last address counts: the one that our own proxy saw."""
    rpc, real = RPCS["ListVenues"], tight.address()
    replies = [
        await tight.call("rest", rpc, {"x-forwarded-for": f"198.51.100.{forged}, {real}"})
        for forged in range(REQUESTS + 1)
    ]
    assert [reply.ok for reply in replies] == [True] * REQUESTS + [False]


async def test_refused_tokens_do_not_eat_a_users_limit(tight: World) -> None:
    expired = tight.edge.keys.token("dora", exp=1)
    for _ in range(REQUESTS + 1):
        reply = await tight.call("rest", RPCS["GetProfile"], {"authorization": f"Bearer {expired}"})
        assert reply.reason == "UNAUTHENTICATED"
    assert (await tight.call("rest", RPCS["GetProfile"], tight.signed_in("dora"))).ok


async def test_many_callers_keep_their_own_buckets(tight: World) -> None:
    """Without max_dynamic_descriptors some 20 other users would evict a bucket and so reset its limit."""
    rpc, caller = RPCS["GetReservation"], tight.signed_in("erin")
    for _ in range(REQUESTS):
        await tight.call("rest", rpc, caller)
    for _ in range(60):
        await tight.call("rest", rpc, tight.signed_in())
    assert (await tight.call("rest", rpc, caller)).reason == "RATE_LIMITED"


async def test_a_flood_of_bad_tokens_from_one_address_is_cut_off(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("base")
    for source in render.BASE.iterdir():
        (base / source.name).write_text(source.read_text().replace("requests: 12000", "requests: 5"))
    async for world in open_world(tmp_path_factory.mktemp("flood"), base=base):
        caller = {"x-forwarded-for": world.address(), "authorization": "Bearer nonsense"}
        statuses = [(await world.rest("GET", "/api/v1/users/profile", headers=caller)).status_code for _ in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        assert (await world.rest("GET", "/api/v1/users/profile")).status_code == 401
        for protocol in PROTOCOLS:
            reply = await world.call(protocol, RPCS["HandleCallback"], {"x-forwarded-for": caller["x-forwarded-for"]})
            assert reply.ok, "a provider's webhooks have a wider limit of their own"


async def test_with_limits_off_they_are_still_evaluated(tmp_path_factory: pytest.TempPathFactory) -> None:
    async for world in open_world(tmp_path_factory.mktemp("off"), TIGHT, rate_limits="off"):
        caller = world.signed_in()
        for _ in range(REQUESTS + 2):
            reply = await world.call("rest", RPCS["GetProfile"], caller)
            assert reply.ok
            assert int(reply.headers["x-ratelimit-remaining"]) > 1_000_000
