"""Where to: Envoy's routes, one for each RPC at the edge, the same for REST, grpc-web and gRPC.

REST is transcoded first and then matches the route of its gRPC path (the transcoder clears the route cache), so that
one route says for all three protocols who may call, how often, and how long it may take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import jwt, ratelimits
from gateway.contracts import HttpRule, Rpc

BUFFER = "envoy.filters.http.buffer"
COMPRESSOR = "envoy.filters.http.compressor"
CORS = "envoy.filters.http.cors"
CACHE = "cache"
FAULTS = "faults"
GUARD = "guard"
TRANSCODER = "envoy.filters.http.grpc_json_transcoder"

DEFAULT_REQUEST_BYTES = 64 * 1024
DEFAULT_TIMEOUT_SECONDS = 15.0
DEADLINE_GRACE_MILLISECONDS = 500
SITE_CLUSTER = "site"

PREVIOUS_HOSTS = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
RETRY_ON = "unavailable,connect-failure,refused-stream,reset,reset-before-request"

# Comes after the RPCs' routes: a gRPC call that matched none of them is not transcoded and not the site's.
_GRPC = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
STREAM_IDLE = "60s"
"""A live stream has a heartbeat every 5 s; one on which nothing moves for so long waits for half a request, or for a
reader that is gone."""


def virtual_host(
    rpcs: tuple[Rpc, ...],
    *,
    urgent: tuple[Rpc, ...],
    without: Mapping[str, Iterable[str]],
    limits: bool,
    cors: dict[str, Any] | None,
    site: bool,
) -> dict[str, Any]:
    """Every route of the edge. The order matters: the first match wins.

    Args:
        urgent: RPCs with circuit breakers and connections of their own.
        without: filters that are nothing to an RPC, by its path.
    """
    own = {} if cors is None else {CORS: cors}
    return {
        "name": "edge",
        "domains": ["*"],
        "routes": [
            *(_rpc_route(rpc, urgent=rpc in urgent, without=without[rpc.path], limits=limits) for rpc in rpcs),
            _healthz(),
            # Whole or not, its message is nobody's.
            _not_found({"prefix": "/", "headers": [_GRPC]}, {GUARD: _no_script(), FAULTS: _off()}),
            *(_rest_route(rule.regex(), _request_bytes(rpc)) for rpc, rule in _unusually_large(rpcs)),
            _rest_prefix(),
            *_closed(),
            _site() if site else _not_found({"prefix": "/"}),
        ],
        "response_headers_to_add": [_header("x-content-type-options", "nosniff")],
        "typed_per_filter_config": own,
    }


def _rpc_route(rpc: Rpc, *, urgent: bool, without: Iterable[str], limits: bool) -> dict[str, Any]:
    own: dict[str, Any] = {jwt.FILTER: jwt.requirement_of(rpc), BUFFER: _buffer(_request_bytes(rpc))}
    # Which filters a call passes is settled by the route that it came with, and REST came with another. So what is
    # switched off here is switched off for gRPC and grpc-web, and each costs some microseconds.
    own |= dict.fromkeys((FAULTS, TRANSCODER, *without), _off())
    limit = ratelimits.limit_of(rpc, enforced=limits)
    if limit is not None:
        own[ratelimits.FILTER] = limit
    if rpc.client_streaming:
        # A body without an end cannot be waited for.
        own[BUFFER] = {"@type": _type("buffer.v3.BufferPerRoute"), "disabled": True}
    if rpc.streaming:
        own[COMPRESSOR] = {"@type": _type("compressor.v3.CompressorPerRoute"), "disabled": True}
    route: dict[str, Any] = {
        "name": f"{rpc.service}.{rpc.name}",
        "match": {"path": rpc.path},
        "route": _action(rpc) | ({"priority": "HIGH"} if urgent else {}),
        "typed_per_filter_config": own,
        **_deadline_for_rest(rpc),
    }
    if rpc.policy is not None and rpc.policy.HasField("cache"):
        # Read by envoy/cache.lua, which alone sees whether the answer was a success.
        route["metadata"] = {"filter_metadata": {CACHE: {"max_age": f"{rpc.policy.cache.seconds}"}}}
    else:
        own[CACHE] = _no_script()
        route["response_headers_to_add"] = [_header("cache-control", "no-store")]
    return route


def _action(rpc: Rpc) -> dict[str, Any]:
    action: dict[str, Any] = {"cluster": rpc.owner}
    if rpc.streaming:
        action |= {"timeout": "0s", "idle_timeout": STREAM_IDLE}
    else:
        # A gRPC client's own shorter deadline is kept by the client and by the service, which both see it. Not
        # `max_stream_duration`: it switches this timeout off, and knows nothing of the header that the route adds.
        action |= {"timeout": f"{timeout_seconds(rpc):g}s"}
    if rpc.idempotent:
        action["retry_policy"] = {
            "retry_on": RETRY_ON,
            "num_retries": 2,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            # Another copy of the service, where there is one.
            "retry_host_predicate": [
                {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": PREVIOUS_HOSTS}}
            ],
            "host_selection_retry_max_attempts": 3,
        }
    return action


def timeout_seconds(rpc: Rpc) -> float:
    """The longest that a unary call of ``rpc`` may take."""
    if rpc.policy is not None and rpc.policy.HasField("timeout"):
        return rpc.policy.timeout.ToTimedelta().total_seconds()
    return DEFAULT_TIMEOUT_SECONDS


def _deadline_for_rest(rpc: Rpc) -> dict[str, Any]:
    """REST and browsers send no `grpc-timeout`; without one the service would not know when nobody waits any more.

    A moment longer than the route's own: gRPC ends an overdue call without telling a reason, so Envoy should be first.
    """
    if rpc.streaming:
        return {}
    milliseconds = int(timeout_seconds(rpc) * 1000) + DEADLINE_GRACE_MILLISECONDS
    return {"request_headers_to_add": [_header("grpc-timeout", f"{milliseconds}m")]}


def _request_bytes(rpc: Rpc) -> int:
    return (rpc.policy.max_request_bytes if rpc.policy is not None else 0) or DEFAULT_REQUEST_BYTES


def _buffer(size: int) -> dict[str, Any]:
    return {"@type": _type("buffer.v3.BufferPerRoute"), "buffer": {"max_request_bytes": size}}


def _unusually_large(rpcs: tuple[Rpc, ...]) -> list[tuple[Rpc, HttpRule]]:
    """REST bindings with another body limit than most: the limit is due before transcoding, when the path is REST's."""
    return [(rpc, rule) for rpc in rpcs if _request_bytes(rpc) != DEFAULT_REQUEST_BYTES for rule in rpc.http_rules]


def _rest_route(regex: str, size: int) -> dict[str, Any]:
    return _before_transcoding({"safe_regex": {"regex": regex}}, size)


def _rest_prefix() -> dict[str, Any]:
    return _before_transcoding({"prefix": "/api/v1/"}, DEFAULT_REQUEST_BYTES)


def _before_transcoding(match: dict[str, Any], size: int) -> dict[str, Any]:
    """What REST matches until it is transcoded.

    It asks for a token and leads to a cluster without members, so that a call which stayed untranscoded by some mistake
    ends here. A `direct_response` would be simpler, but the CORS filter passes such a route by and preflights fail.
    """
    own = {jwt.FILTER: jwt.requirement(jwt.REQUIRED), BUFFER: _buffer(size)}
    return {"match": match, "route": {"cluster": "nowhere"}, "typed_per_filter_config": own}


def _closed() -> list[dict[str, Any]]:
    """What must not reach the site: other RPCs (internal ones, health, reflection) and unknown parts of the API."""
    return [
        _not_found({"prefix": "/marquee."}),
        _not_found({"prefix": "/grpc."}),
        _not_found({"path_separated_prefix": "/api"}),
    ]


def _not_found(match: dict[str, Any], own: dict[str, Any] | None = None) -> dict[str, Any]:
    filters = {TRANSCODER: _off(), **(own or {})}
    return {"match": match, "direct_response": {"status": 404}, "typed_per_filter_config": filters}


def _healthz() -> dict[str, Any]:
    """The edge's own liveness; it says nothing of the services behind it."""
    return {
        "match": {"path": "/healthz"},
        "direct_response": {"status": 200, "body": {"inline_string": '{"status":"ok"}'}},
        "response_headers_to_add": [_header("content-type", "application/json"), _header("cache-control", "no-store")],
        "typed_per_filter_config": {TRANSCODER: _off()},
    }


def _site() -> dict[str, Any]:
    return {
        "match": {"prefix": "/"},
        "route": {"cluster": SITE_CLUSTER, "timeout": "15s"},
        # The site says itself how long its pages may be kept.
        "typed_per_filter_config": {
            TRANSCODER: _off(),
            BUFFER: _buffer(DEFAULT_REQUEST_BYTES),
            GUARD: _no_script(),
            FAULTS: _off(),
            CACHE: _no_script(),
        },
    }


def _off() -> dict[str, Any]:
    """Switches a filter off for one route."""
    return {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True, "config": {}}


def _no_script() -> dict[str, Any]:
    return {"@type": _type("lua.v3.LuaPerRoute"), "disabled": True}


def _header(name: str, value: str) -> dict[str, Any]:
    """Added where there is none of that name."""
    return {"header": {"key": name, "value": value}, "append_action": "ADD_IF_ABSENT"}


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.filters.http.{name}"
