"""The whole edge: contracts, settings, keys and ``envoy/edge.yaml`` become Envoy's configuration files.

=================  ==================================================================================================
``envoy.json``     what Envoy starts with: services, overload limits, where the others are. A change needs a restart.
``listener.json``  port, filters, descriptors. Replaced, it cuts streams after the drain time.
``routes.json``    routes and limits. Replaced, it keeps streams and starts the limits' buckets anew.
``jwt.json``       the public keys. Replaced, it changes nothing else.
=================  ==================================================================================================

Envoy watches the last three and takes a new file when it is renamed into place; a bad one is refused and the old kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway import admission, clusters, errors, faults, guards, jwt, ratelimits, routes
from gateway.contracts import Contracts
from gateway.settings import Settings
from gateway.template import fill

BASE = Path(__file__).parents[1] / "envoy"

BOOTSTRAP = "envoy.json"
LISTENER = "listener.json"
ROUTES = "routes.json"
JWT = "jwt.json"

_ROUTE_CONFIGURATION = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

Json = dict[str, Any]


@dataclass(frozen=True)
class Edge:
    """The parts of one rendered configuration, not yet in files."""

    bootstrap: Json
    """With the marker ``<listener_file>``, because only the folder's writer knows it."""
    listener: Json
    """With the markers ``<routes_source>`` and ``<jwt_source>``."""
    routes: Json
    jwt: Json

    def files(self, folder: Path) -> dict[str, str]:
        """What belongs into ``folder``, by file name."""
        folder = folder.absolute()
        rds = {"route_config_name": self.routes["name"], "config_source": _from_file(folder / ROUTES)}
        ecds = {"config_source": _from_file(folder / JWT), "type_urls": [jwt.TYPE]}
        extension = {"@type": _EXTENSION, "name": jwt.FILTER, "typed_config": self.jwt}
        return {
            JWT: _resources(extension),
            ROUTES: _resources({"@type": _ROUTE_CONFIGURATION, **self.routes}),
            LISTENER: _resources(fill(self.listener, {"routes_source": rds, "jwt_source": ecds})),
            # Last, so that an Envoy that starts on it finds the others.
            BOOTSTRAP: _json(fill(self.bootstrap, {"listener_file": str(folder / LISTENER)})),
        }

    def in_one_file(self) -> str:
        """The same with everything inside, because `envoy --mode validate` does not look into other files."""
        listener = fill(self.listener, {"routes_source": None, "jwt_source": None})
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["route_config"] = self.routes
        del manager["rds"]
        for http_filter in manager["http_filters"]:
            if "config_discovery" in http_filter:
                del http_filter["config_discovery"]
                http_filter["typed_config"] = self.jwt
        del listener["@type"]
        bootstrap = fill(self.bootstrap, {"listener_file": "unused"})
        del bootstrap["dynamic_resources"]
        bootstrap["static_resources"]["listeners"] = [listener]
        return _json(bootstrap)


def render(settings: Settings, contracts: Contracts, *, base: Path = BASE) -> Edge:
    """The edge for ``settings``.

    Raises:
        KeysUnreadableError: the file of public keys cannot be used.
        UnknownMarkerError: ``envoy/edge.yaml`` asks for something unknown.
        UnknownRpcError: ``envoy/edge.yaml`` names an RPC that the edge does not have.
    """
    edge = yaml.safe_load((base / "edge.yaml").read_text())
    rpcs = contracts.edge_rpcs
    limits = settings.rate_limits == "on"
    values: Json = {
        "admin_port": settings.admin_port,
        "listen_host": settings.listen_host,
        "port": settings.port,
        "trusted_hops": settings.trusted_hops,
        "clusters": clusters.clusters(edge["cluster"], settings.services, settings.site),
        "local_replies": errors.local_reply_config(),
        "access_log": edge["access_log"],
        "flood": ratelimits.flood(edge["flood"], rpcs, enforced=limits),
        "guard_script": guards.script((base / "guard.lua").read_text(), rpcs),
        "faults_script": faults.script((base / "faults.lua").read_text(), contracts),
        "cache_script": (base / "cache.lua").read_text(),
        "descriptors": base64.b64encode(contracts.descriptor_for_transcoder()).decode(),
        "services": list(contracts.edge_services),
        **admission.limits(edge["admission"], rpcs),
        "cors_origins": [{"exact": origin} for origin in settings.cors_origins],
        # Filled in where the files' folder is known.
        **{marker: f"<{marker}>" for marker in ("listener_file", "routes_source", "jwt_source")},
    }
    values["filters"] = fill(edge["filters"], values)
    values["connection_manager"] = fill(edge["connection_manager"], values)
    cors = fill(edge["cors"], values) if settings.cors_origins else None
    urgent = admission.named(edge["urgent"], rpcs)
    without = admission.filters_without(edge["admission"], rpcs)
    site = settings.site is not None
    host = routes.virtual_host(rpcs, urgent=urgent, without=without, limits=limits, cors=cors, site=site)
    return Edge(
        bootstrap=fill(edge["bootstrap"], values),
        listener=fill(edge["listener"], values),
        routes={"name": "edge", "virtual_hosts": [host]},
        jwt=jwt.filter_config(edge["token"], jwt.read_keys(settings.jwks_file)),
    )


def write(edge: Edge, folder: Path) -> tuple[str, ...]:
    """Put the files into ``folder``, each at once, and only those that change; answers their names."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in edge.files(folder).items():
        target = folder / name
        if target.exists() and target.read_text() == text:
            continue
        # Envoy watches for a file that is moved into place: written slowly, it would be read by halves.
        draft = folder / f".{name}.{os.getpid()}"
        draft.write_text(text)
        draft.replace(target)
        changed.append(name)
    return tuple(changed)


def _from_file(path: Path) -> Json:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _resources(resource: Json) -> str:
    text = _json(resource)
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f'{{"version_info": "{version}", "resources": [{text}]}}\n'


def _json(value: Json) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
