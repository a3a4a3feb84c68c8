"""Ask an aligned model outright, and with its reply begun: data/prompts/free-answers.csv.

    python scripts/free_answers.py smollm2-135m-instruct

One question a task in ten of the natural contexts. Resumable: tasks in the file are kept.
"""

from __future__ import annotations

import sys

import pandas as pd

from crystal.ask import natural
from crystal.ask.free import FREE_TOKENS, read_all
from crystal.ask.ladders import load_ladder
from crystal.ask.prompts import CHAT
from crystal.ask.tasks import PHASE_TASKS, TASKS
from crystal.files import root, write_file
from crystal.read.engine import Engine, load_rung
from crystal.read.readout import readout
from crystal.read.sampling import draw_many
from crystal.studies.contexts_figures import way_rows

DRAWS, EVERY, SEED = 20, 10, 0  # answers to a prompt; every so many of the hundred prompts


def ask(engine: Engine, ladder: str, name: str) -> pd.DataFrame:
    """Both ways of one task."""
    task, prompts = TASKS[name], natural.load_prompts()[::EVERY]
    texts = [f"{prompt.context.text.rstrip()}\n\nPlease {task.ask}." for prompt in prompts]
    free = draw_many(
        engine,
        [engine.encode(text, CHAT) for text in texts],
        DRAWS,
        seed=SEED,
        max_tokens=FREE_TOKENS,
    )
    begun = readout(
        engine,
        [
            engine.encode(text, CHAT, prompt.reply(task))
            for text, prompt in zip(texts, prompts, strict=True)
        ],
        task,
    )
    rows = []
    for prompt, drawn, law in zip(prompts, free, begun, strict=True):
        named = {option or "": count / DRAWS for option, count in read_all(drawn, task).items()}
        exact = dict(zip(task.options, law.options.round(6), strict=True))
        for way, laws in (("free", named), ("begun", exact)):
            rows.append(way_rows(ladder, name, prompt.context.id, way, laws.items(), DRAWS))
    return pd.concat(rows, ignore_index=True)


def main(ladder: str) -> None:
    path, engine = root() / "data/prompts/free-answers.csv", None
    done = (
        pd.read_csv(path, dtype={"option": str}, keep_default_na=False) if path.exists() else None
    )
    for name in PHASE_TASKS:
        if done is not None and name in set(done["task"]):
            continue
        described = load_ladder(ladder)
        engine = engine or load_rung(described.rungs[-1], dtype=described.dtype)
        found = ask(engine, ladder, name)
        done = found if done is None else pd.concat([done, found], ignore_index=True)
        write_file(path, done.to_csv(index=False).encode())
        print(f"{name}: done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
