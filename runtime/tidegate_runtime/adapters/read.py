"""The weights of an adapter, checked against the model before any of them is used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from tidegate_runtime.adapters.config import MAX_RANK, LoraConfig, parse_config
from tidegate_runtime.adapters.source import CONFIG, WEIGHTS
from tidegate_runtime.artifact.check import read_config
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.low_rank import LowRank

_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_COPIES = (".base_layer.weight", ".embed_tokens.weight", ".lm_head.weight")
"""What PEFT saves beside an update of the last layer, unless it is told not to."""
_HEADER_BYTES = 1 << 20
_DTYPES = frozenset({torch.float32, torch.float16, torch.bfloat16})
Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Lora:
    """An adapter of a certain model: its updates by module name.

    `digest` is that of its two files; `rank` is the largest of its updates.
    """

    digest: str
    rank: int
    updates: Mapping[str, LowRank]

    @property
    def float_bytes(self) -> int:
        """What the weights take in float32."""
        return sum(update.down.nbytes + update.up.nbytes for update in self.updates.values())

    @property
    def targets(self) -> tuple[str, ...]:
        """The last parts of the names of the modules that it updates, each once."""
        return tuple(sorted({name.rpartition(".")[2] for name in self.updates}))


def read_lora(where: str, directory: Path, model: Shapes) -> Lora:
    """The adapter in a directory, for a model with linears of these (outputs, inputs).

    `where` names it in messages. Raises ModelRefused.
    """
    try:
        _check_sizes(where, directory, model)
        config = parse_config(where, read_config(directory / CONFIG))
        digest = hashlib.sha256((directory / CONFIG).read_bytes())
        content = (directory / WEIGHTS).read_bytes()
        tensors = load(content)
    except SafetensorError as error:
        raise ModelRefused(
            "BrokenAdapter", f"adapter {where!r}: {WEIGHTS} is broken ({error}); fetch it again"
        ) from error
    except OSError as error:
        raise ModelRefused("BrokenAdapter", f"adapter {where!r} cannot be read: {error}") from error
    digest.update(content)
    updates = _updates(where, config, tensors, model)
    rank = max(len(update.down) for update in updates.values())
    return Lora(f"sha256:{digest.hexdigest()}", rank, updates)


def _check_sizes(where: str, directory: Path, model: Shapes) -> None:
    """Refuse files larger than any adapter of the model, before they are read."""
    most = MAX_RANK * sum(map(sum, model.values())) * torch.float32.itemsize + _HEADER_BYTES
    for name, limit in ((CONFIG, _HEADER_BYTES), (WEIGHTS, most)):
        size = (directory / name).stat().st_size
        if size > limit:
            raise ModelRefused(
                "WrongAdapter",
                f"adapter {where!r}: {name} has {size} bytes, and for this model it has {limit} at "
                "most; use an adapter that was trained on this model",
            )


def _updates(
    where: str, config: LoraConfig, tensors: Mapping[str, torch.Tensor], model: Shapes
) -> dict[str, LowRank]:
    modules = {_module_of(where, name) for name in tensors}
    if foreign := sorted(modules - model.keys()):
        raise ModelRefused(
            "WrongAdapter",
            f"adapter {where!r} changes {foreign[0]!r} ({len(foreign)} such modules), which is no "
            "linear of this model that an adapter may change; use an adapter of this model with "
            "targets among its layers' projections",
        )
    if not modules:
        raise ModelRefused("BrokenAdapter", f"adapter {where!r} has no weights; save it again")
    wanted = config.targets(model)
    if odd := sorted(modules ^ (modules if wanted is None else wanted)):
        what = "lacks the weights of" if odd[0] not in modules else "has weights, unasked, for"
        raise ModelRefused(
            "BrokenAdapter",
            f"adapter {where!r} {what} {odd[0]!r} ({len(odd)} such modules), by target_modules "
            f"{config.target_modules!r}; save it again, or use one that was trained on this model",
        )
    return {module: _update(where, config, tensors, module, model[module]) for module in modules}


def _module_of(where: str, name: str) -> str:
    """The module that a tensor belongs to."""
    for suffix in (_DOWN, _UP):
        if name.startswith(_PREFIX) and name.endswith(suffix):
            return name[len(_PREFIX) : -len(suffix)]
    if name.endswith(_COPIES):
        raise ModelRefused(
            "UnsupportedAdapter",
            f"adapter {where!r} has a copy of the model's own weights, {name!r}, which may have "
            "been trained too; save it with PEFT's save_pretrained(..., "
            "save_embedding_layers=False)",
        )
    raise ModelRefused(
        "UnsupportedAdapter",
        f"adapter {where!r} has a tensor {name!r}, and only pairs {_PREFIX}….lora_A.weight and "
        "….lora_B.weight are supported; train without embeddings, DoRA and biases, or merge it",
    )


def _update(
    where: str,
    config: LoraConfig,
    tensors: Mapping[str, torch.Tensor],
    module: str,
    shape: tuple[int, int],
) -> LowRank:
    outputs, inputs = shape
    rank, scale = config.rank_of(module), config.scale_of(module)
    down = _tensor(where, tensors, f"{_PREFIX}{module}{_DOWN}", (rank, inputs))
    up = _tensor(where, tensors, f"{_PREFIX}{module}{_UP}", (outputs, rank)) * scale
    if not bool(torch.isfinite(up).all()):
        raise ModelRefused(
            "BrokenAdapter",
            f"adapter {where!r}: the weights of {module!r} times alpha overflow; save it again",
        )
    return LowRank(down, up)


def _tensor(
    where: str, tensors: Mapping[str, torch.Tensor], name: str, shape: tuple[int, int]
) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise ModelRefused(
            "BrokenAdapter", f"adapter {where!r} lacks the tensor {name!r}; save it again"
        )
    if tuple(tensor.shape) != shape:
        raise ModelRefused(
            "WrongAdapter",
            f"adapter {where!r}: {name!r} has the shape {list(tensor.shape)}, and this model and "
            f"the rank in {CONFIG} want {list(shape)}; use an adapter that was trained on this "
            "model",
        )
    if tensor.dtype not in _DTYPES or not bool(torch.isfinite(tensor).all()):
        raise ModelRefused(
            "BrokenAdapter",
            f"adapter {where!r}: {name!r} ({tensor.dtype}) holds values that are no numbers; save "
            "it again",
        )
    return tensor.float()
