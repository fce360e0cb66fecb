"""What the simulator is told from outside."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class ProviderSettings(BaseSettings):
    """Read from `PROVIDER_*` environment variables."""

    model_config = SettingsConfigDict(env_prefix="PROVIDER_")

    # host:port of the HTTP server.
    listen: str = "127.0.0.1:7020"
    # Where the ledger's SQLite file lives; it survives restarts.
    data_dir: Path
    # What merchants authenticate with (HTTP basic).
    key_id: str
    key_secret: str
    # Where webhooks go (http only); without it they are only recorded.
    webhook_url: str = ""
    # Comma-separated types of events that are sent, as one chooses them in Razorpay's dashboard; all when empty.
    webhook_events: str = ""
    # What webhooks are signed with until the control API says otherwise.
    webhook_secret: str

    @property
    def subscribed(self) -> list[str]:
        """The types of events that are sent; all when empty."""
        return [name.strip() for name in self.webhook_events.split(",") if name.strip()]

    @property
    def host(self) -> str:
        """The address to listen on."""
        return self.listen.rpartition(":")[0]

    @property
    def port(self) -> int:
        """The port to listen on."""
        return int(self.listen.rpartition(":")[2])

    @property
    def database(self) -> Path:
        """The ledger's file."""
        return self.data_dir / "provider.sqlite3"
