"""Names that AWS accepts, made from names that Tidegate accepts."""

from __future__ import annotations

import hashlib

from tidegate_infra.components.inference_endpoint.limits import LONGEST_NAME


def endpoint_name(prefix: str, deployment: str) -> str:
    """`prefix-deployment`, cut to the 54 characters that an endpoint may have.

    What is cut is replaced by a digest of the whole name, so two long names stay apart.
    """
    name = f"{prefix}-{deployment}"
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9].rstrip('-')}-{digest}"
