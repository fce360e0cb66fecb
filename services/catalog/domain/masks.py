"""Field masks: which fields an update changes."""

from __future__ import annotations

from collections.abc import Iterable

from services.kit.errors import InvalidArgument

FIELD = "update_mask"


def chosen(
    paths: Iterable[str], allowed: frozenset[str], resource: str, *, unset: Iterable[str] = ()
) -> frozenset[str]:
    """The fields to change; ``*`` alone is all of ``allowed`` but ``unset``, which have no value in the request.

    Paths may begin with the resource (``movie.title``).

    Raises:
        InvalidArgument: names ``update_mask``: empty, or a field that cannot be changed.
    """
    names = [path.removeprefix(f"{resource}.") for path in paths]
    if not names:
        raise InvalidArgument.of(FIELD, "must name the fields to change, or *")
    if names == ["*"]:
        return allowed.difference(unset)
    for name in names:
        if name not in allowed:
            raise InvalidArgument.of(
                FIELD, f"{name!r} is not a field that can be changed: {', '.join(sorted(allowed))}"
            )
    return frozenset(names)
