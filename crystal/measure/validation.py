"""The claims tried on ladders of known truth, kept row by row: `crystal verify --claims`.

One trial: some clusters of a population are asked, every claim is judged, and judged again by what
is true of the population. What a claim chooses from the sample (a seed's options, which options
gain) stays chosen: the truth is that of the chosen.

    trials.jsonl    claims about one task: a row is a claim, a scenario or threshold, and a design
    joint.jsonl     the claims about all tasks at once: a row is a scenario and a design
    readings.jsonl  readings of the paper's ratio: a row is a scenario, K, reading and distance

At 95 % a share of 400 trials has a binomial error of 1.1 points, of 2,000 half a point.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import CrystalError
from ..files import root, write_file
from ..texts import parse_json, read_text
from ..workers import cores, side_by_side
from . import claims, joint, synthetic
from . import quantities as ph
from .claims import THRESHOLDS, Verdict, judge
from .inference import ALPHA, generator
from .synthetic import PANEL_SCENARIOS, SCENARIOS, Design, Panel, Sample

WORLDS = 8  # populations that the trials of one row are taken from
SLACK = 1e-9  # a truth so near to an interval lies in it
NEAR = 0.02  # relative distance to the threshold within which a claim is neither true nor false

# --- claims about one task, and their truth


def _seed(found: Sample, trial: int) -> claims.Seed:
    return claims.seed_of(found.base, found.seed, seed=trial)


JUDGED: dict[str, Callable[[Sample, dict], Verdict]] = {
    "many-distributions": lambda x, how: claims.liquid(x.base, **how),
    "collapse": lambda x, how: claims.collapse(x.base, x.sft, **how),
    "stays-frozen": lambda x, how: claims.stays_frozen(x.base, x.sft, x.final),
    "same-options": lambda x, how: claims.same_options(x.final, _seed(x, how["seed"]), **how),
    "little-promoted": lambda x, how: claims.little_promoted(x.sft, x.final),
}


def _share(true: Sample, *_) -> float:
    p = true.base.distribution
    return ph.liquidity_bits(p) / np.log2(p.shape[1])


def _given_back(true: Sample, *_) -> float:
    stages = (true.base, true.sft, true.final)
    base, sft, final = (ph.liquidity_bits(x.distribution) for x in stages)
    return ph.ratio(final - sft, base)


def _mass_kept(true: Sample, found: Sample, trial: int) -> float:
    """On the options chosen; from draws, over what that cluster really puts there."""
    mask, mine = _seed(found, trial).mask, found.truth.clusters == found.seed
    own, final = found.truth.distribution[mine].mean(0), true.final.distribution.mean(0)
    return ph.ratio(ph.probmass(final, mask), ph.probmass(own, mask))


def _promoted(true: Sample, found: Sample, _) -> float:
    gained = []
    for chosen, _ in found.sft.folds:
        before, after = (x.distribution[chosen].mean(0) for x in (found.sft, found.final))
        gained.append(ph.lower_half(before) & (after > before))
    rise = (true.final.distribution - true.sft.distribution).mean(0)
    return (rise * np.array(gained)).sum(-1).mean()


TRUE: dict[str, Callable[[Sample, Sample, int], float]] = {
    "many-distributions": _share,
    "collapse": lambda true, *_: ph.compression(true.sft.distribution, true.base.distribution),
    "stays-frozen": _given_back,
    "same-options": _mass_kept,
    "little-promoted": _promoted,
}


def at_threshold(claim: str, design: Design, world: int, trial: int) -> tuple | None:
    """A ladder and a sample of it on which the claim's true number is its threshold; None if
    there is none. Where the truth depends on what is chosen, every trial has its own ladder.
    """
    own = claim in ("same-options", "little-promoted")
    strength = _strength(claim, design, world, trial if own else 0)
    place = claim, design, world, trial
    return None if strength is None else synthetic.brought_to(*place, strength)


@functools.lru_cache(64)
def _strength(claim: str, design: Design, world: int, trial: int) -> float | None:
    from scipy.optimize import brentq

    def beyond(strength: float) -> float:
        stages, found = synthetic.brought_to(claim, design, world, trial, strength)
        return TRUE[claim](synthetic.whole(stages), found, trial) / THRESHOLDS[claim].value - 1

    try:
        strength = brentq(beyond, 1e-4, 1 - 1e-4, xtol=1e-5)
    except ValueError:  # the same side at both ends
        return None
    return strength if abs(beyond(strength)) < NEAR else None  # else the choice jumped there


def ladders(kind: str, name: str, design: Design, world: int, n: int) -> Iterator[tuple]:
    """The whole of a ladder and a sample of it, with its number; the same whatever n is."""
    if kind == "at threshold":
        for i in range(n):
            if brought := at_threshold(name, design, world, i):
                yield synthetic.whole(brought[0]), brought[1], i
        return
    stages = synthetic.population(name, design.options, world, design.templates)
    true = synthetic.whole(stages)
    for i in range(n):
        yield (
            true,
            synthetic.sample(stages, design, generator(i, f"trial {world} {design.name}")),
            i,
        )


def one_trial(claim: str, true: Sample, found: Sample, i: int, permutations: int = 99) -> tuple:
    """Verdict of the sample, and the true number."""
    verdict = JUDGED[claim](found, {"seed": i, "permutations": permutations})
    return verdict, float(TRUE[claim](true, found, i))


def summarised(trials: list[tuple[Verdict, float]]) -> dict[str, float]:
    """Counts of one claim's trials, and the mean truth.

    covered, below, above: truth in the interval, below, above; not_true: trials whose truth is not
    on the claim's side, or at the threshold; false_holds of them; not_false, false_fails likewise.
    """
    rows = []
    for verdict, truth in trials:
        margin = truth / verdict.threshold.value - 1
        margin = margin if verdict.threshold.side == "above" else -margin  # > 0: the claim is true
        rows.append((verdict.estimate.low, verdict.estimate.high, truth, margin))
    low, high, truth, margin = np.array(rows, float).reshape(-1, 4).T
    judged = np.array([verdict.verdict for verdict, _ in trials], str)
    known, holds, fails = np.isfinite(low) & np.isfinite(high), judged == "holds", judged == "fails"
    below, above = known & (truth < low - SLACK), known & (truth > high + SLACK)
    not_true, not_false = margin < NEAR, margin > -NEAR
    found = {"interval": known, "covered": known & ~below & ~above, "below": below, "above": above}
    found |= {"holds": holds, "fails": fails}
    found |= {"not_true": not_true, "false_holds": holds & not_true}
    found |= {"not_false": not_false, "false_fails": fails & not_false}
    counts = {"n": len(trials)} | {name: int(which.sum()) for name, which in found.items()}
    return counts | {"truth": float(truth.mean()) if trials else np.nan}


def row(kind: str, name: str, design: Design, n: int, permutations: int = 99) -> list[dict]:
    """`n` trials over WORLDS populations, a row per claim. name: a claim if "at threshold"."""
    found = {claim: [] for claim in ([name] if kind == "at threshold" else JUDGED)}
    for world in range(WORLDS):
        for ladder in ladders(kind, name, design, world, n // WORLDS):
            for claim, trials in found.items():
                trials.append(one_trial(claim, *ladder, permutations))
    place = {"kind": kind, "name": name} | vars(design)
    return [place | {"claim": claim} | summarised(trials) for claim, trials in found.items()]


# --- trials of the joint test

# Thresholds to choose from
PROGRESS, SHARE = (0.05, 0.10, 0.15, 0.25, 0.35, 0.50), (0.6, 0.7, 0.8, 0.9)
PERMUTATIONS = 199
QUARTER = 4  # unmixed is tried on every so many: it takes twice the time of one-seed
APART = 10_000  # worlds from here on set the thresholds, those before try them


def trial(name: str, panel: Panel, world: int, whole: bool = True) -> tuple | None:
    """one-seed; where it holds and the trial is whole, unmixed and the share of tasks whose named
    context holds the first persona. None: it cannot be asked.
    """
    if (found := joint.moves(synthetic.ladder(name, panel, world))) is None:
        return None
    null = joint.joint_null(found, permutations=PERMUTATIONS, seed=world)
    one = judge("one-seed", joint.progress(found), null, chance=0.0)
    if not whole or one.verdict != "holds":
        return one, None, np.nan
    groups = panel.contexts if PANEL_SCENARIOS[name].single else panel.groups
    named = [int(found.contexts[i]) % groups == 0 for i in found.seeds]
    return one, judge("unmixed", joint.largest_share(found)), float(np.mean(named))


def joint_row(kind: str, name: str, panel: Panel, n: int) -> list[dict]:
    """One row of n ladders. kind: "joint", or "threshold" of the worlds that set the thresholds.

    asked: ladders that could be tested; small: those with p at most ALPHA; one-seed, unmixed: those
    on which it holds, then by threshold; tried: of the first, `whole`, ladders those on which
    one-seed holds; progress, share, named (of those tried): means.
    """
    start, whole = (APART, n) if kind == "threshold" else (0, n // QUARTER)
    found = [x for i in range(n) if (x := trial(name, panel, start + i, i < whole))]
    ones, tried = [one for one, *_ in found], [x for x in found if x[1]]
    twos = [two for _, two, _ in tried]
    counts = {"n": n, "asked": len(found), "small": sum(one.null.p <= ALPHA for one in ones)}
    counts |= _passing("one-seed", ones, PROGRESS) | {"whole": whole, "tried": len(tried)}
    counts |= _passing("unmixed", twos, SHARE)
    means = {"progress": [one.estimate.here for one in ones]}
    means |= {"share": [two.estimate.here for two in twos]}
    means |= {"named": [named for *_, named in tried]}
    means = {name: float(np.mean(values)) if values else None for name, values in means.items()}
    return [{"kind": kind, "name": name} | vars(panel) | counts | means]


def _passing(claim: str, verdicts: list[Verdict], thresholds: tuple[float, ...]) -> dict[str, int]:
    counts = {claim: sum(v.verdict == "holds" for v in verdicts)}
    for threshold in thresholds:
        p = [v.estimate.p_beyond(threshold, "above") for v in verdicts]
        p = [max(v.null.p if v.null else 0.0, own) for v, own in zip(verdicts, p, strict=True)]
        counts[f"{claim} {threshold}"] = sum(x <= ALPHA for x in p)
    return counts


def reading_rows(kind: str, name: str, design: Design, n: int) -> list[dict]:
    """What readings of the paper's ratio make of n ladders of one scenario."""
    place = {"kind": kind, "name": name, **vars(design), "n": n}
    return [place | found for found in synthetic.readings(name, design, n)]


# --- rows that are kept

TRIALS, JOINT, READINGS = (f"data/validation/{x}.jsonl" for x in ("trials", "joint", "readings"))
CLAIMS = {TRIALS: tuple(JUDGED), JOINT: ("one-seed", "unmixed"), READINGS: ()}
KINDS = dict.fromkeys(("scenario", "at threshold", "power"), TRIALS)
KINDS |= dict.fromkeys(("joint", "threshold"), JOINT) | {"reading": READINGS}
ENTRY = {TRIALS: row, JOINT: joint_row, READINGS: reading_rows}  # what makes a file's rows
SOURCE = ("quantities", "inference", "evidence", "joint", "claims", "synthetic", "validation")
MAIN, DRAWS, EXACT = (2, 10, 100), (100, 1000), float("inf")
CASTS = {"at random": Design(10, 20), "balanced": Design(10, 20, balanced=True)}
CASTS["natural"] = Design(10, 50, 2)  # the designs of the book
WIDTHS = {"at random": (2, 10), "balanced": MAIN, "natural": (10,)}  # options tried
VARIED = (synthetic.FROZEN, synthetic.HALFWAY, synthetic.MIXED, "another persona each task")
VARIED += ("a persona's options relabelled",)
VARIATIONS = {"tasks": (3, 5, 10), "contexts": (10, 50, 100), "groups": (2, 10), "draws": DRAWS}
PANELS = [Panel(**{field: n}) for field, values in VARIATIONS.items() for n in values]
PANELS += [Panel(wordings=2), Panel(contexts=50, groups=50, wordings=2)]


def plan() -> Iterator[tuple[str, str, Design | Panel, int]]:
    """(kind, name, design, trials) of every row: coverage and false alarms in the designs of the
    book, power where every claim is true, the joint test, some of it in other designs, readings.
    """
    for name in PANEL_SCENARIOS:
        yield "joint", name, Panel(), 2000
        yield "threshold", name, Panel(), 400
    for panel, name in product(PANELS, VARIED):
        yield "joint", name, panel, 200
    for cast, design in CASTS.items():
        for mine in (replace(design, options=options) for options in WIDTHS[cast]):
            yield from (("scenario", name, mine, 400) for name in SCENARIOS)
            yield from (("at threshold", claim, mine, 400) for claim in JUDGED)
    for options, claim in product(MAIN[1:], JUDGED):
        yield "at threshold", claim, Design(options, 20, 2, DRAWS[0]), 400
    for options, clusters, draws in product(MAIN, (10, 20, 50, 100), (*DRAWS, EXACT)):
        yield "power", "frozen onto one of the base", Design(options, clusters, 2, draws), 96
    for options, name in product(MAIN, SCENARIOS):
        yield "reading", name, Design(options, 20), 20


@functools.cache
def source_sha256(file: str) -> str:
    """Of what made a file's rows: ENTRY, what it may call in SOURCE, thresholds; no words."""
    defined = {(module, name): node for module in SOURCE for name, node in _nodes(module)}
    code, reached = {}, [("validation", ENTRY[file].__name__)]
    while reached:
        place = reached.pop()
        code[place] = ast.unparse(defined[place])
        words = {getattr(x, "id", getattr(x, "attr", None)) for x in ast.walk(defined[place])}
        words -= {"THRESHOLDS"}  # of them what is below
        reached += [other for other in defined if other[1] in words and other not in code]
    text = [f"{claim} {THRESHOLDS[claim].side} {THRESHOLDS[claim].value}" for claim in CLAIMS[file]]
    text += [f"{place} {code[place]}" for place in sorted(code)]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def _nodes(module: str) -> Iterator[tuple[str, ast.stmt]]:
    """Everything that a module defines: its name, and its code without docstrings."""
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (x.id for x in ast.walk(ast.Tuple(targets)) if isinstance(x, ast.Name)):
                yield name, node


def made(kind: str, *step: object) -> list[dict]:
    return ENTRY[KINDS[kind]](kind, *step)


def _key(row: dict) -> tuple:
    """What tells steps apart: kind, name and every field of the design."""
    fields = Panel if KINDS[row["kind"]] == JOINT else Design
    return row["kind"], row["name"], *(_finite(row[name]) for name in fields.__dataclass_fields__)


def _kept(file: str) -> list[dict]:
    path, hint = root() / file, f"git checkout -- {file}"
    text = read_text(path, hint) if path.is_file() else ""
    return [parse_json(line, path, hint) for line in text.splitlines() if line]


def validate(jobs: int | None = None, say=print) -> int:
    """Make the rows that are missing or of another source; returns how many steps were taken."""
    steps = {_key({"kind": step[0], "name": step[1]} | vars(step[2])): step for step in plan()}
    rows, todo = {}, dict(steps)
    for file in ENTRY:
        current = (row for row in _kept(file) if row["source"] == source_sha256(file))
        rows[file] = [row for row in current if _key(row) in steps]
        for row in rows[file]:
            todo.pop(_key(row), None)
        (root() / file).parent.mkdir(parents=True, exist_ok=True)
        _write(file, rows[file])
    every = side_by_side(made, list(todo.values()), min(jobs or cores(), max(1, len(todo))))
    for number, done in enumerate(every, 1):
        if done.error:
            raise done.error
        kind, name, design, n = done.task
        more = {"draws": _finite(design.draws), "source": source_sha256(file := KINDS[kind])}
        rows[file] += [row | more for row in done.result]
        _write(file, rows[file])
        say(f"[{number}/{len(todo)}] {kind} {name}, {design.name}: {n} trials")
    return len(todo)


def _finite(value: object) -> object:
    """As JSON has it."""
    if value == EXACT:
        return None
    return int(value) if isinstance(value, float) else value


def _write(file: str, rows: list[dict]) -> None:
    """In one order, however many jobs made them."""
    rows = sorted(rows, key=lambda row: (*map(str, _key(row)), row.get("claim", "")))
    write_file(root() / file, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _loaded(file: str) -> pd.DataFrame:
    if not (rows := _kept(file)):
        where, hint = root() / file, "make verify CLAIMS=1"
        raise CrystalError("nothing was simulated yet", where=where, hint=hint)
    frame = pd.DataFrame(rows).fillna({"draws": EXACT})
    return frame.assign(current=frame.pop("source") == source_sha256(file))


def load_trials() -> pd.DataFrame:
    """One row per claim, scenario (or threshold) and design, with counts (`summarised`) and rates.

    cast: of CASTS, or empty. coverage: of trials with an interval; power: holds of n. current: of
    today's source. Raises: CrystalError if nothing was simulated.
    """
    frame, fields = _loaded(TRIALS), ["clusters", "templates", "balanced", "draws"]
    casts = {tuple(getattr(each, f) for f in fields): name for name, each in CASTS.items()}
    frame["cast"] = [casts.get(place, "") for place in frame[fields].itertuples(False, None)]
    frame["coverage"] = frame["covered"] / frame["interval"]
    frame["power"] = frame["holds"] / frame["n"]
    return frame


def load_joint() -> pd.DataFrame:
    """One row per scenario and design, counts of `joint_row` as shares."""
    frame, of = _loaded(JOINT), {"small": "n", "one-seed": "n", "unmixed": "whole"}
    for column in frame.columns:
        if whole := of.get(column.split(" ")[0]):
            frame[column] = frame[column] / frame[whole]
    for field in ("seed", "pure"):
        frame[field] = [getattr(PANEL_SCENARIOS[name], field) for name in frame["name"]]
    return frame


def load_readings() -> pd.DataFrame:
    """One row per scenario (name), options, reading and distance: `synthetic.readings`."""
    return _loaded(READINGS)
