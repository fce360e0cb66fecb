"""Which database a show's region is sold from: an id alone tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from services.booking.desk import Desk
from services.kit.errors import Unavailable
from services.kit.ids import region_of


class Desks:
    """A desk for each database, found by the region in the id of a show, a reservation or a booking.

    Args:
        home: sells every region that ``regions`` does not name.
    """

    def __init__(self, home: Desk, regions: Mapping[int, Desk] | None = None) -> None:
        self.home = home
        self._regions = dict(regions or {})
        self._closed: frozenset[int] = frozenset()

    def all(self) -> Sequence[Desk]:
        """Each once, home first."""
        others = {id(desk): desk for desk in self._regions.values() if desk is not self.home}
        return [self.home, *others.values()]

    def of(self, identifier: UUID) -> Desk:
        """The desk of a show, or of what belongs to one.

        Raises:
            Unavailable: its region is being moved to another database.
        """
        if self.is_closed(identifier):
            raise self.moving()
        return self._regions.get(region_of(identifier), self.home)

    def is_closed(self, identifier: UUID) -> bool:
        """Whether the region of a show, or of what belongs to one, is being moved."""
        return region_of(identifier) in self._closed

    @staticmethod
    def moving() -> Unavailable:
        return Unavailable("the sale for this city is being moved; try again", retry_after_seconds=5)

    def by_desk(self, identifiers: Iterable[UUID]) -> list[tuple[Desk, list[UUID]]]:
        """The same ids, those of a desk together, also of regions that are being moved: for reading."""
        found: dict[int, tuple[Desk, list[UUID]]] = {}
        for identifier in identifiers:
            desk = self._regions.get(region_of(identifier), self.home)
            found.setdefault(id(desk), (desk, []))[1].append(identifier)
        return list(found.values())

    async def look(self) -> None:
        """Learn which regions are closed where they are sold from; to be called about once a second."""
        closed: set[int] = set()
        for desk in self.all():
            found = await desk.bookings.closed_regions()
            closed.update(region for region in found if self._regions.get(region, self.home) is desk)
        self._closed = frozenset(closed)
