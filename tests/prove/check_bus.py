"""What was written into outboxes, what came over the bus, and what a consumer made of it. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """One event: in an outbox, on the bus, or as the effect that a consumer had of it."""

    event_id: str
    topic: str
    key: str


@dataclass
class Delivery:
    """What `follow` found."""

    written: int = 0
    deliveries: int = 0
    repeats: int = 0
    effects: int = 0
    keys: int = 0
    """Topics and keys with more than one event, whose order means something."""
    problems: list[str] = field(default_factory=list)


def follow(written: Sequence[Event], delivered: Sequence[Event], effects: Sequence[Event]) -> Delivery:
    """Each event arrives at least once, has one effect, and both in order within its topic and key.

    Args:
        written: in the order of each outbox, which is the order of commits within a topic and key.
        delivered: in the order of the bus.
        effects: in the order in which the consumer committed them.
    """
    times = Counter(event.event_id for event in delivered)
    effect = Counter(event.event_id for event in effects)
    found = Delivery(len(written), len(delivered), sum(times.values()) - len(times), len(effects))
    for event in written:
        what = f"{event.topic} {event.event_id} of {event.key}"
        if not times[event.event_id]:
            found.problems.append(f"{what} never arrived")
        if effect[event.event_id] != 1:
            found.problems.append(f"{what} had {effect[event.event_id]} effects")
    order = _by_key(written)
    found.keys = sum(len(ids) > 1 for ids in order.values())
    for where, sequence in (("arrived", delivered), ("took effect", effects)):
        for key, ids in _by_key(sequence).items():
            if ids != [event_id for event_id in order[key] if event_id in set(ids)]:
                found.problems.append(f"events of {key} {where} in another order than they were written")
    return found


def _by_key(events: Sequence[Event]) -> dict[tuple[str, str], list[str]]:
    """Ids by topic and key, each where it came first."""
    ordered: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for event in events:
        ordered[event.topic, event.key].setdefault(event.event_id)
    return defaultdict(list, {key: list(ids) for key, ids in ordered.items()})
