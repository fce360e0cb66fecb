"""What a long measurement found, figure by figure, with the aims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Finding:
    """One figure, its aim (or nothing), and whether it is reached."""

    what: str
    figure: str
    aim: str = ""
    reached: bool = True


def table(found: Sequence[Finding], title: str) -> Table:
    """Findings as rows."""
    made = Table("what", "figure", "aim", title=title)
    for each in found:
        aim = f"{each.aim} {'reached' if each.reached else 'SHORT'}" if each.aim else ""
        made.add_row(each.what, each.figure, aim)
    return made
