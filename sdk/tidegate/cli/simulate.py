"""`simulate`: replay a trace through autoscalers, no server needed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tidegate.cli.options import Json
from tidegate.cli.output import say_json, table
from tidegate.local.simulation import run_simulation


def register(app: typer.Typer) -> None:
    app.command()(simulate)


def simulate(
    trace: Annotated[
        list[str] | None,
        typer.Option(
            help="A JSONL file of requests, or a shape such as poisson:rate=2,seconds=3600; "
            "repeatable.  [poisson, diurnal and bursty]"
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="tidegate, knative-kpa, ray-serve, sagemaker; repeatable.  [all]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Medians over so many synthetic traces.")] = 5,
    slo: Annotated[float, typer.Option(min=0, help="Seconds to the first token.")] = 2.0,
    slots: Annotated[int, typer.Option(min=1, help="Requests one replica runs at once.")] = 16,
    cold_start: Annotated[float, typer.Option(min=0, help="Seconds a replica starts for.")] = 20.0,
    hold: Annotated[float, typer.Option(min=0, help="Seconds until a held one fails.")] = 300.0,
    max_replicas: Annotated[int, typer.Option(min=1, help="Of every policy.")] = 50,
    idle_timeout: Annotated[
        str, typer.Option(help="Tidegate's scaling.idle_timeout_s: seconds, or 'auto'.")
    ] = "auto",
    cold_start_price: Annotated[
        float | None, typer.Option(min=0, help="Tidegate's scaling.cold_start_price_s.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare autoscalers on a trace: requests in time, and the replica-seconds they cost."""
    flags: dict[str, Any] = {
        "seeds": seeds,
        "slo-s": slo,
        "slots": slots,
        "cold-start-s": cold_start,
        "hold-s": hold,
        "max-replicas": max_replicas,
        "idle-timeout-s": idle_timeout,
        "cold-start-price-s": cold_start_price,
    }
    repeated = [("trace", each) for each in trace or ()] + [
        ("policy", each) for each in policy or ()
    ]
    given = [*repeated, *((name, value) for name, value in flags.items() if value is not None)]
    answer = run_simulation(*(f"--{name}={value}" for name, value in given))
    if as_json:
        say_json(answer)
    else:
        _show(answer["results"])


def _show(results: list[dict[str, Any]]) -> None:
    table(
        (
            "trace",
            "policy",
            "within slo",
            "p50 s",
            "p95 s",
            "p99 s",
            "failed",
            "replica-s",
            "cold starts",
            "flaps",
        ),
        [
            (
                row["trace"],
                row["policy"],
                f"{row['within_slo']:.2%}",
                *(f"{row[f'wait_{share}_s']:.2f}" for share in ("p50", "p95", "p99")),
                row["failed"],
                f"{row['replica_s']:.0f}",
                row["cold_starts"],
                row["flaps"],
            )
            for row in results
        ],
        empty="there is nothing to compare",
    )
