"""What somebody at the terminal is told when their machine is in the way."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local import disk, pins, ports
from local.home import CHECKOUT
from local.trouble import Trouble
from local.up import edge_port_from


def test_a_taken_port_is_said_with_who_has_it_and_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Trouble, match=rf"port {port} is taken by .*process {os.getpid()}.*EDGE_PORT=8081 make run"):
            ports.demand(port)


def test_a_port_that_is_none_is_said() -> None:
    with pytest.raises(Trouble, match="EDGE_PORT=http is not a port"):
        edge_port_from("http")


def test_ports_are_remembered_unless_somebody_took_them(tmp_path: Path) -> None:
    remembered = tmp_path / "ports.json"
    first = ports.choose(["cache", "bus"], remembered)
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["cache"]))
        other.listen()
        second = ports.choose(["cache", "bus"], remembered)
    assert second["bus"] == first["bus"]
    assert second["cache"] != first["cache"]
    assert ports.choose(["cache", "bus"], remembered) == second


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=r"MB are free on the disk of .*free some space"):
        disk.demand_room(tmp_path / "not" / "there", least=2**62)
    assert disk.is_full(OSError(errno.ENOSPC, "No space left on device"))
    assert disk.is_full('FATAL:  could not write to file "pg_wal": No space left on device')


def test_the_lock_file_pins_what_pyproject_asks_for_and_names_no_place() -> None:
    lines = pins.LOCK.read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if not line.startswith("#")}
    missing = {asked.name.lower() for asked in pins.asked_for()} - pinned
    assert not missing, "`make lock` pins them"
    assert not any("://" in line or line.startswith("-") for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_make_alone_reaches_the_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    """As a script sends it; from a terminal, Ctrl-C reaches both."""
    (tmp_path / "Makefile").write_text(f"run:\n\t@exec {sys.executable} -u {tmp_path / 'child.py'}\n")
    (tmp_path / "child.py").write_text(
        "import asyncio, os\n"
        "from local.parent import gives_up\n"
        "async def main():\n"
        "    waiting = asyncio.create_task(gives_up())\n"
        "    await asyncio.sleep(0.2)\n"
        "    print(os.getpid())\n"
        "    await asyncio.wait_for(waiting, 20)\n"
        f"asyncio.run(main())\nopen({str(tmp_path / 'heard')!r}, 'w').close()\n"
    )
    # Make tells its children that it runs them, and they talk more then; `make test` is one.
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment = {**outer, "PYTHONPATH": str(CHECKOUT)}

    def hear_interrupts() -> None:  # also where this test run itself ignores them
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        ["make", "run"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, preexec_fn=hear_interrupts
    ) as make:
        assert make.stdout is not None
        child = psutil.Process(int(make.stdout.readline()))
        make.send_signal(number)
        child.wait(15)
    assert (tmp_path / "heard").exists() or number == signal.SIGTERM  # which make passes on, and which ends the child
