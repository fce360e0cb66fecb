"""The contracts as the edge reads them: every RPC with its policy, its REST bindings and its shape.

Source: ``gen/contracts.binpb``, the descriptor set that ``protos/build.py`` writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto, MethodOptions

from marquee.edge.v1 import policy_pb2

GENERATED = Path(__file__).parents[1] / "gen" / "contracts.binpb"

_VARIABLE = re.compile(r"\{([^}=]+)(?:=[^}]*)?\}")


class ContractsMissingError(Exception):
    """The descriptor set has not been built."""


@dataclass(frozen=True)
class HttpRule:
    """One REST binding of an RPC: ``GET /api/v1/shows/{show_id}/seats``."""

    method: str
    template: str
    body: str

    @property
    def path_fields(self) -> tuple[str, ...]:
        """The request's fields that the path carries, as the contract names them (``movie.movie_id``)."""
        return tuple(_VARIABLE.findall(self.template))

    def pattern(self, segment: str) -> str:
        """The template with each variable replaced by ``segment``, which must match one path segment."""
        return _VARIABLE.sub(lambda _: segment, self.template)

    @property
    def verb(self) -> str:
        """What stands behind the colon at the template's end: ``watch``, or nothing."""
        return self.pattern("").partition(":")[2]

    def regex(self) -> str:
        """What a call's path, with its query, matches in full.

        The transcoder takes slashes at the end too, and one for a verb's colon; guard.lua refuses other colons.
        """
        parts = [re.escape(part) for part in _VARIABLE.split(self.template)[::2]]
        parts[-1] = parts[-1].replace(":", "[:/]")
        return "[^/:]+".join(parts) + "/*([?].*)?"


@dataclass(frozen=True)
class Rpc:
    """One RPC of the contracts."""

    package: str
    service: str
    name: str
    request: str
    response: str
    client_streaming: bool
    server_streaming: bool
    idempotent: bool
    policy: policy_pb2.Policy | None
    http_rules: tuple[HttpRule, ...]

    @property
    def full_service(self) -> str:
        return f"{self.package}.{self.service}"

    @property
    def path(self) -> str:
        """The path of a gRPC call, which is also what REST becomes after transcoding."""
        return f"/{self.full_service}/{self.name}"

    @property
    def owner(self) -> str:
        """The service (process) that answers it: ``booking`` of ``marquee.booking.v1``."""
        return self.package.split(".")[1]

    @property
    def streaming(self) -> bool:
        return self.client_streaming or self.server_streaming

    @property
    def at_edge(self) -> bool:
        """Whether the edge routes it. An RPC without a policy is not: nothing is public by accident."""
        return self.policy is not None and self.policy.audience in (
            policy_pb2.AUDIENCE_UNSPECIFIED,
            policy_pb2.AUDIENCE_EDGE,
        )

    @property
    def open_to_anyone(self) -> bool:
        return self.policy is not None and policy_pb2.ROLE_ANYONE in self.policy.allow


@dataclass(frozen=True)
class Contracts:
    """All RPCs, and the descriptor set that Envoy's transcoder reads."""

    files: FileDescriptorSet

    @cached_property
    def rpcs(self) -> tuple[Rpc, ...]:
        return tuple(_rpcs(self.files))

    @property
    def edge_rpcs(self) -> tuple[Rpc, ...]:
        return tuple(rpc for rpc in self.rpcs if rpc.at_edge)

    @property
    def owners(self) -> tuple[str, ...]:
        """The services behind the edge, each once, by name."""
        return tuple(sorted({rpc.owner for rpc in self.edge_rpcs}))

    @property
    def edge_services(self) -> tuple[str, ...]:
        """The full names of the gRPC services that have RPCs at the edge."""
        return tuple(sorted({rpc.full_service for rpc in self.edge_rpcs}))

    def descriptor_for_transcoder(self) -> bytes:
        """The descriptor set without comments, which are half of it and nothing to the transcoder."""
        bare = FileDescriptorSet()
        bare.CopyFrom(self.files)
        for file in bare.file:
            file.ClearField("source_code_info")
        return bare.SerializeToString(deterministic=True)


def read(path: Path = GENERATED) -> Contracts:
    """Read the contracts.

    Raises:
        ContractsMissingError: ``path`` does not exist.
    """
    if not path.exists():
        raise ContractsMissingError(f"{path} is missing: run `make contracts` (python protos/build.py) first")
    return Contracts(FileDescriptorSet.FromString(path.read_bytes()))


def _rpcs(files: FileDescriptorSet) -> Iterator[Rpc]:
    for file in files.file:
        if not file.package.startswith("marquee."):
            continue
        for service in file.service:
            for method in service.method:
                yield _rpc(file.package, service.name, method)


def _rpc(package: str, service: str, method: MethodDescriptorProto) -> Rpc:
    options = method.options
    return Rpc(
        package=package,
        service=service,
        name=method.name,
        request=method.input_type.removeprefix("."),
        response=method.output_type.removeprefix("."),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        idempotent=options.idempotency_level in (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT),
        policy=options.Extensions[policy_pb2.policy] if options.HasExtension(policy_pb2.policy) else None,
        http_rules=tuple(_http_rules(options)),
    )


def _http_rules(options: MethodOptions) -> Iterator[HttpRule]:
    http: Any = annotations_pb2.http  # its stub does not say what it extends
    if not options.HasExtension(http):
        return
    main: http_pb2.HttpRule = options.Extensions[http]
    for rule in (main, *main.additional_bindings):
        yield _http_rule(rule)


def _http_rule(rule: http_pb2.HttpRule) -> HttpRule:
    verb = rule.WhichOneof("pattern")
    if verb is None or verb == "custom":
        raise ValueError(f"a REST binding needs one of get, put, post, delete and patch: {rule}")
    return HttpRule(method=verb.upper(), template=getattr(rule, verb), body=rule.body)
