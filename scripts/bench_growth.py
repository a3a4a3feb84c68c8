"""How cost grows: with the options of a task, the prompts, the draws, the prompt's length, the model, and the error allowed.

Every row holds the seconds and tokens of so many `prompts`; nothing is extrapolated but in `error`, which says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from bench_measure import Work, ceiling, child, installed, peak_mebibytes, race, said
from bench_peers import BASES, SUBJECTS, Ids, encoded, engine_of, generate, harness, harness_scores
from scipy.stats import binom
from transformers import LlamaConfig, LlamaForCausalLM

from crystal.ask.prompts import COMPLETION, PROBE, PROMPTS
from crystal.ask.tasks import TASKS, Task
from crystal.read.engine import Engine, build
from crystal.read.readout import readout
from crystal.read.sampling import draw_many

SUBJECT = BASES["nano-olmo2"]  # of all but `open_text`, `length` and `size`
REPEATS = 5
SAMPLES, NEW_TOKENS = 1000, 6  # of `generate`; the ladders' longest option is five tokens, and one more shows its boundary
OPEN_TOKENS = 12  # of an open answer
BUDGETS = (1e-2, 1e-3, 1e-4)
ERROR_TASKS = ("coin", "ten", "hundred", "month", "rank")
SIZES = {"1M": {}, "5M": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6},
         "25M": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 7},
         "100M": {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 13}}
LENGTHS = (50, 200, 800)
DRAWS = (10**2, 10**3, 10**4, 10**5, 10**6)
CLOSED = ("hundred", "month", "rank")  # tasks whose options are several tokens


def read_outs(engine: Engine, prompts: Sequence[Ids], task: Task, budgets: Sequence[float] = BUDGETS[1:]) -> dict[str, Work]:
    engine.table(task)
    return {f"read-out, {budget:g}": lambda budget=budget: readout(engine, prompts, task, budget=budget) for budget in budgets}


def tree(engine: Engine, prompts: Sequence[Ids], n: int, task: Task | None) -> Work:
    return lambda: draw_many(engine, prompts, n, seed=1, max_tokens=OPEN_TOKENS, task=task)


def samples(engine: Engine, prompts: Sequence[Ids], n: int, tokens: int = NEW_TOKENS, *, shared: bool = False) -> Work:
    return lambda: [generate(engine, ids, n, tokens, shared=shared) for ids in prompts]


def options() -> list[dict]:
    """Two options to a thousand."""
    engine, form, rows = engine_of(SUBJECT), SUBJECT.form, []
    for name in ("coin", "ten", "hundred", "thousand"):
        task = TASKS[name]
        ids = encoded(engine, PROBE, task, form)
        contestants = read_outs(engine, ids, task) | {"tree sampler, 1e3 draws": tree(engine, ids, 1000, task)}
        if installed("lm_eval"):
            lm = harness(engine, form, 256)
            contestants["lm-eval"] = lambda lm=lm, task=task: harness_scores(lm, PROBE, task, form)
        common = {**SUBJECT._asdict(), "task": name, "options": len(task.options)}
        rows += race(engine.model, contestants, REPEATS, **common, prompts=len(ids))
        rows += race(engine.model, {f"generate, {SAMPLES} samples": samples(engine, ids[:2], SAMPLES)}, 0, **common, prompts=2)
    return rows


def prompts() -> list[dict]:
    """One prompt to a thousand: the hundred, then the hundred with a number before the question."""
    engine, form, task, rows = engine_of(SUBJECT), SUBJECT.form, TASKS["month"], []
    every = [engine.encode((f"Round {turn}. " if turn else "") + p.text(task, form), form) for turn in range(10) for p in PROMPTS]
    for size in (1, 10, 100, 1000):
        ids = every[:size] if size >= 100 else every[:: 100 // size][:size]
        contestants = read_outs(engine, ids, task) | {"tree sampler, 1e3 draws": tree(engine, ids, 1000, task)}
        rows += race(engine.model, contestants, REPEATS, **SUBJECT._asdict(), task=task.name, prompts=len(ids))
    return rows


def draws() -> list[dict]:
    """A hundred draws to a million by the tree sampler, of a closed and of an open answer; samples as far as is feasible."""
    engine, form, rows = engine_of(SUBJECT), SUBJECT.form, []
    for name in (*CLOSED, "word"):
        task, common = TASKS[name], {**SUBJECT._asdict(), "task": name}
        ids = encoded(engine, PROBE[::4], task, form)
        closed, tokens = (task, NEW_TOKENS) if task.closed else (None, OPEN_TOKENS)
        ways = {f"tree sampler, {n}": tree(engine, ids, n, closed) for n in DRAWS[: None if closed else -1]}
        found = race(engine.model, ways, REPEATS, **common, prompts=len(ids))
        if name in ("month", "word"):
            found += race(engine.model, {f"generate, {n}": samples(engine, ids[:1], n, tokens) for n in DRAWS[:3]}, 0,
                          **common, prompts=1)
        for row in found:
            row["contestant"], draws = row["contestant"].split(", ")
            rows.append(row | {"draws": int(draws)})
    return rows


def open_text() -> list[dict]:
    """A thousand whole answers to open questions: the tree against samples."""
    rows = []
    for subject in SUBJECTS:
        engine = engine_of(subject)
        for name in ("first_name", "city", "word"):
            ids = encoded(engine, PROBE[::5], TASKS[name], subject.form)
            ways = {"tree sampler": tree(engine, ids, SAMPLES, None), "generate": samples(engine, ids, SAMPLES, OPEN_TOKENS),
                    "generate, prompt once": samples(engine, ids, SAMPLES, OPEN_TOKENS, shared=True)}
            rows += race(engine.model, ways, REPEATS, **subject._asdict(), task=name, draws=SAMPLES, prompts=len(ids))
    return rows


def widened(engine: Engine, *, context: int = 256, **shape: int) -> Engine:
    """The same law at another size: a Llama with more width, heads and layers, whose additions are zeros that cost as much.

    A normalisation over more channels divides by less; its weights and epsilon take that back. Heads keep their width.
    So cost can be followed without the answers, and with them the tree, changing underneath.
    """
    before, sizes = engine.model.config, {"max_position_embeddings": context, **shape}
    hidden = sizes.get("hidden_size", before.hidden_size)
    heads = hidden // before.head_dim
    config = LlamaConfig(**{
        **before.to_dict(), **sizes, "num_attention_heads": heads,
        "num_key_value_heads": heads * before.num_key_value_heads // before.num_attention_heads,
        "rms_norm_eps": before.rms_norm_eps * before.hidden_size / hidden})
    wide = LlamaForCausalLM(config).float()
    old = engine.model.state_dict()
    with torch.no_grad():
        for name, weight in wide.state_dict().items():
            weight.zero_()
            if name in old:
                scale = (before.hidden_size / hidden) ** 0.5 if name.endswith("norm.weight") else 1.0
                weight[tuple(slice(n) for n in old[name].shape)] = old[name] * scale
    return build(wide, engine.tokenizer, source="widened")


def _of_size(engine: Engine, ids: list[Ids], common: dict) -> list[dict]:
    """The contestants of `length` and `size`: (month) read-outs, lm-eval's scores by their definition, samples."""
    task, few = TASKS["month"], 100
    contestants = read_outs(engine, ids, task) | {"tree sampler, 1e3 draws": tree(engine, ids, 1000, task)}
    rows = race(engine.model, contestants, REPEATS, **common, task=task.name, prompts=len(ids))
    return rows + race(engine.model, {f"generate, {few} samples": samples(engine, ids[:1], few)}, 0,
                       **common, task=task.name, prompts=1)


def length() -> list[dict]:
    """A prompt of 50 tokens to 800: answered questions of other narrators stand before it. Trained context: 256 tokens."""
    small, rows = engine_of(BASES["nano-llama"]), []
    engine = widened(small, context=1024)
    task = TASKS["month"]
    pages = "".join(p.text(TASKS["digit"], COMPLETION) + " 7.\n\n" for p in PROMPTS)
    filler = small.tokenizer(pages, add_special_tokens=False)["input_ids"]
    for size in LENGTHS:
        ids = []
        for n, short in enumerate(encoded(small, PROBE[::4], task, COMPLETION)):
            pad = filler[100 * n :][: size - len(short)]
            ids.append((*short[:1], *pad, *short[1:]))
        rows += _of_size(engine, ids, {**BASES["nano-llama"]._asdict(), "length": size})
    return rows


def size() -> list[dict]:
    """One million parameters to a hundred, of one law; `difference`: the most that an option's probability is off."""
    small, rows = engine_of(BASES["nano-llama"]), []
    ids = encoded(small, PROBE[::4], TASKS["month"], COMPLETION)
    law = np.array([r.options for r in readout(small, ids, TASKS["month"], budget=1e-4)])
    for name, shape in SIZES.items():
        engine = widened(small, **shape)
        off = float(abs(np.array([r.options for r in readout(engine, ids, TASKS["month"], budget=1e-4)]) - law).max())
        parameters = sum(p.numel() for p in engine.model.parameters())
        most = ceiling()
        rows += _of_size(engine, ids, {**BASES["nano-llama"]._asdict(), "model": f"nano-llama as {name}",
                                       "parameters": parameters, "difference": off, "ceiling": (most + ceiling()) / 2})
    return rows


def expected_tv(law: np.ndarray, n: int) -> float:
    """Expected total variation of the shares of n draws from their law (classes,), exactly: de Moivre's mean deviation.

    E|X - np| = 2 m (1 - p) P(X = m) with m = floor(np) + 1 for a binomial X.
    """
    m = np.floor(n * law) + 1
    return float((m * (1 - law) * binom.pmf(m, n, law)).sum() / n)


def draws_for(laws: np.ndarray, error: float) -> int:
    """The fewest draws a prompt whose expected total variation, mean over the laws (prompts, classes), is not above `error`.

    Within a thousandth of the number; 1 if one is enough.
    """
    expected = lambda n: np.mean([expected_tv(law, int(n)) for law in laws])  # noqa: E731
    low, high = 1.0, 1.0
    while expected(high) > error:
        low, high = high, high * 2
    while high / low > 1.001 and high - low > 1:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if expected(middle) > error else (low, middle)
    return int(np.ceil(high))


def error() -> list[dict]:
    """Read-outs of three budgets, their true error, and the samples that have no larger one in expectation.

    tv: mean over prompts of the total variation (options and off-support) from the read-out at 1e-7, the unresolved mass
    counted as wrong. samples: of each prompt, for the same mean error, by closed form from the actual laws. Their seconds
    are computed, not measured: samples x the measured seconds of one in a batch of a thousand.
    """
    engine, form, rows = engine_of(SUBJECT), SUBJECT.form, []
    for name in ERROR_TASKS:
        task = TASKS[name]
        ids = encoded(engine, PROBE[::2], task, form)
        laws = _laws(readout(engine, ids, task, budget=1e-7, max_nodes=100_000))
        plain = race(engine.model, {"generate": samples(engine, ids[:2], SAMPLES)}, 0)[0]["seconds"] / (2 * SAMPLES)
        for budget in BUDGETS:
            found = readout(engine, ids, task, budget=budget)
            tv = abs(_laws(found) - laws).sum(1) / 2 + np.array([r.unresolved for r in found]) / 2
            needed = draws_for(laws / laws.sum(1, keepdims=True), float(tv.mean()))
            row = race(engine.model, read_outs(engine, ids, task, [budget]), REPEATS, **SUBJECT._asdict(), task=name)[0]
            rows.append(row | {
                "prompts": len(ids), "budget": budget, "tv": float(tv.mean()),
                "unresolved": float(np.mean([r.unresolved for r in found])), "samples": needed,
                "sample_seconds": plain, "sampling_seconds": plain * needed * len(ids)})
    return rows


def _laws(found: list) -> np.ndarray:
    return np.array([[*r.options, r.off_support] for r in found])


def memory() -> list[dict]:
    """Peak memory above the loaded model, each contestant in a process of its own; left out where the kernel keeps no mark."""
    names = ["read-out, 0.0001", "tree sampler, 1e6 draws", "generate, 1000 samples"] + ["lm-eval"] * installed("lm_eval")
    rows = []
    for task in ("month", "hundred"):
        for name in names:
            rows += said(child(f"import bench_growth; bench_growth.peak({name!r}, {task!r})"))
    return [row for row in rows if row["mebibytes"] is not None]


def peak(name: str, task_name: str) -> None:
    """Run one contestant of `memory` and print its row."""
    torch.set_num_threads(1)
    engine, form, task = engine_of(SUBJECT), SUBJECT.form, TASKS[task_name]
    ids = encoded(engine, PROBE, task, form)
    contestants = read_outs(engine, ids, task, BUDGETS[2:]) | {
        "tree sampler, 1e6 draws": tree(engine, ids, 10**6, task), "generate, 1000 samples": samples(engine, ids[:1], SAMPLES)}
    if name == "lm-eval":
        lm = harness(engine, form, 64)
        contestants[name] = lambda: harness_scores(lm, PROBE, task, form)
    readout(engine, ids[:1], TASKS["coin"])  # what the first forward ever allocates is nobody's
    before = peak_mebibytes()
    contestants[name]()
    after = peak_mebibytes()
    print(json.dumps({**SUBJECT._asdict(), "task": task_name, "contestant": name,
                      "prompts": 1 if name.startswith("generate") else len(ids),
                      "mebibytes": None if before is None or after is None else after - before, "loaded": before}))
