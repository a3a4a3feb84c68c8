"""The exact read-out beside its peers: one model, the same prompts, one machine (`make bench`).

    peers    both ends of each shipped ladder: read-out, lm-eval's option scores, samples
    real     real checkpoints: read-out against arithmetic's limit, samples and option scores

Writes data/bench.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import Module

from crystal.ask.ladders import load_ladder
from crystal.ask.prompts import CHAT, COMPLETION, PROMPTS, load_prompts
from crystal.ask.tasks import PHASE_TASKS, TASKS, Task
from crystal.files import root, write_file
from crystal.keep import sums
from crystal.read.engine import Engine, load_checkpoint
from crystal.read.readout import readout

HARNESS = importlib.util.find_spec("lm_eval") is not None
SUBJECTS = [*itertools.product(("nano-llama", "nano-olmo2"), ("base", "rlvr"))]
REAL = ("gemma3-270m", "smollm2-135m-instruct")
COMPARED = ("coin", "month", "weekday", "ten", "letter")  # tasks of one prompt, on real checkpoints
DELIMITER = {CHAT: "", COMPLETION: " "}  # what stands before an option's text in these corpora
SAMPLES, DRAWN, NEW_TOKENS, REPEATS, MAX_NODES = 1000, 50, 8, 5, 400  # nodes: real checkpoints'
PATIENCE = 20.0  # seconds: a contestant that has been measured for so long takes no further turn
Ids, Work = tuple[int, ...], Callable[[], object]


def measured(model: Module, work: Work) -> tuple[float, int, object]:
    """Seconds of the processor, token positions computed, and what `work` returns."""
    positions: list[int] = []

    def count(_, args: tuple, kwargs: dict) -> None:
        positions.append((kwargs["input_ids"] if "input_ids" in kwargs else args[0]).numel())

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    began = time.process_time()
    found = work()
    seconds = time.process_time() - began
    handle.remove()
    return seconds, sum(positions), found


def race(model: Module, works: Mapping[str, Work], repeats: int, /, **common) -> list[dict]:
    """One row a contestant: `common`, seconds (median), low, high, runs, tokens.

    In turns; a first run is to warm up, and the measurement if there are no repeats.
    """
    rows, runs = [], {name: [] for name in works}
    for _, (name, work) in itertools.product(range(repeats + 1), works.items()):
        if sum(seconds for seconds, _ in runs[name][1:]) < PATIENCE:
            runs[name].append(measured(model, work)[:2])
    for name, found in runs.items():
        seconds, tokens = zip(*(found[1:] or found), strict=True)
        row = {"seconds": statistics.median(seconds), "low": min(seconds), "high": max(seconds)}
        row |= {"runs": len(seconds), "tokens": tokens[0]}
        rows.append({**common, "contestant": name, **row})
    return rows


def provenance() -> dict:
    """What a number depends on besides the code; machines are named by their processor only."""
    names = ("torch", "transformers", "tokenizers", "numpy", *(["lm-eval"] if HARNESS else []))
    info = Path("/proc/cpuinfo")
    cpu = re.search(r"^model name\s*: (.+)$", info.read_text() if info.exists() else "", re.M)
    found = {"lm-eval": None} | {name: importlib.metadata.version(name) for name in names}
    found |= {"python": platform.python_version(), "threads": torch.get_num_threads()}
    found |= {"processor": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count()}
    return found | {"load": [round(x, 2) for x in os.getloadavg()]}


def generate(engine: Engine, ids: Ids, samples: int) -> torch.Tensor:
    """Plain ancestral samples (samples, prompt + tokens)."""
    torch.manual_seed(0)
    batch = torch.tensor([ids])
    how = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "num_beams": 1}
    how |= {"max_new_tokens": NEW_TOKENS, "num_return_sequences": samples, "use_cache": True}
    return engine.model.generate(batch, attention_mask=torch.ones_like(batch), **how)


def continuations(engine: Engine, task: Task, form: str) -> list[Ids]:
    """The one tokenization of every option that a scorer looks at."""
    texts = [DELIMITER[form] + option for option in task.options]
    return [*map(tuple, engine.tokenizer(texts, add_special_tokens=False)["input_ids"])]


def option_scores(engine: Engine, prompts: Sequence[Ids], answers: Sequence[Ids]) -> np.ndarray:
    """lm-eval's number by its definition: P(answer's tokens | prompt), (prompts, answers)."""
    pairs, out = [(ids, answer) for ids in prompts for answer in answers], []
    for low in range(0, len(pairs), 16):  # a wide vocabulary's logits at every position are large
        part = pairs[low : low + 16]
        rows = [torch.tensor(ids + answer) for ids, answer in part]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        logs = engine.forward(padded, use_cache=False).double().log_softmax(-1)
        for row, (ids, answer) in zip(logs, part, strict=True):
            place = torch.arange(len(ids) - 1, len(ids) + len(answer) - 1)
            out.append(float(row[place, torch.tensor(answer)].sum().exp()))
    return np.reshape(out, (len(prompts), len(answers)))


def harness_scores(engine: Engine, prompts: Sequence[Ids], answers: Sequence[Ids]) -> np.ndarray:
    """The same by lm-eval's own model around ours."""
    asked = [(("", ""), list(ids), list(answer)) for ids in prompts for answer in answers]
    found = harness(engine)._loglikelihood_tokens(asked, disable_tqdm=True)
    return np.exp([score for score, _ in found]).reshape(len(prompts), len(answers))


@functools.cache
def harness(engine: Engine):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=engine.model, tokenizer=engine.tokenizer, batch_size=64)


def peers() -> Iterator[dict]:
    """Every closed task, a hundred prompts: read-out, option scores, samples."""
    for (model, checkpoint), name in itertools.product(SUBJECTS, PHASE_TASKS):
        engine, task = engine_of(model, checkpoint), TASKS[name]
        form = load_ladder(model).checkpoint(checkpoint).native_form
        common = {"model": model, "checkpoint": checkpoint, "form": form, "task": name}
        common |= {"prompts": len(PROMPTS)}
        ids = [engine.encode(p.text(task, form), form) for p in PROMPTS]
        read = functools.partial(readout, engine, ids, task)
        works = {f"read-out, {b:g}": functools.partial(read, tolerance=b) for b in (1e-4, 1e-3)}
        works |= scorers(engine, ids, task, form)
        yield from race(engine.model, works, REPEATS, **common)
        draw = functools.partial(generate, engine, samples=SAMPLES)
        sample = {f"generate, {SAMPLES} samples": functools.partial(list, map(draw, ids[::50]))}
        yield from race(engine.model, sample, 0, **common | {"prompts": 2})


@functools.cache
def engine_of(model: str, checkpoint: str) -> Engine:
    return load_checkpoint(load_ladder(model).checkpoint(checkpoint), dtype="float32")


def scorers(engine: Engine, prompts: Sequence[Ids], task: Task, form: str) -> dict[str, Work]:
    answers = continuations(engine, task, form)
    works = {"option scores": functools.partial(option_scores, engine, prompts, answers)}
    if HARNESS:
        works["lm-eval"] = functools.partial(harness_scores, engine, prompts, answers)
    return works


def real() -> Iterator[dict]:
    """Real checkpoints: reading against the limit, samples and option scores."""
    for model, name in itertools.product(REAL, PHASE_TASKS):
        checkpoint = load_ladder(model).checkpoints[0]
        engine, task = engine_of(model, checkpoint.name), TASKS[name]
        form = COMPLETION if checkpoint.stage == "base" else CHAT  # what it was made for
        ids = [engine.encode(p.text(task, form), form, p.reply(task)) for p in load_prompts()]
        rows = [limit(engine, ids, task)]
        for asked in (ids[:1], ids[::4]) if name in COMPARED else ():
            rows += compared(engine, asked, task)
        yield from ({"model": model, "task": name} | row for row in rows)


def compared(engine: Engine, prompts: Sequence[Ids], task: Task) -> Iterator[dict]:
    """Read-out, option scores with their median distance from it; of one prompt samples, too."""
    one, works = len(prompts) == 1, scorers(engine, prompts, task, COMPLETION)
    works = works if one else {name: work for name, work in works.items() if name == "lm-eval"}
    read = functools.partial(readout, engine, prompts, task, max_nodes=MAX_NODES)
    distribution = np.array([found.options for found in read()])
    scores = {name: work() for name, work in works.items()}  # these know of no other answer
    shares = {name: p / p.sum(1, keepdims=True) for name, p in {**scores, "": distribution}.items()}
    apart = {name: abs(share - shares[""]).sum(1) / 2 for name, share in shares.items()}
    works["read-out"] = read
    if one:
        draw = functools.partial(generate, engine, prompts[0], DRAWN)
        works[f"generate, {SAMPLES} samples"] = draw
    lengths = [len(answer) for answer in continuations(engine, task, COMPLETION)]
    common = {"options": len(lengths), "one_token": float(np.mean(np.equal(lengths, 1)))}
    common |= {"work": "comparing" if one else "together", "prompts": len(prompts)}
    for row in race(engine.model, works, 2, **common):
        if row["contestant"].startswith("generate"):  # scaled: a thousand take an hour
            for name in ("seconds", "low", "high", "tokens"):
                row[name] *= SAMPLES / DRAWN
        tv = apart.get(row["contestant"])
        yield row | {"tv": None if tv is None else float(np.median(tv))}


def limit(engine: Engine, prompts: Sequence[Ids], task: Task) -> dict:
    """Seconds of a task over those of its arithmetic, at the rate measured around it."""
    head, seen = engine.model.get_output_embeddings(), []
    read = functools.partial(readout, engine, task=task, max_nodes=MAX_NODES)
    read(prompts[:2])  # the task's table is made once a vocabulary
    handle = head.register_forward_hook(lambda _, __, out: seen.append(out.shape[:-1].numel()))
    rate = matmul_rate(engine)
    seconds, tokens, found = measured(engine.model, lambda: read(prompts))
    handle.remove()
    rate = (rate + matmul_rate(engine)) / 2
    # parameters used: the body's at every position, the output layer's where logits are wanted
    outer = [id(engine.model.get_input_embeddings().weight), id(head.weight)]
    body = sum(p.numel() for p in engine.model.parameters() if id(p) not in outer)
    needed = 2 * (body * tokens + head.weight.numel() * sum(seen))
    row = {"work": "reading", "contestant": "read-out", "prompts": len(prompts), "rate": rate}
    row |= {"seconds": seconds, "tokens": tokens, "logits": sum(seen)}
    row |= {"clock": "processor", "ratio": seconds * rate / needed}
    for name in ("answered", "residual"):
        row[name] = float(np.median([getattr(one, name) for one in found]))
    return row


def matmul_rate(engine: Engine, rows: int = 128, repeats: int = 40) -> float:
    """Operations a second of float32 products of the model's own shape, `rows` at a time."""
    config = engine.model.config.get_text_config()
    shapes = (rows, config.hidden_size), (config.intermediate_size, config.hidden_size)
    x, w = (torch.randn(*shape) for shape in shapes)
    product = functools.partial(torch.nn.functional.linear, x, w)
    with torch.inference_mode():
        seconds, *_ = measured(engine.model, lambda: [product() for _ in range(repeats)])
    return repeats * 2 * rows * w.numel() / seconds


def main() -> None:
    parts, parser = {"peers": peers, "real": real}, argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=parts, help="default: both")
    parser.add_argument("--out", type=Path, default=root() / "data" / "bench")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for name in args.parts or parts:
        before, began, rows = provenance(), time.time(), []
        for row in parts[name]():
            rows.append(row)
            print(row, flush=True)
        about = {"part": name, "what": parts[name].__doc__, "rows": rows}
        about["left_out"] = {} if HARNESS else {"lm-eval": "not installed, left out"}
        about["provenance"] = before | {"load_after": provenance()["load"]}
        about["seconds"] = round(time.time() - began, 1)
        with sums.keeping():
            write_file(args.out / f"{name}.json", (json.dumps(about, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
