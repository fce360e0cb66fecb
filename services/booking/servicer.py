"""gRPC in and out of booking: messages to use cases. No SQL, no rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc

from marquee.booking import v1 as booking_v1
from services.booking import streams, usecases
from services.booking.desks import Desks
from services.booking.payables import get_payables
from services.booking.settings import BookingSettings
from services.booking.streams import StreamLimits
from services.kit.call import calling_user, current_call
from services.kit.errors import InvalidPageToken, Refusal, to_status
from services.kit.lifecycle import Lifecycle
from services.kit.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_PAGE = 20


class BookingServicer(booking_v1.BookingServiceServicer):
    """``marquee.booking.v1.BookingService``."""

    def __init__(
        self, desks: Desks, lifecycle: Lifecycle, limits: StreamLimits, pages: PageTokens, settings: BookingSettings
    ) -> None:
        self._desks = desks
        self._lifecycle = lifecycle
        self._limits = limits
        self._pages = pages
        self._settings = settings

    async def GetSeatMap(self, request: booking_v1.GetSeatMapRequest, context: Context) -> bytes:  # type: ignore[override]  # serialized once for all who draw it
        return await usecases.seat_map(UUID(request.show_id), desk=self._desks.of(UUID(request.show_id)))

    async def WatchSeats(self, request: booking_v1.WatchSeatsRequest, context: Context) -> AsyncIterator[bytes]:  # type: ignore[override]  # serialized once for all viewers
        with self._limits.entered(current_call()):
            async for update in streams.watch_seats(
                request,
                context.write,
                desk=self._desks.of(UUID(request.show_id)),
                lifecycle=self._lifecycle,
                heartbeat_seconds=self._settings.heartbeat_seconds,
            ):
                yield update

    async def CreateReservation(
        self, request: booking_v1.CreateReservationRequest, context: Context
    ) -> booking_v1.Reservation:
        return await usecases.hold_seats(request, calling_user().user_id, desk=self._desks.of(UUID(request.show_id)))

    async def GetReservation(
        self, request: booking_v1.GetReservationRequest, context: Context
    ) -> booking_v1.Reservation:
        return await usecases.get_reservation(
            UUID(request.reservation_id), calling_user().user_id, desk=self._desks.of(UUID(request.reservation_id))
        )

    async def ReleaseReservation(
        self, request: booking_v1.ReleaseReservationRequest, context: Context
    ) -> booking_v1.Reservation:
        return await usecases.release_seats(
            UUID(request.reservation_id), calling_user().user_id, desk=self._desks.of(UUID(request.reservation_id))
        )

    async def CreateBooking(self, request: booking_v1.CreateBookingRequest, context: Context) -> booking_v1.Booking:
        return await usecases.create_booking(
            request, calling_user().user_id, desk=self._desks.of(UUID(request.reservation_id))
        )

    async def GetBooking(self, request: booking_v1.GetBookingRequest, context: Context) -> booking_v1.Booking:
        return await usecases.get_booking(
            UUID(request.booking_id), calling_user().user_id, desk=self._desks.of(UUID(request.booking_id))
        )

    async def ListBookings(
        self, request: booking_v1.ListBookingsRequest, context: Context
    ) -> booking_v1.ListBookingsResponse:
        before = self._pages.read(request)
        bookings, more = await usecases.list_bookings(
            calling_user().user_id,
            _position(before) if before is not None else None,
            request.page_size or DEFAULT_PAGE,
            desks=self._desks,
        )
        token = self._pages.make(request, [more[0].isoformat(), str(more[1])]) if more else ""
        return booking_v1.ListBookingsResponse(bookings=bookings, next_page_token=token)

    async def WatchBooking(
        self, request: booking_v1.WatchBookingRequest, context: Context
    ) -> AsyncIterator[booking_v1.BookingUpdate]:
        with self._limits.entered(current_call()):
            async for update in streams.watch_booking(
                UUID(request.booking_id),
                calling_user().user_id,
                desk=self._desks.of(UUID(request.booking_id)),
                lifecycle=self._lifecycle,
                poll_seconds=self._settings.poll_seconds,
                heartbeat_seconds=self._settings.heartbeat_seconds,
            ):
                yield update

    async def CancelBooking(self, request: booking_v1.CancelBookingRequest, context: Context) -> booking_v1.Booking:
        return await usecases.cancel_booking(
            request, calling_user().user_id, desk=self._desks.of(UUID(request.booking_id))
        )

    async def BlockSeats(
        self, request: booking_v1.BlockSeatsRequest, context: Context
    ) -> booking_v1.BlockSeatsResponse:
        version = await usecases.block_seats(
            request, calling_user().user_id, desk=self._desks.of(UUID(request.show_id))
        )
        return booking_v1.BlockSeatsResponse(version=version)


def _position(after: list[str | int | float]) -> tuple[datetime, UUID]:
    try:
        moment, booking_id = after
        return datetime.fromisoformat(str(moment)).astimezone(UTC), UUID(str(booking_id))
    except ValueError:
        raise InvalidPageToken from None


class BookingInternalServicer(booking_v1.BookingInternalServiceServicer):
    """``marquee.booking.v1.BookingInternalService``, for other services."""

    def __init__(self, desks: Desks) -> None:
        self._desks = desks

    async def GetPayables(
        self, request: booking_v1.GetPayablesRequest, context: Context
    ) -> booking_v1.GetPayablesResponse:
        wanted = [(UUID(each.booking_id), UUID(each.user_id)) for each in request.wanted]
        answers = await get_payables(wanted, desks=self._desks)
        return booking_v1.GetPayablesResponse(
            answers=[
                booking_v1.PayableAnswer(refusal=to_status(answer))
                if isinstance(answer, Refusal)
                else booking_v1.PayableAnswer(payable=answer)
                for answer in answers
            ]
        )

    async def GetAvailability(
        self, request: booking_v1.GetAvailabilityRequest, context: Context
    ) -> booking_v1.GetAvailabilityResponse:
        by_desk = self._desks.by_desk(UUID(show_id) for show_id in request.show_ids)
        found = await asyncio.gather(*(desk.seats.available_lately(show_ids) for desk, show_ids in by_desk))
        return booking_v1.GetAvailabilityResponse(
            shows=[
                booking_v1.ShowAvailability(show_id=str(show_id), available_seats=available, version=version)
                for shows in found
                for show_id, available, version in shows
            ]
        )
