"""The same weights in every form that a system wants, and the sizes of the model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from benchmarks.bound import Shape
from benchmarks.catalogue import Weights
from benchmarks.workloads import ASK_TO_REPEAT, Frame

from tidegate.local.demo_model import demo_model


@dataclass(frozen=True)
class Model:
    """The bundled GGUF file, and a folder for what is made of it."""

    gguf: Path
    folder: Path

    def path(self, weights: Weights, precision: str) -> Path:
        """Where the weights lie in this form."""
        return {
            "gguf": self.gguf,
            "bf16": self.folder / "bf16",
            "artifact": self.folder / f"tidegate-{precision}",
        }[weights]

    def prepare(self, weights: Weights, precision: str) -> str | None:
        """Make them unless they are there; artifacts always. The last line of what went wrong."""
        path = self.path(weights, precision)
        if weights == "bf16" and not (path / "config.json").exists():
            _dequantize(self.gguf, path)
        if weights == "artifact":
            return _build(self.gguf, precision, path)
        return None

    def tokens(self, text: str) -> list[int]:
        """By the tokenizer in the file, without special tokens around them."""
        found: list[int] = self._tokenizer()(text, add_special_tokens=False)["input_ids"]
        return found

    def frame(self) -> Frame:
        """What asks for a text to be repeated."""
        before, after = (tuple(self.tokens(text)) for text in ASK_TO_REPEAT)
        return Frame(before, after)

    def shape(self) -> Shape:
        """As its configuration says."""
        config = transformers.AutoConfig.from_pretrained(self.gguf.parent, gguf_file=self.gguf.name)
        return Shape(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim or config.hidden_size // config.num_attention_heads,
            vocabulary=config.vocab_size,
        )

    def _tokenizer(self) -> transformers.PreTrainedTokenizerBase:
        return transformers.AutoTokenizer.from_pretrained(
            self.gguf.parent, gguf_file=self.gguf.name
        )


def bundled_model(folder: Path) -> Model:
    """SmolLM2-135M-Instruct. Raises LocalError when its package is not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    return Model(demo_model(), folder)


def _dequantize(gguf: Path, directory: Path) -> None:
    options = {"gguf_file": gguf.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        quantization_config=transformers.GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        **options,
    )
    transformers.AutoTokenizer.from_pretrained(gguf.parent, **options).save_pretrained(directory)
    model.save_pretrained(directory)


def _build(gguf: Path, precision: str, directory: Path) -> str | None:
    """Anew, because the code that packs may have changed. Its quality is measured here anyway."""
    shutil.rmtree(directory, ignore_errors=True)
    command = [sys.executable, "-m", "tidegate_runtime.artifact", "build", str(gguf)]
    command += ["--precision", precision, "--output", str(directory), "--no-quality"]
    done = subprocess.run(command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode == 0:
        return None
    return (done.stderr.strip() or "it said nothing").splitlines()[-1]
