"""A model divided over several devices: whether it can be, and what that costs."""

from __future__ import annotations

from tidegate.protocol.resources import ModelFacts, ResolvedPlan
from tidegate.spec import DeploymentSpec, SpecIssue

SUM_BYTES = 4
"""Of one number on its way between processes; between GPUs it has 2."""


def tensor_parallel(spec: DeploymentSpec) -> int:
    """Devices that one replica's model is divided over."""
    gpu = spec.hardware.gpu
    return spec.runtime.tensor_parallel or (gpu.count if gpu else 1)


def division_issue(spec: DeploymentSpec, facts: ModelFacts) -> SpecIssue | None:
    """Why a model cannot be divided so; what only its weights tell, the replica says."""
    ranks = tensor_parallel(spec)
    if facts.kv_heads % ranks == 0 or ranks == 1:
        return None
    fitting = [str(n) for n in range(1, 17) if facts.kv_heads % n == 0]
    field, value = "runtime.tensor_parallel", spec.runtime.tensor_parallel
    if value is None:
        field, value = "hardware.gpu.count", ranks
    return SpecIssue(
        field,
        value,
        f"each of {ranks} devices has an equal part of the model's {facts.kv_heads} key/value "
        f"heads; use {', '.join(fitting)}",
    )


def division_cost(plan: ResolvedPlan, facts: ModelFacts) -> str:
    """What dividing a model costs each step, in words and figures.

    Two sums a layer and one of the embeddings (M. Shoeybi et al., "Megatron-LM", 2019).
    """
    sums = 2 * facts.layers + 1
    width = facts.embedding_parameters // facts.vocabulary
    row = width * (SUM_BYTES // 2 if plan.gpu else SUM_BYTES)
    return (
        f"runtime.tensor_parallel: at each step {plan.tensor_parallel} devices wait for each "
        f"other {sums} times and exchange {sums} x {row / 1000:.1f} kB for each token, so one "
        "that has room for the whole model alone answers a single request sooner"
    )
