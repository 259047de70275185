"""The secrets that webhooks are signed with, as the database holds them.

A receiver's secret must be readable to sign with, so it is not hashed but sealed: AES-256-GCM under
a key that is derived from the pepper, which lies beside the database and never in it. The webhook's
id is bound in, so that a sealed secret is of no use in another row.
"""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tidegate.webhooks import SECRET_PREFIX
from tidegate_controlplane.errors import ControlPlaneError

SECRET_BYTES = 32
_NONCE_BYTES = 12
_INFO = b"tidegate webhook secrets v1"


class UnreadableSecret(ControlPlaneError):
    """It was sealed with another pepper, or damaged."""


class SecretBox:
    """Seals and opens; made from the pepper."""

    def __init__(self, pepper: bytes) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(pepper)
        self._cipher = AESGCM(key)

    def seal(self, secret: str, webhook_id: str) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret.encode(), webhook_id.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, sealed: str, webhook_id: str) -> str:
        """Raises UnreadableSecret."""
        try:
            raw = base64.b64decode(sealed, validate=True)
            nonce, text = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, text, webhook_id.encode()).decode()
        except (binascii.Error, ValueError, InvalidTag) as error:
            raise UnreadableSecret(
                f"the secret of {webhook_id} cannot be read: the pepper is not the one it was "
                "sealed with; rotate the secret"
            ) from error


def new_secret() -> str:
    """`whsec_` and 256 bits of chance."""
    return SECRET_PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()
