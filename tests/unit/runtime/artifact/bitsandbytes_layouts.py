"""Linear layers as bitsandbytes 0.50 and transformers 5 write them to safetensors."""

from __future__ import annotations

import json

import torch
from tests.unit.runtime.artifact.quantized_layouts import Layout, Stored, random_codes

BLOCK, NESTED = 64, 48


def four_bits(name: str, *, nested: bool) -> Layout:
    """Levels at random, ascending; nested blocks are counted across a layer."""

    def write(out: int, inputs: int) -> tuple[Stored, torch.Tensor]:
        codes = random_codes(out, inputs, 4).flatten().tolist()
        levels = (torch.rand(16) * 2 - 1).sort().values
        blocks = len(codes) // BLOCK
        state = {
            "quant_type": name,
            "blocksize": BLOCK,
            "dtype": "bfloat16",
            "shape": [out, inputs],
        }
        parts: Stored = {}
        if nested:
            offset = 0.05
            state |= {"nested_blocksize": NESTED, "nested_dtype": "float32"}
            state["nested_offset"] = offset
            stored = torch.randint(0, 256, (blocks,), dtype=torch.uint8)
            parts["weight.nested_quant_map"] = (torch.rand(256) * 2 - 1).sort().values
            parts["weight.nested_absmax"] = torch.rand(-(-blocks // NESTED)) * 0.02 + 0.01
            largest = [
                float(parts["weight.nested_quant_map"][code])
                * float(parts["weight.nested_absmax"][at // NESTED])
                + offset
                for at, code in enumerate(stored.tolist())
            ]
        else:
            stored = torch.rand(blocks) * 0.05 + 0.01
            largest = stored.tolist()
        pairs = [codes[at] << 4 | codes[at + 1] for at in range(0, len(codes), 2)]
        parts |= {
            "weight": torch.tensor(pairs, dtype=torch.uint8).unsqueeze(1),
            "weight.absmax": stored,
            "weight.quant_map": levels,
            f"weight.quant_state.bitsandbytes__{name}": torch.tensor(
                list(json.dumps(state).encode()), dtype=torch.uint8
            ),
        }
        values = [float(levels[code]) * largest[at // BLOCK] for at, code in enumerate(codes)]
        return parts, torch.tensor(values).reshape(out, inputs)

    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": name}
    return Layout(config | {"bnb_4bit_quant_storage": "uint8"}, write)


def eight_bits() -> Layout:
    def write(out: int, inputs: int) -> tuple[Stored, torch.Tensor]:
        codes = (random_codes(out, inputs, 8) - 128).clamp(-127).to(torch.int8)
        largest = torch.rand(out) + 0.5
        form = torch.tensor(0, dtype=torch.uint8)
        stored = {"weight": codes, "SCB": largest, "weight_format": form}
        return stored, codes.float() * largest.unsqueeze(1) / 127

    return Layout({"quant_method": "bitsandbytes", "load_in_8bit": True}, write)


BITSANDBYTES = {
    "bnb nf4": four_bits("nf4", nested=False),
    "bnb nf4 nested": four_bits("nf4", nested=True),
    "bnb fp4": four_bits("fp4", nested=False),
    "bnb 8": eight_bits(),
}
BITSANDBYTES_KEPT = {"bnb 8"}
"""Those whose codes a build takes as they are."""
