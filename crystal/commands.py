"""What `make reproduce`, `page`, `why`, `params` and `verify` do: parsed arguments in, sentences on stdout.

`crystal.cli` lists these beside its own commands. Nothing heavy is loaded before a command runs.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from .errors import CrystalError


def reproduce_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, help="pages run at a time (default: one per processor)")


def reproduce(arguments: Namespace) -> None:
    """Run the stale pages, then build the book if anything in it changed."""
    from . import book, runs

    began = time.perf_counter()
    ran = runs.run_all(arguments.jobs, say=lambda line: print(line, flush=True))
    bound = time.perf_counter()
    index = book.build()
    print(f"{len(ran)} pages executed in {bound - began:.1f} s; book "
          + (f"built in {time.perf_counter() - bound:.1f} s" if index else "unchanged") + f": {book.index()}")


def page_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("page", help="id of a page, such as liquid-digit")
    parser.add_argument("assignments", nargs="*", metavar="name=value", help="parameters that differ from the page list")


def page(arguments: Namespace) -> None:
    """Run one page, with other parameters if given, and show it in the book if there is one."""
    from . import book, pages, runs

    chosen = pages.get(arguments.page)
    given = pages.parse(chosen, arguments.assignments)
    print(f"{chosen.id}: executed in {runs.run(chosen, given):.1f} s", flush=True)
    if any(pages.seconds(other) is None for other in pages.page_list().values()):
        print(f"{chosen.folder}; the book needs the other pages, too: make reproduce")
    else:
        book.build(whole=False)
        print(book.index().parent / f"{book.document(chosen.id)}.html")


def why_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("page", help="id of a page, such as liquid-digit")


def why(arguments: Namespace) -> None:
    """Say what makes a page stale."""
    from . import pages

    reasons = pages.why(pages.get(arguments.page))
    print("\n".join(f"{arguments.page}: {reason}" for reason in reasons) or f"{arguments.page} is fresh: nothing it depends on has changed")


def params_arguments(parser: ArgumentParser) -> None:
    """None."""


def params(arguments: Namespace) -> None:
    """List every template's parameters."""
    from . import pages

    print(pages.describe())


def verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ladders", nargs="*", metavar="ladder", help="default: all")


def verify(arguments: Namespace) -> None:
    """Check every stored read-out; raises if anything is wrong."""
    from .ladders import ladder_names
    from .store import verify as check

    problems = 0
    for ladder in arguments.ladders or ladder_names():
        report = check(ladder)
        print(report)
        problems += len(report.problems)
    if problems:
        raise CrystalError(f"{problems} stored read-outs or shards are not what their manifest says", mend="see the sentences above")
