"""Commands on natural prompts: candidates measured and chosen; the prompts as a table."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .ask.prompts import CHAT, COMPLETION
from .commands import Command
from .errors import CrystalError


def screen_arguments(parser: ArgumentParser) -> None:
    for form, what in ((COMPLETION, "goes on with raw text"), (CHAT, "answers in its template")):
        parser.add_argument(f"--{form}", action="append", default=[], metavar="NAME=DIR_OR_ID",
                            help=f"a checkpoint that {what}, by its name in the table; repeatable")
    parser.add_argument("--dtype", default="float32", help="of the weights (default %(default)s)")
    parser.add_argument("--device", help="default: cuda when there is one, else cpu")


def screen(arguments: Namespace) -> None:
    """Measure what the table lacks; then choose, and write the choice down."""
    from .ask.natural import load_pool
    from .studies import answerable

    pool, given = load_pool(), {form: getattr(arguments, form) for form in (COMPLETION, CHAT)}
    subjects = [_subject(text, form) for form, texts in given.items() for text in texts]
    if subjects:
        from .studies.screening import screen

        def say(line: str) -> None:
            print(line, flush=True)

        screen(pool, subjects, dtype=arguments.dtype, device=arguments.device, say=say)
    measured = answerable.load_measured()
    cues = answerable.choose_cues(pool, measured)
    contexts = answerable.choose_contexts(pool, measured, cues)
    print(f"{answerable.save_chosen(pool, contexts, cues)}: {len(contexts)} of "
          f"{len(pool.contexts)} contexts, {len(cues)} tasks")
    for row in answerable.report(measured, contexts, cues):
        print(row)


def _subject(text: str, form: str):
    """(what the table calls a checkpoint, where it is) from NAME=SOURCE."""
    from .studies.answerable import Asked

    name, is_, source = text.partition("=")
    if not (name and is_ and source):
        raise CrystalError(f"{text!r} does not name a checkpoint", mend=f"--{form} NAME=DIR_OR_ID")
    return Asked(name, form), source


def prompts_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("set", choices=("natural", "world"), help="natural, or the organisms'")
    parser.add_argument("--out", required=True, metavar="FILE", help="where the table goes: .csv")


def prompts(arguments: Namespace) -> None:
    """Write the prompts of every closed task in both forms as a table, for other frameworks."""
    from .keep import prompt_tables

    frame = prompt_tables.table(arguments.set)
    print(f"{prompt_tables.write(frame, arguments.out)}: {len(frame)} rows")


SCREENS: tuple[Command, ...] = (
    Command("screen", "choose the natural prompts: of a pool, those that checkpoints answer",
            screen_arguments, screen),
    Command("prompts", "write the prompts of every task as a table, for other frameworks",
            prompts_arguments, prompts),
)
