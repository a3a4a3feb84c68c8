"""What a read-out costs on a CUDA machine, at the shapes of the checkpoints that the paper reads: one command, no download.

    python scripts/gpu_bench.py                                   both 8B shapes, bfloat16, the paper's grid
    python scripts/gpu_bench.py --shape tiny --device cpu         a try without a GPU

Weights are random, but the tree of a flat model has nothing to do with that of a trained one. So the output layer leans
towards the first tokens of the task's options, and behind one of these towards what ends an answer. Tokens a second and shares
of the limits carry over to real checkpoints; cells a second do as far as their trees are as large (`tokens_a_cell`).

Two limits hold whatever the code does (crystal/read/shapes.py computes them). At the shape of Llama 3.1 8B a token takes
15.0 GFLOP, and a forward reads 15.0 GB of bfloat16 weights, however few its tokens. On a machine of F FLOP/s and B bytes/s
they meet at F / B tokens a forward: with fewer, bytes are the limit. F is measured here by a large matrix product, B by a
large copy, in the same run.

Also measured: how far read-outs of the shipped nano ladders on the device, in float32 and bfloat16, are from the CPU's.
Writes data/bench/gpu-<device>.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch
from bench_measure import ceiling, counted, drain, drained, provenance, write
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from crystal.ask.prompts import CHAT, COMPLETION, PROBE, PROMPTS
from crystal.ask.tasks import PHASE_TASKS, TASKS
from crystal.files import root
from crystal.read.engine import Engine, build, load
from crystal.read.readout import readout
from crystal.read.shapes import SHAPES, least_seconds, operations

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
LADDERS = {"nano-llama": COMPLETION, "nano-olmo2": CHAT}
SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe qui ro su ta ve wi xo yu za bre cli dro fla gre".split()
ANSWERED, ENDED = 0.9, 0.05  # of the law behind a prompt: first tokens of options, and what ends an answer
FIRM = 5.0  # by how much the logits of what ends an answer rise behind an option
MARK = 100.0  # channel 0 of the embedding of options' tokens: large enough to outlast the layers of a random model


def tokenizer_of(size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of exactly `size` tokens, digits in groups of three at most, as Llama 3 has it.

    Trained on the prompts and options; the rest are made-up words, which no text is cut into but every table has to know.
    """
    texts = [p.text(TASKS[t], form) for p in PROMPTS[::7] for t in PHASE_TASKS for form in (COMPLETION, CHAT)]
    texts += [f" {option}.\n" for task in TASKS.values() for option in (*task.options, *task.aliases)] * 3
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d{1,3}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=min(size, 4000), special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    content = json.loads(tokenizer.to_str())
    vocabulary, words = content["model"]["vocab"], _words()
    while len(vocabulary) < size:
        vocabulary.setdefault(next(words), len(vocabulary))
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), bos_token="<s>", eos_token="</s>")


def _words():
    """Made-up words without end, shortest first, each with and without a space before it."""
    layer = list(SYLLABLES)
    while True:
        for word in layer:
            yield from (word, "\u0120" + word, word.capitalize())
        layer = [word + more for word in layer for more in SYLLABLES]


def engine_of(shape: str, device: str, dtype: str, tasks: list[str]) -> Engine:
    """A random model of that shape, made on the device, that knows an option's token when it has just seen one."""
    config = AutoConfig.for_model(**SHAPES[shape], bos_token_id=0, eos_token_id=1)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    engine = build(model, tokenizer_of(config.vocab_size), source=shape)
    options = sorted({first for name in tasks for first in _first(engine, name)})
    with torch.no_grad():
        model.get_input_embeddings().weight[options, 0] = MARK
        model.lm_head.weight[:, 0] = 0
        seen: list[torch.Tensor] = []
        with model.lm_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
            engine.forward(torch.tensor([[*engine.encode("A digit:", COMPLETION), options[0]]], device=device))
        model.lm_head.weight[_ends(engine), 0] = FIRM / float(seen[0][0, -1, 0])
    return engine


def _first(engine: Engine, task: str) -> list[int]:
    return [engine.tokenizer(f" {o}", add_special_tokens=False)["input_ids"][0] for o in TASKS[task].options]


def _ends(engine: Engine) -> list[int]:
    return [engine.tokenizer(".", add_special_tokens=False)["input_ids"][0], engine.tokenizer.eos_token_id]


def lean(engine: Engine, task: str) -> None:
    """Give the output layer the bias of a task: log of a law over tokens."""
    law, ends = np.full(len(engine.pieces), (1 - ANSWERED - ENDED) / len(engine.pieces)), _ends(engine)
    first = _first(engine, task)
    np.add.at(law, first, ANSWERED / len(first))
    np.add.at(law, ends, ENDED / len(ends))
    head = engine.model.lm_head
    head.bias = torch.nn.Parameter(torch.from_numpy(np.log(law)).to(head.weight), requires_grad=False)


# -- what the machine can do ---------------------------------------------------------------------------------------


def bandwidth(device: str, mebibytes: int) -> float:
    """Bytes a second of a copy, read and written."""
    a = torch.empty(mebibytes * 2**20, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() / drained(lambda: b.copy_(a), device)


# -- the read-out --------------------------------------------------------------------------------------------------


def throughput(engine: Engine, shape: str, device: str, dtype: str, tasks: list[str], prompts: int, batch: int,
               flops: float, bytes_a_second: float) -> dict:
    """The grid of tasks x prompts at unresolved <= 1e-4, once, after a warm-up of one prompt a task (tables, kernels)."""
    grid = {name: [engine.encode(p.text(TASKS[name], COMPLETION), COMPLETION) for p in PROMPTS[:prompts]] for name in tasks}
    for name, ids in grid.items():
        lean(engine, name)
        readout(engine, ids[:1], TASKS[name], budget=1e-4)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    found = []
    with counted(engine.model) as forwards:
        drain(device)
        began = time.perf_counter()
        for name, ids in grid.items():
            lean(engine, name)
            found += readout(engine, ids, TASKS[name], budget=1e-4, batch=batch)
        drain(device)
        took = time.perf_counter() - began
    cells, tokens = len(found), sum(forwards)
    by_operations, by_bytes = least_seconds(
        SHAPES[shape], tokens, len(forwards), flops, bytes_a_second, DTYPES[dtype].itemsize)
    return {
        "shape": shape, "dtype": dtype, "cells": cells, "batch": batch, "seconds": took, "cells_a_second": cells / took,
        "tokens": tokens, "tokens_a_cell": tokens / cells, "tokens_a_second": tokens / took, "forwards": len(forwards),
        "unresolved_largest": max(r.unresolved for r in found), "over_budget": sum(r.unresolved > 1e-4 for r in found),
        "flops_a_token": operations(SHAPES[shape]), "least_seconds_by_operations": by_operations,
        "least_seconds_by_bytes": by_bytes, "share_of_ceiling": by_operations / took, "share_of_bandwidth": by_bytes / took,
        "peak_gibibytes": torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None,
    }


def agreement(device: str, tasks: list[str]) -> list[dict]:
    """Base rungs of the shipped ladders on the device against the CPU in float32: largest and mean difference of an option."""
    rows = []
    for ladder, form in LADDERS.items():
        laws = {}
        for place, dtype in (("cpu", "float32"), (device, "float32"), (device, "bfloat16")):
            engine = load(f"data/weights/{ladder}/base", device=place, dtype=dtype)
            laws[place, dtype] = np.concatenate([
                np.concatenate([r.options for r in readout(engine, _asked(engine, task, form), TASKS[task], budget=1e-5)])
                for task in tasks])
        for (place, dtype), law in list(laws.items())[device != "cpu":]:
            off = abs(law - laws["cpu", "float32"])
            rows.append({"ladder": ladder, "device": place, "dtype": dtype, "largest": float(off.max()),
                         "mean": float(off.mean())})
    return rows


def _asked(engine: Engine, task: str, form: str) -> list[tuple[int, ...]]:
    return [engine.encode(p.text(TASKS[task], form), form) for p in PROBE]


def main(arguments: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["llama-3.1-8b", "olmo-2-7b"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--tasks", nargs="+", choices=PHASE_TASKS, default=list(PHASE_TASKS))
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="of each task")
    parser.add_argument("--batch", type=int, default=128, help="prompts to a tree")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrix product that sets the ceiling")
    parser.add_argument("--copy", type=int, default=1024, help="MiB of the copy that sets the bandwidth")
    parser.add_argument("--out", type=Path, default=root() / "data" / "bench")
    given = parser.parse_args(arguments)
    cuda = given.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is there. Mend: --shape tiny --device cpu")
    name = torch.cuda.get_device_name(given.device) if cuda else given.device
    flops, rate = ceiling(given.matrix, given.device, DTYPES[given.dtype]), bandwidth(given.device, given.copy)
    print(f"{name}: {flops:.3g} FLOP/s, {rate:.3g} bytes/s, which meet at {flops / rate:.0f} tokens a forward", flush=True)
    rows = []
    for shape in given.shape:
        engine = engine_of(shape, given.device, given.dtype, given.tasks)
        rows.append(throughput(engine, shape, given.device, given.dtype, given.tasks, given.prompts, given.batch, flops, rate))
        print(json.dumps(rows[-1], indent=1), flush=True)
        del engine
        if cuda:
            torch.cuda.empty_cache()
    path = given.out / f"gpu-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    agreed = agreement(given.device, [t for t in ("digit", "month", "rank") if t in given.tasks] or given.tasks)
    write(path, {"part": "gpu", "device": name, "flops": flops, "bandwidth": rate, "meet": flops / rate,
                 "provenance": provenance(), "rows": rows, "agreement": agreed})
    print(f"written to {path}")
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
