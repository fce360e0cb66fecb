"""argon2id away from the event loop: a few threads, and a limit to how many sign-ins may be under way."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.kit.errors import Overloaded
from services.user.domain import Password


class Passwords:
    """Hashes and checks passwords; handed out by `PasswordDesk.reserve` only."""

    def __init__(self, hasher: PasswordHasher, threads: ThreadPoolExecutor, dummy: str) -> None:
        self._hasher = hasher
        self._threads = threads
        self._dummy = dummy

    async def hash(self, password: Password) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, password.secret)

    async def verify(self, password_hash: str | None, password: Password) -> bool:
        """Whether ``password`` is the one. No hash (no such account) costs the same and is never right."""
        right = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._matches, password_hash or self._dummy, password.secret
        )
        return right and password_hash is not None

    def outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other costs than are wanted now."""
        return self._hasher.check_needs_rehash(password_hash)

    def _matches(self, password_hash: str, secret: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, secret)
        except (VerificationError, InvalidHashError):
            return False


class PasswordDesk:
    """Lets in as many sign-ins as can be served soon, and turns away the rest at once.

    Args:
        most: sign-ins under way, the waiting ones included. Each is a hash or two.
    """

    def __init__(self, passwords: Passwords, *, most: int) -> None:
        self._passwords = passwords
        self._most = most
        self._inside = 0

    @contextmanager
    def reserve(self) -> Iterator[Passwords]:
        """A place for one sign-in.

        Raises:
            Overloaded: too many are under way. Before any work was done, so nothing needs undoing.
        """
        if self._inside >= self._most:
            raise Overloaded("too many people sign in just now; try again", retry_after_seconds=1)
        self._inside += 1
        try:
            yield self._passwords
        finally:
            self._inside -= 1


@asynccontextmanager
async def open_passwords(hasher: PasswordHasher, *, threads: int, most: int) -> AsyncIterator[PasswordDesk]:
    """The desk with its threads. The dummy that stands in for unknown accounts has the costs of ``hasher``."""
    with ThreadPoolExecutor(threads, thread_name_prefix="argon2") as pool:
        dummy = await asyncio.get_running_loop().run_in_executor(pool, hasher.hash, secrets.token_bytes(32))
        yield PasswordDesk(Passwords(hasher, pool, dummy), most=most)
