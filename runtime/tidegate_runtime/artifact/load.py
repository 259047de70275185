"""What is served: a generator from its artifact, or an encoder from its own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.modeling_layers import GenericForSequenceClassification

from tidegate_runtime.artifact.check import ModelFiles, read_config
from tidegate_runtime.artifact.checkpoint import load_tokenizer
from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.artifact.memory import check_weights_fit
from tidegate_runtime.artifact.open import Artifact
from tidegate_runtime.artifact.safetensors import check_shapes, check_unused, lacking
from tidegate_runtime.errors import ModelRefused

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class LoadedModel:
    """What a model's files say about using it. `model` is an encoder; a generator's weights are its
    decoder's.

    `sampling_defaults` are the values of generation_config.json that a silent request gets, as in
    vLLM: its temperature, top_p, top_k, min_p and repetition_penalty; its do_sample means nothing
    to a request, which asks for greedy tokens with temperature 0.
    """

    tokenizer: Any
    context_tokens: int
    eos_tokens: frozenset[int]
    vocabulary_size: int
    sampling_defaults: Mapping[str, float]
    root: Path
    model: Any = None


def load_generator(
    artifact: Artifact, *, context_tokens: int | None, tokenizer: Any = None
) -> LoadedModel:
    """All of a generator but its weights; its tokenizer is read unless it is given.

    `context_tokens` overrides the model's own and may only be smaller. Raises ModelRefused.
    """
    root = artifact.root
    config = guarded(root, lambda: transformers.AutoConfig.from_pretrained(root))
    tokenizer = load_tokenizer(root) if tokenizer is None else tokenizer
    generation = _optional_config(root / "generation_config.json")
    return LoadedModel(
        tokenizer=tokenizer,
        context_tokens=bounded_context(artifact.manifest.context_tokens, context_tokens),
        eos_tokens=_eos_tokens(generation, config, tokenizer),
        vocabulary_size=int(config.get_text_config().vocab_size),
        sampling_defaults=_sampling_defaults(generation),
        root=root,
    )


def load_encoder(files: ModelFiles, *, precision: str, context_tokens: int | None) -> LoadedModel:
    """A model that turns text into vectors. Raises ModelRefused."""
    return _load_encoder(transformers.AutoModel, files, precision, context_tokens)


def load_cross_encoder(
    files: ModelFiles, *, precision: str, context_tokens: int | None
) -> LoadedModel:
    """An encoder with one number for a pair of texts. Raises ModelRefused."""
    kind = transformers.AutoModelForSequenceClassification
    loaded = _load_encoder(kind, files, precision, context_tokens)
    config = loaded.model.config
    if config.num_labels != 1 or isinstance(loaded.model, GenericForSequenceClassification):
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(files.root)!r} is a {type(loaded.model).__name__} with {config.num_labels} "
            "labels, which is no cross-encoder that is honoured; use an encoder with one label",
        )
    return loaded


def _load_encoder(
    kind: Any, files: ModelFiles, precision: str, context_tokens: int | None
) -> LoadedModel:
    if files.gguf is not None:
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(files.gguf)!r}: encoders in GGUF are not supported; use safetensors",
        )
    if precision not in DTYPES:
        raise ModelRefused(
            "UnsupportedPrecision",
            f"precision {precision!r}: an encoder is served in {' or '.join(DTYPES)}",
        )
    root = files.root
    config = guarded(root, lambda: transformers.AutoConfig.from_pretrained(root))
    own = getattr(config.get_text_config(), "max_position_embeddings", None)
    sentence = _optional_config(root / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(sentence, int):
        own = min(own or sentence, sentence)
    context = bounded_context(own, context_tokens)
    model = _load_encoder_weights(kind, root, DTYPES[precision])
    return LoadedModel(
        tokenizer=load_tokenizer(root),
        context_tokens=context,
        eos_tokens=frozenset(),
        vocabulary_size=int(model.get_input_embeddings().weight.shape[0]),
        sampling_defaults={},
        root=root,
        model=model,
    )


def bounded_context(own: int | None, wanted: int | None) -> int:
    """The context to serve: the model's own, or less when asked. Raises ModelRefused."""
    if own is None and wanted is None:
        raise ModelRefused(
            "UnsupportedModel",
            "the model's config.json does not say its context length; set context_tokens",
        )
    if wanted is None:
        return int(own or 0)
    if wanted < 1 or (own is not None and wanted > own):
        raise ModelRefused(
            "BadContext",
            f"context_tokens {wanted} is not within the model's own 1..{own}; lower it, or leave "
            "it out to use the model's",
        )
    return wanted


def _load_encoder_weights(kind: Any, root: Path, dtype: torch.dtype) -> Any:
    check_weights_fit(root)
    model, report = guarded(
        root,
        lambda: kind.from_pretrained(
            root,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        ),
    )
    check_shapes(report)
    # transformers fills what is missing with random numbers; an encoder's pooler makes no vectors.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler"))
    if missing:
        raise lacking(root, missing)
    check_unused(root, report["unexpected_keys"], int(model.config.num_hidden_layers))
    return model.eval()


def _optional_config(path: Path) -> dict[str, Any]:
    return read_config(path) if path.exists() else {}


def _eos_tokens(generation: Mapping[str, Any], config: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    sources = (generation.get("eos_token_id"), getattr(config, "eos_token_id", None))
    for value in (*sources, tokenizer.eos_token_id):
        if isinstance(value, int):
            found.add(value)
        elif isinstance(value, list):
            found.update(int(token) for token in value)
    return frozenset(found)


def _sampling_defaults(generation: Mapping[str, Any]) -> dict[str, float]:
    """What generation_config.json says of sampling, where it says it."""
    return {
        name: float(generation[name])
        for name in SAMPLING_DEFAULTS
        if generation.get(name) is not None
    }
