"""The command line: how commands are grouped and run, and what is said when one fails."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .checkpoint_commands import COMMANDS  # and those of `commands`, on which it is built
from .errors import CrystalError
from .files import hint_of
from .texts import line, short

GROUPS = {
    "read the book": ("reproduce", "verify", "bundle"),
    "change a page": ("page",),
    "judge my table": ("phases", "import"),
    "read my checkpoint": ("readout", "sample", "ask", "fetch", "resample", "draw", "screen"),
    "train a ladder": ("ladder",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; whatever goes wrong is one sentence on stderr.

    Exit status: 0; 2 bad input; 70 an error of ours, whose traceback is kept; 130 Ctrl-C; 141
    nobody reads on.
    """
    _open_streams()
    given = sys.argv[1:] if argv is None else list(argv)
    name = " ".join(["crystal", *given[:1]])
    try:
        run, arguments = _parse(given)
        run(**arguments)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        return _silent(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        stopped = "stopped by Ctrl-C; what was finished is kept, the same command goes on"
        return _say(name, stopped, 130)
    except Exception as error:
        return _say(name, *_told(error))


def _told(error: Exception) -> tuple[CrystalError, int]:
    if isinstance(error, CrystalError):
        return error, 2
    lacking = error.name if isinstance(error, ModuleNotFoundError) else None
    if lacking and "." not in lacking and lacking != "crystal":
        install = f"{sys.executable} -m pip install -r requirements/full.txt"
        what = f"this command needs {lacking}, which is not installed"
        return CrystalError(what, hint=f"{install}, or make test, which installs it"), 2
    if isinstance(error, OSError):
        where, hint = error.filename or "the output, or a file in use", "run the command again"
        if error.filename or error.errno == errno.ENOSPC:
            hint = hint_of(error, Path(where))
        what = f"the disk or the system refused: {error.strerror or error}"
        return CrystalError(what, where=where, hint=hint), 2
    if isinstance(error, MemoryError):
        hint = "give it a smaller part of the data, or a larger machine"
        return CrystalError("there is too little memory for that", hint=hint), 2
    # No user should have to read a traceback; whoever corrects it finds it in a file.
    path = Path(tempfile.gettempdir()) / f"crystal-traceback-{os.getpid()}.txt"
    trace = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):
        path.write_text(trace, encoding="utf-8", errors="backslashreplace")
    what = f"an error that should not happen: {short(f'{type(error).__name__}: {error}', 300)}"
    return CrystalError(what, where=path, hint="please report that file"), 70


def _open_streams() -> None:
    """Give closed streams somewhere to go; none refuses a character that it cannot show."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # else the next file opened gets its number, and what a child prints
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
    """Send what is left of stdout nowhere, or the interpreter complains of it on its way out."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


class Parser(argparse.ArgumentParser):
    """Says in a sentence what is no number; argparse says the rest."""

    def error(self, message: str) -> None:
        if re.match(r"argument \S+: .* is not a (whole )?number", message):
            raise CrystalError(message.removeprefix("argument "), hint=f"{self.prog} --help")
        super().error(line(message))


def _parse(given: list[str]) -> tuple[Callable[..., None], dict[str, Any]]:
    """What to call, and with what. Raises: CrystalError, or SystemExit(2)."""
    parser = Parser(
        prog="crystal",
        description="Measure how post-training crystallizes random choices.",
        epilog=_groups(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"crystal {__version__}")
    listed = parser.add_subparsers(required=True, metavar="command", help="one of those below")
    for one in COMMANDS:
        sub = listed.add_parser(one.name, description=one.help)
        sub.set_defaults(run=one.run)
        for names, how in one.arguments:
            sub.add_argument(*names, **how)
    found, left = parser.parse_known_args(given)
    arguments = vars(found)
    if left and ("assignments" not in arguments or any(word[:1] == "-" for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:  # argparse takes no positional argument behind an option
        arguments["assignments"] += left
    return arguments.pop("run"), arguments


def _groups() -> str:
    helps, shown = {one.name: one.help for one in COMMANDS}, ""
    for group, names in GROUPS.items():
        each = (f"    {name:<10} {helps[name]}\n" for name in names if name in helps)
        shown += f"{group}:\n{''.join(each)}\n"
    return f"{shown}crystal COMMAND --help says more of one"
