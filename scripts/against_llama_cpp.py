"""Next-token probabilities of real checkpoints, dequantised, against llama.cpp on the GGUF file.

    python scripts/against_llama_cpp.py

Writes data/bench/against-llama-cpp.json. Needs `pip install cyllama`, a wheel of llama.cpp; no
dependency of this repository. llama.cpp reads each file twice: as it is, where its kernels round
activations to eight bits, and with the same weights written out in float32, where nothing is
rounded. The second differs from ours by arithmetic alone; what the first adds is the rounding.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from bench_measure import provenance, write
from bench_real import LADDERS
from cyllama.llama import llama_cpp

from crystal.ask import sources
from crystal.ask.ladders import load_ladder
from crystal.ask.natural import load_prompts
from crystal.ask.prompts import CHAT, COMPLETION
from crystal.ask.tasks import TASKS
from crystal.files import root
from crystal.read.engine import Engine, load_rung

ASKED, PROMPTS = ("coin", "weekday"), 3  # tasks; natural prompts of each
F32 = 0  # llama.cpp's number of this type of file and of cache
Ids = tuple[int, ...]


class Model(llama_cpp.LlamaModel):
    """Theirs, with what their own context asks it for."""

    @property
    def n_vocab(self) -> int:
        return self.get_vocab().n_vocab


def theirs(file: Path, asked: list[Ids]) -> np.ndarray:
    """llama.cpp's next-token probabilities behind each prompt (prompts, vocabulary), one thread."""
    model = Model(str(file), llama_cpp.LlamaModelParams(), verbose=False)
    wanted = llama_cpp.LlamaContextParams()
    wanted.n_ctx, wanted.n_threads, wanted.n_threads_batch = 512, 1, 1
    wanted.type_k = wanted.type_v = F32
    context = llama_cpp.LlamaContext(model, wanted, verbose=False)
    found = []
    for ids in asked:
        context.kv_cache_clear()
        batch = llama_cpp.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
        batch.set_batch(list(ids), 0, False)
        batch.set_last_logits_to_true()
        context.decode(batch)
        found.append(np.array(context.get_logits_ith(-1), float))
    return law(np.array(found))


def law(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def ours(engine: Engine, asked: list[Ids]) -> np.ndarray:
    return law(np.array([engine.forward(torch.tensor([i]))[0, -1].double().numpy() for i in asked]))


def written_out(file: Path, folder: str) -> Path:
    """The same weights in float32."""
    out, how = Path(folder) / file.name, llama_cpp.LlamaModelQuantizeParams()
    how.ftype, how.allow_requantize, how.nthread = F32, True, 1
    llama_cpp.model_quantize(str(file), str(out), how)
    return out


def rows(name: str) -> list[dict]:
    (rung,), found = load_ladder(name).rungs, []
    engine, file = load_rung(rung, dtype="float32"), sources.file_of(rung.source)
    form = CHAT if engine.tokenizer.chat_template else COMPLETION
    asked = {
        task: [
            engine.encode(p.text(TASKS[task], form), form, p.reply(TASKS[task]))
            for p in load_prompts()[: 2 * PROMPTS : 2]
        ]
        for task in ASKED
    }
    every = [ids for some in asked.values() for ids in some]
    true = ours(engine, every)
    with tempfile.TemporaryDirectory() as folder:
        laws = {"as it is": theirs(file, every)}
        laws["float32"] = theirs(written_out(file, folder), every)
    for kernels, law_ in laws.items():
        for number, task in enumerate(asked):
            mine = slice(number * PROMPTS, (number + 1) * PROMPTS)
            firsts = sorted({
                engine.tokenizer(before + option, add_special_tokens=False)["input_ids"][0]
                for option in TASKS[task].options for before in (" ", "")
            })
            p, q = true[mine], law_[mine]
            found.append({
                "model": name, "task": task, "weights": kernels, "prompts": PROMPTS,
                "tv": float((abs(p - q).sum(-1) / 2).max()),
                "largest": float(abs(p - q)[:, firsts].max()),
                "mass": float(p[:, firsts].sum(-1).mean()),
            })
            print(found[-1], flush=True)
    return found


def main() -> None:
    torch.set_num_threads(1)
    llama_cpp.disable_logging()
    llama_cpp.ggml_backend_load_all()
    found = [row for name in LADDERS for row in rows(name)]
    what = __doc__.split("\n")[0]
    write(
        root() / "data/bench/against-llama-cpp.json",
        {"part": "against-llama-cpp", "what": what, "provenance": provenance(), "rows": found},
    )


if __name__ == "__main__":
    main()
