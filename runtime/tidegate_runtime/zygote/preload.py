"""Import what replicas need, so that they find it imported."""

from __future__ import annotations

import contextlib
import importlib

from tidegate.protocol.replica import ReplicaConfig
from tidegate.telemetry.traces import import_libraries
from tidegate_runtime.server.__main__ import prepare_libraries

MODULES = (
    "tidegate_runtime.server.process",
    "tidegate_runtime.server.loading",
    "tidegate_runtime.models.native",
    "tidegate_runtime.models.transformers",
    # transformers imports most of itself when it is first asked for a configuration or a tokenizer.
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "uvicorn.lifespan.off",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)


def preload(*, traces: bool) -> None:
    """Import them, and what sending traces wants. No thread is started and no device touched."""
    prepare_libraries("cpu")
    for name in MODULES:
        importlib.import_module(name)
    if traces:
        import_libraries()
    _make_an_app()
    _find_the_kernels()


def _make_an_app() -> None:
    """Litestar imports much of itself while it makes its first application."""
    from tidegate_runtime.server.app import create_app
    from tidegate_runtime.server.front import Front
    from tidegate_runtime.server.lifecycle import Lifecycle
    from tidegate_runtime.server.metrics import Metrics
    from tidegate_runtime.server.replica import Replica
    from tidegate_runtime.server.status import StatusFile

    config = ReplicaConfig(
        replica_id="none", model_name="none", source="none", status_path=None, cache_dir="none"
    )
    create_app(Replica(config, Lifecycle(StatusFile(None, "none"), 0), Metrics("none")), Front())


def _find_the_kernels() -> None:
    """Which library fits this machine takes asking its compiler. Without one, replicas say so."""
    from tidegate_runtime.ops.compiler import CompilerMissing
    from tidegate_runtime.ops.library import library

    with contextlib.suppress(CompilerMissing):
        library()
