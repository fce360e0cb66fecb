"""What ``envoy/guard.lua`` must know of the contracts: which fields of a request its REST path carries."""

from __future__ import annotations

import re

from gateway.contracts import Rpc

_MARKER = "--<path_fields>"


def script(source: str, rpcs: tuple[Rpc, ...]) -> str:
    """The Lua source with its table of paths."""
    if _MARKER not in source:
        raise ValueError(f"envoy/guard.lua has no line with {_MARKER}")
    rules = {rule.template: rule for rpc in rpcs for rule in rpc.http_rules if rule.path_fields}
    lines = [
        f'\n  {{path = "{lua_pattern(template)}", fields = {{{_table(rule.path_fields)}}}}},'
        for template, rule in sorted(rules.items())
    ]
    return source.replace(_MARKER, "".join(lines))


def folded(field: str) -> str:
    """A field's name as the script compares it: `movie.movieId` and `movie.movie_id` are one."""
    return field.replace("_", "").lower()


def lua_pattern(template: str) -> str:
    """A REST template as a Lua pattern: ``/api/v1/shows/{show_id}`` becomes ``^/api/v1/shows/[^/]+$``."""
    parts = re.split(r"\{[^}]*\}", template)
    return "^" + "[^/]+".join(re.sub(r"([^\w/:])", r"%\1", part) for part in parts) + "$"


def _table(fields: tuple[str, ...]) -> str:
    return ", ".join(f'["{folded(field)}"] = "{field}"' for field in fields)
