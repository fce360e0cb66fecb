"""No RPC is public by accident: every one has a policy, and the policy and the REST bindings agree."""

from __future__ import annotations

import pytest
from contract_files import CONTRACTS, FILES

from gateway.contracts import Rpc
from marquee.edge.v1 import policy_pb2

AT_EDGE = CONTRACTS.edge_rpcs
INTERNAL = tuple(rpc for rpc in CONTRACTS.rpcs if not rpc.at_edge)


def _name(rpc: Rpc) -> str:
    return f"{rpc.service}.{rpc.name}"


@pytest.mark.parametrize("rpc", CONTRACTS.rpcs, ids=_name)
def test_every_rpc_has_a_policy(rpc: Rpc) -> None:
    assert rpc.policy is not None, f"{rpc.path}: add `option (marquee.edge.v1.policy)`"


@pytest.mark.parametrize("rpc", AT_EDGE, ids=_name)
def test_an_rpc_at_the_edge_says_who_may_call_it_how_often_and_where(rpc: Rpc) -> None:
    assert rpc.policy is not None
    assert rpc.policy.allow, "nobody may call it"
    assert policy_pb2.ROLE_UNSPECIFIED not in rpc.policy.allow
    if rpc.open_to_anyone:
        assert list(rpc.policy.allow) == [policy_pb2.ROLE_ANYONE], "anyone includes the others"
    assert rpc.policy.rate_limit.requests > 0
    assert rpc.policy.rate_limit.window.ToTimedelta().total_seconds() > 0
    assert rpc.policy.rate_limit.per != policy_pb2.PER_UNSPECIFIED
    assert rpc.http_rules


@pytest.mark.parametrize("rpc", INTERNAL, ids=_name)
def test_an_internal_rpc_has_no_rest_path_and_no_rules_for_the_edge(rpc: Rpc) -> None:
    assert rpc.policy == policy_pb2.Policy(audience=policy_pb2.AUDIENCE_INTERNAL)
    assert rpc.http_rules == ()
    assert rpc.service.endswith("InternalService"), "internal RPCs live in services of their own"


def test_no_service_mixes_audiences() -> None:
    assert not {rpc.full_service for rpc in AT_EDGE} & {rpc.full_service for rpc in INTERNAL}


@pytest.mark.parametrize("rpc", AT_EDGE, ids=_name)
def test_rest_bindings_follow_the_house(rpc: Rpc) -> None:
    for rule in rpc.http_rules:
        assert rule.template.startswith("/api/v1/")
        # The edge refuses query parameters where a body is meant (envoy/guard.lua).
        assert bool(rule.body) == (rule.method in ("POST", "PUT", "PATCH")), f"{rule.method} {rule.template}"
        if rule.method == "GET":
            assert rpc.idempotent, "a GET must be NO_SIDE_EFFECTS"


def test_no_two_rpcs_share_a_rest_path() -> None:
    seen = [(rule.method, rule.pattern("*")) for rpc in AT_EDGE for rule in rpc.http_rules]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("rpc", AT_EDGE, ids=_name)
def test_only_what_everybody_may_see_is_cached(rpc: Rpc) -> None:
    assert rpc.policy is not None
    if rpc.policy.HasField("cache"):
        assert rpc.open_to_anyone
        assert not rpc.streaming
        assert {rule.method for rule in rpc.http_rules} == {"GET"}


@pytest.mark.parametrize("rpc", [rpc for rpc in AT_EDGE if not rpc.idempotent], ids=_name)
def test_what_must_not_happen_twice_carries_a_request_id(rpc: Rpc) -> None:
    reasons = {
        "Login": "signing in twice makes two sessions, and keeping answers would mean keeping tokens",
        "RefreshSession": "a refresh token is spent by its first use",
        "HandleCallback": "the provider's event id does it",
    }
    if rpc.name in reasons:
        return
    message = next(
        message for file in FILES for message in file.message_type if f"{file.package}.{message.name}" == rpc.request
    )
    assert "request_id" in {field.name for field in message.field}
