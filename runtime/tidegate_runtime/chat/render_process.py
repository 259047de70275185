"""The process in which chat templates run, asked by stdin: `python -I render_process.py 2.0 10.0`,
or a fork of one that has imported this (`render_forks.py`).

A template may loop for ever or write without end, in Jinja or inside one of its filters, so nothing
but the kernel can bound it. A timer ends the process that spends too long on one rendering, an
allocation beyond its memory fails, and it can open no file and start no connection: what it needs
it has imported before (jinja2.debug is used when a template fails). Only Jinja is imported: the
process starts in a tenth of a second and takes 15 MB.

A message is four bytes of length and then JSON: `{template, variables}` one way, `{text}` or
`{error}` the other; `variables` null only compiles the template. Templates see what transformers
shows them: its sandbox, its functions and its filters.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import IO, Any, NamedTuple, NoReturn

import jinja2
import jinja2.debug
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

MEMORY_BYTES = 768 * 1024 * 1024
MAX_TEXT_BYTES = 32 * 1024 * 1024
"""Four times the largest body of a request."""
LENGTH_BYTES = 4
_SHOWN_LETTERS = 300


class Limits(NamedTuple):
    """Of one rendering. `wall_s` counts where other processes take the processor."""

    cpu_s: float
    wall_s: float


class GenerationTag(jinja2.ext.Extension):
    """`{% generation %}`, with which templates mark what a model is trained on, means nothing."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own way of declaring it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateNamespace(jinja2.utils.Namespace):
    """Jinja's, without names that begin with an underscore."""

    def __init__(*args: Any, **fields: Any) -> None:
        self, *given = args
        values = dict(*given, **fields)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"namespace: {name[:40]!r} begins with an underscore")


def main(limits: Limits) -> None:
    """Answer until the other end is closed."""
    prepare()
    answer_all(limits)


def answer_all(limits: Limits) -> None:
    """Answer within bounds until the other end is closed, in a process that is prepared."""
    _bound_process()
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while (message := read_message(requests)) is not None:
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
        signal.setitimer(signal.ITIMER_REAL, limits.wall_s)
        answer = _answer(message)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(answer)
        replies.flush()


def read_message(stream: IO[bytes]) -> bytes | None:
    """The next message, None where there is no whole one."""
    size = int.from_bytes(stream.read(LENGTH_BYTES), "big")
    message = stream.read(size)
    return message if size and len(message) == size else None


def as_message(value: Mapping[str, Any]) -> bytes:
    """A value as a message."""
    body = json.dumps(value).encode()
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def prepare() -> None:
    """Import and open now what will be out of reach."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.tzset()
    _compiled("{{ strftime_now('%d %b %Y') }}{{ [] | tojson }}").render()


def _bound_process() -> None:
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _answer(message: bytes) -> bytes:
    try:
        asked = json.loads(message)
        template = _compiled(asked["template"])
        variables = asked["variables"]
        text = "" if variables is None else template.render(variables)
        if len(text) > MAX_TEXT_BYTES:
            return as_message({"error": f"it wrote {len(text)} letters, which is too much"})
        return as_message({"text": text})
    except MemoryError:
        return as_message({"error": f"it wants more than {MEMORY_BYTES >> 20} MiB of memory"})
    except Exception as error:  # noqa: BLE001 - whatever a template raises is its answer
        said = str(error)[:_SHOWN_LETTERS] or type(error).__name__
        return as_message({"error": said})


@lru_cache(maxsize=4)
def _compiled(template: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationTag, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise, strftime_now=_strftime_now, namespace=TemplateNamespace
    )
    return environment.from_string(template)


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """JSON as models were trained on it: Jinja's own escapes it for HTML."""
    known = {name: options.pop(name, None) for name in ("indent", "separators")}
    return json.dumps(value, ensure_ascii=ensure_ascii, **known, **options)


def _raise(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


if __name__ == "__main__":
    main(Limits(*map(float, sys.argv[1:])))
