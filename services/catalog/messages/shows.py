"""Shows as messages."""

from __future__ import annotations

from collections.abc import Iterable

from marquee.catalog import v1 as catalog_v1
from services.catalog.domain.shows import NamedShow, RefundTier, require_tiers
from services.catalog.messages.values import date_message, time_message, uuid_text
from services.kit import money
from services.kit.money import Money


def show_message(named: NamedShow) -> catalog_v1.Show:
    """The show without its free seats, which only booking knows."""
    show = named.show
    return catalog_v1.Show(
        show_id=str(show.show_id),
        movie_id=uuid_text(show.movie_id),
        event_id=uuid_text(show.event_id),
        title=named.title,
        venue_id=str(show.venue_id),
        venue_name=named.venue_name,
        screen_id=str(show.screen_id),
        screen_name=named.screen_name,
        city_id=show.city_id,
        start_time=time_message(show.start_time),
        end_time=time_message(show.end_time),
        business_date=date_message(show.business_date),
        language=show.language,
        format=catalog_v1.Format.ValueType(show.format),
        layout_id=str(show.layout_id),
        layout_version=show.layout_version,
        prices=[
            catalog_v1.CategoryPrice(category=category, price=money.to_proto(price))
            for category, price in show.prices.items()
        ],
        on_sale_time=time_message(show.on_sale_time),
        off_sale_time=time_message(show.off_sale_time),
        refund_policy=catalog_v1.RefundPolicy(
            tiers=[
                catalog_v1.RefundTier(minutes_before=tier.minutes_before, percent=tier.percent)
                for tier in show.refund_tiers
            ]
        ),
        organizer_id=uuid_text(show.organizer_id),
        state=catalog_v1.ShowState.ValueType(show.state),
        capacity=show.capacity,
        version=show.version,
        time_zone=show.time_zone,
    )


def prices_of(messages: Iterable[catalog_v1.CategoryPrice], field: str) -> list[tuple[str, Money]]:
    """Prices as sent.

    Raises:
        InvalidArgument: names the amount that is none, below ``field``.
    """
    return [
        (each.category, money.from_proto(each.price, f"{field}[{index}].price")) for index, each in enumerate(messages)
    ]


def tiers_of(message: catalog_v1.RefundPolicy, field: str) -> tuple[RefundTier, ...]:
    """The refund policy as sent.

    Raises:
        InvalidArgument: names the tier that is out of order, below ``field``.
    """
    tiers = tuple(RefundTier(tier.minutes_before, tier.percent) for tier in message.tiers)
    require_tiers(tiers, field)
    return tiers
