"""What is kept in the cache is taken only where it is what was put there."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny

from crystal.ask.prompts import FORMS
from crystal.files import cache, kept
from crystal.read import engine as engines
from crystal.read.engine import Engine, load


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "MANY", 0)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("CRYSTAL_CACHE", str(tmp_path / "cache"))
    return cache()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny.save(tmp_path / "checkpoint", context=96)


def facts(engine: Engine) -> tuple:
    asked = [engine.encode(text, form) for text in ("A digit:", "Say 7") for form in FORMS]
    trie = [getattr(engine.vocabulary, name).tolist() for name in ("order", "low", "child", "own")]
    return asked, engine.pieces, trie, engine.tokenizer_revision, engine.tokenizer("a b")


def test_an_engine_is_the_same_new_kept_and_whole(
    checkpoint: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, again = load(checkpoint), load(checkpoint)
    assert len([*cache().rglob("*.npz")]) == 1
    monkeypatch.setattr(engines, "MANY", 2**40)
    whole = load(checkpoint)
    assert facts(new) == facts(again) == facts(whole)


class Harm:
    def __reduce__(self):
        return os.mkdir, (str(cache() / "harmed"),)


def test_damaged_and_foreign_caches_are_made_anew(
    checkpoint: Path, empty: Path, tmp_path: Path
) -> None:
    right = facts(load(checkpoint))
    (file,) = cache().rglob("*.npz")
    kept("vocabularies", ("another",), lambda: {"order": np.arange(3)})
    (foreign,) = {*cache().rglob("*.npz")} - {file}
    sound = file.read_bytes()
    flipped = bytearray(sound)
    flipped[len(sound) // 2] ^= 1
    forged = dict(np.load(file))
    forged["order"] = forged["order"][::-1].copy()
    np.savez(tmp_path / "forged.npz", **forged)
    np.savez(tmp_path / "objects.npz", sha256=np.array([Harm()], object))
    crafted = [(tmp_path / f"{name}.npz").read_bytes() for name in ("forged", "objects")]
    pickled = pickle.dumps(Harm())
    for bad in (b"", sound[:-9], bytes(flipped), foreign.read_bytes(), pickled, *crafted):
        file.write_bytes(bad)
        assert facts(load(checkpoint)) == right
        assert file.read_bytes() == sound and not (cache() / "harmed").exists()


def test_a_cache_that_cannot_be_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = facts(load(checkpoint))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CRYSTAL_CACHE", str(tmp_path / "file"))
    assert facts(load(checkpoint)) == right


def test_what_was_made_of_other_things_is_not_taken(empty: Path) -> None:
    """Though it lies under the right name."""
    for key, n in ((1, 3), (2, 2)):
        assert len(kept("kind", (key,), lambda n=n: {"x": np.arange(n)})["x"]) == n
        assert len(kept("kind", (key,), dict)["x"]) == n
    one, two = (empty / "kind").iterdir()
    swapped = one.read_bytes(), two.read_bytes()
    two.write_bytes(swapped[0]), one.write_bytes(swapped[1])
    assert [kept("kind", (key,), dict) for key in (1, 2)] == [{}, {}]
