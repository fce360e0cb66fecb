"""The catalogue, as booking asks it: for layouts, once each."""

from __future__ import annotations

from uuid import UUID

import grpc

from marquee.catalog import v1 as catalog_v1


class CatalogClient:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = catalog_v1.CatalogServiceStub(channel)

    async def layout(self, layout_id: UUID) -> catalog_v1.Layout:
        """A layout, which never changes.

        Raises:
            grpc.aio.AioRpcError: the catalogue does not answer, or has no such layout.
        """
        return await self._stub.GetLayout(catalog_v1.GetLayoutRequest(layout_id=str(layout_id)))
