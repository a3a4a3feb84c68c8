"""Mutated inputs for `crystal phases` and `crystal import`: a table or a sentence, nothing else.

    python tests/fuzz.py phases 10000 --seed 1

Input n of a seed is always the same. Each runs in a process of its own memory and time limit, so
that a crash of the interpreter is a finding, too. A finding keeps its files in _build/fuzz.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import io
import json
import math
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FORMATS = ROOT / "tests/formats"
MEMORY = 3 * 2**30  # bytes of data that an input may take
SECONDS = 60
DEEP = "@deep@"  # written as nested lists, deeper than any recursion

NAMES = [
    "",
    " ",
    "42.0",
    "42",
    "-0.0",
    "1_000",
    "e\u0301t\u00e9",
    "\u00e9te\u0301",
    "\u0664\u0662",
    "=1+1",
    "'=1",
    "-x",
    "@",
    "a\nb",
    "\x1b[31m",
    "\u202eab",
    "\ufeff",
    "\ud800",
    "all tasks",
    "All  Tasks",
    "base",
    "sft",
    "digit",
    "7",
    "seven",
    "<script>",
    "x" * 5000,
    "\u2028",
    "null",
    "NA",
    "\x00",
    "|",
    '"',
    ",",
]
VALUES = [
    1e308,
    -1,
    0,
    -0.0,
    1e-320,
    5e-324,
    1e9,
    2**63,
    10**400,
    1.004,
    1.02,
    0.5,
    "nan",
    "inf",
    "-inf",
    "1_000",
    "1e400",
    "\u0664",
    "",
    " 3 ",
    "0x10",
    "1,5",
    "3.0",
    "-0",
]
OTHERS = [None, True, False, [], {}, [1], {"a": 1}, DEEP, 42.0, 7, 7.5, "7", b"7"]


class Case(NamedTuple):
    """One input: its file, and the words behind `crystal`; FILE and OUT stand for paths."""

    name: str
    data: bytes
    words: tuple[str, ...]


def pick(rng: np.random.Generator, items: list):
    return items[int(rng.integers(len(items)))]


# -- tables for phases -----------------------------------------------------------------------------


def sound_table(rng: np.random.Generator) -> list[dict]:
    """Rows of a valid table."""
    counted, prompts, units = rng.random() < 0.5, int(rng.integers(1, 8)), rng.random() < 0.3
    tasks = {"mine": "abc", "coin": ("heads", "tails"), "digit": "0123456789"}
    chosen = [task for task in tasks if rng.random() < 0.5] or ["mine"]
    later = pick(rng, [["sft"], ["sft", "dpo"], ["rlvr"], ["sft", "rlvr"]])
    rows = []
    for task in chosen:
        for stage in ("base", *later):
            for prompt in range(prompts):
                options = (*tasks[task], "") if rng.random() < 0.2 else tasks[task]
                distribution = rng.dirichlet(np.full(len(options), pick(rng, [0.1, 1.0])))
                values = rng.multinomial(40, distribution) if counted else distribution
                for option, value in zip(options, values.tolist(), strict=True):
                    row = {
                        "ladder": "L",
                        "stage": stage,
                        "task": task,
                        "prompt": f"p{prompt}",
                        "option": option,
                        "count" if counted else "probability": value,
                    }
                    rows.append(row | ({"unit": f"u{prompt // 2}"} if units else {}))
    return rows


def spoil_rows(rows: list[dict], rng: np.random.Generator) -> list[dict]:
    """Some cells, rows and columns replaced, repeated, exchanged or away."""
    for _ in range(int(rng.integers(0, 4))):
        row, names = int(rng.integers(len(rows))), list(rows[0])
        name = pick(rng, names)
        number = name in ("count", "probability", "mass")
        what = rng.random()
        if what < 0.35:
            rows[row] = rows[row] | {
                name: pick(rng, pick(rng, [VALUES if number else NAMES, OTHERS]))
            }
        elif what < 0.5:  # a whole column, or a name wherever it stands
            new, old = pick(rng, VALUES if number else NAMES), rows[row].get(name)
            rows = [one | {name: new} if one.get(name) == old or number else one for one in rows]
        elif what < 0.6:
            rows = [*rows, *rows[row : row + int(rng.integers(1, 9))]]
        elif what < 0.7:
            del rows[row : row + int(rng.integers(1, 9))]
        elif what < 0.8:
            rows = [{key: value for key, value in one.items() if key != name} for one in rows]
        elif what < 0.9:
            new = pick(rng, [*NAMES, "mass", "count", "unit", *names])
            rows = [
                {new if key == name else key: value for key, value in one.items()} for one in rows
            ]
        else:
            rows = [one | {"mass": pick(rng, [0.9, 1, 1e-320, 1.004])} for one in rows]
        rows = [row for row in rows if row] or [{"ladder": "L"}]
    return rows


def packed(rows: list[dict], suffix: str) -> bytes:
    """The rows as a file."""
    if suffix == ".parquet":
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {}
        for name in names:
            cells = [row.get(name) for row in rows]
            try:
                columns[_clean(name)] = pa.array(cells)
            except (pa.ArrowException, TypeError, OverflowError, UnicodeError):
                columns[_clean(name)] = pa.array(
                    [None if cell is None else _clean(str(cell)) for cell in cells]
                )
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        return sink.getvalue()
    if suffix == ".jsonl":
        return b"".join(dumped(row) + b"\n" for row in rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
    writer.writerows([names, *([row.get(name, "") for name in names] for row in rows)])
    return out.getvalue().encode("utf-8", "surrogatepass")


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def dumped(value: object) -> bytes:
    """JSON of anything, bytes as text, DEEP as nested lists."""
    depth = 100_000
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text.replace(json.dumps(DEEP), "[" * depth + "]" * depth).encode()


def spoil_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes flipped, cut out or inserted."""
    for _ in range(int(rng.integers(1, 4))):
        place, n = int(rng.integers(len(data) + 1)), int(rng.integers(1, 30))
        put = pick(
            rng,
            [
                bytes(rng.integers(0, 256, n, dtype=np.uint8)),
                b"",
                b"\r",
                b"\n",
                b"\x00",
                b'"',
                b"[" * 3000,
                b"9" * n,
            ],
        )
        data = data[:place] + put + data[place + pick(rng, [0, len(put), n]) :]
    return data


def phases_case(rng: np.random.Generator) -> Case:
    rows = spoil_rows(sound_table(rng), rng)
    suffix = pick(rng, [".csv", ".tsv", ".jsonl", ".parquet"])
    data = packed(rows, suffix)
    if rng.random() < 0.3:
        data = spoil_bytes(data, rng)
    if rng.random() < 0.05:
        data = data.replace(b"\n", b"\r")
    words = ["phases", "FILE", "--permutations", "19", *(["--json"] if rng.random() < 0.5 else [])]
    if rng.random() < 0.1:
        flag = pick(rng, ["--seed", "--quantile", "--stages", "--ladder"])
        value = pick(
            rng,
            [
                "-1",
                "nan",
                "1_0",
                "1",
                "0.5",
                "base=",
                "base=base",
                "sft=base",
                "L",
                "base=a,base=b",
            ],
        )
        value = "M" if flag == "--ladder" and value == "nan" else value  # a name, and no number
        words.append(f"{flag}={value}")
    return Case(f"table{suffix}", data, tuple(words))


# -- logs for import -------------------------------------------------------------------------------


def paths(value: object, above: tuple = ()) -> Iterator[tuple]:
    """Where every value within a JSON value stands."""
    yield above
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from paths(inner, (*above, key))


def spoil_json(value, rng: np.random.Generator):
    """A value somewhere within replaced, away or written twice."""
    value = json.loads(json.dumps(value))
    for _ in range(int(rng.integers(0, 4))):
        where = pick(rng, list(paths(value)))
        if not where:
            if rng.random() < 0.05:
                return copy.deepcopy(pick(rng, OTHERS))
            continue
        inner = value
        for key in where[:-1]:
            inner = inner[key]
        if rng.random() < 0.75:
            inner[where[-1]] = copy.deepcopy(pick(rng, pick(rng, [VALUES, NAMES, OTHERS])))
        elif isinstance(inner, list) and rng.random() < 0.5:
            inner.append(copy.deepcopy(inner[where[-1]]))
        else:
            del inner[where[-1]]
    return value


def lined(name: str, words: list[str]) -> Callable[[np.random.Generator], Case]:
    """Cases out of a file with a JSON object a line."""
    records = [json.loads(line) for line in (FORMATS / name).read_bytes().splitlines()]

    def case(rng: np.random.Generator) -> Case:
        rows = [spoil_json(row, rng) if rng.random() < 0.3 else row for row in records]
        if rng.random() < 0.1:
            rows.append(pick(rng, rows))
        return Case(name, b"".join(dumped(row) + b"\n" for row in rows), (*words,))

    return case


def inspect_json(rng: np.random.Generator) -> Case:
    log = json.loads((FORMATS / "digit.json").read_bytes())
    return Case("digit.json", dumped(spoil_json(log, rng)), ("inspect",))


def replies_case(rng: np.random.Generator) -> Case:
    rows = [
        {"prompt": f"p{n % 3}", "reply": pick(rng, ["7", "7.0", "seven", "no", "42", "3."])}
        for n in range(12)
    ]
    rows = [row | {"task": "digit", "unit": "u"} for row in rows] if rng.random() < 0.3 else rows
    suffix = pick(rng, [".csv", ".jsonl", ".parquet"])
    return Case(f"replies{suffix}", packed(spoil_rows(rows, rng), suffix), ("replies",))


(_DIGIT,) = (path.name for path in FORMATS.glob("samples_digit_*.jsonl"))
(_COIN,) = (path.name for path in FORMATS.glob("samples_coin_*.jsonl"))
LOGS = [
    lined(_DIGIT, ["lm-eval"]),
    lined(_COIN, ["lm-eval"]),
    inspect_json,
    replies_case,
    replies_case,
    *(
        lined(f"batch_{kind}.jsonl", ["openai-batch"])
        for kind in ("chat", "completions", "responses")
    ),
]


def import_case(rng: np.random.Generator) -> Case:
    name, data, words = pick(rng, LOGS)(rng)
    if rng.random() < 0.2:
        data = spoil_bytes(data, rng)
    out = pick(rng, [".csv", ".jsonl", ".parquet"])
    task = pick(rng, [["--task", "digit"], ["--task", "mine", "--options", "7,3,42"], []])
    if name == _COIN:
        task = pick(rng, [["--task", "coin"], []])
    more = ["--stage", "base", "--ladder", "toy"]
    if rng.random() < 0.15:
        flag = pick(rng, ["--task", "--options", "--ladder", "--prompt-from", "--unit-from"])
        value = pick(rng, [*NAMES, "1_000,2", "a,a\u0301,\u00e1", "persona", "(.*)-\\d+", "("])
        more.append(f"{flag}={_clean(value)}")
    return Case(name, data, ("import", *words, "FILE", "--out", f"OUT{out}", *task, *more))


CASES = {"phases": phases_case, "import": import_case}


def case(kind: str, seed: int, number: int) -> Case:
    """Input `number` of a seed."""
    return CASES[kind](np.random.default_rng([seed, number, len(kind)]))


# -- what must come out ----------------------------------------------------------------------------


def complaint(given: Case, folder: Path) -> str | None:
    """What is wrong with what the command does with a case; None if nothing is."""
    from crystal.cli import main

    path, outs = folder / given.name, list(folder.glob("OUT*"))
    for old in outs:
        old.unlink()
    path.write_bytes(given.data)
    words = [
        str(path) if word == "FILE" else str(folder / word) if word.startswith("OUT.") else word
        for word in given.words
    ]
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error")
            status = main(words)
    except SystemExit as end:
        return None if end.code == 2 else f"exit {end.code}"
    except BaseException:
        return traceback.format_exc()
    made = list(folder.glob("OUT*"))
    if status == 2:
        said = err.getvalue()
        if not re.fullmatch(
            r"crystal \w+: [^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+"
            r" Hint: .+\n",
            said,
        ):
            return f"no sentence: {said!r:.600}"
        return f"refused, but wrote {made}" if made else None
    if status != 0 or err.getvalue():
        return f"exit {status}, {err.getvalue()!r:.600}"
    try:
        out.getvalue().encode()
        return _wrong_numbers(given, out.getvalue(), made)
    except Exception:
        return traceback.format_exc()


def _wrong_numbers(given: Case, said: str, made: list[Path]) -> str | None:
    if given.words[0] == "import":
        from crystal.tables.sheets import rows

        values = [
            float(cells.get("count", cells.get("probability")))
            for path in made
            for _, cells in rows(path)
        ]
        return (
            None
            if values and all(0 <= value < math.inf for value in values)
            else f"values {values[:9]}"
        )
    if "--json" in given.words:
        found = json.loads(said, parse_constant=lambda name: [].index(name))
        every = [value for value in _leaves(found) if isinstance(value, float)]
        return None if all(map(math.isfinite, every)) else "a number is not finite"
    bad = re.search(r"(?<![\w.])[-+]?(inf|nan)(?!\w)", said, re.IGNORECASE)
    return f"text with {said[max(0, bad.start() - 80) : bad.end() + 20]!r}" if bad else None


def _leaves(value: object) -> Iterator[object]:
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    if inner is None:
        yield value
    else:
        for one in inner:
            yield from _leaves(one)


# -- many of them ----------------------------------------------------------------------------------


def _serve(pipe, kind: str, seed: int, root: str) -> None:
    """Answer case numbers with complaints, within bounds."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(ROOT)

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, late)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        while (number := pipe.recv()) is not None:
            signal.alarm(SECONDS)
            found = complaint(case(kind, seed, number), Path(folder))
            signal.alarm(0)
            for path in Path(folder).iterdir():
                path.unlink()
            pipe.send(found)


def findings(kind: str, numbers: range, seed: int) -> Iterator[tuple[int, str]]:
    """(number, complaint) of every case that ends as none may."""
    context, worker = multiprocessing.get_context("fork"), None
    with tempfile.TemporaryDirectory() as root:
        for number in numbers:
            if worker is None:
                here, there = context.Pipe()
                worker = context.Process(target=_serve, args=(there, kind, seed, root), daemon=True)
                worker.start()
                there.close()
            try:
                here.send(number)
                found = here.recv() if here.poll(3 * SECONDS) else "it hangs"
            except (EOFError, OSError):
                worker.join()
                found = f"the interpreter ended with {worker.exitcode}"
            if found:
                yield number, found
            if found and found.startswith(("the interpreter", "it hangs")):
                worker.kill()
                worker = None
        if worker is not None:
            here.send(None)
            worker.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=CASES)
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    import crystal.cli  # noqa: F401  once, not in every worker

    count = 0
    for number, found in findings(
        arguments.kind, range(arguments.first, arguments.first + arguments.n), arguments.seed
    ):
        count += 1
        given = case(arguments.kind, arguments.seed, number)
        kept = ROOT / "_build/fuzz" / f"{arguments.kind}-{arguments.seed}-{number}-{given.name}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(given.data)
        print(f"{kept}: {' '.join(given.words)!a}\n{found}", flush=True)
    print(f"{arguments.kind}: {arguments.n} inputs of seed {arguments.seed}, {count} findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
