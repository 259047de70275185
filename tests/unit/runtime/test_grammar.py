"""From what a caller asks for to a compiled grammar, or to a refusal that says what is wrong."""

import asyncio
import io
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.runtime.grammars import END, SIZE, byte_tokenizer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.grammar.compiler import MAX_WAITING, Compiler
from tidegate_runtime.grammar.source import MAX_BYTES, GrammarSource
from tidegate_runtime.grammar.tables import read_tables
from tidegate_runtime.grammar.vocabulary import Vocabulary

NODE = {
    "type": "object",
    "properties": {"next": {"$ref": "#/$defs/node"}},
    "required": ["next"],
    "additionalProperties": False,
}
CHAIN = {
    "anyOf": [{"$ref": "#/$defs/end"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]
}
"""Brackets, and in the innermost the end."""
CROSSED = {"type": "string", "minLength": 5, "maxLength": 3}
BOMB = {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}, {"multipleOf": 9949}]}


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    for _ in range(depth // 2):
        made = {"type": "object", "properties": {"a": made}}
    return made


def lists_within(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(depth - 1):
        made = {"items": made}
    return made


@pytest.mark.parametrize(
    ("schema", "code", "said"),
    [
        (
            {"properties": {"a/b": {"not": {}}}},
            "invalid_schema",
            "at /properties/a~1b: the keyword",
        ),
        ({"items": {"typ": "string"}}, "invalid_schema", "'typ' is not supported; remove it"),
        ({"anyOf": [{}, {"if": {}}]}, "invalid_schema", "at /anyOf/1: the keyword 'if'"),
        ({"type": "string", "format": "iri"}, "invalid_schema", "'iri' is not one of date"),
        ({"format": "unknown"}, "invalid_schema", "'unknown' is not one of date"),
        (
            {"properties": {"a": {"type": "strin"}}},
            "invalid_schema",
            "at /properties/a: 'type' must be one of array, boolean, integer, null, number, "
            "object, string, or an array of them, got 'strin'",
        ),
        ({"type": ["string", []]}, "invalid_schema", "or an array of them, got ['string', []]"),
        ({"items": {"maxLength": 3.5}}, "invalid_schema", "at /items: 'maxLength' must be an int"),
        ({"minItems": -1}, "invalid_schema", "'minItems' must be an integer, 0 or more, got -1"),
        ({"required": "name"}, "invalid_schema", "'required' must be an array of strings"),
        ({"required": ["a", 1]}, "invalid_schema", "'required' must be an array of strings"),
        ({"properties": ["a"]}, "invalid_schema", "'properties' must be an object, got ['a']"),
        ({"anyOf": {}}, "invalid_schema", "'anyOf' must be an array, got {}"),
        ({"minimum": "3"}, "invalid_schema", "'minimum' must be a number, got '3'"),
        ({"multipleOf": True}, "invalid_schema", "'multipleOf' must be a number, got True"),
        ({"pattern": 3}, "invalid_schema", "'pattern' must be a string, got 3"),
        ({"properties": {"a": 3}}, "invalid_schema", "at /properties/a: 3 is no schema"),
        ({"$ref": "#"}, "invalid_schema", "leads round without an end"),
        ({"$defs": {"node": NODE}, "$ref": "#/$defs/node"}, "invalid_schema", "without an end"),
        (
            {"$defs": {"node": NODE}, "type": "array", "items": NODE, "minItems": 1},
            "invalid_schema",
            "without an end",
        ),
        ({**CHAIN, "$defs": {"end": {"enum": []}}}, "invalid_schema", "at '/$defs/end'; correct"),
        ({**CHAIN, "$defs": {"end": False}}, "invalid_schema", "at '/$defs/end'; correct"),
        ({**CHAIN, "$defs": {"end": CROSSED}}, "invalid_schema", "at '/$defs/end'; correct"),
        (lists_within(33), "schema_too_complex", "nested deeper than 32 levels"),
        ({"enum": ["x" * (MAX_BYTES - 12)]}, "schema_too_complex", f"more than the {MAX_BYTES}"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_by_name(schema: Any, code: str, said: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        GrammarSource.json_schema(schema, "guided_json")
    assert (caught.value.param, caught.value.code) == ("guided_json", code)
    assert said in caught.value.message


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"node": {**NODE, "required": []}}, "$ref": "#/$defs/node"},
        {"$defs": {"node": NODE}, "type": "array", "items": {"$ref": "#/$defs/node"}},
        {"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 1}, {"type": "null"}]},
        {"properties": {"not": {"type": "string", "description": "a name, not a keyword"}}},
        {**CHAIN, "$defs": {"end": {**CROSSED, "maxLength": 5}}},
        {"anyOf": [{"$ref": "#/$defs/a"}, {"enum": []}], "$defs": {"a": {"type": "null"}}},
        nested(30),
        lists_within(32),
        {"enum": ["x" * (MAX_BYTES - 13)]},
        {"type": "object", "required": ["a"], "properties": {"a": True}},
    ],
)
def test_recursion_that_can_end_and_names_like_keywords_are_fine(schema: Any) -> None:
    GrammarSource.json_schema(schema, "guided_json")


def test_what_a_lenient_schema_cannot_keep_is_left_out() -> None:
    GrammarSource.json_schema({"type": "array", "uniqueItems": True}, "x", lenient=True)


def test_what_is_no_schema_is_refused_by_its_place_also_when_it_is_lenient() -> None:
    schema = {"properties": {"city": {"type": "strin"}}}
    with pytest.raises(RequestRefused, match="at /properties/city: 'type' must be"):
        GrammarSource.json_schema(schema, "x", lenient=True)


def test_bounds_as_draft_4_has_them_are_taken() -> None:
    schema = {"type": "integer", "minimum": 0, "exclusiveMinimum": True}
    GrammarSource.json_schema(schema, "x")


def test_a_schema_within_a_grammar_is_not_taken_unchecked() -> None:
    with pytest.raises(RequestRefused, match="guided_json"):
        GrammarSource.ebnf('start: %json {"not": {}}', "guided_grammar")


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    made = Compiler(read_tables(byte_tokenizer(), SIZE, {END}))
    yield made
    made.close()


async def refusal_of(compiler: Compiler, source: GrammarSource) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        await compiler.compile(source)
    return caught.value


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        (GrammarSource.regex("(?=a)b", "guided_regex"), "invalid_grammar", "look-around"),
        (GrammarSource.regex("a{2,", "guided_regex"), "invalid_grammar", "unclosed counted"),
        (GrammarSource.ebnf("root ::= x", "guided_grammar"), "invalid_grammar", "'x' not found"),
        (GrammarSource.ebnf("start: (", "guided_grammar"), "invalid_grammar", "Expected token"),
        (
            GrammarSource.json_schema({"$ref": "https://example.com/city"}, "g"),
            "invalid_schema",
            "leads out of the schema; put what it names under '$defs'",
        ),
        (
            GrammarSource.json_schema({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "g"),
            "invalid_schema",
            "do not exclude each other; write 'anyOf'",
        ),
        (
            GrammarSource.ebnf('expression: "a"', "guided_grammar"),
            "invalid_grammar",
            "it has no rule 'start:', so it is not Lark",
        ),
        (GrammarSource.json_schema({"$ref": "#/$defs/no"}, "g"), "invalid_schema", "/$defs/no"),
        (
            GrammarSource.json_schema({"type": "integer", "minimum": 3, "maximum": 2}, "g"),
            "invalid_schema",
            "minimum (3) is greater than maximum (2)",
        ),
        (GrammarSource.json_schema({"enum": []}, "g"), "invalid_schema", "is empty"),
        (GrammarSource.regex("a[^\\s\\S]", "guided_regex"), "invalid_grammar", "no text satisfies"),
        (
            GrammarSource.ebnf('root ::= "a" root', "guided_grammar"),
            "invalid_grammar",
            "each alternative of 'start' needs one of them again; add an alternative",
        ),
        (
            GrammarSource.ebnf('start: "a" x\nx: y\ny: "b" (x | y) "c"?', "guided_grammar"),
            "invalid_grammar",
            "each alternative of 'start', 'x', 'y' needs",
        ),
    ],
    ids=lambda value: value.text if isinstance(value, GrammarSource) else None,
)
async def test_what_does_not_compile_is_refused_with_the_reason(
    compiler: Compiler, source: GrammarSource, code: str, said: str
) -> None:
    refused = await refusal_of(compiler, source)
    assert (refused.status, refused.code, refused.param) == (400, code, source.param)
    assert refused.message.startswith(f"{source.param}: ")
    assert said in refused.message
    assert "<" not in refused.message


@pytest.mark.parametrize("begin", ["start", "?start", "!start"])
async def test_lark_may_say_of_its_first_rule_what_becomes_of_its_tree(
    compiler: Compiler, begin: str
) -> None:
    source = GrammarSource.ebnf(f"{begin}: x+\nx: /[ab]/", "guided_grammar")
    assert await compiler.compile(source) is not None


async def test_equal_sources_share_one_grammar(compiler: Compiler) -> None:
    sources = [GrammarSource.json_schema({"type": "object"}, "guided_json") for _ in range(2)]
    first, second = await asyncio.gather(*(compiler.compile(source) for source in sources))
    assert first is second
    assert await compiler.compile(GrammarSource.regex("[a-z]", "guided_regex")) is not first


async def test_a_grammar_bomb_is_stopped_and_remembered() -> None:
    compiler = Compiler(read_tables(byte_tokenizer(), SIZE, {END}), compile_s=0.2)
    bomb = GrammarSource.json_schema(BOMB, "guided_json")
    refused = await refusal_of(compiler, bomb)
    assert (refused.status, refused.code) == (400, "schema_too_complex")
    assert "within 0.2 s of the processor" in refused.message
    assert compiler._trials is not None
    assert compiler._trials.pid is None
    await refusal_of(compiler, bomb)
    assert compiler._trials.pid is None  # it was not tried again
    await compiler.compile(GrammarSource.regex("a+", "guided_regex"))
    pid = compiler._trials.pid
    assert pid is not None
    compiler.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_grammar_that_only_waits_for_the_processor_may_be_asked_for_again() -> None:
    compiler = Compiler(read_tables(byte_tokenizer(), SIZE, {END}))
    await compiler.compile(GrammarSource.regex("a", "guided_regex"))
    assert compiler._trials is not None
    compiler._trials._wait_s = 0.2
    stopped = compiler._trials.pid
    assert stopped is not None
    os.kill(stopped, signal.SIGSTOP)
    fair = GrammarSource.regex("b", "guided_regex")
    refused = await refusal_of(compiler, fair)
    assert (refused.status, refused.code) == (503, "engine_overloaded")
    assert refused.retry_after_s
    compiler._trials._wait_s = 60.0
    await compiler.compile(fair)
    assert compiler._trials.pid != stopped
    compiler.close()


async def test_the_process_that_tries_grammars_bounds_its_memory_and_gives_way(
    compiler: Compiler,
) -> None:
    await compiler.compile(GrammarSource.regex("bounded", "guided_regex"))
    assert compiler._trials is not None
    pid = compiler._trials.pid
    assert pid is not None
    assert resource.prlimit(pid, resource.RLIMIT_AS) == (1 << 30, 1 << 30)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) > own
    thread = compiler._thread.submit(os.getpriority, os.PRIO_PROCESS, 0)
    assert thread.result(timeout=10) > own


def test_the_process_that_tries_grammars_ends_when_its_parent_is_another() -> None:
    command = [sys.executable, "-m", "tidegate_runtime.grammar.worker", "1", "2.0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.wait(30) == 1
        finally:
            process.kill()


async def test_the_grammar_that_was_asked_for_longest_ago_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tidegate_runtime.grammar.compiler.KEPT", 2)
    fresh = Compiler(read_tables(byte_tokenizer(), SIZE, {END}))
    first, second, third = (GrammarSource.regex(text, "guided_regex") for text in "xyz")
    kept = await fresh.compile(first)
    gone = await fresh.compile(second)
    assert await fresh.compile(first) is kept
    await fresh.compile(third)
    assert await fresh.compile(first) is kept
    assert await fresh.compile(second) is not gone
    assert len(fresh._known) == 2
    fresh.close()


async def test_what_was_refused_for_a_while_only_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler = Compiler(read_tables(byte_tokenizer(), SIZE, {END}))
    source = GrammarSource.regex("again", "guided_regex")
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/bin/false")
        refused = await refusal_of(compiler, source)
        assert (refused.status, refused.code) == (503, "grammar_unsupported")
        assert refused.retry_after_s
    assert await compiler.compile(source)
    compiler.close()


async def test_a_grammar_nested_too_deep_for_its_reader_is_refused(compiler: Compiler) -> None:
    deep = GrammarSource.regex("(" * 20_000 + "a" + ")" * 20_000, "guided_regex")
    assert (await refusal_of(compiler, deep)).code == "invalid_grammar"
    deep = GrammarSource.ebnf("start: " + "(" * 20_000 + '"a"' + ")" * 20_000, "guided_grammar")
    assert (await refusal_of(compiler, deep)).code in ("invalid_grammar", "schema_too_complex")
    gbnf = GrammarSource.ebnf("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000, "guided_grammar")
    assert (await refusal_of(compiler, gbnf)).code in ("invalid_grammar", "schema_too_complex")
    await compiler.compile(GrammarSource.regex("shallow", "guided_regex"))


async def test_a_tokenizer_that_grammars_cannot_read_is_said_to_be_one() -> None:
    words = Tokenizer(models.WordLevel(vocab={"a": 0, "b": 1}))
    compiler = Compiler(read_tables(PreTrainedTokenizerFast(tokenizer_object=words), 2, {1}))
    for _ in range(2):
        refused = await refusal_of(compiler, GrammarSource.regex("a", "guided_regex"))
        assert (refused.status, refused.code) == (400, "grammar_unsupported")
    compiler.close()


def test_a_vocabulary_arrives_as_it_was_sent() -> None:
    sent = Vocabulary('{"a": "ä\n"}', 3, (1, 2))
    stream = io.BytesIO(sent.message() + b"the next message")
    assert Vocabulary.receive(stream) == sent
    assert stream.read() == b"the next message"


def test_what_a_tokenizer_pads_and_cuts_is_none_of_its_vocabulary() -> None:
    padded = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_tokenizer().backend_tokenizer.to_str())
    )
    padded.backend_tokenizer.enable_padding(length=9)
    padded.backend_tokenizer.enable_truncation(3)
    assert Vocabulary.of(padded, SIZE, {END}) == Vocabulary.of(byte_tokenizer(), SIZE, {END})
    assert padded.backend_tokenizer.padding is not None


async def test_no_more_than_a_few_grammars_wait(compiler: Compiler) -> None:
    sources = [GrammarSource.regex(f"a{{{n}}}", "guided_regex") for n in range(MAX_WAITING + 1)]
    may_compile = threading.Event()
    compiler._thread.submit(may_compile.wait, 60)
    waiting = [asyncio.create_task(compiler.compile(source)) for source in sources[:-1]]
    await asyncio.sleep(0)
    with pytest.raises(RequestRefused) as refused:
        await compiler.compile(sources[-1])
    assert (refused.value.status, refused.value.code) == (503, "engine_overloaded")
    assert refused.value.retry_after_s
    may_compile.set()
    assert all(await asyncio.gather(*waiting))
    assert await compiler.compile(sources[-1])
