"""Ladder descriptions: what is read, and the sentence for each way to get one wrong."""

import copy
import json

import pytest
import yaml

from crystal.ask import ladders
from crystal.errors import CrystalError
from crystal.files import file_sha256, root

CHECKPOINTS = [
    {
        "name": name,
        "stage": stage,
        "step": step,
        "source": f"data/weights/toy/{name}",
        "revision": digit * 64,
    }
    for name, stage, step, digit in [
        ("base", "base", 0, "a"),
        ("sft-1", "sft", 1, "b"),
        ("sft", "sft", 64, "c"),
        ("dpo", "dpo", 60, "d"),
        ("rlvr", "rlvr", 60, "e"),
    ]
]
TOY = {
    "name": "toy",
    "title": "Toy",
    "seed": "salient",
    "demonstrated": ["die", "ten"],
    "dtype": "float32",
    "checkpoints": CHECKPOINTS,
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a description of `toy` under a root of its own."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    path = tmp_path / "data" / "ladders" / "toy.yaml"
    path.parent.mkdir(parents=True)
    return lambda raw: path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))


def test_reads_what_is_written(write):
    write(TOY)
    toy = ladders.load_ladder("toy")
    assert ladders.ladder_names() == ["toy"]
    assert (toy.title, toy.seed, toy.demonstrated, toy.dtype) == (
        "Toy",
        "salient",
        ("die", "ten"),
        "float32",
    )
    assert [checkpoint.name for checkpoint in toy.checkpoints] == [
        "base",
        "sft-1",
        "sft",
        "dpo",
        "rlvr",
    ]
    assert [checkpoint.name for checkpoint in toy.ends] == ["base", "sft", "dpo", "rlvr"]
    assert [checkpoint.native_form for checkpoint in toy.checkpoints] == ["completion"] + [
        "chat"
    ] * 4
    assert toy.checkpoint("sft-1").location == root() / "data/weights/toy/sft-1"
    with pytest.raises(
        CrystalError,
        match="unknown checkpoint of toy 'sft-2', did you mean 'sft-1'.*choose one of: base, sft-1",
    ):
        toy.checkpoint("sft-2")


def test_a_description_in_the_old_words_is_read(write):
    write(TOY)
    toy = ladders.load_ladder("toy")
    write({"rungs" if name == "checkpoints" else name: value for name, value in TOY.items()})
    assert ladders.load_ladder("toy") == toy


def test_hub_ladder_needs_neither_seed_nor_folder(write):
    raw = {key: value for key, value in TOY.items() if key not in ("seed", "demonstrated")}
    raw["checkpoints"] = [
        checkpoint | {"source": "someone/model", "revision": checkpoint["revision"][:40]}
        for checkpoint in CHECKPOINTS
    ]
    write(raw)
    toy = ladders.load_ladder("toy")
    assert (
        toy.seed is None
        and toy.demonstrated == ()
        and not toy.checkpoints[0].local
        and toy.checkpoints[0].location == "someone/model"
    )
    ladders.check_weights(toy.checkpoints[0])
    assert ladders.config_sha256(toy.checkpoints[0]) == ""


def change(path, value):
    """TOY with the field at `path` set to `value`, or dropped where it is None."""
    raw = copy.deepcopy(TOY)
    holder = raw
    for step in path[:-1]:
        holder = holder[step]
    if value is None:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (["title"], None, "the ladder lacks the field 'title'"),
        (["checkpoints", 1, "step"], None, "checkpoint 2 lacks the field 'step'"),
        (["tilte"], "Toy", "the ladder has an unknown field 'tilte'; the fields are name, title"),
        (["checkpoints", 0, "commit"], "f" * 40, "checkpoint 1 has an unknown field 'commit'"),
        (["checkpoints", 0, "ladder"], "toy", "checkpoint 1 has an unknown field 'ladder'"),
        (["title"], 7, "title must be of type str, is 7 .int.; put it in quotes"),
        (["checkpoints", 1, "step"], "1", "checkpoint 2: step must be of type int, is '1' .str."),
        (
            ["checkpoints", 1, "step"],
            True,
            "checkpoint 2: step must be of type int, is True .bool.",
        ),
        (
            ["checkpoints", 0, "revision"],
            10**39,
            "revision must be of type str, is 1000.*put it in quotes",
        ),
        (
            ["checkpoints", 0, "revision"],
            "main",
            "checkpoint 'base': revision 'main' is neither 64 hex digits",
        ),
        (["checkpoints", 0, "revision"], "a" * 39, "is neither 64 hex digits"),
        (["checkpoints", 0, "revision"], "A" * 64, "is neither 64 hex digits"),
        (["checkpoints", 1, "name"], "sft", "two checkpoints share the name 'sft'"),
        (
            ["checkpoints", 1],
            CHECKPOINTS[2] | {"name": "sft-1"},
            "two checkpoints share the weights 'data/weights/toy/sft@ccc",
        ),
        (["checkpoints", 3, "name"], "dpo-60", "the stage 'dpo' is missing"),
        (["checkpoints", 3, "stage"], "rlvr", "checkpoint 'dpo' says it belongs to stage 'rlvr'"),
        (["checkpoints", 1, "stage"], "stf", "unknown stage 'stf', did you mean 'sft'"),
        (["checkpoints"], CHECKPOINTS[::-1], "checkpoints must follow the stages"),
        (["checkpoints"], {"base": 1}, "checkpoints must be of type"),
        (["checkpoints", 0], "base", "checkpoint 1 must be a mapping of fields, is str"),
        (["dtype"], "fp32", "unknown dtype 'fp32'"),
        (["demonstrated"], ["dice"], "unknown task 'dice', did you mean 'die'"),
        (["demonstrated"], [1], "demonstrated must be of type"),
        (["demonstrated"], [["die"]], "demonstrated must be of type"),
        (["checkpoints"], [], "the ladder has no checkpoints"),
        (["checkpoints"], [5], "checkpoint 1 must be a mapping of fields, is int"),
        (["checkpoints", 1, "step"], -1, "checkpoint 2: step must be of type int"),
        (
            ["checkpoints", 0, "parameters"],
            10**400,
            "parameters must be of type int, is a huge number",
        ),
        (["checkpoints", 0, "files"], {"config.json": "abc"}, "files must be of type"),
        (["checkpoints", 0, "files"], ["config.json"], "files must be of type"),
        (["drawn"], "yes", "drawn must be of type bool"),
        (["name"], "tyo", "the ladder calls itself 'tyo', its file 'toy.yaml'"),
    ],
)
def test_a_sentence_for_each_mistake(write, path, value, sentence):
    write(change(path, value))
    with pytest.raises(CrystalError, match=sentence) as error:
        ladders.load_ladder("toy")
    assert "toy.yaml" in str(error.value) and error.value.hint


@pytest.mark.parametrize("text", ["name: [", "", "- 1", "\x00"])
def test_what_is_no_description(write, text):
    write(text)
    with pytest.raises(CrystalError, match="toy.yaml"):
        ladders.load_ladder("toy")


def test_unknown_ladder_lists_those_there_are(write):
    write(TOY)
    with pytest.raises(
        CrystalError, match="unknown ladder 'to', did you mean 'toy'.*choose one of: toy"
    ):
        ladders.load_ladder("to")


def test_root_is_found_upward(tmp_path, monkeypatch):
    monkeypatch.delenv("CRYSTAL_ROOT", raising=False)
    (tmp_path / "data" / "ladders").mkdir(parents=True)
    (tmp_path / "book" / "pages").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "book" / "pages")
    assert root() == tmp_path.resolve()
    monkeypatch.chdir("/")
    assert (root() / "crystal" / "files.py").is_file()


def test_weights_are_checked_against_the_description(write):
    write(TOY)
    base = ladders.load_ladder("toy").checkpoint("base")
    with pytest.raises(
        CrystalError,
        match="checkpoint 'base' of toy are missing.*git checkout.*make ladder LADDER=toy",
    ):
        ladders.check_weights(base)
    folder = base.location
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text(json.dumps({}))
    found = ladders.weights_sha256(folder)
    with pytest.raises(
        CrystalError, match=f"have sha256 {found}, but toy.yaml says {'a' * 64}.*git checkout"
    ):
        ladders.check_weights(base)
    write(change(["checkpoints", 0, "revision"], found))
    ladders.check_weights(ladders.load_ladder("toy").checkpoint("base"))
    assert len(ladders.config_sha256(base)) == 64


FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)


@pytest.fixture
def pinned(write):
    """The base of a ladder whose description pins all that lies beside its weights."""
    folder = root() / "data/weights/toy/base"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", *FILES):
        (folder / name).write_text(name)
    raw = copy.deepcopy(TOY)
    raw["checkpoints"][0] |= {
        "revision": ladders.weights_sha256(folder),
        "files": ladders.pins(folder),
    }
    write(raw)
    checkpoint = ladders.load_ladder("toy").checkpoint("base")
    assert set(checkpoint.files) == set(FILES)
    ladders.check_weights(checkpoint)
    return checkpoint


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_beside_the_weights_is_named(pinned, name):
    path = pinned.location / name
    path.write_text(name.upper())
    found, said = file_sha256(path), pinned.files[name]
    with pytest.raises(
        CrystalError,
        match=f"{name} of checkpoint 'base' .*{found}, but toy.yaml says {said}.*git checkout",
    ):
        ladders.check_weights(pinned)
    path.unlink()
    with pytest.raises(
        CrystalError, match=f"{name} of checkpoint 'base' is missing; toy.yaml says sha256 {said}"
    ):
        ladders.check_weights(pinned)


@pytest.mark.parametrize(
    "name",
    [
        "added_tokens.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.model",
        "additional_chat_templates/tool.jinja",
    ],
)
def test_a_file_too_many_beside_the_weights_is_named(pinned, name):
    path = pinned.location / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(
        CrystalError,
        match=f"{name} of checkpoint 'base' has sha256 .*names no such file.*Hint: mv ",
    ):
        ladders.check_weights(pinned)
    path.unlink()
    (pinned.location / "README.md").write_text("No number depends on it.")
    ladders.check_weights(pinned)


def test_every_shipped_checkpoint_is_the_one_described():
    """Weights of stage ends, and every file beside them, of every ladder and experiment."""
    checkpoints = [
        checkpoint
        for name in ladders.ladder_names()
        for checkpoint in ladders.load_ladder(name).checkpoints
        if ladders.shipped(checkpoint)
    ]
    assert len({checkpoint.source for checkpoint in checkpoints}) == 8
    for checkpoint in checkpoints:
        assert {
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        } <= checkpoint.files.keys()
        if ladders.is_here(checkpoint):
            ladders.check_weights(checkpoint)
