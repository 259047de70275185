"""`tidegate offers`, and what `tidegate plan` says of a machine that would be rented."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from tidegate.cli.app import app
from tidegate.client import Client
from tidegate.offers import bundled_offers

DECLARED = "name: smol\nmodel: /models/smol.gguf\nmode: serverless\n"
OFFERS = {offer.id: offer for offer in bundled_offers()}
L4 = OFFERS["aws:sagemaker:us-west-2:ml.g6.xlarge"]
T4 = OFFERS["aws:ec2:us-east-1:g4dn.xlarge"].model_copy(update={"spot_usd_per_hour": 0.21})


def run(*arguments: str, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def page(*offers: Any, **more: Any) -> dict[str, Any]:
    return {"data": [offer.model_dump(mode="json") for offer in offers], "has_more": False, **more}


def test_offers_are_a_table_with_the_cheapest_first_and_their_sources(served: Any) -> None:
    served.on("GET", "/api/v1/offers", page(L4, T4))
    shown = run("offers", "--gpu", "L4", "--min-memory", "10GiB", "--region", "us-west-2")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[1].split()[:2] == ["g4dn.xlarge", "us-east-1"] and "0.2100" in lines[1]
    assert lines[2].startswith("ml.g6.xlarge") and "1 x L4" in lines[2] and "1.1267" in lines[2]
    assert "prices: AWS Price List API" in shown.stderr
    wanted = {"gpu": "L4", "min_memory": "10GiB", "region": "us-west-2", "limit": "100"}
    assert served.asked[0].query == wanted


def test_offers_are_json_too_over_all_pages(served: Any) -> None:
    served.on("GET", "/api/v1/offers", page(L4) | {"has_more": True, "next": L4.id}, page(T4))
    listed = json.loads(run("offers", "--json").stdout)
    assert [each["id"] for each in listed] == [T4.id, L4.id]
    assert listed[0]["gpu"]["bf16"] is False
    assert served.asked[1].query["after"] == L4.id


def test_prices_are_asked_anew_for_regions(served: Any) -> None:
    answer = {"regions": ["us-east-1", "eu-west-1"], "offers": 73, "as_of": "2026-11-20"}
    served.on("POST", "/api/v1/offers/refresh", answer)
    done = run("offers", "refresh", "--region", "us-east-1", "--region", "eu-west-1")
    assert done.stdout == "73 offers in us-east-1, eu-west-1, as of 2026-11-20\n"
    assert served.asked[0].json == {"regions": ["us-east-1", "eu-west-1"]}
    assert run("offers", "refresh").exit_code == 2


def test_the_client_reads_and_refreshes_offers(canned: Any) -> None:
    canned.on("GET", "/api/v1/offers", page(L4))
    canned.on(
        "POST", "/api/v1/offers/refresh", {"regions": ["x"], "offers": 1, "as_of": "2026-01-01"}
    )
    with Client(url="http://x", api_key="k", transport=canned.transport()) as client:
        assert list(client.offers.list(covers="sagemaker")) == [L4]
        assert client.offers.refresh(["us-east-1"]).offers == 1


def test_a_plan_shows_the_machine_its_price_and_why_not_others(served: Any) -> None:
    offer = {
        "provider": "aws",
        "covers": "sagemaker",
        "region": "us-west-2",
        "instance_type": "ml.g6.xlarge",
        "gpu": "L4",
        "gpus": 1,
        "replicas": 1,
        "usable_bytes": 21_599_826_739,
        "utilisation": 0.9,
        "usd_per_hour": 1.1267,
        "source": "AWS Price List API",
        "as_of": "2026-11-21",
        "minimum_usd_per_month": 0.0,
    }
    plan = {
        "provisioner": "aws",
        "precision": "int8",
        "context_tokens": 2048,
        "max_sequences": 16,
        "kv_cache_bytes": 1,
        "weights_bytes": 1,
        "memory_bytes": 2,
        "gpu": {"type": None, "count": 1},
        "offer": offer,
        "min_replicas": 0,
        "max_replicas": 1,
        "idle_timeout_s": 300,
        "drain_timeout_s": 120,
    }
    facts = {
        "format": "gguf",
        "architecture": "llama",
        "digest": "sha256:0",
        "parameters": 1,
        "weights_bytes": 1,
        "context_tokens": 2048,
        "layers": 1,
        "kv_heads": 1,
        "head_dim": 1,
        "vocabulary": 1,
    }
    fitting = {"instance_type": "ml.g6.xlarge", "gpu": "L4", "gpus": 1, "usd_per_hour": 1.1267}
    looked_at = [{**fitting, "usd_per_month": 822.49}]
    looked_at += [
        {"instance_type": f"ml.c5.{size}xlarge", "usd_per_hour": 0.4, "reason": "it has no GPU"}
        for size in range(2, 12)
    ]
    view = {"name": "smol", "action": "create", "changes": [], "new_revision": True}
    view |= {"model": facts, "plan": plan, "offers": looked_at}
    served.on("POST", "/api/v1/plans", view)
    shown = run("plan", "-f", "-", stdin=DECLARED)
    assert "ml.g6.xlarge (1 x L4)" in shown.stdout
    assert "fits: 822.49 USD a month while its replicas are up" in shown.stdout
    assert "ml.c5.2xlarge" in shown.stdout and "it has no GPU" in shown.stdout
    assert "AWS Price List API" in shown.stdout and "2026-11-21" in shown.stdout
    assert "3 more offers were looked at" in shown.stderr
