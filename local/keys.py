"""Signing keys of this machine's stack, their public halves, and how one key follows another.

A key is a file ``<not_before>-<kid>.pem``: the owner signs with the newest key whose ``not_before`` (Unix seconds) has
passed, everyone verifies with all that the JWKS lists. So a rotation never meets a verifier who does not know the key:

1. `KeyRing.announce` puts the next key into the JWKS, then writes its file with a ``not_before`` in the future;
2. everybody reads the JWKS again (services when the file changes, the edge by its supervisor);
3. ``not_before`` passes, and new tokens are signed with the new key;
4. `KeyRing.retire` drops the old key when the last token that it signed has expired.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from local import files
from local.trouble import Trouble

ACCESS_TOKEN_LIFE_S = 15 * 60
OLD_KEY_STAYS_S = ACCESS_TOKEN_LIFE_S + 5 * 60  # clocks differ, and a file is read a moment after it changed


@dataclass(frozen=True)
class SigningKey:
    """A private key, the name verifiers know it by, and when it begins to sign (Unix seconds)."""

    not_before: int
    kid: str
    private: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, not_before: int) -> SigningKey:
        return cls(not_before, secrets.token_hex(8), ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        not_before, _, kid = path.stem.partition("-")
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise Trouble(f"{path} is not an ES256 key; remove it, or run `make reset`.")
        return cls(int(not_before), kid, private)

    @property
    def file_name(self) -> str:
        return f"{self.not_before}-{self.kid}.pem"

    def pem(self) -> bytes:
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public_jwk(self) -> dict[str, Any]:
        jwk = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, "kid": self.kid, "use": "sig", "alg": "ES256"}


@dataclass(frozen=True)
class KeyRing:
    """The keys of one issuer: private ones in ``folder``, public ones in the file ``jwks``."""

    folder: Path
    jwks: Path

    def keys(self) -> list[SigningKey]:
        """All keys, the oldest first."""
        return sorted((SigningKey.read(path) for path in self.folder.glob("*.pem")), key=lambda key: key.not_before)

    def signing(self, now: float) -> SigningKey:
        """The key that signs at ``now``."""
        return [key for key in self.keys() if key.not_before <= now][-1]

    def ensure(self, now: float) -> None:
        """Have a key and its JWKS: on first start, and after somebody removed one of the two."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            keys = self.keys()
            if not any(key.not_before <= now for key in keys):
                keys.append(SigningKey.new(int(now)))
            self._publish(keys)
            for key in keys:
                self._keep(key)

    def announce(self, now: float, lead_s: float) -> SigningKey:
        """Publish the next key, which begins to sign ``lead_s`` seconds from ``now``."""
        with self._locked():
            keys = self.keys()
            if keys and keys[-1].not_before > now:
                raise Trouble(f"the next key is already published and signs in {keys[-1].not_before - now:.0f} s.")
            following = SigningKey.new(int(now + lead_s))
            self._publish([*keys, following])
            self._keep(following)
        return following

    def retire(self, now: float) -> list[SigningKey]:
        """Drop the keys whose last token has expired; tells which."""
        with self._locked():
            keys = self.keys()
            past = [key for key, successor in itertools.pairwise(keys) if successor.not_before + OLD_KEY_STAYS_S < now]
            for key in past:
                (self.folder / key.file_name).unlink()
            if past:
                self._publish([key for key in keys if key not in past])
        return past

    def _publish(self, keys: list[SigningKey]) -> None:
        content = json.dumps({"keys": [key.public_jwk() for key in keys]}, indent=1).encode()
        if not self.jwks.exists() or self.jwks.read_bytes() != content:
            files.replace(self.jwks, content)

    def _keep(self, key: SigningKey) -> None:
        path = self.folder / key.file_name
        if not path.exists():
            files.replace(path, key.pem(), 0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time: the command that rotates and the supervisor that retires are two processes."""
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def user_keys(folder: Path) -> KeyRing:
    """The keys of access tokens."""
    return KeyRing(folder / "user", folder / "user.jwks.json")


def service_keys(folder: Path) -> KeyRing:
    """The keys of service tokens, which ``local/`` issues as a Kubernetes cluster would."""
    return KeyRing(folder / "service", folder / "service.jwks.json")
