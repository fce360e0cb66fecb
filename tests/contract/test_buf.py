"""buf's view: the contracts are tidy, and break nobody who compiled the previous ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from gateway.contracts import GENERATED

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def _buf(*arguments: str) -> str:
    """What buf complains of; nothing when all is well."""
    buf = shutil.which("buf", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    assert buf is not None, "buf is missing: pip install buf-bin"
    done = subprocess.run([buf, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _git(*arguments: str) -> bytes | None:
    """git's answer, or nothing where it has none (no repository, no such commit)."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def _word(*arguments: str) -> str:
    return (_git(*arguments) or b"").decode().strip()


def test_lint() -> None:
    assert _buf("lint", str(GENERATED), "--path", "marquee") == ""


def test_nothing_breaks_against_the_published_contracts(tmp_path: Path) -> None:
    """A commit that has to break something says `BREAKING CHANGE` at the start of a line of its message."""
    published = _published_commit()
    if not published:
        pytest.skip("nothing was published yet: there is neither a release tag (v*) nor an origin/main")
    if _word("log", "--format=%h", "--grep=^BREAKING CHANGE", f"{published}..HEAD"):
        pytest.skip(f"a commit since {published[:10]} says BREAKING CHANGE")
    old = _contracts_at(published, tmp_path)
    if old is None:
        pytest.skip(f"the contracts at {published[:10]} cannot be built (a shallow clone without them?)")
    assert _buf("breaking", str(GENERATED), "--against", str(old), "--path", "marquee") == ""


def _published_commit() -> str:
    """What others may have compiled: the last release, else where we left the shared branch."""
    release = _word("describe", "--tags", "--abbrev=0", "--match", "v*")
    if release:
        return release
    return next((fork for ref in ("origin/HEAD", "origin/main") if (fork := _word("merge-base", "HEAD", ref))), "")


def _contracts_at(commit: str, folder: Path) -> Path | None:
    """The descriptor set of an earlier commit, built by that commit's own script."""
    archive = _git("archive", "--format=tar", commit, "protos")
    if archive is None:
        return None
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(folder / "protos" / "build.py")]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    built = folder / "gen" / "contracts.binpb"
    return built if built.exists() else None
