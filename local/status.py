"""What each part is doing, in a file that other commands read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from local import files
from local.process import Process


@dataclass(frozen=True)
class PartStatus:
    """One line of ``python -m local status``."""

    name: str
    state: str
    pid: int | None
    created: float | None
    """When the process was created, Unix seconds: a process id alone may be somebody else's by now."""
    address: str | None
    url: str | None
    restarts: int
    log: str

    @property
    def lives(self) -> bool:
        return self.process() is not None

    def process(self) -> psutil.Process | None:
        """The process, if it is still the one that was started then."""
        if self.pid is None:
            return None
        try:
            process = psutil.Process(self.pid)
            same = self.created is not None and abs(process.create_time() - self.created) < 1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


def of(process: Process) -> PartStatus:
    part = process.part
    return PartStatus(
        name=part.name,
        state=process.state,
        pid=process.pid,
        created=process.created,
        address=part.address,
        url=part.url,
        restarts=process.restarts,
        log=str(process.log),
    )


def write(path: Path, parts: list[PartStatus]) -> None:
    """Readable by the owner alone, as URLs hold passwords."""
    files.replace(path, json.dumps([asdict(part) for part in parts], indent=1).encode(), 0o600)


def read(path: Path) -> list[PartStatus]:
    """What was last written; nothing when no stack ever ran."""
    if not path.exists():
        return []
    return [PartStatus(**part) for part in json.loads(path.read_text())]
