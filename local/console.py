"""What the supervisor says on the terminal while it starts, when something happens, and when everything is ready."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from local.status import PartStatus

DEMO_PASSWORD = "marquee-demo"  # of the demo accounts, which exist only where they were asked for
ACCOUNTS = ("customer", "staff", "admin")


class Terminal:
    """Prints for a person. A terminal that was closed must not keep anything from stopping."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def say(self, text: str, style: str = "") -> None:
        with contextlib.suppress(OSError):
            self._console.print(escape(text), style=style, soft_wrap=True)  # never breaks what is to be copied

    def happened(self, text: str) -> None:
        """Something changed while the stack runs."""
        self.say(f"{time.strftime('%H:%M:%S')}  {text}", "yellow")

    def part_ready(self, name: str, seconds: float) -> None:
        with contextlib.suppress(OSError):
            self._console.print(f"  [green]✓[/] {name:<10} [dim]{seconds:.1f} s[/]")

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show that something takes its time."""
        if self._console.is_terminal:
            with self._console.status(escape(what)):
                yield
        else:
            self.say(what)
            yield

    def ready_panel(self, *, edge: str, seconds: float, demo: bool, limits: bool, has_edge: bool) -> None:
        """Where to go from here."""
        lines = [f"[bold]{edge}[/]  REST, grpc-web and gRPC on one port"]
        if not has_edge:
            lines = ["[yellow]without an edge: `make status` lists the parts[/]"]
        if not limits:
            lines.append("[yellow]rate limits are off[/]")
        if demo:
            names = ", ".join(f"{account}@" for account in ACCOUNTS)
            lines += ["", f"[bold]accounts[/]  {names}demo.marquee.test", f"[bold]password[/]  {DEMO_PASSWORD}"]
        lines += ["", "[dim]Ctrl-C stops everything, `make reset` wipes the data, logs: .local/log/[/]"]
        with contextlib.suppress(OSError):
            self._console.print(
                Panel("\n".join(lines), title=f"Marquee is ready ({seconds:.1f} s)", border_style="green", expand=False)
            )
        if has_edge:
            for command in commands(edge, demo):  # outside the frame, whose bars would be copied too
                self.say(f"  {command}")

    def status_table(self, parts: list[PartStatus]) -> None:
        table = Table(box=None, pad_edge=False)
        for title in ("part", "state", "pid", "address", "restarts", "log"):
            table.add_column(title)
        for part in parts:
            table.add_row(
                part.name, part.state, str(part.pid or ""), part.address or "", str(part.restarts or ""), part.log
            )
        self._console.print(table)


def commands(edge: str, demo: bool) -> list[str]:
    """A first walk, to paste into another terminal."""
    walk = [f"curl -s {edge}/api/v1/cities", f"curl -s '{edge}/api/v1/movies?pageSize=3'"]
    if demo:
        body = shlex.quote(json.dumps({"email": "customer@demo.marquee.test", "password": DEMO_PASSWORD}))
        walk.append(f"curl -s {edge}/api/v1/users/login -H 'content-type: application/json' -d {body}")
    return walk
