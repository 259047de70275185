"""What must hold before a deployment changes: it lives, is the version meant, and may change so."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from tidegate.protocol.resources import DeploymentPhase, DeploymentView
from tidegate.spec import DeploymentSpec, SpecIssue
from tidegate_controlplane.errors import Conflict, NotFound, PreconditionFailed
from tidegate_controlplane.store import deployments as rows
from tidegate_controlplane.store.tables import Deployment


def etag(deployment: Deployment | DeploymentView) -> str:
    """Changes with each changed declaration, and with nothing else."""
    return f'"{deployment.id}.{deployment.generation}"'


@dataclass(frozen=True)
class Precondition:
    """What a caller takes for granted; RFC 9110 has the two header fields."""

    if_match: str | None = None
    """The ETag that must still hold; `*` for any deployment."""
    only_new: bool = False
    """The name must be free."""

    def check(self, row: Deployment | None, name: str) -> None:
        """Raises PreconditionFailed."""
        if self.only_new and row is not None:
            raise PreconditionFailed(f"the name {name!r} is taken; use another, or update it")
        if self.if_match is None or (self.if_match == "*" and row is not None):
            return
        present = etag(row) if row else "none"
        if self.if_match != present:
            raise PreconditionFailed(
                f"If-Match: {self.if_match} is not the present version ({present}); "
                "read it and try again"
            )


def must_live(session: Session, project_id: str, name: str) -> Deployment:
    """The row of a living deployment. Raises NotFound."""
    row = rows.living(session, project_id, name)
    if row is None:
        raise NotFound(f"there is no deployment {name!r}; `tidegate ls` shows those there are")
    return row


def must_stay(row: Deployment) -> None:
    """Raises Conflict when it is being deleted."""
    if row.phase == DeploymentPhase.DELETING:
        raise Conflict(f"deployment {row.name!r} is being deleted; try again when it is gone")


def check_unchangeable(row: Deployment | None, spec: DeploymentSpec) -> None:
    """Raises Conflict when `spec` changes what the callers of a deployment rely on."""
    if row is None:
        return
    must_stay(row)
    former = DeploymentSpec.model_validate(row.spec)
    for field, before, after in (
        ("mode", former.mode, spec.mode),
        ("model.task", former.model.task, spec.model.task),
    ):
        if before is not after:
            raise Conflict(
                f"{field}: the deployment {spec.name!r} is {before.value!r} and cannot become "
                f"{after.value!r}; delete it first, or use another name",
                code="name_taken",
                param=field,
                issues=[SpecIssue(field, after.value, f"the deployment is {before.value!r}")],
            )
