"""Commands of the house: pages and book, stored read-outs, ladders. Parsed arguments in, sentences on stdout.

`crystal.cli` lists `HOUSE` beside its own commands. Nothing heavy is loaded before a command runs.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .arguments import positive, whole
from .ask.prompts import FORMS, PROMPTS
from .errors import CrystalError, known
from .files import root
from .texts import line

if TYPE_CHECKING:
    from .book.pages import Page


class Command(NamedTuple):
    """One subcommand. run: arguments -> exit status (None is 0)."""

    name: str
    help: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int | None]


def reproduce_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--jobs", type=whole(1, 1024), help="pages run at a time (default: one per processor)")
    parser.add_argument("--ladders", default="", metavar="A,B", help="what phase pages and overview show this time")


def reproduce(arguments: Namespace) -> None:
    """Run the stale pages, then build the book if anything in it changed."""
    from .book import binding, runs
    from .keep import sums

    if note := sums.note():
        print(note, flush=True)
    began = time.perf_counter()
    shown = [name for name in arguments.ladders.split(",") if name]
    ran = runs.run_all(arguments.jobs, say=lambda line: print(line, flush=True), ladders=shown)
    bound = time.perf_counter()
    index = binding.build()
    print(f"{len(ran)} pages executed in {bound - began:.1f} s; book "
          + (f"built in {time.perf_counter() - bound:.1f} s" if index else "unchanged") + f": {binding.index()}")


def page_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("page", help="id of a page, such as liquid-digit")
    parser.add_argument("assignments", nargs="*", metavar="name=value", help="parameters that differ from the page list")


def page(arguments: Namespace) -> None:
    """Run one page, with other parameters if given, and show it in the book if there is one."""
    from .book import pages, runs

    chosen = pages.get(arguments.page)
    given = pages.parse(chosen, arguments.assignments)
    print(f"{chosen.id}: executed in {runs.run(chosen, given):.1f} s", flush=True)
    print(_bound(chosen, whole=False))


def _bound(page: Page, whole: bool) -> str:
    """Build the book, if all its pages have been run, and say where the page is."""
    from .book import binding, freshness, pages

    if any(freshness.seconds(other) is None for other in pages.page_list().values()):
        return f"{page.folder}; the book needs the other pages, too: make reproduce"
    binding.build(whole=whole)
    return str(binding.index().parent / f"{binding.document(page.id)}.html")


def own_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("template", help="a template that takes a table, such as phases")
    parser.add_argument("data", help="the table: .csv, .tsv, .jsonl or .parquet")
    parser.add_argument("assignments", nargs="*", metavar="name=value", help="other parameters of the page")


def own(arguments: Namespace) -> None:
    """Run a template over a table of the reader's own, list the page in book/own.yml, and show it in the book."""
    from .book import own_pages, own_rows, runs

    chosen = own_pages.page_of(arguments.template, arguments.data, arguments.assignments)
    print(f"{chosen.id}: executed in {runs.run(chosen):.1f} s", flush=True)
    row = {"id": chosen.id, "template": chosen.template, "title": chosen.title, "params": chosen.params}
    before = own_rows.put(row)  # only now: a table that cannot be read leaves no row
    if before and before.get("params", {}).get("data") != chosen.params["data"]:
        print(line(f"it takes the place of the page of {before.get('params', {}).get('data')}"))
    print(_bound(chosen, whole=before is None))  # a new page changes the contents, which stand beside every page


def why_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("page", help="id of a page, such as liquid-digit")


def why(arguments: Namespace) -> None:
    """Say what makes a page stale."""
    from .book import freshness, pages

    reasons = freshness.why(pages.get(arguments.page))
    print(line("\n".join(f"{arguments.page}: {reason}" for reason in reasons)
               or f"{arguments.page} is fresh: nothing it depends on has changed"))


def params(arguments: Namespace) -> None:
    """List every template's parameters."""
    from .book import pages

    print(pages.describe())


def verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ladders", nargs="*", metavar="ladder", help="default: all, and every other file that pages read")
    parser.add_argument("--record", action="store_true", help="take the other files as they are now into data/SHA256SUMS")


def verify(arguments: Namespace) -> None:
    """Check every stored read-out and draw; raises if anything is wrong or missing."""
    from .ask.ladders import description, hub_names, ladder_names
    from .keep import sums
    from .keep.manifest import DRAWS, SAMPLES, logs

    for name in arguments.ladders:
        description(name)  # raises for an unknown one
    there = {kind: logs(kind) for kind in (SAMPLES, DRAWS)}
    read = [name for name in hub_names() if name in there[SAMPLES] or name in there[DRAWS]]
    described = [*ladder_names(), *read]
    faults = sum(_faults(name) for name in arguments.ladders or described)
    for kind, names in () if arguments.ladders else there.items():
        for name in sorted({*names} - {*described}):
            faults += 1
            print(f"data/{kind}/{name} belongs to a ladder that no description names. "
                  f"Mend: git checkout -- data/ladders, or rm -r data/{kind}/{name}")
    if arguments.record:
        print(f"{sums.LIST}: {sums.record()} files recorded")
    if not arguments.ladders:
        wrong = sums.problems()
        print("\n".join(wrong) or f"{len(sums.recorded())} other files that pages read: as recorded")
        faults += len(wrong)
    if unread := [name for name in hub_names() if name not in read]:
        print(f"ladders of the hub that were never read here: {', '.join(unread)} (crystal pin says which are pinned)")
    if faults:
        raise CrystalError(f"{faults} faults: stored read-outs, draws or files are missing or not what was recorded",
                           mend="see the sentences above")


def _faults(name: str) -> int:
    """Check a ladder's read-outs, and its draws if any are or should be there; count the faults."""
    from .ask.ladders import load_ladder
    from .keep import drawn, store
    from .keep.manifest import DRAWS, logs

    faults, checks = 0, [store.verify]
    try:
        if name in logs(DRAWS) or load_ladder(name, unpinned=True).drawn:
            checks.append(drawn.verify)
        for check in checks:
            report = check(name)
            print(report)
            faults += report.faults
    except CrystalError as error:
        print(f"{name}: {error}")
        return faults + 1
    return faults


def resample_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ladder", help="a name in data/ladders, such as nano-llama")
    parser.add_argument("--missing-only", action="store_true", help="read what the store lacks; compare nothing")
    parser.add_argument("--rung", action="append", dest="rungs", help="only this rung (may be repeated)")
    parser.add_argument("--task", action="append", dest="tasks", help="only this task (may be repeated)")
    parser.add_argument("--device", help="default: cuda when there is one, all if there are several (auto), else cpu")
    parser.add_argument("--cluster", action="store_true", help="read on Ray: at RAY_ADDRESS, else by workers on this machine")
    parser.add_argument("--workers", type=whole(), metavar="N",
                        help="of the cluster (default: as many as it has room for)")
    parser.add_argument("--gpus-per-worker", type=positive(1024), metavar="G", help="default: one, if the cluster has any")


def resample(arguments: Namespace) -> None:
    """Read a ladder's checkpoints again."""
    from .ask.tasks import PHASE_TASKS
    from .keep.cluster import Hire
    from .keep.resample import resample as again

    hire = Hire(arguments.workers, arguments.gpus_per_worker)
    if hire != Hire() and not arguments.cluster:
        raise CrystalError("workers are those of a cluster", mend=f"crystal resample {arguments.ladder} --cluster")
    frame = again(arguments.ladder, rungs=arguments.rungs, tasks=arguments.tasks or PHASE_TASKS,
                  missing_only=arguments.missing_only, device=arguments.device, hire=hire if arguments.cluster else None)
    print(frame.to_string(index=False, float_format=lambda x: f"{x:.3g}"))


def pin_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ladder", nargs="?", help="a name in data/ladders/hub, such as tulu3-8b; none: say how they stand")
    parser.add_argument("--rung", action="append", dest="rungs", help="only this rung (may be repeated)")


def pin(arguments: Namespace) -> None:
    """Write the commits of a hub ladder's checkpoints into its description; or list those ladders."""
    if arguments.ladder is None:
        from .ask.ladders import hub_names, load_ladder

        print("\n".join(str(load_ladder(name, unpinned=True)) for name in hub_names()))
        return
    from .ask.pinning import pin as write_down
    from .keep import sums

    with sums.keeping():
        found = write_down(arguments.ladder, arguments.rungs)
    for rung in found:
        print(f"{rung.name}: {rung.source} at {rung.revision}, {rung.licence or 'no licence named'}"
              + (", gated" if rung.gated else ""))


def draw_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ladder", help="a name in data/ladders, such as nano-llama")
    parser.add_argument("--device", help="default: cuda when there is one, all if there are several (auto), else cpu")
    served = parser.add_argument_group("from an OpenAI-compatible server, one rung at a time")
    served.add_argument("--server", metavar="URL", help="default: $CRYSTAL_SERVER; a key is taken from $CRYSTAL_API_KEY")
    served.add_argument("--model", metavar="NAME", help="the rung, as the server calls it")
    served.add_argument("--rung", help="which rung that is, where its name does not tell")
    served.add_argument("--tasks", nargs="+", metavar="TASK", help="default: the closed tasks of the phase pages")
    served.add_argument("--prompts", nargs="+", metavar="ID", help="default: all hundred")
    served.add_argument("-n", "--n", type=whole(), help="answers to each prompt (default 1000)")
    served.add_argument("--seed", type=whole(), help="another one draws anew (default 0)")
    served.add_argument("--max-tokens", type=whole(), help="longest answer (default 12)")
    served.add_argument("--form", choices=FORMS, help="default: raw text for a base, chat once tuned")
    served.add_argument("--dtype", help="what the server computes in (default: the ladder's)")
    served.add_argument("--workers", type=whole(), help="requests under way at a time (default 4)")
    served.add_argument("--batch", type=whole(), help="answers to ask for in one request (default 50)")
    served.add_argument("--patience", type=positive(), metavar="SECONDS", help="to wait for a server that is gone (default 300)")


def draw(arguments: Namespace) -> None:
    """Draw answers to the open and large tasks; or, where a server or its model is named, from that."""
    from .keep import redraw, served

    ours = ("command", "run", "ladder", "device")
    given = {name: value for name, value in vars(arguments).items() if name not in ours and value is not None}
    if not given:
        frame = redraw.draw(arguments.ladder, device=arguments.device)
    elif arguments.server or arguments.model:
        if arguments.prompts:
            by_id = {prompt.id: prompt for prompt in PROMPTS}
            given["prompts"] = [by_id[known(name, by_id, "prompt")] for name in arguments.prompts]
        frame = served.draw(arguments.ladder, say=lambda line: print(line, flush=True), **given)
    else:
        option = next(iter(given)).replace("_", "-")
        raise CrystalError(f"--{option} is for draws from a server", mend="--server URL --model NAME")
    print(frame.to_string(index=False, float_format=lambda x: f"{x:.3g}"))


def train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ladder", nargs="?", help="a name in data/recipes or data/experiments, such as nano-llama or kinetics")
    parser.add_argument("--all", action="store_true", help="every ladder, then every experiment, each read once it is trained")
    parser.add_argument("--run", action="append", dest="runs", help="of an experiment: only this run (may be repeated)")
    parser.add_argument("--parent", action="append", dest="parents", help="of an experiment: only this ladder (may be repeated)")


def train(arguments: Namespace) -> None:
    """Train a ladder into runs/, rung by rung, and say what its rungs can do; or grow an experiment's branches; or all."""
    from .keep import sums
    from .lab import experiments

    if not arguments.all:
        there = [*experiments.recipe_names(("cpu", "cuda")), *experiments.experiment_names()]
        known(arguments.ladder, there, "ladder or experiment")
    with sums.keeping():
        _train(arguments)


def _train(arguments: Namespace) -> None:
    from .lab import experiments, growing

    if arguments.all:
        for name in experiments.recipe_names(growing.devices()):
            _train_ladder(name)
            growing.take_in(name)
        for name in experiments.experiment_names():
            growing.perform(name)
    elif arguments.ladder in experiments.experiment_names():
        growing.perform(arguments.ladder, runs=arguments.runs, parents=arguments.parents)
    else:
        _train_ladder(arguments.ladder)
        print(f"the ladder is in runs/{arguments.ladder}; make ship LADDER={arguments.ladder} takes it into data/, "
              "make resample then reads it")


def _train_ladder(name: str) -> None:
    from .ask import ladders
    from .lab import organism, recipes, training

    out, recipe = root() / "runs" / name, recipes.load_recipe(name)
    for stage, minutes in training.train_ladder(recipe, out).items():
        print(f"{stage}: {minutes:.1f} minutes")
    for rung in ladders.STAGES:
        found = organism.skills(out / rung, recipe.world)["chat"]
        shown = ", ".join(f"{found[kind]:.3f} ({kind})" for kind in organism.KINDS if kind in found)
        print(f"{rung}: right in chat form with probability {shown}")


def ship_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ladder", help="a name in data/recipes, such as nano-llama")


def ship(arguments: Namespace) -> None:
    """Take a trained ladder into data/."""
    from .keep import sums
    from .lab import organism

    with sums.keeping():
        print(organism.ship(arguments.ladder, root() / "runs" / arguments.ladder))


def validate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--jobs", type=whole(1, 1024), help="processes (default: processors)")


def validate(arguments: Namespace) -> None:
    """Try the claims on ladders of known truth, made of numbers: what is missing of data/validation."""
    from .keep import sums
    from .measure.validation import validate as simulate

    with sums.keeping():
        simulate(arguments.jobs, lambda line: print(line, flush=True))


HOUSE: tuple[Command, ...] = (
    Command("reproduce", "run the stale pages and build the book", reproduce_arguments, reproduce),
    Command("page", "run one page, with other parameters if wanted, and show it in the book", page_arguments, page),
    Command("own", "a page over a table of your own, kept in book/own.yml and shown in the book", own_arguments, own),
    Command("why", "say what makes a page stale", why_arguments, why),
    Command("params", "list every template's parameters", lambda parser: None, params),
    Command("verify", "check every stored read-out against its manifest", verify_arguments, verify),
    Command("resample", "read a ladder's checkpoints again: keep what the store lacks, compare the rest",
            resample_arguments, resample),
    Command("pin", "write down the commits of a ladder of the hub, or say how those ladders stand", pin_arguments, pin),
    Command("draw", "draw answers, here to the open and large tasks, or from a server: keep what the log of draws lacks",
            draw_arguments, draw),
    Command("ladder", "train a ladder or an experiment from nothing, or go on where it was stopped", train_arguments, train),
    Command("validate", "try every claim on ladders of known truth: coverage, false alarms, power", validate_arguments,
            validate),
    Command("ship", "take a trained ladder into data/: weights, description, training report", ship_arguments, ship),
)
