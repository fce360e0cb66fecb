"""What the gateway is told, and what it says when it isn't."""

from __future__ import annotations

import pytest

from gateway.settings import Address, SettingsError, from_environment

GOOD = {
    "MARQUEE_USER_JWKS_FILE": "keys.json",
    "MARQUEE_BOOKING_ADDRESS": "127.0.0.1:7013",
}


def test_the_defaults_need_only_keys_and_addresses() -> None:
    settings = from_environment(GOOD, ["booking"])
    assert (settings.port, settings.admin_port, settings.rate_limits, settings.trusted_hops) == (8080, 8081, "on", 0)
    assert settings.services == {"booking": Address(host="127.0.0.1", port=7013)}
    assert settings.site is None
    assert settings.cors_origins == ()


def test_everything_can_be_set() -> None:
    more = {
        "EDGE_PORT": "9000",
        "EDGE_ADMIN_PORT": "9001",
        "EDGE_HOST": "127.0.0.1",
        "EDGE_RATE_LIMITS": "off",
        "EDGE_TRUSTED_HOPS": "2",
        "EDGE_SITE_ADDRESS": "site:80",
        "EDGE_CORS_ORIGINS": "https://a.example, http://localhost:5173",
    }
    settings = from_environment(GOOD | more, ["booking"])
    assert settings.cors_origins == ("https://a.example", "http://localhost:5173")
    assert settings.site == Address(host="site", port=80)
    assert (settings.port, settings.rate_limits, settings.trusted_hops) == (9000, "off", 2)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MARQUEE_USER_JWKS_FILE": ""}, "MARQUEE_USER_JWKS_FILE"),
        ({"MARQUEE_BOOKING_ADDRESS": ""}, "MARQUEE_BOOKING_ADDRESS"),
        ({"MARQUEE_BOOKING_ADDRESS": "nowhere"}, "MARQUEE_BOOKING_ADDRESS.*host:port"),
        ({"EDGE_PORT": "http"}, "EDGE_PORT"),
        ({"EDGE_PORT": "70000"}, "EDGE_PORT"),
        ({"EDGE_RATE_LIMITS": "maybe"}, "EDGE_RATE_LIMITS"),
        ({"EDGE_CORS_ORIGINS": "*"}, "EDGE_CORS_ORIGINS"),
    ],
)
def test_what_is_wrong_is_named_by_its_variable(variables: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        from_environment(GOOD | variables, ["booking"])


def test_addresses() -> None:
    assert Address.parse("[::1]:80") == Address(host="::1", port=80)
    assert Address.parse("booking.marquee.svc:7000").host == "booking.marquee.svc"
    with pytest.raises(ValueError, match="host:port"):
        Address.parse("booking")
