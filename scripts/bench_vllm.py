"""vLLM beside the read-out: a process of an environment of its own, told over pipes what to sample.

vLLM wants other releases of libraries than this repository, so it is not imported here: CRYSTAL_VLLM names the Python of an
environment that has it. Run with a folder of weights, this file is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

LONGEST = 256  # tokens of a sequence, prompt and answer: the context of the shipped ladders
BLOCK = 32  # tokens of a prompt that its cache keeps together: the fewest that attention on a CPU takes


def python() -> str | None:
    """The Python of vLLM's environment, None if none was named."""
    return os.environ.get("CRYSTAL_VLLM")


class Vllm:
    """The process, with a model loaded and a request behind it. version: of vLLM; tokens: computed by the last request."""

    def __init__(self, folder: str) -> None:
        from crystal.files import root  # here: the process itself has no `crystal`

        self.log = root() / "_build" / "bench" / "vllm.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        settings = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": "1"}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([python(), __file__, folder], env=os.environ | settings, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log, text=True)
        self.version, self.tokens = self._said()["version"], 0

    def sample(self, prompts: Sequence[Sequence[int]], n: int, tokens: int) -> None:
        """n answers of at most so many tokens to each prompt, all prompts at once."""
        print(json.dumps({"prompts": prompts, "n": n, "tokens": tokens}), file=self.process.stdin, flush=True)
        self.tokens = self._said()["tokens"]

    def _said(self) -> dict:
        if line := self.process.stdout.readline():
            return json.loads(line)
        from crystal.errors import CrystalError

        raise CrystalError(f"vLLM ended with status {self.process.wait()}", where=self.log, mend="see there, or leave vllm out")


@contextmanager
def running(folder: str) -> Iterator[Vllm]:
    """One with the model of that folder, gone behind the block."""
    there = Vllm(folder)
    try:
        yield there
    finally:
        there.process.stdin.close()
        there.process.wait()


def serve(folder: str) -> None:
    """Answer requests until there are no more."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM and its processes write to standard output
    import vllm

    model = vllm.LLM(folder, dtype="float32", max_model_len=LONGEST, max_num_seqs=256, block_size=BLOCK, generation_config="vllm",
                     enable_prefix_caching=True, disable_log_stats=False)
    print(json.dumps({"version": vllm.__version__}), file=replies, flush=True)
    for line in sys.stdin:
        wanted, before = json.loads(line), computed(model)
        settings = vllm.SamplingParams(n=wanted["n"], max_tokens=wanted["tokens"], temperature=1.0, detokenize=False)
        model.generate([{"prompt_token_ids": ids} for ids in wanted["prompts"]], settings, use_tqdm=False)
        print(json.dumps({"tokens": computed(model) - before}), file=replies, flush=True)


def computed(model) -> int:
    """Token positions so far: of prompts that no cache had, and drawn ones."""
    counts = {metric.name: metric.value for metric in model.get_metrics() if hasattr(metric, "value")}
    asked, had, drawn = (counts[f"vllm:{name}"] for name in ("prefix_cache_queries", "prefix_cache_hits", "generation_tokens"))
    return int(asked - had + drawn)


if __name__ == "__main__":
    serve(sys.argv[1])
