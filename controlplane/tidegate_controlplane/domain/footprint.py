"""What a model takes of memory, in the precision that it is served with."""

from __future__ import annotations

from tidegate.protocol.resources import ModelFacts, ResolvedPlan
from tidegate.spec import Precision

DENSE_BITS = {Precision.FP32: 32.0, Precision.BF16: 16.0}
PACKED_BITS = {Precision.INT8: 8.5, Precision.INT4: 5.0}
"""Of a linear layer's weight, with its share of the group's scale (and minimum) of 16 bits."""
HEAD_BITS = 8.5
"""Of the last layer beside packed ones, which is the embedding too when they are tied."""
UNTIED_EMBEDDING_BITS = 16.0
KV_ELEMENT_BYTES = {
    Precision.FP32: 4,
    Precision.BF16: 2,
    Precision.FP8: 1,
    Precision.INT8: 1,
    Precision.INT4: 1,
}
"""Keys and values have the precision of the weights, but 8 bits beside weights of 4."""
KV_SCALE_BYTES = 4
"""Each head keeps a scale with every key and value of 8 bits."""
PROCESS_BYTES = 104 * 1024 * 1024
"""What a replica has for itself beside weights and cache: measured. Interpreter and libraries are
the zygote's, shared by all."""


def kv_bytes_per_token(facts: ModelFacts, precision: Precision) -> int:
    """Keys and values of one token over every layer."""
    element = KV_ELEMENT_BYTES[precision]
    vector = facts.head_dim * element + (KV_SCALE_BYTES if element == 1 else 0)
    return 2 * facts.layers * facts.kv_heads * vector


def weights_bytes(facts: ModelFacts, precision: Precision) -> int:
    """What the weights take in memory once they are packed, all experts of a mixture included."""
    if precision in DENSE_BITS:
        return int(facts.parameters * DENSE_BITS[precision] / 8)
    head = facts.embedding_parameters
    embedding = 0 if facts.tied else facts.embedding_parameters
    linears = max(0, facts.parameters - head - embedding)
    bits = linears * PACKED_BITS[precision] + head * HEAD_BITS + embedding * UNTIED_EMBEDDING_BITS
    return int(bits / 8)


def layer_bytes(facts: ModelFacts, precision: Precision) -> int:
    """What each layer takes of that: what is neither embedding nor last layer, in equal parts."""
    tables = facts.embedding_parameters * (1 if facts.tied else 2)
    bits = DENSE_BITS.get(precision) or PACKED_BITS[precision]
    return int(max(0, facts.parameters - tables) * bits / 8) // facts.layers


def read_bytes(facts: ModelFacts, precision: Precision) -> int:
    """What each token reads of the weights: all, but of an untied input embedding only a row, and
    of a mixture only the experts that it uses.
    """
    dense = DENSE_BITS.get(precision)
    idle = facts.idle_parameters * (dense or PACKED_BITS[precision])
    if not facts.tied:
        idle += facts.embedding_parameters * (dense or UNTIED_EMBEDDING_BITS)
    return weights_bytes(facts, precision) - int(idle / 8)


def host_bytes(plan: ResolvedPlan) -> int:
    """What one replica takes of its machine's own memory.

    A KV cache on a GPU is none of it, but what it spills is; the weights pass through it, and stay
    there if the GPU is too small for them.
    """
    if plan.gpu is None:
        return plan.memory_bytes
    spilled = plan.kv_spill.memory if plan.kv_spill is not None else None
    streamed = plan.weights_bytes - plan.offload.resident_bytes if plan.offload else 0
    return plan.memory_bytes - caches_bytes(plan) + int(spilled or 0) + streamed


def caches_bytes(plan: ResolvedPlan) -> int:
    """The KV caches of the model and of its draft model."""
    return plan.kv_cache_bytes + (plan.draft.kv_cache_bytes if plan.draft else 0)
