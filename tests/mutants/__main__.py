"""Break a copy of the product, one mutation at a time, and see the named test go red.

A mutation that leaves its test green survives: then the test does not test it. All tests run without mutation first.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutations import MUTATIONS, ROOT, Mutation

LEFT_OUT = shutil.ignore_patterns(
    ".git",
    ".venv",
    ".local",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "node_modules",
)
AT_ONCE = 2
PATIENCE_S = 240
TESTS_FAILED = 1
"""pytest's exit code when tests ran and some failed; others mean that they did not run."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Copy:
    """The project in a folder of its own, with the virtual environment of the original."""

    root: Path

    def test(self, tests: Sequence[str]) -> tuple[int, str]:
        """pytest's exit code and what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--rootdir", str(self.root), *tests],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def environment(self) -> dict[str, str]:
        """The copy's code comes first: the environment's ``.pth`` names the original, which would be tested instead."""
        path = os.pathsep.join([str(self.root), str(self.root / "gen")])
        # No compiled files: a mutation of equal length within a second would be taken for what was compiled before.
        return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"}

    def is_used(self) -> bool:
        """Whether Python started as the tests are imports the copy's code."""
        where = "import services.kit, marquee.booking.v1 as b; print(services.kit.__file__, b.__file__, sep='\\n')"
        found = subprocess.run(
            [sys.executable, "-c", where],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return all(Path(line).is_relative_to(self.root) for line in found.stdout.split())


def run(mutations: Sequence[Mutation]) -> int:
    """Print the table; how many mutations survived or could not be made."""
    began = time.monotonic()
    problems = [problem for mutation in mutations if (problem := mutation.problem())]
    if problems:
        say("\n".join(problems))
        return len(problems)
    with tempfile.TemporaryDirectory(prefix="marquee-mutants-") as folder:
        copies = [Copy(Path(folder).resolve() / f"marquee-{number}") for number in range(AT_ONCE)]
        for copy in copies:
            shutil.copytree(ROOT, copy.root, ignore=LEFT_OUT, symlinks=True)
        if not all(copy.is_used() for copy in copies):
            say("the tests would import the original instead of its copy")
            return 1
        tests = list(dict.fromkeys(mutation.test for mutation in mutations))
        code, said = copies[0].test(tests)
        if code != 0:
            say(f"without any mutation the tests are not green:\n{said[-4000:]}")
            return 1
        say(f"{len(tests)} tests are green without mutation ({time.monotonic() - began:.0f} s)")
        free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in copies:
            free.put(copy)

        def is_killed(mutation: Mutation) -> bool:
            copy = free.get()
            try:
                return _is_killed(mutation, copy)
            finally:
                free.put(copy)

        with ThreadPoolExecutor(len(copies)) as workers:
            survived = list(workers.map(is_killed, mutations)).count(False)
    verdict = f"{survived} survived" if survived else "all were noticed"
    say(f"{len(mutations)} mutations, {verdict}, {time.monotonic() - began:.0f} s")
    return survived


def _is_killed(mutation: Mutation, copy: Copy) -> bool:
    file = copy.root / mutation.file
    original = file.read_text()
    began = time.monotonic()
    mutation.apply(copy.root)
    try:
        code, said = copy.test([mutation.test])
    finally:
        file.write_text(original)
    # A test that failed, not one that could not begin: a mutation that only breaks the code shows nothing.
    why = re.search(r"^FAILED \S+( - .*)?$", said, re.MULTILINE)
    killed = code == TESTS_FAILED and why is not None
    colour = "red" if killed else ("GREEN" if code == 0 else f"BROKEN, exit {code}")
    seconds = f"{time.monotonic() - began:.1f} s"
    say(f"{colour:<6} {mutation.name}\n       {mutation.test} ({seconds}){why[1] or '' if why else ''}")
    if not killed and code != 0:
        say(said[-2000:])
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="mutations whose name or file contains this")
    chosen = parser.parse_args().only
    mutations = [each for each in MUTATIONS if chosen in each.name or chosen in each.file]
    sys.exit(1 if run(mutations) else 0)


if __name__ == "__main__":
    main()
