"""What is done to a model: the methods that were asked for, checked to make sense together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from tidegate.protocol.compress import Method
from tidegate_runtime.artifact.manifest import BITS
from tidegate_runtime.compress.sparsity import Sparsity
from tidegate_runtime.errors import ModelRefused

METHODS: tuple[Method, ...] = get_args(Method)
PRECISIONS = ("int4", "int8", "bf16", "fp32")
QUANTIZERS = ("rtn", "gptq", "awq")
PRUNERS = ("wanda", "sparsegpt")
DAMPING = 0.01
STRENGTH = 0.5
_CODED = tuple(precision for precision, bits in BITS.items() if bits < 16)


@dataclass(frozen=True)
class Asked:
    """The methods and their options as they were given; None for an option that was not."""

    methods: Sequence[str]
    precision: str
    sparsity: str | None = None
    drop_layers: int | None = None
    act_order: bool = False
    damping: float | None = None
    smoothing: float | None = None


@dataclass(frozen=True)
class Recipe:
    """In the order in which they are applied: whole layers go first (`drop_layers`), then in each
    layer activations are smoothed with strength `smoothing`, weights pruned and, below 16 bits,
    quantized. None is what is not done.
    """

    precision: str
    drop_layers: int | None
    smoothing: float | None
    pruner: str | None
    sparsity: Sparsity | None
    quantizer: str
    act_order: bool
    damping: float

    @property
    def bits(self) -> int | None:
        """Bits of a code; None where weights keep their values."""
        return BITS[self.precision] if self.precision in _CODED else None

    @property
    def walks(self) -> bool:
        """Whether anything needs to know what the layers compute."""
        return self.quantizer != "rtn" or self.pruner is not None or self.smoothing is not None

    @property
    def calibrates(self) -> bool:
        """Whether a text is needed."""
        return self.walks or self.drop_layers is not None

    @property
    def methods(self) -> list[str]:
        """Their names, in order."""
        found = [
            "drop" if self.drop_layers else None,
            "smoothquant" if self.smoothing is not None else None,
            self.pruner,
            self.quantizer if self.bits else None,
        ]
        return [name for name in found if name] or [self.quantizer]

    def parameters(self) -> dict[str, Any]:
        """What the methods were told, for the manifest."""
        uses_damping = self.quantizer == "gptq" or self.pruner == "sparsegpt"
        found = {
            "drop_layers": self.drop_layers,
            "smoothing": self.smoothing,
            "sparsity": None if self.sparsity is None else str(self.sparsity),
            "act_order": self.act_order if self.quantizer == "gptq" else None,
            "damping": self.damping if uses_damping else None,
        }
        return {name: value for name, value in found.items() if value is not None}


def resolve_recipe(asked: Asked) -> Recipe:
    """Raises ModelRefused (UnknownMethod, BadRecipe, BadSparsity) for what makes no sense."""
    unknown = [name for name in asked.methods if name not in METHODS]
    if unknown:
        raise ModelRefused(
            "UnknownMethod", f"--method {unknown[0]!r} is unknown; use {', '.join(METHODS)}"
        )
    if asked.precision not in PRECISIONS:
        raise _bad(f"--precision {asked.precision!r} is unknown; use {', '.join(PRECISIONS)}")
    quantizer = _one_of(asked.methods, QUANTIZERS)
    pruner = _one_of(asked.methods, PRUNERS)
    if quantizer in ("gptq", "awq") and asked.precision not in _CODED:
        raise _bad(
            f"--method {quantizer} rounds to few bits, and --precision {asked.precision!r} keeps "
            f"values; use {' or '.join(_CODED)}, or leave the method out"
        )
    if "smoothquant" in asked.methods and quantizer == "awq":
        raise _bad("--method smoothquant and awq rescale the same channels; use one of them")
    if "smoothquant" in asked.methods and asked.precision not in _CODED:
        raise _bad(
            f"--method smoothquant helps where activations have 8 bits, and beside --precision "
            f"{asked.precision!r} they do not; use {' or '.join(_CODED)}"
        )
    _check_options(asked, quantizer, pruner)
    return Recipe(
        precision=asked.precision,
        drop_layers=asked.drop_layers,
        smoothing=(STRENGTH if asked.smoothing is None else asked.smoothing)
        if "smoothquant" in asked.methods
        else None,
        pruner=pruner,
        sparsity=Sparsity.parse(asked.sparsity or "0.5") if pruner else None,
        quantizer=quantizer or "rtn",
        act_order=asked.act_order,
        damping=DAMPING if asked.damping is None else asked.damping,
    )


def _one_of(methods: Sequence[str], kind: Sequence[str]) -> str | None:
    found = sorted({name for name in methods if name in kind})
    if len(found) > 1:
        raise _bad(f"--method {' and '.join(found)} do the same in two ways; use one of them")
    return found[0] if found else None


def _check_options(asked: Asked, quantizer: str | None, pruner: str | None) -> None:
    """An option belongs to its method, and has a value that means something."""
    swept = quantizer == "gptq" or pruner == "sparsegpt"
    smooths, drops = "smoothquant" in asked.methods, "drop" in asked.methods
    belongs = [
        ("--sparsity", asked.sparsity is not None, pruner is not None, "wanda or sparsegpt"),
        ("--act-order", asked.act_order, quantizer == "gptq", "gptq"),
        ("--damping", asked.damping is not None, swept, "gptq or sparsegpt"),
        ("--smoothing", asked.smoothing is not None, smooths, "smoothquant"),
        ("--drop-layers", asked.drop_layers is not None, drops, "drop"),
    ]
    for option, given, used, methods in belongs:
        if given and not used:
            raise _bad(f"{option} says something to --method {methods}; add it, or leave it out")
    if drops and (asked.drop_layers is None or asked.drop_layers < 1):
        raise _bad(
            f"--method drop with --drop-layers {asked.drop_layers} drops nothing; say how many "
            "layers go, 1 or more"
        )
    for option, value in (("--damping", asked.damping), ("--smoothing", asked.smoothing)):
        if value is not None and not 0 < value < 1:
            raise _bad(f"{option} {value:g} is not between 0 and 1; leave it out for the default")


def _bad(message: str) -> ModelRefused:
    return ModelRefused("BadRecipe", message)
