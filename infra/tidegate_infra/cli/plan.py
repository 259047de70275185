"""What a file would make, without asking anybody."""

from __future__ import annotations

from tidegate.offers import bundled_offers
from tidegate_infra.cli.file import InfraFile, given
from tidegate_infra.cli.program import declare, rails_of
from tidegate_infra.graph.offline import Account, declared_by
from tidegate_infra.graph.prices import instance_prices
from tidegate_infra.graph.text import graph
from tidegate_infra.policy.declared import Declared
from tidegate_infra.policy.finding import Finding


def resources_of(file: InfraFile) -> list[Declared]:
    """Every resource that the file declares, with made-up answers of the cloud.

    So documents that hold what only AWS can say are whole, and the guard rails judge them.
    """
    told = given(file.platform) if file.platform else {}
    account = Account(told.get("account_id", Account.id), file.region)
    return declared_by(lambda: declare(file), account)


def plan(file: InfraFile) -> tuple[str, list[Finding]]:
    """The graph with the month at rest, and the guard rails that it breaks."""
    resources = resources_of(file)
    prices = instance_prices(bundled_offers(), file.region)
    return graph(resources, prices), rails_of(file).findings(resources)
