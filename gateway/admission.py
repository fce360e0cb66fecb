"""How many at once: Envoy's adaptive concurrency for the calls that a crowd makes, one limit for each kind of them.

A limit follows what its calls wait: while nine in ten are answered within the target it grows, beyond it shrinks, and
what it leaves out is refused at once (``errors.REFUSALS``), before the service has spent anything on it. Why the target
is given rather than measured, and why streams and payments have no limit: docs/decisions/overload.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.contracts import HttpRule, Rpc

FILTER = "envoy.filters.http.adaptive_concurrency"
REACHED = "reached_concurrency_limit"
"""The response code details of what is refused by a limit."""

PERCENTILE = 90
"""Whose latency is compared with the target: of 100 calls, the one that 90 are faster than."""
UPDATE_SECONDS = 0.1

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_SKIP = {
    "name": "skip",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter"},
}


class UnknownRpcError(Exception):
    """``envoy/edge.yaml`` names an RPC that the edge does not have, or that must not be limited so."""


def limits(base: Mapping[str, dict[str, Any]], rpcs: tuple[Rpc, ...]) -> dict[str, dict[str, Any]]:
    """The filter of each limit in ``base``, by its marker: ``admission_<name>``.

    Raises:
        UnknownRpcError: a limit names an RPC that is not there, is a stream or belongs to another service.
    """
    return {f"admission_{name}": _limit(name, limit, named(limit["rpcs"], rpcs)) for name, limit in base.items()}


def filters_without(base: Mapping[str, dict[str, Any]], rpcs: tuple[Rpc, ...]) -> dict[str, tuple[str, ...]]:
    """The filters of the limits that each RPC does not have, by its path."""
    return {
        rpc.path: tuple(f"admission.{name}" for name, limit in base.items() if rpc not in named(limit["rpcs"], rpcs))
        for rpc in rpcs
    }


def named(names: Iterable[str], rpcs: tuple[Rpc, ...]) -> tuple[Rpc, ...]:
    """The RPCs that ``envoy/edge.yaml`` calls ``BookingService.CreateReservation``, or ``CatalogService.*`` (all of a
    service but its streams).

    Raises:
        UnknownRpcError: there is none of a name.
    """
    found: list[Rpc] = []
    for name in names:
        service, _, method = name.partition(".")
        of_name = [
            rpc
            for rpc in rpcs
            if rpc.service == service and (rpc.name == method or (method == "*" and not rpc.streaming))
        ]
        if not of_name:
            raise UnknownRpcError(f"envoy/edge.yaml: there is no {name} at the edge")
        found += of_name
    return tuple(found)


def _limit(name: str, limit: Mapping[str, Any], rpcs: tuple[Rpc, ...]) -> dict[str, Any]:
    for rpc in rpcs:
        if rpc.streaming:
            # The filter takes the whole life of a stream for its latency.
            raise UnknownRpcError(f"envoy/edge.yaml: {rpc.service}.{rpc.name} is a stream; {name} cannot limit it")
    if len({rpc.owner for rpc in rpcs}) != 1:
        raise UnknownRpcError(f"envoy/edge.yaml: the RPCs of {name} are not of one service")
    return {
        "@type": "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        "extension_config": {"name": FILTER, "typed_config": _controller(limit)},
        # By path and not by route: the route that REST came with is the same for all of it.
        "xds_matcher": {"matcher_list": {"matchers": [_skip_all_but(rpcs)]}},
    }


def _controller(limit: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": f"{_FILTERS}.adaptive_concurrency.v3.AdaptiveConcurrency",
        "enabled": {"default_value": True, "runtime_key": "edge.admission"},
        "gradient_controller_config": {
            "sample_aggregate_percentile": {"value": PERCENTILE},
            "concurrency_limit_params": {
                "max_concurrency_limit": limit["most"],
                "concurrency_update_interval": f"{UPDATE_SECONDS:g}s",
            },
            "min_rtt_calc_params": {
                "fixed_value": limit["target"],
                "min_concurrency": limit["least"],
                "buffer": {"value": 0},
            },
        },
    }


def _skip_all_but(rpcs: tuple[Rpc, ...]) -> dict[str, Any]:
    among = [
        *(_header(":path", {"exact": rpc.path}) for rpc in rpcs),
        *(_rest(rule) for rpc in rpcs for rule in rpc.http_rules),
    ]
    return {"predicate": {"not_matcher": {"or_matcher": {"predicate": among}}}, "on_match": {"action": _SKIP}}


def _rest(rule: HttpRule) -> dict[str, Any]:
    """A REST call, before it is transcoded."""
    path = _header(":path", {"safe_regex": {"google_re2": {}, "regex": rule.regex()}})
    return {"and_matcher": {"predicate": [_header(":method", {"exact": rule.method}), path]}}


def _header(name: str, value: dict[str, Any]) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
    asked = {"name": "header", "typed_config": {"@type": kind, "header_name": name}}
    return {"single_predicate": {"input": asked, "value_match": value}}
