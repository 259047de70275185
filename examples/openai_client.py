"""The unmodified OpenAI client: another base URL, and a deployment's name as the model.

Run it against a platform (`tidegate up --detach` starts one): python examples/openai_client.py
"""

import os

from openai import OpenAI

from tidegate import Client
from tidegate.connection import resolve
from tidegate.local.demo_model import demo_model

place = resolve(
    None, None, os.environ
)  # TIDEGATE_URL and TIDEGATE_API_KEY, or what `tidegate up` wrote
with Client() as client:
    deployment = client.deploy(demo_model(), name="example-openai", wait=True)
    try:
        openai = OpenAI(base_url=f"{place.url}/v1", api_key=place.api_key)
        stream = openai.chat.completions.create(
            model="example-openai",
            messages=[
                {
                    "role": "user",
                    "content": "What is the capital of France? Answer in one sentence.",
                }
            ],
            temperature=0,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
            if chunk.usage:
                print(f"\n{chunk.usage.total_tokens} tokens")
    finally:
        deployment.delete()
