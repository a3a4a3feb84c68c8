"""The walk over a ladder's grid: nothing computed twice or lost, every moved cell noticed."""

import contextlib
import shutil
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import synthetic
import yaml

from crystal.ask import cells, ladders, prompts
from crystal.ask import tasks as ask_tasks
from crystal.ask.prompts import PROBE, PROMPTS
from crystal.errors import CrystalError
from crystal.keep import resample, store
from crystal.present import views
from crystal.studies import formats

TASKS = ("coin", "die")


@dataclass
class Fake:
    """Engine and readout: answers that depend on the prompt's ids, moved by `moved`."""

    loads: list = field(default_factory=list)
    unloads: int = 0
    read: list = field(default_factory=list)
    moved: float = 0.0
    residual: float = 0.0
    die_after: int = 10**9

    tokenizer_revision, device, ragged = "0" * 64, "cpu", True
    model = types.SimpleNamespace(num_parameters=lambda: 1000)

    def load_checkpoint(self, checkpoint, *, dtype, device):
        self.loads.append(checkpoint.name)
        return self

    def unload(self):
        self.unloads += 1

    def encode(self, text, form, reply=""):
        return tuple((text + reply).encode())

    def readout(
        self, engine, prompts, task, *, tolerance, relative, max_nodes, max_depth, temperature
    ):
        if len(self.read) == self.die_after:
            raise KeyboardInterrupt
        if prompts:
            self.read.append((task.name, len(prompts)))
        return [self.distribution(ids, len(task.options)) for ids in prompts]

    def distribution(self, ids, k):
        options = np.random.default_rng(list(ids)).dirichlet(np.ones(k)) * (0.9 - self.residual)
        options[0] += self.moved
        return types.SimpleNamespace(
            options=options, invalid=0.1 - self.moved, residual=self.residual, tokens=2
        )


@pytest.fixture
def fake(monkeypatch):
    fake = Fake()
    for name in ("engine", "readout"):
        monkeypatch.setitem(sys.modules, f"crystal.read.{name}", fake)
        monkeypatch.setattr(f"crystal.read.{name}", fake, raising=False)
    return fake


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A described ladder whose weights are a few bytes."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    monkeypatch.setattr(store, "PHASE_TASKS", TASKS)
    synthetic.write_ladder(
        tmp_path, "toy", {checkpoint: {} for checkpoint in ladders.STAGES} | {"sft-1": {}}
    )
    synthetic.write_weights(tmp_path, "toy")
    return tmp_path


def test_fills_the_grid_then_compares_it(toy, fake):
    filled = resample.resample("toy", tasks=TASKS)
    assert list(filled["checkpoint"][:3]) == ["base", "base", "sft-1"]
    assert list(filled["form"][:3]) == ["completion", "chat", "completion"]
    assert (
        (filled["new"] == 200).all()
        and (filled["compared"] == 0).all()
        and (filled["tokens"] == 400).all()
    )
    assert fake.loads == ["base", "sft-1", "sft", "dpo", "rlvr"]
    assert store.verify("toy").missing == 0
    stored = views.answers(store.load_readouts("toy"), "dpo", "die")
    ids = fake.encode(PROMPTS[7].text(resample.TASKS["die"], "chat"), "chat")
    np.testing.assert_allclose(stored[7], fake.distribution(ids, 6).options / 0.9, rtol=2e-7)
    again = resample.resample("toy", tasks=TASKS)
    assert (
        (again["new"] == 0).all() and (again["compared"] == 200).all() and (again["max"] == 0).all()
    )
    assert store.verify("toy").cells == 5 * 2 * 200


def test_missing_only_reads_what_is_missing(toy, fake):
    resample.resample("toy", tasks=["coin"], forms=["chat"], checkpoints=["sft"])
    fake.read.clear()
    frame = resample.resample("toy", tasks=TASKS, checkpoints=["sft"], missing_only=True)
    assert fake.read == [(task, 100) for task in ("coin", "die", "die")]
    assert list(frame["new"]) == [200, 100] and (frame["compared"] == 0).all()


def test_resumes_after_a_kill(toy, fake):
    """Each run is interrupted after 3 tasks; nothing is read twice, nothing missing."""
    runs = 0
    while store.verify("toy").cells < 5 * 2 * 200:
        fake.read.clear()
        fake.die_after, runs = 3, runs + 1
        with contextlib.suppress(KeyboardInterrupt):
            resample.resample("toy", tasks=TASKS, missing_only=True)
        assert len(fake.read) <= 3
    assert runs == 7  # 20 tasks, 3 a run
    assert store.verify("toy").problems == () and store.verify("toy").missing == 0


def test_a_write_that_fails_ends_the_run(toy, fake, monkeypatch):
    def full(*shard):
        raise CrystalError("the disk is full")

    monkeypatch.setattr(store, "append", full)
    with pytest.raises(CrystalError, match="the disk is full"):
        resample.resample("toy", tasks=TASKS, forms=["chat"])
    assert fake.loads == ["base"]


def test_tasks_are_written_in_groups(toy, fake, monkeypatch):
    """Shards are cut by the work in them: the same cells, the same files. A task here: 2e5."""
    for work, files in ((1e9, 1), (0.0, 3), (3e5, 2)):
        monkeypatch.setattr(resample, "SHARD_WORK", work)
        before = store.verify("toy").shards
        synthetic.coarse(monkeypatch, 1e-4 * (1 + files))
        resample.resample("toy", tasks=(*TASKS, "suit"), checkpoints=["dpo"], forms=["chat"])
        assert store.verify("toy").shards - before == files


@pytest.mark.parametrize(
    ("moved", "residual", "passes"),
    [(4e-5, 0, True), (1e-4, 0, False), (1e-4, 1e-4, True), (np.nan, 0, False)],
)
def test_a_cell_that_moved_is_named(toy, fake, moved, residual, passes):
    """Tolerance: rounding (5e-5 in fp32), and what was left open on top."""
    fake.residual = residual
    resample.resample("toy", tasks=["coin"], checkpoints=["dpo"])
    fake.moved = moved
    if passes:
        frame = resample.resample("toy", tasks=["coin"], checkpoints=["dpo"])
        np.testing.assert_allclose(
            frame[["median", "max"]], moved, rtol=2e-3
        )  # float32's digits of a probability
        return
    sentence = (
        "200 of 200 cells are not what .* the worst, checkpoint dpo, .*task coin.*git checkout"
    )
    with pytest.raises(CrystalError, match=sentence):
        resample.resample("toy", tasks=["coin"], checkpoints=["dpo"])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"checkpoints": ["stf"]}, "mean 'sft'"),
        ({"tasks": ["city"]}, "unknown closed task"),
        ({"forms": ["raw"]}, "unknown form"),
    ],
)
def test_names_are_checked_before_anything_is_loaded(toy, fake, wrong, sentence):
    with pytest.raises(CrystalError, match=sentence):
        resample.resample("toy", **wrong)
    assert fake.loads == []


def test_weights_are_checked_before_anything_is_loaded(toy, fake):
    (toy / "data" / "weights" / "toy" / "rlvr" / "model.safetensors").write_text("other")
    with pytest.raises(
        CrystalError, match="weights of checkpoint 'rlvr' have sha256.*git checkout"
    ):
        resample.resample("toy")
    assert fake.loads == []


@pytest.mark.parametrize("missing_only", [False, True])
def test_another_tokenizer_is_refused_before_it_reads(toy, fake, missing_only):
    """Two letters of a chat template: the same weights, other cells. None of them is read or
    written."""
    resample.resample("toy", tasks=["coin"], checkpoints=["dpo"], forms=["chat"])
    fake.tokenizer_revision, read, cells = "1" * 64, len(fake.read), store.verify("toy").cells
    said = f"'dpo': tokenizer and chat template have sha256 {'1' * 64}, but .* with {'0' * 64}"
    with pytest.raises(CrystalError, match=said):
        resample.resample("toy", tasks=TASKS, checkpoints=["dpo"], missing_only=missing_only)
    assert len(fake.read) == read and store.verify("toy").cells == cells


def test_another_config_is_refused_before_it_reads(toy, fake):
    resample.resample("toy", tasks=["coin"], checkpoints=["dpo"], forms=["chat"])
    (toy / "data/weights/toy/dpo/config.json").write_text('{"rope_theta": 1}')
    with pytest.raises(
        CrystalError,
        match="checkpoint 'dpo': config.json has sha256.*rm -r data/samples/toy data/draws/toy",
    ):
        resample.resample("toy", tasks=["die"], checkpoints=["dpo"], missing_only=True)


def test_checkpoints_without_weights_are_left_out_and_named(toy, fake):
    said = []
    for checkpoint in ("sft-1", "dpo"):
        (toy / "data/weights/toy" / checkpoint / "model.safetensors").unlink()
    frame = resample.resample("toy", tasks=["coin"], say=said.append)
    assert set(frame["checkpoint"]) == {"base", "sft", "rlvr"} == set(fake.loads)
    assert said == [
        "left out, since their weights are not here: sft-1, dpo "
        "(make ladder LADDER=toy trains them)"
    ]
    with pytest.raises(
        CrystalError,
        match="'sft-1' of toy are missing.*then make ladder LADDER=toy SHIP=1",
    ):
        resample.resample("toy", checkpoints=["sft-1"])
    for checkpoint in ("base", "sft", "rlvr"):
        (toy / "data/weights/toy" / checkpoint / "model.safetensors").unlink()
    with pytest.raises(
        CrystalError, match="weights of checkpoint 'base' of toy are missing.*git checkout"
    ):
        resample.resample("toy", say=said.append)
    assert len(said) == 1


def test_a_real_engine_reads_the_same_twice(tmp_path, monkeypatch):
    """A tiny random Llama in hub layout, through crystal.read.engine and crystal.read.readout."""
    tiny = pytest.importorskip("tiny", reason="needs torch")
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    synthetic.write_ladder(tmp_path, "small", {checkpoint: {} for checkpoint in ladders.STAGES})
    path = tmp_path / "data" / "ladders" / "small.yaml"
    raw = yaml.safe_load(path.read_text())
    folder = tiny.save(tmp_path / raw["checkpoints"][1]["source"], seed=1)
    raw["checkpoints"][1]["revision"] = ladders.weights_sha256(folder)
    path.write_text(yaml.safe_dump(raw))
    asked = {"tasks": TASKS, "checkpoints": ["sft"]}
    template = folder / "chat_template.jinja"
    synthetic.coarse(monkeypatch, 0.001)
    assert list(resample.resample("small", **asked)["new"]) == [200, 200]
    again = resample.resample("small", **asked)
    assert list(again["compared"]) == [200, 200] and (again["max"] < 1e-7).all()
    frame = store.load_readouts("small")
    assert (frame["residual"] <= 0.001).all() and frame["probability"].map(sum).max() > 0
    template.write_text(template.read_text().replace("user", "usre"))
    with pytest.raises(
        CrystalError, match="checkpoint 'sft': tokenizer and chat template have sha256"
    ):
        resample.resample("small", **asked, missing_only=True)


def test_a_checkpoint_is_asked_what_its_grid_says(toy, fake, monkeypatch):
    """probe: one prompt a persona in chat form; altered: raw text, instructed, temperatures."""
    path = toy / "data" / "ladders" / "toy.yaml"
    raw = yaml.safe_load(path.read_text())
    for checkpoint in raw["checkpoints"]:
        checkpoint["grid"] = {"sft-1": "probe", "rlvr": "altered"}.get(checkpoint["name"], "full")
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setattr(store, "PHASE_TASKS", ("coin",))
    filled = resample.resample("toy", tasks=["coin"]).set_index(
        ["checkpoint", "form", "temperature"]
    )["cells"]
    assert filled["sft-1", "chat", 1.0] == 20 and ("sft-1", "completion", 1.0) not in filled.index
    assert filled["rlvr"].index.tolist() == [
        ("completion", 1.0),
        ("instructed", 1.0),
        *(("chat", t) for t in cells.TEMPERATURES),
    ]
    assert filled.sum() == 3 * 200 + 20 + 7 * 20 and store.verify("toy").missing == 0
    frame = store.load_readouts("toy")
    hot = frame[
        (frame["checkpoint"] == "rlvr") & (frame["form"] == "chat") & (frame["temperature"] == 2)
    ]
    assert len(hot) == len(PROBE) == 20
    assert views.answers(frame, "sft-1", "coin", prompts=PROBE).shape == (20, 2)
    with pytest.raises(CrystalError, match="80 of 100 prompts are missing"):
        views.answers(frame, "sft-1", "coin")
    text = frame[frame["form"] == "instructed"].iloc[0]
    assert text["prompt"] in {prompt.id for prompt in PROBE}


def test_natural_prompts_are_read_with_their_begun_reply(toy, fake, monkeypatch):
    shutil.copytree(Path(__file__).parent.parent / "data" / "prompts", toy / "data" / "prompts")
    path = toy / "data" / "ladders" / "toy.yaml"
    raw = yaml.safe_load(path.read_text())
    for checkpoint in raw["checkpoints"]:
        checkpoint["grid"] = "natural"
    path.write_text(yaml.safe_dump(raw))
    filled = resample.resample("toy", tasks=["coin"], checkpoints=["base"])
    assert filled["form"].tolist() == ["completion", "chat"] and filled["new"].tolist() == [
        100,
        100,
    ]
    frame = store.load_readouts("toy")
    first, tasks = prompts.load_prompts()[0], {*frame["task"]}
    assert frame["prompt"].tolist() == [p.id for p in prompts.load_prompts()] * 2 and tasks == {
        "coin"
    }
    stored = store.read("toy", columns=["prompt", "form", "text", "prompt_ids"]).to_pandas()
    row = stored[(stored["prompt"] == first.id) & (stored["form"] == "chat")].iloc[0]
    reply = first.reply(ask_tasks.TASKS["coin"])
    assert row["text"].endswith(reply) and "Please continue." in row["text"]
    assert bytes(store.ids_of(row["prompt_ids"])).decode().endswith(reply)
    found = formats.load_contexts(frame)
    assert found["form"].tolist() == ["completion", "chat"] and (found["prompts"] == 100).all()
    assert (found["contexts"] == 50).all() and (found["lead_low"] < 0).all()


def test_a_log_is_not_filled_with_looks_at_the_bar(capsys):
    """A terminal would be shown thousands; here, the beginning and the end."""
    with resample.bar(5000, "toy") as bar:
        for i in range(5000):
            bar.set_postfix_str(str(i), refresh=False)
            bar.update()
    assert capsys.readouterr().err.count("toy:") <= 3
