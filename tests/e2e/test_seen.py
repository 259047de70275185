"""What is seen of a request: one trace, one id in every log, right numbers, and not its text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.collector import Collector, Span, collecting
from tests.e2e.platform import Platform, start, stop

SECRET = "xylophone"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CHAT = {
    "model": "seen",
    "messages": [{"role": "user", "content": f"Say the word {SECRET} and nothing else."}],
    "temperature": 0,
    "max_tokens": 8,
}
REPLICA_SPANS = {"queue", "prefill", "decode", "engine.steps"}
ALL_SPANS = 3 + 1 + len(REPLICA_SPANS)
"""Those of the gateway, the replica's request, and what is below it."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def watched(
    collector: Collector,
    platform: Platform,
    realtime: str,
    smollm2: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Platform]:
    """A platform that sends traces, with a deployment that has no replica yet."""
    home = tmp_path_factory.mktemp("watched")
    shutil.copytree(platform.data / "cache", home / "data" / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        running = start(home / "data", home / "config", "--otlp-endpoint", collector.url)
    running.cli("deploy", smollm2, "--name", "seen", "--mode", "serverless", "--wait")
    yield running
    stop(running)


@pytest.fixture(scope="module")
def answer(watched: Platform) -> httpx.Response:
    """The answer of the first request, which was held, and which a caller's trace led to."""
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "seen-1"}
    with watched.http() as http:
        return http.post("/v1/chat/completions", json=CHAT, headers=headers).raise_for_status()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def replica_log(platform: Platform) -> Path:
    (found,) = platform.data.glob("replicas/*/log")
    return found


def zygote_of(platform: Platform) -> Path:
    """The zygote of a control plane, as its folder in /proc; its forks keep its command line."""
    pid = platform.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    replicas = {str(each["pid"]) for each in platform.cli_json("status", "seen")["replica_list"]}
    found = [Path("/proc") / child for child in children if child not in replicas]
    (zygote,) = (path for path in found if "zygote" in (path / "cmdline").read_text())
    return zygote


def test_a_request_is_one_trace_from_its_caller_to_the_engine_s_steps(
    collector: Collector, answer: httpx.Response
):
    spans = collector.wait_for(TRACE, ALL_SPANS)
    assert {span.trace_id for span in spans} == {TRACE}
    names = sorted((span.service, span.name) for span in spans)
    replica, gateway = "tidegate-replica", "tidegate-controlplane"
    assert names == [
        *((gateway, name) for name in ("attempt", "chat seen", "hold")),
        *((replica, name) for name in ("chat seen", "decode", "engine.steps", "prefill", "queue")),
    ]
    one: dict[tuple[str, str], Span] = {(span.service, span.name): span for span in spans}
    asked, attempt = one[gateway, "chat seen"], one[gateway, "attempt"]
    served = one[replica, "chat seen"]
    assert asked.parent_id == CALLER
    assert one[gateway, "hold"].parent_id == attempt.parent_id == asked.span_id
    assert served.parent_id == attempt.span_id
    assert {one[replica, name].parent_id for name in REPLICA_SPANS} == {served.span_id}
    assert one[gateway, "hold"].ended_ns <= attempt.began_ns
    for outer, inner in ((asked, attempt), (served, one[replica, "decode"])):
        assert outer.began_ns <= inner.began_ns < inner.ended_ns <= outer.ended_ns
    # The gateway may have read the answer before the replica has noted that it is sent.
    assert attempt.began_ns <= served.began_ns < attempt.ended_ns
    assert one[replica, "queue"].ended_ns == one[replica, "prefill"].began_ns
    assert one[replica, "prefill"].ended_ns == one[replica, "decode"].began_ns


def test_the_zygote_of_such_replicas_has_one_thread_still(
    watched: Platform, answer: httpx.Response
):
    zygote = zygote_of(watched)
    assert "--traces" in (zygote / "cmdline").read_text()
    assert len(list((zygote / "task").iterdir())) == 1


def test_spans_tell_the_tokens_that_the_answer_tells(collector: Collector, answer: httpx.Response):
    usage = answer.json()["usage"]
    spans = collector.wait_for(TRACE, ALL_SPANS)
    for span in (span for span in spans if span.name == "chat seen"):
        assert span.attributes["gen_ai.request.model"] == "seen"
        assert span.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
        assert span.attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
        assert not span.is_error
    (steps,) = (span for span in spans if span.name == "engine.steps")
    assert steps.attributes["tidegate.steps"] == usage["completion_tokens"]
    assert steps.attributes["tidegate.ending"] == answer.json()["choices"][0]["finish_reason"]


def test_one_request_id_leads_from_the_gateway_s_line_to_the_replica_s(
    watched: Platform, answer: httpx.Response
):
    assert answer.headers["x-request-id"] == "seen-1"
    logs = (watched.data / "controlplane.log", replica_log(watched))
    found = [[line for line in lines_of(log) if line.get("request") == "seen-1"] for log in logs]
    ((gateway,), (replica,)) = found
    assert (gateway["logger"], gateway["status"]) == ("tidegate.access", 200)
    assert gateway["deployment"] == replica["deployment"] == "seen"
    assert replica["replica"] == replica_log(watched).parent.name
    shown = watched.cli("logs", "seen")
    assert "INFO tidegate_runtime.access answered" in shown
    assert "request=seen-1" in shown
    assert '{"' not in shown


def test_the_numbers_of_both_planes_agree_with_the_answer(
    watched: Platform, answer: httpx.Response
):
    usage = answer.json()["usage"]
    with watched.http() as http:
        numbers = http.get("/metrics").text
    labels = (
        'gen_ai_operation_name="chat",gen_ai_provider_name="tidegate",gen_ai_request_model="seen"'
    )
    for kind, count in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        name = f'gen_ai_client_token_usage_sum{{{labels},gen_ai_token_type="{kind}"}}'
        assert f"{name} {float(usage[count])}" in numbers
    assert 'tidegate_hold_seconds_count{deployment="seen"} 1.0' in numbers
    assert 'tidegate_cold_start_seconds_count{deployment="seen"} 1.0' in numbers
    assert 'tidegate_requests_held{deployment="seen"} 0.0' in numbers


def test_no_log_and_no_span_holds_the_text_of_a_prompt_or_an_answer(
    watched: Platform, collector: Collector, answer: httpx.Response
):
    said = answer.json()["choices"][0]["message"]["content"]
    bad = [
        json.dumps({**CHAT, "max_tokens": "many"}).encode(),
        json.dumps({**CHAT, "max_tokens": 10**6}).encode(),
        json.dumps({**CHAT, SECRET: SECRET}).encode(),
        json.dumps({**CHAT, "model": SECRET}).encode(),
        b'{"messages": "' + SECRET.encode(),
    ]
    with watched.http() as http:
        for body in bad:
            assert http.post("/v1/chat/completions", content=body).status_code >= 400
        http.post("/v1/chat/completions", json={**CHAT, "stream": True}).raise_for_status()
    assert len(said) > 4
    written = b"".join(collector.bodies).decode(errors="replace")
    for path in (*watched.data.glob("*.log"), *watched.data.glob("replicas/*/log")):
        written += path.read_text()
    assert "seen-1" in written
    for text in (SECRET, "and nothing else", said):
        assert text not in written
