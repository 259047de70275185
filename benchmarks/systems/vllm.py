"""vLLM's offline engine on the CPU, compiled, with its own defaults."""

from __future__ import annotations

import os

from benchmarks.driver import Options, run

CACHE_GB = 2


class Vllm:
    """One engine; it schedules and batches by itself."""

    def __init__(self, options: Options) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CACHE_GB))
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        cores = sorted(os.sched_getaffinity(0))[: options.threads]
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
        # Imported here because it reads the environment as it is imported.
        import vllm  # type: ignore[import-not-found]

        self._vllm = vllm
        self._engine = vllm.LLM(
            model=str(options.model),
            dtype="bfloat16",
            max_model_len=options.context_tokens,
            max_num_seqs=options.streams,
            disable_log_stats=True,
        )

    def generate(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        sampling = self._vllm.SamplingParams(
            temperature=0, max_tokens=max_tokens, ignore_eos=True, detokenize=False
        )
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        answers = self._engine.generate(inputs, sampling, use_tqdm=False)
        return [len(answer.outputs[0].token_ids) for answer in answers]

    def logprobs(self, window: list[int]) -> list[float]:
        sampling = self._vllm.SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        inputs = [{"prompt_token_ids": window}]
        (answer,) = self._engine.generate(inputs, sampling, use_tqdm=False)
        found = zip(answer.prompt_logprobs[1:], window[1:], strict=True)
        return [row[token].logprob for row, token in found]


if __name__ == "__main__":
    run(Vllm)
