"""Filling in ``envoy/edge.yaml``: a string that is nothing but ``<name>`` stands for a value of the gateway's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MARKER = re.compile(r"<([a-z_]+)>")


class UnknownMarkerError(Exception):
    """The base configuration asks for something that the gateway does not know."""


def fill(base: Any, values: Mapping[str, Any]) -> Any:
    """``base`` with every marker replaced.

    Raises:
        UnknownMarkerError: a marker has no value.
    """
    if isinstance(base, dict):
        return {key: fill(value, values) for key, value in base.items()}
    if isinstance(base, list):
        return [fill(value, values) for value in base]
    if isinstance(base, str) and (marker := _MARKER.fullmatch(base)):
        if marker[1] not in values:
            known = ", ".join(sorted(values))
            raise UnknownMarkerError(f"envoy/edge.yaml: <{marker[1]}> is not known; known are {known}")
        return values[marker[1]]
    return base
