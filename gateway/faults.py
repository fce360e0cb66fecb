"""What ``envoy/faults.lua`` must know of the contracts: the fields of JSON bodies, the enums, and the error's shape."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from gateway import errors
from gateway.contracts import Contracts
from gateway.template import fill_lua, lua_lines

WRITTEN_AS_TEXT = frozenset({"google.protobuf.Timestamp", "google.protobuf.FieldMask", "google.protobuf.Duration"})
"""Messages that are one string in JSON."""


def script(source: str, contracts: Contracts) -> str:
    """The Lua source with its tables."""
    pool = DescriptorPool()
    for file in contracts.files.file:
        pool.Add(file)
    lists: dict[str, bool] = {}
    enums: dict[str, EnumDescriptor] = {}
    for rpc in contracts.edge_rpcs:
        has_body = any(rule.body == "*" for rule in rpc.http_rules)
        for path, field in fields(pool.FindMessageTypeByName(rpc.request)):
            if field.enum_type is not None:
                enums[field.enum_type.full_name] = field.enum_type
            if has_body:
                # A list in one request and none in another counts as one: then it is not taken for the fault.
                lists[path] = lists.get(path, False) or field.is_repeated
    return fill_lua(
        source,
        answer=f"[==[{errors.fault_template()}]==]",
        fields=lua_lines(f'["{path}"] = {str(many).lower()}' for path, many in sorted(lists.items())),
        choices=lua_lines(f'["{name}"] = "{_choices(enum)}"' for name, enum in sorted(enums.items())),
    )


def fields(
    message: Descriptor, above: str = "", within: tuple[Descriptor, ...] = ()
) -> Iterator[tuple[str, FieldDescriptor]]:
    """Every field of ``message`` with its path, those of the messages in it too, each message once a path."""
    for field in message.fields:
        path = f"{above}{field.name}"
        yield path, field
        inner = field.message_type
        if inner is not None and inner.full_name not in WRITTEN_AS_TEXT and inner not in within:
            yield from fields(inner, f"{path}.", (*within, message))


def _choices(enum: EnumDescriptor) -> str:
    return ", ".join(value.name for value in enum.values if value.number != 0)
