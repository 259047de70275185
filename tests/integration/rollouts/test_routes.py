"""Rollouts over HTTP, as the SDK and the command line use them."""

from __future__ import annotations

import httpx
from tests.integration.rollouts.conftest import Stage

SMOL = "/api/v1/deployments/smol"
CANARY = {"strategy": "canary", "canary": {"steps": [{"weight": 20, "bake_s": 60}]}}


async def test_a_canary_is_seen_aborted_and_rolled_back_over_http(stage: Stage) -> None:
    await stage.declare(3, rollout=CANARY)
    await stage.until_settled()
    headers = {"authorization": f"Bearer {stage.key}"}
    async with httpx.AsyncClient(
        base_url=stage.url, headers=headers, trust_env=False, timeout=20
    ) as client:
        first = await client.get(f"{SMOL}/rollout")
        assert (first.status_code, first.json()["code"]) == (404, "not_found")
        nothing = await client.post(f"{SMOL}/rollback", json={})
        assert nothing.status_code == 409

        await stage.declare(4, rollout=CANARY)
        await stage.until_phase("baking")
        seen = (await client.get(f"{SMOL}/rollout")).json()
        assert (seen["step"], seen["steps"], seen["weight"]) == (0, 1, 20.0)
        assert (seen["from_revision"], seen["to_revision"]) == (1, 2)

        aborted = await client.post(f"/api/v1/rollouts/{seen['id']}/abort")
        assert (aborted.status_code, aborted.json()["requested"]) == (202, "abort")
        await stage.until_phase("rolled_back")
        again = await client.post(f"/api/v1/rollouts/{seen['id']}/abort")
        assert again.status_code == 202, "asking twice is asking once"
        late = await client.post(f"/api/v1/rollouts/{seen['id']}/promote")
        assert (late.status_code, late.json()["code"]) == (409, "conflict")
        assert (await client.post("/api/v1/rollouts/rol_none/abort")).status_code == 404

        unknown = await client.post(f"{SMOL}/rollback", json={"to": 9})
        assert unknown.status_code == 422
        assert unknown.json()["issues"][0]["field"] == "to"
        stale = await client.post(f"{SMOL}/rollback", json={}, headers={"if-match": '"x.1"'})
        assert stale.status_code == 412
        back = await client.post(f"{SMOL}/rollback", json={})
        assert (back.status_code, back.json()["generation"]) == (202, 3)
        assert back.headers["etag"] == f'"{back.json()["id"]}.3"'

        await stage.declare(5, rollout={"strategy": "rolling"})
        await stage.until_phase("promoted")
        page = (await client.get("/api/v1/rollouts", params={"limit": 1})).json()
        assert (page["data"][0]["id"], page["has_more"]) == (seen["id"], True)
        rest = (
            await client.get(
                "/api/v1/rollouts", params={"after": page["next"], "deployment": "smol"}
            )
        ).json()
        assert [view["phase"] for view in rest["data"]] == ["promoted"]
        other = await client.get("/api/v1/rollouts", params={"deployment": "other"})
        assert other.json()["data"] == []
