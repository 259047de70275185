"""A job over a file: one answer per line, and a line that fails does not stop the others.

Run it against a platform (`tidegate up --detach` starts one): python examples/batch.py
"""

import json
import tempfile
from pathlib import Path

from tidegate import Client
from tidegate.local.demo_model import demo_model


def line(custom_id: str, question: str) -> str:
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 32}
    request = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps({**request, "body": body}) + "\n"


with Client() as client, tempfile.TemporaryDirectory() as folder:
    questions = Path(folder) / "questions.jsonl"
    countries = ("France", "Italy", "Japan", "Peru")
    questions.write_text(
        "".join(line(c, f"What is the capital of {c}? Answer in one sentence.") for c in countries)
    )

    deployment = client.deploy(demo_model(), name="example-batch", mode="batch", wait=True)
    try:
        batch = deployment.batch(questions)
        batch.wait(on_progress=lambda seen: print(f"{seen.status}: {seen.request_counts}"))
        for result in batch.results():
            print(result.custom_id, "->", result.text)
    finally:
        deployment.delete()
