"""`tidegate distill`: from a model and a text to heads that guess what the model will say."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers

from tidegate.local.heads_files import FORMAT
from tidegate.protocol.replica import ReplicaConfig
from tidegate_runtime.artifact.cache import publish
from tidegate_runtime.artifact.checkpoint import load_tokenizer
from tidegate_runtime.artifact.manifest import default_kv
from tidegate_runtime.artifact.measure import read_text
from tidegate_runtime.artifact.open import Artifact
from tidegate_runtime.artifact.prepare import prepare
from tidegate_runtime.artifact.save import resumable
from tidegate_runtime.distill.examples import Examples, shortlist_of
from tidegate_runtime.distill.learner import Learner, OwnExit, new_learner
from tidegate_runtime.distill.listen import Heard, listen, prompts_of
from tidegate_runtime.distill.report import acceptance
from tidegate_runtime.distill.traces import TRACE_BLOCKS, Tracer
from tidegate_runtime.distill.train import Training, train
from tidegate_runtime.distill.workplace import Workplace
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import LayeredDecoder
from tidegate_runtime.models.open import open_decoder
from tidegate_runtime.models.weights import Weights, read_weights
from tidegate_runtime.ops.quantized import GROUP
from tidegate_runtime.speculation.guess import place_heads
from tidegate_runtime.speculation.heads import (
    HeadsManifest,
    Method,
    read_heads,
    write_heads,
)
from tidegate_runtime.speculation.open import check_exit_layer


@dataclass(frozen=True)
class Lesson:
    """What is to be made. `places` of the model's own text are listened to, about."""

    source: str
    precision: str
    text: Path
    method: Method
    exit_layer: int | None
    levels: int
    shortlist: int
    places: int
    training: Training


class Progress(Protocol):
    """Who is told how far it is."""

    def say(self, text: str) -> None:
        """One line."""

    def step(self, name: str, done: int, total: int, note: str = "") -> None:
        """So many steps of a part are done."""


def distill(
    lesson: Lesson, output: Path, cache_dir: Path, threads: int | None, progress: Progress
) -> HeadsManifest:
    """Fill the new directory `output`; one that was stopped goes on where it was.

    Raises ModelRefused and ReplicaUnavailable.
    """
    with resumable(output):
        return _distill(lesson, output, cache_dir, threads, progress)


def _distill(
    lesson: Lesson, output: Path, cache_dir: Path, threads: int | None, progress: Progress
) -> HeadsManifest:
    content = read_text(lesson.text)
    work = Workplace.open(output, {**asdict(lesson), "text": str(lesson.text)})
    artifact = _artifact(lesson, cache_dir, threads, progress)
    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    decoder = _decoder(artifact, lesson, count)
    decoder.allocate(TRACE_BLOCKS)
    text = _tokens(artifact, content)
    prompts = prompts_of(text, lesson.places, lesson.training.seed)
    heard = listen(
        Tracer(decoder, lesson.exit_layer),
        prompts,
        work,
        lambda done, total: progress.step("listening", done, total),
    )
    tokens = shortlist_of(heard.learnt, text, decoder.vocabulary_size, lesson.shortlist)
    own = own_exit(artifact)
    learner = new_learner(lesson.method, own, tokens, lesson.levels, lesson.training.seed)
    untrained = _judged(learner, _manifest(lesson, artifact, decoder, learner, own), decoder, heard)
    first = 0 if lesson.method == "early_exit" else 1
    examples = Examples.of(heard.learnt, lesson.levels, first)
    train(
        learner,
        examples.known(tokens, decoder.vocabulary_size),
        lesson.training,
        work.checkpoint,
        lambda done, total, loss: progress.step("learning", done, total, f"loss {loss:.3f}"),
    )
    manifest = _manifest(lesson, artifact, decoder, learner, own).model_copy(
        update={"trained_tokens": len(examples.hidden), "untrained_acceptance": untrained}
    )
    learnt = _judged(learner, manifest, decoder, heard)
    done = manifest.model_copy(update={"acceptance": learnt})
    publish(output, lambda root: write_heads(root, done, learner.learnt().packed()))
    work.close()
    return read_heads(output)[0]


def own_exit(artifact: Artifact) -> OwnExit:
    """What an artifact says of its model's last norm and its head. Raises ModelRefused."""
    weights = read_weights(artifact.weights, artifact.manifest.model_dump(by_alias=True))
    config = transformers.AutoConfig.from_pretrained(artifact.root).get_text_config()
    norm, head = weights.tensors.get("model.norm.weight"), _matrix(weights, "lm_head")
    if norm is None or head is None:
        raise ModelRefused(
            "UnsupportedModel",
            f"{artifact.manifest.architecture} keeps no 'model.norm' and 'lm_head', where heads "
            "begin; distill a model of the Llama family",
        )
    embedding = head if weights.tied else _matrix(weights, "model.embed_tokens")
    assert embedding is not None  # every model has one
    return OwnExit(norm.float(), float(getattr(config, "rms_norm_eps", 1e-6)), head, embedding)


def _matrix(weights: Weights, name: str) -> torch.Tensor | None:
    if name in weights.linears:
        return weights.linears[name].values()
    found = weights.tensors.get(f"{name}.weight")
    if found is None and weights.tied:
        found = weights.tensors.get("model.embed_tokens.weight")
    return None if found is None else found.float()


def _artifact(lesson: Lesson, cache_dir: Path, threads: int | None, progress: Progress) -> Artifact:
    config = ReplicaConfig.model_validate(
        {
            "replica_id": f"distill-{os.getpid()}",
            "model_name": Path(lesson.source).stem,
            "source": lesson.source,
            "status_path": None,
            "cache_dir": str(cache_dir),
            "precision": lesson.precision,
            "threads": threads,
        }
    )
    return prepare(config, progress.say).artifact


def _decoder(artifact: Artifact, lesson: Lesson, threads: int) -> LayeredDecoder:
    """Raises ModelRefused for a model that cannot be looked into, or not there."""
    kv = default_kv(artifact.manifest.precision)
    decoder = open_decoder(artifact.root, threads=threads, kv=kv)
    assert isinstance(decoder, LayeredDecoder)  # every decoder of a processor is one
    if lesson.exit_layer is not None:
        check_exit_layer(lesson.exit_layer, decoder)
    if decoder.hidden_size % GROUP:
        raise ModelRefused(
            "UnsupportedModel",
            f"the hidden size {decoder.hidden_size} is no multiple of {GROUP}, in which heads are "
            "packed; speculate by 'ngram' instead",
        )
    return decoder


def _tokens(artifact: Artifact, content: str) -> list[int]:
    tokenizer: Any = load_tokenizer(artifact.root)
    found: list[int] = tokenizer(content, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _manifest(
    lesson: Lesson, artifact: Artifact, decoder: LayeredDecoder, learner: Learner, own: OwnExit
) -> HeadsManifest:
    """Without what is only known in the end."""
    return HeadsManifest(
        format=FORMAT,
        method=lesson.method,
        exit_layer=lesson.exit_layer,
        levels=lesson.levels,
        hidden=decoder.hidden_size,
        vocabulary=decoder.vocabulary_size,
        shortlist=len(learner.head),
        epsilon=own.epsilon,
        model=artifact.manifest.source.location,
        model_digest=artifact.manifest.source.digest,
        precision=artifact.manifest.precision,
        text=str(lesson.text),
        trained_tokens=0,
        acceptance=[],
        untrained_acceptance=[],
    )


def _judged(
    learner: Learner, manifest: HeadsManifest, decoder: LayeredDecoder, heard: Heard
) -> list[float]:
    """Acceptance as it would be served: packed, on greedy continuations that were held out."""
    heads = place_heads(manifest, learner.learnt().packed(), decoder)
    first = 0 if manifest.method == "early_exit" else 1
    return acceptance(heads, Examples.of(heard.held_out.greedy, manifest.levels, first))
