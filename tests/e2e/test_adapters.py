"""An adapter joins a running deployment of the real model, answers, and leaves."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from tests.e2e.adapters import write_adapter
from tests.e2e.platform import Platform


def test_an_adapter_comes_and_goes_while_its_deployment_serves(
    platform: Platform, realtime: str, tmp_path: Path
) -> None:
    wild, replicas = f"{realtime}:wild", platform.cli_json("status", realtime)["replicas"]
    terms = {"temperature": 0, "max_tokens": 16}
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    with platform.openai() as client:

        def said(model: str) -> str | None:
            made = client.chat.completions.create(model=model, messages=messages, **terms)
            return made.choices[0].message.content

        plain = said(realtime)
        with pytest.raises(openai.NotFoundError, match="add an adapter"):
            said(wild)
        source = write_adapter(tmp_path / "wild")
        platform.cli("adapters", "add", realtime, "wild", str(source))
        assert said(wild) not in (None, plain)
        assert said(realtime) == plain
        assert {card.id for card in client.models.list()} >= {realtime, wild}
        later = platform.cli("invoke", wild, messages[0]["content"], "--max-tokens", "16")
        assert later.strip() == (said(wild) or "").strip()
        platform.cli("adapters", "remove", realtime, "wild")
        with pytest.raises(openai.NotFoundError):
            said(wild)
    assert platform.cli_json("status", realtime)["replicas"] == replicas


def test_a_directory_that_is_no_adapter_is_refused_when_it_is_added(
    platform: Platform, realtime: str, tmp_path: Path
) -> None:
    said = platform.cli("adapters", "add", realtime, "none", str(tmp_path), expect=1)
    assert "runtime.adapters.none: there is no adapter_config.json in it" in said
