"""Ends calls that take too long. One clock ticks for all of them: a timer for each would cost a fifteenth of a call."""

from __future__ import annotations

import asyncio
from types import TracebackType

TICK_SECONDS = 0.05
"""How late a call may be ended."""


class Deadlines:
    """The deadlines of the calls that a process has under way."""

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._ticking = False

    def within(self, seconds: float) -> Deadline:
        """For ``with``: what the task does inside ends with TimeoutError when it takes ``TICK_SECONDS`` longer."""
        return Deadline(self, asyncio.get_running_loop().time() + seconds)

    def begin(self, deadline: Deadline) -> None:
        self._running.add(deadline)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def end(self, deadline: Deadline) -> None:
        self._running.remove(deadline)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        for deadline in [each for each in self._running if each.at <= loop.time()]:
            deadline.expire()
        self._ticking = bool(self._running)
        if self._ticking:
            loop.call_later(TICK_SECONDS, self._tick)


class Deadline:
    """Like ``asyncio.timeout``, without a timer. ``at`` is by the loop's clock."""

    __slots__ = ("_all", "_expired", "_task", "at")

    def __init__(self, all_of_them: Deadlines, at: float) -> None:
        self._all = all_of_them
        self._task: asyncio.Task[object] | None = None
        self._expired = False
        self.at = at

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._all.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.end(self)
        # Who was cancelled by somebody else as well (its caller went away) stays cancelled.
        if self._expired and self._task is not None and not self._task.uncancel() and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """End what is done inside. Once: it may need longer than a tick to clean up."""
        if self._task is not None and not self._expired:
            self._expired = True
            self._task.cancel()
