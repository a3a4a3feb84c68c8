"""What people already have -> the table that `crystal phases` reads: files of other tools in, rows of counts out.

`crystal.tables.foreign` says what was answered, `crystal.tables.tally` counts it; here is found of which task, ladder and stage
it is, and the table is written or added to.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from types import SimpleNamespace

import pandas as pd

from .. import texts
from ..ask.tasks import TASKS, Task, read
from ..errors import CrystalError, known
from ..files import mend_of, write_file
from .foreign import READERS, Answer, Named
from .groups import some
from .looks import looks_like
from .names import given, refuse_reserved
from .records import rows
from .tally import Place, Tally

SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the files do not say themselves. None: they do."""

    ladder: str | None = None
    stage: str | None = None
    task: str | None = None
    options: tuple[str, ...] = ()  # of a task that is not one of ours
    named: Named = Named()

    def __post_init__(self) -> None:
        """Names as they are compared. Raises: CrystalError for a hostile or a reserved one."""
        for name in ("ladder", "stage", "task"):
            if (own := getattr(self, name)) is not None:
                object.__setattr__(self, name, given(own, f"--{name}") or None)
        object.__setattr__(
            self, "options", tuple(given(option, "--options") for option in self.options)
        )
        if self.task:
            refuse_reserved(self.task, "--task")

    def task_of(self, own: str | None) -> Task:
        """The task of answers to what their file calls `own`.

        Raises: CrystalError if that is none of ours and no task is given, or if the two disagree.
        """
        name = self.task or own
        if self.options:
            return _own_task(name, self.options)
        if self.task and own in TASKS and own != self.task:
            raise CrystalError(f"answers to the task {own}, not {self.task}", mend="leave out --task, or name other files")
        if name not in TASKS and not self.task:
            raise CrystalError(
                f"the task {name!r:.60} is none of ours"
                if name
                else "the file does not say of which task",
                mend=f"--task with one of: {', '.join(TASKS)}; "
                "or --task with a new name and --options a,b,c",
            )
        task = TASKS[known(name, TASKS, "task", mend="list the options of a task of your own: --options a,b,c")]
        if not task.closed:
            raise CrystalError(f"the task {name} has no list of options",
                               mend=f"--task my_{name} --options a,b,c, with the options to be told apart")
        return task

    def one(self, name: str, answer: Answer) -> str:
        """Ladder or stage of an answer. Raises: CrystalError if neither file nor `self` says which, or if they disagree."""
        own, asked = getattr(answer, name), getattr(self, name)
        if own and asked and own != asked:
            raise CrystalError(
                f"the {name} is {own:.60} in the file, but --{name} is {asked:.60}",
                mend=f"leave out --{name}",
            )
        if not (own or asked):
            raise CrystalError(f"the file does not say of which {name}", mend=f"--{name} NAME")
        return own or asked


def _own_task(name: str | None, options: tuple[str, ...]) -> Task:
    if not name or name in TASKS:
        raise CrystalError(f"the task {name} has options of its own" if name else "options of a task without a name",
                           mend="give them another name, such as --task mine")
    refuse_reserved(name)
    if grouped := [option for option in options if re.fullmatch(r"[+-]?\d[\d_.]*_[\d_.]*", option)]:
        raise CrystalError(
            f"the option {grouped[0]!r:.60} is a number with underscores", mend="write it without"
        )
    task = Task(name=name, ask=name, label=name, options=options)
    if len(task.spellings) < max(len(options), 2) or not all(options):
        raise CrystalError(f"{','.join(options)!r:.60} does not list two or more different options",
                           mend="--options a,b,c, without regard to capitals")
    if unread := [option for option in options if read(option, task) != option]:
        raise CrystalError(
            f"the option {unread[0]!r:.60} would not be read as itself",
            mend="let options be words or numbers",
        )
    return task


def tally(format: str, paths: Sequence[Path], asked: Asked) -> Tally:
    """Read every answer in `paths`.

    Raises: CrystalError for a file of another format, a broken line, an answer that cannot be placed, or no answer at all.
    """
    reader, found, owns = READERS[known(format, READERS, "format")], Tally(), set()
    if len({path.resolve() for path in paths}) < len(paths):
        raise CrystalError("a file is named twice", mend="name every file once")
    for path in paths:
        _check_format(path, format)
        try:
            for answer in reader(path, asked.named):
                owns.add(answer.task)
                found.add(answer, *_placed(answer, asked, owns))
        except RecursionError as error:
            raise CrystalError(
                "a record is nested too deeply", where=path, mend="write it flat"
            ) from error
    _check_some(found, paths)
    return found


def _placed(answer: Answer, asked: Asked, owns: set[str | None]) -> tuple[Task, Place]:
    try:
        if len(owns) > 1 and (asked.task or asked.options):
            raise CrystalError(f"answers to the tasks {' and '.join(sorted(map(str, owns)))}, where one is given",
                               mend="import the files of one task, then those of the next with --append")
        task = asked.task_of(answer.task)
        return task, Place(asked.one("ladder", answer), asked.one("stage", answer), task.name, answer.prompt)
    except CrystalError as error:
        raise CrystalError(error.what, where=answer.where, mend=error.mend) from error


def _check_format(path: Path, format: str) -> None:
    try:
        name, said = looks_like(path)
    except OSError as error:
        raise CrystalError(f"cannot be read: {error.strerror or error}", where=path, mend="name a file that is there") from error
    if name != format:
        raise CrystalError(f"not of the format {format}; it is {said}", where=path,
                           mend=f"crystal import {name}" if name else f"name a file of {', '.join(READERS)}")


def _check_some(found: Tally, paths: Sequence[Path]) -> None:
    where, failed = ", ".join(map(str, paths)), found.failed
    if not found.units and failed:
        raise CrystalError(f"all {len(failed)} requests failed, first {failed[0].where}: {failed[0].failed:.80}", where=where,
                           mend="ask again for what failed")
    if not found.units:
        raise CrystalError("there is no sample", where=where, mend="let the tool log samples, then import its log")
    if 0 < sum(counts.total() for counts in found.draws.values()) == found.empty:
        raise CrystalError(f"every reply is empty, {found.empty} of them", where=where,
                           mend="leave the model room for an answer; reasoning may have used up its tokens")
    if unread := list(found.nothing()):
        raise CrystalError(
            f"nothing was read as an option of {'; '.join(unread)}",
            where=where,
            mend="--task with the task that was asked; or a new name, with --options a,b,c",
        )


def check_out(out: Path, *, append: bool = False) -> None:
    """Raises: CrystalError if no table can be written there."""
    known(out.suffix, SUFFIXES, "ending of a table")
    if not out.parent.is_dir():
        raise CrystalError(
            "could not be written: there is no such folder",
            where=out,
            mend=f"mkdir -p {quote(str(out.parent))}",
        )
    if out.exists() and not append:
        raise CrystalError(
            "the table is there already",
            where=out,
            mend="--append adds to it; or choose another --out",
        )
    if out.exists() and not out.is_file():
        raise CrystalError("this is no file", where=out, mend="choose another --out")


def save(table: pd.DataFrame, out: Path, *, append: bool = False) -> int:
    """Write the table, CSV, JSONL or parquet by the ending of `out`; return its rows. A table that was there is added to, or
    stays as it was: a new one is written under another name, then renamed.

    Raises: CrystalError if `out` exists and is not to be added to, if one of the prompts or another kind is there already.
    """
    check_out(out, append=append)
    columns, records = list(table.columns), table.to_dict("records")
    try:
        records = (_existing(out, columns, records) if out.exists() else []) + records
        write_file(out, _bytes(records, columns, out))
    except OSError as error:
        raise CrystalError(f"could not be written: {error.strerror or error}", where=out,
                           mend=mend_of(error, out) if out.parent.is_dir() else f"mkdir -p {out.parent}") from error
    return len(records)


def _existing(out: Path, columns: list[str], new: list[dict]) -> list[dict]:
    """Rows of the table that is there, verbatim."""
    old = [cells for _, cells in rows(out)]
    if wrong := next((cells for cells in old if set(cells) != set(columns)), None):
        raise CrystalError(
            f"the table has the columns {some(wrong, 12)}, not {', '.join(columns)}",
            where=out,
            mend="choose another --out",
        )
    there = {
        tuple(texts.whole(texts.written(cells[name])) for name in Place._fields) for cells in old
    }
    twice = [place for place in dict.fromkeys(tuple(cells[name] for name in Place._fields) for cells in new) if place in there]
    if twice:
        first = ", ".join(map(texts.short, twice[0]))
        raise CrystalError(
            f"{len(twice)} prompts are in the table already, first {first}",
            where=out,
            mend="name all files of a prompt in one import, or choose another --out",
        )
    return old


def _bytes(records: list[dict], columns: list[str], out: Path) -> bytes:
    if out.suffix == ".jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    if out.suffix == ".csv":
        lines: list[str] = []  # written with the ending \r\n, or a name that holds \r would not be quoted
        writer = csv.DictWriter(SimpleNamespace(write=lines.append), columns)
        writer.writeheader()
        writer.writerows(
            {name: texts.cell(value) for name, value in record.items()} for record in records
        )
        return "".join(line.removesuffix("\r\n") + "\n" for line in lines).encode()
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(records), sink, write_page_checksum=True)
    except pa.ArrowException as error:
        raise CrystalError(f"the rows that are there are of other types: {error}", where=out,
                           mend="choose another --out") from error
    return sink.getvalue()
