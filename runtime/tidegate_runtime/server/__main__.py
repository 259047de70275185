"""One replica: `--config FILE` as a control plane starts it, or `--artifact DIR` by itself.

Only light things are imported here: tied to its parent first, the process may take its time over
the rest.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from tidegate.protocol.replica import (
    EXIT_CRASHED,
    EXIT_REFUSED,
    TOKEN_VARIABLE,
    ReplicaConfig,
    ReplicaState,
)
from tidegate.telemetry.logs import log_to_stderr
from tidegate.telemetry.traces import MISSING, can_trace
from tidegate_runtime.artifact.open import read_manifest
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.server.front import Front
from tidegate_runtime.server.parent import die_with
from tidegate_runtime.server.status import StatusFile

if TYPE_CHECKING:
    from tidegate_runtime.server.inherited import Inherited
    from tidegate_runtime.server.ranks import Ranks

log = logging.getLogger("tidegate_runtime.server")


def main(arguments: list[str], inherited: Inherited | None = None) -> int:
    """Run one replica; returns its exit status (see tidegate.protocol.replica).

    `inherited` is what the zygote that it was forked from gives it.
    """
    asked = parser().parse_args(arguments)
    log_to_stderr(asked.log_format)
    if asked.artifact is not None:
        return main_alone(asked)
    path: Path = asked.config
    try:
        raw = read_raw(path)
    except ModelRefused as error:
        log.error("%s", error.message)
        return EXIT_REFUSED
    if isinstance(parent := raw.get("parent_pid"), int):
        die_with(parent)
    try:
        config = validate(path, raw)
        token = read_token()
    except ModelRefused as error:
        log.error("%s", error.message)
        report_failure(raw, error.reason, error.message)
        return EXIT_REFUSED
    return start(config, Front(token), inherited)


def main_alone(asked: argparse.Namespace) -> int:
    """Run one replica of an artifact, without a control plane."""
    try:
        config = alone(asked)
        token = os.environ.pop(TOKEN_VARIABLE, "") or None
        if token is None and not is_loopback(config.host):
            raise ModelRefused(
                "TokenMissing",
                f"--host {config.host!r} can be reached from other machines, and the environment "
                f"variable {TOKEN_VARIABLE} is empty; set it, or listen on 127.0.0.1",
            )
    except ModelRefused as error:
        log.error("%s", error.message)
        return EXIT_REFUSED
    return start(config, Front(token))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="tidegate_runtime.server", description=__doc__)
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="a ReplicaConfig as JSON")
    what.add_argument("--artifact", type=Path, help="serve this artifact alone")
    only = made.add_argument_group("with --artifact")
    only.add_argument("--host", default="127.0.0.1", help="others than loopback need a token")
    only.add_argument("--port", type=int, default=0, help="0 takes any free one")
    only.add_argument("--model-name", help="the artifact's own name when absent")
    only.add_argument("--context-tokens", type=int, help="the model's own when absent")
    only.add_argument("--max-sequences", type=int, default=16)
    only.add_argument("--offload-bytes", type=int, help="of memory for weights; all when absent")
    only.add_argument("--kv-cache-bytes", type=int, help="sized from free memory when absent")
    only.add_argument("--kv-spill-memory", help="for prefixes that leave the cache, as 1GiB")
    only.add_argument("--kv-spill-disk", help="the same, in the artifact's parent directory")
    only.add_argument("--kv", choices=("bf16", "int8", "fp8", "fp32"))
    only.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="a LoRA adapter, served as MODEL:NAME; may be given again",
    )
    only.add_argument("--max-adapters", type=int, default=8, help="in memory at once")
    only.add_argument("--speculation", choices=("ngram", "draft", "early_exit", "medusa", "hydra"))
    only.add_argument("--draft-model", help="the source of the smaller model, for draft")
    only.add_argument("--exit-layer", type=int, help="guess after so many layers, for early_exit")
    only.add_argument("--heads", help="a directory that tidegate distill made")
    only.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU if there is one",
    )
    only.add_argument("--threads", type=int, help="every core when absent")
    only.add_argument(
        "--tensor-parallel", type=int, default=1, help="devices that the model is divided over"
    )
    only.add_argument("--drain-s", type=float, default=120.0)
    only.add_argument("--log-format", choices=("json", "text"), default="json")
    only.add_argument(
        "--otlp-endpoint",
        default=os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None,
        help="where spans go, as http://host:4318",
    )
    return made


def alone(asked: argparse.Namespace) -> ReplicaConfig:
    """The configuration that a command line stands for. Raises ModelRefused."""
    name = asked.model_name or read_manifest(asked.artifact).name
    fields = {
        "replica_id": f"alone-{os.getpid()}",
        "model_name": name,
        "source": str(asked.artifact.absolute()),
        "status_path": None,
        "cache_dir": str(asked.artifact.absolute().parent),
        "speculation": asked.speculation
        and {
            "method": asked.speculation,
            "draft_model": asked.draft_model,
            "exit_layer": asked.exit_layer,
            "heads": asked.heads,
        },
        "kv_spill": (asked.kv_spill_memory or asked.kv_spill_disk)
        and {"memory": asked.kv_spill_memory, "disk": asked.kv_spill_disk},
        "adapters": named_adapters(asked.adapter),
        "telemetry": {"log_format": asked.log_format, "otlp_endpoint": asked.otlp_endpoint},
        **{
            field: getattr(asked, field)
            for field in (
                *("host", "port", "context_tokens", "max_sequences", "kv_cache_bytes", "kv"),
                *("device", "tensor_parallel", "offload_bytes", "threads", "drain_s"),
                "max_adapters",
            )
        },
    }
    return validate(Path("the command line"), fields)


def named_adapters(given: list[str]) -> dict[str, str]:
    """Adapters as name → source. Raises ModelRefused (BadConfig)."""
    found = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not equals or name in found:
            raise ModelRefused(
                "BadConfig", f"--adapter {text!r} is not NAME=SOURCE with a name of its own"
            )
        found[name] = source
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def start(config: ReplicaConfig, front: Front, inherited: Inherited | None = None) -> int:
    """Write the first status, then import what takes its time and serve."""
    about = {"replica": config.replica_id, "deployment": config.model_name}
    log_to_stderr(config.telemetry.log_format, fields=about)
    prepare_libraries(config.device)
    path = None if config.status_path is None else Path(config.status_path)
    status = StatusFile(path, config.replica_id, config.status_bell)
    status.write(ReplicaState.STARTING)
    from tidegate_runtime.server.ranks import forked_ranks

    with forked_ranks(config.tensor_parallel) as ranks:
        return serve(config, front, status, inherited, ranks)


def prepare_libraries(device: str) -> None:
    """Set what the libraries imported later read from their surroundings as they load.

    OpenMP's threads spin for long while they wait for each other unless told otherwise, which
    starves other replicas; asleep at once they are slow to come back. So they spin for the few
    microseconds between two operators, then sleep (docs/decisions/007).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # transformers draws progress bars past its own setting; a log has whole lines.
    os.environ.setdefault("TQDM_DISABLE", "1")
    if device == "cpu":
        # torch imports Triton wherever it is installed, which costs a replica 130 MB.
        sys.modules.setdefault("triton", None)  # type: ignore[arg-type]


def serve(
    config: ReplicaConfig,
    front: Front,
    status: StatusFile,
    inherited: Inherited | None,
    ranks: Ranks | None,
) -> int:
    """Import the server and run it."""
    import asyncio

    from tidegate_runtime.server.process import bind, run

    try:
        listener = bind(config.host, config.port)
    except ReplicaUnavailable as error:
        log.error("%s", error.message)
        status.write(ReplicaState.FAILED, reason=error.reason, message=error.message)
        return EXIT_CRASHED
    return asyncio.run(run(config, front, listener, status, inherited, ranks))


def read_raw(path: Path) -> dict[str, Any]:
    """The configuration file as a JSON object. Raises ModelRefused (BadConfig)."""
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelRefused("BadConfig", f"configuration {str(path)!r}: {error}") from error
    if not isinstance(raw, dict):
        raise ModelRefused("BadConfig", f"configuration {str(path)!r} is not a JSON object")
    return raw


def validate(path: Path, raw: dict[str, Any]) -> ReplicaConfig:
    """A valid configuration. Raises ModelRefused (BadConfig) that names every wrong field."""
    try:
        config = ReplicaConfig.model_validate(raw)
    except pydantic.ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors(include_url=False)
        )
        raise ModelRefused("BadConfig", f"configuration {str(path)!r}: {wrong}") from error
    check_traces(config, f"configuration {str(path)!r}: telemetry.otlp_endpoint")
    return config


def check_traces(config: ReplicaConfig, where: str) -> None:
    """Raises ModelRefused (BadConfig) when traces are wanted and cannot be made."""
    if (endpoint := config.telemetry.otlp_endpoint) and not can_trace():
        raise ModelRefused(
            "BadConfig", f"{where}: {endpoint!r} wants what is not installed; {MISSING}"
        )


def read_token() -> str:
    """The bearer token, taken out of the environment. Raises ModelRefused (TokenMissing)."""
    token = os.environ.pop(TOKEN_VARIABLE, "")
    if not token:
        raise ModelRefused(
            "TokenMissing", f"the environment variable {TOKEN_VARIABLE} is empty; set it"
        )
    return token


def report_failure(raw: dict[str, Any], reason: str, message: str) -> None:
    """Say so in the status file, where the broken configuration still names one."""
    path, replica_id = raw.get("status_path"), raw.get("replica_id")
    if isinstance(path, str) and isinstance(replica_id, str):
        StatusFile(Path(path), replica_id).write(
            ReplicaState.FAILED, reason=reason, message=message
        )


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stderr.flush()
    # Daemon threads may be inside torch; a normal exit would tear it down under them.
    os._exit(code)
