"""What may be declared, and the sentence that refuses what may not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.spec import (
    Change,
    DeploymentSpec,
    Mode,
    ModelSpec,
    Precision,
    RuntimeSpec,
    SpecError,
    diff,
    dump,
    json_schema,
    parse,
)

MORNING = {"cron": "0 8 * * 1-5", "duration_s": 3600, "min_replicas": 1}


def _spec(**fields: Any) -> DeploymentSpec:
    return parse({"name": "smol", "model": "/m", "mode": "serverless", **fields})


def _refusal(**fields: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        _spec(**fields)
    return caught.value


def test_yaml_json_and_python_give_the_same_object() -> None:
    made = DeploymentSpec(
        name="smol",
        model=ModelSpec(source="hf://org/name", revision="abc"),
        mode=Mode.SERVERLESS,
        runtime=RuntimeSpec.model_validate({"kv_cache": "2GiB"}),
    )
    mapping = {
        "name": "smol",
        "model": {"source": "hf://org/name", "revision": "abc"},
        "mode": "serverless",
        "runtime": {"kv_cache": 2 * 1024**3},
    }
    text = """
        name: smol
        model: {source: "hf://org/name", revision: abc}
        mode: serverless
        runtime: {kv_cache: 2GiB}
    """
    assert made == parse(mapping) == parse(json.dumps(mapping)) == parse(text)


def test_json_may_hold_what_yaml_may_not() -> None:
    labels = {"a": "\x7f\u2028", "b": "\U0001f30a"}
    assert _spec(labels=labels) == parse(_spec(labels=labels).model_dump_json())


def test_aliases_are_refused_by_their_name() -> None:
    with pytest.raises(SpecError, match=r"aliases \(\*a\) are not part of a declaration"):
        parse("name: &a smol\nmodel: *a\nmode: batch")


def test_an_adapter_without_a_source_is_named() -> None:
    (issue,) = _refusal(runtime={"adapters": {"good": "/a", "legal": "ftp://a"}}).issues
    assert issue.field == "runtime.adapters.legal"
    assert issue.message.startswith("'ftp://a' is not a model source; use a directory")


def test_a_number_where_a_text_belongs_is_put_in_quotes() -> None:
    (issue,) = _refusal(labels={"team": 3}).issues
    assert (issue.field, issue.message) == (
        "labels.team",
        "must be a text; put it in quotes, got 3",
    )


def test_a_source_alone_is_a_model() -> None:
    assert _spec(model="s3://bucket/prefix").model == ModelSpec(source="s3://bucket/prefix")


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"moode": "batch"}, "moode", "did you mean 'mode'?"),
        ({"runtime": {"precison": "bf16"}}, "runtime.precison", "did you mean 'precision'?"),
        ({"hardware": {"gpu": {"cuont": 1}}}, "hardware.gpu.cuont", "did you mean 'count'?"),
        (
            {"scaling": {"zzz": 1}},
            "scaling.zzz",
            "known fields: cold_start_price_s, idle_timeout_s",
        ),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_one(
    fields: dict[str, Any], field: str, said: str
) -> None:
    issue = _refusal(**fields).issues[0]
    assert issue.field == field
    assert said in issue.message


@pytest.mark.parametrize(
    ("fields", "field", "value", "said"),
    [
        (
            {"mode": "realtime", "scaling": {"min_replicas": 0}},
            "scaling.min_replicas",
            0,
            "use mode 'serverless'",
        ),
        (
            {"mode": "batch", "scaling": {"min_replicas": 1}},
            "scaling.min_replicas",
            1,
            "batch runs only while there is work",
        ),
        (
            {"mode": "async", "scaling": {"min_replicas": 2}},
            "scaling.min_replicas",
            2,
            "async runs only while there is work",
        ),
        (
            {"scaling": {"min_replicas": 3, "max_replicas": 2}},
            "scaling.min_replicas",
            3,
            "3 is more than scaling.max_replicas (2)",
        ),
        (
            {"mode": "realtime", "scaling": {"idle_timeout_s": 0}},
            "scaling.idle_timeout_s",
            0.0,
            "flap with every request",
        ),
        (
            {"scaling": {"idle_timeout_s": "soon"}},
            "scaling.idle_timeout_s",
            "soon",
            "must be seconds from 0 to 86400, or 'auto', got 'soon'",
        ),
        (
            {"scaling": {"idle_timeout_s": True}},
            "scaling.idle_timeout_s",
            True,
            "or 'auto', got True",
        ),
        (
            {"scaling": {"schedule": [MORNING | {"cron": "8 * *"}]}},
            "scaling.schedule.0.cron",
            "8 * *",
            "must be five fields (minute, hour, day of month, month, day of week)",
        ),
        (
            {"scaling": {"schedule": [MORNING | {"duration": 60}]}},
            "scaling.schedule.0.duration",
            60,
            "did you mean 'duration_s'?",
        ),
        (
            {"scaling": {"max_replicas": 2, "schedule": [MORNING, MORNING | {"min_replicas": 3}]}},
            "scaling.schedule",
            [MORNING, MORNING | {"min_replicas": 3}],
            "entry 1 wants 3 replicas, more than scaling.max_replicas (2)",
        ),
        (
            {"mode": "batch", "scaling": {"schedule": [MORNING]}},
            "scaling.schedule",
            [MORNING],
            "batch runs only while there is work",
        ),
        (
            {"runtime": {"precision": "fp8"}},
            "runtime.precision",
            Precision.FP8,
            "fp8 needs a GPU",
        ),
        (
            {
                "model": {"source": "/m", "task": "embed"},
                "runtime": {"speculation": {"method": "ngram"}},
            },
            "runtime.speculation",
            {"method": "ngram"},
            "generates nothing to speculate on",
        ),
        (
            {"model": {"source": "/m", "task": "embed"}, "runtime": {"adapters": {"a": "/a"}}},
            "runtime.adapters",
            {"a": "/a"},
            "adapters need model.task 'generate'",
        ),
        (
            {"model": {"source": "/m", "task": "embed"}, "runtime": {"tool_parser": "hermes"}},
            "runtime.tool_parser",
            "hermes",
            "calls no tools",
        ),
        (
            {
                "model": {"source": "/m", "task": "embed"},
                "runtime": {"tensor_parallel": 2},
            },
            "runtime.tensor_parallel",
            2,
            "a model for embed is not divided",
        ),
        (
            {"runtime": {"tensor_parallel": 2}, "hardware": {"gpu": {"count": 4}}},
            "runtime.tensor_parallel",
            2,
            "2 is not hardware.gpu.count (4)",
        ),
        (
            {"model": {"source": "/m", "task": "embed"}, "runtime": {"offload": {}}},
            "runtime.offload",
            {},
            "a model for embed is kept whole",
        ),
        (
            {"runtime": {"offload": {}}, "hardware": {"gpu": {"count": 2}}},
            "runtime.offload",
            {},
            "divided over several devices streams no layers",
        ),
        (
            {"runtime": {"kv_spill": {"memory": "1GiB"}, "tensor_parallel": 2}},
            "runtime.kv_spill",
            {"memory": "1GiB"},
            "divided over several devices spills no prefixes",
        ),
        (
            {"model": {"source": "/m", "task": "embed"}, "runtime": {"max_adapters": 2}},
            "runtime.max_adapters",
            2,
            "adapters need model.task 'generate'",
        ),
        (
            {"model": {"source": "/m", "task": "embed"}, "runtime": {"kv_spill": {"disk": "1GiB"}}},
            "runtime.kv_spill",
            {"disk": "1GiB"},
            "an embedding model keeps no KV cache",
        ),
        (
            {"runtime": {"kv_spill": {}}},
            "runtime.kv_spill.memory",
            None,
            "set it, disk or both",
        ),
        (
            {"runtime": {"speculation": {"method": "draft"}}},
            "runtime.speculation.draft_model",
            None,
            "needs the source of a draft model",
        ),
        (
            {"runtime": {"speculation": {"method": "ngram", "draft_model": "/d"}}},
            "runtime.speculation.draft_model",
            "/d",
            "uses no draft model",
        ),
        (
            {"runtime": {"speculation": {"method": "draft", "draft_model": "ftp://d"}}},
            "runtime.speculation.draft_model",
            "ftp://d",
            "is not a model source; use a directory",
        ),
        (
            {"runtime": {"speculation": {"method": "early_exit"}}},
            "runtime.speculation.exit_layer",
            None,
            "needs the layer to guess after, or heads",
        ),
        (
            {"runtime": {"speculation": {"method": "medusa"}}},
            "runtime.speculation.heads",
            None,
            "method 'medusa' needs heads; make some with tidegate distill",
        ),
        (
            {"runtime": {"speculation": {"method": "hydra", "heads": "/h", "exit_layer": 3}}},
            "runtime.speculation.exit_layer",
            3,
            "method 'hydra' uses no exit layer; remove it, or set method to 'early_exit'",
        ),
        (
            {"runtime": {"speculation": {"method": "ngram", "heads": "/h"}}},
            "runtime.speculation.heads",
            "/h",
            "set method to 'early_exit' or 'medusa' or 'hydra'",
        ),
        (
            {"runtime": {"speculation": {"method": "medusa", "heads": "ftp://h"}}},
            "runtime.speculation.heads",
            "ftp://h",
            "is not a model source; use a directory",
        ),
        ({"model": "ftp://x"}, "model.source", "ftp://x", "use a directory, a .gguf file"),
        ({"model": "s3://bucket"}, "model.source", "s3://bucket", "is not a model source"),
        (
            {"model": {"source": "/m", "revision": "abc"}},
            "model.revision",
            "abc",
            "only hf:// sources have revisions",
        ),
    ],
)
def test_an_impossible_combination_is_refused_with_field_value_and_reason(
    fields: dict[str, Any], field: str, value: Any, said: str
) -> None:
    issue = _refusal(**fields).issues[0]
    assert (issue.field, issue.value) == (field, value)
    assert said in issue.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Smol"),
        ("name", "a" * 64),
        ("name", "-a"),
        ("mode", "sometimes"),
        ("labels", {"bad key": "v"}),
        ("scaling", {"max_replicas": 0}),
        ("runtime", {"kv_cache": "lots"}),
        ("runtime", {"context_tokens": 1}),
        ("runtime", {"kv_spill": {"disk": "1KiB"}}),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_field(field: str, value: Any) -> None:
    assert _refusal(**{field: value}).issues[0].field.startswith(field)


def test_every_fault_is_found_at_once() -> None:
    faults = _refusal(name="Bad", mode="x", runtime={"a": 1}).issues
    assert [issue.field for issue in faults] == ["name", "mode", "runtime.a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML or JSON at line 1"),
        ("just text", "a declaration is a mapping"),
        ("", "a declaration is a mapping"),
        ("!!python/object:os.system {}", "not YAML or JSON"),
        ("name: smol", "model: this field is required"),
    ],
)
def test_text_that_is_no_declaration_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse(text)


def test_a_spec_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        _spec().name = "other"  # type: ignore[misc]


def test_replica_bounds_are_changed_on_a_copy_that_is_checked_again() -> None:
    spec = _spec(scaling={"max_replicas": 4, "idle_timeout_s": 7})
    scaled = spec.with_replicas(1, None)
    assert (scaled.scaling.min_replicas, scaled.scaling.max_replicas) == (1, 4)
    assert scaled.scaling.idle_timeout_s == 7
    with pytest.raises(ValueError, match="more than"):
        spec.with_replicas(5, None)


def test_a_diff_names_each_leaf_that_differs() -> None:
    before = _spec(labels={"a": "1"}, scaling={"max_replicas": 1})
    after = _spec(labels={"b": "2"}, scaling={"max_replicas": 3})
    assert diff(before, before) == []
    assert diff(before, after) == [
        Change("labels.a", "1", None),
        Change("labels.b", None, "2"),
        Change("scaling.max_replicas", 1, 3),
    ]


def test_a_diff_from_nothing_holds_every_field_that_has_a_value() -> None:
    found = {change.field: change.after for change in diff(None, _spec())}
    assert found["name"] == "smol"
    assert found["rollout.drain_timeout_s"] == 120.0


def test_the_schema_describes_every_field_and_forbids_others() -> None:
    schema = json_schema()
    assert schema["title"] == "Tidegate deployment"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name", "model", "mode"]
    assert schema["properties"].keys() == DeploymentSpec.model_fields.keys()
    assert {"type": "string", "minLength": 1} in schema["properties"]["model"]["anyOf"]


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
SOURCES = st.one_of(
    st.just("hf://org/name"),
    st.just("s3://bucket/some/prefix"),
    st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1).map(
        "/models/".__add__
    ),
)


@st.composite
def _specs(draw: st.DrawFn) -> DeploymentSpec:
    high = draw(st.integers(1, 9))
    mode = draw(st.sampled_from(Mode))
    low = {"realtime": draw(st.integers(1, high)), "serverless": draw(st.integers(0, high))}
    return parse(
        {
            "name": draw(NAMES),
            "model": draw(SOURCES),
            "mode": mode,
            "runtime": {
                "kv_cache": draw(st.none() | st.integers(1024**2, 1024**4)),
                "context_tokens": draw(st.none() | st.integers(16, 10**6)),
                "adapters": draw(st.dictionaries(NAMES, st.just("/adapter"), max_size=2)),
                "speculation": draw(st.none() | st.just({"method": "ngram"})),
                "kv_spill": draw(st.none() | st.just({"memory": 1024**2, "disk": "2GiB"})),
            },
            "scaling": {
                "min_replicas": draw(st.none() | st.just(low.get(mode, 0))),
                "max_replicas": high,
                "idle_timeout_s": draw(st.none() | st.just("auto") | st.floats(0.1, 86_400)),
                "schedule": [MORNING] if mode in low and draw(st.booleans()) else [],
            },
            "labels": draw(st.dictionaries(NAMES, st.text(max_size=20), max_size=3)),
        }
    )


@settings(max_examples=100)
@given(_specs())
def test_what_is_written_is_read_back_the_same(spec: DeploymentSpec) -> None:
    assert parse(dump(spec)) == spec
    assert parse(spec.model_dump_json()) == spec
    assert diff(spec, parse(dump(spec))) == []


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{" * 50_000,
        "a: 2026-13-41",
        "? [1]\n: 2",
        "- 1",
        "a: !!python/object:os.x {}",
    ],
)
def test_text_that_is_no_declaration_is_refused_whatever_it_does_to_a_parser(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text)


@pytest.mark.parametrize(
    ("rollout", "field", "value", "said"),
    [
        ({"canary": {}}, "rollout.canary", {}, "strategy 'rolling' does not use it"),
        ({"strategy": "canary", "bake_s": 5}, "rollout.bake_s", 5, "use strategy blue_green"),
        ({"strategy": "canary", "shadow": {}}, "rollout.shadow", {}, "use strategy shadow"),
        (
            {"strategy": "recreate", "rollback_on": {}},
            "rollout.rollback_on",
            {},
            "use strategy canary or blue_green or shadow",
        ),
        (
            {"strategy": "canary", "canary": {"steps": [{"weight": 50}, {"weight": 50}]}},
            "rollout.canary.steps",
            [{"weight": 50}, {"weight": 50}],
            "each step must weigh more than the one before",
        ),
    ],
)
def test_a_rollout_that_cannot_be_is_refused_with_the_remedy(
    rollout: dict[str, Any], field: str, value: Any, said: str
) -> None:
    issue = _refusal(rollout=rollout).issues[0]
    assert (issue.field, issue.value) == (field, value)
    assert said in issue.message


def test_drift_is_refused_for_a_model_that_writes_no_text() -> None:
    model = {"source": "/m", "task": "embed"}
    rollout = {"strategy": "canary", "rollback_on": {"drift": 0.1}}
    issue = _refusal(model=model, rollout=rollout).issues[0]
    assert (issue.field, issue.value) == ("rollout.rollback_on.drift", 0.1)


@pytest.mark.parametrize("strategy", ["canary", "blue_green", "shadow"])
def test_a_strategy_alone_is_a_whole_rollout(strategy: str) -> None:
    spec = DeploymentSpec.model_validate(
        {"name": "smol", "model": "/m", "mode": "realtime", "rollout": {"strategy": strategy}}
    )
    assert spec.rollout.strategy == strategy


def test_a_value_where_fields_belong_is_refused_in_words() -> None:
    issue = _refusal(runtime={"offload": True}).issues[0]
    assert issue.field == "runtime.offload"
    assert issue.message == "must be a mapping of fields to values, got True"
