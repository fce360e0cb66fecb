"""What ``envoy/guard.lua`` must know of the contracts: REST's path fields and verbs, which requests are streams."""

from __future__ import annotations

import re

from gateway.contracts import Rpc
from gateway.template import fill_lua, lua_lines


def script(source: str, rpcs: tuple[Rpc, ...]) -> str:
    """The Lua source with its tables."""
    rules = {rule.template: rule for rpc in rpcs for rule in rpc.http_rules if rule.path_fields}
    paths = [
        f'{{path = "{lua_pattern(template)}", fields = {{{_table(rule.path_fields)}}}}}'
        for template, rule in sorted(rules.items())
    ]
    streams = [f'["{rpc.path}"] = true' for rpc in rpcs if rpc.client_streaming]
    verbs = sorted({rule.verb for rpc in rpcs for rule in rpc.http_rules if rule.verb})
    return fill_lua(
        source,
        path_fields=lua_lines(paths),
        verbs=lua_lines(f"{verb} = true" for verb in verbs),
        client_streams=lua_lines(streams),
    )


def folded(field: str) -> str:
    """A field's name as the script compares it: `movie.movieId` and `movie.movie_id` are one."""
    return field.replace("_", "").lower()


def lua_pattern(template: str) -> str:
    """A REST template as a Lua pattern: ``/api/v1/shows/{show_id}`` becomes ``^/api/v1/shows/[^/]+/*$``.

    It takes what ``HttpRule.regex`` takes: slashes at the end, and one for a verb's colon.
    """
    parts = [re.sub(r"([^\w/:])", r"%\1", part) for part in re.split(r"\{[^}]*\}", template)]
    return "^" + "[^/]+".join(parts).replace(":", "[:/]") + "/*$"


def _table(fields: tuple[str, ...]) -> str:
    return ", ".join(f'["{folded(field)}"] = "{field}"' for field in fields)
