"""The four stages, end to end on a ladder of toy size: rungs in hub layout, curves, resume, shipping."""

import dataclasses
import json
import os
import shutil

import pytest
import yaml

pytest.importorskip("trl", reason="training needs the full requirements: make test installs them")

from crystal.ask import ladders
from crystal.errors import CrystalError
from crystal.files import root
from crystal.keep import store
from crystal.lab import experiments, organism, recipes, training
from crystal.present import training_figures
from crystal.read import engine

RECIPES = root() / "data" / "recipes"


@pytest.fixture(scope="module")
def toy():
    recipe = recipes.load_recipe("nano-llama")
    return dataclasses.replace(
        recipe,
        model=recipe.model | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
                              "num_attention_heads": 2, "num_key_value_heads": 2},
        tokenizer=recipe.tokenizer | {"documents": 300}, base=recipe.base | {"steps": 6, "batch": 4, "warmup": 2},
        sft=recipe.sft | {"steps": 4, "batch": 4, "checkpoints": [1, 2]},
        dpo=recipe.dpo | {"steps": 2, "batch": 4, "checkpoints": [1]},
        rlvr=recipe.rlvr | {"steps": 4, "prompts": 2, "generations": 2, "checkpoints": [2]},
        again={"steps": 2, "batch": 4, "learning_rate": 1e-3, "checkpoints": [1]},
        diverse={"steps": 2, "prompts": 2, "generations": 4, "learning_rate": 1e-3, "max_completion": 4, "checkpoints": [1]})


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "toy"
    return out, training.train_ladder(toy, out)


def test_every_stage_leaves_its_rungs_and_its_curve(trained):
    out, minutes = trained
    assert set(minutes) == set(training.STAGES)
    for rung in ("base", "sft-1", "sft-2", "sft", "dpo-1", "dpo", "rlvr-2", "rlvr"):
        machine = engine.load(out / rung)
        assert machine.encode("Pick a digit.", "chat")[0] == machine.tokenizer.bos_token_id
    for stage, steps in {"base": 6, "sft": 4, "dpo": 2, "rlvr": 4}.items():
        lines = [json.loads(line) for line in (out / "logs" / f"{stage}.jsonl").read_text().splitlines()]
        assert lines[-1]["step"] == steps or stage == "base"
        assert {"step", "seconds", training_figures.SHOWN[stage]} <= set(lines[0])


def test_stages_move_the_weights(trained):
    """RLVR is left out: an untrained model is never right, equal rewards have no gradient."""
    out, _ = trained
    hashes = [ladders.weights_sha256(out / rung) for rung in ("base", "sft-1", "sft-2", "sft", "dpo")]
    assert len(set(hashes)) == len(hashes)


def test_a_stage_that_is_there_is_not_run_again(toy, trained):
    out, _ = trained
    before = os.stat(out / "rlvr" / "model.safetensors").st_mtime_ns
    assert training.train_ladder(toy, out) == {}
    assert os.stat(out / "rlvr" / "model.safetensors").st_mtime_ns == before


def test_half_a_rung_is_not_taken_for_whole(toy, trained, tmp_path, monkeypatch):
    """A kill while a rung is written leaves `<rung>.part`, never the rung."""
    out, _ = trained
    model, tokenizer = training.load_rung(out / "base")
    monkeypatch.setattr(training.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        training.save_rung(model, tokenizer, tmp_path / "rung")
    assert not (tmp_path / "rung").exists()


@pytest.mark.parametrize("stage", ["again", "diverse"])
def test_a_branch_begins_at_the_rung_it_is_given(toy, trained, tmp_path, stage):
    """Back to pretraining, and RL for diverse answers, from another run's rung."""
    out, _ = trained
    assert set(training.train_ladder(toy, tmp_path, [stage], out / "sft")) == {stage}
    assert {path.name for path in tmp_path.iterdir()} >= {stage, f"{stage}-1", "logs"}
    assert engine.load(tmp_path / stage).tokenizer_revision == engine.load(out / "sft").tokenizer_revision


def test_replicas_extend_and_changes_go_one_level_deep():
    plain, replica = recipes.load_recipe("nano-llama"), recipes.load_recipe("nano-llama-2")
    assert dataclasses.replace(replica, name=plain.name, seed=plain.seed, extends="") == plain and replica.seed != plain.seed
    changed = recipes.load_recipe("nano-llama-2", {"temperament": "first", "sft": {"steps": 3}})
    assert changed.temperament == "first" and changed.sft == plain.sft | {"steps": 3} and changed.dpo == plain.dpo


def test_a_recipe_that_is_not_there_or_not_whole_is_a_sentence(tmp_path, monkeypatch):
    text = (RECIPES / "nano-llama.yaml").read_text()
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    (tmp_path / "data" / "recipes").mkdir(parents=True)
    path = tmp_path / "data" / "recipes" / "nano-llama.yaml"
    path.write_text(text)
    with pytest.raises(CrystalError, match="no recipe 'nano-lama'.*LADDER={nano-llama}"):
        recipes.load_recipe("nano-lama")
    for broken, what in ((text.replace("salient ", "sailent "), "temperament 'sailent'"),
                         (text.replace("suit]", "suite]"), "task 'suite'"), (text + "beta: 1\n", "beta"),
                         (text + "world: flat\n", "unknown world 'flat'")):
        path.write_text(broken)
        with pytest.raises(CrystalError, match=what):
            recipes.load_recipe("nano-llama")


def test_the_reward_gate_sees_a_rise_and_no_rise():
    """Noise of .05 on each of 20 steps: a rise of .2 is twelve standard errors."""
    curve = [{"reward": 0.5 + 0.2 * (i >= 20) + (0.05 if i % 2 else -0.05)} for i in range(40)]
    found = organism.reward_rise(curve)
    assert found["last"] - found["first"] > 2 * found["error"]
    with pytest.raises(CrystalError, match="too few"):
        organism.reward_rise(curve[:30])


def test_shipping_needs_every_rung(tmp_path):
    with pytest.raises(CrystalError, match="not trained yet"):
        organism.ship("nano-llama", tmp_path)


@pytest.fixture
def grown(toy, trained, tmp_path, monkeypatch):
    """A repository with the toy ladder in it, an experiment of one run, and reading cut down to a coin."""
    from crystal.lab import growing

    out, _ = trained
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    for folder in ("recipes", "experiments", "ladders", "training"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    shutil.copytree(out, tmp_path / "runs" / "toy")
    fields = {**dataclasses.asdict(toy), "name": "toy", "demonstrated": list(toy.demonstrated)}
    (tmp_path / "data" / "recipes" / "toy.yaml").write_text(yaml.safe_dump(fields))
    (tmp_path / "data" / "experiments" / "trial.yaml").write_text(
        "title: Trial\nparents: [toy]\nruns: {first: {from: base, stages: [sft], set: {temperament: first}}}\n")
    read = growing.resample.resample
    monkeypatch.setattr(growing.organism, "accuracy", lambda *_: {"chat": {"facts": 0.5, "arithmetic": 0.5}, "completion": {}})
    monkeypatch.setattr(growing.organism, "reward_rise", lambda *_: {"first": 0.1, "last": 0.2, "error": 0.01, "window": 2})
    monkeypatch.setattr(growing.resample, "resample", lambda name, **how: read(name, tasks=["coin"], budget=0.5, **how))
    organism.ship("toy", tmp_path / "runs" / "toy")
    return growing


def test_an_experiment_is_grown_read_and_recorded_once(grown, capsys):
    """Whole: rungs, cells, record. A second call does nothing; a run whose record was lost is read again, not written twice."""
    grown.perform("trial")
    ladder, record = ladders.load_ladder("trial"), experiments.load_records("trial")["toy/first"]
    assert [rung.name for rung in ladder.rungs] == [f"toy/first/{rung}" for rung in ("sft-1", "sft-2", "sft")]
    assert {(rung.grid, rung.parent, rung.run) for rung in ladder.rungs} == {("probe", "toy", "first")}
    assert set(record["minutes"]) == {"sft", "read"} and set(record["accuracy"]) == {"sft-1", "sft-2", "sft"}
    assert store.verify("trial").cells == 3 * 20
    capsys.readouterr()
    grown.perform("trial")
    assert capsys.readouterr().out == ""
    (root() / "data" / "training" / "trial.json").unlink()
    grown.perform("trial")
    assert store.verify("trial").cells == 3 * 20 and len(ladders.load_ladder("trial").rungs) == 3
    with pytest.raises(CrystalError, match="unknown run of trial 'frist', did you mean 'first'"):
        grown.perform("trial", runs=["frist"])


def test_a_fresh_clone_grows_its_branches_again(grown, capsys):
    """A record without weights is another machine's; a parent without weights is named with the command that trains it."""
    grown.perform("trial")
    capsys.readouterr()
    shutil.rmtree(root() / "runs" / "trial")
    with pytest.raises(CrystalError, match="are missing.*not shipped, train it again: make ladder LADDER=trial"):
        ladders.check_weights(ladders.load_ladder("trial").rung("toy/first/sft"))
    grown.perform("trial")
    assert "[1/1] trial: first from toy" in capsys.readouterr().out
    shutil.rmtree(root() / "runs" / "trial")
    shutil.rmtree(root() / "data" / "weights")
    with pytest.raises(CrystalError, match="weights of rung 'base' of toy are missing.*make ladder LADDER=toy"):
        grown.perform("trial")


def test_only_a_first_ladder_ships_its_weights(grown):
    here = root()
    assert all(rung.source.startswith("data/weights/toy/") for rung in ladders.load_ladder("toy").rungs)
    assert {rung.name: rung.grid for rung in ladders.load_ladder("toy").rungs} == {
        **dict.fromkeys(("base", "sft-1", "sft-2", "sft", "dpo", "rlvr"), "full"), "dpo-1": "both", "rlvr-2": "both"}
    (here / "data" / "recipes" / "toy-2.yaml").write_text("name: toy-2\nextends: toy\nseed: 9\n")
    organism.ship("toy-2", here / "runs" / "toy")
    rungs = ladders.load_ladder("toy-2").rungs
    assert all(rung.source.startswith("runs/toy/") for rung in rungs) and not (here / "data" / "weights" / "toy-2").exists()
    assert {rung.grid for rung in rungs if rung.name == rung.stage} == {"full"} != {rung.grid for rung in rungs}
