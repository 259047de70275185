"""A chat template is a stranger's program: it runs within bounds, and its failures are answers."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tidegate_runtime.chat.fork_server import ForkServer
from tidegate_runtime.chat.process import spawn
from tidegate_runtime.chat.render_process import MAX_TEXT_BYTES, MEMORY_BYTES, Limits, as_message
from tidegate_runtime.chat.renderer import Renderer, StartProcess
from tidegate_runtime.errors import RequestRefused

MESSAGES = [{"role": "user", "content": "Grüße <b>&'\"\n"}, {"role": "tool", "content": ""}]
FINE = "{{ messages[0].content }}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module", params=["spawned", "forked"])
def start(request: pytest.FixtureRequest, fork_server: ForkServer) -> StartProcess:
    return spawn if request.param == "spawned" else fork_server.start


@pytest.fixture(scope="module")
def renderer(start: StartProcess) -> Renderer:
    return Renderer(start=start)


def render(renderer: Renderer, template: str, **more: Any) -> str:
    return renderer.render(template, {"messages": MESSAGES, **more})


def refusal(renderer: Renderer, template: str) -> RequestRefused:
    with pytest.raises(RequestRefused) as refused:
        render(renderer, template)
    return refused.value


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}\n  {{ m.role | upper }}: {{- m.content | trim }}\n{% endfor %}",
        "{{ tools | tojson }} {{ tools | tojson(indent=2) }} {{ messages[0] | tojson }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}"
        "{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ ns.n }}",
        "{% macro say(x) %}[{{ x }}]{% endmacro %}{{ say(messages[1]['content'] or bos_token) }}",
        "{% generation %}{{ messages[0].content.split()[0] }}{% endgeneration %}",
        "{{ messages | map(attribute='role') | join(', ') }}{{ dict(a=1) }}{{ undefined_name }}",
        "{{ strftime_now('%Y') }}{{ 'x' if messages is iterable and tools is defined }}",
    ],
)
def test_a_template_writes_what_transformers_has_it_write(
    renderer: Renderer, template: str
) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "<é>"}}]
    expected, _ = render_jinja_template(
        [MESSAGES], tools=tools, chat_template=template, bos_token="<s>"
    )
    own = render(
        renderer,
        template,
        tools=tools,
        documents=None,
        add_generation_prompt=False,
        bos_token="<s>",
    )
    assert own == expected[0]


@pytest.mark.parametrize("limits", [Limits(0.2, 60.0), Limits(60.0, 0.2)])
def test_a_template_that_does_not_end_is_ended(limits: Limits, start: StartProcess) -> None:
    hurried = Renderer(limits, start)
    refused = refusal(hurried, ENDLESS)
    assert (refused.code, refused.param) == ("chat_template_stopped", "messages")
    assert "more than 0.2 s" in refused.message


def test_a_process_that_was_stopped_is_replaced(start: StartProcess) -> None:
    hurried = Renderer(Limits(0.5, 60.0), start)
    render(hurried, FINE)
    assert hurried._process is not None
    before = hurried._process.pid
    refusal(hurried, ENDLESS)
    assert render(hurried, FINE) == MESSAGES[0]["content"]
    assert hurried._process.pid != before


def test_a_renderer_that_is_busy_for_long_says_so() -> None:
    busy = Renderer(Limits(2.0, 0.1))
    with ThreadPoolExecutor(1) as beside, busy._turn:
        refused = beside.submit(refusal, busy, FINE).result(timeout=30)
    assert (refused.code, refused.status) == ("chat_template_busy", 503)
    assert refused.retry_after_s


def test_its_process_has_little_memory_and_no_files(renderer: Renderer) -> None:
    render(renderer, FINE)
    assert renderer._process is not None
    pid = renderer._process.pid
    assert resource.prlimit(pid, resource.RLIMIT_AS) == (MEMORY_BYTES, MEMORY_BYTES)
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**10 }}",
        "{{ 'a' | center(10**10) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{% set ns = namespace(t='aaaaaaaa') %}{% for i in range(64) %}{% set ns.t = ns.t ~ ns.t %}"
        "{% endfor %}",
        "{{ [0] * 10**10 }}",
        "{% for i in range(99) %}{{ 'a' * 10**7 }}{% endfor %}",
        "{{ 'a' * (33 * 1024 * 1024) }}",
    ],
)
def test_a_template_that_writes_without_end_is_refused(renderer: Renderer, template: str) -> None:
    refused = refusal(renderer, template)
    assert refused.code == "chat_template_error"
    assert "memory" in refused.message or "too much" in refused.message
    assert render(renderer, FINE) == MESSAGES[0]["content"]


def test_a_text_may_be_as_long_as_it_may_be(renderer: Renderer) -> None:
    assert len(render(renderer, f"{{{{ 'a' * {MAX_TEXT_BYTES} }}}}")) == MAX_TEXT_BYTES
    assert "too much" in refusal(renderer, f"{{{{ 'a' * {MAX_TEXT_BYTES + 1} }}}}").message


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.environ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% set _ = messages.append(1) %}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(renderer: Renderer, template: str) -> None:
    assert refusal(renderer, template).code == "chat_template_error"


@pytest.mark.parametrize(
    "template",
    ["{{ '{0.__class__}'.format(messages) }}", "{{ messages | attr('__class__') }}"],
)
def test_what_a_template_may_not_see_is_empty(renderer: Renderer, template: str) -> None:
    assert render(renderer, template) == ""


@pytest.mark.parametrize(
    "template",
    [
        "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
        "{{ " + "(" * 50_000 + ")" * 50_000 + " }}",
        "{% for a in messages %}" * 60 + "{% endfor %}" * 60,
        "{{ " + "-" * 100_000 + "1 }}",
        "{% include '/etc/passwd' %}",
        "{% unknown %}",
        "{{ raise_exception('only one system message') }}",
    ],
)
def test_a_template_that_cannot_be_run_says_why(renderer: Renderer, template: str) -> None:
    refused = refusal(renderer, template)
    assert refused.code in ("chat_template_error", "chat_template_stopped")
    assert len(refused.message) < 500


def test_what_a_template_raises_reaches_the_caller(renderer: Renderer) -> None:
    refused = refusal(renderer, "{{ raise_exception('roles must alternate') }}")
    assert "roles must alternate" in refused.message


def test_a_process_that_died_is_replaced(renderer: Renderer) -> None:
    render(renderer, FINE)
    process = renderer._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert render(renderer, FINE) == MESSAGES[0]["content"]


@pytest.mark.parametrize("is_forked", [False, True])
def test_its_process_knows_nothing_of_ours(
    monkeypatch: pytest.MonkeyPatch, is_forked: bool
) -> None:
    monkeypatch.setenv("SECRET_OF_TEST", "x")
    server = ForkServer()
    fresh = Renderer(start=server.start if is_forked else spawn)
    assert render(fresh, FINE)
    assert fresh._process is not None
    assert "SECRET" not in Path(f"/proc/{fresh._process.pid}/environ").read_text()
    server.close()


def test_its_process_ends_with_it(start: StartProcess) -> None:
    fresh = Renderer(start=start)
    fresh.warm(FINE)
    assert render(fresh, FINE)
    process = fresh._process
    assert process is not None
    del fresh
    assert process.wait(60) == 0


def test_its_process_has_its_pipes_and_can_open_nothing_else(start: StartProcess) -> None:
    renderers = [Renderer(start=start) for _ in range(2)]
    for each in renderers:
        assert render(each, FINE)
        assert each._process is not None
        inside = Path(f"/proc/{each._process.pid}")
        assert sorted(path.name for path in (inside / "fd").iterdir()) == ["0", "1", "2"]
        assert (inside / "fd" / "2").readlink() == Path(os.devnull)
        limits = (inside / "limits").read_text().splitlines()
        bounds = {line[:26].strip(): line[26:].split()[:2] for line in limits}
        assert bounds["Max open files"] == ["0", "0"]
        assert bounds["Max core file size"] == ["0", "0"]
        assert bounds["Max address space"] == [str(MEMORY_BYTES)] * 2


def test_a_process_that_does_not_end_is_killed(start: StartProcess) -> None:
    process = start(Limits(60.0, 60.0))
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(as_message({"template": ENDLESS, "variables": {}}))
    process.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    process.stdin.close()
    process.stdout.close()


def test_without_its_fork_server_a_process_is_spawned() -> None:
    server = ForkServer()
    forked = Renderer(start=server.start)
    assert render(forked, FINE)
    assert parent_of(forked) == server.pid
    os.kill(server.pid, signal.SIGKILL)
    assert render(forked, FINE)
    later = Renderer(start=server.start)
    assert render(later, FINE)
    assert parent_of(later) == os.getpid()
    process = forked._process
    assert process is not None
    del forked
    assert process.wait(60) == -signal.SIGKILL  # nobody is left who knows how it ended
    assert process.wait() == -signal.SIGKILL
    server.close()


def parent_of(renderer: Renderer) -> int:
    assert renderer._process is not None
    status = Path(f"/proc/{renderer._process.pid}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])
