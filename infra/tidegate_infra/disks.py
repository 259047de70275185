"""Which types SageMaker hosts on a disk of their own, where it attaches no volume.

It refuses the size of a volume for these, and a key: local disks are sealed by the machine itself.
Source: `volume_size_supported` and `instance_supports_kms` of AWS's SageMaker SDK; beyond it, the
families that EC2 lists under "Instance store volumes".
"""

from __future__ import annotations

import re

_FAMILY = re.compile(r"^(?:ml\.)?([a-z0-9-]+)\.")
_OF_THEIR_OWN = ("g5", "g6", "gr6", "g7", "p5", "p6", "trn1", "trn2")
"""Beside those that say so by a `d`, such as g4dn, p4d and m5d."""


def has_own_disk(instance_type: str) -> bool:
    """Whether hosts of this type (`ml.g6.xlarge`) keep images and artifacts on a local disk."""
    found = _FAMILY.match(instance_type)
    family = found.group(1) if found else ""
    return "d" in family or family.startswith(_OF_THEIR_OWN)
