"""The policy that the contract gives each RPC (``marquee.edge.v1.policy``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import descriptor, message, message_factory

from marquee.edge import v1 as edge_v1

ROLE_WORDS = {edge_v1.ROLE_CUSTOMER: "customer", edge_v1.ROLE_STAFF: "staff", edge_v1.ROLE_ADMIN: "admin"}


@dataclass(frozen=True, slots=True)
class RpcPolicy:
    """What an RPC needs of its caller, as the door asks it."""

    method: str
    request: type[message.Message]
    internal: bool
    anyone: bool
    roles: frozenset[str]
    timeout_seconds: float | None
    max_request_bytes: int


def policies_of(services: Iterable[descriptor.ServiceDescriptor]) -> dict[str, RpcPolicy]:
    """Every RPC of ``services`` by its full name (``/marquee.user.v1.UserService/Login``).

    Raises:
        LookupError: an RPC has no policy; nothing is public by accident.
    """
    return {policy.method: policy for service in services for policy in _of_service(service)}


def _of_service(service: descriptor.ServiceDescriptor) -> Iterator[RpcPolicy]:
    for method in service.methods:
        options = method.GetOptions()
        name = f"/{service.full_name}/{method.name}"
        if not options.HasExtension(edge_v1.policy):
            raise LookupError(f"{name} has no marquee.edge.v1.policy")
        policy = options.Extensions[edge_v1.policy]
        yield RpcPolicy(
            method=name,
            request=message_factory.GetMessageClass(method.input_type),
            internal=policy.audience == edge_v1.AUDIENCE_INTERNAL,
            anyone=edge_v1.ROLE_ANYONE in policy.allow,
            roles=frozenset(ROLE_WORDS[role] for role in policy.allow if role in ROLE_WORDS),
            timeout_seconds=policy.timeout.ToTimedelta().total_seconds() if policy.HasField("timeout") else None,
            max_request_bytes=policy.max_request_bytes or 64 * 1024,
        )
