"""From a model's files to its facts: the config, and the headers of its weights."""

from __future__ import annotations

import json
import struct
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.protocol.resources import ModelFacts
from tidegate_controlplane.models.quantized import stored_bits, torchao_weights, weight_counts
from tidegate_controlplane.models.source import ModelFiles, SourceError
from tidegate_controlplane.models.vocabulary import digest_of_gguf, digest_of_tokenizer

GGUF_HEADER_BYTES = 64 * 1024 * 1024
"""Metadata, vocabulary and tensor descriptions lie within this much of a GGUF file's start."""
SAFETENSORS_HEADER_BYTES = 100 * 1024 * 1024
SENTENCE_CONFIG = "sentence_bert_config.json"
CONFIG_BYTES = 16 * 1024 * 1024
HEADS = ("lm_head.", "output.", "embed_out.")
"""How tensors of a last layer are called; a model without one uses its embedding."""
EXPERTS, GGUF_EXPERTS = ".experts.", "_exps."
"""Within the names of tensors that only some tokens read."""
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""What models of transformers call the number of experts of a layer."""
BITS = {"F32": 32, "F16": 16, "BF16": 16, "Q8_0": 8, "Q4_0": 4, "Q4_1": 4, "Q4_K": 4}
BITS |= {"IQ4_NL": 4, "IQ4_XS": 4}
"""By the type of a GGUF tensor; others count as 16."""
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError)
"""What reading a file of someone else's raises when it is not what it says it is."""


def read_json(files: ModelFiles, name: str) -> dict[str, Any]:
    """A JSON object of the model; raises SourceError when it is not one."""
    try:
        content = json.loads(files.read(name, 0, CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"its {name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SourceError(f"its {name} is not a JSON object")
    return content


def safetensors_facts(files: ModelFiles, listing: Mapping[str, int], digest: str) -> ModelFacts:
    """Facts of a directory with `config.json` and safetensors weights."""
    config = read_json(files, "config.json")
    weights = sorted(name for name in listing if name.endswith(".safetensors"))
    headers = [safetensors_header(files, name, listing[name]) for name in weights]
    shapes = {name: shape for header in headers for name, shape in header.shapes.items()}
    metadata = {key: text for header in headers for key, text in header.metadata.items()}
    weights_bytes = sum(listing[name] for name in weights)
    try:
        facts = config_facts(config, digest, shapes, weights_bytes, metadata)
        told = {"tokens_digest": digest_of_tokenizer(files, listing)}
        facts = facts.model_copy(update=told)
        return checked(_within_sentence_limit(facts, files, listing))
    except MALFORMED as error:
        raise SourceError(
            f"its config.json does not describe a transformer that can be served: {error!r}"
        ) from error


def _within_sentence_limit(
    facts: ModelFacts, files: ModelFiles, listing: Mapping[str, int]
) -> ModelFacts:
    """An embedding model may be trained for less than its positions allow, and say so beside."""
    if SENTENCE_CONFIG not in listing:
        return facts
    limit = int(read_json(files, SENTENCE_CONFIG).get("max_seq_length") or facts.context_tokens)
    return facts.model_copy(update={"context_tokens": min(facts.context_tokens, limit)})


def config_facts(
    config: Mapping[str, Any],
    digest: str,
    shapes: Mapping[str, Sequence[int]],
    weights_bytes: int,
    metadata: Mapping[str, str] | None = None,
) -> ModelFacts:
    """From `config.json`, and the shapes of the weights and what their files say of themselves.

    A model of several parts keeps what describes its language part under `text_config`. Raises
    SourceError when its quantization is not read.
    """
    text = config.get("text_config", config)
    heads = int(text["num_attention_heads"])
    torchao = torchao_weights(config, metadata or {})
    bits = stored_bits(config, torchao)
    counts = weight_counts(shapes, bits, torchao)
    return ModelFacts(
        format="safetensors",
        architecture=str((config.get("architectures") or [config["model_type"]])[0]),
        digest=digest,
        parameters=sum(counts.values()),
        stored_bits=bits,
        weights_bytes=weights_bytes,
        context_tokens=int(text.get("max_position_embeddings") or text["n_positions"]),
        layers=int(text["num_hidden_layers"]),
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=int(text.get("head_dim") or text["hidden_size"] // heads),
        vocabulary=int(text["vocab_size"]),
        embedding_parameters=int(text["vocab_size"]) * int(text["hidden_size"]),
        tied=not any(name.startswith(HEADS) for name in shapes),
        idle_parameters=_idle(
            sum(count for name, count in counts.items() if EXPERTS in name),
            next((text[key] for key in EXPERT_COUNTS if text.get(key)), 0),
            text.get("num_experts_per_tok") or 0,
        ),
    )


def _idle(parameters: int, experts: int, used: int) -> int:
    """Of the parameters of all experts, those of the ones that a token does not use."""
    return parameters * (experts - used) // experts if 0 < used < experts else 0


def checked(facts: ModelFacts) -> ModelFacts:
    """Raises ValueError when a count is not positive: a plan could not reckon with it."""
    for name, value in facts:
        if type(value) is int and value <= 0 and name != "idle_parameters":
            raise ValueError(f"its {name} is {value}")
    return facts


def gguf_facts(files: ModelFiles, name: str, size_bytes: int, digest: str) -> ModelFacts:
    """Facts of one GGUF file, from its header alone (the rest is a hole in a sparse copy)."""
    from gguf import GGUFReader  # slow to import, and most sources are not GGUF

    with tempfile.NamedTemporaryFile(suffix=".gguf") as copy:
        copy.write(files.read(name, 0, GGUF_HEADER_BYTES))
        copy.truncate(size_bytes)
        copy.flush()
        try:
            return checked(_gguf_facts(GGUFReader(copy.name), size_bytes, digest))
        except MALFORMED as error:
            raise SourceError(
                f"{name!r} is not a GGUF file that can be read: {error}; copy it again if it "
                f"should have more than {size_bytes} bytes"
            ) from error


def _gguf_facts(reader: Any, size_bytes: int, digest: str) -> ModelFacts:
    def value(key: str) -> Any:
        field = reader.get_field(key)
        return None if field is None else field.contents()

    architecture = value("general.architecture")
    if architecture is None:
        raise ValueError("it names no architecture")
    heads = int(value(f"{architecture}.attention.head_count"))
    key_length = value(f"{architecture}.attention.key_length")
    width = int(value(f"{architecture}.embedding_length"))
    tokens, types = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    vocabulary = len(tokens) if tokens else int(value(f"{architecture}.vocab_size"))
    return ModelFacts(
        format="gguf",
        architecture=str(architecture),
        digest=digest,
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors),
        weights_bytes=size_bytes,
        context_tokens=int(value(f"{architecture}.context_length")),
        layers=int(value(f"{architecture}.block_count")),
        kv_heads=int(value(f"{architecture}.attention.head_count_kv") or heads),
        head_dim=int(key_length or width // heads),
        vocabulary=vocabulary,
        embedding_parameters=vocabulary * width,
        tied=not any(tensor.name == "output.weight" for tensor in reader.tensors),
        stored_bits=_stored_bits(reader),
        tokens_digest=digest_of_gguf(tokens, types) if tokens else None,
        idle_parameters=_idle(
            sum(int(each.n_elements) for each in reader.tensors if GGUF_EXPERTS in each.name),
            int(value(f"{architecture}.expert_count") or 0),
            int(value(f"{architecture}.expert_used_count") or 0),
        ),
    )


def _stored_bits(reader: Any) -> int:
    """The bits that most weights of a GGUF file have."""
    count: Counter[int] = Counter()
    for tensor in reader.tensors:
        count[BITS.get(tensor.tensor_type.name, 16)] += int(tensor.n_elements)
    return count.most_common(1)[0][0]


@dataclass(frozen=True)
class SafetensorsHeader:
    """The shape of every tensor of a file, and what the file says of itself."""

    shapes: Mapping[str, list[int]]
    metadata: Mapping[str, str]


def safetensors_header(files: ModelFiles, name: str, size_bytes: int) -> SafetensorsHeader:
    """What a file says of its tensors, each of which is whole within its `size_bytes`.

    Raises SourceError. Source: the safetensors format, an 8-byte length and JSON, and then the
    tensors without a gap.
    """
    prefix = files.read(name, 0, 8)
    if len(prefix) < 8:
        raise SourceError(f"{name!r} is not a safetensors file: it is shorter than its header")
    (length,) = struct.unpack("<Q", prefix)
    if length > SAFETENSORS_HEADER_BYTES:
        raise SourceError(f"{name!r} is not a safetensors file: its header would be {length} bytes")
    try:
        header = json.loads(files.read(name, 8, length))
        metadata = header.pop("__metadata__", None) or {}
        ends = [int(item["data_offsets"][1]) for item in header.values()]
        described = SafetensorsHeader(
            {key: [int(size) for size in item["shape"]] for key, item in header.items()},
            {str(key): str(text) for key, text in metadata.items()},
        )
    except (*MALFORMED, RecursionError) as error:
        raise SourceError(f"{name!r} is not a safetensors file: {error}") from error
    whole_bytes = len(prefix) + length + max(ends, default=0)
    if whole_bytes != size_bytes:
        raise SourceError(
            f"{name!r} is not whole: it has {size_bytes} bytes, and its header describes "
            f"{whole_bytes}; copy it again"
        )
    return described
