"""What was simulated of the claims, kept row by row: `crystal validate` fills data/validation.

    trials.jsonl  claims about one task: a row is a claim, a scenario (or its mark) and a design
    joint.jsonl   the claims about all tasks at once: a row is a scenario and a design

A row says which source it was made by; rows of another source are made again. A share of n trials
has a binomial error of sqrt(p (1 - p) / n): of 400 trials 1.1 points at 95 %, so that one row of
fourteen lies outside 93 to 97 % where coverage is nominal; of 2,000 half a point; of 100, at 80 %,
4 points.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ..cores import cores
from ..errors import CrystalError
from ..files import root, write_file
from ..texts import parse_json, read_text
from ..workers import side_by_side
from . import joint_synthetic, simulation, synthetic
from .joint_synthetic import Panel
from .marks import MARKS
from .synthetic import Design

TRIALS, JOINT = "data/validation/trials.jsonl", "data/validation/joint.jsonl"
SOURCE = {
    TRIALS: (
        "phases",
        "chance",
        "leaving",
        "coverage",
        "inference",
        "evidence",
        "judging",
        "claims",
        "synthetic",
        "simulation",
    ),
    JOINT: (
        "phases",
        "chance",
        "leaving",
        "inference",
        "evidence",
        "judging",
        "synthetic",
        "joint",
        "joint_synthetic",
    ),
}
CLAIMS = {TRIALS: tuple(simulation.JUDGED), JOINT: ("one-seed", "unmixed")}
KINDS = {"scenario": TRIALS, "mark": TRIALS, "power": TRIALS, "joint": JOINT, "threshold": JOINT}
MAIN, DRAWS, EXACT = (2, 10, 100), (100, 1000), float("inf")
CASTS = {
    "at random": Design(10, 20),
    "balanced": Design(10, 20, balanced=True),
    "natural": Design(10, 50, 2),
}  # the designs of the book
WIDTHS = {"at random": (2, 10), "balanced": MAIN, "natural": (10,)}  # options tried
SETTLED = "frozen onto a base law"  # and there it stays: every claim is true
VARIED = (
    joint_synthetic.FROZEN,
    joint_synthetic.HALFWAY,
    joint_synthetic.MIXED,
    "another persona each task",
    "a persona's options relabelled",
)
PANELS = (
    *(Panel(tasks=n) for n in (3, 5, 10)),
    *(Panel(contexts=n) for n in (10, 50, 100)),
    *(Panel(groups=n) for n in (2, 10)),
    *(Panel(draws=n) for n in DRAWS),
    Panel(wordings=2),
    Panel(contexts=50, groups=50, wordings=2),
)

Step = tuple[str, str, Design | Panel, int]


def plan() -> Iterator[Step]:
    """(kind, name, design, trials) of every row.

    Coverage and false alarms, by scenario and at the mark: twenty units by five frames, at random
    or as many of each voice, and fifty contexts in two wordings, read out. At the mark also from
    draws. Power: two wordings of every context, on a ladder where every claim is true. The joint
    test: every scenario, and some of them in other designs.
    """
    for name in joint_synthetic.SCENARIOS:
        yield "joint", name, Panel(), 2000
        yield "threshold", name, Panel(), 400
    for panel in PANELS:
        for name in VARIED:
            yield "joint", name, panel, 200
    for cast, design in CASTS.items():
        for options in WIDTHS[cast]:
            mine = Design(**vars(design) | {"options": options})
            for name in synthetic.SCENARIOS:
                yield "scenario", name, mine, 400
            for claim in simulation.JUDGED:
                yield "mark", claim, mine, 400
    for options in MAIN[1:]:
        for claim in simulation.JUDGED:
            yield "mark", claim, Design(options, 20, 2, DRAWS[0]), 400
    for options in MAIN:
        for units in (10, 20, 50, 100):
            for draws in (*DRAWS, EXACT):
                yield "power", SETTLED, Design(options, units, 2, draws), 96


@functools.cache
def source_sha256(file: str) -> str:
    """Of the code behind a file's rows and of the marks of its claims: what a row was made by.

    Of the modules SOURCE names: what the last one defines, and whatever that may call, by name.
    Docstrings, comments and what nothing here calls can change no row.
    """
    *_, entry = SOURCE[file]
    defined = {(module, name): node for module in SOURCE[file] for name, node in _nodes(module)}
    code, reached = {}, [place for place in defined if place[0] == entry]
    while reached:
        place = reached.pop()
        code[place] = ast.unparse(defined[place])
        words = {getattr(x, "id", getattr(x, "attr", None)) for x in ast.walk(defined[place])}
        reached += [other for other in defined if other[1] in words and other not in code]
    text = [f"{claim} {MARKS[claim].side} {MARKS[claim].mark}" for claim in CLAIMS[file]]
    text += [f"{place} {code[place]}" for place in sorted(code)]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def _nodes(module: str) -> Iterator[tuple[str, ast.stmt]]:
    """Everything that a module defines: its name, and its code without docstrings."""
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = body[1:] or [ast.Pass()]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (x.id for x in ast.walk(ast.Tuple(targets)) if isinstance(x, ast.Name)):
                yield name, node


def made(kind: str, name: str, design: Design | Panel, n: int) -> list[dict]:
    """The rows of one step of the plan."""
    module = joint_synthetic if KINDS[kind] == JOINT else simulation
    return module.row(kind, name, design, n)


def _key(row: dict) -> tuple:
    """What tells steps apart: kind, name and every field of the design."""
    fields = Panel if KINDS[row["kind"]] == JOINT else Design
    return row["kind"], row["name"], *(_finite(row[name]) for name in fields.__dataclass_fields__)


def _kept(file: str) -> list[dict]:
    path = root() / file
    if not path.is_file():
        return []
    mend = f"git checkout -- {file}"
    return [parse_json(line, path, mend) for line in read_text(path, mend).splitlines() if line]


def validate(jobs: int | None = None, say=print) -> int:
    """Make the rows that are missing or of another source, drop those that no plan has; returns how
    many steps were taken. Stopped, it goes on where it was.
    """
    steps, have = (
        {
            _key({"kind": kind, "name": name} | vars(design)): (kind, name, design, n)
            for kind, name, design, n in plan()
        },
        set(),
    )
    for file in SOURCE:
        good = [
            row
            for row in _kept(file)
            if row["source"] == source_sha256(file) and _key(row) in steps
        ]
        have |= {_key(row) for row in good}
        (root() / file).parent.mkdir(parents=True, exist_ok=True)
        _write(file, good)
    todo = [step for key, step in steps.items() if key not in have]
    for number, done in enumerate(
        side_by_side(made, todo, min(jobs or cores(), max(1, len(todo)))), 1
    ):
        if done.error:
            raise done.error
        kind, name, design, n = done.task
        with open(root() / KINDS[kind], "a", encoding="utf-8") as file:
            for row in done.result:
                row |= {"draws": _finite(row["draws"]), "source": source_sha256(KINDS[kind])}
                file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        say(f"[{number}/{len(todo)}] {kind} {name}, {design.name}: {n} trials")
    for file in SOURCE:  # one order, however many jobs
        _write(file, sorted(_kept(file), key=lambda r: (*map(str, _key(r)), r.get("claim", ""))))
    return len(todo)


def _finite(value: object) -> object:
    return None if value == EXACT else int(value) if isinstance(value, float) else value


def _write(file: str, rows: list[dict]) -> None:
    write_file(root() / file, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _loaded(file: str) -> pd.DataFrame:
    rows = _kept(file)
    if not rows:
        raise CrystalError("nothing was simulated yet", where=root() / file, mend="make validate")
    frame = pd.DataFrame(rows)
    frame["draws"] = frame["draws"].fillna(EXACT)
    frame["current"] = frame.pop("source") == source_sha256(file)
    return frame


def load_trials() -> pd.DataFrame:
    """One row per claim, scenario (or mark) and design, with counts (`simulation.summarised`) and
    the rates made of them.

    cast: of CASTS, or empty. draws: inf for a read-out. coverage: of trials with an interval;
    power: holds of n. false_holds_rate, false_fails_rate: of the trials in which the claim is not
    true, not false. current: made by today's source. Raises: CrystalError if nothing was simulated.
    """
    frame, fields = _loaded(TRIALS), ("units", "frames", "balanced", "draws")
    casts = {tuple(getattr(each, f) for f in fields): name for name, each in CASTS.items()}
    places = frame[list(fields)].itertuples(index=False, name=None)
    frame["cast"] = [casts.get(place, "") for place in places]
    frame["coverage"] = frame["covered"] / frame["interval"]
    frame["power"] = frame["holds"] / frame["n"]
    frame["false_holds_rate"] = frame["false_holds"] / frame["not_true"]
    frame["false_fails_rate"] = frame["false_fails"] / frame["not_false"]
    return frame


def load_joint() -> pd.DataFrame:
    """One row per scenario and design, with the counts of `joint_synthetic.row` as shares: of all
    ladders, those of unmixed of the whole ones.

    seed, pure: whether one persona explains every task, and whether it alone does; leak: what is
    left of a context's own law. Raises: CrystalError if nothing was simulated.
    """
    frame = _loaded(JOINT)
    for column in frame.columns:
        if column in ("small", "one-seed") or column.startswith("one-seed "):
            frame[column] = frame[column] / frame["n"]
        elif column == "unmixed" or column.startswith("unmixed "):
            frame[column] = frame[column] / frame["whole"]
    for field in ("seed", "pure", "leak"):
        frame[field] = [getattr(joint_synthetic.SCENARIOS[name], field) for name in frame["name"]]
    return frame
