"""What goes wrong on somebody's machine, said so that they can do something about it."""

from __future__ import annotations


class Trouble(Exception):
    """A sentence for the person at the terminal: what is wrong and what to do. Never shown with a traceback."""
