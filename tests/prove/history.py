"""What clients asked for and what they were told: a record that is only added to, of everybody at once.

An operation is one wish of one client. It lasts from the first call to the last answer, however often the call had to
be repeated; an operation without an answer may have had its effect at any time after it began.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message


class Act(StrEnum):
    """What was asked for."""

    HOLD = "hold seats"
    RELEASE = "release a hold"
    BOOK = "book"
    INITIATE = "initiate a payment"
    CANCEL = "cancel a booking"
    BLOCK = "block or unblock seats"
    PAY = "pay at the provider"
    SEE_RESERVATION = "look at a reservation"
    SEE_BOOKING = "look at a booking"
    SEE_PAYMENT = "look at a payment"
    SEE_MAP = "look at a seat map"


class Outcome(StrEnum):
    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on two clocks of this machine: one that never steps, for order, and the one PostgreSQL reads."""

    steady_ns: int
    wall_ns: int

    @classmethod
    def now(cls) -> Moment:
        return cls(time.monotonic_ns(), time.time_ns())


@dataclass(frozen=True, slots=True)
class Operation:
    """One wish and what became of it.

    Args:
        client: whose kind and number: "pays twice 17".
        request: the message of the contract; at the provider, a mapping.
        answer: likewise; None unless the outcome is OK.
        reason: of a refusal (SEAT_TAKEN); empty otherwise.
        facts: what the refusal's ErrorInfo adds.
        tries: calls made, the answered one included.
    """

    number: int
    client: str
    user_id: UUID
    act: Act
    request: Any
    began: Moment
    ended: Moment
    outcome: Outcome
    answer: Any = None
    reason: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    tries: int = 1

    @property
    def request_id(self) -> str:
        """Empty for acts that have none."""
        return str(getattr(self.request, "request_id", ""))

    @property
    def ended_by_ns(self) -> float:
        """When its effect was there at the latest, on the steady clock."""
        return self.ended.steady_ns if self.outcome is Outcome.OK else float("inf")


class SightKind(StrEnum):
    SNAPSHOT = "snapshot"
    DELTA = "delta"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True)
class Sight:
    """What a viewer had on the screen after one message of its stream.

    Args:
        connection: counts this viewer's streams.
        said_version: the version that the message named.
        version: the version that the viewer has after it.
        seats: the state of each seat by seat_no (``SeatStatus``), AVAILABLE as 1.
    """

    viewer: str
    show_id: str
    connection: int
    kind: SightKind
    at: Moment
    said_version: int
    version: int
    seats: bytes


@dataclass
class History:
    """Everything that everybody did."""

    operations: list[Operation] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    halls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The labels of each show's seats, by seat_no."""

    def add(self, **what: Any) -> Operation:
        operation = Operation(number=len(self.operations) + 1, **what)
        self.operations.append(operation)
        return operation

    def of(self, *acts: Act) -> Iterator[Operation]:
        return (each for each in self.operations if each.act in acts)

    def answered(self, *acts: Act) -> Iterator[Operation]:
        """Those that were acknowledged."""
        return (each for each in self.of(*acts) if each.outcome is Outcome.OK)

    def by_request(self) -> Mapping[tuple[UUID, str], list[Operation]]:
        """Operations that share a user and a request id, in the order in which they began."""
        groups: dict[tuple[UUID, str], list[Operation]] = defaultdict(list)
        for each in self.operations:
            if each.request_id and each.act is not Act.RELEASE:  # a release is idempotent by itself
                groups[each.user_id, each.request_id].append(each)
        return groups

    def counts(self) -> dict[str, int]:
        """Operations by what was asked and what came of it, and calls and sights in all."""
        counted = Counter(f"{each.act}: {each.outcome}" for each in self.operations)
        return {
            "operations": len(self.operations),
            "calls": sum(each.tries for each in self.operations),
            **dict(sorted(counted.items())),
            "messages of live streams": len(self.sights),
        }

    def write(self, file: Path) -> None:
        """One operation a line, as JSON, for whoever wants to look."""
        with file.open("w") as out:
            for each in self.operations:
                out.write(json.dumps(_plain(each), default=str) + "\n")


def _plain(operation: Operation) -> dict[str, Any]:
    return {
        "number": operation.number,
        "client": operation.client,
        "user_id": str(operation.user_id),
        "act": operation.act.name,
        "began_ns": operation.began.steady_ns,
        "ended_ns": operation.ended.steady_ns,
        "outcome": operation.outcome,
        "reason": operation.reason,
        "facts": dict(operation.facts),
        "tries": operation.tries,
        "request": _readable(operation.request),
        "answer": _readable(operation.answer),
    }


def _readable(content: object) -> object:
    return MessageToDict(content) if isinstance(content, Message) else content


def taken_together(operations: Iterable[Operation]) -> dict[tuple[UUID, str], Operation]:
    """Repeats of a request (a user's same request id) as if it had been asked once.

    It began when the first one did; it ended with the first answer that any of them got.
    """
    merged: dict[tuple[UUID, str], Operation] = {}
    for each in sorted(operations, key=lambda operation: operation.began.steady_ns):
        first = merged.setdefault((each.user_id, each.request_id), each)
        if each.ended_by_ns < first.ended_by_ns:
            merged[each.user_id, each.request_id] = replace(each, number=first.number, began=first.began)
    return merged
