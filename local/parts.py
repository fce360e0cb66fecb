"""Every part of the stack on one machine: what it is, what it is told, what it waits for."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from local import edge, files, postgres, probes, valkey
from local.home import CHECKOUT, Home
from local.keys import service_keys, user_keys
from local.part import Part

SERVICES = ("user", "catalog", "booking", "payment")
STORES = ("postgres", "cache", "bus")
PORTS = (*STORES, *SERVICES, "provider", "edge_admin")
"""What gets a port of its own choice, besides the edge, whose port people know."""


@dataclass(frozen=True)
class Plan:
    """What the parts of one stack are told."""

    home: Home
    ports: Mapping[str, int]
    """Of `PORTS`, and ``edge``."""
    rate_limits: bool = True
    postgres_settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """More variables, by part; they win."""

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    @property
    def edge_url(self) -> str:
        return f"http://localhost:{self.ports['edge']}"

    def database_url(self, service: str) -> str:
        return postgres.url(self.home, self.ports["postgres"], service)

    def with_own(self, name: str, env: Mapping[str, str]) -> dict[str, str]:
        return {**env, **self.environment.get(name, {})}


def all_parts(plan: Plan) -> list[Part]:
    """The whole stack. A service that is not written yet is left out."""
    services = [service(plan, name) for name in SERVICES if (CHECKOUT / "services" / name / "__main__.py").exists()]
    relays = [relay(plan)] if (CHECKOUT / "services" / "kit" / "relay.py").exists() else []
    providers = [provider(plan)] if (CHECKOUT / "local" / "provider" / "__main__.py").exists() else []
    edges = [edge_part(plan)] if (CHECKOUT / "gateway" / "__main__.py").exists() else []
    return [postgres_part(plan), cache(plan), bus(plan), databases(plan), *services, *relays, *providers, *edges]


def postgres_part(plan: Plan) -> Part:
    return Part(
        name="postgres",
        argv=postgres.server_argv(plan.home, plan.ports["postgres"], plan.postgres_settings),
        cwd=postgres.data_folder(plan.home),
        prepare=functools.partial(postgres.prepare, plan.home),
        probe=probes.postgres(plan.ports["postgres"]),
        address=plan.address("postgres"),
        url=plan.database_url("postgres"),
        account=postgres.account(),
        stop_signal=postgres.STOP_FAST,
        stop_patience_s=20,
        orphan_signal=postgres.STOP_AT_ONCE,
        patience_s=60,  # after a crash it reads its log first
    )


def cache(plan: Plan) -> Part:
    return _valkey(plan, "cache", valkey.CACHE)


def bus(plan: Plan) -> Part:
    return _valkey(plan, "bus", valkey.BUS)


def _valkey(plan: Plan, name: str, settings: tuple[str, ...]) -> Part:
    port = plan.ports[name]
    return Part(
        name=name,
        argv=valkey.server_argv(plan.home, name, port, settings),
        cwd=valkey.folder(plan.home, name),
        probe=probes.valkey(port),
        address=plan.address(name),
        url=valkey.url(plan.home, name, port),
    )


def databases(plan: Plan) -> Part:
    """Creates the databases and brings them up to date: one process, as each would spend its time on imports."""
    urls = {f"MARQUEE_{name.upper()}_DATABASE_URL": plan.database_url(name) for name in SERVICES}
    return Part(
        name="databases",
        argv=(sys.executable, "-m", "local.databases", *SERVICES),
        cwd=CHECKOUT,
        env=plan.with_own("databases", {**urls, "MARQUEE_ADMIN_DATABASE_URL": plan.database_url("postgres")}),
        needs=("postgres",),
        once=True,
        patience_s=120,
    )


def service(plan: Plan, name: str) -> Part:
    own = {
        "user": {
            "MARQUEE_SIGNING_KEYS_DIR": str(user_keys(plan.home.keys).folder),
            "MARQUEE_COOKIE_SECURE": "false",  # the edge speaks plain HTTP here
        },
        "payment": {
            "MARQUEE_RAZORPAY_URL": f"http://{plan.address('provider')}",
            "MARQUEE_RAZORPAY_KEY_ID": "rzp_test_marquee",
            "MARQUEE_RAZORPAY_KEY_SECRET": files.secret(plan.home.keys / "provider.secret"),
            "MARQUEE_RAZORPAY_WEBHOOK_SECRETS": files.secret(plan.home.keys / "webhook.secret"),
            "MARQUEE_CHECKOUT_URL": f"http://{plan.address('provider')}/checkout/{{order_id}}",
        },
    }.get(name, {})
    return Part(
        name=name,
        argv=(sys.executable, "-m", f"services.{name}"),
        cwd=CHECKOUT,
        env=plan.with_own(name, {**_shared(plan, name), **own}),
        needs=("databases", "cache", "bus"),
        probe=probes.grpc_health(plan.address(name)),
        address=plan.address(name),
        stop_patience_s=12,  # drain, then what is in flight, then the pools
    )


def relay(plan: Plan) -> Part:
    urls = ",".join(plan.database_url(name) for name in SERVICES)
    return Part(
        name="relay",
        argv=(sys.executable, "-m", "services.kit.relay"),
        cwd=CHECKOUT,
        env=plan.with_own("relay", {**_shared(plan, "relay"), "MARQUEE_RELAY_DATABASE_URLS": urls}),
        needs=("databases", "bus"),
    )


def provider(plan: Plan) -> Part:
    """The simulator of the payment provider; not ours in production."""
    return Part(
        name="provider",
        argv=(sys.executable, "-m", "local.provider"),
        cwd=CHECKOUT,
        env=plan.with_own(
            "provider",
            {
                "PROVIDER_LISTEN": plan.address("provider"),
                "PROVIDER_DATA_DIR": str(plan.home.root / "provider"),
                "PROVIDER_KEY_ID": "rzp_test_marquee",
                "PROVIDER_KEY_SECRET": files.secret(plan.home.keys / "provider.secret"),
                "PROVIDER_WEBHOOK_URL": f"http://127.0.0.1:{plan.ports['edge']}/api/v1/payments/callback/razorpay",
                "PROVIDER_WEBHOOK_SECRET": files.secret(plan.home.keys / "webhook.secret"),
                # What payment needs; the others (authorized, order.paid, refund.created) say nothing more.
                "PROVIDER_WEBHOOK_EVENTS": "payment.captured,payment.failed,refund.processed,refund.failed",
            },
        ),
        probe=probes.http(f"http://{plan.address('provider')}/control/health"),
        address=plan.address("provider"),
    )


def edge_part(plan: Plan) -> Part:
    env = plan.with_own(
        "edge",
        {
            "EDGE_PORT": str(plan.ports["edge"]),
            "EDGE_ADMIN_PORT": str(plan.ports["edge_admin"]),
            "EDGE_RATE_LIMITS": "on" if plan.rate_limits else "off",
            "MARQUEE_USER_JWKS_FILE": str(user_keys(plan.home.keys).jwks),
            **_addresses(plan),
        },
    )
    return Part(
        name="edge",
        argv=edge.argv(plan.home),
        cwd=plan.home.edge,
        env=env,
        after=SERVICES,
        prepare=functools.partial(edge.render, plan.home, env),
        probe=probes.http(f"http://{plan.address('edge_admin')}/ready"),  # says so when it has asked its services once
        address=plan.address("edge"),
        url=plan.edge_url,
        stop_patience_s=5,
    )


def _addresses(plan: Plan) -> dict[str, str]:
    return {f"MARQUEE_{name.upper()}_ADDRESS": plan.address(name) for name in SERVICES}


def _shared(plan: Plan, name: str) -> dict[str, str]:
    """What docs/architecture.md promises to every process of ours."""
    keys = plan.home.keys
    listen = {"MARQUEE_LISTEN": plan.address(name)} if name in plan.ports else {}
    return {
        **listen,
        "MARQUEE_DATABASE_URL": plan.database_url(name),
        "MARQUEE_CACHE_URL": valkey.url(plan.home, "cache", plan.ports["cache"]),
        "MARQUEE_BUS_URL": valkey.url(plan.home, "bus", plan.ports["bus"]),
        "MARQUEE_USER_JWKS_FILE": str(user_keys(keys).jwks),
        "MARQUEE_SERVICE_JWKS_FILE": str(service_keys(keys).jwks),
        "MARQUEE_SERVICE_TOKEN_FILE": str(keys / f"{name}.token"),
        **_addresses(plan),
        "MARQUEE_LOG_FORMAT": "json",
        "MARQUEE_LOG_LEVEL": "info",
        "MARQUEE_PAGE_KEY": files.secret(keys / "page.key"),
        "MARQUEE_DRAIN_SECONDS": "2",  # the edge asks each second; Ctrl-C should not feel slow
        "PYTHONUNBUFFERED": "1",
    }
