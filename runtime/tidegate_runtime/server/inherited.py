"""What a replica has from the zygote that it was forked from."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate_runtime.artifact.warm import Shelf
from tidegate_runtime.chat.fork_server import ForkServer


@dataclass(frozen=True)
class Inherited:
    """Made once by a zygote; a replica that was started otherwise has none."""

    shelf: Shelf
    """What is known of models."""
    templates: ForkServer
    """Forks the process of its chat templates."""
