"""Documents are ranked, pairs scored and tokens counted by real models, each way that it is asked.

An embedding model of 22 million parameters ranks by the cosine of its vectors. A cross-encoder,
which is tiny and random, scores pairs as transformers does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e.platform import Platform

from tidegate import AsyncClient, BadRequest, Client
from tidegate.answers import Ranks, Scores
from tidegate.protocol.tokenize import TokenizeResponse

QUERY = "A cat sits on the mat."
TEXTS = ["Interest rates rose.", "A kitten rests on a rug.", "The cat sat on a mat."]
BEST = [2, 1, 0]
RANKED: dict[str, Any] = {"query": QUERY, "documents": TEXTS}
SCORED: dict[str, Any] = {"text_1": QUERY, "text_2": TEXTS}


@pytest.fixture(scope="module")
def client(platform: Platform, minilm: str) -> Iterator[Client]:
    with platform.client() as client:
        client.deploy(minilm, name="judge", task="embed", mode="realtime", wait=True)
        yield client
        client.deployments.delete("judge", wait=False)


@pytest.fixture(scope="module")
def cross_encoder(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two random layers, with the tokenizer of a real model."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    root, tokenizer = tmp_path_factory.mktemp("cross"), AutoTokenizer.from_pretrained(minilm)
    tokenizer.save_pretrained(root)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.3,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(root)
    return root


@torch.inference_mode()
def by_hand(root: Path, pairs: list[tuple[str, str]]) -> list[float]:
    """What transformers says of each pair, one after the other."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root)
    model = AutoModelForSequenceClassification.from_pretrained(root).eval()
    return [
        float(model(**tokenizer(*pair, return_tensors="pt")).logits.sigmoid()) for pair in pairs
    ]


def test_a_cross_encoder_scores_pairs_as_transformers_does(
    client: Client, cross_encoder: Path
) -> None:
    options = {"task": "rerank", "mode": "serverless", "runtime": {"precision": "fp32"}}
    client.deploy(str(cross_encoder), name="cross", wait=True, **options)
    try:
        model = client.model("cross")
        wanted = by_hand(cross_encoder, [(QUERY, text) for text in TEXTS])
        assert len({round(each, 3) for each in wanted}) == len(TEXTS), "or an order shows nothing"
        assert model.score(QUERY, TEXTS).values == pytest.approx(wanted, abs=1e-5)
        assert model.score(TEXTS, TEXTS[::-1]).values == pytest.approx(
            by_hand(cross_encoder, list(zip(TEXTS, TEXTS[::-1], strict=True))), abs=1e-5
        )
        ranks = model.rerank(QUERY, TEXTS, top_n=2)
        best = sorted(range(len(TEXTS)), key=lambda index: -wanted[index])[:2]
        assert ranks.order == best
        found = [result.relevance_score for result in ranks.results]
        assert found == pytest.approx([wanted[index] for index in best], abs=1e-5)
        ranking = model.submit(RANKED).result(60)
        assert isinstance(ranking, Ranks)
        assert ranking.order[:2] == best
        with pytest.raises(BadRequest, match="scores pairs of texts"):
            model.embed(QUERY)
        with pytest.raises(BadRequest, match="scores pairs of texts"):
            model.chat("hello")
    finally:
        client.deployments.delete("cross", wait=False)


@pytest.fixture(scope="module")
def scores(client: Client) -> list[float]:
    return client.model("judge").score(QUERY, TEXTS).values


def test_documents_are_ranked_by_what_they_mean(client: Client, scores: list[float]) -> None:
    ranks = client.model("judge").rerank(QUERY, TEXTS)
    assert ranks.order == BEST
    found = [result.relevance_score for result in ranks.results]
    assert found == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    assert client.model("judge").rerank(QUERY, TEXTS, top_n=1).order == BEST[:1]
    vectors = client.model("judge").embed([QUERY, TEXTS[1]]).vectors
    cosine = sum(left * right for left, right in zip(*vectors, strict=True))
    # In bf16, where another batch rounds elsewhere.
    assert scores[1] == pytest.approx(cosine, abs=5e-3)


def test_the_awaited_client_is_answered_the_same(
    platform: Platform, client: Client, scores: list[float]
) -> None:
    async def ask() -> tuple[Ranks, Scores, TokenizeResponse]:
        async with AsyncClient(platform.url, platform.api_key) as awaited:
            model = awaited.model("judge")
            return (
                await model.rerank(QUERY, TEXTS),
                await model.score(QUERY, TEXTS),
                await model.tokenize(QUERY),
            )

    ranks, scored, tokens = asyncio.run(ask())
    assert ranks.order == BEST
    assert scored.values == pytest.approx(scores, abs=1e-5)
    assert tokens == client.model("judge").tokenize(QUERY)


def test_they_are_invocations_too(client: Client, scores: list[float]) -> None:
    model = client.model("judge")
    ranking, scoring = model.submit(RANKED), model.submit(SCORED)
    ranks, scored = ranking.result(60), scoring.result(60)
    assert isinstance(ranks, Ranks)
    assert isinstance(scored, Scores)
    assert ranks.order == BEST
    assert scored.values == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    ("endpoint", "asked"), [("/v1/rerank", RANKED), ("/v1/score", SCORED)], ids=["rerank", "score"]
)
def test_they_are_lines_of_batches_too(
    client: Client, scores: list[float], endpoint: str, asked: dict[str, Any]
) -> None:
    batch = client.model("judge").batch([asked, {**asked, "nonsense": 1}], endpoint=endpoint)
    (failed,) = batch.wait(60).errors()
    assert "nonsense" in (failed.failure or "")
    (line,) = batch.results()
    assert line.response is not None
    if endpoint == "/v1/rerank":
        assert Ranks.model_validate(line.response.body).order == BEST
    else:
        made = Scores.model_validate(line.response.body)
        assert made.values == pytest.approx(scores, abs=1e-5)


def test_the_tokens_of_a_chat_are_those_that_it_is_billed_for(
    client: Client, realtime: str
) -> None:
    model = client.model(realtime)
    tokens = model.tokenize("Say hello.").tokens
    answer = model.chat("Say hello.", max_tokens=1)
    text = model.tokenize([{"role": "user", "content": "Say hello."}])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == text.count > len(tokens)
    assert model.detokenize(tokens) == "Say hello."
    assert "Say hello." in model.detokenize(text.tokens)
    with pytest.raises(BadRequest, match="generates text"):
        model.rerank(QUERY, TEXTS)


def test_what_is_embedded_is_what_is_counted(client: Client) -> None:
    model = client.model("judge")
    made = model.tokenize(QUERY, return_token_strs=True)
    assert made.token_strs is not None
    assert (made.token_strs[0], made.token_strs[-1]) == ("[CLS]", "[SEP]")
    assert made.count == model.embed(QUERY).usage.prompt_tokens
    assert model.detokenize(made.tokens[1:-1]) == "a cat sits on the mat."


@pytest.mark.parametrize("endpoint", ["/v1/tokenize", "/v1/detokenize"])
def test_nobody_waits_for_a_count(client: Client, endpoint: str) -> None:
    with pytest.raises(BadRequest, match="endpoint"):
        client.model("judge").batch([{"prompt": "hi"}], endpoint=endpoint)
    with pytest.raises(BadRequest, match="no endpoint fits this body"):
        client.model("judge").submit({"tokens": [1, 2]})
