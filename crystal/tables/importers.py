"""Logs -> the table that `crystal phases` reads: answers read by the rule of their task, counted.

Rows of one prompt: every option of its task in order, then the empty one, "none of them". Option
scores become probabilities exp(log-likelihood), not renormalised; the empty option gets the rest.
A score is not the probability of reading that option in a reply: it knows no boundary (that of 1
holds 14 and 19) and one tokenisation, and is off by a total variation of up to 0.43 on 1-100.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote

import pandas as pd

from .. import texts
from ..ask.tasks import Task, read
from ..errors import CrystalError, known, placed
from ..files import explained, write_file
from .foreign import AGAIN, READERS, Answer, Asked
from .sheets import SLACK, Place, inside, no, rows, some

SUFFIXES = (".csv", ".jsonl", ".parquet")
SHOWN = 30  # characters of a reply that is no option
EXCESS = 1e-6  # by which a log-likelihood may be above 0: rounding

# -- counted


class Tally:
    """What was read so far."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.draws: dict[Place, Counter[str]] = defaultdict(Counter)  # option, or "" -> replies
        self.scores: dict[Place, dict[str, float]] = defaultdict(dict)  # text -> probability
        self.clusters: dict[Place, str | None] = {}
        self.seen: dict[str, str] = {}  # identity -> where
        self.owns: set[str | None] = set()  # what the files call their tasks
        self.failed: list[str] = []  # where, and why
        self.decodings: set[tuple[tuple[str, str], ...]] = set()
        self.cut = 0  # replies whose answer might have gone on, had there been room: 1 of 17
        self.unread: dict[str, Counter[str]] = defaultdict(Counter)  # by task, of no option

    def add(self, answer: Answer, asked: Asked, where: str) -> None:
        """Count an answer that stands there."""
        self.owns.add(answer.task)
        if len(self.owns) > 1 and (asked.task or asked.options):
            names = " and ".join(sorted(map(str, self.owns)))
            hint = "import the files of one task, then those of the next with --append"
            raise no(f"answers to the tasks {names}, where one is given", hint)
        task = asked.task_of(answer.task)
        ladder, stage = (asked.one(name, answer) for name in ("ladder", "stage"))
        place = Place(ladder, stage, task.name, answer.prompt)
        if first := self.seen.get(answer.identity):
            hint = "name every log once, in one of its forms"
            raise no(f"this reply is there twice, first in {first}", hint)
        if answer.identity is not None:
            self.seen[answer.identity] = where
        if answer.failed is not None:
            self.failed.append(f"{where}: {answer.failed:.80}")
            return
        self.tasks[task.name] = task
        if (first := self.clusters.setdefault(place, answer.cluster)) != answer.cluster:
            both = f"of {first!r:.60} and of {answer.cluster!r:.60}"
            hint = "give prompts of two clusters (column cluster) two names"
            raise no(f"prompt {place.prompt!r:.60} is {both}", hint)
        if answer.score is None:
            self._count(answer, task, place)
        else:
            self._score(answer.text or "", answer.score, place)
        if self.draws and self.scores:
            what = "replies and option scores, which one table cannot hold"
            raise no(what, "import them into two tables")

    def _count(self, answer: Answer, task: Task, place: Place) -> None:
        text = texts.whole(answer.text or "")
        option = read(text, task)
        self.draws[place][option or ""] += 1
        self.cut += answer.cut and option is not None and read(text + "x", task) != option
        self.unread[task.name][text.strip()[:SHOWN]] += option is None
        self.decodings |= {answer.decoding} - {()}

    def _score(self, text: str, score: float, place: Place) -> None:
        if not score <= EXCESS:  # NaN, too
            raise no(f"{score} is no log-likelihood of {text!r:.60}", AGAIN)
        if text in (scored := self.scores[place]):
            what = f"{text!r:.60} is scored twice for prompt {place.prompt!r:.60}"
            hint = "name every log once, and prompts by what tells them apart (--prompt-from)"
            raise no(what, hint)
        scored[text] = math.exp(score)

    def table(self) -> pd.DataFrame:
        """Columns of Place, cluster if there is any, option, and count or probability."""
        found = []
        for place, cluster in self.clusters.items():
            each = self._distribution(place) if self.scores else self.draws[place]
            options = (*self.tasks[place.task].options, "")
            found += [(*place, cluster or "", option, each[option]) for option in options]
        kind = "probability" if self.scores else "count"
        frame = pd.DataFrame(found, columns=[*Place._fields, "cluster", "option", kind])
        return frame if any(self.clusters.values()) else frame.drop(columns="cluster")

    def _distribution(self, place: Place) -> dict[str, float]:
        task, where = self.tasks[place.task], f"task {place.task}, prompt {place.prompt}"
        p: dict[str, float] = defaultdict(float)
        for text, score in self.scores[place].items():
            p[read(texts.whole(text), task) or ""] += score
        if lacking := [option for option in task.options if option not in p]:
            what = f"{len(lacking)} of {len(task.options)} options have no score"
            hint = "score every option; or name a new --task, with --options that are scored"
            raise CrystalError(f"{what}, first {lacking[0]}", where=where, hint=hint)
        if (total := math.fsum(p[option] for option in task.options)) > 1 + SLACK:
            what = f"the options' scores sum to {total:.4g}, above 1: an option that begins another"
            hint = "import replies, or a new --task with --options of which none begins another"
            raise CrystalError(f"{what} holds its score, too", where=where, hint=hint)
        return p | {"": max(0.0, 1 - total)}

    def told(self) -> Iterator[str]:
        """What was read, in sentences, and whatever was left out."""
        if n := len(self.scores):
            mass = sum(1 - self._distribution(place)[""] for place in self.scores) / n
            limits = "they know no boundary behind an option and one tokenisation of it"
            yield f"{n} prompts, option scores that sum to {mass:.3f} on average; {limits}"
        else:
            every = sum(self.draws.values(), Counter())
            share = 1 - every[""] / every.total()
            yield f"{len(self.draws)} prompts, {every.total()} draws, {share:.1%} read as an option"
        unread = sum(self.unread.values(), Counter())
        cut = "replies cut at the limit of tokens right behind the option"
        beside = {
            "empty replies, counted as none of the options": unread[""],
            "read as no option, most often": most_often(unread),
            f"{cut}, which a longer answer may begin with": self.cut,
            "failed requests, left out": self._failed(),
        }
        yield from (f"{what}: {found}" for what, found in beside.items() if found)
        greedy = {("do_sample", "False"), ("temperature", "0"), ("temperature", "0.0")}
        for decoding in sorted(self.decodings):
            repeats = "; this is greedy: repeats of one answer are not draws"
            repeats = "" if greedy.isdisjoint(decoding) else repeats
            yield f"decoding as logged: {', '.join(map(' '.join, decoding))}{repeats}"

    def _failed(self) -> str:
        return f"{len(self.failed)}, first {self.failed[0]}" if self.failed else ""

    def check(self) -> None:
        """Refuse what is no table: no answer at all, or none that is an option of its task."""
        if not self.clusters and self.failed:
            raise no(f"all requests failed: {self._failed()}", "ask again for what failed")
        if not self.clusters:
            raise no("there is no sample", "let the tool log samples, then import its log")
        sound = {place.task for place, mine in self.draws.items() if mine.total() > mine[""]}
        if unread := [task for task in self.unread if task not in sound]:
            often = (most_often(self.unread[task]) or "every reply is empty" for task in unread)
            each = "; ".join(map(": ".join, zip(unread, often)))
            hint = "--task with the task that was asked; or a new name, with --options a,b,c"
            if each.endswith("empty"):
                hint = "leave the model room for an answer; reasoning may have used up its tokens"
            raise no(f"nothing was read as an option of {each}", hint)


def most_often(unread: Counter[str]) -> str:
    """The three most frequent texts, with how often; "" if all are empty."""
    often = [f"{text!r} ({count})" for text, count in unread.most_common(4) if text and count]
    return ", ".join(often[:3])


def tally(format: str, paths: Sequence[Path], asked: Asked) -> Tally:
    """Read every answer in `paths`. Raises: CrystalError where one cannot be, or there is none."""
    reader, found = READERS[known(format, READERS, "format")], Tally()
    if len({path.resolve() for path in paths}) < len(paths):
        raise CrystalError("a file is named twice", hint="name every file once")
    for path in paths:
        with inside(path):
            try:
                for where, answers in reader(path, asked):
                    with placed(where):
                        for answer in answers:
                            found.add(answer, asked, f"{path}, {where}")
            except OSError as error:
                what = f"cannot be read: {error.strerror or error}"
                raise no(what, "name a file that is there") from error
            except RecursionError as error:
                raise no("a record is nested too deeply", "write it flat") from error
    with placed(", ".join(map(str, paths))):
        found.check()
    return found


# -- written


def check_place(out: Path) -> None:
    """Refuse another ending, or a folder that is not there."""
    known(out.suffix, SUFFIXES, "ending of a table")
    if not out.parent.is_dir():
        what = "could not be written: there is no such folder"
        raise CrystalError(what, where=out, hint=f"mkdir -p {quote(str(out.parent))}")


def check_out(
    out: Path, append: bool, columns: Sequence[str] = (), new: Sequence[dict] = ()
) -> list[dict]:
    """Rows of the table that is there, verbatim, to be followed by the rows `new`.

    Raises: CrystalError if it cannot be written, or is there without `append`, or has other columns
    or one of the prompts already.
    """
    check_place(out)
    if not out.exists():
        return []
    with inside(out):
        if not append:
            raise no("the table is there already", "--append adds to it; or choose another --out")
        once = {"unit": "cluster"} if "cluster" in columns else {}  # as it was called
        there = rows(out) if columns else ()
        old = [{once.get(name, name): cell for name, cell in cells.items()} for _, cells in there]
        if wrong := next((cells for cells in old if set(cells) != set(columns)), None):
            what = f"the table has the columns {some(wrong, 12)}, not {', '.join(columns)}"
            raise no(what, "choose another --out")
        there = {
            tuple(texts.whole(texts.written(cells[n])) for n in Place._fields) for cells in old
        }
        places = dict.fromkeys(tuple(cells[n] for n in Place._fields) for cells in new)
        if twice := [place for place in places if place in there]:
            first = ", ".join(map(texts.short, twice[0]))
            what = f"{len(twice)} prompts are in the table already, first {first}"
            hint = "name another --ladder, --stage or --out; or all files of a prompt in one import"
            raise no(what, hint)
        return old


def save(table: pd.DataFrame, out: Path, append: bool = False) -> int:
    """Write the table, or add it to what is there, as `check_out` allows; how many rows it has."""
    new = table.to_dict("records")
    every = check_out(out, append, list(table.columns), new) + new
    write(every, out)
    return len(every)


def write(records: list[dict], out: Path, *, verbatim: bool = False) -> None:
    """Write a table whole or not at all, by the ending of `out`. verbatim: in CSV, nothing goes
    before what a spreadsheet would compute.
    """
    check_place(out)
    with explained("could not be written", out):
        write_file(out, _bytes(records, out, verbatim))


def _bytes(records: list[dict], out: Path, verbatim: bool = False) -> bytes:
    if out.suffix == ".jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    if out.suffix == ".csv":
        frame = pd.DataFrame(records, dtype=object)
        return (frame if verbatim else frame.map(texts.cell)).to_csv(index=False).encode()
    try:
        return pd.DataFrame(records).to_parquet(index=False, write_page_checksum=True)
    except (ValueError, TypeError) as error:  # of pyarrow
        what = f"the rows that are there are of other types: {error}"
        raise CrystalError(what, where=out, hint="choose another --out") from error
