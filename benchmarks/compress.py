"""What every precision and method makes of SmolLM2: `python -m benchmarks.compress`.

Writes the rows and the plot into benchmarks/results/ and the table into docs/compress.md. Each row
is `tidegate compress`, run once; `--only` runs some again and keeps the others.

The bundled file has 4 bits, and its grid is ours, so rounding it to 4 bits loses nothing. For
the methods that fight that loss there is a second source, the same function with its weights off
the grid: channels between a norm and its linears, and between `up` and `down`, are rescaled at
random.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from benchmarks.hardware import hardware
from benchmarks.prose import prose
from benchmarks.report import RESULTS, spliced
from benchmarks.weights import bundled_model

from tidegate_runtime.compress.plot import draw_table
from tidegate_runtime.compress.report import ReportRow

OUTPUT = RESULTS / "compress.json"
PAGE = Path("docs/compress.md")
HELD_OUT_LETTERS, GAP_LETTERS = 40_000, 20_000
SPREAD = 2.0
SEED = 1
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Case:
    """A row: what is done to which of the two sources."""

    name: str
    precision: str
    arguments: str
    off_grid: bool = False

    @property
    def title(self) -> str:
        """As the table calls it."""
        return f"{'rescaled: ' if self.off_grid else ''}{self.name}"

    @property
    def key(self) -> str:
        return f"{self.title} {self.precision}"

    @property
    def is_plain(self) -> bool:
        """Whether it needs no text."""
        return self.arguments == "--method rtn"


CASES = (
    Case("rtn", "int4", "--method rtn"),
    Case("rtn", "int8", "--method rtn"),
    Case("rtn", "int4", "--method rtn", off_grid=True),
    Case("gptq", "int4", "--method gptq", off_grid=True),
    Case("awq", "int4", "--method awq", off_grid=True),
    Case("gptq, act order", "int4", "--method gptq --act-order", off_grid=True),
    Case("rtn", "bf16", "--method rtn"),
    Case("smoothquant", "int8", "--method smoothquant"),
    Case("wanda 50%", "int8", "--method wanda --sparsity 0.5"),
    Case("wanda 2:4", "int8", "--method wanda --sparsity 2:4"),
    Case("sparsegpt 50%", "int8", "--method sparsegpt --sparsity 0.5"),
    Case("sparsegpt 2:4", "int8", "--method sparsegpt --sparsity 2:4"),
    Case("sparsegpt 2:4, gptq", "int4", "--method sparsegpt --method gptq --sparsity 2:4"),
    Case("drop 3 of 30 layers", "int4", "--method drop --drop-layers 3"),
    Case("drop 6 of 30 layers", "int4", "--method drop --drop-layers 6"),
    Case("gptq", "int4", "--method gptq"),
    Case("awq", "int4", "--method awq"),
    Case("rtn", "int8", "--method rtn", off_grid=True),
    Case("smoothquant", "int8", "--method smoothquant", off_grid=True),
    Case("rtn", "fp32", "--method rtn"),
)


def main() -> int:
    given = _parse()
    result: dict[str, Any] = {"rows": {}}
    if given.output.exists():
        result = json.loads(given.output.read_text())
    model = bundled_model(given.folder / "weights")
    gguf, rescaled = model.gguf, given.folder / "weights" / "rescaled"
    with TemporaryDirectory() as folder:
        texts = _texts(Path(folder))
        for case in CASES:
            if not any(fnmatch(case.key, pattern) for pattern in given.only):
                continue
            if case.off_grid and not (rescaled / "config.json").exists():
                rescale(gguf, rescaled)
            print(f"{case.key} …", file=sys.stderr, flush=True)
            report = run(case, rescaled if case.off_grid else gguf, texts, given, Path(folder))
            *source, row = report["rows"]
            result["rows"][case.key] = {**row, "name": case.name, "off_grid": case.off_grid}
            result["reference"] = source[0]
            result |= {"tokens": report["tokens"], "window": report["window"]}
            result |= {"windows": given.windows, "hardware": hardware(), "load": os.getloadavg()[0]}
            given.output.write_text(json.dumps(result, indent=2) + "\n")
    publish(result, given.output)
    return 0


def publish(result: dict[str, Any], output: Path) -> None:
    """The plot, and the table into the page."""
    rows = [
        ReportRow.model_validate({**result["rows"][case.key], "name": case.title})
        for case in CASES
        if case.key in result["rows"]
    ]
    source = ReportRow.model_validate(result["reference"])
    output.with_suffix(".svg").write_text(draw_table([source, *rows]))
    made = markdown(source, rows, result)
    if output == OUTPUT and PAGE.exists():
        PAGE.write_text(spliced(PAGE.read_text(), made))
    print(made)


def markdown(source: ReportRow, rows: Sequence[ReportRow], result: dict[str, Any]) -> str:
    """The table, and under which circumstances it was made."""
    head = [
        *("made by", "precision", "weights (MiB)", "perplexity", "ratio", "same tokens"),
        *("divergence (nats)", "decode (tok/s)", "prefill (tok/s)"),
    ]
    lines = [["source", source.precision, "", f"{source.perplexity:.3f}", *[""] * 5]]
    lines += [
        [
            row.name,
            row.precision,
            f"{row.weights_bytes / _MIB:.1f}",
            f"{row.perplexity:.3f}",
            f"{row.ratio or 0:.4f}",
            f"{row.agreement or 0:.1%}",
            f"{row.mean_kl or 0:.4f}",
            f"{row.decode_tokens_per_s or 0:.0f}",
            f"{row.prefill_tokens_per_s or 0:.0f}",
        ]
        for row in rows
    ]
    machine = result["hardware"]
    note = (
        f"{machine['cpu']}, {machine['cores']} cores, load {result['load']:.1f} meanwhile; "
        f"{result['tokens']} tokens of held-out text in windows of {result['window']}, "
        f"{result['windows']} windows of calibration."
    )
    table = "\n".join(
        "| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]
    )
    return f"{note}\n\n{table}"


def run(
    case: Case, source: Path, texts: dict[str, Path], given: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """The report of one case, from a process of its own."""
    output = folder / "made"
    command = [sys.executable, "-m", "tidegate_runtime.artifact", "compress", str(source)]
    command += [*case.arguments.split(), "--precision", case.precision, "--output", str(output)]
    command += ["--quality-text", str(texts["held out"])]
    command += ["--quality-windows", str(given.quality_windows), "--threads", str(given.threads)]
    if not case.is_plain:
        command += ["--text", str(texts["calibration"]), "--windows", str(given.windows)]
    done = subprocess.run([*command, "--json"], capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case.key}: {done.stdout.decode() or done.stderr.decode()[-2000:]}")
    output.rename(folder / case.key.replace(" ", "-").replace(":", ""))
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def rescale(gguf: Path, directory: Path) -> None:
    """Write the second source: SmolLM2 in float32 with rescaled channels."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=transformers.GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    generator = torch.Generator().manual_seed(SEED)

    def scales(count: int) -> torch.Tensor:
        return SPREAD ** (torch.rand(count, generator=generator) * 2 - 1)

    with torch.no_grad():
        for layer in model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for norm, readers in (
                (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
                (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
            ):
                chosen = scales(norm.weight.numel())
                norm.weight /= chosen
                for reader in readers:
                    reader.weight *= chosen
            chosen = scales(mlp.down_proj.in_features)
            mlp.up_proj.weight /= chosen.unsqueeze(1)
            mlp.down_proj.weight *= chosen
    model.save_pretrained(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(directory)


def _texts(folder: Path) -> dict[str, Path]:
    """Two parts of the library's documentation, with a gap between them."""
    text = prose()
    parts = {
        "held out": text[:HELD_OUT_LETTERS],
        "calibration": text[HELD_OUT_LETTERS + GAP_LETTERS :],
    }
    found = {}
    for name, part in parts.items():
        found[name] = folder / f"{name.replace(' ', '-')}.txt"
        found[name].write_text(part)
    return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compress", description=__doc__)
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns; none: draw again")
    parser.add_argument("--windows", type=int, default=8, help="of 512 tokens, to calibrate on")
    parser.add_argument("--quality-windows", type=int, default=8, help="of 512 held-out tokens")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
