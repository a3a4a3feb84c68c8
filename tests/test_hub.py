"""Ladders of the hub: pinned, read from the cache alone, by no rule that a repository brings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import yaml
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo

from crystal import files
from crystal.ask import ladders, sources
from crystal.ask.prompts import PROMPTS
from crystal.ask.tasks import TASKS
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.keep import resample, store, sums
from crystal.read import engine
from crystal.read.readout import readout
from crystal.read.sampling import draw

KINDS = {
    "base": "llama",
    "sft": "olmo2",
    "dpo": "gpt2",
    "rlvr": "qwen3",
}  # one ladder, four architectures: test material only
DESCRIPTION = """# A ladder, and a word about it.
name: toy
title: Toy
dtype: bfloat16
checkpoints:
- name: base     # the first
  stage: base
  step: 0
  source: toys/base
  revision: ""   # to come
  grid: raw
- {name: sft, stage: sft, step: 1, source: toys/sft, revision: "", grid: both}
- name: dpo
  stage: dpo
  step: 1
  source: toys/dpo
  revision: ""
  grid: both
  parameters: 7
- name: rlvr
  stage: rlvr
  step: 1
  source: toys/rlvr
  revision: ""
  grid: both
# The end.
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A hub cache with the checkpoints of `toy`, and their commits: shards, both tokenizers."""
    cache = tmp_path_factory.mktemp("cache")
    cut = {"base": tiny.sentencepiece_tokenizer(), "sft": tiny.trained_tokenizer()}
    return cache, {
        checkpoint: tiny.publish(
            cache,
            f"toys/{checkpoint}",
            kind,
            tokenizer=cut.get(checkpoint),
            sharpness=8.0,
            shards="60KB" if checkpoint == "sft" else "5GB",
        )
        for checkpoint, kind in KINDS.items()
    }


@pytest.fixture
def cache(published: tuple, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache is the only hub there is."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(published[0]))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return published[0]


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The description of `toy`, not pinned, under a root of its own."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    path = tmp_path / "data/ladders/hub/toy.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(DESCRIPTION)
    return path


class FakeApi:
    """The hub's answer about a repository; its files come from the cache."""

    commits: dict[str, str] = {}
    said: dict = {}
    asked: dict[str, str] = {}  # the branch each repository was asked for

    def model_info(self, source: str, *, revision: str) -> ModelInfo:
        answer = self.said.get(source, {})
        if isinstance(answer, Exception):
            raise answer
        self.asked[source] = revision
        facts = {
            "siblings": [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}],
            "gated": False,
            "cardData": {"license": "apache-2.0"},
            "safetensors": {"parameters": {"F32": 1234}, "total": 1234},
        }
        return ModelInfo(
            id=source, sha=self.commits[source.partition("/")[2]], **{**facts, **answer}
        )


@pytest.fixture
def api(published: tuple, cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Fields of the hub's answer, by repository, for a test to change."""
    monkeypatch.setattr(FakeApi, "commits", published[1])
    monkeypatch.setattr(FakeApi, "said", {})
    monkeypatch.setattr(FakeApi, "asked", {})
    monkeypatch.setattr(sources, "HfApi", FakeApi)
    return FakeApi.said


def refused(kind: type, status: int) -> Exception:
    return kind(
        "no", response=httpx2.Response(status, request=httpx2.Request("GET", "http://hub.invalid"))
    )


# -- descriptions


def test_the_described_ladders_of_the_hub_can_be_read():
    sizes = {"tulu3": ("8b", "70b"), "olmo2": ("1b", "7b", "13b", "32b"), "olmo3": ("7b", "32b")}
    assert {f"{family}-{size}" for family in sizes for size in sizes[family]} <= {
        *ladders.hub_names()
    }
    assert not {*ladders.hub_names()} & {*ladders.ladder_names()}
    for name in ladders.hub_names():
        ladder = ladders.load_ladder(name, unpinned=True)
        assert [checkpoint.name for checkpoint in ladder.checkpoints] == list(
            ladders.STAGES
        ) and ladder.dtype == "bfloat16"
        assert ladder.checkpoints[0].grid == "raw" and {
            checkpoint.grid for checkpoint in ladder.checkpoints[1:]
        } == {"full"}
        assert not any(checkpoint.local for checkpoint in ladder.checkpoints) and all(
            hub_id(checkpoint.source) for checkpoint in ladder.checkpoints
        )
    assert "weights of 16 GB at most" in str(ladders.load_ladder("tulu3-8b", unpinned=True))


def hub_id(source: str) -> bool:
    return engine._HUB_ID.fullmatch(source) is not None


def test_the_template_is_a_description(described: Path):
    example = files.PACKAGE.parent / "data/ladders/hub/template.yaml.example"
    described.with_name("mine.yaml").write_text(example.read_text())
    assert ladders.load_ladder("mine", unpinned=True).checkpoint("base").grid == "raw"


def test_what_is_not_pinned_says_so_and_crashes_nothing(
    described: Path, capsys: pytest.CaptureFixture[str]
):
    for command in (
        ["resample", "toy"],
        ["resample", "toy", "--checkpoint", "sft"],
        ["draw", "toy"],
    ):
        assert main(command) == 2
        assert (
            "toy is not pinned" in (said := capsys.readouterr().err)
            and "Hint: crystal fetch toy" in said
        )
    with pytest.raises(CrystalError, match="not pinned"):
        store.load_readouts("toy")
    sums.record()
    assert main(["verify"]) == 0
    assert "never read here: toy" in capsys.readouterr().out
    assert main(["verify", "toy"]) == 0 and "0 cells" in capsys.readouterr().out
    assert (
        main(["fetch"]) == 0
        and capsys.readouterr().out
        == "toy: 0 of 4 checkpoints pinned, bfloat16, weights of 1.4e-08 GB at most\n"
    )


def test_an_empty_revision_is_for_the_hub_only(described: Path):
    described.replace(described.parent.parent / "toy.yaml")
    with pytest.raises(CrystalError, match="revision '' is neither 64 hex digits"):
        ladders.load_ladder("toy", unpinned=True)


# -- pinning


def test_pin_writes_what_the_hub_says(described: Path, api: dict, published: tuple):
    api["toys/sft"] = {
        "cardData": {"license": "other", "license_name": "llama3.1"},
        "gated": "manual",
    }
    api["toys/dpo"] = {"safetensors": None}
    pinned = sources.pin("toy")
    assert {checkpoint.name: checkpoint.revision for checkpoint in pinned} == published[1]
    toy = ladders.load_ladder("toy")
    assert [checkpoint.licence for checkpoint in toy.checkpoints] == [
        "apache-2.0",
        "llama3.1",
        "apache-2.0",
        "apache-2.0",
    ]
    assert [checkpoint.gated for checkpoint in toy.checkpoints] == [False, True, False, False]
    assert [checkpoint.parameters for checkpoint in toy.checkpoints] == [1234, 1234, 7, 1234]
    assert (
        len({checkpoint.template_sha256 for checkpoint in toy.checkpoints}) == 1
        and len(toy.checkpoints[0].template_sha256) == 64
    )
    text = described.read_text()
    assert text.startswith(DESCRIPTION.partition("checkpoints:")[0])
    sources.pin("toy")
    assert described.read_text() == text and not list(described.parent.glob("*.tmp"))


def test_a_branch_and_a_tokenizer_of_another_commit(
    described: Path, api: dict, cache: Path, published: tuple
):
    """The weights' own commit brings a tokenizer, too: it is not the one that is used."""
    other = tiny.publish(
        cache, "toys/rlvr", tokenizer=tiny.trained_tokenizer(template=tiny.TEMPLATE + " "), seed=5
    )
    assert other != published[1]["rlvr"]
    described.write_text(
        DESCRIPTION.replace("toys/rlvr\n", f"toys/rlvr\n  branch: step-100\n  tokenizer: {other}\n")
    )
    sources.pin("toy", ["rlvr"])
    checkpoint = ladders.load_ladder("toy", unpinned=True).checkpoint("rlvr")
    assert (
        FakeApi.asked == {"toys/rlvr": "step-100"} and checkpoint.revision == published[1]["rlvr"]
    )
    found = engine.load_checkpoint(checkpoint, dtype="float32")
    assert (
        found.tokenizer.chat_template == tiny.TEMPLATE + " "
        and found.model.config.model_type == "qwen3"
    )
    plain = engine.load("toys/rlvr", revision=checkpoint.revision)
    assert plain.tokenizer_revision != found.tokenizer_revision


def test_pin_one_checkpoint(described: Path, api: dict, cache: Path, published: tuple):
    sources.pin("toy", ["sft"])
    assert [
        checkpoint.revision for checkpoint in ladders.load_ladder("toy", unpinned=True).checkpoints
    ] == [
        "",
        published[1]["sft"],
        "",
        "",
    ]
    assert ladders.load_ladder("toy", unpinned=True).checkpoint("sft").template_sha256
    frame = resample.resample("toy", checkpoints=["sft"], tasks=["coin"], device="cpu")
    assert frame["new"].tolist() == [20, 20]
    with pytest.raises(CrystalError, match="unknown checkpoint of toy 'stf'"):
        sources.pin("toy", ["stf"])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            {"siblings": [{"rfilename": "config.json"}, {"rfilename": "pytorch_model.bin"}]},
            "no weights in safetensors",
        ),
        (refused(GatedRepoError, 403), "gated.*Hint: hf auth login"),
        (refused(RepositoryNotFoundError, 404), "no such repository"),
        (refused(RevisionNotFoundError, 404), "no such revision"),
        (httpx2.ConnectError("no route"), "only the hub knows what 'main' points to"),
    ],
)
def test_whatever_cannot_be_pinned_leaves_the_description_alone(
    described: Path, api: dict, answer: object, said: str
):
    api["toys/rlvr"] = answer  # the last checkpoint: those before it are not written either
    with pytest.raises(CrystalError, match=said):
        sources.pin("toy")
    assert described.read_text() == DESCRIPTION and list(described.parent.iterdir()) == [described]


def test_a_gated_file_names_the_way_in(described: Path, api: dict, monkeypatch: pytest.MonkeyPatch):
    """The hub tells anybody of a gated repository, and keeps its files back."""

    def keep_back(*_, **__):
        raise refused(GatedRepoError, 401)

    monkeypatch.setattr(sources, "hf_hub_download", keep_back)
    with pytest.raises(CrystalError, match="toys/base.*hf auth login"):
        sources.pin("toy")
    assert described.read_text() == DESCRIPTION


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_its_own_is_refused(
    described: Path, api: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str
):
    own = tmp_path / file
    own.write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}))
    api["toys/base"] = {"siblings": [{"rfilename": name} for name in (file, "model.safetensors")]}
    monkeypatch.setattr(sources, "hf_hub_download", lambda *_, **__: str(own))
    with pytest.raises(CrystalError, match="needs code of its own"):
        sources.pin("toy")
    assert described.read_text() == DESCRIPTION


def test_offline_nothing_is_pinned(
    described: Path, cache: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["fetch", "toy"]) == 2
    assert (
        "HF_HUB_OFFLINE is set" in capsys.readouterr().err and described.read_text() == DESCRIPTION
    )


def test_only_ladders_of_the_hub_are_pinned(described: Path):
    trained = yaml.safe_load(DESCRIPTION)
    for checkpoint in trained["checkpoints"]:
        checkpoint["revision"] = "a" * 64
    (described.parent.parent / "here.yaml").write_text(yaml.safe_dump(trained | {"name": "here"}))
    with pytest.raises(CrystalError, match="here was trained here"):
        sources.pin("here")


def test_a_description_whose_checkpoints_are_not_last_is_left(described: Path, api: dict):
    text = DESCRIPTION.replace("dtype: bfloat16\n", "") + "dtype: bfloat16\n"
    described.write_text(text)
    with pytest.raises(
        CrystalError, match="description of this form.*write its `checkpoints` last"
    ):
        sources.pin("toy")
    assert described.read_text() == text


# -- what a repository brings along is not obeyed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("checkpoint"), sharpness=2.0)


def test_decoding_settings_are_not_inherited(folder: Path, tmp_path: Path):
    """What would leave five of 600 tokens is loaded with the model, and changes nothing."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = {
        "do_sample": True,
        "top_k": 5,
        "top_p": 0.5,
        "temperature": 0.1,
        "repetition_penalty": 3.0,
    }
    plain = engine.load(folder)
    (tmp_path / "generation_config.json").write_text(
        json.dumps(settings | {"eos_token_id": plain.model.config.eos_token_id})
    )
    set_ = engine.load(tmp_path)
    assert (
        set_.model.generation_config.top_k == 5 and set_.model.generation_config.temperature == 0.1
    )
    ids = plain.encode("A random digit:", "completion")
    distributions = [
        readout(machine, [ids], TASKS["digit"], tolerance=0.01)[0] for machine in (plain, set_)
    ]
    np.testing.assert_array_equal(distributions[0].options, distributions[1].options)
    drawn = [draw(machine, ids, 2000, seed=3, max_tokens=2) for machine in (plain, set_)]
    assert drawn[0] == drawn[1] and len({text[:1] for text in drawn[1]}) > 20


def test_a_base_is_read_as_raw_text_whatever_template_it_ships(described: Path, api: dict):
    sources.pin("toy")
    resample.resample("toy", checkpoints=["base"], tasks=["coin"], device="cpu")
    assert engine.load_checkpoint(
        ladders.load_ladder("toy").checkpoint("base"), dtype="float32"
    ).tokenizer.chat_template
    rows = store.read("toy").to_pylist()
    assert {row["form"] for row in rows} == {"completion"} and len(rows) == 100
    machine = engine.load_checkpoint(ladders.load_ladder("toy").checkpoint("base"), dtype="float32")
    for row in rows:
        said = b"".join(
            piece
            for i in store.ids_of(row["prompt_ids"])
            if isinstance(piece := machine.pieces[i], bytes)
        ).decode()
        assert said == " " + row["text"]  # the space is SentencePiece's


@pytest.mark.parametrize("cut", [tiny.trained_tokenizer, tiny.sentencepiece_tokenizer])
@pytest.mark.parametrize("form", ["completion", "chat"])
def test_one_beginning(cut, form: str):
    tokenizer = cut()
    ids = engine.build(tiny.model("llama", len(tokenizer)), tokenizer).encode("A digit:", form)
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1


def test_another_template_than_the_described_one_is_refused(described: Path, api: dict):
    sources.pin("toy")
    described.write_text(
        described.read_text().replace(
            ladders.load_ladder("toy").checkpoint("base").template_sha256, "f" * 64
        )
    )
    with pytest.raises(
        CrystalError, match="chat template's sha256 is .*crystal fetch toy --checkpoint base"
    ):
        engine.load_checkpoint(ladders.load_ladder("toy").checkpoint("base"), dtype="float32")


def test_code_of_its_own_is_not_run(folder: Path, tmp_path: Path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    own = json.loads((folder / "config.json").read_text()) | {
        "model_type": "mystery",
        "architectures": ["Mystery"],
        "auto_map": {"AutoConfig": "mystery.Config", "AutoModelForCausalLM": "mystery.Mystery"},
    }
    (tmp_path / "config.json").write_text(json.dumps(own))
    (tmp_path / "mystery.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(
        CrystalError, match="needs code of its own, and none but transformers' is run"
    ):
        engine.load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit = tiny.publish(tmp_path, "toys/pickled")
    place = tiny.snapshot(tmp_path, "toys/pickled", commit)
    (place / "model.safetensors").unlink()
    torch.save({}, place / "pytorch_model.bin")
    for revision in (commit, None):
        with pytest.raises(CrystalError, match="no weights in safetensors"):
            engine.load("toys/pickled", revision=revision)


def test_offline_asks_nobody(cache: Path, published: tuple, monkeypatch: pytest.MonkeyPatch):
    def nobody(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", nobody)
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert engine.load("toys/base", revision=published[1]["base"]).ragged
    with pytest.raises(
        CrystalError, match="HF_HUB_OFFLINE is set, and the cache does not hold it.*hf download"
    ):
        engine.load("toys/absent", revision="0" * 40)


def test_gated_weights_name_the_way_in():
    """transformers wraps the hub's refusal: the cause counts."""
    try:
        try:
            raise refused(GatedRepoError, 401)
        except GatedRepoError as error:
            raise OSError("You are trying to access a gated repo") from error
    except OSError as error:
        assert "hf auth login" in str(sources.refusal(error, "toys/base"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_give_a_distribution_near_that_of_wide_ones(folder: Path, dtype: str):
    """What `resample` allows a cell to move covers another precision here, and another batch."""
    wide, narrow = engine.load(folder), engine.load(folder, dtype=dtype)
    assert next(narrow.model.parameters()).dtype == getattr(torch, dtype)
    prompts = [
        wide.encode(prompt.text(TASKS["digit"], "completion"), "completion")
        for prompt in PROMPTS[:4]
    ]
    want, many = (
        readout(machine, prompts, TASKS["digit"], tolerance=1e-3) for machine in (wide, narrow)
    )
    narrow.batch = 1
    one = readout(narrow, prompts, TASKS["digit"], tolerance=1e-3)
    for other in (want, one):
        for a, b in zip(many, other, strict=True):
            assert abs(a.options - b.options).max() < resample.ROUNDING[dtype] + 1e-3
            assert a.options.sum() + a.invalid + a.residual == pytest.approx(1, abs=1e-6)


# -- end to end


def test_a_ladder_of_the_hub_from_the_cache_to_its_read_outs(
    described: Path, published: tuple, api: dict
):
    """Through the command line in a process of its own: no network, four checkpoints."""
    sources.pin("toy")
    environment = os.environ | {
        "HF_HUB_CACHE": str(published[0]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    words = "resample toy --task coin --task suit --device cpu".split()
    command = [sys.executable, "-m", "crystal", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = store.load_readouts("toy")
    cells = read.groupby(["checkpoint", "form"], sort=False).size()
    assert dict(cells) == {("base", "completion"): 200} | {
        (checkpoint, form): 40
        for checkpoint in ("sft", "dpo", "rlvr")
        for form in ("completion", "chat")
    }
    total = read["probability"].map(sum) + read["invalid"] + read["residual"]
    assert total.to_numpy() == pytest.approx(np.ones(len(read)), abs=1e-6)
    assert isinstance(read, pd.DataFrame) and store.verify("toy").problems == ()
    assert main([*words, "--checkpoint", "rlvr"]) == 0  # compared with the store: the same
