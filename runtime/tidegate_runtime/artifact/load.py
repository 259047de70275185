"""Checked files become a model and a tokenizer in memory. Never a pickle, never remote code."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from tidegate_runtime.artifact.check import ModelFiles, read_config
from tidegate_runtime.artifact.gguf import dequantised
from tidegate_runtime.artifact.memory import check_weights_fit
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable

EXHAUSTED = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, and what its files say about using it.

    `sampling_defaults` are the values of generation_config.json that a silent request gets.
    """

    model: Any
    tokenizer: Any
    context_tokens: int
    eos_tokens: frozenset[int]
    vocabulary_size: int
    sampling_defaults: Mapping[str, float]
    root: Path


def load_generator(
    files: ModelFiles,
    *,
    precision: str,
    cache_dir: Path,
    context_tokens: int | None,
    attention: str,
) -> LoadedModel:
    """A causal language model whose attention calls the implementation named `attention`.

    `context_tokens` overrides the model's own and may only be smaller. Raises ModelRefused.
    """
    dtype = PRECISIONS[precision]
    root = files.root if files.gguf is None else _dense(files.gguf, cache_dir, dtype)
    config = _guarded(root, lambda: transformers.AutoConfig.from_pretrained(root))
    # Decided before the weights are read: a refusal must not cost the time and memory of a load.
    context = bounded_context(_model_context(config), context_tokens)
    model = _load_weights(transformers.AutoModelForCausalLM, root, dtype, attention)
    tokenizer = load_tokenizer(root)
    generation = _optional_config(root / "generation_config.json")
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        context_tokens=context,
        eos_tokens=_eos_tokens(generation, config, tokenizer),
        vocabulary_size=int(model.get_output_embeddings().weight.shape[0]),
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
    root = files.root
    config = _guarded(root, lambda: transformers.AutoConfig.from_pretrained(root))
    own = _model_context(config)
    sentence = _optional_config(root / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(sentence, int):
        own = min(own or sentence, sentence)
    context = bounded_context(own, context_tokens)
    model = _load_weights(transformers.AutoModel, root, PRECISIONS[precision], "sdpa")
    return LoadedModel(
        model=model,
        tokenizer=load_tokenizer(root),
        context_tokens=context,
        eos_tokens=frozenset(),
        vocabulary_size=int(model.get_input_embeddings().weight.shape[0]),
        sampling_defaults={},
        root=root,
    )


def load_tokenizer(root: Path) -> Any:
    """The tokenizer of a checked directory. Raises ModelRefused when there is none."""
    return _guarded(
        root, lambda: transformers.AutoTokenizer.from_pretrained(root, trust_remote_code=False)
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


def _dense(gguf: Path, cache_dir: Path, dtype: torch.dtype) -> Path:
    return Path(_guarded(gguf, lambda: dequantised(gguf, cache_dir, dtype)))


def _load_weights(auto: Any, root: Path, dtype: torch.dtype, attention: str) -> Any:
    check_weights_fit(root)
    model, report = _guarded(
        root,
        lambda: auto.from_pretrained(
            root,
            dtype=dtype,
            attn_implementation=attention,
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


def _guarded(root: Path, load: Callable[[], Any]) -> Any:
    """Run a transformers loader; a model that it cannot read is refused with its first line.

    What the machine lacks now (memory, disk, descriptors) is no fault of the model.
    """
    try:
        return load()
    except MemoryError as error:
        raise ReplicaUnavailable(
            "OutOfMemory", f"{str(root)!r} does not fit into memory now; free some, or use less"
        ) from error
    except SafetensorError as error:
        raise ModelRefused(
            "BrokenModel", f"{str(root)!r} has broken weights ({error}); fetch the model again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        if getattr(error, "errno", None) in EXHAUSTED or "allocate memory" in line:
            raise ReplicaUnavailable("ResourcesExhausted", f"{str(root)!r}: {line}") from error
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(root)!r} cannot be loaded ({line}); use a model that transformers "
            f"{transformers.__version__} supports",
        ) from error


def _model_context(config: Any) -> int | None:
    text = config.get_text_config()
    value = getattr(text, "max_position_embeddings", None)
    return int(value) if value else None


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
    names = ("temperature", "top_p", "top_k", "min_p")
    return {name: float(generation[name]) for name in names if generation.get(name) is not None}
