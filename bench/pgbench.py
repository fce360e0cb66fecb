"""The same writes without a service: a script of ours, as fast as pgbench can send it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from local import postgres
from local.stack import Stack

CLIENTS = 16
NO_VARIABLES: Mapping[str, str] = {}


async def run(
    stack: Stack, url: str, script: Path, count: int, variables: Mapping[str, str] = NO_VARIABLES
) -> tuple[int, float]:
    """Run ``script`` about ``count`` times by 16 clients, prepared: how often it was, and the seconds.

    Args:
        variables: what the script knows as ``:name``.

    Raises:
        SystemExit: a statement failed.
    """
    process = await asyncio.create_subprocess_exec(
        str(postgres.programs(stack.home) / "pgbench"),
        *("-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-t", str(count // CLIENTS)),
        *(f"--define={name}={value}" for name, value in variables.items()),
        *("-f", str(script), url),
        env={**os.environ, "PGOPTIONS": "-c plan_cache_mode=force_generic_plan"},  # plans each statement once
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    rate = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
    processed = re.search(r"actually processed: (\d+)/(\d+)", said)
    if process.returncode != 0 or rate is None or processed is None or processed[1] != processed[2]:
        raise SystemExit(f"bench: pgbench failed:\n{said}")
    return int(processed[1]), int(processed[1]) / float(rate[1])
