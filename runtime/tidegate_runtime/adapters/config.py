"""`adapter_config.json`: what PEFT says of an adapter, and what of it is supported.

What would change the output and is not supported is refused by its name; so is a field that this
version has never heard of, unless it is empty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from tidegate_runtime.errors import ModelRefused

MAX_RANK = 256
_IGNORED = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config"),
        *(
            "inference_mode",
            "lora_dropout",
            "megatron_core",
            "peft_version",
            "qalora_group_size",
            "revision",
        ),
        *("runtime_config", "task_type"),
    }
)
"""Fields that change nothing when an adapter is served."""
_HARMLESS_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin training that leave the base model as it is."""
_PLAIN_NAME = re.compile(r"^\^?[\w.]+$")
"""Takes no longer to match than to read."""
_HEADS = ("lm_head", "embed_out")
"""Names of a last layer, which `all-linear` leaves out."""
_LAYER = re.compile(r"\.layers\.(\d+)\.")

Names = list[str] | str | None


class LoraConfig(BaseModel):
    """The fields of PEFT's LoraConfig that are honoured; the others have to be empty."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    peft_type: str
    rank: int = Field(alias="r", ge=1, le=MAX_RANK)
    lora_alpha: float = Field(allow_inf_nan=False)
    use_rslora: bool = False
    target_modules: Names = None
    exclude_modules: Names = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: Names = None
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    bias: str = "none"
    init_lora_weights: bool | str = True

    def rank_of(self, module: str) -> int:
        """The rank of a module's update."""
        return int(_by_pattern(self.rank_pattern, module, self.rank))

    def scale_of(self, module: str) -> float:
        """What a module's update is multiplied by: alpha by rank (Hu et al. 2021), or by its root
        (rsLoRA, Kalajdzievski 2023)."""
        rank = self.rank_of(module)
        alpha = _by_pattern(self.alpha_pattern, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def targets(self, modules: Iterable[str]) -> set[str] | None:
        """Which of a model's modules have an update; None when the configuration says it by a
        regular expression, which nobody evaluates here."""
        wanted, excluded = self.target_modules, self.exclude_modules or []
        if wanted == "all-linear":
            wanted, modules = [""], [name for name in modules if name not in _HEADS]
        if not isinstance(wanted, list) or not isinstance(excluded, list):
            return None
        return {
            module
            for module in modules
            if _is_named(module, wanted) and not _is_named(module, excluded) and self._layer(module)
        }

    def _layer(self, module: str) -> bool:
        """Whether the module lies in a layer that is adapted."""
        layers = self.layers_to_transform
        if layers is None or layers == []:
            return True
        found = _LAYER.search(f".{module}")
        return found is not None and int(found[1]) in (
            [layers] if isinstance(layers, int) else layers
        )


def parse_config(where: str, value: Mapping[str, Any]) -> LoraConfig:
    """The configuration of an adapter. Raises ModelRefused (UnsupportedAdapter)."""
    kind = value.get("peft_type")
    if kind != "LORA":
        raise unsupported(where, "peft_type", kind, "only LORA is served; train one, or merge it")
    try:
        config = LoraConfig.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise unsupported(where, field, first.get("input"), first["msg"]) from error
    _check_supported(where, config, value)
    return config


def unsupported(where: str, field: str, value: object, remedy: str) -> ModelRefused:
    """The refusal of one field."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}…"
    return ModelRefused(
        "UnsupportedAdapter", f"adapter {where!r}: {field} {shown} is not supported: {remedy}"
    )


def _check_supported(where: str, config: LoraConfig, value: Mapping[str, Any]) -> None:
    merge = "train without it, or merge the adapter into the model"
    if value.get("task_type") not in (None, "CAUSAL_LM"):
        raise unsupported(where, "task_type", value["task_type"], "it must be CAUSAL_LM")
    if config.bias != "none":
        raise unsupported(where, "bias", config.bias, merge)
    if config.init_lora_weights not in _HARMLESS_INITS:
        why = "it changes the base model too; convert it to plain LoRA when saving"
        raise unsupported(where, "init_lora_weights", config.init_lora_weights, why)
    if config.layers_pattern not in (None, "", [], "layers", ["layers"]):
        raise unsupported(where, "layers_pattern", config.layers_pattern, "use 'layers'")
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, field):
            if not _PLAIN_NAME.match(pattern):
                why = "give the module's name, not a regular expression"
                raise unsupported(where, field, pattern, why)
    if value.get("ensure_weight_tying") and config.targets(_HEADS) != set():
        why = "the embeddings would be adapted with the last layer; train without it"
        raise unsupported(where, "ensure_weight_tying", True, why)  # noqa: FBT003 - the value
    for field, given in (config.model_extra or {}).items():
        if given and field not in _IGNORED:
            raise unsupported(where, field, given, merge)


def _by_pattern(pattern: Mapping[str, float], module: str, otherwise: float) -> float:
    """The value of the first pattern that matches the end of a module's name, as PEFT reads them:
    a dot is any character, and `^` begins a whole name.
    """
    found = (value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, otherwise)


def _is_named(module: str, names: Iterable[str]) -> bool:
    """Whether a name is that of a module, or its end after a dot; an empty one is any module's."""
    return any(not name or module == name or module.endswith(f".{name}") for name in names)
