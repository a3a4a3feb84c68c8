"""The read-out of real checkpoints beside arithmetic's limit, sampling and option scores, in one run.

reading    seconds x matmul rate / (2 x parameters used x positions), where 1 is the limit; a hundred
           natural prompts a task. Parameters used: the body's at every position computed, the
           output layer's where logits are wanted. Seconds are the processor's
generate   a thousand samples by `generate`, scaled from fewer, beside `readout` of the same prompt
scores     every option's log-likelihood behind the prompt, as lm-eval defines it: written out, and by
           lm-eval itself where it is installed; the total variation of these scores from the law
together   read-out and lm-eval on the same 25 prompts of a task, each in its own batches
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from bench_measure import counted, installed, source, write
from bench_peers import Ids, generate, harness, option_scores, total_variation

from crystal.ask.ladders import load_ladder
from crystal.ask.natural import NaturalPrompt, load_prompts
from crystal.ask.prompts import CHAT, COMPLETION
from crystal.ask.tasks import PHASE_TASKS, TASKS, Task
from crystal.files import root
from crystal.read.engine import Engine, load_rung
from crystal.read.readout import Readout, readout

LADDERS = ("gemma3-270m", "smollm2-135m-instruct")
COMPARED = ("coin", "month", "weekday", "ten", "letter")
SAMPLES, DRAWN, NEW_TOKENS = 1000, 50, 6  # compared with; drawn and scaled; tokens of an answer
MAX_NODES = 400  # as the command line's
READING, COMPARING, TOGETHER = "reading", "comparing", "together"
EVERY = 4  # of the hundred prompts, where lm-eval is put many at a time
KEPT = "_build/bench/real-rows.json"
BATCH = 16  # option scores in a batch: a wide vocabulary's logits at every position are large


def real(quick: bool = False) -> list[dict]:
    """Both real checkpoints: reading against the limit, samples and option scores.

    quick: ten prompts a task, two tasks compared. Else resumable: rows measured with the code as
    it is now are kept in KEPT.
    """
    rows = [] if quick else _kept()
    prompts = load_prompts()[: 10 if quick else None]
    for name, work, tasks in _works(quick):
        engine = None
        for task in tasks:
            if any((row["model"], row["work"], row["task"]) == (name, work, task) for row in rows):
                continue
            if engine is None:
                engine = load_rung(load_ladder(name).rungs[0], dtype="float32")
                _ = engine.ragged  # the proof belongs to loading
            asked = {READING: prompts, COMPARING: prompts[:1], TOGETHER: prompts[::EVERY]}[work]
            measured = {READING: _reading, COMPARING: _compared, TOGETHER: _together}[work]
            for row in measured(engine, TASKS[task], asked):
                rows.append({"model": name, "work": work, **row})
                shown = (f"{v:.4g}" if isinstance(v, float) else v for v in rows[-1].values())
                print(*shown, flush=True)
            if not quick:
                write(root() / KEPT, {"source": source(), "rows": rows})
    return rows


def _works(quick: bool) -> list[tuple[str, str, Sequence[str]]]:
    """What is to be measured: (ladder, kind, tasks), what takes longest last."""
    tasks = sorted(PHASE_TASKS, key=lambda task: len(TASKS[task].options))
    compared = COMPARED[: 2 if quick else None]
    many = compared if installed("lm_eval") else ()
    kinds = ((COMPARING, compared), (TOGETHER, many), (READING, tasks))
    return [(name, kind, tasks) for kind, tasks in kinds for name in LADDERS]


def _kept() -> list[dict]:
    path = root() / KEPT
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found["rows"] if found.get("source") == source() else []


def _ids(engine: Engine, task: Task, prompt: NaturalPrompt) -> Ids:
    """A natural prompt in the form that the checkpoint was made for."""
    form = CHAT if engine.tokenizer.chat_template else COMPLETION
    return engine.encode(prompt.text(task, form), form, prompt.reply(task))


def _read(engine: Engine, prompts: Sequence[Ids], task: Task) -> list[Readout]:
    return readout(engine, prompts, task, max_nodes=MAX_NODES)


def _reading(engine: Engine, task: Task, asked: Sequence[NaturalPrompt]) -> Iterator[dict]:
    """One task: what it took, and what arithmetic takes at the rate measured before and after."""
    prompts = [_ids(engine, task, prompt) for prompt in asked]
    _read(engine, prompts[:2], task)  # the rows of the task's table are made once a vocabulary
    head, seen = engine.model.get_output_embeddings(), []
    handle = head.register_forward_hook(lambda _, __, out: seen.append(out.shape[:-1].numel()))
    rate = matmul_rate(engine)
    with counted(engine.model) as positions:
        seconds, found = _timed(lambda: _read(engine, prompts, task))
    handle.remove()
    rate = (rate + matmul_rate(engine)) / 2
    needed = 2 * (body(engine) * sum(positions) + head.weight.numel() * sum(seen))
    answered = [law.answered for law in found]
    yield {
        "contestant": "read-out",
        "task": task.name,
        "prompts": len(prompts),
        "seconds": seconds,
        "tokens": sum(positions),
        "logits": sum(seen),
        "rate": rate,
        "ratio": seconds * rate / needed,
        "clock": "processor",
        "answered": float(np.median(answered)),
        "unresolved": float(np.median([law.unresolved for law in found])),
    }


def _compared(engine: Engine, task: Task, asked: Sequence[NaturalPrompt]) -> Iterator[dict]:
    """One prompt: read-out, samples, option scores.

    The faster of two turns counts; samples, for which that is nothing, take one.
    """
    ids, answers = _ids(engine, task, asked[0]), _answers(engine, task)
    works: dict[str, Callable[[], object]] = {
        "read-out": lambda: _read(engine, [ids], task),
        "option scores": lambda: option_scores(engine, [ids], answers, BATCH),
        "generate, 1000 samples": lambda: generate(engine, ids, DRAWN, NEW_TOKENS),
    }
    if installed("lm_eval"):
        lm = harness(engine, CHAT, BATCH)  # the ids have their beginning already
        asked = [(("", ""), list(ids), list(answer)) for answer in answers]
        works["lm-eval"] = lambda: lm._loglikelihood_tokens(asked, disable_tqdm=True)
    law = np.array([law.options for law in _read(engine, [ids], task)])
    scored = option_scores(engine, [ids], answers, BATCH)
    tv = {"option scores": float(total_variation(scored, law)[0])}
    if "lm-eval" in works:
        found = np.exp([[score for score, _ in works["lm-eval"]()]])
        tv["lm-eval"] = float(total_variation(found, law)[0])
    for name, work in works.items():
        turns, scale = (1, SAMPLES / DRAWN) if name.startswith("generate") else (2, 1)
        with counted(engine.model) as positions:
            seconds = min(_timed(work)[0] for _ in range(turns))
        yield {
            "contestant": name,
            "task": task.name,
            "prompts": 1,
            "seconds": seconds * scale,
            "tokens": round(sum(positions) / turns * scale),
            "options": len(answers),
            "one_token": float(np.mean([len(answer) == 1 for answer in answers])),
            "tv": tv.get(name),
        }


def _answers(engine: Engine, task: Task) -> list[Ids]:
    """The one tokenization of every option that a scorer looks at."""
    cut = [engine.tokenizer(" " + o, add_special_tokens=False)["input_ids"] for o in task.options]
    return [tuple(ids) for ids in cut]


def _together(engine: Engine, task: Task, asked: Sequence[NaturalPrompt]) -> Iterator[dict]:
    """Many prompts of one task, by the read-out and by lm-eval."""
    prompts, answers = [_ids(engine, task, prompt) for prompt in asked], _answers(engine, task)
    lm = harness(engine, CHAT, BATCH)  # the ids have their beginning already
    pairs = [(("", ""), list(ids), list(answer)) for ids in prompts for answer in answers]
    works = {
        "read-out": lambda: _read(engine, prompts, task),
        "lm-eval": lambda: lm._loglikelihood_tokens(pairs, disable_tqdm=True),
    }
    _read(engine, prompts[:2], task)  # the rows of the task's table are made once a vocabulary
    found = {}
    for name, work in works.items():
        with counted(engine.model) as positions:
            seconds, found[name] = _timed(work)
        tv = None
        if name == "lm-eval":
            law = np.array([law.options for law in found["read-out"]])
            scores = np.exp([score for score, _ in found[name]]).reshape(law.shape)
            tv = float(np.median(total_variation(scores, law)))
        yield {
            "contestant": name,
            "task": task.name,
            "prompts": len(prompts),
            "seconds": seconds,
            "tokens": sum(positions),
            "options": len(answers),
            "one_token": float(np.mean([len(answer) == 1 for answer in answers])),
            "tv": tv,
        }


def body(engine: Engine) -> int:
    """Weights that every position meets: all but the embedding and the output layer."""
    outer = {
        id(module.weight)
        for module in (engine.model.get_input_embeddings(), engine.model.get_output_embeddings())
    }
    return sum(p.numel() for p in engine.model.parameters() if id(p) not in outer)


def matmul_rate(engine: Engine, rows: int = 128, repeats: int = 40) -> float:
    """Operations a second of float32 products of the model's own shape, `rows` at a time."""
    config = engine.model.config.get_text_config()
    x, w = (
        torch.randn(rows, config.hidden_size),
        torch.randn(config.intermediate_size, config.hidden_size),
    )
    with torch.inference_mode():
        torch.nn.functional.linear(x, w)
        seconds, _ = _timed(lambda: [torch.nn.functional.linear(x, w) for _ in range(repeats)])
    return repeats * 2 * rows * w.numel() / seconds


def _timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds of the processor, on one thread: what others do beside us does not count."""
    began = time.process_time()
    out = work()
    return time.process_time() - began, out
