"""The contracts as the tests in this folder walk them."""

from __future__ import annotations

from collections.abc import Iterator

# Before the contracts are read: options that are not known then stay unread bytes.
from buf.validate import validate_pb2  # noqa: F401
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from gateway import contracts as contract_files

CONTRACTS = contract_files.read()
FILES: tuple[FileDescriptorProto, ...] = tuple(f for f in CONTRACTS.files.file if f.package.startswith("marquee."))


def messages() -> Iterator[tuple[str, DescriptorProto]]:
    """Every message of ours with its full name."""
    for file in FILES:
        for message in file.message_type:
            yield from _with_nested(f"{file.package}.{message.name}", message)


def _with_nested(name: str, message: DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    yield name, message
    for nested in message.nested_type:
        yield from _with_nested(f"{name}.{nested.name}", nested)


MESSAGES = dict(messages())


def fields() -> Iterator[tuple[str, FieldDescriptorProto]]:
    """Every field of ours with its full name."""
    for name, message in MESSAGES.items():
        for field in message.field:
            yield f"{name}.{field.name}", field
