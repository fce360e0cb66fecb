"""What the gateway reads out of the contracts."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions

from gateway import contracts
from gateway.contracts import Contracts, HttpRule
from marquee.edge.v1 import policy_pb2

CONTRACTS = contracts.read()
RPCS = {rpc.name: rpc for rpc in CONTRACTS.rpcs}


def test_an_rpc_is_read_with_its_shape_policy_and_bindings() -> None:
    rpc = RPCS["WatchSeats"]
    assert rpc.path == "/marquee.booking.v1.BookingService/WatchSeats"
    assert rpc.owner == "booking"
    assert (rpc.server_streaming, rpc.client_streaming, rpc.idempotent) == (True, False, True)
    assert rpc.open_to_anyone
    assert rpc.http_rules == (HttpRule("GET", "/api/v1/shows/{show_id}/seats:watch", ""),)


def test_additional_bindings_are_bindings() -> None:
    assert [rule.template for rule in RPCS["ListShows"].http_rules] == [
        "/api/v1/movies/{movie_id}/shows",
        "/api/v1/events/{event_id}/shows",
        "/api/v1/venues/{venue_id}/shows",
    ]


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("/api/v1/cities", ()),
        ("/api/v1/shows/{show_id}", ("show_id",)),
        ("/api/v1/admin/movies/{movie.movie_id}", ("movie.movie_id",)),
        ("/api/v1/{name=venues/*}/x/{other}", ("name", "other")),
    ],
)
def test_path_fields(template: str, fields: tuple[str, ...]) -> None:
    assert HttpRule("GET", template, "").path_fields == fields


def test_an_rpc_without_a_policy_is_not_at_the_edge() -> None:
    files = FileDescriptorSet()
    service = files.file.add(package="marquee.booking.v1", name="x.proto").service.add(name="S")
    service.method.add(name="Forgotten", input_type=".a", output_type=".b")
    inside = service.method.add(name="Inside")
    inside.options.Extensions[policy_pb2.policy].audience = policy_pb2.AUDIENCE_INTERNAL
    outside = service.method.add(name="Outside", options=MethodOptions(idempotency_level=MethodOptions.IDEMPOTENT))
    outside.options.Extensions[policy_pb2.policy].allow.append(policy_pb2.ROLE_CUSTOMER)
    assert [rpc.name for rpc in Contracts(files).edge_rpcs] == ["Outside"]


def test_the_transcoder_gets_no_comments_but_the_error_details() -> None:
    files = FileDescriptorSet.FromString(CONTRACTS.descriptor_for_transcoder())
    assert not any(file.HasField("source_code_info") for file in files.file)
    assert {"google/rpc/error_details.proto", "google/rpc/status.proto"} <= {file.name for file in files.file}


def test_missing_contracts_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(contracts.ContractsMissingError, match="make contracts"):
        contracts.read(tmp_path / "none.binpb")
