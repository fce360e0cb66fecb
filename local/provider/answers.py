"""Answers in JSON, as compact as Razorpay's."""

import json
from typing import Any

from aiohttp import web

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_answer(content: dict[str, Any], *, status: int = 200) -> web.Response:
    """`application/json` without a charset, which aiohttp's own would name."""
    return web.Response(body=_encode(content).encode(), status=status, content_type="application/json")
