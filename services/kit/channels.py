"""Calling other services: one channel a service, with our token and the caller's request id."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from services.kit.call import current_call

TOKEN_CHECK_SECONDS = 5.0
DEFAULT_TIMEOUT_SECONDS = 5.0
SERVICE_CONFIG = """{"methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]}}],
  "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1}}"""
"""Internal calls are reads, or carry an id that makes a repeat harmless. Retries have a budget."""

OPTIONS = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)


class TokenFile:
    """Our own service token, read again when it may have been renewed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._read_at = 0.0

    def token(self) -> str:
        now = time.monotonic()
        if now - self._read_at > TOKEN_CHECK_SECONDS or not self._token:
            self._token = self._path.read_text().strip()
            self._read_at = now
        return self._token


class ServiceIdentity(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the token, the request id and a deadline to every call."""

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        metadata = list(client_call_details.metadata or ())
        metadata.append(("authorization", f"Bearer {self._tokens.token()}"))
        call = current_call()
        if call is not None:
            metadata.append(("x-request-id", call.request_id))
        details = grpc.aio.ClientCallDetails(
            method=client_call_details.method,
            timeout=client_call_details.timeout or DEFAULT_TIMEOUT_SECONDS,
            metadata=grpc.aio.Metadata(*metadata),
            credentials=client_call_details.credentials,
            wait_for_ready=client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


@asynccontextmanager
async def open_channel(address: str, token_file: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the service at ``address``. The caller's own timeout, cancelled with its task, bounds every call."""
    channel = grpc.aio.insecure_channel(address, options=OPTIONS, interceptors=[ServiceIdentity(TokenFile(token_file))])
    try:
        yield channel
    finally:
        await channel.close(grace=1)
