"""The command line, against a canned server on a real port."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

import tidegate
from tidegate.cli.app import app
from tidegate.protocol.api_keys import read_secret

SMOL = "/api/v1/deployments/smol"
DECLARED = "name: smol\nmodel: /models/smol.gguf\nmode: serverless\n"


def run(*arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def smol(served: Any, shapes: Any) -> Any:
    served.on("GET", SMOL, shapes.deployment())
    served.on("PUT", SMOL, shapes.deployment())
    served.on("GET", f"{SMOL}/replicas", {"data": []})
    return served


def plan_view(**more: Any) -> dict[str, Any]:
    """A plan of `smol`, with other fields."""
    facts = {
        "format": "gguf",
        "architecture": "llama",
        "digest": "sha256:0",
        "parameters": 135_000_000,
        "weights_bytes": 98_000_000,
        "context_tokens": 2048,
        "layers": 30,
        "kv_heads": 3,
        "head_dim": 64,
        "vocabulary": 49_152,
    }
    plan = {
        "provisioner": "local",
        "precision": "bf16",
        "context_tokens": 2048,
        "max_sequences": 16,
        "kv_cache_bytes": 1,
        "weights_bytes": 1,
        "memory_bytes": 2,
        "min_replicas": 0,
        "max_replicas": 1,
        "target_in_flight": 16,
        "idle_timeout_s": 300,
        "drain_timeout_s": 120,
    }
    view = {"name": "smol", "action": "create", "changes": [], "new_revision": True}
    return {**view, "model": facts, "plan": plan, **more}


def test_without_a_server_the_error_is_one_line_with_the_remedy() -> None:
    result = run("ls")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: no server is known: run 'tidegate up'")
    assert result.stderr.count("\n") == 1


def test_with_json_errors_are_json_too(served: Any) -> None:
    result = run("status", "nope", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"] == {
        "type": "NotFound",
        "message": "no /api/v1/deployments/nope",
        "status": 404,
        "code": "not_found",
        "request_id": None,
        "issues": [],
    }


def test_wrong_usage_ends_with_two() -> None:
    assert run("scale", "smol").exit_code == 2
    assert run("deploy").exit_code == 2
    assert run("nonsense").exit_code == 2


def test_ls_is_a_table_or_json(served: Any, shapes: Any) -> None:
    served.on("GET", "/api/v1/deployments", {"data": [shapes.deployment()]})
    assert "smol" in run("ls").stdout
    assert json.loads(run("ls", "--json").stdout)[0]["name"] == "smol"
    served.on("GET", "/api/v1/deployments", {"data": []})
    assert json.loads(run("ls", "--json").stdout) == []
    assert "there are no deployments" in run("ls").stderr


def test_deploy_turns_its_options_into_a_declaration(smol: Any) -> None:
    result = run(
        *("deploy", "hf://org/name", "--name", "smol", "--mode", "realtime", "--task", "embed"),
        *("--revision", "abc", "--precision", "fp32", "--context-tokens", "512", "--min", "1"),
        *("--max", "2", "--idle-timeout", "9", "--label", "team=a=b"),
        *("--set", "runtime.max_sequences=4", "--set", "scaling.max_replicas=3", "--json"),
    )
    assert result.exit_code == 0, result.output
    assert smol.asked[0].json == {
        "name": "smol",
        "model": {"source": "hf://org/name", "revision": "abc", "task": "embed"},
        "mode": "realtime",
        "runtime": {"precision": "fp32", "context_tokens": 512, "max_sequences": 4},
        "scaling": {"min_replicas": 1, "max_replicas": 3, "idle_timeout_s": 9.0},
        "labels": {"team": "a=b"},
    }
    assert json.loads(result.stdout)["phase"] == "ready"


def test_deploy_waits_and_says_where_it_stands(smol: Any, shapes: Any) -> None:
    loading = shapes.deployment(phase="provisioning", message="loading weights")
    smol.on("GET", SMOL, loading, shapes.deployment())
    result = run("deploy", "/m", "--name", "smol", "--wait")
    assert result.exit_code == 0
    assert "smol is provisioning: loading weights\nsmol is ready" in result.stderr
    assert result.stdout == "smol is ready (generation 1)\n"


@pytest.mark.parametrize(
    ("mode", "task", "door"),
    [
        ("serverless", "generate", "tidegate chat smol 'hello'"),
        ("async", "generate", "tidegate invoke smol 'hello'"),
        ("batch", "generate", "tidegate batch run smol requests.jsonl"),
        ("serverless", "embed", "POST /v1/embeddings with the model 'smol'"),
        ("serverless", "rerank", "POST /v1/rerank with the model 'smol'"),
        ("batch", "embed", "tidegate batch run smol requests.jsonl"),
    ],
)
def test_deploy_names_a_request_that_it_answers(
    smol: Any, shapes: Any, mode: str, task: str, door: str
) -> None:
    spec = {"name": "smol", "model": {"source": "/m", "task": task}, "mode": mode}
    smol.on("PUT", SMOL, shapes.deployment(spec=spec))
    result = run("deploy", "/m", "--name", "smol", "--mode", mode, "--task", task)
    assert result.stderr.endswith(f"use it:  {door}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "runtime.precison=bf16"), "did you mean 'precision'?"),
        (("--set", "runtime"), "not of the form field.name=value"),
        (("--set", "name.x=1"), "name is a value, it has no fields"),
        (("--label", "team"), "not of the form key=value"),
        (("--mode", "realtime", "--min", "0"), "realtime means always on"),
        (("--mode", "batch", "--min", "1"), "batch runs only while there is work"),
        (
            ("--set", 'runtime.adapters={"the_poet": "./poet"}'),
            "runtime.adapters.the_poet: must be lower-case letters, digits and hyphens",
        ),
        (("--label", "team!=a"), "labels.team!: must be letters, digits, '.', '_', '/' and '-'"),
    ],
)
def test_an_impossible_deploy_is_refused_before_anything_is_sent(
    served: Any, arguments: tuple[str, ...], said: str
) -> None:
    result = run("deploy", "/m", "--name", "smol", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert served.asked == []


def test_every_fault_of_a_declaration_gets_its_own_line(served: Any) -> None:
    result = run("deploy", "/m", "--name", "Smol", "--set", "runtme.x=1")
    assert "error: the declaration has 2 faults\n" in result.stderr
    assert "\n  runtme: unknown field; did you mean 'runtime'?\n" in result.stderr


def test_apply_reads_relative_paths_from_the_files_folder(smol: Any, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "spec.yaml"
    file.parent.mkdir()
    file.write_text("name: smol\nmodel: weights/m.gguf\nmode: batch\n")
    assert run("apply", "-f", str(file)).exit_code == 0
    assert smol.asked[0].json["model"]["source"] == str(file.parent / "weights" / "m.gguf")


def test_apply_takes_several_documents_from_standard_input(smol: Any, shapes: Any) -> None:
    smol.on("PUT", "/api/v1/deployments/other", shapes.deployment("other"))
    text = DECLARED + "---\n" + DECLARED.replace("name: smol", "name: other") + "---\n"
    result = run("apply", "-f", "-", "--json", stdin=text)
    assert [view["name"] for view in json.loads(result.stdout)] == ["smol", "other"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DECLARED + "---\nname: x\nmoode: batch\n", "did you mean 'mode'"),
        (DECLARED + "---\n" + DECLARED, "declares smol more than once"),
        ("", "holds no declaration"),
        ("a: [", "is not YAML or JSON at line"),
        ("just text", "a declaration is a mapping"),
    ],
)
def test_apply_sends_nothing_unless_every_document_is_sound(
    served: Any, text: str, said: str
) -> None:
    result = run("apply", "-f", "-", stdin=text)
    assert result.exit_code == 1
    assert said in result.stderr
    assert served.asked == []


def test_a_file_that_is_not_there_is_named(served: Any) -> None:
    assert "'nowhere.yaml' cannot be read: No such file" in run("plan", "-f", "nowhere.yaml").stderr


def test_diff_ends_with_zero_without_and_with_two_for_differences(smol: Any) -> None:
    same = run("diff", "-f", "-", stdin=DECLARED)
    assert (same.exit_code, same.stdout) == (0, "smol: no difference\n")
    other = run("diff", "-f", "-", "--json", stdin=DECLARED + "scaling: {max_replicas: 2}\n")
    assert other.exit_code == 2
    assert json.loads(other.stdout) == {
        "smol": [{"field": "scaling.max_replicas", "before": None, "after": 2}]
    }


def test_diff_of_something_new_shows_every_field(served: Any) -> None:
    result = run("diff", "-f", "-", stdin=DECLARED)
    assert result.exit_code == 2
    assert "model.source" in result.stdout


def test_chat_streams_to_standard_output(served: Any, shapes: Any) -> None:
    stream = shapes.sse(shapes.chunk("Pa"), shapes.chunk("ris"))
    served.on("POST", "/v1/chat/completions", stream)
    result = run("chat", "smol", "Capital?", "--system", "Be brief", "--max-tokens", "5")
    assert (result.exit_code, result.stdout) == (0, "Paris\n")
    assert served.asked[0].json["messages"][0] == {"role": "system", "content": "Be brief"}
    assert served.asked[0].json["max_tokens"] == 5


def test_a_conversation_remembers_what_was_said_but_not_what_failed(
    served: Any, shapes: Any
) -> None:
    broken = httpx.Response(400, json={"error": {"message": "too long"}})
    first, third = shapes.sse(shapes.chunk("A")), shapes.sse(shapes.chunk("C"))
    served.on("POST", "/v1/chat/completions", first, broken, third)
    result = run("chat", "smol", stdin="one\ntwo\nthree\n")
    assert result.exit_code == 0
    assert "error: too long" in result.stderr
    contents = [message["content"] for message in served.asked[2].json["messages"]]
    assert contents == ["one", "A", "three"]


def test_a_stream_that_breaks_ends_with_an_error_and_status_one(served: Any, shapes: Any) -> None:
    served.on("POST", "/v1/chat/completions", shapes.sse(shapes.chunk("Pa"), done=False))
    result = run("chat", "smol", "Capital?")
    assert (result.exit_code, result.stdout) == (1, "Pa\n")
    assert "error: the stream ended before it was done" in result.stderr


def test_invoke_waits_for_the_result_or_gives_the_id(served: Any, shapes: Any) -> None:
    served.on("POST", "/v1/invocations", httpx.Response(202, json=shapes.invocation("queued")))
    served.on("GET", "/v1/invocations/inv_1", shapes.invocation("succeeded"))
    served.on("GET", "/v1/invocations/inv_1/result", shapes.chat("Paris."))
    assert run("invoke", "smol", "Capital?").stdout == "Paris.\n"
    assert run("invoke", "smol", "Capital?", "--no-wait").stdout == "inv_1\n"
    facts = json.loads(run("invoke", "smol", "Capital?", "--json").stdout)
    assert facts["result"]["choices"][0]["message"]["content"] == "Paris."


@pytest.fixture
def batched(served: Any, shapes: Any, tmp_path: Path) -> Path:
    counts = {"total": 2, "completed": 1, "failed": 1}
    files = {"output_file_id": "file_out", "error_file_id": "file_err"}
    done = shapes.batch("completed", request_counts=counts, **files)
    good = {"custom_id": "a", "response": {"status_code": 200, "body": shapes.chat("A")}}
    bad = {"custom_id": "b", "error": {"code": "x", "message": "no"}}
    served.on("POST", "/v1/files", shapes.file())
    served.on("POST", "/v1/batches", shapes.batch("validating"))
    served.on("GET", "/v1/batches/batch_1", shapes.batch("in_progress"), done)
    served.on("GET", "/v1/files/file_out/content", httpx.Response(200, text=json.dumps(good)))
    served.on("GET", "/v1/files/file_err/content", httpx.Response(200, text=json.dumps(bad)))
    path = tmp_path / "in.jsonl"
    path.write_text('{"custom_id": "a", "body": {}}\n')
    return path


def test_batch_writes_every_lines_answer_or_error_and_says_how_it_goes(batched: Path) -> None:
    output = batched.with_name("out.jsonl")
    result = run("batch", "run", "smol", str(batched), "-o", str(output))
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == ["a", "b"]
    assert "batch_1 is completed: 2 of 2, 1 failed" in result.stderr
    assert "warning: 1 of 2 lines failed" in result.stderr


def test_batch_without_an_output_writes_to_standard_output(batched: Path) -> None:
    result = run("batch", "run", "smol", str(batched))
    assert [json.loads(line)["custom_id"] for line in result.stdout.splitlines()] == ["a", "b"]
    assert run("batch", "run", "smol", str(batched), "--no-wait").stdout == "batch_1\n"


PROGRESS = {
    "window_s": 60.0,
    "lines_per_s": 2.5,
    "tokens_per_s": 100.0,
    "completes_at": 1_800_000_000,
    "in_time": False,
    "replica_s": 12.34,
}


def test_batch_watch_says_the_rate_the_end_and_whether_it_is_late(served: Any, shapes: Any) -> None:
    counts = {"total": 9, "completed": 3, "failed": 1}
    running = shapes.batch("in_progress", request_counts=counts, progress=PROGRESS)
    usage = {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
    done = shapes.batch("completed", request_counts=counts, progress=PROGRESS, usage=usage)
    served.on("GET", "/v1/batches/batch_1", running, running, done)
    result = run("batch", "watch", "batch_1")
    assert result.exit_code == 0, result.output
    assert "batch_1 is in_progress: 4 of 9, 1 failed; 2.5 lines/s, 100 tokens/s" in result.stderr
    assert "2027-01-15" in result.stderr and ", after its window" in result.stderr
    assert "12.3 replica-seconds" in result.stdout and "30 + 12 tokens" in result.stdout
    assert "done about" not in result.stdout


def test_batches_are_listed_shown_cancelled_and_retried(served: Any, shapes: Any) -> None:
    served.on("GET", "/v1/batches", {"data": [shapes.batch("expired")], "has_more": False})
    served.on("GET", "/v1/batches/batch_1", shapes.batch("expired"))
    served.on("POST", "/v1/batches/batch_1/cancel", shapes.batch("cancelling"))
    served.on("POST", "/v1/batches/batch_1/retry", shapes.batch("validating", id="batch_2"))
    assert "batch_1  expired" in run("batch", "list").stdout
    assert run("batch", "show", "batch_1").stdout.startswith("batch_1 is expired: 0 of 0")
    assert "cancelling" in run("batch", "cancel", "batch_1").stdout
    assert run("batch", "retry", "batch_1").stdout == "batch_2\n"


def test_batch_run_answers_the_rows_of_a_table(
    served: Any, shapes: Any, batched: Path, tmp_path: Path
) -> None:
    good = {"custom_id": "row-1", "response": {"status_code": 200, "body": shapes.chat("A")}}
    served.on("GET", "/v1/files/file_out/content", httpx.Response(200, text=json.dumps(good)))
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\nhello\n")
    result = run("batch", "run", "smol", str(source), "--column", "text", "-o", str(output))
    assert result.exit_code == 0, result.output
    assert output.read_text().splitlines()[1].startswith("hello,A,,")
    assert "--resume batch_1" in result.stderr
    refused = run("batch", "run", "smol", str(source), "--column", "text")
    assert refused.exit_code == 2 and "--output" in refused.output


def test_batch_run_names_s3_prefixes_to_the_server(served: Any, shapes: Any) -> None:
    served.on("POST", "/v1/batches", shapes.batch("validating", input_file_id=None))
    place = ("s3://b/in/", "-o", "s3://b/out/", "--no-wait")
    assert run("batch", "run", "smol", *place, "--column", "q").exit_code == 2
    result = run("batch", "run", "smol", *place, "--column", "q", "--format", "csv")
    assert result.stdout == "batch_1\n"
    assert served.asked[-1].json["input"] == {
        "uri": "s3://b/in/",
        "format": "csv",
        "model": "smol",
        "column": "q",
    }


def test_a_batch_whose_output_cannot_be_written_is_not_started(served: Any, batched: Path) -> None:
    result = run("batch", "run", "smol", str(batched), "-o", "/nowhere/out.jsonl")
    assert result.exit_code == 1
    assert "'/nowhere/out.jsonl' cannot be written" in result.stderr
    assert served.asked == []


def test_status_shows_the_deployment_and_its_replicas(smol: Any) -> None:
    replica = {
        "id": "rep_1",
        "revision": "rev_1",
        "phase": "ready",
        "pid": 42,
        "port": 8000,
        "cold_start_s": 0.5,
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:05Z",
    }
    away = replica | {"id": "rep_2", "where": "node 10.0.0.3"}
    smol.on("GET", f"{SMOL}/replicas", {"data": [replica, away]})
    shown = run("status", "smol", env={"COLUMNS": "200"}).stdout
    assert "rep_1" in shown
    assert "0.50 s" in shown
    assert "process 42, port 8000" in shown
    assert "node 10.0.0.3" in shown
    assert json.loads(run("status", "smol", "--json").stdout)["replica_list"][0]["pid"] == 42


def test_logs_and_events_are_lines_of_text_or_of_json(smol: Any) -> None:
    lines = [{"replica": "r", "offset": n, "text": f"line {n}"} for n in (1, 2)]
    pages = {"data": lines, "cursor": "c"}, {"data": [], "cursor": "c"}
    smol.on("GET", f"{SMOL}/logs", *pages)
    assert run("logs", "smol").stdout == "r | line 1\nr | line 2\n"
    smol.on("GET", f"{SMOL}/logs", *pages)
    assert run("logs", "smol", "--tail", "1").stdout == "r | line 2\n"
    event = {
        "id": "1",
        "time": "2026-01-02T03:04:05Z",
        "object": "deployment/smol",
        "severity": "info",
        "reason": "Woke",
        "message": "a request came",
    }
    smol.on("GET", f"{SMOL}/events", {"data": [event], "next": "1"})
    assert json.loads(run("events", "smol", "--json").stdout)["reason"] == "Woke"
    assert "a request came" in run("events", "smol").stdout


def test_decisions_are_lines_of_text_or_of_json_over_all_pages(smol: Any) -> None:
    def decision(number: str, sentence: str) -> dict[str, Any]:
        return {
            "id": number,
            "time": "2026-01-01T00:00:00Z",
            "desired": 1,
            "called_for": 1,
            "term": "work",
            "sentence": sentence,
            "inputs": {"bounds": {}, "signals": {"held": 1}},
        }

    first = {"data": [decision("1", "1 replica: one")], "has_more": True, "next": "1"}
    second = {"data": [decision("2", "1 replica: two")]}
    smol.on("GET", f"{SMOL}/decisions", first, second, first, second)
    shown = run("decisions", "smol").stdout.splitlines()
    assert [line[-20:] for line in shown] == [
        "work        1 replica: one"[-20:],
        "work        1 replica: two"[-20:],
    ]
    lines = run("decisions", "smol", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["1", "2"]


def test_scale_wake_and_delete_say_what_became_of_it(smol: Any, shapes: Any) -> None:
    gone = httpx.Response(404, json=shapes.problem(404, "not_found", "no"))
    smol.on("POST", f"{SMOL}/scale", shapes.deployment())
    smol.on("POST", f"{SMOL}/wake", httpx.Response(202, json=shapes.deployment(phase="waking")))
    smol.on("DELETE", SMOL, httpx.Response(202, json=shapes.deployment(phase="deleting")))
    assert run("scale", "smol", "--max", "2").exit_code == 0
    assert run("wake", "smol").stdout == "smol is asked to wake; it is waking\n"
    smol.on("GET", SMOL, gone)
    assert run("delete", "smol").stdout == "smol is deleted\n"


def test_adapters_are_added_listed_and_removed(smol: Any, shapes: Any) -> None:
    spec = {**shapes.deployment()["spec"], "runtime": {"adapters": {"poet": "s3://adapters/poet"}}}
    smol.on("PUT", f"{SMOL}/adapters/poet", shapes.deployment(spec=spec))
    short, other = "runtime.adapters.poet: it is cut short", "runtime.adapters.bard: it is gone"
    smol.on("POST", "/api/v1/plans", plan_view(warnings=[short, other]))
    added = run("adapters", "add", "smol", "poet", "s3://adapters/poet")
    assert added.stderr == f"warning: {short}\n"
    assert added.stdout == "smol:poet is served from s3://adapters/poet\n"
    assert "smol has no adapters" in run("adapters", "ls", "smol").output
    smol.on("GET", SMOL, shapes.deployment(spec=spec))
    assert "smol:poet" in run("adapters", "ls", "smol").output
    assert json.loads(run("adapters", "ls", "smol", "--json").stdout) == {
        "poet": "s3://adapters/poet"
    }
    smol.on("DELETE", f"{SMOL}/adapters/poet", shapes.deployment())
    assert run("adapters", "remove", "smol", "poet").stdout == "smol:poet is no longer served\n"


def test_a_new_keys_secret_is_all_that_goes_to_standard_output(served: Any) -> None:
    created = {
        "id": "key_1",
        "name": "ci",
        "role": "inference",
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "created_at": "2026-01-02T03:04:05Z",
        "key": "tg_new",
    }
    served.on("POST", "/api/v1/api-keys", httpx.Response(201, json=created))
    result = run("keys", "create", "ci", "--unlimited")
    assert result.stdout == "tg_new\n"
    assert served.asked[0].json["requests_per_minute"] is None
    served.on("DELETE", "/api/v1/api-keys/key_1", created)
    assert run("keys", "revoke", "key_1").stdout == "key key_1 for 'ci' is revoked\n"
    listed = {key: value for key, value in created.items() if key != "key"}
    served.on("GET", "/api/v1/api-keys", {"data": [listed]})
    assert json.loads(run("keys", "ls", "--json").stdout)[0]["id"] == "key_1"


def test_a_first_key_is_made_without_any_platform(served: Any) -> None:
    result = run("keys", "new")
    assert read_secret(result.stdout.strip()) is not None
    assert "TIDEGATE_ADMIN_KEY" in result.stderr
    assert read_secret(json.loads(run("keys", "new", "--json").stdout)["key"]) is not None
    assert served.asked == []


def test_plan_models_and_usage_have_tables_and_json(served: Any) -> None:
    view = plan_view(changes=[{"field": "mode", "after": "serverless"}], warnings=["it is small"])
    facts = view["model"]
    served.on("POST", "/api/v1/plans", view)
    shown = run("plan", "-f", "-", stdin=DECLARED)
    assert "smol: create" in shown.stdout
    assert "warning: it is small" in shown.stderr
    version = {"id": "v", "digest": "sha256:0", "source": "/m", "facts": facts}
    version["created_at"] = "2026-01-02T03:04:05Z"
    model = {"id": "mod_1", "source": "/m", "task": "generate", "versions": [version]}
    model["created_at"] = "2026-01-02T03:04:05Z"
    served.on("GET", "/api/v1/models", {"data": [model]})
    assert "135M" in run("models").stdout
    used = {"deployment": "smol", "mode": "batch", "requests": 3}
    used |= {"prompt_tokens": 5, "completion_tokens": 7}
    served.on("GET", "/api/v1/usage", {"data": [used]})
    assert json.loads(run("usage", "--json").stdout) == [used]
    assert "smol" in run("usage").stdout


def test_every_command_takes_json() -> None:
    import typer

    root: Any = typer.main.get_command(app)
    commands = dict(root.commands)
    for group in [name for name, command in commands.items() if hasattr(command, "commands")]:
        below = commands.pop(group).commands
        commands |= {f"{group} {name}": command for name, command in below.items()}
    without = [
        name
        for name, command in commands.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert without == []
    assert len(commands) > 40


def test_the_version_is_told_where_other_commands_tell_theirs() -> None:
    told = run("--version")
    assert told.exit_code == 0
    assert told.stdout == f"tidegate {tidegate.__version__}\n"


def test_schema_version_and_demo_model_need_no_server() -> None:
    assert json.loads(run("schema").stdout)["title"] == "Tidegate deployment"
    assert json.loads(run("version", "--json").stdout)["server"] is None
    assert run("demo-model").stdout.endswith(".gguf\n")


ENCRYPTION = "/api/v1/encryption"
SEALED: dict[str, Any] = {"keys": ["file:old", "file:new"], "newest": "file:new", "required": False}


def test_a_rotation_says_which_key_may_be_taken_away(served: Any) -> None:
    use = {"key": "file:new", "objects": 3, "rows": 4}
    served.on("POST", f"{ENCRYPTION}/passes", SEALED | {"running": True})
    served.on("GET", ENCRYPTION, SEALED | {"uses": [use], "rewrapped": 7})
    shown = run("encryption", "rotate")
    assert shown.exit_code == 0
    assert "nothing is sealed under file:old: it may be taken away" in shown.stdout
    assert json.loads(run("encryption", "status", "--json").stdout)["rewrapped"] == 7
    begun = [asked.json for asked in served.asked if asked.method == "POST"]
    assert begun == [{"rewrap": True}, {"rewrap": False}]


def test_a_rotation_that_left_something_ends_with_an_error_and_keeps_the_key(served: Any) -> None:
    served.on("POST", f"{ENCRYPTION}/passes", SEALED | {"running": True})
    served.on("GET", ENCRYPTION, SEALED | {"failed": 1, "errors": ["'prj_1/x' does not open"]})
    shown = run("encryption", "rotate")
    assert shown.exit_code == 1
    assert "taken away" not in shown.stdout and "'prj_1/x' does not open" in shown.stderr


def test_status_says_when_encryption_is_off_and_begins_no_pass(served: Any) -> None:
    served.on("GET", ENCRYPTION, {"keys": [], "newest": None, "required": False})
    assert "encryption is off" in run("encryption", "status").stdout


def test_forget_deletes_a_finished_invocation(served: Any) -> None:
    served.on("DELETE", "/v1/invocations/inv_1", {"id": "inv_1", "deleted": True})
    assert "inv_1 are deleted" in run("forget", "inv_1").stdout
