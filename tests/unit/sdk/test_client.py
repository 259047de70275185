"""What the client does, the same for both twins, against a canned server."""

from __future__ import annotations

import inspect
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tidegate import (
    AsyncClient,
    BatchFailed,
    ChatAnswer,
    Client,
    ConfigurationError,
    ConnectionFailed,
    DeploymentFailed,
    DeploymentSpec,
    InvalidDeclaration,
    InvocationFailed,
    NotFound,
    PreconditionFailed,
    RequestTimeout,
    TableError,
    UnexpectedAnswer,
    WaitTimeout,
)
from tidegate.protocol.batch import TableInput, TableOutput
from tidegate.protocol.resources import DeploymentView
from tidegate.routes.deployments import path

SMOL = "/api/v1/deployments/smol"


@pytest.fixture(params=[Client, AsyncClient], ids=["waited", "awaited"])
def client(request: pytest.FixtureRequest, canned: Any) -> Any:
    return request.param("http://tide", "tg_k", max_retries=0, transport=canned.transport())


async def got(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def items(stream: Any) -> list[Any]:
    if hasattr(stream, "__aiter__"):
        return [item async for item in stream]
    return list(stream)


@pytest.fixture
async def smol(client: Any, canned: Any, shapes: Any) -> Any:
    canned.on("GET", SMOL, shapes.deployment())
    return await got(client.deployments.get("smol"))


async def test_every_request_carries_the_key_and_says_who_asks(client: Any, canned: Any) -> None:
    canned.on("GET", "/api/v1/usage", {"data": []})
    assert await got(client.usage()) == []
    headers = canned.asked[0].headers
    assert headers["authorization"] == "Bearer tg_k"
    assert headers["user-agent"].startswith("tidegate-python/")


async def test_deploying_declares_with_an_absolute_path_and_no_defaults(
    client: Any, canned: Any, shapes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = httpx.Response(201, json=shapes.deployment(), headers={"etag": '"1"'})
    canned.on("PUT", SMOL, answer)
    deployment = await got(
        client.deploy("m.gguf", name="smol", scaling={"max_replicas": 2}, labels={"a": "b"})
    )
    assert canned.asked[0].json == {
        "name": "smol",
        "model": {"source": str(tmp_path / "m.gguf")},
        "mode": "serverless",
        "scaling": {"max_replicas": 2},
        "labels": {"a": "b"},
    }
    assert (deployment.name, deployment.phase, deployment.etag) == ("smol", "ready", '"1"')


async def test_a_whole_spec_can_be_deployed_but_not_with_further_fields(
    client: Any, canned: Any, shapes: Any
) -> None:
    spec = DeploymentSpec.model_validate({"name": "smol", "model": "/m", "mode": "realtime"})
    canned.on("PUT", SMOL, shapes.deployment())
    await got(client.deploy(spec))
    assert canned.asked[0].json["mode"] == "realtime"
    with pytest.raises(ConfigurationError, match="also name, mode"):
        await got(client.deploy(spec, name="x", mode="batch"))


async def test_an_impossible_declaration_is_refused_before_anything_is_sent(
    client: Any, canned: Any
) -> None:
    with pytest.raises(InvalidDeclaration, match="realtime means always on") as caught:
        await got(client.deploy("/m", name="x", mode="realtime", scaling={"min_replicas": 0}))
    assert caught.value.issues[0].field == "scaling.min_replicas"
    assert canned.asked == []


async def test_without_replace_a_taken_name_is_a_failed_precondition(
    client: Any, canned: Any, shapes: Any
) -> None:
    taken = shapes.problem(412, "name_taken", "'smol' is taken")
    canned.on("PUT", SMOL, httpx.Response(412, json=taken))
    with pytest.raises(PreconditionFailed, match="'smol' is taken"):
        await got(client.deploy("/m", name="smol", replace=False))
    assert canned.asked[0].headers["if-none-match"] == "*"


async def test_a_list_asks_for_the_next_page_only_when_someone_iterates_that_far(
    client: Any, canned: Any, shapes: Any
) -> None:
    def page(asked: Any) -> dict[str, Any]:
        if asked.query.get("after") == "c1":
            return {"data": [shapes.deployment("c")], "has_more": False}
        two = [shapes.deployment("a"), shapes.deployment("b")]
        return {"data": two, "has_more": True, "next": "c1"}

    canned.on("GET", "/api/v1/deployments", page)
    listing = client.deployments.list(mode="batch")
    assert canned.asked == []
    found = await items(listing)
    assert [deployment.name for deployment in found] == ["a", "b", "c"]
    assert [asked.query["mode"] for asked in canned.asked] == ["batch", "batch"]


async def test_the_data_planes_lists_are_paged_by_their_last_id(
    client: Any, canned: Any, shapes: Any
) -> None:
    canned.on(
        "GET",
        "/v1/files",
        {"data": [shapes.file("a")], "has_more": True, "last_id": "a"},
        {"data": [shapes.file("b")], "has_more": False, "last_id": "b"},
    )
    assert [file.id for file in await items(client.files.list())] == ["a", "b"]
    assert canned.asked[1].query["after"] == "a"


async def test_waiting_sees_every_change_and_ends_when_a_request_would_be_answered(
    smol: Any, canned: Any, shapes: Any
) -> None:
    canned.on(
        "GET",
        SMOL,
        shapes.deployment(phase="provisioning"),
        shapes.deployment(phase="provisioning"),
        shapes.deployment(phase="idle"),
    )
    seen: list[DeploymentView] = []
    assert await got(smol.wait_ready(on_progress=seen.append)) is smol
    assert [view.phase for view in seen] == ["provisioning", "idle"]


async def test_a_ready_deployment_that_still_serves_the_old_generation_is_waited_for(
    smol: Any, canned: Any, shapes: Any
) -> None:
    canned.on("GET", SMOL, shapes.deployment(generation=2), shapes.deployment(generation=1))
    await got(smol.wait_ready())
    assert len(canned.paths("GET")) == 3


async def test_waiting_for_a_failed_deployment_raises_its_reason_at_once(
    smol: Any, canned: Any, shapes: Any
) -> None:
    condition = {
        "type": "Ready",
        "status": False,
        "reason": "ModelNotFound",
        "message": "/m is not there",
        "since": "2026-01-02T03:04:05Z",
    }
    canned.on("GET", SMOL, shapes.deployment(phase="failed", conditions=[condition]))
    with pytest.raises(DeploymentFailed, match=r"'smol' is failed .*: /m is not there") as caught:
        await got(smol.wait_ready())
    assert (caught.value.reason, caught.value.message) == ("ModelNotFound", "/m is not there")


async def test_waiting_ends_with_its_time(smol: Any, canned: Any, shapes: Any) -> None:
    canned.on("GET", SMOL, shapes.deployment(phase="provisioning"))
    with pytest.raises(WaitTimeout, match=r"still provisioning after 0\.05 s"):
        await got(smol.wait_ready(timeout_s=0.05))


async def test_text_alone_is_one_message_of_the_user(client: Any, canned: Any, shapes: Any) -> None:
    canned.on("POST", "/v1/chat/completions", shapes.chat("Paris."))
    answer = await got(client.model("smol").chat("Capital?", temperature=0, max_tokens=8))
    assert isinstance(answer, ChatAnswer)
    assert answer.text == "Paris."
    assert canned.asked[0].json == {
        "model": "smol",
        "messages": [{"role": "user", "content": "Capital?"}],
        "temperature": 0,
        "max_tokens": 8,
    }


async def test_calls_of_tools_are_close_at_hand(client: Any, canned: Any, shapes: Any) -> None:
    made = shapes.chat("")
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    made["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
    canned.on("POST", "/v1/chat/completions", made)
    tools = [{"type": "function", "function": {"name": "now"}}]
    answer = await got(client.model("smol").chat("When?", tools=tools, tool_choice="required"))
    assert [call.function.name for call in answer.tool_calls] == ["now"]
    assert answer.text == ""
    assert canned.asked[0].json["tools"] == tools


async def test_a_stream_gives_text_piece_by_piece(client: Any, canned: Any, shapes: Any) -> None:
    stream = shapes.sse(shapes.chunk("Pa"), shapes.chunk("ris"))
    canned.on("POST", "/v1/chat/completions", stream)
    chunks = await items(client.model("smol").stream("Capital?"))
    assert [chunk.text for chunk in chunks] == ["Pa", "ris"]
    assert canned.asked[0].json["stream"] is True


async def test_a_refused_stream_raises_the_typed_error(client: Any, canned: Any) -> None:
    body = {"error": {"message": "no deployment", "type": "t", "code": "model_not_found"}}
    canned.on("POST", "/v1/chat/completions", httpx.Response(404, json=body))
    with pytest.raises(NotFound, match="no deployment") as caught:
        await items(client.model("nope").stream("?"))
    assert caught.value.code == "model_not_found"


async def test_completions_and_embeddings_have_their_part_at_hand(client: Any, canned: Any) -> None:
    choice = {"index": 0, "text": " Paris", "finish_reason": "stop"}
    text = {"id": "c", "created": 1, "model": "smol", "choices": [choice]}
    canned.on("POST", "/v1/completions", text)
    vectors = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    canned.on("POST", "/v1/embeddings", {"data": vectors, "model": "smol", "usage": usage})
    model = client.model("smol")
    assert (await got(model.complete("The capital is"))).text == " Paris"
    assert (await got(model.embed(["a", "b"]))).vectors == [[1.0], [2.0]]


async def test_documents_are_ranked_and_pairs_are_scored(client: Any, canned: Any) -> None:
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    found = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.2}]
    ranks = {"id": "r", "model": "judge", "results": found, "usage": usage}
    canned.on("POST", "/v1/rerank", ranks, ranks)
    data = [{"index": 1, "score": 0.5}, {"index": 0, "score": -0.25}]
    scores = {"id": "s", "created": 1, "model": "judge", "data": data, "usage": usage}
    canned.on("POST", "/v1/score", scores)
    model = client.model("judge")
    ranked = await got(model.rerank("tides", ["a", "b"], top_n=2))
    assert (ranked.order, ranked.results[0].relevance_score) == ([1, 0], 0.9)
    await got(model.rerank("tides", ["a", "b"]))
    assert (await got(model.score("tides", ["a", "b"]))).values == [-0.25, 0.5]
    plain = {"model": "judge", "query": "tides", "documents": ["a", "b"]}
    assert [asked.json for asked in canned.asked] == [
        {**plain, "top_n": 2},
        plain,
        {"model": "judge", "text_1": "tides", "text_2": ["a", "b"]},
    ]


@pytest.mark.parametrize(
    ("endpoint", "made", "values"),
    [
        ("/v1/rerank", {"results": [{"index": 0, "relevance_score": 1.0}]}, {"order": [0]}),
        ("/v1/score", {"created": 1, "data": [{"index": 0, "score": 1.0}]}, {"values": [1.0]}),
    ],
)
async def test_ranks_and_scores_that_were_handed_in_are_read_as_such(
    client: Any, canned: Any, shapes: Any, endpoint: str, made: Any, values: dict[str, Any]
) -> None:
    done = {**shapes.invocation("succeeded"), "endpoint": endpoint}
    canned.on("POST", "/v1/invocations", httpx.Response(202, json=done))
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    canned.on(
        "GET", "/v1/invocations/inv_1/result", {"id": "x", "model": "m", "usage": usage, **made}
    )
    work = await got(client.model("judge").submit({"query": "a", "documents": ["b"]}))
    answer = await got(work.result())
    assert {name: getattr(answer, name) for name in values} == values


async def test_text_and_conversations_become_tokens_and_text_again(
    client: Any, canned: Any
) -> None:
    made = {"count": 2, "max_model_len": 8, "tokens": [5, 6], "token_strs": None}
    canned.on("POST", "/v1/tokenize", made, made)
    canned.on("POST", "/v1/detokenize", {"prompt": "hi"})
    model, messages = client.model("smol:poet"), [{"role": "user", "content": "hi"}]
    found = await got(model.tokenize("hi", add_special_tokens=False))
    assert (found.count, found.max_model_len, found.tokens) == (2, 8, [5, 6])
    await got(model.tokenize(messages, add_generation_prompt=False))
    assert await got(model.detokenize(found.tokens)) == "hi"
    assert [asked.json for asked in canned.asked] == [
        {"model": "smol:poet", "prompt": "hi", "add_special_tokens": False},
        {"model": "smol:poet", "messages": messages, "add_generation_prompt": False},
        {"model": "smol:poet", "tokens": [5, 6]},
    ]


async def test_submitting_makes_up_a_key_and_the_result_is_waited_for(
    client: Any, canned: Any, shapes: Any
) -> None:
    canned.on("POST", "/v1/invocations", httpx.Response(202, json=shapes.invocation("queued")))
    running, done = shapes.invocation("running"), shapes.invocation("succeeded")
    canned.on("GET", "/v1/invocations/inv_1", running, done)
    canned.on("GET", "/v1/invocations/inv_1/result", shapes.chat("Paris."))
    model = client.model("smol")
    invocation = await got(model.submit("Capital?", timeout_s=60, max_tokens=4))
    await got(model.submit("Capital?"))
    keys = [asked.headers["idempotency-key"] for asked in canned.asked]
    assert (invocation.id, invocation.status) == ("inv_1", "queued")
    assert len(set(keys)) == 2
    assert canned.asked[0].query == {"timeout_s": "60"}
    assert canned.asked[0].json["max_tokens"] == 4
    assert (await got(invocation.result())).text == "Paris."


@pytest.mark.parametrize("status", ["failed", "dead", "canceled", "expired"])
async def test_an_invocation_without_a_result_raises_why(
    client: Any, canned: Any, shapes: Any, status: str
) -> None:
    error = {"message": "out of luck", "type": "server_error"}
    canned.on("GET", "/v1/invocations/inv_1", shapes.invocation(status, error=error))
    invocation = await got(client.invocations.get("inv_1"))
    with pytest.raises(InvocationFailed, match=f"inv_1 {status}: out of luck"):
        await got(invocation.result())


async def test_a_batch_is_uploaded_started_waited_for_and_read(
    client: Any, canned: Any, shapes: Any, tmp_path: Path
) -> None:
    counts = {"total": 2, "completed": 2, "failed": 0}
    done = shapes.batch("completed", output_file_id="file_out", request_counts=counts)
    line = {"custom_id": "request-1", "response": {"status_code": 200, "body": shapes.chat("A")}}
    canned.on("POST", "/v1/files", shapes.file())
    canned.on("POST", "/v1/batches", shapes.batch("validating"))
    canned.on("GET", "/v1/batches/batch_1", shapes.batch("in_progress"), done)
    canned.on("GET", "/v1/files/file_out/content", httpx.Response(200, text=json.dumps(line)))
    seen: list[Any] = []
    batch = await got(client.model("smol").batch(["one", {"messages": []}], metadata={"k": "v"}))
    assert await got(batch.wait(on_progress=seen.append)) is batch
    assert [view.status for view in seen] == ["in_progress", "completed"]
    assert batch.counts.completed == 2
    assert [(r.custom_id, r.text, r.failure) for r in await items(batch.results())] == [
        ("request-1", "A", None)
    ]
    assert await items(batch.errors()) == []
    upload = canned.asked[0]
    assert b'name="purpose"\r\n\r\nbatch' in upload.content
    assert b'"model":"smol","messages":[{"role":"user","content":"one"}]' in upload.content
    assert canned.asked[1].json == {
        "input_file_id": "file_in",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"k": "v"},
    }


async def test_a_batch_may_have_another_window_and_an_end_of_its_output(
    client: Any, canned: Any, shapes: Any
) -> None:
    canned.on("POST", "/v1/files", shapes.file())
    canned.on("POST", "/v1/batches", shapes.batch("validating"))
    terms = {"completion_window": "7d", "output_expires_after_s": 3600}
    await got(client.model("smol").batch(["one"], **terms))
    await got(client.batches.create("file_in", "/v1/completions", **terms))
    for asked in canned.asked[1:]:
        assert asked.json["completion_window"] == "7d"
        assert asked.json["output_expires_after"] == {"anchor": "created_at", "seconds": 3600}


async def test_an_upload_says_when_it_expires(client: Any, canned: Any, shapes: Any) -> None:
    canned.on("POST", "/v1/files", shapes.file())
    await got(client.files.upload(io.BytesIO(b"{}"), filename="a", expires_after_s=3600))
    [upload] = canned.asked
    assert b'name="expires_after[seconds]"\r\n\r\n3600' in upload.content
    assert b'name="expires_after[anchor]"\r\n\r\ncreated_at' in upload.content


async def test_the_lines_that_were_not_answered_are_run_again_as_another_batch(
    client: Any, canned: Any, shapes: Any
) -> None:
    canned.on("GET", "/v1/batches/batch_1", shapes.batch("expired"))
    canned.on("POST", "/v1/batches/batch_1/retry", shapes.batch("validating", id="batch_2"))
    batch = await got(client.batches.get("batch_1"))
    assert (await got(batch.retry())).id == (await got(client.batches.retry("batch_1"))).id
    assert canned.paths("POST") == ["/v1/batches/batch_1/retry"] * 2


async def test_tables_in_s3_are_named_to_the_server(client: Any, canned: Any, shapes: Any) -> None:
    canned.on("POST", "/v1/batches", shapes.batch("validating", input_file_id=None))
    source = {"uri": "s3://b/in/", "format": "parquet", "column": "q", "model": "smol"}
    await got(client.batches.transform(source, {"uri": "s3://b/out/"}))
    await got(client.batches.transform(TableInput(**source), TableOutput(uri="s3://b/out/")))
    for asked in canned.asked:
        assert asked.json == {
            "input": source,
            "output": {"uri": "s3://b/out/"},
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }


@pytest.fixture
def answered_table(canned: Any, shapes: Any, tmp_path: Path) -> Path:
    """A table of four rows: one answered, one without a prompt, one failed, one answered."""
    lines = {
        "file_out": [
            ("row-1", {"response": {"status_code": 200, "body": shapes.chat("A")}}),
            ("row-4", {"response": {"status_code": 200, "body": shapes.chat("D")}}),
        ],
        "file_err": [("row-3", {"error": {"code": "batch_expired", "message": "too late"}})],
    }
    canned.on("POST", "/v1/files", shapes.file())
    canned.on("POST", "/v1/batches", shapes.batch("validating"))
    for file_id, found in lines.items():
        text = "".join(json.dumps({"custom_id": name, **rest}) + "\n" for name, rest in found)
        canned.on("GET", f"/v1/files/{file_id}/content", httpx.Response(200, text=text))
    path = tmp_path / "in.jsonl"
    path.write_text('{"q": "a"}\n{"x": 1}\n{"q": "c"}\n{"q": "d"}\n')
    return path


@pytest.mark.parametrize("status", ["completed", "expired"])
async def test_a_table_comes_back_with_every_row_and_its_answer_or_error(
    client: Any, canned: Any, shapes: Any, answered_table: Path, status: str
) -> None:
    files = {"output_file_id": "file_out", "error_file_id": "file_err"}
    canned.on("GET", "/v1/batches/batch_1", shapes.batch(status, **files))
    job = await got(client.model("smol").batch_table(answered_table, column="q"))
    sent = canned.asked[0].content
    assert sent.count(b'"custom_id"') == 3 and b'"row-2"' not in sent
    output = answered_table.with_name("out.jsonl")
    if status == "completed":
        await got(job.write(output))
    else:
        with pytest.raises(BatchFailed):
            await got(job.write(output))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row.get("q"), row["answer"], row["error"]) for row in rows] == [
        ("a", "A", None),
        (None, None, "invalid_row: the column 'q' has no value"),
        ("c", None, "too late"),
        ("d", "D", None),
    ]
    assert list(answered_table.parent.glob(".*")) == []


async def test_a_table_batch_is_taken_up_again_by_its_id(
    client: Any, canned: Any, shapes: Any, answered_table: Path
) -> None:
    files = {"output_file_id": "file_out", "error_file_id": "file_err"}
    canned.on("GET", "/v1/batches/batch_1", shapes.batch("completed", **files))
    model = client.model("smol")
    job = await got(model.batch_table(answered_table, column="q", resume="batch_1"))
    await got(job.write(answered_table.with_name("out.jsonl")))
    assert canned.paths("POST") == []


async def test_a_table_whose_output_cannot_be_written_leaves_nothing_behind(
    client: Any, canned: Any, shapes: Any, answered_table: Path
) -> None:
    files = {"output_file_id": "file_out", "error_file_id": "file_err"}
    canned.on("GET", "/v1/batches/batch_1", shapes.batch("completed", **files))
    job = await got(client.model("smol").batch_table(answered_table, column="q"))
    with pytest.raises(TableError, match="cannot be written"):
        await got(job.write("/nowhere/out.jsonl"))
    with pytest.raises(TableError, match="jsonl rows cannot be written as parquet"):
        await got(job.write(answered_table.with_name("out.parquet")))
    assert [path.name for path in answered_table.parent.iterdir()] == ["in.jsonl"]


async def test_a_refused_batch_takes_its_uploaded_file_back(
    client: Any, canned: Any, shapes: Any
) -> None:
    canned.on("POST", "/v1/files", shapes.file())
    canned.on("POST", "/v1/batches", httpx.Response(404, json={"error": {"message": "no"}}))
    canned.on("DELETE", "/v1/files/file_in", {"id": "file_in", "deleted": True})
    with pytest.raises(NotFound):
        await got(client.model("nope").batch(["one"]))
    assert canned.paths("DELETE") == ["/v1/files/file_in"]


async def test_a_batch_that_failed_raises_the_first_line_at_fault(
    client: Any, canned: Any, shapes: Any
) -> None:
    errors = {"data": [{"code": "x", "message": "not JSON", "line": 7}]}
    canned.on("GET", "/v1/batches/batch_1", shapes.batch("failed", errors=errors))
    batch = await got(client.batches.get("batch_1"))
    with pytest.raises(BatchFailed, match="batch_1 failed: line 7: not JSON"):
        await got(batch.wait())


async def test_a_batch_file_that_is_not_there_is_named(client: Any, canned: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.jsonl.*No such file"):
        await got(client.model("smol").batch("nowhere.jsonl"))
    assert canned.asked == []


async def test_a_file_is_uploaded_from_its_beginning_and_read_back(
    client: Any, canned: Any, shapes: Any
) -> None:
    canned.on("POST", "/v1/files", shapes.file())
    canned.on("GET", "/v1/files/file_in/content", httpx.Response(200, content=b"a\n\nb"))
    source = io.BytesIO(b"whole")
    source.read(3)
    await got(client.files.upload(source, filename="in.jsonl"))
    assert b'filename="in.jsonl"' in canned.asked[0].content
    assert b"\r\n\r\nwhole\r\n" in canned.asked[0].content
    assert await got(client.files.content("file_in")) == b"a\n\nb"
    assert await items(client.files.lines("file_in")) == ["a", "b"]


async def test_logs_are_read_to_their_end_and_followed_beyond_it(smol: Any, canned: Any) -> None:
    def page(*texts: str, cursor: str) -> dict[str, Any]:
        lines = [{"replica": "r", "offset": 1, "text": text} for text in texts]
        return {"data": lines, "cursor": cursor}

    canned.on("GET", f"{SMOL}/logs", page("a", cursor="1"), page(cursor="1"))
    assert [line.text for line in await items(smol.logs())] == ["a"]
    canned.on(
        "GET",
        f"{SMOL}/logs",
        page("a", cursor="1"),
        page(cursor="1"),
        page("b", cursor="2"),
    )
    following = smol.logs(follow=True)
    take = following.__anext__ if hasattr(following, "__anext__") else following.__next__
    assert [(await got(take())).text for _ in range(2)] == ["a", "b"]
    await got(following.close())
    assert canned.asked[-1].query["cursor"] == "1"


async def test_events_are_followed_from_where_the_last_page_ended(smol: Any, canned: Any) -> None:
    def event(number: int) -> dict[str, Any]:
        return {
            "id": str(number),
            "time": "2026-01-02T03:04:05Z",
            "object": "deployment/smol",
            "severity": "info",
            "reason": "Woke",
            "message": str(number),
        }

    canned.on(
        "GET",
        f"{SMOL}/events",
        {"data": [event(1)], "next": "1"},
        {"data": [event(2)], "next": "2"},
    )
    following = smol.events(follow=True)
    take = following.__anext__ if hasattr(following, "__anext__") else following.__next__
    assert [(await got(take())).message for _ in range(2)] == ["1", "2"]
    await got(following.close())
    assert canned.asked[-1].query == {"after": "1", "wait_s": "25"}


async def test_deleting_waits_until_nothing_is_left(client: Any, canned: Any, shapes: Any) -> None:
    gone = httpx.Response(404, json=shapes.problem(404, "not_found", "no"))
    canned.on("DELETE", SMOL, httpx.Response(202, json=shapes.deployment(phase="deleting")))
    canned.on("GET", SMOL, shapes.deployment(phase="deleting"), gone)
    await got(client.deployments.delete("smol"))
    assert len(canned.paths("GET")) == 2


async def test_scaling_sends_only_the_bounds_that_are_given(
    smol: Any, canned: Any, shapes: Any
) -> None:
    canned.on("POST", f"{SMOL}/scale", shapes.deployment(generation=2))
    assert await got(smol.scale(max=3)) is smol
    assert canned.asked[-1].json == {"max_replicas": 3}
    assert smol.view.generation == 2


async def test_an_adapter_comes_and_goes_and_a_path_is_made_absolute(
    smol: Any, canned: Any, shapes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    canned.on("PUT", f"{SMOL}/adapters/poet", shapes.deployment(generation=2))
    assert await got(smol.add_adapter("poet", "adapters/poet")) is smol
    assert canned.asked[-1].json == {"source": str(tmp_path / "adapters" / "poet")}
    await got(smol.add_adapter("poet", "s3://bucket/poet"))
    assert canned.asked[-1].json == {"source": "s3://bucket/poet"}
    canned.on("DELETE", f"{SMOL}/adapters/poet", shapes.deployment(generation=3))
    await got(smol.remove_adapter("poet"))
    assert smol.view.generation == 3


async def test_a_key_is_made_with_its_limits_and_none_means_none(client: Any, canned: Any) -> None:
    created = {
        "id": "key_1",
        "name": "ci",
        "role": "inference",
        "requests_per_minute": None,
        "tokens_per_minute": 5,
        "created_at": "2026-01-02T03:04:05Z",
        "key": "tg_new",
    }
    canned.on("POST", "/api/v1/api-keys", httpx.Response(201, json=created))
    key = await got(client.keys.create("ci", requests_per_minute=None, tokens_per_minute=5))
    assert key.key == "tg_new"
    assert canned.asked[0].json == {
        "name": "ci",
        "role": "inference",
        "requests_per_minute": None,
        "tokens_per_minute": 5,
    }


async def test_an_answer_that_is_not_tidegates_is_said_to_be_so(client: Any, canned: Any) -> None:
    canned.on("GET", SMOL, {"hello": "world"})
    with pytest.raises(UnexpectedAnswer, match="is this URL a Tidegate server"):
        await got(client.deployments.get("smol"))


@pytest.mark.parametrize(
    ("cause", "kind", "sent"),
    [
        (httpx.ConnectError("refused"), ConnectionFailed, False),
        (httpx.ReadError("reset"), ConnectionFailed, True),
        (httpx.ReadTimeout("slow"), RequestTimeout, True),
        (httpx.ConnectTimeout("slow"), RequestTimeout, False),
    ],
)
async def test_a_failed_connection_is_typed_and_knows_whether_anything_was_sent(
    client: Any, canned: Any, cause: Exception, kind: type[ConnectionFailed], sent: bool
) -> None:
    canned.on("GET", SMOL, cause)
    with pytest.raises(kind, match="http://tide") as caught:
        await got(client.deployments.get("smol"))
    assert caught.value.sent is sent


async def test_a_busy_server_is_asked_again_after_the_time_it_gave(
    client: Any, canned: Any, shapes: Any
) -> None:
    busy = httpx.Response(503, headers={"retry-after": "0"}, json={"error": {"message": "busy"}})
    canned.on("POST", "/v1/chat/completions", busy, shapes.chat("ok"))
    patient = client.with_options(max_retries=1)
    assert (await got(patient.model("smol").chat("?"))).text == "ok"


async def test_a_timeout_can_be_given_for_one_call_and_for_a_client() -> None:
    seen: list[dict[str, float]] = []

    def remember(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return httpx.Response(404)

    client = Client("http://tide", "k", transport=httpx.MockTransport(remember))
    for asking in (client, client.with_options(timeout=7)):
        for timeout in (None, 3):
            with pytest.raises(NotFound):
                asking.model("m").chat("?", timeout=timeout)
    assert [each["read"] for each in seen] == [600, 3, 7, 3]
    assert [each["connect"] for each in seen] == [5, 3, 5, 3]


def test_names_cannot_escape_their_path() -> None:
    assert path("../usage", "logs") == "/api/v1/deployments/..%2Fusage/logs"
