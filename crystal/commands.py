"""How a command is declared, and those on the book, on tables and on training.

Arguments in, sentences on stdout; whatever is heavy is imported inside a command.
"""

from __future__ import annotations

import json
import re
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import CrystalError, known
from .files import root
from .texts import is_number, line

if TYPE_CHECKING:
    from .book.pages import Page

MOST = 2**31 - 1  # of whole numbers: more is a slip


class Command(NamedTuple):
    """arguments: what `add_argument` is given. run: takes them by name."""

    name: str
    help: str
    arguments: Sequence[tuple[Sequence[str], dict[str, Any]]]
    run: Callable[..., None]


COMMANDS: list[Command] = []
say = partial(print, flush=True)


def command(*arguments: tuple) -> Callable:
    """List the function below as a command; its help is the function's docstring."""

    def add(run: Callable[..., None]) -> Callable:
        COMMANDS.append(Command(run.__name__.rstrip("_"), run.__doc__, arguments, run))
        return run

    return add


def arg(names: str, help: str | None = None, **how: Any) -> tuple[list[str], dict[str, Any]]:
    """What `add_argument` is given; names: with spaces between them."""
    return names.split(), {"help": help, **how}


def flag(name: str, help: str, **how: Any) -> tuple:
    return arg(name, help, action="store_true", **how)


def several(name: str, help: str) -> tuple:
    return arg(name, f"{help} (may be repeated)", action="append", dest=f"{name.split()[0][2:]}s")


def _number(kind: type, plain: Callable, fits: Callable, what: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if not plain(text) or not fits(kind(text)):
            raise ArgumentTypeError(f"{line(text)!r:.40} is not a {what}")
        return kind(text)

    return read


def whole(least: int = 0, most: int = MOST) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`, in plain digits."""
    digits = re.compile(r"\d{1,10}", re.ASCII).fullmatch
    bounds = f"of {least} or more" if most == MOST else f"from {least} to {most}"
    return _number(int, digits, lambda n: least <= n <= most, f"whole number {bounds}")


def positive(most: float = 1e9) -> Callable[[str], float]:
    """An argparse type: a number above 0 and at most `most`."""
    what = f"number above 0 and at most {most:g}"
    return _number(float, is_number, lambda x: 0 < x <= most, what)


JOBS = arg("--jobs", "processes at a time (default: one per processor)", type=whole(1, 1024))
SEED = arg("--seed", "of all chance", type=whole(), default=0)
TABLE = (
    arg("--out", "to be written: .csv, .jsonl or .parquet", required=True, metavar="TABLE"),
    flag("--append", "add to the table that is there"),
)


# -- the book


@command(
    JOBS,
    arg("--ladders", "what phase pages and overview show this time", default="", metavar="A,B"),
)
def reproduce(jobs: int | None, ladders: str) -> None:
    """run the stale pages and build the book"""
    from .book import binding, runs
    from .keep import sums

    if note := sums.note():
        say(note)
    began = time.perf_counter()
    ran = runs.run_all(jobs, say=say, ladders=[name for name in ladders.split(",") if name])
    bound = time.perf_counter()
    took = f"built in {time.perf_counter() - bound:.1f} s" if binding.build() else "unchanged"
    print(f"{len(ran)} pages executed in {bound - began:.1f} s; book {took}: {binding.index()}")


@command(JOBS)
def bundle(jobs: int | None) -> None:
    """as reproduce, then the book, its data and its code as one archive to deposit"""
    from .book import binding

    reproduce(jobs, "")
    print(binding.pack())


@command(
    arg("page", "id of a page, such as liquid-digit; with --data, a template", nargs="?"),
    arg("assignments", "parameters other than the page list's", nargs="*", metavar="name=value"),
    arg("--data", "your table: .csv, .tsv, .jsonl or .parquet", metavar="TABLE"),
    flag("--why", "say what makes the page stale, and run nothing"),
)
def page(page: str | None, assignments: list[str], data: str | None, why: bool) -> None:
    """run one page with other parameters, or over your own table; alone: list the parameters"""
    from .book import binding, pages, runs

    if page is None:
        print(pages.describe())
    elif data is not None:
        chosen = pages.page_of(page, data, assignments)
        say(f"{chosen.id}: executed in {runs.run(chosen):.1f} s")
        before = pages.put(chosen)  # only now: a table that cannot be read leaves no row
        if before and (old := before.get("params", {}).get("data")) != chosen.params["data"]:
            print(line(f"it takes the place of the page of {old}"))
        _bind(chosen, whole=before is None)  # a new page changes the contents of every page
    else:
        chosen = pages.get(page)
        given = pages.parse(chosen, assignments)
        if why:
            reasons = "\n".join(f"{page}: {reason}" for reason in runs.why(chosen, given))
            print(line(reasons or f"{page} is fresh: nothing it depends on has changed"))
            return
        with binding.engine() as render:
            say(f"{page}: executed in {runs.run(chosen, given):.1f} s")
            _bind(chosen, whole=False, render=render)


def _bind(page: Page, **how: Any) -> None:
    """Build the book, if all its pages have been run, and say where the page is."""
    from .book import binding, pages, runs

    if any(runs.stamped(other) is None for other in pages.page_list().values()):
        print(f"{page.folder}; the book needs the other pages, too: make reproduce")
        return
    binding.build(**how)
    print(binding.index().parent / f"{binding.document(page.id)}.html")


@command(
    arg("ladders", "default: all, and every other file", nargs="*", metavar="ladder"),
    flag("--record", "take the other files as they are now into data/SHA256SUMS"),
    flag("--claims", "instead: try every claim on ladders of known truth, a quarter of an hour"),
    JOBS,
)
def verify(ladders: list[str], record: bool, claims: bool, jobs: int | None) -> None:
    """check every stored read-out, draw and other file that pages read"""
    from .ask.ladders import description, hub_names, ladder_names
    from .keep import sums
    from .keep.manifest import DRAWS, SAMPLES, logs

    if claims:
        from .measure.validation import validate

        with sums.keeping():
            validate(jobs, say)
        return
    for name in ladders:
        description(name)  # raises for an unknown one
    stored = {f"data/{kind}/{name}": name for kind in (SAMPLES, DRAWS) for name in logs(kind)}
    read = [name for name in hub_names() if name in stored.values()]
    described = [*ladder_names(), *read]
    faults = sum(map(_faults, ladders or described))
    if record:
        print(f"{sums.LIST}: {sums.record()} files recorded")
    if not ladders:
        wrong = [
            f"{path} belongs to a ladder that no description names. "
            f"Hint: git checkout -- data/ladders, or rm -r {path}"
            for path, name in stored.items()
            if name not in described
        ]
        wrong += sums.problems()
        sound = f"{len(sums.recorded())} other files that pages read: as recorded"
        print("\n".join(wrong) or sound)
        faults += len(wrong)
    if unread := ", ".join(name for name in hub_names() if name not in read):
        print(f"ladders of the hub that were never read here: {unread} (crystal fetch says more)")
    if faults:
        what = f"{faults} faults: stored read-outs, draws or files are missing"
        raise CrystalError(f"{what} or not what was recorded", hint="see the sentences above")


def _faults(name: str) -> int:
    """Check a ladder's read-outs, and draws if any should be there; count the faults."""
    from .ask.ladders import load_ladder
    from .keep import drawn, store
    from .keep.manifest import DRAWS, logs

    faults = 0
    try:
        drew = name in logs(DRAWS) or load_ladder(name, unpinned=True).drawn
        for check in (store.verify, drawn.verify) if drew else (store.verify,):
            print(report := check(name))
            faults += report.faults
    except CrystalError as error:
        print(f"{name}: {error}")
        faults += 1
    return faults


# -- tables


@command(
    arg("file", "a table of answers: .csv, .tsv, .jsonl or .parquet"),
    arg("--stages", "the stages' names in the file", default="", metavar="base=NAME,sft=NAME"),
    arg("--ladder", "its name, if the file has no such column; else the only one to judge"),
    arg("--quantile", "share of a seed's mass on its options", type=positive(), default=0.9),
    arg("--permutations", "shuffles behind every p-value", type=whole(), default=999),
    SEED,
    flag("--json", "verdicts, numbers and notes as JSON", dest="as_json"),
)
def phases(file: str, stages: str, ladder: str | None, as_json: bool, **how: Any) -> None:
    """judge every claim on a table of answers of any ladder"""
    from .keep.resample import bar
    from .measure.chain import check
    from .tables import sheets, survey
    from .tables.table import read_table

    check(**how)
    table = read_table(file, stages=sheets.stage_names(stages), ladder=ladder or "")
    every = table.frame[["ladder", "task"]].drop_duplicates()
    with bar(survey.PHASES * len(every), "phases", unit="steps", delay=5) as shown:
        tick = shown.update
        found = {name: survey.survey(table, name, tick=tick, **how) for name in table.ladders}
    if as_json:
        report = {"file": line(file)} | how | survey.as_json(table, found)
        print(json.dumps(report, indent=1))
    else:
        print(survey.as_text(table, found))


@command(
    arg(
        "format",
        "lm-eval (samples_*.jsonl), inspect (.json), openai-batch (output .jsonl), "
        "replies (.csv, .jsonl, .parquet with the columns reply and prompt)",
    ),
    arg("files", nargs="+", metavar="FILE"),
    *TABLE,
    arg("--ladder", "lineage of the model, such as olmo2-7b"),
    arg("--stage", "stage of its training: base, sft, dpo, rlvr"),
    arg("--task", "task that was asked, where the log does not name one of ours"),
    arg("--options", "options of a task of your own, in their order", metavar="A,B,C"),
    arg(
        "--prompt-from",
        "what names the prompt: a field of the document (lm-eval) or of the metadata (inspect), "
        r"a column (replies), a pattern such as '(.*)-\d+' of custom_id (openai-batch)",
        metavar="FIELD",
    ),
    arg("--cluster-from --unit-from", "what names who asks, the same way", metavar="FIELD"),
)
def import_(
    format: str, files: list[str], out: str, append: bool, options: str | None, **names: str | None
) -> None:
    """turn logs of other tools, or a file of replies, into a table of counts"""
    from .tables.foreign import Asked
    from .tables.importers import check_out, save, tally
    from .tables.sheets import given

    check_out(Path(out), append)
    for name, text in names.items():
        names[name] = text and given(text, f"--{name.replace('_', '-')}")
    own = tuple(given(option, "--options") for option in options.split(",")) if options else ()
    found = tally(format, list(map(Path, files)), Asked(**names, options=own))
    table = found.table()
    rows = save(table, Path(out), append)
    more = f", {rows} in all" if rows > len(table) else ""
    print(f"{out}: {len(table)} rows written{more}", *found.told(), sep="\n")


# -- training


@command(
    arg("ladder", "of data/recipes or data/experiments: nano-llama, kinetics", nargs="?"),
    flag("--all", "every ladder, then every experiment, each read once it is trained"),
    flag("--ship", "instead: take a trained ladder into data/: weights, report, description"),
    several("--run", "of an experiment: only this run"),
    several("--parent", "of an experiment: only this ladder"),
)
def ladder(ladder: str | None, all: bool, ship: bool, **some: list[str] | None) -> None:
    """train a ladder or an experiment from nothing, or go on where it was stopped"""
    from .keep import sums
    from .lab import recipes

    experiments = recipes.experiment_names()
    if not all:
        there = recipes.recipe_names() + ([] if ship else experiments)
        known(ladder, there, "ladder" if ship else "ladder or experiment")
    from .lab import growing

    with sums.keeping():
        if all:
            _train_all()
        elif ship:
            print(growing.ship(ladder, root() / "runs" / ladder))
        elif ladder in experiments:
            growing.perform(ladder, **some)
        else:
            _train(ladder)
            take = f"make ladder LADDER={ladder} SHIP=1 takes it into data/"
            print(f"the ladder is in runs/{ladder}; {take}, make resample then reads it")


def _train_all() -> None:
    import torch

    from .keep import resample
    from .lab import growing, recipes

    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    for name in recipes.recipe_names(devices):
        _train(name)
        growing.ship(name, root() / "runs" / name)
        resample.resample(name, missing_only=True)
    for name in recipes.experiment_names():
        growing.perform(name)


def _train(name: str) -> None:
    from .lab import growing, recipes, training

    out, recipe = root() / "runs" / name, recipes.load_recipe(name)
    for stage, minutes in training.train_ladder(recipe, out).items():
        print(f"{stage}: {minutes:.1f} minutes")
    for stage in training.STAGES:
        found = growing.skills(out / stage, recipe.world, ("chat",))["chat"]
        shown = [f"{p:.3f} ({kind})" for kind, p in found.items() if "greedy" not in kind]
        print(f"{stage}: right in chat form with probability {', '.join(shown)}")
