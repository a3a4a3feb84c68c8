"""Checkpoints, tokens and prompts: what is loaded is what was asked for, and bad input is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from crystal.ask.ladders import Checkpoint, weights_sha256
from crystal.ask.tasks import TASKS
from crystal.errors import CrystalError
from crystal.read.engine import Engine, build, load, load_checkpoint
from crystal.read.readout import readout
from crystal.read.sampling import draw
from crystal.read.vocabulary import END, VOID, token_pieces


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("checkpoint"), context=96)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load(folder)


def text_of(engine: Engine, ids: list[int]) -> str:
    return b"".join(engine.pieces[i] for i in ids).decode("utf-8", "replace")


def test_pieces_are_the_bytes_of_the_tokens(engine: Engine) -> None:
    rng = np.random.default_rng(3)
    plain = [i for i, piece in enumerate(engine.pieces) if isinstance(piece, bytes)]
    for _ in range(200):
        ids = rng.choice(plain, 12).tolist()
        assert text_of(engine, ids) == engine.tokenizer.decode(ids)
    text = "naïve — 中文 ♥ café, 1,000"
    assert text_of(engine, engine.tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_sentencepiece_pieces() -> None:
    """Byte fall-back, the space mark, an added token, a special one, an id beyond all."""
    names = ["<unk>", "</s>", "<0xC3>", "<0xA9>", "\u2581", "\u25817", "caf", "<0x0A>"]
    backend = Tokenizer(
        models.BPE(
            vocab={n: i for i, n in enumerate(names)},
            merges=[],
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_tokens(["hello there"])
    pieces = token_pieces(tokenizer, {0, 1}, 10)
    assert [*pieces] == [
        END,
        END,
        b"\xc3",
        b"\xa9",
        b" ",
        b" 7",
        b"caf",
        b"\n",
        b"hello there",
        VOID,
    ]


def test_a_vocabulary_of_words_is_refused() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    with pytest.raises(CrystalError, match="neither byte-level nor SentencePiece"):
        token_pieces(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>"), {1}, 2)


def test_one_beginning_in_either_form(engine: Engine) -> None:
    bos = engine.tokenizer.bos_token_id
    for text, form in (
        ("A digit:", "completion"),
        ("A digit?", "chat"),
        ("<s>A digit:", "completion"),
    ):
        ids = engine.encode(text, form)
        assert ids[0] == bos and ids.count(bos) == 1
    assert engine.encode("A digit:", "completion") == engine.encode("<s>A digit:", "completion")
    assert (
        text_of(engine, list(engine.encode("A digit?", "chat")[1:]))
        == "<|user|>\nA digit?\n<|assistant|>\n"
    )


def test_prompts_that_cannot_be_asked(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(CrystalError, match="context holds 96"):
        engine.encode("word " * 200, "completion")
    with pytest.raises(CrystalError, match="context holds 96"):
        readout(engine, [(0,) * 97], TASKS["coin"])
    with pytest.raises(CrystalError, match="context holds 96"):
        draw(engine, (0,) * 97, 1, seed=0, max_tokens=1)
    with pytest.raises(CrystalError, match="empty"):
        readout(engine, [()], TASKS["coin"])
    with pytest.raises(CrystalError, match="unknown form"):
        engine.encode("A digit:", "chats")
    silent = tiny.trained_tokenizer(template=None)
    with pytest.raises(CrystalError, match="no chat template.*--form completion"):
        build(tiny.model("llama", len(silent)), silent).encode("A digit?", "chat")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_the_last_place_of_the_context_can_be_used(kind: str) -> None:
    """The answer's last token needs no forward; GPT-2 has no position beyond."""
    tokenizer = tiny.hand_tokenizer()
    more = {} if kind == "mamba" else {"context": 8}
    small = build(tiny.model(kind, len(tokenizer), **more), tokenizer)
    got = readout(small, [(0, 2, 3, 4, 5, 6)], tiny.OVERLAPPING, tolerance=0, max_depth=4)[0]
    assert got.residual > 0 and got.invalid > 0


def test_loading(engine: Engine, folder: Path) -> None:
    assert (
        engine.ragged
        and engine.context == 96
        and str(next(engine.model.parameters()).dtype) == "torch.float32"
    )
    assert (
        engine.tokenizer_revision == load(folder).tokenizer_revision
        and len(engine.tokenizer_revision) == 64
    )
    sha = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert load(folder, revision=sha).source == str(folder)
    with pytest.raises(CrystalError, match=f"sha256 is {sha}, not 0000"):
        load(folder, revision="0" * 64)


def test_a_description_may_give_a_base_its_template(tmp_path: Path) -> None:
    """A base that has none is asked in chat form by the template of its description."""
    folder = tmp_path / "base"
    tiny.save(folder, tokenizer=tiny.trained_tokenizer(template=None))
    fields = {"ladder": "l", "name": "base", "stage": "base", "step": 0, "source": str(folder)}
    checkpoint = Checkpoint(**fields, revision=weights_sha256(folder), template=tiny.TEMPLATE)
    asked = load_checkpoint(checkpoint, dtype="float32").encode("Hello", "chat")
    told = tiny.trained_tokenizer(template=tiny.TEMPLATE)
    turn = [{"role": "user", "content": "Hello"}]
    rendered = told.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    assert list(asked) == told.encode(rendered, add_special_tokens=False)


def test_the_tokenizer_revision_covers_the_template(
    folder: Path, engine: Engine, tmp_path: Path
) -> None:
    tiny.save(tmp_path, tokenizer=tiny.trained_tokenizer(template=tiny.TEMPLATE + " "))
    assert load(tmp_path).tokenizer_revision != engine.tokenizer_revision


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("data/no/such", "no such folder"),
        ("data/nosuch", "no such folder"),
        ("EMPTY", "no weights in safetensors"),
        ("TORN", "is damaged"),
        ("WORDS", "cannot load"),
    ],
)
def test_what_cannot_be_loaded(source: str, said: str, tmp_path: Path, folder: Path) -> None:
    if source.isupper():
        place = tmp_path / source
        place.mkdir()
        if source != "EMPTY":
            for file in folder.iterdir():
                (place / file.name).write_bytes(file.read_bytes())
        if source == "TORN":
            (place / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:1000]
            )
        if source == "WORDS":
            (place / "config.json").write_text("{}")
        source = str(place)
    with pytest.raises(CrystalError, match=said):
        load(source)
