"""What the gateway is told by its environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

_ADDRESS = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})$")


class SettingsError(Exception):
    """The environment does not say what the gateway needs to know; the text says what to set."""


class Address(BaseModel):
    """Where a server listens."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: int = Field(ge=1, le=65535)

    @classmethod
    def parse(cls, text: str) -> Address:
        """``127.0.0.1:7011``, ``[::1]:7011`` or ``booking.marquee.svc:7000``."""
        match = _ADDRESS.match(text)
        if match is None:
            raise ValueError(f"{text!r} is not host:port")
        return cls(host=match["host"].strip("[]"), port=int(match["port"]))


class Settings(BaseModel):
    """The edge's settings. Each is read from the variable that its description names."""

    model_config = ConfigDict(frozen=True)

    listen_host: str = Field("0.0.0.0", description="EDGE_HOST: the interface of the public port")  # noqa: S104 (it is the public door)
    port: int = Field(8080, ge=1, le=65535, description="EDGE_PORT: REST, grpc-web and gRPC, all on this one")
    admin_port: int = Field(8081, ge=0, le=65535, description="EDGE_ADMIN_PORT: Envoy's own, on 127.0.0.1 only")
    jwks_file: Path = Field(description="MARQUEE_USER_JWKS_FILE: public keys of access tokens")
    rate_limits: Literal["on", "off"] = Field("on", description="EDGE_RATE_LIMITS: off evaluates them, far too high")
    cors_origins: tuple[str, ...] = Field((), description="EDGE_CORS_ORIGINS: comma-separated origins of browser apps")
    trusted_hops: int = Field(0, ge=0, le=10, description="EDGE_TRUSTED_HOPS: proxies of ours before Envoy")
    site: Address | None = Field(None, description="EDGE_SITE_ADDRESS: who serves the web app; nobody when unset")
    services: dict[str, Address] = Field(description="MARQUEE_<NAME>_ADDRESS of each service in the contracts")

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin):
                raise ValueError(f"{origin!r} is not an origin such as https://app.example.org")
        return origins


def from_environment(environment: Mapping[str, str], owners: Iterable[str]) -> Settings:
    """The settings, with the address of each of ``owners`` (the services of the contracts).

    Raises:
        SettingsError: a variable is missing or cannot be read.
    """

    def given(**variables: str) -> dict[str, str]:
        return {field: environment[variable] for field, variable in variables.items() if environment.get(variable)}

    values: dict[str, object] = dict(
        given(
            listen_host="EDGE_HOST",
            port="EDGE_PORT",
            admin_port="EDGE_ADMIN_PORT",
            rate_limits="EDGE_RATE_LIMITS",
            trusted_hops="EDGE_TRUSTED_HOPS",
        )
    )
    values["jwks_file"] = _required(environment, "MARQUEE_USER_JWKS_FILE", "the file of the access tokens' public keys")
    origins = environment.get("EDGE_CORS_ORIGINS", "")
    values["cors_origins"] = tuple(origin.strip() for origin in origins.split(",") if origin.strip())
    values["services"] = {owner: _address(environment, f"MARQUEE_{owner.upper()}_ADDRESS") for owner in owners}
    if environment.get("EDGE_SITE_ADDRESS"):
        values["site"] = _address(environment, "EDGE_SITE_ADDRESS")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problem(problem["loc"], problem["msg"]) for problem in error.errors())
        raise SettingsError(problems) from error


def _problem(location: tuple[int | str, ...], message: str) -> str:
    field = Settings.model_fields[str(location[0])]
    return f"{(field.description or '').split(':')[0]}: {message}"


def _required(environment: Mapping[str, str], variable: str, meaning: str) -> str:
    value = environment.get(variable)
    if not value:
        raise SettingsError(f"set {variable}: {meaning}")
    return value


def _address(environment: Mapping[str, str], variable: str) -> Address:
    text = _required(environment, variable, "host:port of the service")
    try:
        return Address.parse(text)
    except ValueError as error:
        raise SettingsError(f"{variable}: {error}") from error
