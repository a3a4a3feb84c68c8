"""The simulation itself: ladders are what they are said to be, trials are repeatable, and what is
kept is of today's claims.
"""

from __future__ import annotations

import ast
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from crystal.ask.tasks import TASKS
from crystal.errors import CrystalError
from crystal.lab import recipes, world
from crystal.measure import claims, synthetic, validation
from crystal.measure import evidence as ev
from crystal.measure import quantities as ph
from crystal.measure.claims import THRESHOLDS
from crystal.measure.synthetic import SCENARIOS, Design, Panel
from crystal.present import validation_figures
from crystal.studies import judged

SMALL = Design(6, 12, 2)
CAST = Design(6, 20, 2, balanced=True)


@pytest.fixture(autouse=True)
def fresh():
    """Marks and sources may be changed by a test; what was read of them is forgotten."""
    validation.source_sha256.cache_clear()
    yield
    validation.source_sha256.cache_clear()


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("options", [2, 10])
def test_scenarios_are_what_their_names_say(scenario, options):
    stages = synthetic.population(scenario, options)
    for distributions in stages.values():
        assert distributions.shape == (synthetic.POPULATION, 5, options)
        assert distributions.sum(-1) == pytest.approx(1) and (distributions >= 0).all()
    whole = synthetic.whole(stages)
    kept = float(ph.compression(whole.sft.distribution, whole.base.distribution))
    if scenario in ("liquid kept", "sharpened"):
        assert kept > 0.9
    else:
        assert kept < 0.5
    nearest = ph.mse(whole.base.distribution, whole.sft.distribution.mean(0)).min() * options
    if scenario == "frozen onto one of the base":
        assert nearest < 0.01
    if scenario == "frozen onto one it lacks" and options == 10:
        assert nearest > 0.05
    back = float(ph.compression(whole.final.distribution, whole.base.distribution))
    assert (back > 0.9) == (scenario in ("re-melted", "liquid kept", "sharpened"))


def test_a_sample_is_of_whole_units_and_drawn_as_asked():
    stages = synthetic.population("frozen with leak", 6, templates=2)
    read = synthetic.sample(stages, SMALL, np.random.default_rng(1))
    checkpoints = read.base, read.sft, read.final, read.truth
    assert all(len(found.distribution) == 24 and found.exact for found in checkpoints)
    assert (np.bincount(read.base.clusters) == 2).all() and read.base.half[0] == ev.SELECTION
    drawn = synthetic.sample(stages, dataclasses.replace(SMALL, draws=50), np.random.default_rng(1))
    assert drawn.base.distribution * 50 == pytest.approx(np.round(drawn.base.distribution * 50))
    assert (drawn.truth.distribution == read.base.distribution).all() and drawn.seed == read.seed


def test_a_balanced_cast_has_as_many_of_each_voice_in_a_half():
    stages = synthetic.population("frozen with leak", 6, templates=2)
    units = synthetic.chosen(synthetic.POPULATION, CAST, np.random.default_rng(2))
    assert len(set(units)) == 20 and (np.bincount(units % synthetic.VOICES) == 4).all()
    cast = synthetic.sample(stages, CAST, np.random.default_rng(2))
    first = cast.base.strata[cast.base.half == ev.SELECTION]
    assert (np.bincount(first) == 4).all()  # two units of two prompts
    assert cast.base.strata[cast.base.clusters == cast.seed][0] == 0  # the voice that SFT goes to
    assert synthetic.sample(stages, SMALL, np.random.default_rng(2)).base.strata is None


def test_strata_shorten_the_interval_of_a_balanced_cast():
    """Between voices lies most of the scatter, and as many of each voice were taken."""
    found = synthetic.sample(
        synthetic.population("liquid kept", 6, templates=2), CAST, np.random.default_rng(3)
    )
    apart = dataclasses.replace(found.base, strata=None)
    one, two = (claims.liquid(x, permutations=19).estimate for x in (found.base, apart))
    assert one.high / one.low < two.high / two.low


def tried(name: str, claim: str, n: int) -> list[tuple]:
    ladders = validation.ladders("scenario", name, SMALL, 0, n)
    return [validation.one_trial(claim, *ladder, permutations=19) for ladder in ladders]


def test_a_trial_is_the_same_whatever_their_number():
    for claim in validation.JUDGED:
        two, one = (tried("frozen onto one of the base", claim, n) for n in (2, 1))
        assert two[0] == one[0] or np.isnan(two[0][0].estimate.value)


@pytest.mark.parametrize("claim", validation.JUDGED)
def test_ladders_at_the_mark_are_there(claim):
    for trial in range(3):
        made = validation.at_threshold(claim, Design(10, 20, 2, balanced=True), 0, trial)
        if made:
            stages, found = made
            truth = validation.TRUE[claim](synthetic.whole(stages), found, trial)
            assert truth == pytest.approx(THRESHOLDS[claim].value, rel=validation.NEAR)
            break
    else:
        pytest.fail("none of three trials reached the threshold")


def test_counts_of_trials_add_up():
    counts = validation.summarised(tried("liquid kept", "collapse", 6))
    assert counts["n"] == 6 == counts["interval"]
    assert counts["covered"] + counts["below"] + counts["above"] == 6
    assert counts["not_true"] == 6 and counts["not_false"] == 0 and counts["false_fails"] == 0
    assert validation.summarised([])["n"] == 0


def test_at_its_mark_a_verdict_is_wrong_either_way():
    """And one wrong verdict is counted as such."""
    (found,) = validation.row("at threshold", "little-promoted", SMALL, 16, permutations=19)
    assert found["n"] <= 16
    assert found["not_true"] == found["not_false"] == found["n"]
    assert found["false_holds"] == found["holds"] and found["false_fails"] == found["fails"]


# --- what is kept

TINY = Panel(tasks=3, contexts=6)


def test_rows_are_made_once_and_again_when_the_claims_change(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    steps = [
        ("scenario", "sharpened", SMALL, 8),
        ("at threshold", "collapse", CAST, 8),
        ("joint", synthetic.FROZEN, TINY, 3),
    ]
    monkeypatch.setattr(validation, "plan", lambda: steps)
    for load in (validation.load_trials, validation.load_joint):
        with pytest.raises(CrystalError, match="nothing was simulated yet"):
            load()
    assert validation.validate(1, lambda line: None) == 3
    assert validation.validate(1, lambda line: None) == 0
    frame, ladders = validation.load_trials(), validation.load_joint()
    assert len(frame) == len(validation.JUDGED) + 1 and frame["current"].all()
    assert (frame["draws"] == np.inf).all() and list(ladders["n"]) == [3]
    path = tmp_path / validation.TRIALS
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    other = [row | ({"source": "other"} if row["kind"] == "at threshold" else {}) for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in other))
    assert not validation.load_trials()["current"].all()
    assert validation.validate(1, lambda line: None) == 1
    assert validation.load_trials()["current"].all()


def test_the_source_is_called_code_and_thresholds_without_words(monkeypatch):
    def sources():
        validation.source_sha256.cache_clear()
        return [validation.source_sha256(file) for file in validation.ENTRY]

    before = sources()
    monkeypatch.setitem(
        THRESHOLDS, "collapse", dataclasses.replace(THRESHOLDS["collapse"], why="else")
    )
    assert sources() == before
    monkeypatch.setitem(
        THRESHOLDS, "collapse", dataclasses.replace(THRESHOLDS["collapse"], value=0.4)
    )
    after = sources()
    assert after[0] != before[0] and after[1] == before[1]
    nodes = validation._nodes

    def more(module):
        yield from nodes(module)
        if module == "quantities":
            yield "called_by_nobody", ast.parse("called_by_nobody = 1").body[0]

    monkeypatch.setattr(validation, "_nodes", more)
    assert sources() == after


def test_the_shipped_trials_are_of_todays_claims_and_whole():
    files = [validation._loaded(file) for file in validation.ENTRY]
    for found in files:
        assert found["current"].all(), "the claims changed since: make verify CLAIMS=1"
    have = {validation._key(row) for found in files for row in found.to_dict("records")}
    wanted = {
        validation._key({"kind": kind, "name": name} | vars(design))
        for kind, name, design, _ in validation.plan()
    }
    assert wanted == have


def test_shipped_rates_are_found_again_by_fresh_trials():
    """Sixteen fresh trials of one shipped row: the power of collapse on a frozen ladder.

    False alarm: at least 12 of 16 hold if 95 % do: 0.9998; none may hold on a ladder that stayed
    liquid.
    """
    design = Design(10, 20)
    name = "frozen onto one of the base"
    frozen = validation.row("scenario", name, design, 16, permutations=99)
    assert next(row for row in frozen if row["claim"] == "collapse")["holds"] >= 12
    liquid = validation.row("scenario", "liquid kept", design, 16, permutations=99)
    assert next(row for row in liquid if row["claim"] == "collapse")["holds"] == 0
    trials = validation_figures.ours(validation.load_trials(), "scenario")
    kept = trials.set_index(["name", "options", "cast", "claim"])["power"].sort_index()
    assert kept["frozen onto one of the base", 10, "at random", "collapse"] > 0.9
    assert kept["liquid kept", 10, "at random", "collapse"] < 0.01


def test_thresholds_of_the_joint_test_follow_from_their_ladders():
    """The registered rule: the threshold taken makes few false alarms and keeps its power."""
    thresholds = validation_figures.load_thresholds(validation.load_joint())
    taken = thresholds[thresholds["taken"]].set_index("claim")
    assert list(taken.index) == ["one-seed", "unmixed"]
    assert (taken["false alarms"] <= validation_figures.ALLOWED).all()
    assert (taken["power"] >= validation_figures.POWER).all()


# --- readings, organisms and figures


def test_readings_by_hand():
    base, sft = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    found = synthetic.of_distributions(base, sft, np.array([[0.0, 1.0], [0.0, 1.0]]))
    names = (*synthetic.DISTANCES, synthetic.INFORMATION)
    assert all(found["compression", name] == 0 for name in names)
    assert found["seed", "MSE"] == found["seed", "TV"] == found["seed", "JSD"] == 0
    assert found["stage", "MSE"] == pytest.approx(4) and found["stage", "TV"] == pytest.approx(2)


def test_the_joint_test_names_the_demonstrator_or_none(monkeypatch):
    """Shipped read-outs of a run with a demonstrator and one without, by base: no chance in it."""
    monkeypatch.setattr(judged, "JOINT_RUNS", {"salient": judged.ONE, "everyone": judged.NONE})
    found = judged.load_named(permutations=99).set_index(["run", "parent"])
    one, none = found.loc["salient"], found.loc["everyone"]
    assert sorted(one["fresh"]) == [False, False, True, True]
    assert sorted(none["fresh"]) == [False] * 2 + [True] * 8
    assert (one["one-seed"] == "holds").all() and (one["named"] == 1).all()
    assert (none["one-seed"] != "holds").all() and none["named"].isna().all()
    assert validation_figures.plot_named(found.reset_index()).axes


def test_false_alarms_are_counted_where_the_test_is_asked():
    """As registered, and the runs before as they were; a run that cannot be asked raises none."""
    rows = [("own", "fourth", "holds"), ("own", "third", "fails"), ("shuffled", "other", "holds")]
    rows += [("shuffled-unstyled", "third", "holds"), ("shuffled", "third", "not-testable")]
    rows += [("permuted", "other", "undecided"), ("own", "", "holds")]
    rows += [("shuffled-permuted", "fourth", one) for one in ("fails", "not-testable")]
    named = pd.DataFrame(rows, columns=["run", "since", "one-seed"])
    named = named.assign(sort=judged.NONE, fresh=named["since"] != "")
    assert list(judged.alarms(named).values()) == [(1, 2), (1, 4), (2, 4), (1, 3)]


def test_dealt_answers_keep_the_distribution_of_who_gave_them():
    """Exactly, where no other task has a task's options; else as far as pooled by hand."""
    found = judged.dealt("salient", ("suit", "die", "ten"), ["averse", "salient"])
    die, ten = (world.distribution("salient", TASKS[task]) for task in ("die", "ten"))
    pooled = die + ten[:6]  # of one to ten, one to six are options of a die
    assert found["suit"] < 1e-12
    assert found["die"] == pytest.approx(abs(pooled / pooled.sum() - die).sum() / 2)


def test_a_dealt_control_shows_no_persona_on_most_tasks():
    """What makes it a run with nobody, as registered; the other two deals are none."""
    tasks = recipes.load_recipe("nano-llama").demonstrated
    for run, distribution in judged.DEALT.items():
        far = judged.dealt(distribution, tasks, world.TEMPERAMENTS)
        near = sum(apart < 0.1 for apart in far.values())
        assert (near < len(tasks) / 2) == (run in judged.NOBODY), run


def test_figures_draw_what_is_shipped(tmp_path):
    trials, ladders = validation.load_trials(), validation.load_joint()
    for number, fig in enumerate(
        (
            validation_figures.plot_coverage(validation_figures.load_coverage(trials)),
            validation_figures.plot_alarms(validation_figures.load_alarms(trials)),
            validation_figures.plot_smallest(validation_figures.smallest(trials)),
            validation_figures.plot_readings(
                validation_figures.readings_of(validation.load_readings(), [10, 2])
            ),
            validation_figures.plot_scenarios(validation_figures.load_scenarios(ladders)),
        )
    ):
        fig.savefig(tmp_path / f"{number}.svg")
    fewest = validation_figures.smallest(trials).set_index(["claim", "options", "draws"])[
        "contexts"
    ]
    assert fewest["little-promoted", 10, np.inf] <= 20
    designs = validation_figures.load_designs(ladders)
    assert designs["varied"].iloc[0] == "main" and len(designs) == 1 + len(validation.PANELS)
