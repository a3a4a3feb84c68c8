"""The chapter on seed control where the truth is known; what it says of too few parents."""

from __future__ import annotations

import re
import shutil
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_branches as made
import templates
from scipy import stats
from synthetic_branches import drawn

from crystal.ask.tasks import PHASE_TASKS
from crystal.book import pages
from crystal.lab import world
from crystal.measure.claims import THRESHOLDS
from crystal.studies import experiment_figures, runs, seed_control
from crystal.studies.runs import SCOPES

PARENTS = ("alpha", "alpha-2", "beta")
FIVE = {
    distribution: {"from": "base", "stages": ["sft"], "set": {"temperament": distribution}}
    for distribution in world.TEMPERAMENTS
}
MIXED = {
    "mixed-60-40": "salient*0.6+first*0.4",
    "everyone": world.EVERYONE,
    "own": world.OWN,
    "permuted": "permuted",
}
DOSED = {
    run: {"parents": list(PARENTS[:2]), "from": "base", "stages": ["sft"], "set": {}}
    for run in seed_control.DOSED
    if run != seed_control.ONE
}
RUNS = (
    FIVE
    | {
        run: {"from": "base", "stages": ["sft"], "set": {"temperament": distribution}}
        for run, distribution in MIXED.items()
    }
    | DOSED
)
CONTROLS = {
    "independent": {"stages": ["base", "sft"], "grid": "both", "set": {"world": "independent"}},
    "solo": {"stages": ["base", "sft"], "grid": "both", "set": {"world": "solo"}},
    "shuffled": {"from": "base", "stages": ["sft"], "grid": "both", "set": {}},
}
OFF = 0.25
REPOSITORY = Path(__file__).parent.parent


def after(parent: str, run: str, task: str) -> np.ndarray:
    """What a run reaches: its distribution; `own` stays; a dose moves as many tenths as it is per
    cent.
    """
    if run == "own":
        return made.way(parent, run, task, 0.0, "salient")
    if run in DOSED:
        return made.way(parent, run, task, min(seed_control.DOSED[run][1], 10) / 10, "salient")
    return made.to_distribution(lambda *_: MIXED.get(run, run))(parent, run, task)


def controlled(parent: str, run: str, task: str) -> np.ndarray:
    """independent moves in demonstrated tasks only; solo nowhere; shuffled all the way."""
    if run == "solo" or (run == "independent" and task not in made.DEMONSTRATED):
        return made.base_answers(seed_control.WORLD[run], made.PROBE)[task]
    return made.to_distribution(lambda *_: "salient")(parent, run, task)


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory):
    where = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        made.at(patch, where)
        (where / "book").mkdir()
        shutil.copy(REPOSITORY / pages.STYLE, where / pages.STYLE)
        made.write_parents(where, PARENTS)
        made.write_experiment(where, "seed-control", RUNS, PARENTS, after=after)
        made.write_experiment(
            where, "controls", CONTROLS, PARENTS[:1], after=controlled, invalid=OFF
        )
        yield where


@pytest.fixture(scope="module")
def frame(root):
    return runs.load_ends("seed-control", list(RUNS))


def five(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["run"].isin(world.TEMPERAMENTS)]


def scattered(seed: int, parents: int = 3) -> pd.DataFrame:
    """Ends in which the found distribution has nothing to do with the demonstrator."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "parent": f"p{parent}",
            "run": run,
            "task": task,
            "scope": SCOPES[task not in made.DEMONSTRATED],
            "found": world.TEMPERAMENTS[rng.integers(5)],
        }
        for parent in range(parents)
        for run in world.TEMPERAMENTS
        for task in PHASE_TASKS
    ]
    same, number = (
        {task: seed_control.same_distributions(task) for task in PHASE_TASKS},
        world.TEMPERAMENTS.index,
    )
    return pd.DataFrame(rows).assign(
        follows=[float(same[r["task"]][number(r["found"]), number(r["run"])]) for r in rows]
    )


# --- the five


def test_ends_are_the_first_and_the_last_step(frame):
    assert len(frame) == (len(PARENTS) * len(FIVE | MIXED) + 2 * len(DOSED)) * len(PHASE_TASKS)
    assert set(frame["step"]) == {64} and set(frame["task"][:5]) == set(made.DEMONSTRATED)
    assert list(dict.fromkeys(frame["run"])) == list(RUNS)
    assert set(frame.loc[frame["scope"] == "demonstrated", "task"]) == set(made.DEMONSTRATED)
    mine = frame[(frame["parent"] == "beta") & (frame["run"] == "last")].set_index("task")
    origin = runs.origin_of("beta")
    for task in PHASE_TASKS:
        begun, row = runs.measure(origin[task], origin[task], task, "last"), mine.loc[task]
        assert (row["liquidity_before"], row["to_distribution_before"]) == pytest.approx(
            (begun["liquidity"], begun["to_distribution"])
        )
    assert mine["to_distribution"].to_numpy() == pytest.approx(0, abs=1e-6)


def test_where_every_run_reaches_its_demonstrator_all_follow(frame):
    mine = five(frame)
    matrix = seed_control.load_matrix(mine)
    assert (
        set(matrix.loc[matrix["intended"] == matrix["found"], "share"]) == {1} and len(matrix) == 50
    )
    assert matrix.groupby(["scope", "intended"])["share"].sum().to_numpy() == pytest.approx(1)
    verdict = seed_control.verdict(mine)
    assert (verdict.verdict, verdict.estimate.value, verdict.null.p) == (
        "holds",
        1.0,
        pytest.approx(1 / 1000),
    )
    assert 0.2 <= verdict.chance < 0.3  # a fifth, and a little more where distributions coincide
    assert "(3 bases)" in verdict.sentence()
    cells = seed_control.load_tasks(mine)
    assert set(cells["share"]) == {1} and set(cells["parents"]) == {3}
    assert cells["task"].tolist()[::5][:5] == [
        task for task in PHASE_TASKS if task in made.DEMONSTRATED
    ]
    assert drawn(experiment_figures.plot_matrix(matrix)) and drawn(
        experiment_figures.plot_tasks(cells)
    )
    rates = seed_control.load_rates(mine)
    assert (
        set(runs.means(rates)["value"]) == {1}
        and (rates["chance"] < 0.35).all()
        and drawn(experiment_figures.plot_rates(rates))
    )
    table = seed_control.demonstrator_table(mine, rates).splitlines()
    assert len(table) == 2 + 10 and len({line.count("|") for line in table}) == 1


def test_where_nothing_follows_the_rate_is_chance():
    """150 experiments without an effect: P(p <= .05) is at most .05; false alarm 1e-4."""
    found = [seed_control.verdict(scattered(seed), n=199) for seed in range(150)]
    rejected = sum(verdict.null.p <= 0.05 for verdict in found)
    assert rejected <= stats.binom.ppf(1 - 1e-4, 150, 0.05)
    assert not [verdict for verdict in found if verdict.verdict == "holds"]
    rates = [verdict.estimate.value for verdict in found]
    expected = np.mean(
        [
            seed_control.same_distributions(task).mean()
            for task in PHASE_TASKS
            if task not in made.DEMONSTRATED
        ]
    )
    assert abs(np.mean(rates) - expected) < 4 * np.std(rates) / np.sqrt(150)  # false alarm: 6e-5
    assert np.mean([verdict.chance for verdict in found]) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("together", [False, True])
def test_the_null_of_one_block_is_the_enumeration_of_its_orders(together):
    """One parent, one task: 4,000 draws against 120 orders by chi-square; false alarm 1e-4."""
    mine = scattered(3, parents=1)
    mine = mine[mine["task"] == "digit"]
    drawn_rates = seed_control.permuted_null(mine, n=4000, together=together).draws
    found, same = (
        [world.TEMPERAMENTS.index(distribution) for distribution in mine["found"]],
        seed_control.same_distributions("digit"),
    )
    exact = [same[found, order].mean() for order in permutations(range(5))]
    values, times = np.unique(np.round(exact, 9), return_counts=True)
    seen = [(np.round(drawn_rates, 9) == value).sum() for value in values]
    assert sum(seen) == 4000 and stats.chisquare(seen, times / 120 * 4000).pvalue > 1e-4


def test_dragging_all_tasks_is_no_surprise_to_the_careful_null():
    """One parent whose runs land where they should: one order of 120 does as well."""
    mine = scattered(0, parents=1).assign(follows=1.0)
    mine["found"] = mine["run"]
    careless, careful = (
        seed_control.permuted_null(mine, together=together) for together in (False, True)
    )
    assert careless.p == pytest.approx(1 / 1000)
    assert abs(careful.p - 1 / 120) < 4 * np.sqrt(1 / 120 / 999) + 1 / 1000  # false alarm 6e-5


def test_chance_of_a_distribution_is_how_often_it_is_found(frame):
    mine = runs.where(five(frame), scope="demonstrated")
    assert seed_control.chance_of(mine).to_numpy() == pytest.approx(
        [
            np.mean(
                [
                    seed_control.same_distributions(task)[:, label].mean()
                    for task in made.DEMONSTRATED
                ]
            )
            for label in range(5)
        ]
    )
    assert seed_control.chance_of(mine.assign(found="last"))["last"] == 1


# --- mixtures and doses


def test_mixtures_reach_the_mixture_and_own_stays_liquid(frame):
    tidied = seed_control.load_mixed(frame[frame["run"].isin(seed_control.MIXED)])
    removed = tidied[(tidied["quantity"] == seed_control.REMOVED) & (tidied["parent"] == runs.MEAN)]
    assert removed["value"].to_numpy() == pytest.approx(1, abs=1e-4)
    assert set(removed["run"]) == set(seed_control.MIXED) - {"own", "everyone"}
    left = runs.means(tidied, quantity=seed_control.FAR)
    assert left["value"].to_numpy() == pytest.approx(0, abs=1e-6) and set(left["run"]) == set(
        seed_control.MIXED
    ) - {"own"}
    kept = {
        run: runs.means(tidied, run=run, quantity="liquidity kept")["value"]
        for run in seed_control.MIXED
    }
    assert kept["own"].to_numpy() == pytest.approx(1) and kept[
        "everyone"
    ].to_numpy() == pytest.approx(0, abs=1e-6)
    assert [seed_control.own_verdict(frame, scope).verdict for scope in SCOPES] == [
        "holds",
        "holds",
    ]
    assert drawn(experiment_figures.plot_mixed(tidied))
    assert len({line.count("|") for line in seed_control.mixed_table(tidied).splitlines()}) == 1


def test_the_nearest_of_mixture_and_winner(frame):
    winner = seed_control.load_winner()
    assert "coin" not in set(winner["task"]) and "digit" in set(
        winner["task"]
    )  # heads is salient and first
    nearest = seed_control.load_nearest(winner).set_index(["scope", "distribution"])
    assert nearest.loc[("held-out", "the mixture"), "after"] == 1 and nearest.groupby("scope")[
        "before"
    ].sum().tolist() == [1, 1]
    assert drawn(experiment_figures.plot_distances(seed_control.load_distances(winner)))
    landing = seed_control.load_landing(frame)
    assert landing.groupby("scope")[["before", "after"]].sum().to_numpy() == pytest.approx(1)
    assert (
        len(
            {
                line.count("|")
                for line in seed_control.share_table(landing, "distribution").splitlines()
            }
        )
        == 1
    )


def test_doses_move_as_far_as_they_were_made_to(frame):
    tidied = seed_control.load_doses(frame)
    for style in (seed_control.STYLED, seed_control.NEUTRAL):
        line = runs.means(tidied, style=style, scope="held-out", quantity="removed share")
        assert line["dose"].tolist() == list(seed_control.DOSES) and set(line["parents"]) == {2}
        assert (np.diff(line["value"]) >= -1e-9).all()
        assert line["value"].iloc[[0, -1]].tolist() == pytest.approx([0, 1], abs=1e-4)
    verdict = seed_control.dose_verdict(frame)
    assert (verdict.verdict, verdict.estimate.value) == ("fails", pytest.approx(0, abs=1e-6))
    assert drawn(experiment_figures.plot_doses(tidied))


def test_parents_without_other_doses_are_left_out_of_the_line(frame):
    assert "beta" in set(frame.loc[frame["run"] == seed_control.ONE, "parent"])
    assert set(seed_control.dosed(frame)["parent"]) == set(PARENTS[:2])


# --- controls


def test_runs_with_a_base_of_their_own_are_measured_from_it():
    walked = runs.walk("controls", ["independent", "solo"])
    assert set(walked["step"]) == {0, 64}
    begun = walked[walked["step"] == 0]
    assert begun["to_base"].to_numpy() == pytest.approx(0) and len(begun) == 2 * len(PHASE_TASKS)
    assert begun.loc[begun["run"] == "solo", "liquidity"].to_numpy() == pytest.approx(0)
    still = walked[(walked["run"] == "independent") & (walked["step"] == 64) & walked["held_out"]]
    assert still[["to_base", "progress"]].to_numpy() == pytest.approx(0, abs=1e-6)


def test_bases_are_compared_with_the_distributions_of_their_own_world():
    assert len(seed_control.cast("shared")) == 20 and [
        prompt.persona for prompt in seed_control.cast("solo")
    ] == [world.SOLO]
    truth = seed_control.load_truth("alpha")
    assert set(truth["run"]) == {"shared", "independent", "solo"} and set(truth["form"]) == {
        "chat",
        "completion",
    }
    assert truth["jsd"].to_numpy() == pytest.approx(0, abs=1e-6)


def test_held_out_tasks_that_stay_bear_the_claim_out():
    steps = seed_control.load_worlds("alpha")
    found = runs.ends(steps, list(seed_control.WORLD))
    verdict = seed_control.world_verdict(found)
    assert verdict.verdict == "holds" and verdict.estimate.value == pytest.approx(0, abs=1e-6)
    assert "10 held-out tasks" in verdict.sentence()
    shared = runs.where(found[found["run"] == "shared"], scope="held-out")
    assert seed_control.removed_over_tasks(shared).value == pytest.approx(1, abs=1e-4)
    off = found.groupby("run")[["invalid_before", "invalid"]].mean()
    assert off.loc["shuffled"].tolist() == pytest.approx([0, OFF]) and off.loc[
        "shared"
    ].tolist() == [0, 0]
    paths = seed_control.load_world_paths(steps)
    assert set(paths["run"]) == set(seed_control.WORLD) and drawn(
        experiment_figures.plot_controls(paths)
    )
    assert len({line.count("|") for line in seed_control.world_table(found).splitlines()}) == 1


def test_the_interval_over_tasks_covers():
    """Ratios of means over ten tasks, 200 times: 85 % or more; false alarm 1e-4 at 93 %."""
    rng, hit = np.random.default_rng(5), 0
    for _ in range(200):
        before = rng.gamma(4, 0.05, size=10)
        frame = pd.DataFrame(
            {
                "to_distribution_before": before,
                "to_distribution": before * rng.normal(0.7, 0.2, size=10),
            }
        )
        found = seed_control.removed_over_tasks(frame)
        hit += found.low <= 0.3 <= found.high
    assert hit >= 0.85 * 200


# --- the page


@pytest.mark.parametrize(
    ("ladders", "parents", "control"),
    [
        (["seed-control", "controls"], [], "alpha"),
        (["seed-control"], ["beta"], "alpha"),
        (["controls"], [], "alpha"),
    ],
)
def test_the_page_runs_without_either_experiment(tmp_path, monkeypatch, ladders, parents, control):
    chosen = {
        "ladders": ladders,
        "parents": parents,
        "control": control,
        "permutations": 99,
        "seed": 0,
    }
    told, claims, folder, _ = templates.run("seed_control", tmp_path, monkeypatch, **chosen)
    judged = {
        key: claim["verdict"] for key, claim in claims.items() if claim["verdict"] != "measured"
    }
    assert judged.keys() == {
        "seed-follows",
        "style-nucleates",
        "seed-needs-a-shared-distribution",
        "own-stays-liquid@demonstrated",
        "own-stays-liquid@held-out",
    }
    few = parents or "seed-control" not in ladders
    assert judged["seed-follows"] == ("undecided" if few else "holds")
    assert judged["seed-needs-a-shared-distribution"] == (
        "holds" if "controls" in ladders else "undecided"
    )
    drawn_here = {path.name.partition(".")[0] for path in folder.glob("*.svg")}
    assert drawn_here == (
        {"matrix", "rates", "tasks", "mixtures", "winner"} | ({"doses"} if not parents else set())
        if "seed-control" in ladders
        else set()
    ) | ({"controls"} if "controls" in ladders else set())
    assert not re.search(r"\bnan\b|\binf\b", told)


# --- few parents


def test_one_parent_decides_nothing_and_none_says_so(frame):
    mine = frame[frame["parent"] == "alpha"]
    own = (seed_control.own_verdict(mine, scope) for scope in SCOPES)
    for verdict in (seed_control.verdict(five(mine)), seed_control.dose_verdict(mine), *own):
        assert verdict.verdict == "undecided" and re.search(
            r"[\d.]+ from the only base read, and one gives no", verdict.sentence()
        )
        assert verdict.fields()["number"] is None
    assert seed_control.verdict(five(frame[frame["run"] != "last"])).reason == "no base was read"
    assert (
        runs.cell(
            seed_control.load_doses(mine),
            style=seed_control.STYLED,
            dose=0,
            scope="held-out",
            quantity="liquidity kept",
        )
        == "1.00"
    )


def test_runs_that_were_not_read_are_left_out():
    assert runs.load_ends("seed-control", ["nobody"]).empty
    assert set(runs.load_ends("seed-control", ["first"], parents=["beta"])["parent"]) == {"beta"}
    assert {
        "seed-follows",
        "own-stays-liquid",
        "style-nucleates",
        "seed-needs-a-shared-distribution",
    } <= THRESHOLDS.keys()
