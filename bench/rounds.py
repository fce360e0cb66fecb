"""What rounds measured, and what comes of them: the median of the rounds' ratios, since machines are noisy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

PARTS = ("client", "edge", "echo", "bare", "booking", "payment", "postgres", "relay", "cache", "bus", "provider")


@dataclass
class Round:
    """One round's figures by name: rates a second, why some are void, CPU seconds a call by part, (p50, p99)."""

    rates: dict[str, float] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)
    spent: dict[str, dict[str, float]] = field(default_factory=dict)
    tail: dict[str, tuple[float, float]] = field(default_factory=dict)

    def update(self, other: Round) -> None:
        """Take what another subject measured in the same round."""
        self.rates |= other.rates
        self.void |= other.void
        self.spent |= other.spent
        self.tail |= other.tail

    def line(self) -> str:
        return ", ".join(
            f"{name} {rate:,.0f}/s" + (" VOID" if name in self.void else "") for name, rate in self.rates.items()
        )


@dataclass(frozen=True)
class Ratio:
    """One figure over its floor.

    Args:
        above: the figure.
        below: the floor; one that was measured before and after is the mean of the two.
        aim: what the median of the rounds must reach.
    """

    name: str
    above: str
    below: tuple[str, ...]
    aim: float

    def of(self, made: Sequence[Round]) -> list[float]:
        """Round by round, without the void ones."""
        names = (self.above, *self.below)
        return [
            each.rates[self.above] / statistics.mean(each.rates[name] for name in self.below)
            for each in made
            if all(name in each.rates and name not in each.void for name in names)
        ]


def report(console: Console, made: Sequence[Round], ratios: Sequence[Ratio]) -> None:
    """The table of ratios, the table of rates and costs, and what was void."""
    table = Table("ratio", "median", "least to most", "valid rounds", "aim", title="ratios")
    for ratio in ratios:
        values = ratio.of(made)
        if not values:
            table.add_row(ratio.name, "void", "", f"0 of {len(made)}", f">= {ratio.aim:.2f}")
            continue
        median = statistics.median(values)
        verdict = "reached" if median >= ratio.aim else "SHORT"
        spread = f"{min(values):.2f} to {max(values):.2f}"
        table.add_row(ratio.name, f"{median:.2f}", spread, f"{len(values)} of {len(made)}", f">= {ratio.aim} {verdict}")
    console.print(table)

    names = list(dict.fromkeys(name for each in made for name in each.rates))
    parts = [part for part in PARTS if any(cost.get(part, 0) > 5e-6 for each in made for cost in each.spent.values())]
    table = Table("what", "a second", "p50 ms", "p99 ms", *parts, title="rates, and CPU microseconds a call by part")
    for name in names:
        have = [each for each in made if name in each.rates]
        rate = statistics.median(each.rates[name] for each in have)
        tails = [each.tail[name] for each in have if name in each.tail]
        p50, p99 = (f"{statistics.median(tail[i] for tail in tails) * 1e3:.1f}" if tails else "" for i in (0, 1))
        costs = [statistics.median(each.spent.get(name, {}).get(part, 0.0) for each in have) for part in parts]
        table.add_row(name, f"{rate:,.0f}", p50, p99, *(f"{cost * 1e6:.0f}" if cost > 5e-6 else "" for cost in costs))
    console.print(table)
    for number, each in enumerate(made, 1):
        for name, why in each.void.items():
            console.print(f"round {number}: {name} is void: {why}")
