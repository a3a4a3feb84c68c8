"""Of a large tokenizer only what a text needs is built, and it cuts as the whole one does; what is
kept in the cache is taken only where it is what was put there.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from real_tokenizers import REAL, folder_of
from tokenizers import Tokenizer

from crystal.ask.prompts import FORMS
from crystal.ask.sources import PROBES, tokenizer_at
from crystal.files import cache, kept
from crystal.read import cutting
from crystal.read.cutting import Cutter, Lean, cutter_at
from crystal.read.engine import Engine, load

CUTS = {"bytes": tiny.trained_tokenizer, "sentencepiece": tiny.sentencepiece_tokenizer}


HERE = cache()  # real tokenizers lie here


@pytest.fixture(scope="module", autouse=True)
def all_are_large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "LARGE", 0)
        patch.setenv("CRYSTAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("CRYSTAL_CACHE", str(tmp_path / "cache"))
    return cache()


def of(folder: Path) -> Lean:
    found = cutter_at(str(folder), "main")
    assert isinstance(found, Lean)
    return found


def same(lean: Lean, own: Tokenizer, texts: list[str]) -> None:
    for text in texts:
        lean.prepare(text)
        for special in (False, True):
            mine = lean.backend.encode(text, add_special_tokens=special)
            assert mine.ids == own.encode(text, add_special_tokens=special).ids, text


@pytest.fixture(scope="module", params=[*CUTS])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    CUTS[request.param]().save_pretrained(found := tmp_path_factory.mktemp("tokenizer"))
    return found


@pytest.fixture(scope="module")
def own(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def growing(folder: Path) -> Lean:
    return of(folder)


def test_texts_one_after_another(folder: Path, own: Tokenizer) -> None:
    same(of(folder), own, ["", *PROBES, "<s>a</s> b", *PROBES])


@given(text=st.text(max_size=20))
def test_any_text(growing: Lean, own: Tokenizer, text: str) -> None:
    same(growing, own, [text])


def test_a_long_text_without_a_cut(folder: Path, own: Tokenizer) -> None:
    """All parts of such a word would be gigabytes of text."""
    same(of(folder), own, ["ab7" * 10_000])


def test_the_whole_is_what_the_file_says(folder: Path, own: Tokenizer) -> None:
    lean = of(folder)
    lean.prepare("A digit:")
    assert lean.decoding().backend_tokenizer.get_vocab() == own.get_vocab()
    assert lean.whole().backend_tokenizer.to_str() == own.to_str()
    same(lean, own, [*PROBES])


def test_the_name_of_the_tokenizer_is_the_same(folder: Path) -> None:
    lean, (whole, revision) = of(folder), tokenizer_at(str(folder), "main")
    assert lean.revision == revision and type(lean.tokenizer) is type(whole)
    assert lean.tokenizer.special_tokens_map == whole.special_tokens_map
    assert lean.tokenizer.chat_template == whole.chat_template


@pytest.mark.parametrize("name", [*REAL])
def test_real_tokenizers_cut_as_their_files_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYSTAL_CACHE", str(HERE))
    folder = folder_of(name)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (lean := Lean.of(folder / "tokenizer.json")) is None:
        assert name in ("llama 2", "olmo 2")  # their classes say it in other ways
        return
    added = [token.content for token in own.get_added_tokens_decoder().values()]
    texts = [f"a {mark} b{mark}\n{mark}c" for mark in added[:9] + added[-9:]]
    draw = np.random.default_rng(0).choice
    points = [*range(9, 0x2FF), 0x301, 0x200D, 0x2581, 0x4E2D, 0xFFFD, 0x1F600]
    texts += ["".join(map(chr, draw(points, 20))) for _ in range(50)]
    same(lean, own, [*PROBES, *texts])
    assert not lean.complete and lean.known.sum() < len(lean.names) / 4
    whole, _ = tokenizer_at(str(folder), "main")
    assert lean.whole().backend_tokenizer.to_str() == whole.backend_tokenizer.to_str()
    assert lean.tokenizer.all_special_ids == whole.all_special_ids


# -- checkpoints


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
    assert isinstance(again.cutter, Lean) and len([*cache().rglob("*.npz")]) == 2
    monkeypatch.setattr(cutting, "LARGE", 2**40)
    whole = load(checkpoint)
    assert type(whole.cutter) is Cutter
    assert facts(new) == facts(again) == facts(whole)


class Harm:
    def __reduce__(self):
        return os.mkdir, (str(cache() / "harmed"),)


def test_damaged_and_foreign_caches_are_made_anew(
    checkpoint: Path, empty: Path, tmp_path: Path
) -> None:
    right, files = facts(load(checkpoint)), [*cache().rglob("*.npz")]
    other = tiny.sentencepiece_tokenizer()
    other.save_pretrained(tmp_path / "other")
    of(tmp_path / "other")
    (foreign,) = {*cache().glob("cuts/*.npz")} - {*files}
    for file in files:
        sound = file.read_bytes()
        flipped = bytearray(sound)
        flipped[len(sound) // 2] ^= 1
        forged = dict(np.load(file))
        name = "ids" if "ids" in forged else "order"
        forged[name] = forged[name][::-1].copy()
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
