"""From a declaration and a model's facts to a plan, or to every reason why not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidegate.protocol.resources import ModelFacts, ResolvedPlan
from tidegate.spec import DeploymentSpec, GpuSpec, Precision, RuntimeSpec, SpecIssue
from tidegate_controlplane.domain.capabilities import Capabilities
from tidegate_controlplane.domain.footprint import (
    PROCESS_BYTES,
    host_bytes,
    kv_bytes_per_token,
    weights_bytes,
)
from tidegate_controlplane.domain.plan import Refusal, fingerprint, machine_bytes, resolve, warnings
from tidegate_controlplane.domain.size import need

GIB = 1024**3
MACHINE = Capabilities(
    provisioners=frozenset({"local"}),
    precisions=frozenset({Precision.BF16, Precision.FP32}),
    memory_bytes=16 * GIB,
    cores=4,
)
FACTS = ModelFacts(
    format="safetensors",
    architecture="LlamaForCausalLM",
    digest="sha256:a",
    parameters=1_000_000,
    weights_bytes=4_000_000,
    context_tokens=2048,
    layers=10,
    kv_heads=4,
    head_dim=64,
    vocabulary=32_000,
)
TOKEN_BYTES = 2 * 10 * 4 * 64 * 2
"""Keys and values, layers, heads, elements of two bytes."""


def spec(mode: str = "serverless", task: str = "generate", **parts: Any) -> DeploymentSpec:
    return DeploymentSpec.model_validate(
        {"name": "smol", "model": {"source": "/models/smol", "task": task}, "mode": mode, **parts}
    )


def planned(declared: DeploymentSpec, facts: ModelFacts = FACTS) -> ResolvedPlan:
    plan = resolve(declared, facts, MACHINE)
    assert isinstance(plan, ResolvedPlan), plan
    return plan


def refused(
    declared: DeploymentSpec, machine: Capabilities = MACHINE, facts: ModelFacts = FACTS
) -> tuple[SpecIssue, ...]:
    plan = resolve(declared, facts, machine)
    assert isinstance(plan, Refusal), plan
    return plan.issues


@pytest.mark.parametrize(
    ("mode", "low", "high", "idle_timeout_s"),
    [
        ("realtime", 1, 1, 300.0),
        ("serverless", 0, 1, 300.0),
        ("async", 0, 1, 60.0),
        ("batch", 0, 1, 15.0),
    ],
)
def test_each_mode_has_its_own_bounds_and_idle_time(
    mode: str, low: int, high: int, idle_timeout_s: float
) -> None:
    plan = planned(spec(mode))
    assert (plan.min_replicas, plan.max_replicas, plan.idle_timeout_s) == (
        low,
        high,
        idle_timeout_s,
    )


@pytest.mark.parametrize(
    ("mode", "clear_s"), [("realtime", 10), ("serverless", 10), ("async", 60), ("batch", 600)]
)
def test_the_less_somebody_waits_for_it_the_longer_a_backlog_may_last(
    mode: str, clear_s: float
) -> None:
    assert planned(spec(mode)).clear_s == clear_s


def test_an_idle_time_that_is_learned_is_planned_as_none() -> None:
    plan = planned(spec(scaling={"idle_timeout_s": "auto", "cold_start_price_s": 30}))
    assert (plan.idle_timeout_s, plan.cold_start_price_s) == (None, 30)


@pytest.mark.parametrize(
    ("entry", "field", "said"),
    [
        ({"timezone": "Mars/Olympus"}, "timezone", "'Mars/Olympus' is no known time zone"),
        ({"cron": "0 25 * * *"}, "cron", "'0 25 * * *' names no time (Bad hour)"),
        ({"cron": "0 0 30 2 *"}, "cron", "names no time"),
    ],
)
def test_a_schedule_whose_times_cannot_be_is_refused_by_entry(
    entry: dict[str, Any], field: str, said: str
) -> None:
    good = {"cron": "0 8 * * 1-5", "duration_s": 3600, "min_replicas": 1}
    (issue,) = refused(spec(scaling={"schedule": [good, good | entry]}))
    assert issue.field == f"scaling.schedule.1.{field}"
    assert said in issue.message


def test_every_other_default_is_filled() -> None:
    plan = planned(spec())
    assert plan.provisioner == "local"
    assert plan.precision == "bf16"
    assert plan.context_tokens == 2048
    assert (plan.max_sequences, plan.target_in_flight) == (16, None)
    assert (plan.cold_start_price_s, plan.schedule) == (None, ())
    assert plan.threads is None
    assert plan.drain_timeout_s == 120.0


def test_what_is_declared_is_what_is_planned() -> None:
    plan = planned(
        spec(
            runtime={"precision": "fp32", "context_tokens": 512, "max_sequences": 3},
            hardware={"cpu": 2},
            scaling={
                "min_replicas": 2,
                "max_replicas": 5,
                "target_in_flight": 7,
                "idle_timeout_s": 0,
            },
            rollout={"drain_timeout_s": 9},
        )
    )
    assert (plan.precision, plan.context_tokens, plan.max_sequences) == ("fp32", 512, 3)
    assert (plan.min_replicas, plan.max_replicas, plan.target_in_flight) == (2, 5, 7)
    assert (plan.threads, plan.idle_timeout_s, plan.drain_timeout_s) == (2, 0.0, 9.0)


def test_a_minimum_alone_raises_the_maximum_with_it() -> None:
    plan = planned(spec("realtime", scaling={"min_replicas": 3}))
    assert (plan.min_replicas, plan.max_replicas) == (3, 3)


def test_memory_is_weights_and_kv_cache_and_process() -> None:
    plan = planned(spec(runtime={"max_sequences": 2}))
    assert plan.weights_bytes == 2_000_000
    assert kv_bytes_per_token(FACTS, Precision.BF16) == TOKEN_BYTES
    assert plan.kv_cache_bytes == 2 * 2048 * TOKEN_BYTES
    assert plan.memory_bytes == plan.weights_bytes + plan.kv_cache_bytes + PROCESS_BYTES


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_packed_weights_bring_keys_and_values_of_8_bits_with_a_scale_each(
    precision: Precision,
) -> None:
    vectors = 2 * FACTS.layers * FACTS.kv_heads
    assert kv_bytes_per_token(FACTS, precision) == vectors * (FACTS.head_dim + 4)


def test_fp32_doubles_weights_and_kv_cache() -> None:
    half, whole = (
        planned(spec(runtime={"precision": precision, "max_sequences": 2}))
        for precision in ("bf16", "fp32")
    )
    assert whole.weights_bytes == 2 * half.weights_bytes
    assert whole.kv_cache_bytes == 2 * half.kv_cache_bytes


PACKING = replace(MACHINE, precisions=frozenset(Precision) - {Precision.AUTO, Precision.FP8})
UNTIED = FACTS.model_copy(
    update={"parameters": 1_000, "embedding_parameters": 320, "vocabulary": 10, "tied": False}
)


@pytest.mark.parametrize(
    ("precision", "tied", "bits"),
    [
        ("fp32", False, 1000 * 32),
        ("bf16", False, 1000 * 16),
        ("int8", False, 360 * 8.5 + 320 * 8.5 + 320 * 16),
        ("int4", False, 360 * 5 + 320 * 8.5 + 320 * 16),
        ("int8", True, 680 * 8.5 + 320 * 8.5),
        ("int4", True, 680 * 5 + 320 * 8.5),
    ],
)
def test_weights_take_what_their_packed_form_takes(precision: str, tied: bool, bits: float) -> None:
    facts = UNTIED.model_copy(update={"tied": tied})
    assert weights_bytes(facts, Precision(precision)) == int(bits / 8)


@pytest.mark.parametrize(
    ("facts", "task", "chosen"),
    [
        ({"stored_bits": 4, "format": "gguf"}, "generate", "int4"),
        ({"stored_bits": 8, "format": "gguf"}, "generate", "int8"),
        ({}, "generate", "int8"),
        ({"embedding_parameters": 300}, "generate", "fp32"),
        ({}, "embed", "bf16"),
    ],
)
def test_auto_is_the_precision_that_suits_the_model(
    facts: dict[str, Any], task: str, chosen: str
) -> None:
    plan = resolve(spec(task=task), UNTIED.model_copy(update=facts), PACKING)
    assert isinstance(plan, ResolvedPlan)
    assert plan.precision == chosen


def test_an_embedding_model_is_not_packed() -> None:
    (issue,) = refused(spec(task="embed", runtime={"precision": "int8"}), PACKING)
    assert issue.field == "runtime.precision"
    assert "not available for model.task 'embed'; use bf16, fp32" in issue.message


def test_adapters_are_not_carried_through_sagemaker() -> None:
    anywhere = replace(MACHINE, provisioners=frozenset({"local", "aws"}))
    adapters = {"adapters": {"law": "s3://adapters/law"}}
    planned(spec(runtime=adapters))
    issues = refused(spec(runtime=adapters, hardware={"provisioner": "aws"}), machine=anywhere)
    assert "runtime.adapters" in {issue.field for issue in issues}


def test_replicas_stay_when_only_their_adapters_change() -> None:
    with_one = spec(runtime={"adapters": {"law": "/adapters/law"}})
    assert fingerprint(with_one, "sha256:a") == fingerprint(spec(), "sha256:a")


def test_the_default_kv_cache_takes_a_sixteenth_of_the_machine_at_most() -> None:
    assert planned(spec(runtime={"max_sequences": 1024})).kv_cache_bytes == GIB


def test_the_default_kv_cache_holds_one_whole_sequence_at_least() -> None:
    long = FACTS.model_copy(update={"context_tokens": 200_000})
    assert planned(spec(), long).kv_cache_bytes == 200_000 * TOKEN_BYTES > GIB


def test_speculation_by_the_text_itself_is_planned_as_it_was_asked_for() -> None:
    plan = planned(spec(runtime={"speculation": {"method": "ngram", "max_tokens": 6}}))
    assert plan.speculation is not None
    assert (plan.speculation.method, plan.speculation.max_tokens) == ("ngram", 6)
    assert planned(spec()).speculation is None


def test_how_calls_are_written_is_planned_as_it_was_declared() -> None:
    assert planned(spec(runtime={"tool_parser": "llama3"})).tool_parser == "llama3"
    assert planned(spec()).tool_parser is None


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "early_exit", "exit_layer": 6},
        {"method": "early_exit", "heads": "/heads"},
        {"method": "medusa", "heads": "/heads"},
        {"method": "hydra", "heads": "/heads"},
    ],
)
def test_speculation_by_the_model_itself_is_planned_on_this_machine(asked: dict[str, Any]) -> None:
    plan = planned(spec(runtime={"speculation": asked}))
    assert plan.speculation is not None
    assert plan.speculation.model_dump(exclude_defaults=True) == asked


@pytest.mark.parametrize(
    "asked", [{"method": "early_exit", "exit_layer": 6}, {"method": "hydra", "heads": "/heads"}]
)
def test_speculation_by_the_model_itself_is_for_other_machines_too(asked: dict[str, Any]) -> None:
    elsewhere = spec(runtime={"speculation": asked}, hardware={"provisioner": "ray"})
    assert [issue.field for issue in refused(elsewhere)] == ["hardware.provisioner"]


def test_an_exit_is_before_the_last_layer() -> None:
    def exits(layer: int) -> DeploymentSpec:
        return spec(runtime={"speculation": {"method": "early_exit", "exit_layer": layer}})

    planned(exits(FACTS.layers - 1))
    (issue,) = refused(exits(FACTS.layers))
    assert (issue.field, issue.value) == ("runtime.speculation.exit_layer", FACTS.layers)
    assert issue.message.endswith(f"layers; use 1 to {FACTS.layers - 1}")


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "early_exit", "exit_layer": 6},
        {"method": "medusa", "heads": "/heads"},
        {"method": "hydra", "heads": "/heads"},
    ],
)
def test_a_divided_model_is_looked_into_as_a_whole_one(asked: dict[str, Any]) -> None:
    plan = planned(spec(runtime={"speculation": asked, "tensor_parallel": 2}))
    assert plan.tensor_parallel == 2
    assert plan.speculation is not None
    assert plan.speculation.method == asked["method"]


def test_an_embedding_model_keeps_no_kv_cache() -> None:
    assert planned(spec(task="embed")).kv_cache_bytes == 0


CASES: list[tuple[dict[str, Any], str, Any, str]] = [
    (
        {"hardware": {"provisioner": "ray"}},
        "hardware.provisioner",
        "ray",
        "'ray' is not available on this platform; set `ray` in its settings, or use local",
    ),
    ({"runtime": {"precision": "int4"}}, "runtime.precision", "int4", "use bf16, fp32"),
    ({"hardware": {"gpu": {"count": 1}}}, "hardware.gpu", {"type": None, "count": 1}, "remove it"),
    ({"slo": {"ttft_ms": 100}}, "slo.ttft_ms", 100.0, "remove it"),
    ({"slo": {"itl_ms": 10}}, "slo.itl_ms", 10.0, "remove it"),
    (
        {"runtime": {"context_tokens": 4096}},
        "runtime.context_tokens",
        4096,
        "4096 is more than the model's own 2048; use at most that",
    ),
    (
        {"runtime": {"kv_cache": 1024**2}},
        "runtime.kv_cache",
        1024**2,
        "raise it, or lower runtime.context_tokens",
    ),
    (
        {"task": "embed", "runtime": {"kv_cache": "64MiB"}},
        "runtime.kv_cache",
        64 * 1024**2,
        "keeps no KV cache; remove it",
    ),
    (
        {"hardware": {"memory": "100MiB"}},
        "hardware.memory",
        100 * 1024**2,
        "more than 100 MiB; raise it, or lower runtime.context_tokens",
    ),
]


@pytest.mark.parametrize(("parts", "field", "value", "remedy"), CASES, ids=lambda p: str(p)[:40])
def test_a_refusal_names_the_field_the_value_and_the_remedy(
    parts: dict[str, Any], field: str, value: Any, remedy: str
) -> None:
    (issue,) = refused(spec(**parts))
    assert (issue.field, issue.value) == (field, value)
    assert remedy in issue.message


def test_a_model_larger_than_the_machine_is_refused_with_both_sizes() -> None:
    (issue,) = refused(spec(), replace(MACHINE, memory_bytes=50 * 1024**2))
    assert (issue.field, issue.value) == ("model.source", "/models/smol")
    assert "this machine has 50 MiB" in issue.message
    assert "use a smaller model" in issue.message


def test_this_machines_memory_cores_and_lack_of_gpus_bind_no_replica_that_runs_elsewhere() -> None:
    small = replace(MACHINE, provisioners=frozenset({"local", "ray"}), memory_bytes=50 * 1024**2)
    hardware = {"provisioner": "ray", "gpu": {"type": "H200"}, "cpu": 1000}
    plan = resolve(spec(hardware=hardware, scaling={"max_replicas": 100}), FACTS, small)
    assert isinstance(plan, ResolvedPlan), plan
    assert plan.provisioner == "ray"
    assert plan.gpu is not None
    assert (plan.gpu.type, plan.gpu.count, plan.threads) == ("H200", 1, 1000)
    assert machine_bytes(plan) == 0 < plan.memory_bytes
    assert warnings(plan, FACTS, small) == []


def test_all_reasons_are_given_at_once() -> None:
    fields = [
        issue.field
        for issue in refused(
            spec(
                runtime={"precision": "int8", "context_tokens": 9999},
                hardware={"provisioner": "aws"},
                slo={"ttft_ms": 1},
            )
        )
    ]
    assert fields == [
        "hardware.provisioner",
        "runtime.precision",
        "slo.ttft_ms",
        "runtime.context_tokens",
    ]


def test_a_plan_that_fits_has_no_warnings() -> None:
    assert warnings(planned(spec()), FACTS, MACHINE) == []


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"scaling": {"max_replicas": 100}, "hardware": {"cpu": 1}}, "scaling.max_replicas: 100"),
        ({"scaling": {"max_replicas": 2}}, "hardware.cpu: 2 replicas will share all 4 cores"),
        ({"hardware": {"cpu": 9}}, "hardware.cpu: 9 threads will take turns on this machine's 4"),
    ],
)
def test_what_works_but_may_surprise_is_warned_of(parts: dict[str, Any], said: str) -> None:
    (warning,) = warnings(planned(spec(**parts)), FACTS, MACHINE)
    assert warning.startswith(said)


@pytest.mark.parametrize(
    "parts",
    [
        {"scaling": {"max_replicas": 3}},
        {"labels": {"team": "a"}},
        {"rollout": {"drain_timeout_s": 1}},
        {"mode": "realtime"},
    ],
)
def test_replicas_stay_when_only_scaling_rollout_or_labels_change(parts: dict[str, Any]) -> None:
    assert fingerprint(spec(**parts), "sha256:a") == fingerprint(spec(), "sha256:a")


@pytest.mark.parametrize(
    "parts", [{"runtime": {"max_sequences": 3}}, {"hardware": {"cpu": 1}}, {"task": "embed"}]
)
def test_replicas_are_replaced_when_the_way_they_run_changes(parts: dict[str, Any]) -> None:
    assert fingerprint(spec(**parts), "sha256:a") != fingerprint(spec(), "sha256:a")


def test_replicas_stay_when_the_platform_learns_a_field_that_nobody_declared() -> None:
    class LaterRuntime(RuntimeSpec):
        lookahead: int = 4

    later = spec().model_copy(update={"runtime": LaterRuntime()})
    assert fingerprint(later, "sha256:a") == fingerprint(spec(), "sha256:a")
    declared = spec().model_copy(update={"runtime": LaterRuntime(lookahead=5)})
    assert fingerprint(declared, "sha256:a") != fingerprint(spec(), "sha256:a")


def test_replicas_are_replaced_when_the_files_of_the_model_change() -> None:
    assert fingerprint(spec(), "sha256:a") != fingerprint(spec(), "sha256:b")


def test_spilled_prefixes_take_memory_beside_the_model_and_disk_takes_none() -> None:
    without = planned(spec())
    plan = planned(spec(runtime={"kv_spill": {"memory": "1GiB", "disk": "10GiB"}}))
    assert plan.kv_spill is not None
    assert (plan.kv_spill.memory, plan.kv_spill.disk) == (GIB, 10 * GIB)
    assert plan.memory_bytes - without.memory_bytes == GIB
    on_disk = planned(spec(runtime={"kv_spill": {"disk": "10GiB"}}))
    assert on_disk.memory_bytes == without.memory_bytes
    assert host_bytes(plan) == plan.memory_bytes
    on_gpu = plan.model_copy(update={"gpu": GpuSpec(), "memory_bytes": without.memory_bytes})
    assert host_bytes(on_gpu) == without.memory_bytes - plan.kv_cache_bytes + GIB
    assert "spilled prefixes 1.0 GiB" in need(plan)


def test_prefixes_that_have_no_room_are_the_first_to_be_lessened() -> None:
    remedy = "for replicas; lower runtime.kv_spill.memory, "
    (issue,) = refused(spec(runtime={"kv_spill": {"memory": "100TiB"}}))
    assert remedy in issue.message
    (other,) = refused(spec(runtime={"kv_spill": {"disk": "100TiB"}, "kv_cache": "100TiB"}))
    assert "kv_spill" not in other.message


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"runtime": {"tensor_parallel": 3}}, "runtime.tensor_parallel"),
        ({"hardware": {"provisioner": "ray", "gpu": {"count": 3}}}, "hardware.gpu.count"),
    ],
)
def test_a_model_whose_heads_have_no_equal_parts_is_refused(parts: Any, field: str) -> None:
    anywhere = replace(MACHINE, provisioners=frozenset({"local", "ray"}))
    (issue,) = refused(spec(**parts), machine=anywhere)
    assert (issue.field, issue.value) == (field, 3)
    assert "the model's 4 key/value heads; use 1, 2, 4" in issue.message


def test_each_process_of_a_divided_model_has_its_own_memory_and_wants_a_core() -> None:
    plan = planned(spec(runtime={"tensor_parallel": 2}, hardware={"cpu": 1}))
    assert plan.tensor_parallel == 2
    assert plan.memory_bytes == plan.weights_bytes + plan.kv_cache_bytes + 2 * PROCESS_BYTES
    cost, turns = warnings(plan, FACTS, MACHINE)
    assert "2 devices wait for each other 21 times" in cost
    assert "2 processes will take turns on 1 cores" in turns


ARTIFACT = FACTS.model_copy(update={"precision": "fp32"})


def test_an_artifact_is_served_in_the_precision_that_it_was_built_in() -> None:
    assert planned(spec(), ARTIFACT).precision == "fp32"
    assert planned(spec(runtime={"precision": "fp32"}), ARTIFACT).precision == "fp32"
    (issue,) = refused(spec(runtime={"precision": "bf16"}), facts=ARTIFACT)
    assert issue.field == "runtime.precision"
    assert "which is in fp32; remove it" in issue.message


def test_an_artifact_is_served_on_this_machine_only() -> None:
    machine = replace(MACHINE, provisioners=frozenset({"local", "ray"}))
    (issue,) = refused(spec(hardware={"provisioner": "ray"}), machine, ARTIFACT)
    assert issue.field == "model.source"
    assert "served on this machine only" in issue.message
