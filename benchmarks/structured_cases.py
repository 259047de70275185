"""What `benchmarks.structured` asks: schemas as people write them, keywords, and grammar bombs."""

from __future__ import annotations

import json
from typing import Any


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


_STRING, _INTEGER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_PERSON = _object(name=_STRING, age={"type": "integer", "minimum": 0, "maximum": 150})
_TREE = {
    "$defs": {"node": _object(value=_STRING, children={"type": "array", "items": {"$ref": "#"}})},
    "$ref": "#/$defs/node",
}
_INVOICE = _object(
    number={"type": "string", "pattern": "^INV-[0-9]{6}$"},
    issued={"type": "string", "format": "date"},
    currency={"enum": ["EUR", "USD", "GBP", "CHF"]},
    lines={
        "type": "array",
        "minItems": 1,
        "maxItems": 50,
        "items": _object(text={"type": "string", "maxLength": 200}, amount=_NUMBER),
    },
)
_TOOLS = {
    "anyOf": [
        _object(name={"const": f"tool_{n}"}, arguments=_object(query=_STRING, limit=_INTEGER))
        for n in range(16)
    ]
}
_WIDE = {"type": "object", "properties": {f"field_{n}": {"type": "string"} for n in range(60)}}
_INVOICE_TEXT = {
    "number": "INV-004217",
    "issued": "2026-03-01",
    "currency": "EUR",
    "lines": [{"text": "Consulting in March, two days on site", "amount": 1840.5}] * 3,
}

SCHEMAS: dict[str, tuple[Any, str]] = {
    title: (schema, json.dumps(text))
    for title, (schema, text) in {
        "any object": ({"type": "object"}, {"a": [1, 2.5, {"b": "some words here"}], "c": None}),
        "person": (_PERSON, {"name": "Ada Lovelace", "age": 36}),
        "invoice": (_INVOICE, _INVOICE_TEXT),
        "tree": (_TREE, {"value": "a", "children": [{"value": "b", "children": []}]}),
        "16 tools": (_TOOLS, {"name": "tool_7", "arguments": {"query": "rain", "limit": 3}}),
        "60 optional": (_WIDE, {"field_3": "x", "field_50": "some words"}),
        "500 names": ({"enum": [f"name number {n}" for n in range(500)]}, "name number 321"),
    }.items()
}

KEYWORDS: dict[str, tuple[Any, str, str]] = {
    "type": (_STRING, '"a"', "1"),
    "enum": ({"enum": ["a", 1]}, "1", "2"),
    "const": ({"const": [1]}, "[1]", "[2]"),
    "pattern": ({"type": "string", "pattern": "^a+$"}, '"aa"', '"ab"'),
    "minLength, maxLength": ({"type": "string", "maxLength": 2}, '"ab"', '"abc"'),
    "format date": ({"type": "string", "format": "date"}, '"2026-01-02"', '"soon"'),
    "format email": ({"type": "string", "format": "email"}, '"a@b.org"', '"a b"'),
    "minimum, maximum": ({"type": "integer", "minimum": 3, "maximum": 12}, "11", "13"),
    "number minimum": ({"type": "number", "minimum": 1.5}, "1.75", "1.25"),
    "multipleOf": ({"type": "integer", "multipleOf": 7}, "21", "22"),
    "required": ({"type": "object", "required": ["a"]}, '{"a": 1}', '{"b": 1}'),
    "additionalProperties": (_object(a=_INTEGER), '{"a": 1}', '{"a": 1, "b": 2}'),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^a": _INTEGER}},
        '{"ab": 1}',
        '{"ab": "x"}',
    ),
    "minProperties": ({"type": "object", "minProperties": 2}, '{"a": 1, "b": 1}', '{"a": 1}'),
    "propertyNames": (
        {"type": "object", "propertyNames": {"pattern": "^a$"}},
        '{"a": 1}',
        '{"b": 1}',
    ),
    "prefixItems": ({"prefixItems": [_INTEGER], "type": "array"}, "[1]", '["a"]'),
    "minItems, maxItems": (
        {"type": "array", "items": _INTEGER, "maxItems": 2},
        "[1, 2]",
        "[1, 2, 3]",
    ),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "[1, 2]", "[1, 1]"),
    "contains": ({"type": "array", "contains": _STRING}, '["a"]', "[1]"),
    "anyOf": ({"anyOf": [_INTEGER, {"type": "null"}]}, "null", '"a"'),
    "oneOf": ({"oneOf": [_INTEGER, {"minimum": 5, "type": "number"}]}, "2", "6"),
    "allOf": ({"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 5}]}, "3", "7"),
    "not": ({"not": _STRING}, "1", '"a"'),
    "if, then": ({"if": _INTEGER, "then": {"minimum": 5}}, "6", "2"),
    "dependentRequired": (
        {"type": "object", "dependentRequired": {"a": ["b"]}},
        '{"b": 1}',
        '{"a": 1}',
    ),
    "$ref beside others": (
        {"$defs": {"a": _STRING}, "$ref": "#/$defs/a", "maxLength": 1},
        '"a"',
        '"ab"',
    ),
    "look-ahead in a pattern": ({"type": "string", "pattern": "^(?=a)[a-z]$"}, '"a"', '"b"'),
}


def _levels(depth: int) -> dict[str, Any]:
    made = _object(a=_STRING)
    for level in range(depth):
        more = [_object(**{f"{name}{level}": _STRING}) for name in "bc"]
        made = {"anyOf": [{"allOf": [made, one]} for one in more]}
    return made


BOMBS: dict[str, Any] = {
    "counts in counts": {"type": "string", "pattern": "^(((a|b){1,100}){1,100}){1,100}$"},
    "a long count": {"type": "string", "pattern": "^(a|b|c){1,5000}$"},
    "maxLength 100000": {"type": "string", "maxLength": 100_000},
    "three multiples": {"allOf": [{"multipleOf": n} for n in (97, 89, 83)], "type": "integer"},
    "30 levels": json.loads('{"properties":{"a":' * 30 + "{}" + "}}" * 30),
    "2^10 branches": _levels(10),
    "3000 names": {"enum": [f"name number {n}" for n in range(3000)]},
}
