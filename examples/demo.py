"""`make demo`: start a platform, serve one real model in all four modes, and ask it something.

Everything lives under the --data directory, so it can be interrupted and run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tidegate import Batch, Client, Deployment, TidegateError
from tidegate.local.demo_model import demo_model

QUESTION = "What is the capital of France? Answer in one sentence."
COUNTRIES = ("France", "Italy", "Japan", "Spain", "Egypt", "Peru", "Norway", "Kenya")
TIDEGATE = str(Path(sys.executable).parent / "tidegate")
waits: list[tuple[str, str, float]] = []
answers: dict[str, str] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="where the platform keeps state")
    data = parser.parse_args().data.absolute()
    try:
        with platform(data) as client:
            realtime(client)
            serverless(client)
            asynchronous(client)
            batch(client)
    except TidegateError as error:
        sys.exit(
            f"error: {error}\nwhat was accepted is not lost: `{TIDEGATE} up --data {data}` goes on "
            "with it, and this can be run again"
        )
    summary()


@contextlib.contextmanager
def platform(data: Path) -> Iterator[Client]:
    """`tidegate up`, and `tidegate down` at the end; the data stays."""
    title("The platform", f"tidegate up --data {data} --port 0 --detach")
    with step("platform", "start"):
        up = [TIDEGATE, "up", "--data", str(data), "--port", "0", "--detach"]
        if subprocess.run(up, stdout=subprocess.DEVNULL).returncode:
            sys.exit("error: the platform did not start; what it said is above")
    connection = json.loads((data / "connection.json").read_text())
    print(f"  {connection['url']}  (the OpenAPI page: {connection['url']}/docs)")
    try:
        with Client(url=connection["url"], api_key=connection["api_key"]) as client:
            yield client
    finally:
        subprocess.run([TIDEGATE, "down", "--data", str(data)], stdout=subprocess.DEVNULL)


def realtime(client: Client) -> None:
    title("realtime", "always on")
    with step("realtime", "deploy until ready"):
        deployment = deploy(client, "realtime")
    with step("realtime", "answer"):
        ask(deployment, "realtime")
    delete(deployment)


def serverless(client: Client) -> None:
    title("serverless", "from zero: the request wakes a replica and is held meanwhile")
    with step("serverless", "deploy at zero"):
        deployment = deploy(client, "serverless", scaling={"idle_timeout_s": 1})
    with step("serverless", "answer from zero"):
        ask(deployment, "serverless")
    with step("serverless", "answer when warm"):
        ask(deployment, "serverless")
    with step("serverless", "back to zero"):
        deadline = time.monotonic() + 60
        while deployment.refresh().phase != "idle":
            if time.monotonic() > deadline:
                sys.exit(f"error: it did not go back to zero: {deployment.view.message}")
            time.sleep(0.1)
    delete(deployment)


def asynchronous(client: Client) -> None:
    title("async", "a durable queue: accepted at once, answered later")
    deployment = deploy(client, "async")
    with step("async", "accepted"):
        invocation = deployment.submit(QUESTION, temperature=0, max_tokens=32)
    print(f"  {invocation.id}")
    with step("async", "result"):
        answer = invocation.result(timeout_s=300)
    say("async", getattr(answer, "text", ""))
    delete(deployment)


def batch(client: Client) -> None:
    title("batch", f"a file of {len(COUNTRIES)} lines, and a line that is not JSON")
    deployment = deploy(client, "batch")
    with step("batch", "all lines"):
        job = submit_file(deployment)
        job.wait(timeout_s=600)
    for result in job.results():
        print(f"  {result.custom_id}: {result.text}")
        if result.custom_id == "France":
            answers["batch"] = result.text
    for failed in job.errors():
        print(f"  failed: {failed.failure}")
    delete(deployment)


def submit_file(deployment: Deployment) -> Batch:
    requests = [
        {"custom_id": country, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for country in COUNTRIES
        for body in [
            {
                "model": deployment.name,
                "messages": [{"role": "user", "content": QUESTION.replace("France", country)}],
                "temperature": 0,
                "max_tokens": 32,
            }
        ]
    ]
    path = Path("demo-batch.jsonl")
    path.write_text("".join(json.dumps(r) + "\n" for r in requests) + "this is not JSON\n")
    try:
        return deployment.batch(path)
    finally:
        path.unlink()


def deploy(client: Client, mode: str, scaling: dict[str, float] | None = None) -> Deployment:
    """The bundled model under the name `demo-<mode>`."""
    return client.deploy(
        demo_model(), name=f"demo-{mode}", mode=mode, scaling=scaling or {}, wait=True
    )


def ask(deployment: Deployment, mode: str) -> None:
    say(mode, deployment.chat(QUESTION, temperature=0, max_tokens=32).text)


def say(mode: str, text: str) -> None:
    answers[mode] = text
    print(f"  > {QUESTION}\n  < {text}")


def delete(deployment: Deployment) -> None:
    deployment.delete(wait=True)


@contextlib.contextmanager
def step(mode: str, what: str) -> Iterator[None]:
    """Time a step and print how long it took."""
    began = time.monotonic()
    yield
    waited_s = time.monotonic() - began
    waits.append((mode, what, waited_s))
    print(f"  [{waited_s:6.2f} s] {what}")


def title(name: str, what: str) -> None:
    print(f"\n{name}: {what}", flush=True)


def summary() -> None:
    print("\nwaits")
    for mode, what, waited_s in waits:
        print(f"  {mode:<11} {what:<20} {waited_s:7.2f} s")
    silent = [m for m in ("realtime", "serverless", "async", "batch") if not said_paris(m)]
    if silent:
        sys.exit(f"error: {', '.join(silent)} did not say that the capital of France is Paris")
    print("\nEach of the four modes says that the capital of France is Paris.")


def said_paris(mode: str) -> bool:
    return "Paris" in answers.get(mode, "")


if __name__ == "__main__":
    main()
