"""What is served: a generator from its artifact, or an encoder from its own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from tidegate_runtime.artifact.check import ModelFiles, read_config
from tidegate_runtime.artifact.checkpoint import load_tokenizer
from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.artifact.memory import check_weights_fit
from tidegate_runtime.artifact.open import Artifact
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
    if files.gguf is not None:
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(files.gguf)!r}: embeddings from GGUF are not supported; use safetensors",
        )
    if precision not in DTYPES:
        raise ModelRefused(
            "UnsupportedPrecision",
            f"precision {precision!r}: an embedding model is served in {' or '.join(DTYPES)}",
        )
    root = files.root
    config = guarded(root, lambda: transformers.AutoConfig.from_pretrained(root))
    own = getattr(config.get_text_config(), "max_position_embeddings", None)
    sentence = _optional_config(root / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(sentence, int):
        own = min(own or sentence, sentence)
    context = bounded_context(own, context_tokens)
    model = _load_encoder_weights(root, DTYPES[precision])
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


def _load_encoder_weights(root: Path, dtype: torch.dtype) -> Any:
    check_weights_fit(root)
    model, report = guarded(
        root,
        lambda: transformers.AutoModel.from_pretrained(
            root,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        ),
    )
    # transformers fills what is missing with random numbers; a pooler is not used by any task.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler"))
    if missing:
        raise ModelRefused(
            "BrokenModel",
            f"{str(root)!r} lacks {len(missing)} weights that its architecture needs "
            f"({', '.join(missing[:3])}); fetch the model again, or use one of the right kind",
        )
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
