"""Accounts, sessions and sign-in: values and rules, without I/O and without a clock.

Refusal
├── EmailTaken
├── WrongCredentials
├── LoginSlowed
└── SessionEnded
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import math
import re
import unicodedata
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NewType

from marquee.edge import v1 as edge_v1
from services.kit.call import UserId
from services.kit.errors import InvalidArgument, Refusal

SessionId = NewType("SessionId", str)
Email = NewType("Email", str)
"""An e-mail address in the one form in which it is stored and looked up."""
AccountKey = NewType("AccountKey", bytes)
"""Stands for an address, whether or not it has an account."""
Place = NewType("Place", bytes)
"""Stands for where a caller is, roughly; empty for a stranger."""

STRANGER = Place(b"")


class EmailTaken(Refusal):
    reason = edge_v1.ERROR_REASON_EMAIL_TAKEN

    def __init__(self) -> None:
        super().__init__("this e-mail address already has an account")


class WrongCredentials(Refusal):
    """The same for an unknown address and for a wrong password."""

    reason = edge_v1.ERROR_REASON_WRONG_CREDENTIALS

    def __init__(self) -> None:
        super().__init__("the e-mail address or the password is wrong")


class LoginSlowed(Refusal):
    """The same for an unknown address and for a known one."""

    reason = edge_v1.ERROR_REASON_LOGIN_SLOWED

    def __init__(self, seconds: float) -> None:
        whole = math.ceil(seconds)
        super().__init__(
            f"too many failed attempts; try again in {whole} s",
            metadata={"retry_after_seconds": str(whole)},
            retry_after_seconds=whole,
        )


class SessionEnded(Refusal):
    reason = edge_v1.ERROR_REASON_SESSION_ENDED

    def __init__(self) -> None:
        super().__init__("this session has ended; sign in again")


class Role(enum.StrEnum):
    CUSTOMER = "customer"
    STAFF = "staff"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Notifications:
    """Channels that may be used; as a new account has them unless it says otherwise."""

    email: bool = True
    sms: bool = False
    push: bool = False
    marketing: bool = False


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a user likes; empty texts are not chosen."""

    language: str = ""
    genres: tuple[str, ...] = ()
    city_id: str = ""
    notifications: Notifications = field(default_factory=Notifications)


@dataclass(frozen=True, slots=True)
class Account:
    user_id: UserId
    email: Email
    phone: str
    name: str
    roles: tuple[str, ...]
    preferences: Preferences
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account with what its password is checked against. Never leaves the service."""

    account: Account
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Registration:
    """A wish for an account; its parts have passed the rules below."""

    email: Email
    phone: str
    name: str
    password: Password


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in device."""

    session_id: SessionId
    user_id: UserId
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


def session_id_of(claim: str) -> SessionId | None:
    """The session that a token names; None where it names none."""
    try:
        return SessionId(str(uuid.UUID(claim)))
    except ValueError:
        return None


# --- What people type


def email_of(text: str) -> Email:
    """The stored form of an address that the contract's rule let through (which is ASCII).

    Providers do not tell ``Ana@x.org`` from ``ana@x.org``, and people do not remember which they typed.
    """
    return Email(text.strip().lower())


MOST_PASSWORD_BYTES = 1024
LEAST_PASSWORD_CHARACTERS = 10


@dataclass(frozen=True, slots=True)
class Password:
    """What is hashed: NFKC, because one keyboard sends ``é`` as one character and another as two (NIST SP 800-63B)."""

    secret: bytes = field(repr=False)

    @classmethod
    def typed(cls, text: str) -> Password:
        return cls(unicodedata.normalize("NFKC", text).encode())


def new_password(text: str, email: Email) -> Password:
    """A password for a new account.

    Raises:
        InvalidArgument: shorter than 10 characters once normalized, longer than 1,024 bytes, of blanks only, of one
            character repeated, or the address itself.
    """
    password = Password.typed(text)
    normalized = password.secret.decode()
    if len(normalized) < LEAST_PASSWORD_CHARACTERS:
        raise InvalidArgument.of("password", f"must have at least {LEAST_PASSWORD_CHARACTERS} characters")
    if len(password.secret) > MOST_PASSWORD_BYTES:
        raise InvalidArgument.of("password", f"must not be longer than {MOST_PASSWORD_BYTES} bytes")
    if not _visible(normalized):
        raise InvalidArgument.of("password", "must not be blank")
    if len(set(normalized)) == 1:
        raise InvalidArgument.of("password", "must not be one character repeated")
    if normalized.lower() == email:
        raise InvalidArgument.of("password", "must not be the e-mail address")
    return password


DIRECTION_CHANGERS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They make the rest of a page read backwards. Joiners (ZWJ, ZWNJ) stay: Indic and Persian names need them."""


def name_of(text: str) -> str:
    """A name as it is stored: composed (NFC), without blanks around it.

    Raises:
        InvalidArgument: nothing in it can be seen, or it has characters that are no text.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if any(unicodedata.category(each) in ("Cc", "Cn", "Co", "Cs") or each in DIRECTION_CHANGERS for each in name):
        raise InvalidArgument.of("name", "must not contain control characters")
    if not _visible(name):
        raise InvalidArgument.of("name", "must not be blank")
    return name


def _visible(text: str) -> bool:
    """Whether a reader sees anything: letters, marks, numbers, punctuation, symbols."""
    return any(unicodedata.category(each)[0] in "LNPS" for each in text)


MOST_USER_AGENT = 200


def device_name(user_agent: str) -> str:
    """What a browser or app calls itself, shortened, printable characters only."""
    return re.sub(r"[^\x20-\x7e]+", " ", user_agent).strip()[:MOST_USER_AGENT]


# --- Slowing down guesses


FREE_ATTEMPTS = 5
LONGEST_WAIT_SECONDS = 60.0
FORGOTTEN_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Attempts:
    """Attempts on one address that have not succeeded, and how long ago the last one was."""

    count: int
    since_last: timedelta

    def forgotten(self) -> bool:
        return self.since_last >= FORGOTTEN_AFTER


def seconds_to_wait(attempts: Attempts) -> float:
    """How long the next attempt must wait; 0 when it may go on.

    The delay doubles from one second to a minute. It never becomes a lock-out, and an attempt that is refused for being
    early does not lengthen it: a stranger who guesses cannot keep the owner out for longer than that.
    """
    if attempts.count < FREE_ATTEMPTS or attempts.forgotten():
        return 0.0
    delay = min(2.0 ** min(attempts.count - FREE_ATTEMPTS, 10), LONGEST_WAIT_SECONDS)
    return max(0.0, delay - attempts.since_last.total_seconds())


def account_key(email: Email) -> AccountKey:
    """Under which attempts are counted; addresses without an account are counted too, and not kept in the clear."""
    return AccountKey(hashlib.sha256(b"account\0" + email.encode()).digest())


def place_of(peer: str) -> Place:
    """Where a caller is: its IPv4 address, or its IPv6 /64, as a hash; `STRANGER` when that cannot be told.

    Args:
        peer: an address as the edge forwards it (``203.0.113.7``), or as gRPC names a connection
            (``ipv4:203.0.113.7:5000``, ``ipv6:%5B::1%5D:5000``).
    """
    text = re.sub(r"^ipv[46]:", "", peer).replace("%5B", "[").replace("%5D", "]")
    if (bracketed := re.fullmatch(r"\[(.+)](?::\d+)?", text)) is not None:
        text = bracketed[1]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return STRANGER
    network = f"{address}/32" if address.version == 4 else f"{address}/64"
    return Place(hashlib.sha256(b"place\0" + str(ipaddress.ip_network(network, strict=False)).encode()).digest()[:16])


# --- Refresh tokens


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token as it is stored.

    Args:
        since_spent: how long ago it was spent; None while it is good.
        latest: no other token of the session was spent after it.
    """

    since_spent: timedelta | None
    latest: bool


class Verdict(enum.Enum):
    """What a refresh token that comes is."""

    GOOD = enum.auto()
    REPEATED = enum.auto()
    STOLEN = enum.auto()


def judge(token: RefreshToken, grace: timedelta) -> Verdict:
    """Whether a refresh token may be exchanged.

    A spent one may come again within ``grace`` if what it was exchanged for was not used since: then the answer was
    lost, or two tabs of one browser asked at once. In any other case one of its two holders is a thief.
    """
    if token.since_spent is None:
        return Verdict.GOOD
    if token.latest and token.since_spent <= grace:
        return Verdict.REPEATED
    return Verdict.STOLEN


def refresh_token_hash(token: str) -> bytes:
    """Tokens are 256 random bits, so a fast hash is enough to make a stolen table useless."""
    return hashlib.sha256(token.encode(errors="replace")).digest()
