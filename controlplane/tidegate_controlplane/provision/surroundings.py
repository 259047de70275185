"""What the place of replicas finds around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.settings import Settings


@dataclass(frozen=True)
class Surroundings:
    """What a place is opened with."""

    settings: Settings
    clock: Clock
    changed: asyncio.Event
    """To be set when a replica has changed, so that the reconciler looks at once."""
    token_of: Callable[[str], str]
    """The token that a replica wants, made of its id."""
