"""Where a stack keeps its state: one folder, ``.local/`` of the checkout, or a temporary one of a test."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from local.trouble import Trouble

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Home:
    """The folder of one stack, and what lies in it under which name."""

    root: Path

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def edge(self) -> Path:
        """Envoy's rendered configuration."""
        return self.root / "edge"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def outside(self) -> Path:
        """Root's place for what another user must reach, as the checkout may lie where that user cannot go.

        The folder is root's own and open to traversal; what the other user owns lies one level deeper.
        """
        base = Path("/var/tmp")  # noqa: S108  # survives a reboot, unlike /tmp; ownership is checked by `make_outside`
        if not base.is_dir():
            base = Path(tempfile.gettempdir())
        name = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:12]
        return base / f"marquee-{name}"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data: it refuses to run as root, so for root it lies outside."""
        return (self.outside if os.geteuid() == 0 else self.root) / "postgres"

    def make(self) -> None:
        """Create the folders. Keys and stores are nobody else's business, so the root is closed."""
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (self.log, self.keys, self.edge):
            folder.mkdir(exist_ok=True)
        self.keys.chmod(0o700)

    def make_outside(self) -> Path:
        """Create root's outside folder, or make sure that the one that exists is really root's."""
        folder = self.outside
        folder.mkdir(mode=0o755, exist_ok=True)
        seen = folder.lstat()
        if folder.is_symlink() or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
            raise Trouble(f"{folder} exists and belongs to somebody else; look at it, then remove it and try again.")
        folder.chmod(0o755)  # a strict umask would keep PostgreSQL's user out of this folder of ours
        return folder

    def wipe(self) -> None:
        """Remove everything this stack ever wrote."""
        if os.geteuid() == 0 and self.outside.is_dir() and not self.outside.is_symlink():
            shutil.rmtree(self.outside)
        if self.root.is_dir():
            shutil.rmtree(self.root)
