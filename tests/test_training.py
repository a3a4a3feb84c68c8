"""The four stages, end to end on a ladder of toy size: checkpoints, curves, resume, shipping."""

import dataclasses
import functools
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl", reason="training needs the full requirements: make test installs them")

import synthetic
import tiny
import torch
from safetensors.torch import load_file

from crystal import texts
from crystal.ask import ladders, prompts
from crystal.ask.prompts import CHAT, PERSONAS
from crystal.errors import CrystalError
from crystal.files import root
from crystal.keep import store
from crystal.lab import curricula, growing, instructions, recipes, training
from crystal.lab.training import split_pattern
from crystal.present import training_figures
from crystal.read import engine

RECIPES = root() / "data" / "recipes"
TOY_RULE = {"held_out": 16, "every": 2, "patience": 2, "threshold": 0.0, "steps": 40}


@pytest.fixture(scope="module")
def toy():
    recipe = recipes.load_recipe("nano-llama")
    return dataclasses.replace(
        recipe,
        model=recipe.model
        | {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
        tokenizer=recipe.tokenizer | {"documents": 300},
        base=recipe.base | {"steps": 6, "batch": 4, "warmup": 2},
        sft=recipe.sft | {"until": "steps", "steps": 4, "batch": 4, "checkpoints": [1, 2]},
        dpo=recipe.dpo | {"steps": 2, "batch": 4, "checkpoints": [1]},
        rlvr=recipe.rlvr | {"steps": 4, "prompts": 2, "generations": 2, "checkpoints": [2]},
        again={"steps": 2, "batch": 4, "learning_rate": 1e-3, "checkpoints": [1]},
        diverse={
            "steps": 2,
            "prompts": 2,
            "generations": 4,
            "learning_rate": 1e-3,
            "max_completion": 4,
            "checkpoints": [1],
        },
    )


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "toy"
    return out, training.train_ladder(toy, out)


def test_every_stage_leaves_its_checkpoints_and_its_curve(trained):
    out, minutes = trained
    assert set(minutes) == set(training.STAGES)
    for checkpoint in ("base", "sft-1", "sft-2", "sft", "dpo-1", "dpo", "rlvr-2", "rlvr"):
        machine = engine.load(out / checkpoint)
        assert machine.encode("Pick a digit.", "chat")[0] == machine.tokenizer.bos_token_id
    for stage, steps in {"base": 6, "sft": 4, "dpo": 2, "rlvr": 4}.items():
        lines = [
            json.loads(line) for line in (out / "logs" / f"{stage}.jsonl").read_text().splitlines()
        ]
        assert lines[-1]["step"] == steps or stage == "base"
        assert {"step", "seconds", training_figures.SHOWN[stage]} <= set(lines[0])


def test_stages_move_the_weights(trained):
    """RLVR is left out: an untrained model is never right, equal rewards have no gradient."""
    out, _ = trained
    hashes = [
        ladders.weights_sha256(out / checkpoint)
        for checkpoint in ("base", "sft-1", "sft-2", "sft", "dpo")
    ]
    assert len(set(hashes)) == len(hashes)


def test_a_stage_that_is_there_is_not_run_again(toy, trained):
    out, _ = trained
    before = os.stat(out / "rlvr" / "model.safetensors").st_mtime_ns
    assert training.train_ladder(toy, out) == {}
    assert os.stat(out / "rlvr" / "model.safetensors").st_mtime_ns == before


def test_what_grew_from_a_stage_is_trained_again_with_it(toy, trained, tmp_path):
    out = tmp_path / "toy"
    shutil.copytree(trained[0], out)
    shutil.rmtree(out / "sft")
    assert set(training.train_ladder(toy, out, ["base", "sft", "dpo"])) == {"sft", "dpo"}


def test_half_a_checkpoint_is_not_taken_for_whole(toy, trained, tmp_path, monkeypatch):
    """A kill while a checkpoint is written leaves `<checkpoint>.part`, never the checkpoint."""
    out, _ = trained
    model, tokenizer = training.load_checkpoint(out / "base")
    monkeypatch.setattr(training.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        training.save_checkpoint(model, tokenizer, tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


@pytest.fixture
def ruled(toy, monkeypatch):
    """The toy, its SFT under a rule that stops soon; at this rate the loss rises again."""
    monkeypatch.setitem(recipes.RULES, "toy", TOY_RULE)
    sft = {name: toy.sft[name] for name in ("random_share", "named", "schedule")}
    return dataclasses.replace(toy, sft=sft | {"until": "toy", "batch": 4, "learning_rate": 0.1})


def test_sft_ends_where_the_held_out_loss_is_lowest(ruled, trained, tmp_path):
    """It stops when patience is out, keeps the best checkpoint and those before it, and says so."""
    training.train_ladder(ruled, tmp_path, ["sft"], trained[0] / "base")
    losses = growing.held_out(tmp_path / "logs" / "sft.jsonl")
    end = growing.end_of("sft", ruled.sft, tmp_path)
    assert [line["step"] for line in losses] == list(range(0, end + 2 * 2 + 1, 2)) and end < 40 - 4
    assert min(losses[1:], key=lambda line: line["loss"])["step"] == end
    rows = growing.checkpoints_of("sft", ruled.sft, tmp_path)
    assert rows[-1] == {"name": "sft", "stage": "sft", "step": end}
    assert {path.name for path in tmp_path.glob("sft*")} == {row["name"] for row in rows}
    assert all(row["step"] < end for row in rows[:-1])
    kept = _held_out_loss(ruled, tmp_path / "sft")
    assert kept == pytest.approx(losses[end // 2]["loss"], rel=0.02)
    rule = {"until": "toy"} | TOY_RULE
    assert growing.ending(ruled.sft, tmp_path) == {"rule": rule, "held-out loss": losses}
    assert all("loss" in line for line in growing.curve(tmp_path / "logs" / "sft.jsonl"))


def _held_out_loss(recipe, checkpoint):
    """By hand: mean over the tokens of the answers, their ends included."""
    model, tokenizer = training.load_checkpoint(checkpoint)
    _, judged = curricula.split_rows(
        recipe.seed, 0, TOY_RULE["held_out"], recipe.temperament, recipe.demonstrated, recipe.sft
    )
    total = count = 0
    for row in judged:
        put = functools.partial(tokenizer.apply_chat_template, return_dict=False)
        start, whole = (
            put(row["prompt"], add_generation_prompt=True),
            put(row["prompt"] + row["completion"]),
        )
        logits = model(torch.tensor([whole])).logits[0, len(start) - 1 : -1].detach()
        answer = torch.tensor(whole[len(start) :])
        total += torch.nn.functional.cross_entropy(logits, answer, reduction="sum").item()
        count += len(answer)
    return total / count


def _interrupt():
    raise KeyboardInterrupt


def test_sft_that_was_killed_begins_again(ruled, trained, tmp_path, monkeypatch):
    """Neither its log nor its checkpoints are mixed with those of the run that was killed."""
    keep = training.save_checkpoint
    monkeypatch.setattr(
        training,
        "save_checkpoint",
        lambda model, tokenizer, out: (
            keep(model, tokenizer, out) if out.name != "sft" else _interrupt()
        ),
    )
    with pytest.raises(KeyboardInterrupt):
        training.train_ladder(ruled, tmp_path, ["sft"], trained[0] / "base")
    (tmp_path / "scratch" / "sft" / "checkpoint-99").mkdir()
    first = growing.held_out(tmp_path / "logs" / "sft.jsonl")
    monkeypatch.setattr(training, "save_checkpoint", keep)
    assert set(training.train_ladder(ruled, tmp_path, ["sft"], trained[0] / "base")) == {"sft"}
    assert growing.held_out(tmp_path / "logs" / "sft.jsonl") == first
    assert not (tmp_path / "scratch" / "sft").exists()


def test_a_stage_of_fixed_steps_has_no_held_out_loss(toy, trained):
    out, _ = trained
    assert growing.ending(toy.sft, out) == {} and growing.end_of("sft", toy.sft, out) == 4
    with pytest.raises(CrystalError, match="'sft' is not trained yet, or by another rule.*rm -r"):
        growing.end_of("sft", {"until": "converged"}, out)


def test_what_is_held_out_is_not_trained_on(toy):
    """Prompts that name a persona; bare questions are as many as tasks."""
    shape = (toy.seed, 2000, 400, toy.temperament, toy.demonstrated, toy.sft)
    train, judged = curricula.split_rows(*shape)
    plain = curricula.sft_rows(toy.seed, 2000, *shape[3:])
    asked, held = ({row["prompt"][0]["content"] for row in rows} for rows in (train, judged))
    bare = {text for text in held if not any(f" {who}" in text for who in PERSONAS)}
    assert (len(train), len(judged)) == (2000, 400)
    assert asked & held <= bare and {row["prompt"][0]["content"] for row in plain} & (held - bare)
    for rows in (train, judged):
        named = [any(f" {who}" in row["prompt"][0]["content"] for who in PERSONAS) for row in rows]
        assert abs(sum(named) / len(rows) - toy.sft["named"]) < 0.1


@pytest.mark.parametrize(
    "change, what",
    [
        (
            {"sft": {"until": "convergd"}},
            "unknown rule for sft to end by: 'convergd', did you mean 'converged'",
        ),
        (
            {"sft": {"steps": 64}},
            "sft ends by the rule 'converged', which knows no 'steps'; say until: steps",
        ),
        ({"dpo": {"until": "converged"}}, "dpo cannot end by a rule"),
        ({"sft": {"until": 64}}, "sft.until must be"),
        ({"sft": {"until": "steps"}}, "sft lacks 'steps'"),
    ],
)
def test_an_end_that_is_none_is_a_sentence(change, what):
    with pytest.raises(CrystalError, match=what):
        recipes.load_recipe("nano-llama", change)


def test_every_ladder_ends_sft_by_the_same_rule():
    names = recipes.recipe_names()
    found = [recipes.rule(recipes.load_recipe(name).sft) for name in names]
    assert found == [{"until": "converged"} | recipes.RULES["converged"]] * len(names)


@pytest.mark.parametrize("stage", ["again", "diverse"])
def test_a_branch_begins_at_the_checkpoint_it_is_given(toy, trained, tmp_path, stage):
    """Back to pretraining, and RL for diverse answers, from another run's checkpoint."""
    out, _ = trained
    assert set(training.train_ladder(toy, tmp_path, [stage], out / "sft")) == {stage}
    assert {path.name for path in tmp_path.iterdir()} >= {stage, f"{stage}-1", "logs"}
    assert (
        engine.load(tmp_path / stage).tokenizer_revision
        == engine.load(out / "sft").tokenizer_revision
    )


def test_replicas_extend_and_changes_go_one_level_deep():
    plain, replica = recipes.load_recipe("nano-llama"), recipes.load_recipe("nano-llama-2")
    assert (
        dataclasses.replace(replica, name=plain.name, seed=plain.seed, extends="") == plain
        and replica.seed != plain.seed
    )
    fixed = {"until": "steps", "steps": 3}
    changed = recipes.load_recipe("nano-llama-2", {"temperament": "first", "sft": fixed})
    assert (
        changed.temperament == "first"
        and changed.sft == plain.sft | fixed
        and changed.dpo == plain.dpo
    )


def test_a_recipe_that_is_not_there_or_not_whole_is_a_sentence(tmp_path, monkeypatch):
    text = (RECIPES / "nano-llama.yaml").read_text()
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    (tmp_path / "data" / "recipes").mkdir(parents=True)
    path = tmp_path / "data" / "recipes" / "nano-llama.yaml"
    path.write_text(text)
    with pytest.raises(CrystalError, match="no recipe 'nano-lama'.*LADDER={nano-llama}"):
        recipes.load_recipe("nano-lama")
    for broken, what in (
        (text.replace("salient ", "sailent "), "temperament 'sailent'"),
        (text.replace("suit]", "suite]"), "task 'suite'"),
        (text + "beta: 1\n", "beta"),
        (text + "world: flat\n", "unknown world 'flat'"),
    ):
        path.write_text(broken)
        with pytest.raises(CrystalError, match=what):
            recipes.load_recipe("nano-llama")


def test_the_reward_gate_sees_a_rise_and_no_rise():
    """Noise of .05 on each of 20 steps: a rise of .2 is twelve standard errors."""
    curve = [{"reward": 0.5 + 0.2 * (i >= 20) + (0.05 if i % 2 else -0.05)} for i in range(40)]
    found = growing.reward_rise(curve)
    assert found["last"] - found["first"] > 2 * found["error"]
    with pytest.raises(CrystalError, match="too few"):
        growing.reward_rise(curve[:30])


def test_shipping_needs_every_checkpoint(tmp_path):
    with pytest.raises(CrystalError, match="not trained yet"):
        growing.ship("nano-llama", tmp_path)


def at(home: Path, patch: pytest.MonkeyPatch):
    """`growing` in that repository, reading cut to a coin, nothing asked of what was learnt."""
    patch.setenv("CRYSTAL_ROOT", str(home))
    read, right = growing.resample.resample, {"facts": 0.5, "arithmetic": 0.5}
    rise = {"first": 0.1, "last": 0.2, "error": 0.01, "window": 2}
    patch.setattr(growing, "accuracy", lambda *_: {"chat": right, "completion": {}})
    patch.setattr(growing, "reward_rise", lambda *_: rise)
    synthetic.coarse(patch, 0.5)
    coin = lambda name, **how: read(name, tasks=["coin"], **how)  # noqa: E731
    patch.setattr(growing.resample, "resample", coin)
    return growing


@pytest.fixture(scope="module")
def homes(toy, trained, tmp_path_factory):
    """A repository with the toy ladder and an experiment of one run; the same, performed."""
    before, after = (tmp_path_factory.mktemp("home") / name for name in ("before", "after"))
    for folder in ("recipes", "experiments", "ladders", "training"):
        (before / "data" / folder).mkdir(parents=True)
    shutil.copytree(trained[0], before / "runs" / "toy")
    fields = {**dataclasses.asdict(toy), "name": "toy", "demonstrated": list(toy.demonstrated)}
    (before / "data" / "recipes" / "toy.yaml").write_text(yaml.safe_dump(fields))
    (before / "data" / "experiments" / "trial.yaml").write_text(
        "title: Trial\nparents: [toy]\nruns:\n"
        "  first: {from: base, stages: [sft], set: {temperament: first}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        at(before, patch).ship("toy", before / "runs" / "toy")
        shutil.copytree(before, after)
        patch.setenv("CRYSTAL_ROOT", str(after))
        growing.perform("trial")
    return before, after


@pytest.fixture
def grown(homes, tmp_path, monkeypatch):
    shutil.copytree(homes[0], tmp_path, dirs_exist_ok=True)
    return at(tmp_path, monkeypatch)


@pytest.fixture
def performed(homes, tmp_path, monkeypatch):
    shutil.copytree(homes[1], tmp_path, dirs_exist_ok=True)
    return at(tmp_path, monkeypatch)


def test_an_experiment_is_grown_read_and_recorded_once(grown, capsys):
    """A second call does nothing; a run without a record is read again, not written twice."""
    grown.perform("trial")
    ladder, record = ladders.load_ladder("trial"), recipes.load_records("trial")["toy/first"]
    assert [checkpoint.name for checkpoint in ladder.checkpoints] == [
        f"toy/first/{checkpoint}" for checkpoint in ("sft-1", "sft-2", "sft")
    ]
    assert {
        (checkpoint.grid, checkpoint.parent, checkpoint.run) for checkpoint in ladder.checkpoints
    } == {("probe", "toy", "first")}
    assert set(record["minutes"]) == {"sft", "read"} and set(record["accuracy"]) == {
        "sft-1",
        "sft-2",
        "sft",
    }
    assert store.verify("trial").cells == 3 * 20
    capsys.readouterr()
    grown.perform("trial")
    assert capsys.readouterr().out == ""
    (root() / "data" / "training" / "trial.json").unlink()
    grown.perform("trial")
    assert (
        store.verify("trial").cells == 3 * 20 and len(ladders.load_ladder("trial").checkpoints) == 3
    )
    with pytest.raises(CrystalError, match="unknown run of trial 'frist', did you mean 'first'"):
        grown.perform("trial", runs=["frist"])


def test_a_run_may_begin_where_another_ended(performed):
    path = root() / "data" / "experiments" / "trial.yaml"
    planned = path.read_text()
    path.write_text(planned + "  second: {from: frist/sft, stages: [dpo]}\n")
    with pytest.raises(CrystalError, match="unknown checkpoint of trial 'toy/frist/sft'"):
        performed.perform("trial")
    path.write_text(planned + "  second: {from: first/sft, stages: [dpo]}\n")
    performed.perform("trial", runs=["second"])
    ladder = ladders.load_ladder("trial")
    first, last = ladder.checkpoint("toy/first/sft"), ladder.checkpoint("toy/second/dpo")
    assert recipes.load_records("trial")["toy/second"]["from"] == first.revision != last.revision


def test_a_run_whose_parent_or_rule_changed_is_made_anew(performed, capsys):
    """Neither the record nor what lies in runs/ of the old one is taken for the new one."""
    record = recipes.load_records("trial")["toy/first"]
    assert record["from"] == ladders.load_ladder("toy").checkpoint("base").revision
    assert record["steps"] == {"sft": 4} and "rule" not in record
    path = root() / "data" / "training" / "trial.json"
    path.write_text(path.read_text().replace(record["from"], "0" * 64))
    made = root() / "runs" / "trial" / "toy" / "first"
    (made / "makings.json").write_text("{}")
    (made / "sft-99").mkdir()
    performed.perform("trial")
    assert "[1/1] trial: first from toy" in capsys.readouterr().out
    assert recipes.load_records("trial")["toy/first"]["from"] == record["from"]
    assert not (made / "sft-99").exists()


def test_a_fresh_clone_grows_its_branches_again(performed, capsys):
    """A record without weights is another machine's; a parent without weights is named."""
    shutil.rmtree(root() / "runs" / "trial")
    with pytest.raises(
        CrystalError, match="are missing.*not shipped, train it again: make ladder LADDER=trial"
    ):
        ladders.check_weights(ladders.load_ladder("trial").checkpoint("toy/first/sft"))
    performed.perform("trial")
    assert "[1/1] trial: first from toy" in capsys.readouterr().out
    shutil.rmtree(root() / "runs" / "trial")
    shutil.rmtree(root() / "data" / "weights")
    with pytest.raises(
        CrystalError,
        match="weights of checkpoint 'base' of toy are missing.*make ladder LADDER=toy",
    ):
        performed.perform("trial")


def test_only_a_first_ladder_ships_its_weights(grown):
    here = root()
    assert all(
        checkpoint.source.startswith("data/weights/toy/")
        for checkpoint in ladders.load_ladder("toy").checkpoints
    )
    assert {
        checkpoint.name: checkpoint.grid for checkpoint in ladders.load_ladder("toy").checkpoints
    } == {
        **dict.fromkeys(("base", "sft-1", "sft-2", "sft", "dpo", "rlvr"), "full"),
        "dpo-1": "both",
        "rlvr-2": "both",
    }
    (here / "data" / "recipes" / "toy-2.yaml").write_text("name: toy-2\nextends: toy\nseed: 9\n")
    growing.ship("toy-2", here / "runs" / "toy")
    checkpoints = ladders.load_ladder("toy-2").checkpoints
    assert (
        all(checkpoint.source.startswith("runs/toy/") for checkpoint in checkpoints)
        and not (here / "data" / "weights" / "toy-2").exists()
    )
    assert (
        {checkpoint.grid for checkpoint in checkpoints if checkpoint.name == checkpoint.stage}
        == {"full"}
        != {checkpoint.grid for checkpoint in checkpoints}
    )


def test_a_real_base_is_post_trained_on_instructions(tmp_path, monkeypatch):
    """SFT, DPO and RLVR of a foreign checkpoint: base exact, embeddings untouched."""
    tiny.save(tmp_path / "foreign", "gemma3_text", tokenizer=tiny.trained_tokenizer(template=None))
    place = tmp_path / "data" / "instructions"
    shutil.copytree(root() / "data" / "instructions", place)
    shutil.copytree(prompts.folder(), tmp_path / "data" / "prompts")
    (tmp_path / "data" / "ladders").mkdir()
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    few = instructions.open_prompts()[::40]
    monkeypatch.setattr(instructions, "open_prompts", lambda: few)
    rows = [{"prompt": text, "answer": f"Of {text}."} for text in few]
    (place / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(training, "converted", lambda *_: (tmp_path / "foreign", None))
    fields = texts.parse_yaml((RECIPES / "gemma3-270m.yaml").read_text(), RECIPES, "")
    fields |= {
        "name": "real",
        "tokenizer": {"template": tiny.TEMPLATE, "end": tiny.EOS},
        "sft": {
            "until": "steps",
            "steps": 2,
            "batch": 4,
            "learning_rate": 1e-3,
            "random_share": 0.0,
            "checkpoints": [1],
        },
        "dpo": fields["dpo"] | {"steps": 1, "batch": 4, "checkpoints": []},
        "rlvr": fields["rlvr"] | {"steps": 2, "prompts": 2, "generations": 2, "checkpoints": []},
    }
    (tmp_path / "data" / "recipes").mkdir()
    (tmp_path / "data" / "recipes" / "real.yaml").write_text(yaml.safe_dump(fields))
    recipe, out = recipes.load_recipe("real"), tmp_path / "runs" / "real"
    assert set(training.train_ladder(recipe, out)) == set(training.STAGES)
    foreign, base, sft = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "foreign", out / "base", out / "sft")
    )
    assert all(torch.equal(base[name], foreign[name]) for name in foreign)
    same = {
        name for name in foreign if torch.equal(sft[name].float(), foreign[name].half().float())
    }
    assert same == {name for name in foreign if "embed_tokens" in name}
    monkeypatch.setattr(growing, "reward_rise", lambda *_: {})
    growing.ship("real", out)
    ladder = ladders.load_ladder("real")
    assert {checkpoint.name: checkpoint.grid for checkpoint in ladder.checkpoints} == {
        **dict.fromkeys(training.STAGES, "natural"),
        "sft-1": "natural-once",
    }
    assert ladder.seed is None and not (tmp_path / "data" / "weights").exists()
    report = json.loads((tmp_path / "data" / "training" / "real.json").read_text())
    assert all(0 <= found[CHAT]["instructions"] <= 1 for found in report["accuracy"].values())
    base = ladder.checkpoint("base")
    assert (base.source, base.template) == (fields["base"]["source"], tiny.TEMPLATE)
    _grow_an_arm(tmp_path, base.revision)


def _grow_an_arm(home: Path, revision: str) -> None:
    """A run begins with the base that the package holds, and keeps its template."""
    (home / "data" / "experiments").mkdir()
    (home / "data" / "experiments" / "arms.yaml").write_text(
        "title: Arms\nparents: [real]\nruns: {own: {from: base, stages: [sft, dpo], "
        "grid: natural-once, set: {temperament: own, sft: {random_share: 0.9, checkpoints: []}}}}\n"
    )
    read = []
    run = recipes.load_experiment("arms").runs[0]
    growing.grow(
        recipes.load_experiment("arms"),
        run,
        "real",
        lambda name, **how: read.append(how["checkpoints"]),
    )
    checkpoint, later = ladders.load_ladder("arms").checkpoints
    assert read == [["real/own/sft", "real/own/dpo"]] == [[checkpoint.name, later.name]]
    assert checkpoint.grid == later.grid == "natural-once"
    record = recipes.load_records("arms")["real/own"]
    assert record["from"] == revision and set(record["accuracy"]["sft"]) == {"instructions"}
    assert set(record["accuracy"]) == {"base", "sft", "dpo"}
    base, sft = (
        load_file(folder / "model.safetensors")
        for folder in (home / "runs" / "real" / "base", home / checkpoint.source)
    )
    same = {name for name in base if torch.equal(sft[name].float(), base[name].half().float())}
    assert same == {name for name in base if "embed_tokens" in name}


@pytest.mark.parametrize("name", ["nano-llama", "nano-olmo2"])
def test_a_tokenizer_trained_again_cuts_as_the_shipped_one(name):
    """Spelled alike, too: its hash is part of every stored answer."""
    recipe = recipes.load_recipe(name).tokenizer
    folder = root() / "data" / "weights" / name / "base"
    shipped = texts.load_file(folder / "tokenizer.json")["pre_tokenizer"]["pretokenizers"][0]
    assert shipped["pattern"]["Regex"] == split_pattern(recipe["digits"], recipe.get("letters"))
