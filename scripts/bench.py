"""Exact read-out and tree sampler against plain `generate`: one run, one model, the same prompts (`make bench`).

Prints a markdown table and writes the same numbers to data/bench/readout.json. Tokens computed are deterministic and are
the bar; seconds are medians and move with the machine. `generate` keeps its cache and draws NEW_TOKENS tokens for every
sample, the fewest that hold the ladders' longest option (five tokens) and its boundary; the read-out follows answers to
whatever length the budget asks for.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from crystal.engine import Engine, load
from crystal.ladders import root
from crystal.prompts import CHAT, FORMS, PROMPTS
from crystal.readout import readout
from crystal.sampling import draw_many
from crystal.tasks import TASKS, Task

TASK_NAMES = ("hundred", "month", "rank")  # options of several tokens
SAMPLES = 1000
NEW_TOKENS = 6
BUDGET = 1e-4

Prompts = list[tuple[int, ...]]


def prompts_of(engine: Engine, task: Task, form: str) -> Prompts:
    """Every fourth prompt: 25, all 20 narrators and all 5 frames among them."""
    return [engine.encode(p.text(task, form), form) for p in PROMPTS[::4]]


def generate_tokens(prompts: Prompts) -> int:
    """Positions `generate` computes: it repeats the prompt for every sample, and the last token needs no forward."""
    return SAMPLES * sum(len(ids) + NEW_TOKENS - 1 for ids in prompts)


def generate(engine: Engine, ids: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    batch = torch.tensor([ids], device=engine.device)
    engine.model.generate(
        batch, attention_mask=torch.ones_like(batch), num_return_sequences=SAMPLES, max_new_tokens=NEW_TOKENS,
        use_cache=True,  # a configuration may say false, and every step would begin from nothing
        do_sample=True, top_k=0, top_p=1.0, temperature=1.0, num_beams=1)


def measured(engine: Engine, work: Callable[[], object], repeats: int) -> tuple[int, float]:
    """(token positions computed, median seconds)."""
    seconds = []
    for _ in range(repeats):
        engine.computed, began = 0, time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return engine.computed, statistics.median(seconds)


def bench(engine: Engine, task: Task, form: str, repeats: int, timed: int) -> dict:
    """One row. `timed`: how many of the prompts `generate` is really run on; its seconds are scaled up to all of them."""
    prompts = prompts_of(engine, task, form)
    engine.table(task)
    readout(engine, prompts, task, budget=BUDGET)  # warm: tables are made once per tokenizer and task
    tokens, seconds = measured(engine, lambda: readout(engine, prompts, task, budget=BUDGET), repeats)
    quick, quick_seconds = measured(engine, lambda: readout(engine, prompts, task, budget=1e-3), repeats)
    unresolved = max(r.unresolved for r in readout(engine, prompts, task, budget=BUDGET))
    sampler = {
        f"tree_{n:.0e}".replace("+0", ""): measured(
            engine, lambda n=n: draw_many(engine, prompts, n, seed=1, max_tokens=12, task=task), repeats)
        for n in (1_000, 1_000_000)
    }
    costs = {f"{name}_{what}": pair[i] for name, pair in sampler.items() for i, what in enumerate(("tokens", "seconds"))}
    _, plain = measured(engine, lambda: [generate(engine, ids) for ids in prompts[:: max(1, len(prompts) // timed)][:timed]], 1)
    return {
        "task": task.name, "prompts": len(prompts), "prompt_tokens": sum(map(len, prompts)), "unresolved_max": unresolved,
        "generate_tokens": generate_tokens(prompts), "generate_seconds": plain * len(prompts) / timed,
        "readout_tokens": tokens, "readout_seconds": seconds, "readout_tokens_at_1e-3": quick,
        "readout_seconds_at_1e-3": quick_seconds,
        **costs,
    }


def cpu_model() -> str:
    """As the kernel names it; the architecture where it does not."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def table(rows: list[dict]) -> str:
    """Markdown; ratios are against the same row's `generate`."""
    lines = ["| | " + " | ".join(r["task"] for r in rows) + " |", "|---|" + "---|" * len(rows)]
    cells: list[tuple[str, Callable[[dict], str]]] = [
        (f"`generate`, {SAMPLES} samples of {NEW_TOKENS} tokens: tokens", lambda r: f"{r['generate_tokens']:,}"),
        (f"read-out, unresolved <= {BUDGET:g}: tokens", lambda r: f"{r['readout_tokens']:,}"),
        ("**times fewer**", lambda r: f"**{r['generate_tokens'] / r['readout_tokens']:.0f}**"),
        ("times fewer, unresolved <= 1e-3", lambda r: f"{r['generate_tokens'] / r['readout_tokens_at_1e-3']:.0f}"),
        ("`generate`: seconds", lambda r: f"{r['generate_seconds']:.1f}"),
        ("read-out: seconds", lambda r: f"{r['readout_seconds']:.2f}"),
        ("times faster", lambda r: f"{r['generate_seconds'] / r['readout_seconds']:.0f}"),
        ("times faster, unresolved <= 1e-3", lambda r: f"{r['generate_seconds'] / r['readout_seconds_at_1e-3']:.0f}"),
        ("tree sampler, 1e3 draws: seconds", lambda r: f"{r['tree_1e3_seconds']:.2f}"),
        ("times faster", lambda r: f"{r['generate_seconds'] / r['tree_1e3_seconds']:.0f}"),
        ("tree sampler, 1e6 draws: seconds", lambda r: f"{r['tree_1e6_seconds']:.2f}"),
        ("1e6 against 1e3 draws: seconds, tokens", lambda r: f"{r['tree_1e6_seconds'] / r['tree_1e3_seconds']:.1f}, "
                                                             f"{r['tree_1e6_tokens'] / r['tree_1e3_tokens']:.1f}"),
    ]
    return "\n".join(lines + [f"| {name} | " + " | ".join(map(show, rows)) + " |" for name, show in cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="data/weights/nano-olmo2/base", metavar="DIR_OR_ID")
    parser.add_argument("--form", choices=FORMS, default=CHAT)
    parser.add_argument("--repeats", type=int, default=5, help="timings of read-out and sampler; medians are reported")
    parser.add_argument("--timed", type=int, default=25, help="prompts `generate` is run on (it is slow); seconds are scaled up")
    parser.add_argument("--out", type=Path, default=root() / "data" / "bench" / "readout.json")
    arguments = parser.parse_args()
    engine = load(arguments.model)
    rows = [bench(engine, TASKS[name], arguments.form, arguments.repeats, arguments.timed) for name in TASK_NAMES]
    report = {
        "model": "/".join(Path(arguments.model).parts[-2:]), "form": arguments.form,
        "samples": SAMPLES, "new_tokens": NEW_TOKENS, "budget": BUDGET,
        "timed_prompts": arguments.timed, "device": str(engine.device), "cpu": cpu_model(),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        "threads": torch.get_num_threads(), "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
