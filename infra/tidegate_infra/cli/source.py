"""A file as the Python of an equivalent Pulumi program."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from tidegate.spec.declaration import Declaration
from tidegate_infra.cli.file import InfraFile, given
from tidegate_infra.cli.program import OUTPUTS, is_public
from tidegate_infra.cli.wiring import wires

WIDTH = 100
INDENT = "    "


def source(file: InfraFile) -> str:
    """The text of `__main__.py`: what somebody would have written by hand. No secret is in it."""
    lines = ['"""What stands on AWS."""', "", "import pulumi", "", *_imports(file), ""]
    if file.platform is not None:
        lines += ["config = pulumi.Config()"]
    lines += ["", f"with guard({'GuardRails(public=True)' if is_public(file) else ''}):"]
    lines += [INDENT + line for line in _resources(file)]
    if file.platform is not None:
        said = (f'pulumi.export("{name}", platform.{of})' for name, of in OUTPUTS.items())
        lines += ["", *said]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _imports(file: InfraFile) -> Iterator[str]:
    names = ["guard"]
    if is_public(file):
        names.append("GuardRails")
    if file.endpoints:
        yield "from tidegate.spec import Mode"
        names += ["InferenceEndpoint", "InferenceEndpointArgs"]
        if any("scaled_by" in given(each) for each in file.endpoints):
            names.append("ScaledBy")
    if file.platform is not None:
        names += ["Platform", "PlatformArgs"]
    yield "from tidegate_infra.aws import ("
    yield from (f"{INDENT}{name}," for name in sorted(names, key=lambda n: (n.islower(), n)))
    yield ")"


def _resources(file: InfraFile) -> Iterator[str]:
    if file.platform is not None:
        told = given(file.platform)
        values = {
            **_literals(told),
            "region": literal(file.region),
            "database_password": 'config.require_secret("databasePassword")',
            "pepper": 'config.require_secret("pepper")',
            "admin_key": 'config.require_secret("adminKey")',
        }
        yield from _made("platform = Platform", "PlatformArgs", told["name"], values)
    for section in file.endpoints:
        yield from _endpoint(file.platform, given(section))


def _endpoint(platform: Declaration | None, told: dict[str, Any]) -> Iterator[str]:
    values = _literals(told)
    if platform is not None:
        image = literal(given(platform).get("runtime_image"))
        for wire in wires(told["mode"], told):
            values[wire.field] = wire.source.format(name=told["name"], image=image)
    yield from _made("InferenceEndpoint", "InferenceEndpointArgs", told["name"], values)


def _made(call: str, args: str, name: str, values: Mapping[str, str]) -> Iterator[str]:
    yield f"{call}("
    yield f"{INDENT}{literal(name)},"
    yield f"{INDENT}{args}("
    for key, value in values.items():
        lines = f"{key}={value},".splitlines()
        yield from (INDENT * 2 + line for line in lines)
    yield f"{INDENT}),"
    yield ")"


def _literals(told: Mapping[str, Any]) -> dict[str, str]:
    return {key: literal(value) for key, value in told.items()}


def literal(value: Any) -> str:
    """As Python; a list or mapping that is too long for a line has one line for each part."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return _wrapped("{}", [f"{literal(key)}: {literal(each)}" for key, each in value.items()])
    if isinstance(value, Sequence):
        return _wrapped("[]", [literal(each) for each in value])
    return repr(value)


def _wrapped(brackets: str, parts: Sequence[str]) -> str:
    """On one line where it fits, with room for a name before it."""
    line = ", ".join(parts)
    if "\n" not in line and len(line) < WIDTH - 40:
        return f"{brackets[0]}{line}{brackets[1]}"
    inner = "".join(INDENT + row + "\n" for part in parts for row in f"{part},".splitlines())
    return f"{brackets[0]}\n{inner}{brackets[1]}"
