"""Experiments as numbers: on a small tree whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic
import yaml
from scipy import stats

from crystal.ask.prompts import CHAT, PROBE, PROMPTS
from crystal.ask.tasks import PHASE_TASKS
from crystal.errors import CrystalError
from crystal.keep import store
from crystal.lab import world
from crystal.lab.recipes import load_experiment, load_records
from crystal.studies import kinetics, runs

PARENTS = ("toy", "toy-2", "other")
STEPS = (1, 2, 4, 8, 16, 32, 64)
PLACES = [PROMPTS.index(prompt) for prompt in PROBE]
HALF = 12.0  # the distribution's share grows as 1 - 2^(-step / HALF)


def base_distributions(task: str) -> np.ndarray:
    """Every persona's ground truth, (100, options)."""
    return np.stack(
        [synthetic.distribution(world.temperament_of(p.persona), task) for p in PROMPTS]
    )


def frozen(task: str, share: float, distribution: str = "salient") -> np.ndarray:
    return (1 - share) * base_distributions(task) + share * synthetic.distribution(
        distribution, task
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Parents that are their own truth; SFT runs in which the salient distribution takes over at a
    pace.
    """
    root, patch = tmp_path_factory.mktemp("tree"), pytest.MonkeyPatch()
    patch.setenv("CRYSTAL_ROOT", str(root))
    fields = {"seed": "salient", "demonstrated": ["die", "ten", "letter", "month", "suit"]}
    shares = {"base": 0.0, "sft": 0.9, "dpo": 0.95, "rlvr": 0.95}
    for parent in PARENTS:
        distributions = {
            checkpoint: {task: frozen(task, share) for task in PHASE_TASKS}
            for checkpoint, share in shares.items()
        }
        synthetic.write_ladder(
            root, parent, distributions, other={"base": distributions["base"]}, **fields
        )
        _write(root / "data" / "recipes" / f"{parent}.yaml", RECIPE | {"name": parent})
    pace = {"usual": 1.0, "fast": 3.0, "slow": 1 / 3}
    _write(
        root / "data" / "experiments" / "pace.yaml",
        {
            "title": "Pace",
            "parents": list(PARENTS),
            "runs": {
                run: {
                    "from": "base",
                    "stages": ["sft"],
                    "set": {"sft": {"learning_rate": 1e-4 * speed}},
                }
                for run, speed in pace.items()
            },
        },
    )
    checkpoints, records = [], {}
    for parent in PARENTS:
        for run, speed in pace.items():
            for step in STEPS:
                checkpoint = synthetic._checkpoint(parent, f"sft-{step}") | {
                    "name": f"{parent}/{run}/sft-{step}",
                    "grid": "probe",
                    "parent": parent,
                    "run": run,
                }
                checkpoint["revision"] = synthetic.hashlib.sha256(
                    checkpoint["name"].encode()
                ).hexdigest()
                share = 1 - 2 ** (-speed * step / HALF)
                distributions = {task: frozen(task, share)[PLACES] for task in PHASE_TASKS}
                rows = synthetic.rows(checkpoint, CHAT, distributions, prompts=PROBE)
                store.append("pace", rows, synthetic.PROVENANCE)
                checkpoints.append(checkpoint)
            records[f"{parent}/{run}"] = {
                "minutes": {"sft": 1.0, "read": 0.5},
                "accuracy": {f"sft-{step}": {"facts": 0.8, "arithmetic": 0.5} for step in STEPS},
            }
    _write(
        root / "data" / "ladders" / "pace.yaml",
        {
            "name": "pace",
            "title": "Pace",
            "dtype": "float32",
            "kind": "branches",
            **fields,
            "checkpoints": checkpoints,
        },
    )
    (root / "data" / "training").mkdir()
    (root / "data" / "training" / "pace.json").write_text(
        json.dumps({"experiment": "pace", "runs": records})
    )
    yield root
    patch.undo()


RECIPE = {
    "architecture": "llama",
    "seed": 1,
    "temperament": "salient",
    "demonstrated": ["die", "ten", "letter", "month", "suit"],
    "tokenizer": {},
    "model": {},
    "base": {},
    "sft": {"learning_rate": 1e-4, "steps": 16},
    "dpo": {},
    "rlvr": {},
}


def _write(path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture(scope="module")
def walk(tree):
    return runs.walk("pace")


def test_a_walk_holds_every_step_from_the_start(walk):
    assert set(walk["step"]) == {0, *STEPS} and set(walk["parent"]) == set(PARENTS)
    assert set(walk["run"]) == {"usual", "fast", "slow"}
    assert len(walk) == len(PARENTS) * 3 * (len(STEPS) + 1) * len(PHASE_TASKS)
    start = walk[walk["step"] == 0]
    assert (start["to_base"] == 0).all() and (start["progress"] == 0).all()
    assert set(walk[walk["held_out"]]["task"]).isdisjoint(["die", "ten", "letter", "month", "suit"])
    assert set(runs.accuracy("pace")["checkpoint"]) == {
        checkpoint for checkpoint in walk["checkpoint"] if "/" in checkpoint
    }


def test_progress_is_the_share_of_the_way(walk):
    walk = walk[walk["run"] == "usual"]
    np.testing.assert_allclose(walk["progress"], 1 - 2 ** (-walk["step"] / HALF), atol=1e-5)
    np.testing.assert_allclose(walk["fluctuation"], 0, atol=1e-8)
    last = walk[walk["step"] == STEPS[-1]]
    assert (
        last["follows"].all()
        and (last["to_distribution"] < 0.01).all()
        and (last["found"][last["task"] == "rank"] == "salient").all()
    )


def test_another_intended_distribution_is_not_reached(tree):
    walk = runs.walk("pace", ["usual"], intended="last")
    assert walk["run"].unique().tolist() == ["usual"]
    assert not walk[(walk["step"] == STEPS[-1]) & (walk["task"] == "letter")]["follows"].any()


def test_the_claims_of_kinetics_on_a_known_pace(walk):
    """Demonstrated and held-out tasks move at one pace, rates scale exactly, nothing recedes."""
    assert (
        kinetics.steps_times_rate(kinetics.load_rates(walk, "pace")).value < 1.15
    )  # watched at few steps
    lives = kinetics.half_lives(walk, "held out")
    assert lives.between(2, 12).all()
    receding = kinetics.held_out_recedes(walk)
    assert receding.value == pytest.approx(1)
    first = kinetics.demonstrated_first(walk)
    assert first.estimate.value == pytest.approx(1, abs=0.2)
    settling = kinetics.load_settling(runs.along(PARENTS), walk[walk["run"] == "usual"])
    assert set(settling["run"]) == {"dpo, favouring", "dpo, opposing", "rlvr"}
    assert (
        kinetics.reward_decides(settling).verdict == "fails"
    )  # both end on the salient distribution
    swing = kinetics.load_fluctuations(walk)
    assert (swing["personas"] < 1e-8).all() and (swing["parents"] < 1e-8).all()


def test_half_life():
    assert kinetics.half_life([0, 1, 2, 4], np.array([1.0, 0.9, 0.7, 0.3])) == pytest.approx(3)
    assert kinetics.half_life([0, 1], np.array([2.0, 1.0])) == 1
    assert np.isnan(kinetics.half_life([0, 1, 2], np.array([1.0, 0.9, 0.6])))


def test_intervals_over_parents_cover():
    """Six normal values, 2,000 times: binomial, false alarm probability 1e-4."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        found = runs.over_parents(rng.normal(3, 1, 6))
        hits += found.low <= 3 <= found.high
        assert (
            found.p_beyond(found.low - 1e-6, "above")
            <= 0.0505
            <= found.p_beyond(found.low + 0.05, "above") + 0.05
        )
    assert stats.binomtest(hits, 2000, 0.95).pvalue > 1e-4
    with pytest.raises(CrystalError, match="1 base gives no interval"):
        runs.over_parents([1.0])


def test_families():
    assert [
        runs.family(name) for name in ("nano-llama", "nano-llama-2", "nano-olmo2", "nano-olmo2-3")
    ] == ["nano-llama", "nano-llama", "nano-olmo2", "nano-olmo2"]


def test_bad_input(tree):
    with pytest.raises(CrystalError, match="unknown experiment 'pase', did you mean 'pace'"):
        runs.walk("pase")
    with pytest.raises(CrystalError, match="unknown run of pace 'fastest'"):
        runs.walk("pace", ["fastest"])
    path = tree / "data" / "experiments" / "bad.yaml"
    told = (
        ("stages: [sfd]", "unknown stage 'sfd'"),
        ("grid: wide", "unknown grid 'wide'"),
        ("colour: red", "colour"),
    )
    for row, words in (("", "not an experiment"), *told):
        path.write_text(f"title: x\nparents: [toy]\nruns: {{a: {{{row}}}}}" if row else "title: x")
        with pytest.raises(CrystalError, match=words):
            load_experiment("bad")
    path.write_text("title: x\nparents: [toy]\nruns: {a: {stages: [sft], from: base}}")
    assert load_records("bad") == {}
    described = (tree / "data" / "ladders" / "pace.yaml").read_text()
    (tree / "data" / "ladders" / "bad.yaml").write_text(
        described.replace("name: pace", "name: bad")
    )
    with pytest.raises(
        CrystalError, match="no run of experiment 'bad' has been read.*make ladder LADDER=bad"
    ):
        runs.walk("bad")
    for leftover in (path, tree / "data" / "ladders" / "bad.yaml"):
        leftover.unlink()
