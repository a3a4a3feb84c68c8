"""What was simulated of the claims, kept row by row: `crystal validate` fills data/validation/trials.jsonl, pages read it.

A row is one scenario (or mark) and one design; it says which source it was made by. Rows of another source are made again.
"""

from __future__ import annotations

import ast
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
from . import simulation, synthetic
from .marks import MARKS
from .synthetic import Design

FILE = "data/validation/trials.jsonl"
SOURCE = ("phases", "chance", "leaving", "coverage", "inference", "evidence", "judging", "claims", "synthetic", "simulation")
K, MAIN, DRAWS, EXACT = (2, 6, 10, 26, 100), (2, 10, 100), (50, 100, 300, 1000), float("inf")
SETTLED = "frozen onto a base law"  # and there it stays: every claim is true
COUNTED = ("n", "interval", "covered", "below", "above", "holds", "fails", "not_true", "false_holds", "not_false", "false_fails")


def plan() -> Iterator[tuple[str, str, Design, int]]:
    """(kind, name, design, trials) of every row, the dearest last.

    Coverage and false alarms, by scenario and at the mark: read-outs of twenty narrators by five frames, as ours, and draws of
    twenty prompts. Power: every prompt a unit of its own, as in most tables, on a ladder where every claim is true.
    """
    for options in MAIN:
        for name in synthetic.SCENARIOS:
            yield "scenario", name, Design(options, 20), 2000
        for claim in simulation.JUDGED:
            yield "mark", claim, Design(options, 20), 2000
    for options in K:
        for units in (10, 20, 50, 100):
            for draws in (*DRAWS, EXACT):
                yield "scenario", SETTLED, Design(options, units, 1, draws), 200
    for options in MAIN[1:]:
        for draws in (100, 1000):
            for claim in simulation.JUDGED:
                yield "mark", claim, Design(options, 20, 1, draws), 400
            for name in synthetic.SCENARIOS:
                yield "scenario", name, Design(options, 20, 1, draws), 400
    for options in set(K) - set(MAIN):
        for claim in simulation.JUDGED:
            yield "mark", claim, Design(options, 20), 1000


def source_sha256() -> str:
    """Of the code of SOURCE and of the marks of the claims tried: what a row was made by.

    Apart from docstrings, comments and where in the package an imported name is taken from: none of it can change a row.
    """
    text = [f"{claim} {MARKS[claim].side} {MARKS[claim].mark}" for claim in simulation.JUDGED]
    for name in SOURCE:
        tree = ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                node.body = body[1:] or [ast.Pass()]
        ours = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
        tree.body = [node for node in tree.body if node not in ours]
        text += sorted(ast.unparse(name) for node in ours for name in node.names)
        text.append(ast.unparse(tree))
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def _key(row: dict) -> tuple:
    return row["kind"], row["name"], row["options"], row["units"], row["frames"], row["draws"]


def _kept() -> list[dict]:
    path = root() / FILE
    if not path.is_file():
        return []
    mend = f"git checkout -- {FILE}"
    return [parse_json(line, path, mend) for line in read_text(path, mend).splitlines() if line]


def validate(jobs: int | None = None, say=print) -> int:
    """Make the rows that are missing or of another source; returns how many. Stopped, it goes on where it was."""
    source, path = source_sha256(), root() / FILE
    good = [row for row in _kept() if row["source"] == source]
    have = {_key(row) for row in good}
    todo = [step for step in plan() if (step[0], step[1], *_place(step[2])) not in have]
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, good)
    jobs = min(jobs or cores(), max(1, len(todo)))
    with open(path, "a", encoding="utf-8") as file:
        for number, done in enumerate(side_by_side(simulation.row, todo, jobs), 1):
            if done.error:
                raise done.error
            for row in done.result:
                file.write(json.dumps(row | {"draws": _finite(row["draws"]), "source": source}) + "\n")
            file.flush()
            os.fsync(file.fileno())
            kind, name, design, n = done.task
            say(f"[{number}/{len(todo)}] {kind} {name}, {design.name}: {n} trials")
    _write(path, sorted(_kept(), key=lambda row: (*map(str, _key(row)), row["claim"])))  # one order, however many jobs
    return len(todo)


def _place(design: Design) -> tuple:
    return design.options, design.units, design.frames, _finite(design.draws)


def _finite(draws: float) -> int | None:
    return None if draws == EXACT else int(draws)


def _write(path: Path, rows: list[dict]) -> None:
    write_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def load_trials() -> pd.DataFrame:
    """One row per claim, scenario (or mark) and design, with counts (`simulation.summarised`) and the rates made of them.

    draws: inf for a read-out. coverage: of trials with an interval; power: holds of n. false_holds_rate, false_fails_rate: of the
    trials in which the claim is not true, not false. current: made by today's source.
    Raises: CrystalError if nothing was simulated.
    """
    rows = _kept()
    if not rows:
        raise CrystalError("nothing was simulated yet", where=root() / FILE, mend="make validate")
    frame = pd.DataFrame(rows)
    frame["draws"] = frame["draws"].fillna(EXACT)
    frame["current"] = frame.pop("source") == source_sha256()
    frame["coverage"] = frame["covered"] / frame["interval"]
    frame["power"] = frame["holds"] / frame["n"]
    frame["false_holds_rate"] = frame["false_holds"] / frame["not_true"]
    frame["false_fails_rate"] = frame["false_fails"] / frame["not_false"]
    return frame
