"""Where the stack meets the demo data (``local/demo/``), which is imported only when it is asked for: it is large."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from local.home import Home
from local.stack import Stack
from local.trouble import Trouble


def _demo() -> ModuleType | None:
    return importlib.import_module("local.demo") if importlib.util.find_spec("local.demo") else None


async def load(stack: Stack) -> bool:
    """Have the demo data in ``stack``; False where there is none to load."""
    demo = _demo()
    if demo is None or not hasattr(demo, "load"):
        return False
    await demo.load(stack)
    return True


def seed_shows(home: Home, shows: int) -> None:
    """Add ``shows`` shows on one day to the running stack."""
    demo = _demo()
    if demo is None or not hasattr(demo, "seed_shows"):
        raise Trouble("there is no large seed in this checkout (local/demo/).")
    demo.seed_shows(home, shows)
