"""The store: a complete key, at most once, nothing lost to a kill, nothing corrupt returned."""

import dataclasses
import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import synthetic
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from crystal.ask import cells, ladders
from crystal.ask.cells import Cell, Decoding, task_sha256
from crystal.ask.prompts import PROMPTS
from crystal.ask.tasks import TASKS
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.keep import drawn, manifest, store, sums
from crystal.present import views

CELL = Cell(
    model="data/weights/toy/base",
    revision="a" * 64,
    config_sha256="b" * 64,
    tokenizer_revision="c" * 64,
    dtype="float32",
    prompt_ids=(1, 2, 3),
    decoding=Decoding(),
    task="coin",
    task_sha256="d" * 64,
)
CHECKPOINT = {
    "name": "base",
    "stage": "base",
    "step": 0,
    "source": "data/weights/toy/base",
    "revision": "a" * 64,
}
COIN = {"coin": np.full((100, 2), 0.5)}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def toy(root, monkeypatch):
    """A small synthetic ladder under a root of its own; the answers it was made of."""
    monkeypatch.setattr(store, "PHASE_TASKS", ("coin", "digit"))
    answers = synthetic.crystallizing(seed=1)
    synthetic.write_ladder(
        root, "toy", answers, other={"sft": answers["sft"]}, invalid=0.1, title="Toy"
    )
    return answers


def contents(folder):
    """Every file below, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


# ---- the key


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(Cell) if f.name != "decoding"]
)
def test_every_field_of_a_cell_changes_its_key(field):
    value = getattr(CELL, field)
    other = value + ("x" if isinstance(value, str) else (3,))
    assert dataclasses.replace(CELL, **{field: other}).key != CELL.key


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Decoding)])
def test_every_field_of_the_decoding_changes_the_key(field):
    value = getattr(CELL.decoding, field)
    other = value + ("x" if isinstance(value, str) else 1)
    assert (
        dataclasses.replace(CELL, decoding=dataclasses.replace(CELL.decoding, **{field: other})).key
        != CELL.key
    )


def test_the_order_of_tokens_changes_the_key_but_not_their_type():
    assert dataclasses.replace(CELL, prompt_ids=(2, 1, 3)).key != CELL.key
    assert (
        dataclasses.replace(CELL, prompt_ids=(12, 3)).key
        != dataclasses.replace(CELL, prompt_ids=(1, 23)).key
    )
    assert dataclasses.replace(CELL, prompt_ids=tuple(np.array([1, 2, 3]))).key == CELL.key
    assert Decoding(temperature=1).text == Decoding(temperature=1.0).text


def test_the_reading_rule_changes_the_task_hash(monkeypatch):
    coin = TASKS["coin"]
    changed = [{"options": ("tails", "heads")}, {"options": ("heads", "tails", "rim")}]
    changed += [{"aliases": {}}, {"aliases": {"h": "tails"}}]
    hashes = {task_sha256(coin)} | {
        task_sha256(dataclasses.replace(coin, **change)) for change in changed
    }
    monkeypatch.setattr(cells, "READ_VERSION", cells.READ_VERSION + 1)
    hashes.add(task_sha256(coin))
    assert len(hashes) == len(changed) + 2
    assert task_sha256(dataclasses.replace(coin, ask="toss a coin")) == task_sha256(
        coin
    )  # seen only through the prompt's tokens


# ---- there and back


def test_what_was_appended_comes_back(toy):
    frame = store.load_readouts("toy")
    assert list(frame.columns) == store._COLUMNS and len(frame) == (5 + 1) * 2 * 100
    assert list(frame["checkpoint"].unique()) == ["base", "sft-1", "sft", "dpo", "rlvr"]
    first = frame[(frame["checkpoint"] == "sft-1") & (frame["task"] == "digit")]
    assert list(first["prompt"]) == [p.id for p in PROMPTS] and list(first["persona"]) == [
        p.persona for p in PROMPTS
    ]
    assert list(first["half"]) == [p.half for p in PROMPTS] and list(first["template"]) == [
        p.template.name for p in PROMPTS
    ]
    said = {
        "ladder": "toy",
        "stage": "sft",
        "step": 1,
        "form": "chat",
        "invalid": np.float32(0.1),
    }
    for column, value in said.items():
        assert first[column].eq(value).all()
    distributions = np.stack(first["probability"].tolist())
    np.testing.assert_array_equal(distributions, (toy["sft-1"]["digit"] * 0.9).astype(np.float32))
    assert distributions.dtype == np.float64
    for checkpoint in toy:
        np.testing.assert_allclose(
            views.answers(frame, checkpoint, "coin"), toy[checkpoint]["coin"], rtol=1.3e-7
        )  # float32's digits
    np.testing.assert_allclose(
        views.answers(frame, "sft", "coin", "completion"), toy["sft"]["coin"], rtol=1.3e-7
    )


def test_loading_selects(toy):
    frame = store.load_readouts("toy", tasks=["digit"], forms=["chat"], checkpoints=["dpo", "sft"])
    assert len(frame) == 200 and list(frame["checkpoint"].unique()) == ["sft", "dpo"]
    assert frame["task"].eq("digit").all() and frame["form"].eq("chat").all()
    for wrong, sentence in [
        ({"tasks": ["digits"]}, "did you mean 'digit'"),
        ({"forms": ["chta"]}, "choose one of: completion, chat"),
        ({"checkpoints": ["stf"]}, "did you mean 'sft'"),
        ({"tasks": ["die"]}, "no read-outs of toy for tasks die"),
    ]:
        with pytest.raises(CrystalError, match=sentence):
            store.load_readouts("toy", **wrong)
    with pytest.raises(CrystalError, match="unknown ladder 'tyo'"):
        store.load_readouts("tyo")


def test_no_samples_yet(toy):
    for path in sorted((manifest.folder_of("toy")).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(CrystalError, match="no read-outs of toy.*make resample LADDER=toy"):
        store.load_readouts("toy")
    assert store.keys("toy") == set()


def test_same_cells_same_bytes(root):
    rows = synthetic.rows(CHECKPOINT, "completion", COIN)
    shards = [
        store.append(name, rows, synthetic.PROVENANCE | {"created": name})
        for name in ("one", "two")
    ]
    assert shards[0].read_bytes() == shards[1].read_bytes() and shards[0].name == shards[1].name


def test_only_what_today_would_be_written_again_is_loaded(toy, monkeypatch):
    digest = store.manifest_digest("toy")
    base = {"name": "base", "source": "data/weights/toy/base"}
    revision = hashlib.sha256(b"toy/base").hexdigest()
    wide = [
        row._replace(
            cell=dataclasses.replace(row.cell, decoding=Decoding(tolerance=0.01)),
            probability=np.array([0.9, 0.1]),
        )
        for row in synthetic.rows(base | {"revision": revision}, "completion", COIN)
    ]
    before = store.load_readouts("toy")
    store.append(
        "toy",
        synthetic.rows(base | {"revision": "f" * 64}, "completion", COIN),
        synthetic.PROVENANCE,
    )
    assert store.manifest_digest("toy") == digest  # another revision is nobody's page
    store.append("toy", wide, synthetic.PROVENANCE)
    assert store.manifest_digest("toy") != digest
    assert store.load_readouts("toy").equals(before)
    with monkeypatch.context() as patch:
        synthetic.coarse(patch, 0.01)
        assert store.load_readouts("toy")["probability"].map(max).eq(np.float32(0.9)).all()
    monkeypatch.setattr(cells, "READ_VERSION", cells.READ_VERSION + 1)
    with pytest.raises(CrystalError, match="no read-outs of toy"):
        store.load_readouts("toy")


def test_a_reworded_prompt_is_not_loaded(toy, monkeypatch):
    template = PROMPTS[0].template
    monkeypatch.setattr(
        store,
        "PROMPTS",
        [
            dataclasses.replace(p, template=dataclasses.replace(template, item="{label}?"))
            if p.template is template
            else p
            for p in PROMPTS
        ],
    )
    with pytest.raises(
        CrystalError,
        match="20 of 100 prompts are missing, first 00-log.*base, task coin.*make resample",
    ):
        views.answers(store.load_readouts("toy"), "base", "coin")


def test_two_tokenizers_are_ambiguous(toy):
    checkpoint = {
        "source": "data/weights/toy/base",
        "revision": hashlib.sha256(b"toy/base").hexdigest(),
    }
    rows = synthetic.rows(checkpoint, "completion", COIN)
    rows = [
        row._replace(cell=dataclasses.replace(row.cell, tokenizer_revision="e" * 64))
        for row in rows
    ]
    store.append("toy", rows, synthetic.PROVENANCE)
    with pytest.raises(CrystalError, match="two read-outs of base completion coin 00-log"):
        store.load_readouts("toy")
    assert not store.load_readouts("toy", tasks=["digit"]).empty
    (problem,) = store.verify("toy").problems
    assert problem.startswith(
        "cells of data/weights/toy/base were read with two tokenizers or config.json"
    )


def test_answers_need_all_prompts_one_ladder_and_some_mass(toy):
    frame = store.load_readouts("toy")
    with pytest.raises(
        CrystalError,
        match="100 of 100 prompts are missing, first 00-log.*dpo, task coin, form completion",
    ):
        views.answers(frame, "dpo", "coin", "completion")
    with pytest.raises(CrystalError, match="1 of 100 prompts are missing, first 03-form"):
        views.answers(frame[(frame["prompt"] != "03-form")], "dpo", "coin")
    with pytest.raises(CrystalError, match="several ladders"):
        views.answers(frame.assign(ladder=["a"] * 5 + ["b"] * (len(frame) - 5)), "dpo", "coin")
    frame["probability"] *= frame["prompt"] != "03-form"
    with pytest.raises(
        CrystalError, match="1 of 100 prompts are not answered, least 03-form: 0 of the mass"
    ):
        views.answers(frame, "dpo", "coin")


@pytest.mark.parametrize(
    "distribution",
    [
        [0.5, np.nan],
        [0.5, 0.6],
        [1.5, -0.5],
        [0.5, 0.25, 0.25],
        [1.0],
        [0.5, 0.5 - 2e-6],
        [np.inf, 0.0],
    ],
    ids=str,
)
def test_what_is_no_distribution_is_not_stored(root, distribution):
    row = synthetic.rows(CHECKPOINT, "completion", COIN)[0]._replace(
        probability=np.array(distribution)
    )
    with pytest.raises(CrystalError, match="not a distribution over the 2 options of coin"):
        store.append("toy", [row], synthetic.PROVENANCE)
    assert contents(root) == {}


def test_the_digest_sees_the_description(toy, root):
    digest = store.manifest_digest("toy")
    path = root / "data" / "ladders" / "toy.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"title": "Another"}))
    assert store.manifest_digest("toy") != digest


def test_loading_one_task_decodes_no_other(root, monkeypatch):
    """A merged shard of a ladder holds a row group for each task: a page of one task reads only
    that."""
    answers = synthetic.crystallizing(("coin", "digit", "die"), seed=2)
    synthetic.write_ladder(root, "whole", answers)
    decoded, read = [], store.pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        store.pq.ParquetFile,
        "read_row_groups",
        lambda self, groups, **how: decoded.append(len(groups)) or read(self, groups, **how),
    )
    assert len(store.load_readouts("whole", tasks=["digit"])) == 500 and decoded == [1] * 5


def test_a_shard_may_hold_many_checkpoints(root, monkeypatch):
    """As those that ship do: what was read of one checkpoint comes back, and no more."""
    rows = [
        row
        for name in "ab"
        for row in synthetic.rows(CHECKPOINT | {"revision": name * 64}, "completion", COIN)
    ]
    blob = store.packed(store.table_of(rows))
    parts = [
        {"checkpoint": i, "form": "completion", "rows": 100, "seconds": 1.5 * i, "created": "now"}
        for i in range(2)
    ]
    made = {name: value for name, value in synthetic.PROVENANCE.items() if name not in parts[0]}
    facts = {
        "rows": 200,
        "tasks": ["coin"],
        "forms": ["completion"],
        "provenance": [made | {"parts": parts}],
        "checkpoints": [[CHECKPOINT["source"], name * 64] for name in "ab"],
    }
    with manifest.alone("toy"):
        manifest.write("toy", blob, facts)
    assert len(store.keys("toy")) == 200 and len(store.keys("toy", revision="b" * 64)) == 100
    assert [(part["revision"][0], part["seconds"]) for part in store.produced("toy")] == [
        ("a", 0.0),
        ("b", 1.5),
    ]
    with pytest.raises(CrystalError, match="100 of 100 cells would be there twice"):
        store.append("toy", rows[100:], synthetic.PROVENANCE)


# ---- corruption


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A ladder written once for all the flips: its root and its files."""
    folder = synthetic.write_ladder(
        tmp_path_factory.mktemp("kept"), "toy", synthetic.crystallizing(("coin",), seed=3)
    )
    return folder, contents(folder / "data" / "samples" / "toy")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found(kept, data):
    folder, files = kept
    name = data.draw(st.sampled_from(sorted(files)))
    place = data.draw(st.integers(0, len(files[name]) - 1))
    damaged = bytearray(files[name])
    damaged[place] ^= data.draw(st.integers(1, 255))
    path = folder / "data" / "samples" / "toy" / name
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(folder))
        try:
            path.write_bytes(damaged)
            with pytest.raises(
                CrystalError, match="git checkout -- data/samples/toy.*make resample LADDER=toy"
            ) as error:
                store.load_readouts("toy")
        finally:
            path.write_bytes(files[name])
        sentence = str(error.value)
        assert str(path) in sentence and "corrupt" in sentence
        if name.endswith(".parquet"):
            assert (
                hashlib.sha256(damaged).hexdigest() in sentence
                and hashlib.sha256(files[name]).hexdigest() in sentence
            )


def test_a_missing_shard_is_named(toy):
    path = sorted((manifest.folder_of("toy") / "shards").iterdir())[0]
    path.unlink()
    said = f"a shard .* names by sha256 {path.stem}.* cannot be read: No such file.*git checkout"
    with pytest.raises(CrystalError, match=said):
        store.load_readouts("toy")
    report = store.verify("toy")
    assert (
        len(report.problems) == 1
        and str(path) in str(report)
        and report.missing == 5 * 2 * 200 - 1000
    )


def rewritten(change):
    """Write toy's first shard again after `change` to its table, and its line; as a forger
    would."""
    folder, (first, *others) = manifest.folder_of("toy"), manifest.records("toy")
    blob = store.packed(
        change(
            store.unpacked(manifest.verified("toy", first)).cast(store.SCHEMAS[manifest.SAMPLES])
        )
    )
    record = first | {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
    manifest.shard_path("toy", first).unlink()
    manifest.shard_path("toy", record).write_bytes(blob)
    (folder / "manifest.jsonl").write_bytes(b"".join(map(manifest._line, [record, *others])))


def column(table, name, values):
    place = table.column_names.index(name)
    return table.set_column(
        place,
        store.SCHEMAS[manifest.SAMPLES].field(name),
        pa.array(values, store.SCHEMAS[manifest.SAMPLES].field(name).type),
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: column(table, "invalid", [0.3] * len(table)), "a stored distribution"),
        (lambda table: column(table, "invalid", [-0.1] * len(table)), "a stored distribution"),
        (lambda table: pa.concat_tables([table, table]), "cells are there twice"),
    ],
    ids=["sum", "negative", "twice"],
)
def test_verify_reads_what_a_right_hash_hides(toy, change, said):
    assert store.verify("toy").problems == () and store.verify("toy").cells == 1200
    rewritten(change)
    assert said in " ".join(store.verify("toy").problems)


def test_what_is_no_shard_is_a_sentence(toy):
    (first, *_), folder = manifest.records("toy"), manifest.folder_of("toy")
    record = first | {"sha256": hashlib.sha256(b"none").hexdigest(), "bytes": 4}
    manifest.shard_path("toy", record).write_bytes(b"none")
    (folder / "manifest.jsonl").write_bytes(manifest._line(record))
    with pytest.raises(CrystalError, match="a shard holds no read-outs.*git checkout"):
        store.load_readouts("toy")
    assert len(store.verify("toy").problems) == 1


# ---- what is missing


def manifest_of(name, kind=manifest.SAMPLES):
    return manifest.folder_of(name, kind) / "manifest.jsonl"


@pytest.fixture
def full(root, monkeypatch):
    """A ladder that holds all its description asks for."""
    monkeypatch.setattr(store, "PHASE_TASKS", ("coin",))
    answers = synthetic.crystallizing(("coin",), seed=4)
    synthetic.write_ladder(root, "toy", answers, other=answers)
    sums.record()
    assert store.verify("toy").faults == 0 and main(["verify"]) == 0
    return root


@pytest.mark.parametrize(
    "loss",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: shutil.rmtree(path.parent),
        lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2])),
    ],
    ids=["empty manifest", "no manifest", "no folder", "lines cut out"],
)
def test_verify_reports_what_is_missing(full, loss, capsys):
    loss(manifest_of("toy"))
    report = store.verify("toy")
    assert report.missing >= 200 and report.problems == () and report.faults == 1
    assert main(["verify"]) == 2 and main(["verify", "toy"]) == 2
    said = capsys.readouterr()
    assert (
        f"{report.missing} cells that the description of toy asks for are missing, first checkpoint"
        in said.out
    )
    assert "git checkout -- data/samples/toy, or make resample LADDER=toy" in said.out
    assert "safe to delete" not in said.out and "are missing or not what" in said.err
    assert ("they may hold the missing cells, so keep them" in said.out) == bool(report.unlisted)


def test_verify_names_logs_that_no_description_names(full, capsys):
    (full / "data" / "ladders" / "toy.yaml").unlink()
    (full / "data" / "draws" / "yot").mkdir(parents=True)
    assert main(["verify"]) == 2
    said = capsys.readouterr().out
    for folder in ("data/samples/toy", "data/draws/yot"):
        assert f"{folder} belongs to a ladder that no description names. Hint: git checkout" in said


def test_a_hub_ladder_may_be_read_in_part(root, capsys):
    answers = synthetic.crystallizing(("coin",), ladders.STAGES, seed=4)
    synthetic.write_ladder(root, "far", answers, hub=True)
    sums.record()
    assert main(["verify"]) == 0 and store.verify("far").missing > 0
    assert " missing" in capsys.readouterr().out


def test_unlisted_files_are_safe_where_nothing_is_missing(full, capsys):
    left = manifest.folder_of("toy") / "shards" / "0123456789abcdef.parquet"
    left.write_bytes(b"half")
    assert main(["verify"]) == 0 and "safe to delete" in capsys.readouterr().out


def test_every_shipped_ladder_is_whole():
    """What the repository ships: each cell of each grid in all fifteen tasks, and the draws."""
    for name in ladders.ladder_names():
        assert store.verify(name).faults == 0
    drawn_ = [name for name in ladders.ladder_names() if ladders.load_ladder(name).drawn]
    assert drawn_ == manifest.logs(manifest.DRAWS) and all(
        drawn.verify(name).faults == 0 for name in drawn_
    )


# ---- writing


def test_a_cell_is_written_at_most_once(toy, root):
    before = contents(root)
    checkpoint = {
        "source": "data/weights/toy/base",
        "revision": hashlib.sha256(b"toy/base").hexdigest(),
    }
    again = synthetic.rows(
        checkpoint, "completion", {"coin": toy["base"]["coin"], "die": np.full((100, 6), 1 / 6)}
    )
    with pytest.raises(CrystalError, match="100 of 200 cells would be there twice"):
        store.append("toy", again, synthetic.PROVENANCE)
    fresh = again[100:]
    with pytest.raises(CrystalError, match="1 of 101 cells would be there twice"):
        store.append("toy", [*fresh, fresh[3]], synthetic.PROVENANCE)
    assert contents(root) == before
    store.append("toy", fresh, synthetic.PROVENANCE)
    assert {row.cell.key for row in fresh} < store.keys("toy")


def test_a_line_cut_anywhere_is_a_shard_never_written(root):
    distributions = {
        task: np.full((100, len(TASKS[task].options)), 1 / len(TASKS[task].options))
        for task in ("coin", "die", "suit")
    }
    parts = [
        synthetic.rows(CHECKPOINT, "completion", {task: distributions[task]})
        for task in distributions
    ]
    store.append("toy", parts[0], synthetic.PROVENANCE)
    path = manifest.folder_of("toy") / "manifest.jsonl"
    whole = path.read_bytes()
    store.append("toy", parts[1], synthetic.PROVENANCE)
    line = path.read_bytes()[len(whole) :]
    for cut in range(len(line)):
        path.write_bytes(whole + line[:cut])
        assert len(manifest.records("toy")) == 1
    for cut in (1, len(line) // 2, len(line) - 1):
        path.write_bytes(whole + line[:cut])
        assert len(store.keys("toy")) == 100
        store.append(
            "toy", parts[1], synthetic.PROVENANCE
        )  # the next writer cuts the torn line off
        assert path.read_bytes() == whole + line
    path.write_bytes(
        whole + b'{"bytes":"' + b"1" * 5000
    )  # longer than the line that takes its place
    store.append("toy", parts[2], synthetic.PROVENANCE)
    assert [record["tasks"] for record in manifest.records("toy")] == [["coin"], ["suit"]]
    assert len(manifest.unlisted("toy")) == 1


def test_half_a_shard_of_a_killed_writer_is_swept_up(toy):
    left = manifest.folder_of("toy") / "shards" / "0123456789abcdef.tmp"
    left.write_bytes(b"half")
    assert manifest.unlisted("toy") == (left.name,)
    assert "1 unlisted files (0123456789abcdef.tmp)" in str(store.verify("toy"))
    store.append("toy", synthetic.rows(CHECKPOINT, "completion", COIN), synthetic.PROVENANCE)
    assert manifest.unlisted("toy") == ()


@pytest.mark.parametrize("place", [-1, -2, 0])
def test_a_damaged_line_is_never_taken_for_a_torn_one(toy, place):
    """All 255 ways to damage the last newline, or a brace, are found."""
    path = manifest.folder_of("toy") / "manifest.jsonl"
    good = path.read_bytes()
    for flip in range(1, 256):
        bad = bytearray(good)
        bad[place] ^= flip
        path.write_bytes(bad)
        with pytest.raises(CrystalError, match="a manifest line is corrupt"):
            manifest.records("toy")


class Full:
    """os.write that takes some bytes and then finds the disk full, from its nth call on."""

    def __init__(self, nth):
        self.calls, self.nth, self.write = 0, nth, os.write

    def __call__(self, handle, data):
        self.calls += 1
        if self.calls < self.nth:
            return self.write(handle, data)
        if self.calls == self.nth:
            return self.write(handle, data[:40])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("nth", [1, 2], ids=["shard", "manifest"])
def test_a_full_disk_keeps_nothing_and_says_so(toy, root, nth, monkeypatch):
    before, rows = contents(root), synthetic.rows(CHECKPOINT, "completion", COIN)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", Full(nth))
        with pytest.raises(
            CrystalError, match="could not write 100 cells: No space.*none .* kept.*free disk"
        ):
            store.append("toy", rows, synthetic.PROVENANCE)
    assert contents(root) == before
    store.append("toy", rows, synthetic.PROVENANCE)
    assert store.verify("toy").problems == ()


@pytest.mark.parametrize(
    "nth", range(4), ids=["shard", "its folder", "manifest's folder", "manifest"]
)
def test_a_disk_that_does_not_sync_keeps_nothing(toy, root, nth, monkeypatch):
    before, calls = contents(root), iter(range(100))

    def fsync(handle):
        if next(calls) == nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(CrystalError, match="Input/output error; none of them was kept"):
            store.append(
                "toy", synthetic.rows(CHECKPOINT, "completion", COIN), synthetic.PROVENANCE
            )
    assert contents(root) == before


# ---- kills and rivals: children that write to the same ladder

CHILD = """
import os, signal, sys
import numpy as np
import synthetic
from crystal.ask.tasks import TASKS
from crystal.keep import store

PARTS = "coin die suit ten digit even odd prime month rank letter weekday colour d20".split()
CHECKPOINT = {"source": "data/weights/toy/base", "revision": "a" * 64}

def rows(task):
    k = len(TASKS[task].options)
    return synthetic.rows(CHECKPOINT, "completion", {task: np.full((100, k), 1 / k)})

def fill(parts=PARTS):
    there = store.keys("toy")
    for task in parts:
        if rows(task)[0].cell.key not in there:
            store.append("toy", rows(task), synthetic.PROVENANCE)
            print(task, flush=True)
"""


def child(root, body, **kwargs):
    here = Path(__file__).parent
    environment = os.environ | {"CRYSTAL_ROOT": str(root), "PYTHONPATH": f"{here.parent}:{here}"}
    code = CHILD + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, **kwargs
    )


def whole(parts=14):
    """All the cells are there, each once."""
    keys = store.keys_of(store.read("toy"))
    return len(keys) == len(set(keys)) == 100 * parts


def test_a_kill_at_a_random_moment_loses_and_repeats_nothing(root):
    """Must pass at any moment: a failure is a bug, never bad luck."""
    random.seed(0)
    told = []
    for _ in range(6):
        process = child(root, "print('ready', flush=True); fill()")
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        told += process.communicate()[0].split()
        assert set(told) <= {task for record in manifest.records("toy") for task in record["tasks"]}
    last = child(root, "fill()")
    told += last.communicate()[0].split()
    assert last.returncode == 0 and len(told) == len(set(told)) and whole()
    assert not list((manifest.folder_of("toy") / "shards").glob("*.tmp"))


def test_a_kill_before_any_system_call_loses_and_repeats_nothing(root):
    """Before its nth write, sync, rename or truncation, or half-way through the write."""
    body = """
        def dying(nth, half):
            calls = iter(range(1000))
            def trap(call):
                def trapped(*arguments):
                    if next(calls) == nth:
                        if half and call is write:
                            call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                        os.kill(os.getpid(), signal.SIGKILL)
                    return call(*arguments)
                return trapped
            write = os.write
            for name in ("write", "fsync", "replace", "ftruncate", "lseek"):
                setattr(os, name, trap(getattr(os, name)))

        kills = 0
        for nth, half in [(n, half) for n in range(10) for half in (False, True)]:
            if (pid := os.fork()) == 0:  # no shard is read before: no thread is lost in the fork
                dying(nth, half)
                fill(PARTS[: 1 + nth // 2])
                os._exit(0)
            kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        fill()
        print("kills", kills)
    """
    process = child(root, body)
    said = process.communicate()[0].split()
    assert process.returncode == 0 and int(said[-1]) >= 10
    assert whole()


def test_two_writers_take_turns(root):
    both = [child(root, f"fill(PARTS[{i}::2])") for i in range(2)]
    assert [process.wait() for process in both] == [0, 0] and whole()


def test_rivals_for_the_same_cells(root):
    body = """
        from crystal.errors import CrystalError
        for task in PARTS:
            try:
                store.append("toy", rows(task), synthetic.PROVENANCE)
                print("won")
            except CrystalError as error:
                assert "100 of 100 cells would be there twice" in str(error)
    """
    both = [child(root, body) for _ in range(2)]
    said = "".join(process.communicate()[0] for process in both)
    assert (
        [process.returncode for process in both] == [0, 0] and said.count("won") == 14 and whole()
    )


def test_a_file_size_limit_is_a_sentence(root):
    """The same as a full disk, but refused by the kernel."""
    body = """
        import resource
        from crystal.errors import CrystalError
        store.append("toy", rows("coin"), synthetic.PROVENANCE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            store.append("toy", rows("letter"), synthetic.PROVENANCE)
        except CrystalError as error:
            print(error)
    """
    process = child(root, body)
    assert (
        "could not write 100 cells: File too large; none of them was kept"
        in process.communicate()[0]
    )
    assert process.returncode == 0 and whole(parts=1) and manifest.unlisted("toy") == ()


def test_reading_loads_nothing_heavy():
    code = (
        "import crystal.keep.store, crystal.keep.resample, sys\n"
        "print({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    )
    here = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=True
    )
    assert done.stdout == "set()\n"
