"""OpenVINO GenAI: its continuous batching pipeline, over the GGUF file as it is."""

from __future__ import annotations

import numpy as np
import openvino  # type: ignore[import-not-found]
import openvino_genai  # type: ignore[import-not-found]
from benchmarks.driver import Options, run

CACHE_GB = 2


class OpenVino:
    """One pipeline; it schedules and batches by itself."""

    def __init__(self, options: Options) -> None:
        scheduling = openvino_genai.SchedulerConfig()
        scheduling.cache_size = CACHE_GB
        scheduling.max_num_seqs = options.streams
        scheduling.max_num_batched_tokens = 2048
        properties = {"INFERENCE_NUM_THREADS": options.threads}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(options.model), scheduling, "CPU", properties
        )

    def generate(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        inputs = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        answers = self._pipeline.generate(inputs, [_greedy(max_tokens)] * len(prompts))
        return [len(answer.m_generation_ids[0]) for answer in answers]

    def logprobs(self, window: list[int]) -> list[float]:
        config = _greedy(1)
        config.echo, config.logprobs = True, 1
        tensor = openvino.Tensor(np.array([window], dtype=np.int64))
        handle = self._pipeline.add_request(0, tensor, config)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        (output,) = handle.read_all()
        return list(output.generated_log_probs[1 : len(window)])


def _greedy(max_tokens: int) -> openvino_genai.GenerationConfig:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = max_tokens
    config.ignore_eos = True
    config.do_sample = False
    return config


if __name__ == "__main__":
    run(OpenVino)
