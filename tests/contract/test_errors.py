"""The table of reasons: complete, and in agreement with how Envoy turns gRPC codes into HTTP statuses."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import EnumValueDescriptor
from google.rpc import code_pb2

from gateway import errors
from marquee.edge.v1 import errors_pb2

# Envoy's `Grpc::Utility::grpcToHttpStatus`, which its transcoder uses with `convert_grpc_status`.
ENVOY = {
    code_pb2.OK: 200,
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
    code_pb2.UNAUTHENTICATED: 401,
}

# Only Envoy itself answers these, so its own status holds.
ANSWERED_BY_ENVOY_ALONE = {"ERROR_REASON_REQUEST_TOO_LARGE"}

REASONS = list(errors_pb2.ErrorReason.DESCRIPTOR.values)


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_every_reason_has_an_answer_that_envoy_gives(reason: EnumValueDescriptor) -> None:
    assert reason.GetOptions().HasExtension(errors_pb2.answer), f"{reason.name} needs an (answer)"
    answer = reason.GetOptions().Extensions[errors_pb2.answer]
    assert answer.code != code_pb2.OK
    if reason.name not in ANSWERED_BY_ENVOY_ALONE:
        assert answer.http_status == ENVOY[answer.code]


@pytest.mark.parametrize("refusal", errors.REFUSALS, ids=lambda refusal: f"{refusal.reason}-{refusal.status}")
def test_what_envoy_refuses_itself_has_a_reason_of_the_contracts(refusal: errors.Refusal) -> None:
    assert f"ERROR_REASON_{refusal.reason}" in {reason.name for reason in REASONS}
    assert refusal.message
