"""A durable queue: the work is accepted at once, survives a restart, and is fetched later.

Run it against a platform (`tidegate up --detach` starts one): python examples/async.py
"""

from tidegate import Client
from tidegate.local.demo_model import demo_model

with Client() as client:
    deployment = client.deploy(demo_model(), name="example-async", mode="async", wait=True)
    try:
        invocations = [
            deployment.submit(
                f"What is the capital of {country}? Answer in one sentence.",
                temperature=0,
                max_tokens=32,
            )
            for country in ("France", "Italy", "Japan")
        ]
        print("accepted:", ", ".join(invocation.id for invocation in invocations))
        for invocation in invocations:
            print(invocation.result(timeout_s=300).text)
    finally:
        deployment.delete()
