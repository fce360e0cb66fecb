"""What the catalogue refuses, beyond what every service does."""

from __future__ import annotations

from uuid import UUID

from marquee.edge import v1 as edge_v1
from services.kit.errors import Conflict, NotFound, Refusal


class Retired(Refusal):
    """It is kept for old bookings only: no changes, no new shows."""

    reason = edge_v1.ERROR_REASON_RETIRED

    def __init__(self, kind: str, identifier: UUID, field: str = "") -> None:
        metadata = {f"{kind}_id": str(identifier)} | ({"field": field} if field else {})
        super().__init__(f"this {kind} is retired" + (f" ({field})" if field else ""), metadata=metadata)


class ScreenBusy(Refusal):
    """Another show is on that screen at that time."""

    reason = edge_v1.ERROR_REASON_SCREEN_BUSY

    def __init__(self, field: str = "", *, other_show_id: UUID | None = None, other_field: str = "") -> None:
        where = f"{field}: " if field else ""
        metadata = {"field": field} if field else {}
        if other_show_id is not None:
            metadata["show_id"] = str(other_show_id)
        if other_field:
            metadata["other_field"] = other_field
        other = str(other_show_id or other_field or "another show")
        super().__init__(f"{where}the screen is busy then with {other}", metadata=metadata)


class InUse(Refusal):
    """Shows to come still need it."""

    reason = edge_v1.ERROR_REASON_IN_USE

    def __init__(self, kind: str, shows: int) -> None:
        super().__init__(f"this {kind} has shows to come; cancel them first", metadata={"shows": str(shows)})


class ShowNotOnSale(Refusal):
    """The show is cancelled or has begun."""

    reason = edge_v1.ERROR_REASON_SHOW_NOT_ON_SALE


def missing(kind: str, identifier: UUID | str, field: str = "") -> NotFound:
    """There is no such thing."""
    metadata = {f"{kind}_id": str(identifier)} | ({"field": field} if field else {})
    return NotFound(f"there is no such {kind}" + (f" ({field})" if field else ""), metadata=metadata)


def require_version(read: int, present: int) -> None:
    """An update must name the version that it changes.

    Raises:
        Conflict: somebody changed it since.
    """
    if read != present:
        raise Conflict(
            "it was changed since you read it; read it again", metadata={"version": str(present), "read": str(read)}
        )
