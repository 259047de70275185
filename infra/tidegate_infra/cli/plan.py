"""What a file would make, without asking anybody."""

from __future__ import annotations

from tidegate_infra.cli.file import InfraFile, given
from tidegate_infra.cli.program import declare
from tidegate_infra.graph.offline import Account, declared_by
from tidegate_infra.policy.declared import Declared


def resources_of(file: InfraFile) -> list[Declared]:
    """Every resource that the file declares, with made-up answers of the cloud.

    So documents that hold what only AWS can say are whole, and the guard rails judge them.
    """
    told = given(file.platform) if file.platform else {}
    account = Account(told.get("account_id", Account.id), file.region)
    return declared_by(lambda: declare(file), account)
