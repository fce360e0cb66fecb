"""From contracts to Envoy's configuration, without Envoy (and once with it)."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import admission, check, contracts, errors, faults, guards, jwt, ratelimits, render, routes
from gateway.settings import Address, Settings
from gateway.template import UnknownMarkerError, fill, fill_lua

CONTRACTS = contracts.read()
RPCS = {rpc.name: rpc for rpc in CONTRACTS.rpcs}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [_public_key("a")]}))
    backend = Address(host="127.0.0.1", port=7000)
    return Settings(jwks_file=tmp_path / "jwks.json", services=dict.fromkeys(CONTRACTS.owners, backend))


def _public_key(kid: str) -> dict[str, Any]:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    key: dict[str, Any] = json.loads(pyjwt.algorithms.ECAlgorithm.to_jwk(public))
    return key | {"kid": kid}


def _host(*, limits: bool = True) -> dict[str, Any]:
    rpcs = CONTRACTS.edge_rpcs
    without = {rpc.path: ("admission.x",) for rpc in rpcs}
    return routes.virtual_host(rpcs, urgent=(), without=without, limits=limits, cors=None, site=False)


def _routes(*, limits: bool = True) -> dict[str, dict[str, Any]]:
    return {route["match"]["path"]: route for route in _host(limits=limits)["routes"] if "path" in route["match"]}


# --- routes -----------------------------------------------------------------------------------------------------------


def test_every_rpc_at_the_edge_has_its_route_and_no_other_has() -> None:
    assert set(_routes()) - {"/healthz"} == {rpc.path for rpc in CONTRACTS.edge_rpcs}


def test_a_token_is_required_unless_anyone_may_call() -> None:
    for rpc in CONTRACTS.edge_rpcs:
        needed = _routes()[rpc.path]["typed_per_filter_config"][jwt.FILTER]["requirement_name"]
        assert needed == ("optional" if rpc.open_to_anyone else "required")


def test_only_idempotent_rpcs_are_tried_again() -> None:
    for rpc in CONTRACTS.edge_rpcs:
        assert ("retry_policy" in _routes()[rpc.path]["route"]) == rpc.idempotent


def test_streams_end_only_when_nothing_moves_and_are_not_compressed() -> None:
    watch = _routes()[RPCS["WatchSeats"].path]
    assert (watch["route"]["timeout"], watch["route"]["idle_timeout"]) == ("0s", "60s")
    assert watch["typed_per_filter_config"][routes.COMPRESSOR]["disabled"]
    unary = _routes()[RPCS["GetSeatMap"].path]
    assert unary["route"]["timeout"] == "15s"
    assert routes.COMPRESSOR not in unary["typed_per_filter_config"]


def test_a_webhooks_body_may_be_larger_before_and_after_transcoding() -> None:
    sizes = {
        json.dumps(route["match"]): route["typed_per_filter_config"][routes.BUFFER]["buffer"]["max_request_bytes"]
        for route in _host()["routes"]
        if "buffer" in route["typed_per_filter_config"].get(routes.BUFFER, {})
    }
    assert sizes[json.dumps({"path": RPCS["HandleCallback"].path})] == 262144
    assert sizes[json.dumps({"safe_regex": {"regex": "/api/v1/payments/callback/[^/:]+/*([?].*)?"}})] == 262144
    assert sizes[json.dumps({"prefix": "/api/v1/"})] == 65536


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "requests", "keys"),
    [
        ("CreateReservation", 10, [["user"], ["user", "masked_remote_address"]]),
        ("InitiatePayment", 5, [["user"], ["user", "masked_remote_address"]]),
        ("GetSeatMap", 30, [["user"], ["user", "masked_remote_address"]]),
        ("Login", 60, [["masked_remote_address"]]),
    ],
)
def test_limits_are_the_policies(name: str, requests: int, keys: list[list[str]]) -> None:
    limit = ratelimits.limit_of(RPCS[name], enforced=True)
    assert limit is not None
    assert [[entry["key"] for entry in d["entries"]] for d in limit["descriptors"]] == keys
    for descriptor in limit["descriptors"]:
        assert descriptor["token_bucket"] == {
            "max_tokens": requests,
            "tokens_per_fill": requests,
            "fill_interval": "60s",
        }


def test_limits_that_are_off_are_there_but_endless() -> None:
    for route in _routes(limits=False).values():
        limit = route["typed_per_filter_config"].get(ratelimits.FILTER)
        if limit is not None:
            assert {d["token_bucket"]["max_tokens"] for d in limit["descriptors"]} == {ratelimits.ENDLESS}


def test_a_limit_is_for_the_rpcs_that_it_names() -> None:
    limit = {"target": "0.1s", "least": 1, "most": 2, "rpcs": ["BookingService.GetSeatMap"]}
    limits = admission.limits({"crowd": limit}, CONTRACTS.edge_rpcs)
    (matcher,) = limits["admission_crowd"]["xds_matcher"]["matcher_list"]["matchers"]
    grpc, rest = matcher["predicate"]["not_matcher"]["or_matcher"]["predicate"]
    path = "/marquee.booking.v1.BookingService/GetSeatMap"
    assert grpc["single_predicate"]["value_match"] == {"exact": path}
    method, regex = (each["single_predicate"]["value_match"] for each in rest["and_matcher"]["predicate"])
    assert method == {"exact": "GET"}
    for same in ("", "/", "//", "?x=1", "/?x=1"):
        assert re.fullmatch(regex["safe_regex"]["regex"], f"/api/v1/shows/0198/seats{same}")
    assert not re.fullmatch(regex["safe_regex"]["regex"], "/api/v1/shows/0198/seats/stream")
    others = admission.filters_without({"crowd": limit}, CONTRACTS.edge_rpcs)
    assert {rpc_path for rpc_path, without in others.items() if not without} == {path}
    assert {rpc.service for rpc in admission.named(["CatalogService.*"], CONTRACTS.edge_rpcs)} == {"CatalogService"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["BookingService.Create"], "there is no BookingService.Create"),
        (["BookingService.WatchSeats"], "is a stream"),
        (["BookingService.GetBooking", "UserService.Login"], "not of one service"),
    ],
)
def test_a_limit_of_what_must_not_be_limited_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(admission.UnknownRpcError, match=said):
        admission.limits({"x": {"target": "1s", "least": 1, "most": 2, "rpcs": names}}, CONTRACTS.edge_rpcs)


def _rest_paths(name: str) -> list[str]:
    return [rule.regex() for rule in RPCS[name].http_rules]


def test_a_verb_is_known_as_the_transcoder_knows_it() -> None:
    for path in ("/api/v1/bookings/0198:cancel", "/api/v1/bookings/0198/cancel", "/api/v1/bookings/0198:cancel/?a=b"):
        assert [bool(re.fullmatch(regex, path)) for regex in _rest_paths("CancelBooking")] == [True]
    for path in ("/api/v1/admin/shows/0198/seats:block", "/api/v1/admin/shows/0198/seats/block"):
        assert [bool(re.fullmatch(regex, path)) for regex in _rest_paths("BlockSeats")] == [True]
    for stream in ("bookings/0198:watch", "bookings/0198/watch", "shows/0198/seats:watch", "shows/0198/seats/watch"):
        for name in ("GetBooking", "ListBookings", "GetSeatMap", "GetShow"):
            assert not any(re.fullmatch(regex, f"/api/v1/{stream}") for regex in _rest_paths(name)), name
    assert not re.fullmatch(_rest_paths("GetBooking")[0], "/api/v1/bookings/0:8")


def test_a_call_that_came_as_its_rpc_does_not_pass_what_is_for_rest_or_for_others() -> None:
    for path, route in _routes().items():
        off = {name for name, own in route["typed_per_filter_config"].items() if own.get("disabled")}
        assert path == "/healthz" or off >= {routes.FAULTS, routes.TRANSCODER, "admission.x"}


def test_streams_and_money_have_no_limit_of_calls(settings: Settings) -> None:
    limited = json.dumps([f for f in _filters(settings) if f["name"].startswith("admission.")])
    for rpc in CONTRACTS.edge_rpcs:
        if rpc.streaming or rpc.owner == "payment":
            assert f'"{rpc.path}"' not in limited
        elif rpc.service in ("BookingService", "CatalogService"):
            assert limited.count(f'"{rpc.path}"') == 1, rpc.name


def _filters(settings: Settings) -> list[dict[str, Any]]:
    listener = render.render(settings, CONTRACTS).listener
    found: list[dict[str, Any]] = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    return found


def test_only_a_providers_reports_go_first(settings: Settings) -> None:
    (host,) = render.render(settings, CONTRACTS).routes["virtual_hosts"]
    first = [route["name"] for route in host["routes"] if route.get("route", {}).get("priority") == "HIGH"]
    assert first == ["PaymentService.HandleCallback"]


# --- guards and errors ------------------------------------------------------------------------------------------------


def test_the_script_knows_every_path_with_fields() -> None:
    script = guards.script((render.BASE / "guard.lua").read_text(), CONTRACTS.edge_rpcs)
    assert '{path = "^/api/v1/shows/[^/]+/seats[:/]watch/*$", fields = {["showid"] = "show_id"}}' in script
    assert '["movie.movieid"] = "movie.movie_id"' in script
    assert "--<path_fields>" not in script


def test_the_guard_knows_which_requests_are_streams() -> None:
    source = (render.BASE / "guard.lua").read_text()
    assert "CLIENT_STREAMS = {\n}" in guards.script(source, CONTRACTS.edge_rpcs)
    streaming = dataclasses.replace(RPCS["ListCities"], client_streaming=True)
    assert f'CLIENT_STREAMS = {{\n  ["{streaming.path}"] = true,\n}}' in guards.script(source, (streaming,))


def test_the_reader_of_faults_knows_every_field_of_a_body_and_which_are_lists() -> None:
    script = faults.script((render.BASE / "faults.lua").read_text(), CONTRACTS)
    for line in (
        '["seats"] = true,',
        '["show.prices"] = true,',
        '["show.prices.price.units"] = false,',
        '["show.start_time"] = false,',
        '["marquee.user.v1.TokenDelivery"] = "TOKEN_DELIVERY_BODY, TOKEN_DELIVERY_COOKIE",',
    ):
        assert f"\n  {line}\n" in script
    assert "start_time.seconds" not in script


def test_a_script_must_have_the_markers_that_it_should() -> None:
    assert fill_lua("a --<b> c", b="1") == "a 1 c"
    for source in ("a", "--<b> --<b>", "--<b> --<c>"):
        with pytest.raises(UnknownMarkerError, match=r"--<[bc]>"):
            fill_lua(source, b="1")


def test_lua_patterns_quote_what_lua_would_read() -> None:
    assert guards.lua_pattern("/api/v1/users/jwks.json") == "^/api/v1/users/jwks%.json/*$"
    assert guards.lua_pattern("/a-b/{c}:d") == "^/a%-b/[^/]+[:/]d/*$"


def test_every_refusal_is_told_to_rest_and_to_grpc() -> None:
    mappers = errors.local_reply_config()["mappers"]
    assert len(mappers) == 2 * len(errors.REFUSALS)
    assert all(refusal.message for refusal in errors.REFUSALS)
    rest, grpc = mappers[0], mappers[1]
    assert rest["status_code"] == 503
    assert rest["body_format_override"]["json_format"]["details"][0]["reason"] == "OVERLOADED"
    assert grpc["status_code"] == 200
    assert {"grpc-status", "grpc-message", "grpc-status-details-bin"} <= {
        header["header"]["key"] for header in grpc["headers_to_add"]
    }


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a JWKS"),
        ("[]", "not a JWKS"),
        ('{"keys": []}', "no EC key"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "no EC key"),
    ],
)
def test_keys_that_verify_nobody_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "jwks.json").write_text(text)
    with pytest.raises(jwt.KeysUnreadableError, match=said):
        jwt.read_keys(tmp_path / "jwks.json")


def test_a_symmetric_key_beside_a_good_one_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [_public_key("a"), {"kty": "oct", "k": "c2VjcmV0", "kid": "b"}]}))
    assert [key["kid"] for key in json.loads(jwt.read_keys(path))["keys"]] == ["a"]


# --- files ------------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_written_again(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert set(render.write(render.render(settings, CONTRACTS), folder)) == {
        "envoy.json",
        "listener.json",
        "routes.json",
        "jwt.json",
    }
    assert render.write(render.render(settings, CONTRACTS), folder) == ()
    settings.jwks_file.write_text(json.dumps({"keys": [_public_key("b")]}))
    assert render.write(render.render(settings, CONTRACTS), folder) == ("jwt.json",)
    calmer = settings.model_copy(update={"rate_limits": "off"})
    assert set(render.write(render.render(calmer, CONTRACTS), folder)) == {"listener.json", "routes.json"}
    assert sorted(path.name for path in folder.iterdir()) == ["envoy.json", "jwt.json", "listener.json", "routes.json"]


def test_no_marker_stays(settings: Settings, tmp_path: Path) -> None:
    for name, text in render.render(settings, CONTRACTS).files(tmp_path).items():
        strings = [value for value in _strings(json.loads(text)) if value.startswith("<")]
        assert strings == [], name


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def test_an_unknown_marker_is_an_error() -> None:
    assert fill({"a": ["<b>", "x<b>"]}, {"b": 1}) == {"a": [1, "x<b>"]}
    with pytest.raises(UnknownMarkerError, match="<c>"):
        fill({"a": "<c>"}, {"b": 1})


def test_the_order_of_filters_is_the_one_that_was_proven() -> None:
    names = [
        item["name"].rsplit(".", 1)[-1] for item in yaml.safe_load((render.BASE / "edge.yaml").read_text())["filters"]
    ]
    assert names == [
        "compressor",
        "grpc_web",
        "cors",
        "flood",
        "cache",
        "buffer",
        "crowd",
        "begun",
        "browsing",
        "guard",
        "faults",
        "grpc_json_transcoder",
        "jwt_authn",
        "local_ratelimit",
        "router",
    ]


def test_a_name_is_resolved_and_an_address_is_not(settings: Settings) -> None:
    named = settings.model_copy(update={"services": {"booking": Address(host="booking.svc", port=1)}})
    by_name = {c["name"]: c["type"] for c in render.render(named, CONTRACTS).bootstrap["static_resources"]["clusters"]}
    assert by_name == {"booking": "STRICT_DNS", "nowhere": "STATIC"}


@pytest.mark.parametrize("more", [{}, {"site": Address(host="site", port=80), "cors_origins": ("https://a.example",)}])
def test_envoy_accepts_it(settings: Settings, more: dict[str, Any]) -> None:
    check.check(render.render(settings.model_copy(update=more), CONTRACTS))


def test_envoy_refuses_what_is_wrong(settings: Settings) -> None:
    edge = render.render(settings, CONTRACTS)
    edge.routes["virtual_hosts"][0]["routes"][0]["route"]["timeout"] = "soon"
    with pytest.raises(check.EdgeRefusedError, match="soon"):
        check.check(edge)
