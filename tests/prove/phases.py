"""What a phase of the proof is, what came of it, and what is remembered of it between runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from local.home import CHECKOUT

Figure = int | float | str
PROVEN = ("services", "gateway", "envoy", "protos", "local", "tests/prove")
"""What a result is about: when a file of these changes, it is no longer."""


@dataclass(frozen=True)
class Context:
    """What a phase is given.

    Args:
        minutes: its share of the time; phases that count to a number take what they need.
        folder: of its own, empty.
    """

    seed: int
    minutes: float
    folder: Path
    say: Callable[[str], None]


@dataclass
class Result:
    """What a phase found.

    Args:
        figures: what was done how often, for the report.
        problems: what is wrong; empty when it holds.
        notes: what could not be tried here, and why; what is worth knowing.
        details: more, for whoever wants it, ready to print.
    """

    figures: dict[str, Figure] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: str = ""

    def demand(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)


@dataclass(frozen=True)
class Phase:
    """A part of the proof.

    Args:
        name: what people type: ``make prove PROVE_ONLY=money``.
        promise: what must hold, a sentence or two.
        share: minutes of a run of 30 minutes.
    """

    name: str
    title: str
    promise: str
    share: float
    run: Callable[[Context], Awaitable[Result]]


@dataclass(frozen=True)
class Done:
    """A phase that was run to its end."""

    phase: str
    seed: int
    began: str
    seconds: float
    commit: str
    result: Result

    @property
    def holds(self) -> bool:
        return not self.result.problems


class Memory:
    """Results on disk, one file a phase, under the digest of the code that they are about."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def folder(self) -> Path:
        return self._root

    def find(self, phase: str) -> Done | None:
        file = self._root / f"{phase}.json"
        if not file.exists():
            return None
        kept: dict[str, Any] = json.loads(file.read_text())
        return Done(**{**kept, "result": Result(**kept["result"])})

    def keep(self, done: Done) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        file = self._root / f"{done.phase}.json"
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(done), indent=1))
        unfinished.replace(file)

    def forget(self, phase: str) -> None:
        (self._root / f"{phase}.json").unlink(missing_ok=True)


def digest_of_the_code() -> str:
    """Of every file that a result is about."""
    digest = hashlib.sha256()
    for folder in PROVEN:
        for file in sorted((CHECKOUT / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(CHECKOUT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def shares(phases: Mapping[str, float], minutes: float) -> dict[str, float]:
    """``minutes`` divided in proportion."""
    whole = sum(phases.values())
    return {name: minutes * share / whole for name, share in phases.items()}
