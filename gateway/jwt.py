"""Who may pass: Envoy's check of access tokens, and which RPC needs one.

The keys stand in this filter's configuration alone, which Envoy takes from a file of its own (extension configuration
discovery). So a rotation replaces one filter: no stream is cut, no connection drained, no rate-limit bucket emptied.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.contracts import Rpc

FILTER = "envoy.filters.http.jwt_authn"
TYPE = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
PAYLOAD = "jwt"
"""Where the claims of a verified token stand in the filter's dynamic metadata."""

REQUIRED = "required"
OPTIONAL = "optional"


class KeysUnreadableError(Exception):
    """The file of public keys is missing or holds no keys."""


def read_keys(path: Path) -> str:
    """The JWKS in ``path``, checked for the mistakes with which Envoy would refuse everybody.

    Raises:
        KeysUnreadableError: there is no such file, it is not JSON, or no key in it verifies ES256.
    """
    try:
        keys = json.loads(path.read_text())["keys"]
    except FileNotFoundError:
        raise KeysUnreadableError(f"{path} is missing: it holds the user service's public keys") from None
    except (ValueError, KeyError, TypeError) as error:
        raise KeysUnreadableError(f"{path} is not a JWKS: {error!r}") from error
    # Symmetric keys would let whoever reads this public file sign tokens.
    elliptic = [{**key, "alg": "ES256"} for key in keys if key.get("kty") == "EC" and key.get("crv") == "P-256"]
    if not elliptic:
        raise KeysUnreadableError(f"{path} holds no EC key on P-256, so no access token could be verified")
    return json.dumps({"keys": elliptic}, sort_keys=True)


def filter_config(provider: dict[str, Any], keys: str) -> dict[str, Any]:
    """The filter, from the readable ``provider`` of ``envoy/edge.yaml`` and the public keys."""
    return {
        "@type": TYPE,
        "providers": {"user": {**provider, "local_jwks": {"inline_string": keys}, "payload_in_metadata": PAYLOAD}},
        "requirement_map": {
            REQUIRED: {"provider_name": "user"},
            # A token that is sent must be valid even where none is needed: a client should learn that it expired.
            OPTIONAL: {"requires_any": {"requirements": [{"provider_name": "user"}, {"allow_missing": {}}]}},
        },
        "bypass_cors_preflight": True,
    }


def requirement(name: str) -> dict[str, Any]:
    """A route's own setting of the filter."""
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
        "requirement_name": name,
    }


def requirement_of(rpc: Rpc) -> dict[str, Any]:
    return requirement(OPTIONAL if rpc.open_to_anyone else REQUIRED)
