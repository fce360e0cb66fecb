"""The page where the buyer pays. It has two buttons and takes no card number, not even a pretended one."""

from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from aiohttp import web

from local.provider.errors import UnknownIdError
from local.provider.ledger import Ledger, Method, Outcome

_METHOD_NAMES = {
    Method.UPI: "UPI",
    Method.CARD: "Card",
    Method.WALLET: "Wallet",
    Method.NETBANKING: "Netbanking",
}
_SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}
# Stays as it is in a `location`; whatever else isn't a letter or a digit (the end of a line!) is escaped.
_URL_PUNCTUATION = ":/%#?=@[]!$&'()*+,;"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; font: 16px/1.5 system-ui, sans-serif;
  background: light-dark(#eef1f6, #12151c); color: light-dark(#1a2233, #e6eaf2); }}
main {{ width: min(24rem, calc(100vw - 4rem)); padding: 2rem; border-radius: 1rem;
  background: light-dark(#fff, #1c212c); box-shadow: 0 8px 30px rgb(0 0 0 / .12); }}
h1 {{ margin: 0 0 .25rem; font-size: 1.1rem; font-weight: 600; }}
.amount {{ margin: .5rem 0 1rem; font-size: 2.2rem; font-weight: 700; font-variant-numeric: tabular-nums; }}
dl {{ display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; margin: 0 0 1.5rem; font-size: .9rem; }}
dt {{ opacity: .65; }} dd {{ margin: 0; text-align: right; overflow-wrap: anywhere; }}
button {{ width: 100%; padding: .8rem; margin-top: .6rem; border: 0; border-radius: .6rem; font: inherit;
  font-weight: 600; cursor: pointer; }}
button:focus-visible {{ outline: 3px solid #7aa7ff; outline-offset: 2px; }}
.pay {{ background: #1b5fd9; color: #fff; }}
.fail {{ background: transparent; color: inherit; box-shadow: inset 0 0 0 1px currentcolor; }}
.notice {{ padding: .6rem .8rem; border-radius: .6rem; margin: 0 0 1rem; }}
.bad {{ background: light-dark(#fde8e8, #4a1d1d); }} .good {{ background: light-dark(#e2f6e9, #16402a); }}
footer {{ margin-top: 1.5rem; font-size: .8rem; opacity: .65; }}
</style>
</head>
<body>
<main>
{body}
<footer>This provider is a simulator: no money moves. It never asks for a card number.</footer>
</main>
</body>
</html>"""


class Checkout:
    """`/checkout/{order_id}?method=upi&return_url=https://...`"""

    def __init__(self, ledger: Ledger, *, after_change: Callable[[], None]) -> None:
        self._ledger = ledger
        self._after_change = after_change

    def routes(self) -> list[web.RouteDef]:
        """What aiohttp serves."""
        return [
            web.get("/checkout/{order_id}", self.show),
            web.post("/checkout/{order_id}", self.pay),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """The page with its two buttons."""
        try:
            order = self._ledger.order(request.match_info["order_id"])
        except UnknownIdError:
            return _not_found()
        given = request.query
        return _page(order, _method(given.get("method", "")), _return_url(given.get("return_url", "")))

    async def pay(self, request: web.Request) -> web.Response:
        """What a button does; a form with `outcome`, and `method` and `return_url` where wanted."""
        form = {name: values[-1] for name, values in parse_qs((await request.read()).decode(errors="replace")).items()}
        given = dict(request.query.items()) | form
        method = _method(given.get("method", ""))
        return_url = _return_url(given.get("return_url", ""))
        try:
            outcome = Outcome(given.get("outcome", ""))
        except ValueError:
            return _notice("What should happen?", "The form must say outcome=success or outcome=failure.", status=400)
        try:
            payment = self._ledger.pay(request.match_info["order_id"], outcome, method=method)
        except UnknownIdError:
            return _not_found()
        self._after_change()
        if outcome is Outcome.FAILURE:
            order = self._ledger.order(request.match_info["order_id"])
            return _page(order, method, return_url, failure=payment["error_description"])
        if return_url:
            # 303: the browser goes on with a GET.
            location = quote(return_url, safe=_URL_PUNCTUATION)
            return web.Response(status=303, headers={**_SECURITY_HEADERS, "location": location})
        paid = f"{_money(payment)} by {_METHOD_NAMES[method]}. You can close this page."
        return _notice("Paid", paid, css_class="good")


def _method(word: str) -> Method:
    try:
        return Method(word.lower())
    except ValueError:
        return Method.UPI


def _return_url(url: str) -> str:
    """The URL if a browser may be sent there, otherwise nothing."""
    parts = urlsplit(url)
    return url if parts.scheme in ("http", "https") and parts.netloc else ""


def _money(entity: dict[str, Any]) -> str:
    return f"{entity['currency']} {entity['amount'] / 100:,.2f}"


def _page(order: dict[str, Any], method: Method, return_url: str, *, failure: str | None = None) -> web.Response:
    lines = []
    if failure:
        lines.append(f'<p class="notice bad" role="alert">{escape(failure)}</p>')
    if order["status"] == "paid":
        lines.append('<p class="notice good" role="status">This order is paid already.</p>')
    lines.append("<h1>Pay for your booking</h1>")
    lines.append(f'<p class="amount">{escape(_money(order))}</p>')
    details = {"Method": _METHOD_NAMES[method], "Order": order["id"], **order["notes"]}
    lines.append("<dl>")
    lines += [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in details.items()]
    lines.append("</dl>")
    lines.append('<form method="post">')
    lines.append(f'<input type="hidden" name="method" value="{method.value}">')
    lines.append(f'<input type="hidden" name="return_url" value="{escape(return_url)}">')
    lines.append('<button class="pay" name="outcome" value="success">Pay</button>')
    lines.append('<button class="fail" name="outcome" value="failure">Let the payment fail</button>')
    lines.append("</form>")
    return _html(_PAGE.format(title="Checkout", body="\n".join(lines)))


def _notice(title: str, text: str, *, css_class: str = "bad", status: int = 200) -> web.Response:
    body = f'<h1>{escape(title)}</h1><p class="notice {css_class}" role="status">{escape(text)}</p>'
    return _html(_PAGE.format(title=escape(title), body=body), status=status)


def _not_found() -> web.Response:
    return _notice("No such order", "The address is wrong, or the simulator's ledger was wiped.", status=404)


def _html(page: str, *, status: int = 200) -> web.Response:
    return web.Response(text=page, status=status, content_type="text/html", headers=_SECURITY_HEADERS)
