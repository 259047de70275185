"""What a replica is told of its launch: fields of `ReplicaConfig`, the same ones at every place."""

from __future__ import annotations

from typing import Any

from tidegate.protocol.replica import DraftConfig, HeadsConfig
from tidegate.protocol.resources import PlannedDraft
from tidegate_controlplane.provision.base import Launch

PLACE_FIELDS = frozenset(
    {
        *("replica_id", "host", "port", "status_path", "status_bell", "parent_pid", "telemetry"),
        *("cache_dir", "cache_limit_bytes"),
    }
)
"""What a place says by itself."""
UNPLANNED_FIELDS = frozenset({"kv", "adapters"})
"""What no deployment says: the first follows from the precision, and a replica is told of adapters
as requests ask for them (docs/decisions/137).
"""


def planned_fields(launch: Launch) -> dict[str, Any]:
    """All other fields by their names, each as it was declared and planned."""
    plan = launch.plan
    return {
        "model_name": launch.model_name,
        "source": launch.source,
        "source_digest": launch.digest,
        "revision": launch.revision,
        "task": launch.task,
        "pooling": launch.pooling,
        "precision": plan.precision,
        "context_tokens": plan.context_tokens,
        "kv_cache_bytes": plan.kv_cache_bytes or None,
        "max_sequences": plan.max_sequences,
        "speculation": plan.speculation,
        "draft": plan.draft and _draft_config(plan.draft),
        "heads": plan.heads
        and HeadsConfig(source_digest=plan.heads.digest, revision=plan.heads.revision),
        "kv_spill": plan.kv_spill,
        "tensor_parallel": plan.tensor_parallel,
        "offload_bytes": plan.offload.resident_bytes if plan.offload else None,
        "tool_parser": plan.tool_parser,
        "max_adapters": plan.max_adapters,
        "device": "cuda" if plan.gpu else "cpu",
        "threads": plan.threads,
        "drain_s": plan.drain_timeout_s,
    }


def _draft_config(planned: PlannedDraft) -> DraftConfig:
    return DraftConfig.model_validate(
        {
            "source_digest": planned.digest,
            **planned.model_dump(include={"revision", "precision", "kv_cache_bytes"}),
        }
    )
