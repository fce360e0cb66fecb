"""Accounts that an operator makes or changes: demo accounts, and roles. ``Register`` only ever makes customers."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.kit.call import UserId
from services.kit.outbox import append
from services.user.domain import Account, Email, Registration, Role, email_of, new_password
from services.user.passwords import PasswordDesk
from services.user.store import UserStore
from services.user.usecases import user_created

NAMESPACE = uuid.UUID("0c9f2a55-3c7f-5ad4-8f6e-1b8f0d1f7a10")
"""Of accounts whose id follows from their address, so that it is the same on every machine."""


class AccountTrouble(Exception):
    """An operator's wish that cannot be done; the message says why."""


@dataclass(frozen=True, slots=True)
class WantedAccount:
    email: str
    name: str
    roles: tuple[Role, ...]
    password: str = field(repr=False)

    @property
    def user_id(self) -> UserId:
        return UserId(str(uuid.uuid5(NAMESPACE, email_of(self.email))))


DEMO_PASSWORD = "marquee-demo"
DEMO_ACCOUNTS = (
    WantedAccount("customer@demo.marquee.test", "Asha Customer", (Role.CUSTOMER,), DEMO_PASSWORD),
    WantedAccount("staff@demo.marquee.test", "Ravi Staff", (Role.STAFF, Role.CUSTOMER), DEMO_PASSWORD),
    WantedAccount("admin@demo.marquee.test", "Meera Admin", (Role.ADMIN, Role.CUSTOMER), DEMO_PASSWORD),
)


async def ensure_accounts(
    wanted: Sequence[WantedAccount], *, store: UserStore, desk: PasswordDesk
) -> list[tuple[Account, bool]]:
    """Have these accounts, with these roles and passwords; with each, whether it is new.

    Raises:
        AccountTrouble: somebody registered one of the addresses before. Such an account gets no role from us.
    """
    return [await _ensure(each, store=store, desk=desk) for each in wanted]


async def _ensure(wanted: WantedAccount, *, store: UserStore, desk: PasswordDesk) -> tuple[Account, bool]:
    email = email_of(wanted.email)
    password = new_password(wanted.password, email)
    async with store.transaction() as tx:
        known = await tx.find_credentials(email)
    with desk.reserve() as passwords:
        if known is not None and known.account.user_id != wanted.user_id:
            raise AccountTrouble(f"{email} was registered by somebody; this account is left as it is.")
        if known is not None and await passwords.verify(known.password_hash, password):
            new_hash = None
        else:
            new_hash = await passwords.hash(password)
    registration = Registration(email=email, phone="", name=wanted.name, password=password)
    async with store.transaction() as tx:
        if new_hash is not None:
            created = await tx.add_known_account(wanted.user_id, registration, new_hash, wanted.roles)
            if created is not None:
                await append(tx.connection, [user_created(created)])
                return created, True
        account = await tx.lock_account(email)
        if account is None or account.user_id != wanted.user_id:
            raise AccountTrouble(f"{email} was registered by somebody; this account is left as it is.")
        if new_hash is not None and known is not None:
            await tx.replace_password_hash(wanted.user_id, old=known.password_hash, new=new_hash)
        if set(account.roles) != set(wanted.roles):
            await tx.set_roles(wanted.user_id, wanted.roles)
    return account, False


async def change_role(email: Email, role: Role, *, give: bool, store: UserStore) -> tuple[str, ...]:
    """Give a role to an account, or take it away; the roles that it has then. Its next refresh brings them.

    Raises:
        AccountTrouble: no such account, or its last role would go.
    """
    async with store.transaction() as tx:
        account = await tx.lock_account(email)
        if account is None:
            raise AccountTrouble(f"{email} has no account.")
        others = tuple(each for each in account.roles if each != role)
        roles = (*others, str(role)) if give else others
        if not roles:
            raise AccountTrouble(f"{role} is the only role of {email}; give another one first.")
        if set(roles) != set(account.roles):
            await tx.set_roles(account.user_id, roles)
    return roles
