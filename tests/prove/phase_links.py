"""Every link between the parts is slow, cut, half-open, narrow or reset while people trade."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

import httpx

from local import ports, valkey
from local.home import Home
from local.parts import PORTS, Plan
from tests.prove.phases import Context, Phase, Result
from tests.prove.sale import Sale, open_sale
from tests.prove.stage import Pace, Stage
from tests.prove.toxiproxy import Missing, Toxiproxy, toxiproxy
from tests.prove.trading import trading
from tests.prove.trouble import Probe, Trouble

POISONED_S = 3.0
HALF_OPEN_S = 20.0
"""Longer than any deadline: whoever waits for more than that only goes on because the link is well again."""
ROUTE_DEADLINE_S = 15.0
"""What a route gives a caller who brings no deadline of its own (REST)."""
SERVED_WITHIN_S = 20.0
REST_CALLERS = 3
PACE = Pace(hold_s=20.0, payment_window_s=20.0)

LINKS = ("edge-service", "service-PostgreSQL", "service-Valkey", "service-service", "provider")
Poison = Callable[[Toxiproxy, str], Awaitable[None]]
TOXICS: Mapping[str, Poison] = {
    "latency": lambda proxy, link: proxy.poison(link, "latency", latency=200, jitter=100),
    "cut": lambda proxy, link: proxy.cut(link),
    "half-open": lambda proxy, link: proxy.poison(link, "timeout", timeout=0),
    "slow": lambda proxy, link: proxy.poison(link, "bandwidth", rate=4),
    "reset": lambda proxy, link: proxy.poison(link, "reset_peer", timeout=0),
}


async def lay(proxy: Toxiproxy, home: Home) -> dict[str, dict[str, str]]:
    """A proxy on each link; the variables that lead the parts through them.

    The stack will take the ports that are chosen here, as it remembers them.
    """
    home.make()
    plan = Plan(home, {**ports.choose(PORTS, home.ports), "edge": 0})
    cache, bus = (valkey.url(home, name, plan.ports[name]) for name in ("cache", "bus"))

    async def through(link: str, name: str, url: str) -> str:
        return url.replace(plan.address(name), await proxy.add(link, plan.address(name)))

    return {
        "edge": {
            f"MARQUEE_{name.upper()}_ADDRESS": await through("edge-service", name, plan.address(name))
            for name in ("booking", "payment")
        },
        "booking": {
            "MARQUEE_DATABASE_URL": await through("service-PostgreSQL", "postgres", plan.database_url("booking")),
            "MARQUEE_CACHE_URL": await through("service-Valkey", "cache", cache),
            "MARQUEE_BUS_URL": await through("service-Valkey", "bus", bus),
        },
        "payment": {
            "MARQUEE_DATABASE_URL": await through("service-PostgreSQL", "postgres", plan.database_url("payment")),
            "MARQUEE_BUS_URL": await through("service-Valkey", "bus", bus),
            "MARQUEE_BOOKING_ADDRESS": await through("service-service", "booking", plan.address("booking")),
            "MARQUEE_RAZORPAY_URL": await through("provider", "provider", f"http://{plan.address('provider')}"),
        },
        "relay": {"MARQUEE_BUS_URL": await through("service-Valkey", "bus", bus)},
    }


@dataclass
class RestCallers:
    """People with REST and without a deadline, who wait as long as it takes."""

    stage: Stage
    http: httpx.AsyncClient
    now: str = ""
    """The trouble that a call began in."""
    longest_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: int = 0
    overdue: list[str] = field(default_factory=list)
    under_way: set[float] = field(default_factory=set)
    """When the calls that are not answered yet began."""

    def longest_now(self) -> float:
        """Seconds that somebody has been waiting for."""
        return time.monotonic() - min(self.under_way, default=time.monotonic())

    async def run(self, stop: asyncio.Event) -> None:
        dice, person = self.stage.randomly, self.stage.somebody()
        headers = dict(person.metadata)
        while not stop.is_set():
            show = dice.choice(self.stage.shows)
            hold = {"requestId": str(uuid4()), "showId": show.show_id, "seats": [dice.choice(show.labels)]}
            method, path, content = dice.choice(
                (
                    ("GET", f"/api/v1/shows/{show.show_id}/seats", None),
                    ("GET", "/api/v1/bookings", None),
                    ("POST", "/api/v1/reservations", hold),
                )
            )
            trouble, began = self.now, time.monotonic()
            self.under_way.add(began)
            with suppress(httpx.TransportError):
                await self.http.request(method, path, json=content, headers=headers)
            self.under_way.discard(began)
            took = time.monotonic() - began
            self.calls += 1
            self.longest_s[trouble] = max(self.longest_s[trouble], took)
            if took > 2 * ROUTE_DEADLINE_S:
                self.overdue.append(f"{method} {path} during {trouble} took {took:.1f} s")
            await asyncio.sleep(dice.uniform(0.1, 0.4))


async def run(context: Context) -> Result:
    try:
        async with toxiproxy(context.folder) as proxy:
            return await _run(context, proxy)
    except Missing as missing:
        return Result(notes=[f"THE LINKS WERE NOT TRIED: {missing}."])


async def _run(context: Context, proxy: Toxiproxy) -> Result:
    result = Result()
    folder = context.folder / "stage"
    environment = await lay(proxy, Home(folder.resolve()))
    waits: dict[str, float] = {}
    async with open_sale(folder, seed=context.seed, pace=PACE, rate=5.0, environment=environment) as sale:
        limits, patience = httpx.Limits(max_connections=20), httpx.Timeout(90.0)
        async with httpx.AsyncClient(
            base_url=sale.stage.stack.edge_url, timeout=patience, limits=limits, trust_env=False
        ) as http:
            callers, stop = RestCallers(sale.stage, http), asyncio.Event()
            waiting = [asyncio.create_task(callers.run(stop)) for _ in range(REST_CALLERS)]
            probe = Probe(sale.crowd, await sale.one_more_show(listed=False))
            async with trading(sale):
                for link in LINKS:
                    for toxic in TOXICS:
                        await _poison(sale, proxy, link, toxic, callers, probe, waits, result, context)
            stop.set()
            await asyncio.gather(*waiting)
        judged = await sale.judge()
    result.problems += [*judged.problems(), *callers.overdue]
    result.figures |= {
        "links x toxics": len(LINKS) * len(TOXICS),
        "calls with a deadline of their own (gRPC)": sum(each.tries for each in judged.record.history.operations),
        "longest wait, in deadlines": max(waits.values()),
        "calls without one (REST)": callers.calls,
        "longest wait there, in the route's deadlines": max(callers.longest_s.values()) / ROUTE_DEADLINE_S,
        "operations": len(judged.record.history.operations),
        "facts checked": sum(judged.findings.examined.values()),
        "violations": len(judged.findings.violations),
    }
    return result


async def _poison(
    sale: Sale,
    proxy: Toxiproxy,
    link: str,
    toxic: str,
    callers: RestCallers,
    probe: Probe,
    waits: dict[str, float],
    result: Result,
    context: Context,
) -> None:
    """One toxic on one link for a while; then how soon all is well again."""
    name = f"{link}, {toxic}"
    callers.now, sale.record.longest_wait = name, 0.0
    await TOXICS[toxic](proxy, link)
    await asyncio.sleep(HALF_OPEN_S if toxic == "half-open" else POISONED_S)
    still = callers.longest_now()
    result.demand(
        still <= ROUTE_DEADLINE_S * 1.2, f"{name}: a REST caller still waits after {still:.1f} s, and nobody helps"
    )

    async def heal(_: object) -> None:
        await proxy.heal()

    recovery = await probe.recovery(Trouble(name, heal, served_within_s=SERVED_WITHIN_S), ())
    waits[name] = sale.record.longest_wait
    context.say(f"{recovery.line()}  waited {waits[name]:.2f} deadlines, REST {callers.longest_s[name]:.1f} s")
    served = max(recovery.hold_s or 99.0, recovery.payment_s or 99.0)
    result.figures[name] = f"waited {waits[name]:.2f} deadlines; served {served:.1f} s after it"
    result.demand(waits[name] <= 2.0, f"{name}: a caller waited {waits[name]:.2f} times its deadline")
    if recovery.problem:
        result.problems.append(recovery.problem)


PHASE = Phase(
    "links",
    "Links that fail",
    "Each link (edge-service, service-PostgreSQL, service-Valkey, service-service, provider) has latency, is cut, "
    "half-open, slow and reset (toxiproxy) while people trade. No caller waits for more than twice its deadline; "
    "afterwards all is as before.",
    4.5,
    run,
)
