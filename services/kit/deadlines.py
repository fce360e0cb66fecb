"""Ends calls that take too long. One clock ticks for all of them: a timer for each would cost a fifteenth of a call."""

from __future__ import annotations

import asyncio
import contextvars
from types import TracebackType

TICK_SECONDS = 0.05
"""How early a call may be ended. Never late, while the loop is free: a caller's own time is also gRPC's, which would
end the call without a word of ours."""


class Deadlines:
    """The deadlines of the calls that a process has under way."""

    def __init__(self) -> None:
        self._under_way: set[Deadline] = set()
        self._ticking = False

    def within(self, seconds: float) -> Deadline:
        """For ``with``: what takes longer inside ends with TimeoutError, up to ``TICK_SECONDS`` before its time."""
        return Deadline(self, asyncio.get_running_loop().time() + seconds - TICK_SECONDS)

    def add(self, deadline: Deadline) -> None:
        """Watch it."""
        self._under_way.add(deadline)
        if not self._ticking:
            self._tick_later()

    def remove(self, deadline: Deadline) -> None:
        """Watch it no more."""
        self._under_way.remove(deadline)

    def _tick_later(self) -> None:
        self._ticking = True
        # Not in the caller's context: the clock belongs to no single call.
        asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick, context=contextvars.Context())

    def _tick(self) -> None:
        self._ticking = False
        if not self._under_way:
            return
        self._tick_later()
        now = asyncio.get_running_loop().time()
        for deadline in [each for each in self._under_way if each.at <= now]:
            deadline.expire()


class Deadline:
    """Like ``asyncio.timeout``, without a timer. ``at`` is by the loop's clock."""

    __slots__ = ("_cancelled", "_deadlines", "_expired", "_task", "at")

    def __init__(self, deadlines: Deadlines, at: float) -> None:
        self._deadlines = deadlines
        self._task: asyncio.Task[object] | None = None
        self._cancelled = 0
        self._expired = False
        self.at = at

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only what a task does can have a deadline")
        self._cancelled = task.cancelling()
        self._deadlines.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.remove(self)
        # Who was cancelled by somebody else as well (its caller went away) stays cancelled.
        if (
            self._expired
            and self._task is not None
            and self._task.uncancel() <= self._cancelled
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def expire(self) -> None:
        """End what is done inside. Once: it may need longer than a tick to clean up."""
        if self._task is not None and not self._expired:
            self._expired = True
            self._task.cancel()
