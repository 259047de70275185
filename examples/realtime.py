"""Always on: a replica is ready before the first request comes.

Run it against a platform (`tidegate up --detach` starts one): python examples/realtime.py
"""

from tidegate import Client
from tidegate.local.demo_model import demo_model

with Client() as client:
    deployment = client.deploy(demo_model(), name="example-realtime", mode="realtime", wait=True)
    try:
        answer = deployment.chat(
            "What is the capital of France? Answer in one sentence.", temperature=0, max_tokens=32
        )
        print(answer.text)
        for piece in deployment.stream("Name three rivers.", temperature=0, max_tokens=48):
            print(piece.text, end="", flush=True)
        print()
    finally:
        deployment.delete()
