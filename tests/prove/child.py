"""Processes of our own beside a stack: started, killed, frozen, and gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from local.home import CHECKOUT
from local.process import before_exec


class Child:
    """One process."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                cwd=CHECKOUT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "gen")]),
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=before_exec(signal.SIGKILL),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        self._process.kill()
        self._process.wait()


@contextmanager
def child(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Child]:
    """A process while the block lasts."""
    made = Child(argv, environment, log)
    try:
        yield made
    finally:
        made.kill()
