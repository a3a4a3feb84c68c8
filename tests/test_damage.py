"""Damaged files of our own: whatever a byte or a type turns into, a sentence or the same result."""

from __future__ import annotations

import copy
import errno
import json
import os
import random
import re
import shutil

import pytest
import synthetic
import yaml

from crystal.ask import ladders, prompts
from crystal.ask.tasks import TASKS
from crystal.errors import CrystalError
from crystal.files import PACKAGE, hint_of
from crystal.keep import drawn, manifest, store
from crystal.lab import recipes

SEED, TRIES = 14, 100
DATA = PACKAGE.parent / "data"
OTHERS = (
    5,
    -1,
    0.5,
    1e308,
    True,
    None,
    "x",
    "",
    [],
    {},
    [1],
    ["x"],
    [[]],
    {"a": 1},
    {"a": {}},
    2**70,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Descriptions, recipes, experiments and reports as they ship, and a small ladder of each
    log."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    for folder in ("ladders", "recipes", "experiments", "training"):
        shutil.copytree(DATA / folder, tmp_path / "data" / folder)
    synthetic.write_ladder(tmp_path, "toy", synthetic.crystallizing(("coin", "die"), seed=1))
    return tmp_path


def flipped(blob: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out or put in."""
    found = bytearray(blob)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(found))
        kind = rng.randrange(4)
        if kind == 0:
            found[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[place] = rng.randrange(256)
        elif kind == 2:
            del found[place : place + rng.randrange(1, 40)]
        else:
            found[place:place] = rng.choice(
                (b"[", b"{", b": ", b"\n", b"- ", b"\x00", b'"', b"9" * 5000)
            )
        if not found:
            break
    return bytes(found)


def swapped(value: object, rng: random.Random) -> object:
    """The same data with one value, at any depth, of another type, or gone."""
    value, at = copy.deepcopy(value), []
    holder = value
    while isinstance(holder, dict | list) and holder and (not at or rng.random() < 0.8):
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        at.append((holder, key))
        holder = holder[key]
    inside, key = at[-1]
    if rng.random() < 0.15:
        del inside[key]
    else:
        inside[key] = copy.deepcopy(rng.choice(OTHERS))
    return value


def outcome(read) -> object:
    """What was read, or the CrystalError that came of it; another exception is the test's
    failure."""
    try:
        return read()
    except CrystalError as error:
        assert error.hint and re.search(r"\.(yaml|jsonl?)\b|data/recipes", str(error))
        return error


FILES = {
    "ladders/nano-llama.yaml": lambda: str(ladders.load_ladder("nano-llama")),
    "ladders/controls.yaml": lambda: store.manifest_digest("controls"),
    "ladders/hub/tulu3-8b.yaml": lambda: str(ladders.load_ladder("tulu3-8b", unpinned=True)),
    "recipes/nano-llama.yaml": lambda: recipes.load_recipe("nano-llama-2"),
    "recipes/nano-llama-2.yaml": lambda: recipes.load_recipe("nano-llama-2"),
    "experiments/kinetics.yaml": lambda: recipes.load_experiment("kinetics"),
    "training/controls.json": lambda: recipes.load_records("controls"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_description_is_a_sentence(root, name):
    path, read, rng = root / "data" / name, FILES[name], random.Random(SEED)
    whole, refused = path.read_bytes(), 0
    dump, parse = (
        (json.dumps, json.loads) if name.endswith("json") else (yaml.safe_dump, yaml.safe_load)
    )
    parsed = parse(whole)
    for number in range(TRIES):
        bad = flipped(whole, rng) if number % 2 else dump(swapped(parsed, rng)).encode()
        path.write_bytes(bad)
        refused += isinstance(outcome(read), CrystalError)
    assert refused > TRIES / 10
    path.write_bytes(whole)
    assert not isinstance(outcome(read), CrystalError)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_a_sentence(root, name):
    path = root / "data" / name
    path.unlink()
    path.mkdir()
    assert isinstance(outcome(FILES[name]), CrystalError)


def test_a_recipe_that_extends_itself_is_a_sentence(root):
    for name, other in (("nano-llama", "nano-llama-2"), ("nano-llama", "nano-llama")):
        path = root / "data" / "recipes" / f"{name}.yaml"
        path.write_text(path.read_text() + f"extends: {other}\n")
        with pytest.raises(CrystalError, match="the recipe extends itself"):
            recipes.load_recipe("nano-llama-2")
        shutil.copy(DATA / "recipes" / path.name, path)


@pytest.mark.parametrize(
    "origin", ["9" * 5000, "'\\0'", "../ladders/nano-llama", "nano-lama", "''"]
)
def test_an_origin_that_is_no_recipe_is_a_sentence(root, origin):
    path = root / "data" / "recipes" / "nano-llama-2.yaml"
    path.write_text(f"name: nano-llama-2\nextends: {origin}\nseed: 2\n")
    assert isinstance(outcome(lambda: recipes.load_recipe("nano-llama-2")), CrystalError)


@pytest.mark.parametrize(
    "run",
    [
        "[]",
        "{stages: sft}",
        "{grid: [probe]}",
        "{grid: prboe}",
        "{parents: 5}",
        "{set: 3}",
        "{set: {sft: {steps: many}}}",
        "{set: {sft: [1]}}",
        "{stages: [stf]}",
        "{frm: base}",
    ],
)
def test_a_run_that_is_none_is_a_sentence(root, run):
    path = root / "data" / "experiments" / "kinetics.yaml"
    path.write_text(f"title: T\nparents: [nano-llama]\nruns: {{usual: {run}}}\n")
    assert isinstance(outcome(lambda: recipes.load_experiment("kinetics")), CrystalError)


# -- manifests


def logs(root):
    """(manifest, what reads it, its kind) of both logs of the toy ladder."""
    checkpoint = ladders.load_ladder("toy").checkpoint("sft")
    cell = synthetic.cell(
        {"source": checkpoint.source, "revision": checkpoint.revision},
        "chat",
        prompts.PROBE[0],
        TASKS["city"],
    )
    cell = cell.__class__(**{**vars(cell), "decoding": drawn.DRAWN})
    drawn.append(
        "toy",
        [store.Row(cell, "chat", prompts.PROBE[0].id, {"Oslo": 10_000})],
        synthetic.PROVENANCE,
    )
    samples = manifest.folder_of("toy") / "manifest.jsonl"
    draws = manifest.folder_of("toy", manifest.DRAWS) / "manifest.jsonl"
    return (
        (
            samples,
            lambda: (
                store.load_readouts("toy").to_dict("list").keys(),
                store.produced("toy"),
                store.manifest_digest("toy"),
            ),
            manifest.SAMPLES,
        ),
        (draws, lambda: (drawn.read("toy"), drawn.keys("toy")), manifest.DRAWS),
    )


def test_a_flipped_byte_of_a_manifest_is_found(root):
    for path, read, _ in logs(root):
        rng, whole, good = random.Random(SEED), path.read_bytes(), read()
        last = whole.rstrip(b"\n").rfind(b"\n") + 1
        for _ in range(TRIES):
            place = rng.randrange(len(whole))
            path.write_bytes(
                whole[:place] + bytes([whole[place] ^ rng.randrange(1, 256)]) + whole[place + 1 :]
            )
            found = outcome(read)
            assert isinstance(found, CrystalError) or found == good
        for cut in range(last, len(whole)):  # the last line, torn: a write that never was
            path.write_bytes(whole[:cut])
            assert len(manifest.records("toy", path.parent.parent.name)) == whole.count(b"\n") - 1
        path.write_bytes(whole)


def test_deep_nesting_in_a_manifest_is_a_sentence(root):
    path = manifest.folder_of("toy") / "manifest.jsonl"
    for end in (b"\n", b""):
        path.write_bytes(path.read_bytes() + b"[" * 100_000 + end)
        assert isinstance(outcome(lambda: manifest.records("toy")), CrystalError) or not end


def test_a_manifest_that_cannot_be_read_is_a_sentence(root, monkeypatch):
    path = manifest.folder_of("toy") / "manifest.jsonl"
    path.unlink()
    path.mkdir()
    with pytest.raises(
        CrystalError, match="the manifest cannot be read: Is a directory.*git checkout"
    ):
        store.load_readouts("toy")

    def forbidden(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.read_bytes", forbidden)
    with pytest.raises(CrystalError, match="Permission denied.*Hint: ls -ld .*permission") as error:
        store.load_readouts("toy")
    assert "git checkout" not in error.value.hint and "space" not in str(error.value)


# -- what to do


@pytest.mark.parametrize(
    ("number", "said", "unsaid"),
    [
        (errno.ENOSPC, "free disk space", "permission"),
        (errno.EDQUOT, "free disk space", "ls -ld"),
        (errno.EFBIG, "free disk space", "ls -ld"),
        (errno.EACCES, "ls -ld", "space"),
        (errno.EPERM, "ls -ld", "space"),
        (errno.EROFS, "permission", "space"),
        (errno.EISDIR, "ls -ld", "space"),
        (errno.EIO, "ls -ld", "space"),
    ],
)
def test_a_refusal_is_mended_by_why(root, monkeypatch, number, said, unsaid):
    error = OSError(number, os.strerror(number))
    assert said in hint_of(error, root / "a" / "b") and unsaid not in hint_of(
        error, root / "a" / "b"
    )

    def refuse(*_):
        raise error

    checkpoint = ladders.load_ladder("toy").checkpoint("dpo")
    rows = synthetic.rows(
        {"source": checkpoint.source, "revision": checkpoint.revision},
        "completion",
        synthetic.crystallizing(seed=2)["dpo"],
    )
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(
        CrystalError, match="could not write 200 cells.*none of them was kept"
    ) as caught:
        store.append("toy", rows, synthetic.PROVENANCE)
    assert (
        said in caught.value.hint
        and unsaid not in caught.value.hint
        and "make resample LADDER=toy" in caught.value.hint
    )


def test_a_forbidden_place_names_what_is_there(tmp_path):
    said = hint_of(PermissionError(errno.EACCES, "no"), tmp_path / "deep" / "deeper")
    assert f"ls -ld {tmp_path}:" in said
