"""Commands on checkpoints that others trained: fetched, and made ready to be read."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .commands import Command
from .texts import line


def fetch_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ladder", help="a name in data/ladders, such as gemma3-270m")


def fetch(arguments: Namespace) -> None:
    """Fetch the packages of a ladder's checkpoints, and convert them once."""
    from .ask.ladders import load_ladder
    from .ask.sources import packaged
    from .errors import CrystalError

    ladder = load_ladder(arguments.ladder)
    rungs = [rung for rung in ladder.rungs if packaged(rung.source)]
    if not rungs:
        raise CrystalError(
            f"no checkpoint of {ladder.name} comes in a package",
            where=ladder.rungs[0].source,
            mend="those of the hub are fetched when they are read; make ladder trains ours",
        )
    from .read.conversion import converted

    for rung in rungs:
        folder, note = converted(rung.source, rung.revision)
        print(line(f"{rung.name}: {note}\n  {folder}"))


CHECKPOINTS: tuple[Command, ...] = (
    Command(
        "fetch",
        "fetch a ladder's checkpoints that come in packages, and convert them",
        fetch_arguments,
        fetch,
    ),
)
