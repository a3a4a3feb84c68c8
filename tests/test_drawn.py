"""Draws: the same guarantees as read-outs, drawn once, read again as answers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import types
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import synthetic
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crystal.ask import ladders, tasks
from crystal.ask.cells import Decoding
from crystal.ask.ladders import STAGES
from crystal.ask.prompts import PROBE
from crystal.ask.tasks import TASKS, first_answer, first_line, read
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.keep import drawing, drawn, manifest, resample, store, sums
from crystal.keep.drawn import DRAWN, TRUTH
from crystal.measure import quantities
from crystal.present import open_tasks

# -- reading an answer to an open task


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" Paris, sure.\nCity: Rome", "paris"),
        ("New York!", "new york"),
        ("**Rio de Janeiro**", "rio de janeiro"),
        ("“Oslo”", "oslo"),
        ("\n\n Anna-Lena\nBob", "anna-lena"),
        ("O'Neill.", "o'neill"),
        ("St. Louis", "st"),
        ("a  b", "a"),
        ("1,000 cats", "1,000 cats"),
        ("7.", "7"),
        ("7, 8", "7"),
        ("1.5", "1.5"),
        ("I'd say: cat", "i'd say"),
        ("Stra\u00dfe", "strasse"),
        ("cafe\u0301 x.", "caf\u00e9 x"),
        ("", None),
        ("...", None),
        ("\ufffd", None),
        ("\u2665", None),
        ("-dog", None),
        ("dog-", "dog"),
        ("dog\ufffd", "dog"),
    ],
)
def test_first_answer(text, said):
    assert first_answer(text) == said


PIECES = st.lists(
    st.sampled_from(
        [*"aé7 .,-'\"*\n\r\t:", "\u0301", "ß", "seven", "Yes", "\ufffd", "\u2028", "ten"]
    ),
    max_size=12,
)


@given(text=st.one_of(st.text(max_size=20), PIECES.map("".join)), more=st.text(max_size=8))
def test_what_is_cut_off_behind_a_line_is_never_read(text, more):
    """So that counts of lines lose nothing that reading the whole texts would find."""
    kept = first_line(text)
    assert text.startswith(kept) and first_line(kept) == kept
    assert first_answer(kept) == first_answer(text)
    assert read(kept, TASKS["thousand"]) == read(text, TASKS["thousand"])
    if kept.strip(tasks.LEAD) and kept.endswith("\n"):
        assert first_line(kept + more) == kept


@given(text=PIECES.map("".join))
def test_an_answer_reads_as_itself(text):
    said = first_answer(text)
    assert said is None or first_answer(said) == said


def test_lines_keep_every_draw():
    texts = {" a, sure.\nb": 3, " a, sure.\nc": 4, " a": 2, "\n a, sure.\nd": 1}
    assert drawing.lines(texts) == {" a, sure.\n": 7, " a": 2, "\n a, sure.\n": 1}


# -- the grid


def test_the_probe_keeps_frames_and_temperaments_apart():
    assert [prompt.persona for prompt in PROBE] == list(range(20))
    pairs = Counter((prompt.template.name, prompt.persona % 5) for prompt in PROBE)
    assert (
        len(pairs) == 20 and len({prompt.template.name for prompt in PROBE}) == 5
    )  # every pair of the two, once


@dataclass
class Fake:
    """Stands in for engine, sampling and read-out: texts depend on the prompt's ids."""

    loads: list = field(default_factory=list)
    unloads: int = 0
    asked: int = 0
    die_after: int = 10**9
    tokenizer_revision, device, ragged = "0" * 64, "cpu", True

    def load_checkpoint(self, checkpoint, *, dtype, device):
        self.loads.append(checkpoint.name)
        return self

    def unload(self):
        self.unloads += 1

    def encode(self, text, form, reply=""):
        return tuple((text + reply).encode())

    def draw_many(self, engine, prompts, n, *, seed, max_tokens):
        if self.asked >= self.die_after:
            raise KeyboardInterrupt
        self.asked += len(prompts)
        return [{f" {sum(ids) % 9}, sure.\nMore": n - 1, "Oslo": 1} for ids in prompts]

    def readout(
        self, engine, prompts, task, *, tolerance, relative, max_nodes, max_depth, temperature
    ):
        k = len(task.options)
        return [
            types.SimpleNamespace(options=np.full(k, 0.9 / k), invalid=0.1, residual=0.0, tokens=1)
            for _ in prompts
        ]


@pytest.fixture
def fake(monkeypatch):
    fake = Fake()
    for name in ("engine", "sampling", "readout"):
        monkeypatch.setitem(sys.modules, f"crystal.read.{name}", fake)
        monkeypatch.setattr(f"crystal.read.{name}", fake, raising=False)
    return fake


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A described ladder whose weights are a few bytes."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    synthetic.write_ladder(tmp_path, "toy", {checkpoint: {} for checkpoint in STAGES})
    synthetic.write_weights(tmp_path, "toy")
    return tmp_path


def test_draws_the_grid_once_and_gives_it_back(toy, fake):
    frame = drawing.draw("toy")
    assert (
        list(frame["task"]) == list(drawn.TASKS_DRAWN) * 4
        and (frame["new"] == 20).all()
        and (frame["texts"] == 40).all()
    )
    assert fake.loads == list(STAGES) and fake.asked == 4 * 5 * 20
    assert (drawing.draw("toy")["new"] == 0).all() and fake.asked == 4 * 5 * 20
    draws = drawn.load_draws("toy")
    assert len(draws) == 400 and list(draws["prompt"][:20]) == [prompt.id for prompt in PROBE]
    assert dict(zip(draws["checkpoint"], draws["form"], strict=True)) == dict(
        zip(STAGES, ("completion", *["chat"] * 3), strict=True)
    )
    ids = fake.encode(PROBE[3].text(TASKS["city"], "chat"), "chat")
    cell = draws[(draws["checkpoint"] == "sft") & (draws["task"] == "city")].iloc[3]
    assert cell["texts"] == {f" {sum(ids) % 9}, sure.\n": 9999, "Oslo": 1}
    truth = drawn.load_draws("toy", tasks=["thousand"], decoding=TRUTH)
    assert (
        len(truth) == 80
        and truth["invalid"].eq(0.1).all()
        and truth["probability"].map(len).eq(1000).all()
    )


def test_resumes_after_a_kill(toy, fake):
    """Killed after every second task; nothing is drawn again, and in the end all is there once."""
    for _ in range(10):
        fake.asked, fake.die_after = 0, 40
        with contextlib.suppress(KeyboardInterrupt):
            drawing.draw("toy")
    report = drawn.verify("toy")
    assert (report.missing, report.problems, report.cells, report.shards) == (0, (), 480, 20)


def test_same_draws_same_bytes_and_never_twice(toy, fake):
    drawing.draw("toy", checkpoints=["sft"], tasks=["city"])
    (record,) = manifest.records("toy", manifest.DRAWS)
    first = manifest.verified("toy", record, manifest.DRAWS)
    (toy / "data/draws/toy/manifest.jsonl").unlink()
    drawing.draw("toy", checkpoints=["sft"], tasks=["city"])
    (again,) = manifest.records("toy", manifest.DRAWS)
    assert manifest.verified("toy", again, manifest.DRAWS) == first
    with pytest.raises(CrystalError, match="there twice.*go on with make draw LADDER=toy"):
        drawn.append("toy", [row()], synthetic.PROVENANCE)


def row(**changes) -> store.Row:
    """The row that the fake would write of the first prompt of sft's cities, or a changed one."""
    ladder, fake = ladders.load_ladder("toy"), Fake()
    checkpoint = ladder.checkpoint("sft")
    ids = fake.encode(PROBE[0].text(TASKS["city"], "chat"), "chat")
    files = (ladders.config_sha256(checkpoint), fake.tokenizer_revision)
    cell = resample.cell_of(checkpoint, files, ladder.dtype, ids, DRAWN, TASKS["city"])
    return store.Row(cell, "chat", PROBE[0].id, {"Oslo": 10_000})._replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"texts": {"Oslo": 9_999}}, {"texts": {"Oslo": 10_000, "Rome": 0}}, {"texts": {}}],
    ids=str,
)
def test_counts_must_add_up(toy, changes):
    with pytest.raises(
        CrystalError,
        match="neither counts that add up to n = 10000 nor a distribution over the options of city",
    ):
        drawn.append("toy", [row(**changes)], synthetic.PROVENANCE)
    assert manifest.records("toy", manifest.DRAWS) == []


def test_a_truth_must_be_a_distribution(toy):
    for distribution in ([0.5] * 1000, [0.001] * 999, [np.nan] * 1000, []):
        cell = dataclasses.replace(row().cell, task="thousand", decoding=TRUTH)
        with pytest.raises(CrystalError, match="nor a distribution over the options of thousand"):
            drawn.append(
                "toy", [row(cell=cell, texts={}, probability=distribution)], synthetic.PROVENANCE
            )


def test_unknown_prompts_are_refused(toy):
    with pytest.raises(CrystalError, match="unknown prompt '00-from', did you mean '00-form'"):
        drawn.append("toy", [row(prompt="00-from")], synthetic.PROVENANCE)


def test_missing_draws_are_named(toy, fake):
    with pytest.raises(
        CrystalError,
        match="400 of 400 cells were not drawn, first base first_name 00-log.*make draw LADDER=toy",
    ):
        drawn.load_draws("toy")
    drawing.draw("toy", checkpoints=["base"])
    assert len(drawn.load_draws("toy", checkpoints=["base"])) == 100
    for wrong, said in (
        ({"tasks": ["town"]}, "unknown task 'town'"),
        ({"checkpoints": ["stf"]}, "did you mean 'sft'"),
    ):
        with pytest.raises(CrystalError, match=said):
            drawn.load_draws("toy", **wrong)
    with pytest.raises(CrystalError, match="20 of 20 cells were not drawn"):
        drawn.load_draws(
            "toy",
            checkpoints=["base"],
            tasks=["city"],
            decoding=Decoding(kind="draws", n=10_000, max_tokens=12, seed=1),
        )


def test_other_weights_are_not_todays_draws(toy, fake):
    drawing.draw("toy", checkpoints=["sft"], tasks=["city"])
    path = toy / "data/ladders/toy.yaml"
    raw = yaml.safe_load(path.read_text())
    next(checkpoint for checkpoint in raw["checkpoints"] if checkpoint["name"] == "sft")[
        "revision"
    ] = "a" * 64
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(CrystalError, match="20 of 20 cells were not drawn"):
        drawn.load_draws("toy", checkpoints=["sft"], tasks=["city"])
    with pytest.raises(CrystalError, match="weights of checkpoint 'sft' have sha256"):
        drawing.draw("toy")


def test_any_damage_is_found_by_loading_and_by_verify(toy, fake, capsys, monkeypatch):
    monkeypatch.setattr(store, "PHASE_TASKS", ())  # no read-outs are asked for
    drawing.draw("toy", checkpoints=["base"])
    folder = toy / "data/draws/toy"
    for path in [folder / "manifest.jsonl", *sorted((folder / "shards").iterdir())[:2]]:
        whole = path.read_bytes()
        for place in np.random.default_rng(0).integers(0, len(whole) - 1, size=4):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(
                CrystalError, match="corrupt.*git checkout -- data/draws/toy.*make draw LADDER=toy"
            ):
                drawn.load_draws("toy", checkpoints=["base"])
            assert main(["verify", "toy"]) == 2
        path.write_bytes(whole)
    capsys.readouterr()
    assert main(["verify", "toy"]) == 0
    assert "toy, draws: 120 cells in 5 shards" in capsys.readouterr().out


@pytest.mark.parametrize("ships", [False, True])
def test_draws_that_ship_have_to_be_there(toy, fake, capsys, monkeypatch, ships):
    """A description with `drawn: true` promises the grid; one without may have draws, or some, or
    none."""
    monkeypatch.setattr(store, "PHASE_TASKS", ())
    path = toy / "data/ladders/toy.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"drawn": ships}))
    sums.record()
    assert main(["verify"]) == (2 if ships else 0)
    assert (
        "400 cells that the description of toy asks for are missing" in capsys.readouterr().out
    ) == ships
    drawing.draw("toy", checkpoints=["base", "sft", "dpo"])
    assert main(["verify"]) == (2 if ships else 0)
    drawing.draw("toy")
    assert main(["verify"]) == 0


def test_another_tokenizer_is_refused_before_it_draws(toy, fake):
    drawing.draw("toy", checkpoints=["sft"], tasks=["city"])
    fake.tokenizer_revision, asked = "1" * 64, fake.asked
    with pytest.raises(
        CrystalError,
        match=f"checkpoint 'sft': tokenizer and chat template have sha256 {'1' * 64}, but",
    ):
        drawing.draw("toy", checkpoints=["sft"])
    assert fake.asked == asked
    drawing.draw("toy", checkpoints=["dpo"], tasks=["city"])  # nothing of it is stored yet


def test_verify_finds_a_row_that_is_not_its_key(toy, monkeypatch):
    plain = store._plain
    monkeypatch.setattr(store, "_plain", lambda *one: plain(*one) | {"key": "0" * 64})
    drawn.append("toy", [row()], synthetic.PROVENANCE)
    (problem,) = drawn.verify("toy").problems
    assert "should have the key" in problem and "git checkout -- data/draws/toy" in problem


def test_read_outs_and_draws_do_not_meet(toy, fake):
    drawing.draw("toy", checkpoints=["base"], tasks=["city"])
    assert manifest.records("toy") == [] and store.verify("toy").cells == 0


def test_a_real_engine_draws_what_sampling_says(tmp_path, monkeypatch):
    """A tiny random Llama: the estimates agree with the exact distribution beside the draws."""
    tiny = pytest.importorskip("tiny", reason="needs torch")
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    monkeypatch.setitem(TASKS, "thousand", dataclasses.replace(TASKS["die"], name="thousand"))
    synthetic.write_ladder(tmp_path, "small", {checkpoint: {} for checkpoint in STAGES})
    path = tmp_path / "data/ladders/small.yaml"
    raw = yaml.safe_load(path.read_text())
    folder = tiny.save(tmp_path / raw["checkpoints"][1]["source"], seed=1)
    raw["checkpoints"][1]["revision"] = ladders.weights_sha256(folder)
    path.write_text(yaml.safe_dump(raw))
    decoding = Decoding(kind="draws", n=2000, max_tokens=3)
    drawing.draw("small", checkpoints=["sft"], tasks=["thousand"], decoding=decoding)
    draws = drawn.load_draws("small", checkpoints=["sft"], tasks=["thousand"], decoding=decoding)
    truth = drawn.load_draws("small", checkpoints=["sft"], tasks=["thousand"], decoding=TRUTH)
    seen = sum(
        count
        for texts in draws["texts"]
        for text, count in texts.items()
        if read(text, TASKS["thousand"])
    )
    expected = np.concatenate(truth["probability"].tolist()).sum() * 2000
    assert abs(seen - expected) < 6 * np.sqrt(expected + 1)  # false alarm below 1e-8


# -- answers


def test_answers_are_counted_over_one_list(toy, fake):
    drawing.draw("toy", tasks=["city", "thousand"])
    found = open_tasks.counted(drawn.load_draws("toy", tasks=["city", "thousand"]), "thousand")
    assert list(found) == list(STAGES)
    assert len({tuple(counts.columns) for counts in found.values()}) == 1
    for counts in found.values():
        assert len(counts) == 20 and (counts.sum(axis=1) == 10_000).all()
        assert counts["oslo"].sum() == 20
        assert quantities.collision(counts.to_numpy()).min() > 0.99


def test_an_answer_is_an_option_a_word_or_nothing():
    assert open_tasks.answer(" seven, sure.", "thousand") == "7"
    assert (
        open_tasks.answer(" Oslo.", "thousand") == "oslo"
        and open_tasks.answer(" ...", "city") == ""
    )
    assert json.dumps(open_tasks.answer("Zo\u00eb.", "first_name")) == '"zo\\u00eb"'
