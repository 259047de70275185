"""From zero on demand: the first request wakes a replica and is held until it is answered.

Run it against a platform (`tidegate up --detach` starts one): python examples/serverless.py
"""

import time

from tidegate import Client
from tidegate.local.demo_model import demo_model

with Client() as client:
    deployment = client.deploy(
        demo_model(),
        name="example-serverless",
        mode="serverless",
        scaling={"idle_timeout_s": 2},
        wait=True,
    )
    try:
        print("replicas before the first request:", deployment.view.replicas.ready)
        for attempt in ("cold", "warm"):
            began = time.monotonic()
            answer = deployment.chat(
                "What is the capital of France? Answer in one sentence.",
                temperature=0,
                max_tokens=32,
            )
            print(f"{attempt}: {answer.text} ({time.monotonic() - began:.1f} s)")
        deadline = time.monotonic() + 60
        while deployment.refresh().phase != "idle" and time.monotonic() < deadline:
            time.sleep(0.2)
        print("replicas after two idle seconds:", deployment.view.replicas.ready)
    finally:
        deployment.delete()
