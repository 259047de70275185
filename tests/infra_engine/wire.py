"""Properties on the wire: between protobuf, plain JSON and what a reader wants to see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format, struct_pb2
from pulumi.runtime import rpc

UNKNOWN: str = rpc.UNKNOWN
SIGNATURE: str = rpc._special_sig_key
SECRET: str = rpc._special_secret_sig
OUTPUT: str = rpc._special_output_value_sig
RESOURCE: str = rpc._special_resource_sig
DURATION = re.compile(r"([\d.]+)(ms|s|m|h)")
UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Properties = dict[str, Any]
"""Plain JSON, in which a secret or an asset is a mapping with a signature."""


def struct(properties: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(properties), struct_pb2.Struct())


def plain(message: struct_pb2.Struct) -> Properties:
    return json_format.MessageToDict(message)


def secret(value: Any) -> dict[str, Any]:
    return {SIGNATURE: SECRET, "value": value}


def is_secret(value: Any) -> bool:
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def revealed(value: Any, masked: str | None = None) -> Any:
    """The value without signatures; `masked` stands for every secret when it is given."""
    if isinstance(value, list):
        return [revealed(item, masked) for item in value]
    if not isinstance(value, dict):
        return value
    if is_secret(value):
        return masked if masked is not None else revealed(value["value"])
    if value.get(SIGNATURE) == OUTPUT:
        return revealed(value.get("value", UNKNOWN), masked)
    return {key: revealed(item, masked) for key, item in value.items()}


def has_unknown(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_unknown, value.values()))
    if isinstance(value, list):
        return any(map(has_unknown, value))
    return value == UNKNOWN


def seconds(duration: str) -> float:
    """`1m30s` as 90; Pulumi takes Go's durations."""
    return sum(float(number) * UNIT_S[unit] for number, unit in DURATION.findall(duration))


def keeping(news: Properties, olds: Properties, ignored: list[str]) -> Properties:
    """`news` with the properties at the dotted paths `ignored` as they were in `olds`."""
    for path in ignored:
        news = _keeping(news, olds, path.split("."))
    return news


def _keeping(news: Any, olds: Any, path: list[str]) -> Any:
    if not isinstance(news, dict) or not isinstance(olds, dict):
        return news
    key, rest = path[0], path[1:]
    if rest and key in news:
        return {**news, key: _keeping(news[key], olds.get(key), rest)}
    if not rest and key in olds:
        return {**news, key: olds[key]}
    return {name: value for name, value in news.items() if rest or name != key}
