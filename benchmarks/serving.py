"""What serving costs: zero to first token, decoding, and what the gateway adds.

Starts a platform of its own, deploys the bundled model and measures it over HTTP. Prints a table
and writes JSON. The engine beside its peers is `make bench`.

    .venv/bin/python -m benchmarks.serving --output benchmarks/results/serving.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from benchmarks.hardware import hardware

from tidegate import Client, Deployment
from tidegate.local.demo_model import demo_model
from tidegate.protocol.replica import TOKEN_VARIABLE

TIDEGATE = str(Path(sys.executable).parent / "tidegate")
PROMPT = "Explain in detail how a tide gate works and why it is useful."
TOKENS = 128
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--cold-starts", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200, help="of one token, for the gateway")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = with_platform(Path(folder), given.cold_starts, given.requests)
    report(figures, given.output)


def with_platform(folder: Path, cold_starts: int, requests: int) -> Figures:
    data = folder / "data"
    env = {**os.environ, "XDG_CONFIG_HOME": str(folder)}
    up = [TIDEGATE, "up", "--data", str(data), "--port", "0", "--detach"]
    subprocess.run(up, check=True, env=env, stdout=subprocess.DEVNULL)
    try:
        connection = json.loads((data / "connection.json").read_text())
        with Client(url=connection["url"], api_key=connection["api_key"]) as client:
            figures = zero_to_first_token(client, cold_starts)
            deployment = client.deploy(demo_model(), name="warm", mode="realtime", wait=True)
            figures |= asyncio.run(warm(connection, deployment, requests))
    finally:
        subprocess.run([TIDEGATE, "down", "--data", str(data)], stdout=subprocess.DEVNULL, env=env)
    return figures


def zero_to_first_token(client: Client, count: int) -> Figures:
    """The first start fills the cache and is reported by itself."""
    deployment = client.deploy(
        demo_model(),
        name="cold",
        mode="serverless",
        scaling={"idle_timeout_s": 0},
        wait=True,
    )
    first = _first_token(deployment)
    later = [_first_token(deployment) for _ in range(count)]
    deployment.delete()
    return {
        "zero to first token, very first start (s)": first,
        "zero to first token, median (s)": statistics.median(later),
        "zero to first token, worst (s)": max(later),
    }


def _first_token(deployment: Deployment) -> float:
    while deployment.refresh().view.replicas.ready or deployment.phase != "idle":
        time.sleep(0.1)
    began = time.monotonic()
    with deployment.stream(PROMPT, max_tokens=4, temperature=0) as stream:
        next(chunk for chunk in stream if chunk.text)
        return time.monotonic() - began


async def warm(connection: dict[str, str], deployment: Deployment, requests: int) -> Figures:
    (replica,) = [r for r in deployment.replicas() if r.phase == "ready"]
    direct = f"http://127.0.0.1:{replica.port}"
    token = _token(replica.pid or 0)
    figures: Figures = {}
    async with (
        _http(connection["url"], connection["api_key"]) as gateway,
        _http(direct, token) as straight,
    ):
        await _decode(gateway, 1)
        for streams in (1, 8):
            figures[f"decode, {streams} stream(s) (tok/s)"] = await _decode(gateway, streams)
        through, past = [], []
        for _ in range(requests):  # alternately, so that both see the same machine
            through.append(await _one_token_s(gateway))
            past.append(await _one_token_s(straight))
    figures["1-token request past the gateway, median (ms)"] = 1000 * statistics.median(past)
    figures["1-token request through the gateway, median (ms)"] = 1000 * statistics.median(through)
    return figures


async def _decode(http: httpx.AsyncClient, streams: int) -> float:
    """Tokens per second over all streams, end of sequence ignored."""
    body = {**_body(TOKENS), "ignore_eos": True}
    began = time.monotonic()
    answers = await asyncio.gather(
        *(http.post("/v1/chat/completions", json=body) for _ in range(streams))
    )
    tokens = sum(a.raise_for_status().json()["usage"]["completion_tokens"] for a in answers)
    return float(tokens / (time.monotonic() - began))


async def _one_token_s(http: httpx.AsyncClient) -> float:
    began = time.monotonic()
    (await http.post("/v1/chat/completions", json=_body(1))).raise_for_status()
    return time.monotonic() - began


def _body(max_tokens: int) -> dict[str, Any]:
    message = {"role": "user", "content": PROMPT}
    return {"model": "warm", "messages": [message], "max_tokens": max_tokens, "temperature": 0}


def _http(url: str, key: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=600, trust_env=False)


def _token(pid: int) -> str:
    """The replica's token, which is in its environment and nowhere else."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    found = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
    return found[TOKEN_VARIABLE.encode()].decode()


def report(figures: Figures, output: Path) -> None:
    for name, value in figures.items():
        print(f"{name:<52} {value:10.2f}")
    output.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "python": platform.python_version(),
        "figures": {name: round(value, 3) for name, value in figures.items()},
    }
    output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
