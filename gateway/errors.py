"""How it is refused: what Envoy answers itself, in the one shape of all our errors.

Every status has two mappers, and the first that matches wins. REST gets JSON; gRPC and grpc-web get HTTP 200 with
`grpc-status` and the same google.rpc.Status in `grpc-status-details-bin`.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any

from google.rpc import code_pb2, error_details_pb2, status_pb2

from gateway import admission
from marquee.edge.v1 import errors_pb2

DOMAIN = "marquee"
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
UNREAD = "x-marquee-unread"
"""Marks an answer in which Envoy's own words stand, for ``envoy/faults.lua`` to make more of it and remove the mark."""

CEL = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"

_TRANSCODER = "response.code_details.contains('grpc_json_transcode_failure')"
_TOO_MUCH = "too much is going on at this moment; try again soon"
_SCRIPT = "response.code_details == 'lua_response'"


@dataclass(frozen=True)
class Refusal:
    """One kind of answer of Envoy's own."""

    reason: str
    message: str
    status: int | None = None
    """The HTTP status that Envoy chose; any, where it is ``None``."""
    flags: tuple[str, ...] = ()
    """Envoy's response flags that tell it from others of its status."""
    at_least: int | None = None
    """Every status from this one on, for those that have no line of their own."""
    http_status: int | None = None
    """What REST gets instead of the reason's own status."""
    when: str = ""
    """What else must hold, in CEL: which of Envoy's filters refused."""
    field: str = ""
    """What is at fault. The message is then ``field: rule``, as the services' are."""
    retry_after_seconds: int | None = None
    """When to try again, where that is known."""
    in_envoys_words: bool = False
    """Whether Envoy's text is meant for clients: it tells what it cannot read."""

    @property
    def text(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    @property
    def answer(self) -> errors_pb2.Answer:
        """The reason's code and status in the contracts."""
        value = errors_pb2.ErrorReason.DESCRIPTOR.values_by_name[f"ERROR_REASON_{self.reason}"]
        answer: errors_pb2.Answer = value.GetOptions().Extensions[errors_pb2.answer]
        return answer


REFUSALS = (
    # The first of all: it is asked for most when there is least time.
    Refusal(
        "OVERLOADED",
        _TOO_MUCH,
        status=503,
        when=f"response.code_details == '{admission.REACHED}'",
        retry_after_seconds=1,
    ),
    Refusal("OVERLOADED", _TOO_MUCH, flags=("UO", "OM"), retry_after_seconds=1),
    Refusal(
        "INVALID_ARGUMENT",
        "the request cannot be read",
        status=400,
        when=f"{_TRANSCODER} || {_SCRIPT}",
        in_envoys_words=True,
    ),
    Refusal(
        "INVALID_ARGUMENT",
        "must not hold an escaped slash, backslash or NUL (%2F, %5C, %00) nor a fragment (#)",
        status=400,
        when="response.code_details == 'path_normalization_failed'",
        field="path",
    ),
    Refusal(
        "INVALID_ARGUMENT",
        "is missing",
        status=400,
        when="response.code_details == 'missing_host_header'",
        field="host",
    ),
    Refusal(
        "INVALID_ARGUMENT",
        "the request is not well-formed HTTP",
        status=400,
        when="response.code_details.startsWith('http')",
    ),
    Refusal(
        "INVALID_ARGUMENT",
        "must be base64, as its content type says",
        status=400,
        when="response.code_details.startsWith('grpc_base_64')",
        field="request",
    ),
    Refusal("INVALID_ARGUMENT", "the request cannot be read", status=400),
    # By guard.lua, of gRPC and grpc-web.
    Refusal(
        "INVALID_ARGUMENT",
        "must be one whole message, behind five bytes that tell its length",
        status=422,
        field="request",
    ),
    Refusal("INVALID_ARGUMENT", "HTTP/1.1 or HTTP/2 is needed", status=426),
    Refusal("INVALID_ARGUMENT", "must be chunked, or left out", status=501, field="transfer-encoding"),
    Refusal(
        "INVALID_ARGUMENT",
        "no other protocol is spoken here",
        status=403,
        when="response.code_details == 'upgrade_failed'",
        field="upgrade",
    ),
    Refusal("UNAUTHENTICATED", "a valid access token is needed", status=401),
    # The JWT filter's answer to another audience's token. Whether a user may do something is answered by the services.
    Refusal("UNAUTHENTICATED", "a valid access token is needed", status=403),
    Refusal("NOT_FOUND", "there is nothing here", status=404),
    Refusal("NOT_FOUND", "there is nothing here for this method", status=405),
    Refusal("DEADLINE_EXCEEDED", "the request did not arrive in time", status=408, http_status=408),
    Refusal("REQUEST_TOO_LARGE", "the request is too large", status=413),
    Refusal("RATE_LIMITED", "too many requests; wait as long as retry-after says", status=429),
    Refusal("REQUEST_TOO_LARGE", "the request's headers are too large", status=431, http_status=431),
    Refusal(
        "UNAVAILABLE", "the service cannot be reached at this moment; try again soon", status=503, retry_after_seconds=1
    ),
    Refusal("DEADLINE_EXCEEDED", "the service did not answer in time", status=504),
    # A service that answered with something else than gRPC or died halfway.
    Refusal(
        "UNAVAILABLE",
        "the service cannot be reached at this moment; try again soon",
        at_least=501,
        retry_after_seconds=1,
    ),
    Refusal("INTERNAL", "something went wrong on our side", at_least=500),
    Refusal("INVALID_ARGUMENT", "the request cannot be read", at_least=400),
)


def local_reply_config() -> dict[str, Any]:
    return {"mappers": [mapper for refusal in REFUSALS for mapper in (_rest(refusal), _grpc(refusal))]}


def status_of(refusal: Refusal) -> status_pb2.Status:
    """The refusal as every protocol tells it."""
    status = status_pb2.Status(code=refusal.answer.code, message=refusal.text)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN))
    if refusal.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=refusal.field, description=refusal.message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if refusal.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(refusal.retry_after_seconds)
        status.details.add().Pack(retry)
    return status


def fault_template() -> str:
    """What REST gets for a field at fault. ``envoy/faults.lua`` fills in field, rule, and the two again."""
    return json.dumps(_body(Refusal("INVALID_ARGUMENT", "%s", field="%s")), separators=(",", ":")) + "\n"


def _body(refusal: Refusal) -> dict[str, Any]:
    """The refusal in JSON, as the transcoder prints those of the services."""
    details: list[dict[str, Any]] = [
        {"@type": ERROR_INFO, "reason": refusal.reason, "domain": DOMAIN, "metadata": {}},
    ]
    if refusal.field:
        violation = {"field": refusal.field, "description": refusal.message, "reason": ""}
        details.append({"@type": BAD_REQUEST, "fieldViolations": [violation]})
    if refusal.retry_after_seconds is not None:
        details.append({"@type": RETRY_INFO, "retryDelay": f"{refusal.retry_after_seconds}s"})
    return {"code": refusal.answer.code, "message": refusal.text, "details": details}


def _rest(refusal: Refusal) -> dict[str, Any]:
    body = json.loads(_literal(json.dumps(_body(refusal))))
    headers = {"x-content-type-options": "nosniff", "cache-control": "no-store", **_advice(refusal)}
    if refusal.in_envoys_words:
        body["message"] = "%LOCAL_REPLY_BODY%"
        headers[UNREAD] = "1"
    return {
        "filter": {"and_filter": {"filters": [*_matches(refusal), _is_rest()]}},
        "status_code": refusal.http_status or refusal.answer.http_status,
        "body_format_override": {"content_type": "application/json", "json_format": body},
        "headers_to_add": _headers(headers),
    }


def _grpc(refusal: Refusal) -> dict[str, Any]:
    details = base64.b64encode(status_of(refusal).SerializeToString(deterministic=True)).decode().rstrip("=")
    headers = {
        "grpc-status": str(refusal.answer.code),
        "grpc-message": _literal(urllib.parse.quote(refusal.text, safe=" ,;:.'()/#")),
        "grpc-status-details-bin": details,
        "cache-control": "no-store",
        **_advice(refusal),
    }
    return {
        # An `and` needs two members; health checks, which the second leaves out, do not come by here.
        "filter": {"and_filter": {"filters": [*_matches(refusal), {"not_health_check_filter": {}}]}},
        "status_code": 200,
        "body": {"inline_string": ""},
        "body_format_override": {"text_format_source": {"inline_string": ""}},
        "headers_to_add": _headers(headers),
    }


def _literal(text: str) -> str:
    """Envoy reads a `%` as the begin of a value of its own, unless there are two."""
    return text.replace("%", "%%")


def _advice(refusal: Refusal) -> dict[str, str]:
    """What the caller should do about it, as RFC 9110 has it."""
    advice = {}
    if refusal.answer.code == code_pb2.UNAUTHENTICATED:
        # Asked of a 401. Envoy's own would name the internal path as the realm.
        advice["www-authenticate"] = "Bearer"
    if refusal.retry_after_seconds is not None:
        advice["retry-after"] = f"{refusal.retry_after_seconds}"
    return advice


def _matches(refusal: Refusal) -> list[dict[str, Any]]:
    matches: list[dict[str, Any]] = []
    if refusal.when:
        matches.append(
            {"extension_filter": {"name": "cel", "typed_config": {"@type": CEL, "expression": refusal.when}}}
        )
    if refusal.flags:
        matches.append({"response_flag_filter": {"flags": list(refusal.flags)}})
    if refusal.status is not None:
        matches.append(_status("EQ", refusal.status))
    if refusal.at_least is not None:
        matches.append(_status("GE", refusal.at_least))
    return matches


def _status(comparison: str, status: int) -> dict[str, Any]:
    # Envoy requires a runtime key although nobody overrides it.
    value = {"default_value": status, "runtime_key": f"edge.local_reply.{comparison.lower()}_{status}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


def _is_rest() -> dict[str, Any]:
    """REST: another content type than gRPC's, or the mark that transcoding leaves (it sets gRPC's content type).

    The mark is believed because a client's own is removed before anything else (``early_header_mutation``, edge.yaml).
    """
    grpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    return {
        "or_filter": {
            "filters": [
                {"header_filter": {"header": {**grpc, "invert_match": True, "treat_missing_header_as_empty": True}}},
                {"header_filter": {"header": {"name": "x-envoy-original-method", "present_match": True}}},
            ]
        }
    }


def _headers(headers: dict[str, str]) -> list[dict[str, Any]]:
    # What is refused before it has a request id (headers too large, say) gets one here.
    request_id = {"header": {"key": "x-request-id", "value": "%UNIQUE_ID%"}, "append_action": "ADD_IF_ABSENT"}
    always = [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in headers.items()
    ]
    return [request_id, *always]
