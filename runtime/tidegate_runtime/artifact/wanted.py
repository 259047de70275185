"""Which files of a published model a replica fetches: configuration, tokenizer, safe weights."""

from __future__ import annotations

from pathlib import PurePosixPath

WANTED_SUFFIXES = frozenset({".json", ".safetensors", ".gguf", ".model", ".txt", ".jinja"})
_UNWANTED_FOLDERS = frozenset({"onnx", "openvino", "original", "coreml"})


def is_wanted(name: str) -> bool:
    """Whether the file `name`, relative to the model's root, is fetched."""
    path = PurePosixPath(name)
    return path.suffix.lower() in WANTED_SUFFIXES and not _UNWANTED_FOLDERS & set(path.parts)
