"""A call that will not be answered in time is refused before any work is done for it.

When more comes than can be done, calls wait, and some wait longer than their callers do: what is done for those is done
for nobody, and makes the next ones late. So the time that is left is compared with what such calls took just now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.kit.errors import Overloaded

WEIGHT = 0.1
"""Of one answer in the moving average: it follows a change within some ten calls."""
FORGET_SECONDS = 1.0
"""An average that nothing was added to for so long says nothing any more."""


@dataclass(slots=True)
class _Pace:
    """How long the calls of one RPC took lately."""

    seconds: float = 0.0
    under_way: int = 0
    ended: float = 0.0


class Admission:
    """Knows what each RPC takes at this moment, and whether a call has so much time left.

    Only calls that others of the same RPC are under way with are refused: one alone finds out what it takes.

    Args:
        clock: seconds that only grow, such as ``time.monotonic``.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._paces: dict[str, _Pace] = {}

    def enter(self, method: str, seconds_left: float) -> float:
        """Let a call of ``method`` in; answers the moment, for ``leave``.

        Raises:
            Overloaded: it could not be answered within ``seconds_left``. Nothing was done, and ``leave`` is not due.
        """
        now = self._clock()
        pace = self._paces.get(method)
        if pace is None:
            pace = self._paces[method] = _Pace()
        if seconds_left <= 0 or (seconds_left < pace.seconds and pace.under_way and now - pace.ended < FORGET_SECONDS):
            raise Overloaded("this could not be answered in the time that it has; try again", retry_after_seconds=1)
        pace.under_way += 1
        return now

    def leave(self, method: str, entered: float) -> None:
        """A call that was let in has ended, in whatever way."""
        pace, now = self._paces[method], self._clock()
        took = now - entered
        known = pace.ended and now - pace.ended < FORGET_SECONDS
        pace.seconds = pace.seconds + WEIGHT * (took - pace.seconds) if known else took
        pace.ended = now
        pace.under_way -= 1
