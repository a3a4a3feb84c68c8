"""Commands on tables of answers of any ladder: logs turned into a table, a table judged."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .arguments import positive, whole
from .ask.prompts import FORMS
from .commands import Command
from .texts import line


def import_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("format", help="lm-eval (samples_*.jsonl), inspect (.eval, .json), openai-batch (output .jsonl), "
                        "replies (.csv, .jsonl, .parquet with the columns reply and prompt)")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--out", required=True, metavar="TABLE", help="table to be written: .csv, .jsonl or .parquet")
    parser.add_argument("--append", action="store_true", help="add to the table that is there")
    parser.add_argument("--ladder", help="lineage of the model, such as olmo2-7b")
    parser.add_argument("--stage", help="stage of its training: base, sft, dpo, rlvr")
    parser.add_argument("--task", help="task that was asked, where the log does not name one of ours")
    parser.add_argument("--options", metavar="A,B,C", help="options of a task of your own, in their order")
    parser.add_argument("--prompt-from", metavar="FIELD", help="what names the prompt: a field of the document (lm-eval) or of "
                        r"the metadata (inspect), a column (replies), a pattern such as '(.*)-\d+' of custom_id (openai-batch)")
    parser.add_argument("--unit-from", metavar="FIELD", help="what names who asks, the same way")


def import_(arguments: Namespace) -> None:
    """Turn other tools' files into a table of counts, and say what was read."""
    from pathlib import Path

    from .tables.foreign import Named
    from .tables.importers import Asked, check_out, save, tally
    from .tables.names import given

    out = Path(arguments.out)
    check_out(out, append=arguments.append)
    options = tuple(arguments.options.split(",")) if arguments.options else ()
    named = Named(*(name and given(name, flag) for name, flag in (
        (arguments.prompt_from, "--prompt-from"), (arguments.unit_from, "--unit-from"))))
    asked = Asked(
        ladder=arguments.ladder,
        stage=arguments.stage,
        task=arguments.task,
        options=options,
        named=named,
    )
    found = tally(arguments.format, [Path(file) for file in arguments.files], asked)
    table = found.table()
    rows = save(table, out, append=arguments.append)
    print(f"{out}: {len(table)} rows written" + (f", {rows} in all" if rows > len(table) else ""))
    print("\n".join(found.told()))


def phases_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", help="a table of answers: .csv, .tsv, .jsonl (each also .gz) or .parquet")
    parser.add_argument("--stages", default="", metavar="base=NAME,sft=NAME", help="what the stages are called in the file")
    parser.add_argument("--ladder", help="its name, if the file has no such column; else the only one to judge")
    parser.add_argument(
        "--normalise",
        action="store_true",
        help="probabilities are rounded, as bfloat16 is: divide by sums up to 1 %% off",
    )
    parser.add_argument(
        "--quantile",
        type=positive(),
        default=0.9,
        help="share of a seed's mass that defines its options (default 0.9)",
    )
    parser.add_argument(
        "--permutations", type=whole(), default=999, help="shuffles behind every p-value (default 999)"
    )
    parser.add_argument("--seed", type=whole(), default=0, help="of all chance")
    parser.add_argument("--json", action="store_true", help="verdicts, numbers and notes as JSON")


def phases(arguments: Namespace) -> None:
    """Judge every claim on a table of answers of any ladder."""
    from .keep.progress import bar
    from .measure.chain import check
    from .tables import laws, names, tabled, tabled_numbers

    how = {name: getattr(arguments, name) for name in ("quantile", "permutations", "seed")}
    check(**how)
    table = laws.read_table(
        arguments.file,
        stages=names.stage_names(arguments.stages),
        ladder=arguments.ladder,
        normalise=arguments.normalise,
    )
    every = table.frame[["ladder", "task"]].drop_duplicates()
    with bar(tabled.PHASES * len(every), "phases", unit="steps", delay=5) as shown:
        found = {
            ladder: tabled.survey(table, ladder, tick=shown.update, **how)
            for ladder in table.ladders
        }
    if arguments.json:
        import json

        said = {"file": line(arguments.file)} | how | tabled_numbers.as_json(table, found)
        print(json.dumps(said, indent=1, ensure_ascii=False))
    else:
        print(tabled_numbers.as_text(table, found))


def draws_table_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ladder", help="a name in data/ladders, such as nano-llama")
    parser.add_argument("--out", required=True, metavar="FILE", help="where the table goes: .csv, or .parquet")
    parser.add_argument("--form", choices=FORMS, help="default: raw text for a base, chat once tuned")
    parser.add_argument("--dtype", help="default: the ladder's")


def draws_table(arguments: Namespace) -> None:
    """Write the counts of a ladder's drawn answers to its closed tasks as one table."""
    from .keep import draw_tables

    frame = draw_tables.counts(arguments.ladder, form=arguments.form, dtype=arguments.dtype)
    print(f"{draw_tables.write(frame, arguments.out)}: {len(frame)} rows, {frame['count'].sum()} answers to "
          f"{frame['task'].nunique()} tasks by {frame['stage'].nunique()} stages of {arguments.ladder}")


TABLES: tuple[Command, ...] = (
    Command("draws-table", "write the counts of drawn answers to closed tasks as a table", draws_table_arguments, draws_table),
    Command("import", "turn logs of lm-eval, inspect, an OpenAI batch or a file of replies into a table of counts",
            import_arguments, import_),
    Command("phases", "judge every claim on a table of answers of any ladder", phases_arguments, phases),
)
