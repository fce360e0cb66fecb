"""How often: the policies' rate limits as Envoy's local rate limits."""

from __future__ import annotations

import math
from typing import Any

from gateway import jwt
from gateway.contracts import Rpc
from marquee.edge.v1 import policy_pb2

FILTER = "envoy.filters.http.local_ratelimit"
TYPE = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"

ENDLESS = 1_000_000_000
"""Requests a window where limits are off: every limit is still evaluated, so that a benchmark measures its cost."""

CALLERS = 100_000
"""Buckets kept for one RPC, more than a window has callers: beyond it, the oldest caller's limit starts anew."""

ANONYMOUS = "-"
"""Stands for the user of a call without a token. No user id looks like it."""

# IPv6 by /64: a home or a server usually has a whole one, and could change its address with every request.
_ADDRESS: dict[str, Any] = {"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}}
_BY_ADDRESS: dict[str, Any] = {"key": "masked_remote_address"}
_USER: dict[str, Any] = {
    "descriptor_key": "user",
    "source": "DYNAMIC",
    "metadata_key": {"key": jwt.FILTER, "path": [{"key": jwt.PAYLOAD}, {"key": "sub"}]},
}


def limit_of(rpc: Rpc, *, enforced: bool) -> dict[str, Any] | None:
    """The limit of ``rpc``'s route, or ``None`` where its policy has none."""
    if rpc.policy is None or not rpc.policy.HasField("rate_limit"):
        return None
    limit = rpc.policy.rate_limit
    bucket = _bucket(limit.requests if enforced else ENDLESS, limit.window.ToTimedelta().total_seconds())
    if limit.per == policy_pb2.PER_USER:
        actions, descriptors = _per_user(bucket)
    else:
        actions, descriptors = _per_address(bucket)
    seconds_a_token = limit.window.ToTimedelta().total_seconds() / max(limit.requests, 1)
    return _config(f"rpc.{rpc.service}.{rpc.name}", actions, descriptors, seconds_a_token=seconds_a_token)


def flood(limit: dict[str, int], rpcs: tuple[Rpc, ...], *, enforced: bool) -> dict[str, Any]:
    """The wide limit by client address that stands before the JWT check, and so counts refused tokens too.

    An RPC whose own limit by address is wider (a payment provider's webhooks) is left out of it.
    """
    requests, seconds = limit["requests"], limit["window_seconds"]
    wider = [rpc for rpc in rpcs if _is_wider(rpc, requests / seconds)]
    actions: list[dict[str, Any]] = [_ADDRESS]
    entries = [_BY_ADDRESS]
    if wider:
        others = {"descriptor_value": "others", "headers": [path for rpc in wider for path in _not_paths_of(rpc)]}
        actions = [{"header_value_match": others}, _ADDRESS]
        entries = [{"key": "header_match", "value": "others"}, _BY_ADDRESS]
    bucket = _bucket(requests if enforced else ENDLESS, seconds)
    descriptors = [{"entries": entries, "token_bucket": bucket}]
    config = _config("flood", [{"actions": actions}], descriptors, seconds_a_token=seconds / requests)
    # The RPC's own limit is what clients should see and plan by.
    return config | {"enable_x_ratelimit_headers": "OFF"}


def _not_paths_of(rpc: Rpc) -> list[dict[str, Any]]:
    """Matchers that hold for every path but the RPC's own. One each: Envoy refuses a regex that lists many."""
    matches: list[dict[str, Any]] = [{"exact": rpc.path}]
    matches += [{"safe_regex": {"regex": rule.regex()}} for rule in rpc.http_rules]
    return [{"name": ":path", "string_match": match, "invert_match": True} for match in matches]


def _is_wider(rpc: Rpc, per_second: float) -> bool:
    if rpc.policy is None or not rpc.policy.HasField("rate_limit") or rpc.policy.rate_limit.per != policy_pb2.PER_IP:
        return False
    limit = rpc.policy.rate_limit
    return bool(limit.requests / limit.window.ToTimedelta().total_seconds() >= per_second)


def _per_user(bucket: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """By `sub`. A call without a token has no `sub` and makes only the second descriptor, with the address."""
    actions: list[dict[str, Any]] = [
        {"actions": [{"metadata": _USER}]},
        {"actions": [{"metadata": {**_USER, "default_value": ANONYMOUS}}, _ADDRESS]},
    ]
    descriptors = [
        {"entries": [{"key": "user"}], "token_bucket": bucket},
        {"entries": [{"key": "user", "value": ANONYMOUS}, _BY_ADDRESS], "token_bucket": bucket},
    ]
    return actions, descriptors


def _per_address(bucket: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return [{"actions": [_ADDRESS]}], [{"entries": [_BY_ADDRESS], "token_bucket": bucket}]


def _bucket(requests: int, seconds: float) -> dict[str, Any]:
    return {"max_tokens": requests, "tokens_per_fill": requests, "fill_interval": f"{seconds:g}s"}


def _config(
    name: str, actions: list[dict[str, Any]], descriptors: list[dict[str, Any]], *, seconds_a_token: float
) -> dict[str, Any]:
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": TYPE,
        "stat_prefix": name,
        # Envoy wants a bucket for calls that match no descriptor; there are none, so it is endless.
        "token_bucket": _bucket(ENDLESS, 1),
        "filter_enabled": always,
        "filter_enforced": always,
        "rate_limits": actions,
        "descriptors": descriptors,
        "max_dynamic_descriptors": CALLERS,
        "always_consume_default_token_bucket": False,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        # On refusals only. Buckets fill steadily, so one more call is free after the time of one token.
        "response_headers_to_add": [{"header": {"key": "retry-after", "value": f"{math.ceil(seconds_a_token)}"}}],
        # gRPC clients get RESOURCE_EXHAUSTED instead of UNAVAILABLE, which they would try again at once.
        "rate_limited_as_resource_exhausted": True,
    }
