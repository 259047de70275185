"""One replica of Tidegate alone, asked over HTTP on this machine."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any

import httpx
from benchmarks.driver import Options, Unsupported, run

POLL_S = 0.01


class TidegateHttp:
    """A server process and a client with one connection for each stream."""

    def __init__(self, options: Options) -> None:
        port = _free_port()
        command = [sys.executable, "-m", "tidegate_runtime.server"]
        command += ["--artifact", str(options.model), "--port", str(port)]
        command += ["--threads", str(options.threads), "--max-sequences", str(options.streams)]
        self._server = subprocess.Popen(command)
        limits = httpx.Limits(max_connections=options.streams)
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=600, trust_env=False
        )
        self._loop = asyncio.new_event_loop()
        self._model = self._loop.run_until_complete(self._ready())

    def generate(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        return self._loop.run_until_complete(self._generate(prompts, max_tokens))

    def logprobs(self, window: list[int]) -> list[float]:
        answer = self._loop.run_until_complete(
            self._complete(window, max_tokens=1, echo=True, logprobs=0)
        )
        found = answer["choices"][0]["logprobs"]
        if found is None or len(found["token_logprobs"]) < len(window):
            raise Unsupported("the server does not echo the log-probabilities of a prompt")
        return [float(each) for each in found["token_logprobs"][1 : len(window)]]

    async def _ready(self) -> str:
        """Wait until it serves; the name of its model."""
        while True:
            if (status := self._server.poll()) is not None:
                raise RuntimeError(f"the server ended with status {status}")
            try:
                if (await self._http.get("/readyz")).is_success:
                    break
            except httpx.TransportError:
                pass
            await asyncio.sleep(POLL_S)
        models = (await self._http.get("/v1/models")).raise_for_status().json()
        return str(models["data"][0]["id"])

    async def _generate(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        answers = await asyncio.gather(
            *(self._complete(prompt, max_tokens=max_tokens, ignore_eos=True) for prompt in prompts)
        )
        return [int(answer["usage"]["completion_tokens"]) for answer in answers]

    async def _complete(self, prompt: list[int], **options: object) -> dict[str, Any]:
        body = {"model": self._model, "prompt": prompt, "temperature": 0, **options}
        response = await self._http.post("/v1/completions", json=body)
        if response.is_error:
            raise RuntimeError(f"{response.status_code}: {response.text[:500]}")
        answer: dict[str, Any] = response.json()
        return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    run(TidegateHttp)
