"""`chat`, `invoke`: use a model."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidegate.answers import ModelAnswer
from tidegate.cli.options import Json, Name, connected
from tidegate.cli.output import console, note, say, say_json, write
from tidegate.cli.progress import held
from tidegate.errors import TidegateError

if TYPE_CHECKING:
    from tidegate.client import ServedModel
    from tidegate.routes.generate import ChatSampling

MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens of the answer at most.")]
Temperature = Annotated[
    float, typer.Option(min=0, max=2, help="0 always takes the likeliest token; 1 varies most.")
]
ANSWER_TOKENS = 512
LEAVE = ("/exit", "/quit")


def register(app: typer.Typer) -> None:
    for command in (chat, invoke):
        app.command()(command)


def chat(
    name: Name,
    prompt: Annotated[str | None, typer.Argument(help="Absent: a conversation.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    max_tokens: MaxTokens = ANSWER_TOKENS,
    temperature: Temperature = 0.0,
    as_json: Json = False,
) -> None:
    """Ask a model and read along as it answers."""
    history = [{"role": "system", "content": system}] if system else []
    sampling = _sampling(max_tokens, temperature)
    with connected() as client:
        model = client.model(name)
        if prompt is None:
            _converse(model, history, sampling)
            return
        history.append({"role": "user", "content": prompt})
        if as_json:
            say_json(model.chat(history, **sampling))
        else:
            _answer(model, history, sampling)


def invoke(
    name: Name,
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result.")] = True,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key twice is one invocation.")
    ] = None,
    max_tokens: MaxTokens = ANSWER_TOKENS,
    temperature: Temperature = 0.0,
    as_json: Json = False,
) -> None:
    """Hand in a request that survives restarts; wait for its result unless told not to."""
    with connected() as client:
        invocation = client.model(name).submit(
            prompt, idempotency_key=idempotency_key, **_sampling(max_tokens, temperature)
        )
        if not wait:
            _say_either(invocation.id, invocation.view, as_json=as_json)
            return
        if not as_json:
            note(f"invocation {invocation.id} is {invocation.status.value}")
        result = invocation.result(timeout)
        facts = {"invocation": invocation.view, "result": result}
        _say_either(_text(result), facts, as_json=as_json)


def _sampling(max_tokens: int, temperature: float) -> ChatSampling:
    return {"max_tokens": max_tokens, "temperature": temperature}


def _converse(model: ServedModel, history: list[dict[str, str]], sampling: ChatSampling) -> None:
    """Turn by turn, until the input ends; a question that failed is not remembered."""
    note(f"talking with {model.name}; Ctrl-D or {LEAVE[0]} ends it")
    while True:
        try:
            question = console().input("[bold]> [/]").strip()
        except EOFError:
            write("\n")
            return
        if question in LEAVE:
            return
        if not question:
            continue
        asked = [*history, {"role": "user", "content": question}]
        try:
            answer = _answer(model, asked, sampling)
        except TidegateError as error:
            note(f"error: {error}")
            continue
        history = [*asked, {"role": "assistant", "content": answer}]


def _answer(model: ServedModel, history: list[dict[str, str]], sampling: ChatSampling) -> str:
    """Show the answer as it is written; returns it whole."""
    pieces: list[str] = []
    try:
        with ExitStack() as waiting, model.stream(history, **sampling) as chunks:
            waiting.enter_context(held(model.name))
            for chunk in chunks:
                waiting.close()
                pieces.append(chunk.text)
                write(chunk.text)
    finally:
        if pieces:
            write("\n")
    return "".join(pieces)


def _say_either(text: str, facts: Any, *, as_json: bool) -> None:
    if as_json:
        say_json(facts)
    else:
        say(text)


def _text(answer: ModelAnswer) -> str:
    return str(getattr(answer, "text", None) or answer.model_dump_json())
