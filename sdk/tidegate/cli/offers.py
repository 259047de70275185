"""`offers` and `offers refresh`: machines that can be rented, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.options import Json, connected
from tidegate.cli.output import note, say, say_json, table

if TYPE_CHECKING:
    from tidegate.offers import Offer

app = typer.Typer(help="Machines that can be rented, and what they cost.")
COLUMNS = ("type", "region", "vcpus", "memory", "gpus", "gpu memory", "usd/h", "spot", "as of")


@app.callback(invoke_without_command=True)
def list_offers(
    ctx: typer.Context,
    gpu: Annotated[str | None, typer.Option(help="Type of GPU, such as L4 or A100.")] = None,
    min_memory: Annotated[
        str | None, typer.Option(help="Of one GPU at least, such as 40GiB.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Such as us-east-1.")] = None,
    covers: Annotated[
        str | None, typer.Option(help="ec2: the machine alone; sagemaker: hosting on it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List them, the cheapest first."""
    if ctx.invoked_subcommand is not None:
        return
    with connected() as client:
        found = list(client.offers.list(gpu, min_memory, region, covers))
    found.sort(key=lambda offer: (offer.usd_per_hour, offer.instance_type, offer.region))
    if as_json:
        say_json(found)
        return
    table(COLUMNS, map(_row, found), empty="no offer is like that; see tidegate offers")
    for source in sorted({f"{offer.source} ({offer.as_of})" for offer in found}):
        note(f"prices: {source}")


@app.command()
def refresh(
    region: Annotated[list[str], typer.Option(help="Such as us-east-1; repeatable.")],
    as_json: Json = False,
) -> None:
    """Ask AWS for the prices of regions anew; the control plane's own credentials are used."""
    with connected() as client:
        done = client.offers.refresh(region)
    if as_json:
        say_json(done)
        return
    say(f"{done.offers} offers in {', '.join(done.regions)}, as of {done.as_of}")


def _row(offer: Offer) -> tuple[object, ...]:
    gpu = offer.gpu
    return (
        offer.instance_type,
        offer.region,
        offer.vcpus,
        _gib(offer.memory_bytes),
        f"{offer.gpus} x {gpu.name}" if gpu else None,
        _gib(gpu.memory_bytes) if gpu else None,
        f"{offer.usd_per_hour:.4f}",
        None if offer.spot_usd_per_hour is None else f"{offer.spot_usd_per_hour:.4f}",
        offer.as_of,
    )


def _gib(count: int) -> str:
    return f"{count / 1024**3:.0f} GiB"
