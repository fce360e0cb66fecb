"""What the checker looks for, what it found, and how much it looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Rule(StrEnum):
    """What must hold, as a sentence."""

    VERSIONS = "each show's versions follow each other without a gap"
    OWNER = "a seat has at most one owner at any version"
    CHANGE = "each step of a log is one that the rules allow, and changes what it says"
    CLOCK = "nothing ends before its time, by one clock: PostgreSQL's"
    END = "claims, counts and statuses are where the log leads; nothing is left open"
    ACKNOWLEDGED = "what was acknowledged is there, as it was acknowledged"
    ORDER = "what ended before something else began has the lower version"
    REFUSED = "a seat that was refused as taken was taken just then, and a refusal has no effect"
    REPLAY = "the same request has one effect and one answer"
    VIEWERS = "every map on a screen is the log's map at that version"
    MONEY = "money captured is money confirmed and refunded, by the provider's own books"
    EVENTS = "a change and its events are there together, each once, and reach who must hear of them"


@dataclass(frozen=True, slots=True)
class Violation:
    rule: Rule
    what: str


@dataclass
class Findings:
    """Filled by the checks."""

    violations: list[Violation] = field(default_factory=list)
    examined: Counter[Rule] = field(default_factory=Counter)
    """How many facts each rule was held against; none would prove nothing."""
    notes: Counter[str] = field(default_factory=Counter)
    """What is no violation, and worth knowing."""

    def look(self, rule: Rule, count: int = 1) -> None:
        self.examined[rule] += count

    def object(self, rule: Rule, what: str) -> None:
        self.violations.append(Violation(rule, what))

    def demand(self, holds: bool, rule: Rule, what: str) -> bool:
        """Count one fact, and object unless it ``holds``; whether it does."""
        self.look(rule)
        if not holds:
            self.object(rule, what)
        return holds

    def of(self, rule: Rule) -> list[str]:
        return [each.what for each in self.violations if each.rule is rule]

    def lines(self, most: int = 20) -> list[str]:
        """The violations for people, the first of each rule first."""
        seen: Counter[Rule] = Counter()
        ranked = []
        for each in self.violations:
            seen[each.rule] += 1
            ranked.append((seen[each.rule], f"{each.rule.name}: {each.what}"))
        ranked.sort(key=lambda pair: pair[0])
        lines = [line for _, line in ranked[:most]]
        if len(ranked) > most:
            lines.append(f"... and {len(ranked) - most} more: " + ", ".join(f"{n} {r.name}" for r, n in seen.items()))
        return lines
