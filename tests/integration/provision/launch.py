"""What starts a replica of `replica.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from tidegate.protocol.resources import ResolvedPlan
from tidegate.spec import KvSpillSpec, Mode
from tidegate_controlplane.provision.base import Launch

COMMAND = (sys.executable, str(Path(__file__).with_name("replica.py")))


def launch(behaviour: str = "good", key: str = "rep_1", drain_timeout_s: float = 5.0) -> Launch:
    """What starts a replica that behaves so."""
    plan = ResolvedPlan(
        provisioner="local",
        precision="fp32",
        context_tokens=128,
        max_sequences=3,
        kv_cache_bytes=1024,
        weights_bytes=1,
        memory_bytes=1,
        max_adapters=5,
        threads=2,
        kv_spill=KvSpillSpec.model_validate({"disk": "2MiB"}),
        min_replicas=0,
        max_replicas=1,
        target_in_flight=1,
        idle_timeout_s=1,
        drain_timeout_s=drain_timeout_s,
    )
    digest = "sha256:d" if behaviour == "good" else f"sha256:{behaviour}"
    return Launch(
        replica_id=key,
        deployment_id="dep_1",
        revision_id="rev_1",
        mode=Mode.SERVERLESS,
        model_name="smol",
        source=behaviour,
        task="generate",
        pooling=None,
        revision="abc123",
        digest=digest,
        plan=plan,
    )
