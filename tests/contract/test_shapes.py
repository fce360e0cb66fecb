"""How the contracts look to those who read them as JSON."""

from __future__ import annotations

import re

import pytest
from contract_files import FILES, fields
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

Type = FieldDescriptorProto
WIDE = {
    Type.TYPE_INT64,
    Type.TYPE_UINT64,
    Type.TYPE_SINT64,
    Type.TYPE_FIXED64,
    Type.TYPE_SFIXED64,
}


def test_json_names_are_lower_camel_case() -> None:
    wrong = [name for name, field in fields() if not re.fullmatch(r"[a-z][A-Za-z0-9]*", field.json_name)]
    assert wrong == []


def test_no_field_is_64_bits_wide() -> None:
    """JSON writes those as strings, and browsers cannot count that far."""
    assert [name for name, field in fields() if field.type in WIDE] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_enums_start_with_unspecified(file: FileDescriptorProto) -> None:
    for enum in file.enum_type:
        assert enum.value[0].number == 0
        assert enum.value[0].name.endswith("_UNSPECIFIED")
