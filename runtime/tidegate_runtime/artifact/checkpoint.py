"""A model as its author published it: its configuration, its tokenizer, and its weights one by one.

Nothing is read before it is asked for, so that a build needs memory for a tensor, not for a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from tidegate_runtime.artifact.check import ModelFiles, read_config
from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.artifact.quantized.scheme import read_scheme
from tidegate_runtime.artifact.quantized.stored import quantized_tensors
from tidegate_runtime.artifact.safetensors import stored_tensors
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.experts import expert_name, expert_stacks
from tidegate_runtime.ops.quantized import QuantizedWeight

Weight = torch.Tensor | QuantizedWeight
"""`QuantizedWeight` where the source holds such codes itself."""


@dataclass(frozen=True)
class Skeleton:
    """The modules of a model without their weights, from transformers.

    `linears` maps the name of each linear layer to `(out, in)`; `biases` are those with a bias;
    `others` maps every other tensor of the state to its shape. When `tied`, the input embedding
    `embedding` is the last layer `head` and is in neither. `experts` maps each stack of experts to
    their number; one by one they are among `linears` (see models/experts.py).
    """

    architecture: str
    linears: Mapping[str, tuple[int, int]]
    biases: frozenset[str]
    others: Mapping[str, tuple[int, ...]]
    head: str
    embedding: str
    tied: bool
    experts: Mapping[str, int]

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        linears = sum(out * inputs for out, inputs in self.linears.values())
        return linears + sum(math.prod(shape) for shape in self.others.values())


@dataclass(frozen=True)
class Checkpoint:
    """A source that can be built. `tensors` yields `(state name, weight)`, in any order.

    A linear layer's weight has the state name `<layer>.weight`. With tied embeddings the head may
    come under its own name or that of the embedding. `stored_bits` is what most weights are kept
    in, `empty` the model of transformers without memory.
    """

    kind: Literal["safetensors", "gguf"]
    path: Path
    config: Any
    skeleton: Skeleton
    tokenizer: Any
    generation: Mapping[str, Any]
    stored_bits: int
    empty: Any
    tensors: Callable[[], Iterator[tuple[str, Weight]]]


def open_checkpoint(files: ModelFiles) -> Checkpoint:
    """Read all but the weights. Raises ModelRefused."""
    if files.gguf is not None:
        from tidegate_runtime.artifact.gguf import open_gguf

        parts = open_gguf(files.gguf)
        config, tokenizer, generation = parts.config, parts.tokenizer, parts.generation
    else:
        root = files.root
        config = guarded(root, lambda: transformers.AutoConfig.from_pretrained(root))
        tokenizer = load_tokenizer(root)
        path = root / "generation_config.json"
        generation = read_config(path) if path.exists() else {}
    path = files.gguf or files.root
    scheme = read_scheme(path, config)
    if scheme is not None:
        del config.quantization_config  # what is built from it is quantized otherwise
    model = empty_model(path, config)
    tensors: Callable[[], Iterator[tuple[str, Weight]]]
    if files.gguf is not None:
        stored_bits, tensors = parts.stored_bits, lambda: parts.tensors(model)
    elif scheme is not None:
        stored_bits, tensors = scheme.stored_bits, lambda: quantized_tensors(path, model, scheme)
    else:
        stored_bits, tensors = 16, lambda: stored_tensors(path, model)
    return Checkpoint(
        kind="safetensors" if files.gguf is None else "gguf",
        path=path,
        config=config,
        skeleton=skeleton_of(path, model),
        tokenizer=tokenizer,
        generation=generation,
        stored_bits=stored_bits,
        empty=model,
        tensors=tensors,
    )


def load_tokenizer(root: Path) -> Any:
    """The tokenizer of a checked directory. Raises ModelRefused when there is none."""
    return guarded(
        root, lambda: transformers.AutoTokenizer.from_pretrained(root, trust_remote_code=False)
    )


def empty_model(path: Path, config: Any) -> Any:
    """The model of a configuration, whose tensors take no memory. Raises ModelRefused."""
    architectures = getattr(config, "architectures", None) or []
    if architectures and not any(_generates(name) for name in architectures):
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(path)!r} has the architecture {architectures[0]!r}, which does not generate "
            "text; use a causal language model, or serve it with task embed",
        )

    def make() -> Any:
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(config)

    return guarded(path, make)


def _generates(architecture: str) -> bool:
    return architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))


def skeleton_of(path: Path, model: Any) -> Skeleton:
    """The modules of an empty model. Raises ModelRefused when its head is no linear layer."""
    modules = dict(model.named_modules(remove_duplicate=False))
    names = {id(module): name for name, module in modules.items()}
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if type(head) is not torch.nn.Linear or embedding is None:
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(path)!r}: {type(model).__name__} has no linear layer as its head; use a causal "
            "language model",
        )
    tied = head.weight is embedding.weight
    linears, biases = {}, set()
    for name, module in modules.items():
        if type(module) is torch.nn.Linear:
            linears[name] = (int(module.out_features), int(module.in_features))
            if module.bias is not None:
                biases.add(name)
    dense = {f"{name}.weight" for name in linears} | {f"{name}.bias" for name in biases}
    if tied:
        dense.add(f"{names[id(embedding)]}.weight")
    experts = {}
    for stack, (count, out, inputs) in expert_stacks(model).items():
        experts[stack] = count
        linears |= {expert_name(stack, number): (out, inputs) for number in range(count)}
    others = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name not in dense and name not in experts
    }
    return Skeleton(
        architecture=type(model).__name__,
        linears=linears,
        biases=frozenset(biases),
        others=others,
        head=names[id(head)],
        embedding=names[id(embedding)],
        tied=tied,
        experts=experts,
    )
