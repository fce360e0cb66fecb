"""To whom: one Envoy cluster for each service behind the edge."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from gateway.routes import SITE_CLUSTER
from gateway.settings import Address


def clusters(base: dict[str, Any], services: Mapping[str, Address], site: Address | None) -> list[dict[str, Any]]:
    """The services, the web app's server where there is one, and a cluster without members (see ``routes``)."""
    found = [{**base, "name": name, **_members(name, address)} for name, address in sorted(services.items())]
    if site is not None:
        found.append({"name": SITE_CLUSTER, "connect_timeout": "1s", **_members(SITE_CLUSTER, site)})
    found.append({"name": "nowhere", "connect_timeout": "1s", "type": "STATIC"})
    return found


def _members(name: str, address: Address) -> dict[str, Any]:
    socket = {"socket_address": {"address": address.host, "port_value": address.port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": socket}}]}]
    members: dict[str, Any] = {"load_assignment": {"cluster_name": name, "endpoints": endpoints}}
    if _is_ip(address.host):
        return {"type": "STATIC", **members}
    # A headless Kubernetes service names all of its pods; each becomes a member.
    return {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED", "dns_refresh_rate": "5s", **members}


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
