"""What control planes say to each other."""

from typing import Any

from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import json_value


class Leader(SQLModel, table=True):
    """One row: which of several control planes reconciles."""

    id: int = Field(primary_key=True)
    owner: str = ""
    epoch: int = Field(default=0, description="raised by each takeover")
    beat: int = Field(default=0, description="raised by the owner while it lives")
    published: int = Field(default=0, description="raised by each change of a publication")


class ControlPlane(SQLModel, table=True):
    """One of several control planes that runs, and what is asked of it."""

    __tablename__ = "control_plane"

    id: str = Field(primary_key=True)
    beat: int = 0
    place: dict[str, Any] = json_value()
    """What must agree among them."""
    demand: dict[str, Any] = json_value()
    """By deployment id; and the requests that each replica has from here."""
    seen: int = Field(default=0, description="the leader's `published` that it goes by")


class Publication(SQLModel, table=True):
    """How requests for one deployment are to be routed, as the leader says."""

    deployment_id: str = Field(primary_key=True)
    content: dict[str, Any] = json_value()


class SharedCounter(SQLModel, table=True):
    """Raised in each transaction that changes what other control planes keep in memory."""

    __tablename__ = "shared_counter"

    name: str = Field(primary_key=True)
    value: int = 0
