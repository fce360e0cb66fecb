"""``python -m local.pins``: write ``requirements.lock`` from the packages that are installed.

Pins what ``pyproject.toml`` asks for and everything that brings, and nothing else that happens to be installed.
"""

from __future__ import annotations

import importlib.metadata
import platform
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from local.home import CHECKOUT

PYTHONS = ("3.11.0", platform.python_version())
"""The oldest that we run on asks for a package more (redis: async-timeout)."""
LOCK = CHECKOUT / "requirements.lock"
HEADER = """\
# Every package of `pyproject.toml` (services, local, dev) and what they bring. `make lock` writes this file
# from the packages in .venv.
"""


def asked_for() -> list[Requirement]:
    """What ``pyproject.toml`` names."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for line in [*project["dependencies"], *(line for extra in extras for line in extra)]]


def closure() -> dict[str, str]:
    """Name and version of everything needed, by name."""
    versions: dict[str, str] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(asked.name), extra) for asked in asked_for() for extra in ("", *asked.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        package = importlib.metadata.distribution(name)
        versions[name] = package.version
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra, "python_full_version": python}) for python in PYTHONS
            ):
                waiting.extend((canonicalize_name(needed.name), more) for more in ("", *needed.extras))
    return dict(sorted(versions.items()))


def content() -> str:
    return HEADER + "".join(f"{name}=={version}\n" for name, version in closure().items())


if __name__ == "__main__":
    LOCK.write_text(content())
    print(f"{LOCK.name}: {len(closure())} packages")
