"""A tokenizer cuts text as its own tokenizer.json says, whatever class transformers chooses; else a
sentence.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import tiny
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoTokenizer, TokenizersBackend

from crystal.ask import sources
from crystal.ask.sources import tokenizer_at
from crystal.errors import CrystalError
from crystal.files import root
from crystal.read import engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.trained_tokenizer().save_pretrained(tmp_path / "here")
    return tmp_path / "here"


def class_of(name: str, folder: Path, kind: str) -> Path:
    """The folder, its tokenizer said to be of another class."""
    described = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(described | {"tokenizer_class": name}))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return folder


@pytest.mark.parametrize("checkpoint", ["nano-llama/base", "nano-llama/rlvr", "nano-olmo2/base"])
def test_the_organisms_are_named_by_their_files_as_before(checkpoint: str) -> None:
    place = root() / "data/weights" / checkpoint
    tokenizer, revision = tokenizer_at(str(place), "main")
    expected = (place / "tokenizer.json").read_bytes() + str(tokenizer.chat_template).encode()
    assert revision == hashlib.sha256(expected).hexdigest()
    assert type(tokenizer) is type(AutoTokenizer.from_pretrained(place))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Qwen2Tokenizer", "qwen2"), ("GPT2Tokenizer", "gpt2"), ("LlamaTokenizer", "llama")],
)
@pytest.mark.parametrize("cut", [tiny.sentencepiece_tokenizer, tiny.trained_tokenizer])
def test_the_file_is_right_where_the_class_is_not(
    name: str, kind: str, cut, tmp_path: Path
) -> None:
    """Such as SentencePiece under Qwen's name, which ended in a KeyError."""
    cut().save_pretrained(tmp_path)
    tokenizer, _ = tokenizer_at(str(class_of(name, tmp_path, kind)), "main")
    own = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("2023", "twenty-one ways", " 17", "a\n\n b", "naïve 中", "A digit:"):
        assert (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            == own.encode(text, add_special_tokens=False).ids
        )
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")


class Otherwise:
    """Loads a tokenizer that takes digits together, as 5.0 to 5.8 did with OLMo 2."""

    @staticmethod
    def from_pretrained(place: str, **settings) -> TokenizersBackend:
        tokenizer = TokenizersBackend.from_pretrained(place, **settings)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return tokenizer


def test_another_cut_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = tokenizer_at(str(folder), "main")[0](" 17 is")["input_ids"]
    monkeypatch.setattr(sources, "AutoTokenizer", Otherwise)
    assert Otherwise.from_pretrained(str(folder))(" 17 is")["input_ids"] != right
    assert tokenizer_at(str(folder), "main")[0](" 17 is")["input_ids"] == right


def test_a_difference_names_the_text_and_both_cuts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "AutoTokenizer", Otherwise)
    monkeypatch.setattr(sources, "TokenizersBackend", Otherwise)
    with pytest.raises(
        CrystalError, match=r"' 17' is cut into \['1', '7'\], there into \['Ġ', '1', '7'\]"
    ):
        tokenizer_at(str(folder), "main")


def test_other_tokens_and_other_decoding_are_differences(folder: Path) -> None:
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    fewer = json.loads(own.to_str())
    fewer["model"]["vocab"]["moved"] = fewer["model"]["vocab"].pop(
        next(reversed(fewer["model"]["vocab"]))
    )
    fewer["model"]["merges"] = fewer["model"]["merges"][:-1]
    assert "has id None" in sources.difference(Tokenizer.from_str(json.dumps(fewer)), own)
    silent = json.loads(own.to_str()) | {"decoder": None}
    assert "are decoded as" in sources.difference(Tokenizer.from_str(json.dumps(silent)), own)


def test_more_tokens_than_the_file_has_are_none(folder: Path) -> None:
    """tokenizer_config.json may add some."""
    more = Tokenizer.from_file(str(folder / "tokenizer.json"))
    more.add_special_tokens(["<extra>"])
    assert sources.difference(more, Tokenizer.from_file(str(folder / "tokenizer.json"))) is None


def test_no_tokenizer_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CrystalError, match="no tokenizer.json.*save_pretrained"):
        tokenizer_at(str(folder), "main")


@pytest.mark.parametrize("content", ["", "{", '{"model": 1}', "\ufffd"])
def test_a_damaged_tokenizer_file(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(CrystalError, match="tokenizer.json cannot be read"):
        tokenizer_at(str(folder), "main")


def test_a_tokenizer_in_python_gives_way_to_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InPython:
        special_tokens_map, init_kwargs = {"eos_token": "</s>"}, {}

        @classmethod
        def from_pretrained(cls, *_, **__) -> InPython:
            return cls()

    right = tokenizer_at(str(folder), "main")[0](" 17 is")["input_ids"]
    monkeypatch.setattr(sources, "AutoTokenizer", InPython)
    assert tokenizer_at(str(folder), "main")[0](" 17 is")["input_ids"] == right


def test_a_refusal_of_a_tokenizer_is_said_once(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CrystalError) as refused:
        engine.load(folder)
    assert str(refused.value).startswith("the tokenizer has no tokenizer.json")
    assert str(refused.value).count("Hint:") == 1
