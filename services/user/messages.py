"""Domain values as the contract's messages."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from marquee.user import v1 as user_v1
from services.user.domain import Account, Notifications, Preferences, Session


def timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def user_message(account: Account) -> user_v1.User:
    return user_v1.User(
        user_id=account.user_id,
        email=account.email,
        phone=account.phone,
        name=account.name,
        roles=account.roles,
        preferences=preferences_message(account.preferences),
        create_time=timestamp(account.created_at),
        update_time=timestamp(account.updated_at),
    )


def preferences_message(preferences: Preferences) -> user_v1.Preferences:
    notifications = preferences.notifications
    return user_v1.Preferences(
        language=preferences.language,
        genres=preferences.genres,
        city_id=preferences.city_id,
        notifications=user_v1.NotificationSettings(
            email=notifications.email,
            sms=notifications.sms,
            push=notifications.push,
            marketing=notifications.marketing,
        ),
    )


def preferences_of(request: user_v1.UpdatePreferencesRequest) -> Preferences:
    """What a request asks for; without ``notifications`` it asks for a new account's."""
    wanted = request.notifications
    return Preferences(
        language=request.language,
        genres=tuple(request.genres),
        city_id=request.city_id,
        notifications=Notifications(wanted.email, wanted.sms, wanted.push, wanted.marketing)
        if request.HasField("notifications")
        else Notifications(),
    )


def session_message(session: Session, *, current: bool) -> user_v1.Session:
    return user_v1.Session(
        session_id=session.session_id,
        user_agent=session.user_agent,
        create_time=timestamp(session.created_at),
        last_use_time=timestamp(session.last_used_at),
        expire_time=timestamp(session.expires_at),
        current=current,
    )
