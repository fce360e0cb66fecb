"""A client of Marquee who repeats what got no answer, as a good client does, and whose every wish is recorded."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import grpc
from google.rpc import error_details_pb2, status_pb2

from tests.prove.history import Act, History, Moment, Outcome
from tests.prove.stage import Person, Stage

CALL_TIMEOUT_S = 4.0
PATIENCE_S = 45.0
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
"""What a client tries again after: nothing is known of the request, and its id makes a repeat harmless."""
REFUSING = {
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
}
FOR_GOOD = {"TOO_MANY_HOLDS"}
"""Reasons that come with a code of PASSING, and mean no."""


class Refused(Exception):
    """Marquee understood and said no."""

    def __init__(self, reason: str, facts: Mapping[str, str]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.facts = facts


class GaveUp(Exception):
    """No answer in all that time. Whether it happened, the client does not know."""


@dataclass
class Record:
    """What all clients of a run write into.

    Args:
        codes: every answer that was not OK, by code or reason.
        surprises: answers that no client should ever get: they say neither no nor later.
        longest_wait: the longest call, as a multiple of its deadline.
    """

    history: History = field(default_factory=History)
    codes: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    longest_wait: float = 0.0


@dataclass
class Client:
    """One person at one screen."""

    name: str
    person: Person
    stage: Stage
    record: Record

    @property
    def user_id(self) -> UUID:
        return self.person.user_id

    async def ask(
        self,
        act: Act,
        method: Callable[..., Any],
        request: Any,
        *,
        patience_s: float = PATIENCE_S,
        timeout_s: float = CALL_TIMEOUT_S,
        once: bool = False,
    ) -> Any:
        """Call until there is an answer: the same request, after a growing pause.

        Raises:
            Refused: the answer is no.
            GaveUp: there was none within ``patience_s`` (or on the first try, when only ``once``).
        """
        began, deadline, pause, tries = Moment.now(), time.monotonic() + patience_s, 0.1, 0
        outcome, answer, reason, facts = Outcome.UNKNOWN, None, "", {}
        try:
            while True:
                tries += 1
                called = time.monotonic()
                try:
                    answer = await method(request, metadata=self.person.metadata, timeout=timeout_s)
                    outcome = Outcome.OK
                    return answer
                except grpc.aio.AioRpcError as error:
                    info = _info(error)
                    reason = info.reason or error.code().name
                    self.record.codes[reason] += 1
                    if error.code() in REFUSING or reason in FOR_GOOD:
                        outcome, facts = Outcome.REFUSED, dict(info.metadata)
                        raise Refused(reason, facts) from None
                    if error.code() not in PASSING:
                        what = f"{type(request).__name__}: {error.code().name} {reason} {error.details()}"
                        self.record.surprises.append(what)
                finally:
                    waited = (time.monotonic() - called) / timeout_s
                    self.record.longest_wait = max(self.record.longest_wait, waited)
                if once or time.monotonic() + pause > deadline:
                    raise GaveUp(type(request).__name__)
                await asyncio.sleep(pause * random.uniform(0.7, 1.3))
                pause = min(pause * 1.7, 1.0)
        finally:
            self._write(act, request, began, outcome, answer=answer, reason=reason, facts=facts, tries=max(tries, 1))

    async def pay(self, order_id: str, **how: Any) -> list[dict[str, Any]]:
        """Press the button of the provider's page."""
        began, outcome, answer = Moment.now(), Outcome.UNKNOWN, None
        try:
            answer = await self.stage.pay(order_id, **how)
            outcome = Outcome.OK
            return answer
        finally:
            self._write(Act.PAY, {"order_id": order_id, **how}, began, outcome, answer=answer)

    def _write(self, act: Act, request: Any, began: Moment, outcome: Outcome, **what: Any) -> None:
        if outcome is not Outcome.REFUSED and what.get("reason"):
            what["reason"] = "" if outcome is Outcome.OK else what["reason"]
        self.record.history.add(
            client=self.name, user_id=self.user_id, act=act, request=request, began=began, ended=Moment.now(),
            outcome=outcome, **what,
        )  # fmt: skip


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """What an error says of itself: its reason, and facts; empty when it says nothing."""
    info = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                if packed.Unpack(info):
                    return info
    return info
