"""``python3 local/bootstrap.py``: everything between a fresh clone and ``.venv/bin/python -m local up``.

Runs on the machine's own Python with nothing installed, so it imports only the standard library. Each step is skipped
when a stamp in ``.venv/`` says that it was done for the present state of the checkout.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "marquee.stamp"
ROOM_BYTES = 1_500_000_000
"""What the packages and their archives take while they are installed, with some to spare."""


def say(text: str) -> None:
    print(text, flush=True)


def stop(sentence: str) -> None:
    sys.exit(f"\nmarquee: {sentence}")


def wanted_stamp() -> str:
    """Changes with the pinned packages and when the checkout moves, as a virtual environment cannot."""
    return f"{ROOT}\n{hashlib.sha256(LOCK.read_bytes()).hexdigest()}\n"


def is_set_up() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted_stamp()


def demand_room() -> None:
    free = shutil.disk_usage(ROOT).free
    if free < ROOM_BYTES:
        stop(
            f"only {free // 10**6} MB are free on the disk of {ROOT}, and {ROOM_BYTES // 10**6} MB are needed to "
            "install the packages; free some space and run `make` again."
        )


def make_environment() -> None:
    """The virtual environment; made anew when the checkout moved or its Python is gone."""
    moved = STAMP.exists() and STAMP.read_text().splitlines()[:1] != [str(ROOT)]
    if PYTHON.exists() and not moved:
        return
    say(f"creating .venv with Python {sys.version.split()[0]}")
    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(VENV)
    except (Exception, SystemExit):
        shutil.rmtree(VENV, ignore_errors=True)
        stop(
            "this Python cannot create a virtual environment with pip (on Debian and Ubuntu its package is "
            "`python3-venv`); install that, or name another Python: `make run PYTHON=/path/to/python3.11`."
        )


def install() -> None:
    """The pinned packages, with a line that shows where pip is."""
    wanted = [line for line in LOCK.read_text().splitlines() if "==" in line and not line.startswith("#")]
    say(f"installing {len(wanted)} packages from requirements.lock (once; a minute or two)")
    began, seen, lines = time.monotonic(), 0, []
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-r", str(LOCK)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(line)
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                seen += 1
                name = line.removeprefix("Collecting ").removeprefix("Requirement already satisfied: ").split("=")[0]
                show_progress(min(seen, len(wanted)), len(wanted), name.strip())
            elif line.startswith("Installing collected packages"):
                show_progress(len(wanted), len(wanted), "unpacking")
    end_progress()
    if pip.returncode != 0:
        sys.stderr.write("".join(lines[-15:]))
        if any("No space left on device" in line for line in lines):
            stop("the disk is full; free some space and run `make` again.")
        stop("pip could not install the packages (above is what it says). It needs the network this once.")
    say(f"installed in {time.monotonic() - began:.0f} s")


def show_progress(done: int, total: int, what: str) -> None:
    if sys.stdout.isatty():
        print(f"\r  {done:3}/{total} {what:<40.40}", end="", flush=True)
    elif done % 15 == 0 or done == total:
        say(f"  {done}/{total} {what}")


def end_progress() -> None:
    if sys.stdout.isatty():
        print("\r" + " " * 60, end="\r", flush=True)


def make_importable() -> None:
    """Let every Python of the environment import the checkout and what is generated from the contracts."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [VENV / "lib" / version / "site-packages", *VENV.glob("lib/python3*/site-packages")]
    site_packages = next(folder for folder in folders if folder.is_dir())
    path = site_packages / "marquee.pth"
    content = f"{ROOT}\n{ROOT / 'gen'}\n"
    if not path.exists() or path.read_text() != content:
        path.write_text(content)


def build_contracts() -> None:
    """Generated code and the descriptor set; ``protos/build.py`` itself knows when nothing changed."""
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"  # protoc's plugins are commands
    build = subprocess.run(
        [str(PYTHON), "protos/build.py"],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    said = [line for line in build.stdout.splitlines() if not line.startswith("Writing mypy")]
    if build.returncode != 0:
        sys.stderr.write("\n".join([*said, ""]))
        stop("the contracts in protos/ could not be built (see above).")


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  # this file is what finds out
        stop(f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}.")
    if not is_set_up():
        demand_room()
        make_environment()
        install()
        STAMP.write_text(wanted_stamp())
    make_importable()
    build_contracts()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        end_progress()
        sys.exit("\nmarquee: interrupted; `make` goes on where it stopped.")
    except OSError as error:
        stop(f"{error}; is the disk full, or the checkout somebody else's?")
