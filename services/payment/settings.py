"""Settings of the payment service, beyond those that every service has."""

from __future__ import annotations

from pydantic import Field, SecretStr

from services.kit.settings import ServiceSettings


class PaymentSettings(ServiceSettings):
    """Switching from the simulator to Razorpay itself is a matter of the first five."""

    razorpay_url: str = "https://api.razorpay.com"
    razorpay_key_id: str = ""
    razorpay_key_secret: SecretStr = SecretStr("")
    razorpay_webhook_secrets: SecretStr = Field(
        default=SecretStr(""), description="comma-separated, the newest first; old ones stay while they may be in use"
    )
    checkout_url: str = Field(
        default="", description="where buyers pay; {order_id} and {method} are filled in", pattern="^(https?://.*)?$"
    )

    provider_timeout_seconds: float = Field(default=4.0, gt=0, description="for one HTTP call")
    provider_tries: int = Field(default=3, ge=1, le=10, description="of one HTTP call, the first one included")

    batch_most: int = Field(default=64, ge=1, le=500)
    batch_gather_seconds: float = Field(
        default=0.03, ge=0, description="how long a batch that follows close upon another waits for company at most"
    )

    poll_first_seconds: float = Field(
        default=15.0, gt=0, description="age of the provider's payments at which we first look; then ever four times it"
    )
    poll_for_seconds: float = Field(default=48 * 3600.0, gt=0, description="late money may come for that long")
    capture_after_seconds: float = Field(
        default=30.0, ge=0, description="age at which we take money that the provider, who does it by itself, hasn't"
    )
    unmatched_grace_seconds: float = Field(
        default=300.0, ge=0, description="until a capture that belongs to nothing of ours is paid back"
    )
    worker_idle_seconds: float = Field(default=1.0, gt=0, description="the longest sleep of refunds and reconciler")

    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that a webhook may be signed with."""
        words = self.razorpay_webhook_secrets.get_secret_value().split(",")
        return tuple(word.strip() for word in words if word.strip())
