"""Ranks, scores and vectors of tiny random encoders, against the same models run by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from tidegate.protocol.openai import EmbeddingRequest
from tidegate.protocol.rank import RerankRequest, ScoreRequest
from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.check import check_path
from tidegate_runtime.errors import ModelRefused, RequestRefused
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.encoders import load_encode
from tidegate_runtime.server.metrics import Metrics

QUERY = "a cat sits"
TEXTS = ["the stock market fell", "a cat", "cats and dogs and other animals", "a cat sits"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CALLER = Caller(0.0)

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save a tiny random model of some class, with a tokenizer of letters."""

    def make(kind: str, config: str = "Bert", **options: Any) -> Path:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz.'"]
        words += [f"##{letter}" for letter in words[4:]]
        (tmp_path / "vocab.txt").write_text("\n".join(words))
        transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
        sizes = {**SIZES, "vocab_size": len(words), "initializer_range": 0.3, **options}
        torch.manual_seed(0)
        made = getattr(transformers, kind)(getattr(transformers, f"{config}Config")(**sizes))
        made.save_pretrained(tmp_path)
        return tmp_path

    return make


def services(root: Path, task: str, **fields: Any) -> Any:
    config = ReplicaConfig.model_validate(
        {
            "replica_id": "r",
            "model_name": "m",
            "source": str(root),
            "task": task,
            "status_path": None,
            "cache_dir": str(root),
            "precision": "fp32",
            "threads": 1,
            **fields,
        }
    )
    return load_encode(config, check_path(root), Metrics("m"))


@torch.inference_mode()
def by_hand(root: Path, pairs: list[tuple[str, str]]) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(root)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(root).eval()
    return [
        float(model(**tokenizer(*pair, return_tensors="pt")).logits.sigmoid()) for pair in pairs
    ]


async def test_a_cross_encoder_ranks_and_scores_pairs_as_its_model_does(save: Save) -> None:
    root = save("BertForSequenceClassification", num_labels=1)
    embeddings, ranking = services(root, "rerank")
    assert embeddings is None
    wanted = by_hand(root, [(QUERY, text) for text in TEXTS])
    scored = await ranking.score(ScoreRequest(model="m", text_1=QUERY, text_2=TEXTS), CALLER)
    assert [each.score for each in scored.data] == pytest.approx(wanted, abs=1e-5)
    request = RerankRequest(model="m", query=QUERY, documents=TEXTS, top_n=2, return_documents=True)
    ranked = await ranking.rerank(request, CALLER)
    best = sorted(range(4), key=lambda index: -wanted[index])[:2]
    assert [each.index for each in ranked.results] == best
    assert [each.document.text for each in ranked.results] == [TEXTS[index] for index in best]
    assert ranked.results[0].relevance_score == pytest.approx(max(wanted), abs=1e-5)
    assert ranked.usage.total_tokens > 4 * len(QUERY.split())


async def test_an_embedding_model_scores_by_the_cosine_of_its_vectors(save: Save) -> None:
    embeddings, ranking = services(save("BertModel"), "embed")
    made = await embeddings.embed(EmbeddingRequest(model="m", input=TEXTS), CALLER)
    vectors = torch.tensor([each.embedding for each in made.data])
    request = ScoreRequest(model="m", text_1=TEXTS, text_2=TEXTS[::-1])
    scored = await ranking.score(request, CALLER)
    wanted = (vectors * vectors.flip(0)).sum(-1).tolist()
    assert [each.score for each in scored.data] == pytest.approx(wanted, abs=1e-5)
    ranked = await ranking.rerank(RerankRequest(model="m", query=QUERY, documents=TEXTS), CALLER)
    assert ranked.results[0].index == TEXTS.index(QUERY)
    assert ranked.results[0].relevance_score == pytest.approx(1.0, abs=1e-5)
    assert ranked.results[0].document is None


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_a_declared_pooling_goes_over_that_of_the_files(save: Save, pooling: str) -> None:
    root = save("BertModel")
    embeddings, _ = services(root, "embed", pooling=pooling)
    made = await embeddings.embed(EmbeddingRequest(model="m", input=TEXTS), CALLER)
    model = transformers.AutoModel.from_pretrained(root).eval()
    tokenizer = AutoTokenizer.from_pretrained(root)
    for text, found in zip(TEXTS, made.data, strict=True):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        pooled = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        assert found.embedding == pytest.approx((pooled / pooled.norm()).tolist(), abs=1e-5)


async def test_a_decoder_embeds_by_its_last_token(save: Save) -> None:
    root = save("Qwen3Model", "Qwen3", intermediate_size=64, num_key_value_heads=2, head_dim=16)
    embeddings, _ = services(root, "embed", pooling="last")
    made = await embeddings.embed(EmbeddingRequest(model="m", input=TEXTS), CALLER)
    model = transformers.AutoModel.from_pretrained(root).eval()
    ids = AutoTokenizer.from_pretrained(root)(TEXTS[2])["input_ids"]
    with torch.inference_mode():
        last = model(torch.tensor([ids])).last_hidden_state[0, -1]
    assert made.data[2].embedding == pytest.approx((last / last.norm()).tolist(), abs=1e-5)


async def test_a_pair_beyond_the_context_is_refused_by_its_field(save: Save) -> None:
    root = save("BertForSequenceClassification", num_labels=1, max_position_embeddings=32)
    _, ranking = services(root, "rerank")
    request = RerankRequest(model="m", query=QUERY, documents=["a", "b" * 40])
    with pytest.raises(RequestRefused, match="32 tokens") as refused:
        await ranking.rerank(request, CALLER)
    assert (refused.value.param, refused.value.code) == ("documents", "context_length_exceeded")


@pytest.mark.parametrize(
    ("kind", "task", "options", "why"),
    [
        ("BertForSequenceClassification", "rerank", {"num_labels": 3}, "3 labels"),
        ("BertModel", "rerank", {"num_labels": 1}, "lacks 2 weights"),
        ("BertModel", "embed", {}, "LayerNorm.bias' has the shape"),
    ],
)
def test_a_model_that_cannot_do_the_task_is_refused(
    save: Save, kind: str, task: str, options: dict[str, Any], why: str
) -> None:
    root = save(kind, **options)
    if task == "embed":
        config = root / "config.json"
        config.write_text(config.read_text().replace('"hidden_size": 32', '"hidden_size": 48'))
    with pytest.raises(ModelRefused, match=why):
        services(root, task)
