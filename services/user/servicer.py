"""gRPC in and out of the user service."""

from __future__ import annotations

from typing import Any

import grpc
from google.api import httpbody_pb2
from google.protobuf import empty_pb2

from marquee.user import v1 as user_v1
from services.kit.call import UserCaller, UserId, calling_user, current_call
from services.user import usecases
from services.user.cookies import RefreshCookie
from services.user.domain import (
    Password,
    Registration,
    SessionEnded,
    SessionId,
    device_name,
    email_of,
    name_of,
    new_password,
    place_of,
)
from services.user.jwks import PublishedKeys
from services.user.messages import preferences_of, session_message, user_message
from services.user.passwords import PasswordDesk
from services.user.signing import AccessTokens
from services.user.store import UserStore
from services.user.usecases import Device, SessionRules, SignedIn

Context = grpc.aio.ServicerContext[Any, Any]


class UserServicer(user_v1.UserServiceServicer):
    """``marquee.user.v1.UserService``."""

    def __init__(
        self,
        *,
        store: UserStore,
        desk: PasswordDesk,
        tokens: AccessTokens,
        published: PublishedKeys,
        cookie: RefreshCookie,
        rules: SessionRules,
    ) -> None:
        self._store = store
        self._desk = desk
        self._tokens = tokens
        self._published = published
        self._cookie = cookie
        self._rules = rules

    async def Register(self, request: user_v1.RegisterRequest, context: Context) -> user_v1.SignIn:
        email = email_of(request.email)
        registration = Registration(
            email=email,
            phone=request.phone,
            name=name_of(request.name),
            password=new_password(request.password, email),
        )
        named = user_v1.RegisterRequest()
        named.CopyFrom(request)
        named.ClearField("password")  # not even a fast hash of it is stored
        signed_in = await usecases.register(
            registration,
            named,
            _device(context),
            store=self._store,
            desk=self._desk,
            tokens=self._tokens,
            rules=self._rules,
        )
        return await self._deliver(signed_in, request.token_delivery == user_v1.TOKEN_DELIVERY_COOKIE, context)

    async def Login(self, request: user_v1.LoginRequest, context: Context) -> user_v1.SignIn:
        signed_in = await usecases.log_in(
            email_of(request.email),
            Password.typed(request.password),
            _device(context),
            store=self._store,
            desk=self._desk,
            tokens=self._tokens,
            rules=self._rules,
        )
        return await self._deliver(signed_in, request.token_delivery == user_v1.TOKEN_DELIVERY_COOKIE, context)

    async def RefreshSession(self, request: user_v1.RefreshSessionRequest, context: Context) -> user_v1.SignIn:
        from_cookie = "" if request.refresh_token else self._cookie.read(context.invocation_metadata() or ())
        try:
            signed_in = await usecases.refresh(
                request.refresh_token or from_cookie, store=self._store, tokens=self._tokens, rules=self._rules
            )
        except SessionEnded:
            if from_cookie:
                await _set_cookie(self._cookie.cleared(), context)
            raise
        return await self._deliver(signed_in, bool(from_cookie), context)

    async def Logout(self, request: user_v1.LogoutRequest, context: Context) -> empty_pb2.Empty:
        from_cookie = self._cookie.read(context.invocation_metadata() or ())
        call = current_call()
        caller = call.caller if call is not None and isinstance(call.caller, UserCaller) else None
        await usecases.log_out(request.refresh_token or from_cookie, caller, store=self._store)
        if from_cookie:
            await _set_cookie(self._cookie.cleared(), context)
        return empty_pb2.Empty()

    async def GetProfile(self, request: user_v1.GetProfileRequest, context: Context) -> user_v1.User:
        return user_message(await usecases.find_account(calling_user().user_id, store=self._store))

    async def UpdatePreferences(
        self, request: user_v1.UpdatePreferencesRequest, context: Context
    ) -> user_v1.Preferences:
        return await usecases.update_preferences(
            calling_user().user_id, preferences_of(request), request, store=self._store
        )

    async def ListSessions(
        self, request: user_v1.ListSessionsRequest, context: Context
    ) -> user_v1.ListSessionsResponse:
        caller = calling_user()
        sessions = await usecases.list_sessions(caller.user_id, store=self._store)
        return user_v1.ListSessionsResponse(
            sessions=[session_message(each, current=each.session_id == caller.session_id) for each in sessions]
        )

    async def RevokeSession(self, request: user_v1.RevokeSessionRequest, context: Context) -> empty_pb2.Empty:
        await usecases.revoke_session(calling_user().user_id, SessionId(request.session_id), store=self._store)
        return empty_pb2.Empty()

    async def GetJwks(self, request: user_v1.GetJwksRequest, context: Context) -> httpbody_pb2.HttpBody:
        return httpbody_pb2.HttpBody(content_type="application/jwk-set+json", data=self._published.body())

    async def _deliver(self, signed_in: SignedIn, by_cookie: bool, context: Context) -> user_v1.SignIn:
        if by_cookie:
            await _set_cookie(self._cookie.holding(signed_in.refresh_token), context)
        return user_v1.SignIn(
            access_token=signed_in.access_token,
            refresh_token="" if by_cookie else signed_in.refresh_token,
            expires_in=signed_in.expires_in,
            user=user_message(signed_in.account),
        )


class UserInternalServicer(user_v1.UserInternalServiceServicer):
    """``marquee.user.v1.UserInternalService``, for other services."""

    def __init__(self, store: UserStore) -> None:
        self._store = store

    async def GetUser(self, request: user_v1.GetUserRequest, context: Context) -> user_v1.User:
        return user_message(await usecases.find_account(UserId(request.user_id), store=self._store))


async def _set_cookie(value: str, context: Context) -> None:
    """Initial metadata is what the edge turns into the answer's headers."""
    await context.send_initial_metadata((("set-cookie", value),))


def _device(context: Context) -> Device:
    metadata: dict[str, str | bytes] = {key: value for key, value in context.invocation_metadata() or ()}  # noqa: C416
    user_agent = metadata.get("user-agent", "")
    call = current_call()
    return Device(
        user_agent=device_name(user_agent) if isinstance(user_agent, str) else "",
        place=place_of(call.peer) if call is not None else place_of(""),
    )
