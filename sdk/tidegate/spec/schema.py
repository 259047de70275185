"""The JSON Schema of a declaration, for editors."""

from __future__ import annotations

from typing import Any

from tidegate.spec.deployment import DeploymentSpec


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a deployment declaration; `model` may be a source alone."""
    schema = DeploymentSpec.model_json_schema()
    model = schema["properties"]["model"]
    description = model.pop("description", None)
    schema["properties"]["model"] = {"anyOf": [{"type": "string", "minLength": 1}, model]}
    if description:
        schema["properties"]["model"]["description"] = description
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Tidegate deployment",
    }
