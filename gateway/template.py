"""Filling in ``envoy/``, where markers stand for values of the gateway's.

In ``edge.yaml`` a marker is a string that is nothing but ``<name>``, in the Lua scripts a comment ``--<name>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_MARKER = re.compile(r"<([a-z_]+)>")
_LUA_MARKER = re.compile(r"--<[a-z_]+>")


class UnknownMarkerError(Exception):
    """The base configuration asks for something that the gateway does not know, or not for what it should."""


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


def fill_lua(source: str, **values: str) -> str:
    """``source`` with each marker replaced; each of ``values`` must have its own.

    Raises:
        UnknownMarkerError: a marker has no value, or a value no marker.
    """
    for name, value in values.items():
        marker = f"--<{name}>"
        if source.count(marker) != 1:
            raise UnknownMarkerError(f"a script has {source.count(marker)} lines with {marker}, and needs one")
        source = source.replace(marker, value)
    if left := _LUA_MARKER.search(source):
        raise UnknownMarkerError(f"a script asks for {left[0]}, which is not known")
    return source


def lua_lines(items: Iterable[str]) -> str:
    """The items of a Lua table, each on a line."""
    return "".join(f"\n  {item}," for item in items)
