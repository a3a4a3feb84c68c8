"""How a text is cut: of a large tokenizer, only what its words need is built.

The merges of 262,144 tokens take seconds. But a merge can only make a part of a word: a BPE of the
tokens that are parts of the words, and of the merges that make them, in their order, cuts these
words as the whole one does. What it takes is kept in the cache, in arrays.
"""

from __future__ import annotations

import gc
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..ask.sources import LARGE, digest, tokenizer_at
from ..files import PACKAGE, file_sha256, kept

_BYTE = re.compile("<0x[0-9A-F]{2}>")
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")


@dataclass
class Cutter:
    """A tokenizer that is whole."""

    tokenizer: PreTrainedTokenizerBase
    revision: str  # sha256 of tokenizer.json and chat template
    key: tuple[str, ...] = ()  # what its tokens rest on; empty where nothing is worth keeping

    def prepare(self, text: str) -> None:
        """To be called before the tokenizer cuts a text."""

    def whole(self) -> PreTrainedTokenizerBase:
        """The tokenizer, for any text."""
        return self.tokenizer

    decoding = whole  # where only decoding is asked for


def cutter_at(place: str, revision: str) -> Cutter:
    """The tokenizer of a folder or hub id. Raises: as `tokenizer_at`."""
    file = Path(place) / "tokenizer.json"
    if file.is_file() and file.stat().st_size > LARGE and (lean := Lean.of(file)):
        return lean
    return Cutter(*tokenizer_at(place, revision))


class Lean(Cutter):
    """A byte-pair tokenizer of a folder, with the tokens of the texts that it was prepared for."""

    def __init__(self, tokenizer, revision: str, key: tuple[str, ...], parts: dict) -> None:
        super().__init__(tokenizer, revision, key)
        self.backend = tokenizer.backend_tokenizer
        self.names: list[str] = _read(parts["names"])
        self.how: dict[str, Any] = _read(parts["how"])
        self.ids, self.merges = parts["ids"], parts["merges"]
        self.number = {name: i for i, name in enumerate(self.names)}
        self.most = max(map(len, self.names))  # characters: a word may be the whole of a text
        first = [i for name, i in self.number.items() if _first(name, self.how)]
        letters = [*first, *(i for name, i in self.number.items() if len(name) == 1)]
        self.letters, self.fitted = self._model(letters), self._model(first)
        self.known, self.words = np.zeros(len(self.names), bool), set()
        self.known[first] = True
        self.complete = False

    @classmethod
    def of(cls, file: Path) -> Lean | None:
        """None for another kind of tokenizer, or one whose class changes what the file says."""
        sha256, code = file_sha256(file), file_sha256(PACKAGE / "read" / "cutting.py")
        key = sha256, code, *map(version, ("tokenizers", "transformers"))
        try:
            with _uncollected():
                parts = kept("cuts", key, lambda: _parts(file))
            tokenizer = _framed(file.parent, bytes(parts["template"]))
            says = tokenizer.backend_tokenizer.to_str()
            if _alike(says, Tokenizer.from_buffer(bytes(parts["template"])).to_str()):
                return cls(tokenizer, digest(file, tokenizer), (*key, says), parts)
        except Exception:  # its class may fail, its file be damaged: the whole says why
            pass
        return None

    def prepare(self, text: str) -> None:
        if self.complete:
            return
        self.backend.model = self.letters
        new = _words(self.backend, text) - self.words
        parts = {w[a:b] for w in new for b in range(1, len(w) + 1) for a in range(b)[-self.most :]}
        found = [self.number[part] for part in parts if part in self.number]
        self.words |= new
        if not self.known[found].all():
            self.known[found] = True
            merges = self.merges[self.known[self.merges[:, 2]]]
            self.fitted = self._model(np.flatnonzero(self.known).tolist(), merges.tolist())
        self.backend.model = self.fitted

    def whole(self) -> PreTrainedTokenizerBase:
        if not self.complete:
            self.backend.model = self._model(range(len(self.names)), self.merges.tolist())
            self.complete = True
        return self.tokenizer

    def decoding(self) -> PreTrainedTokenizerBase:
        """All of its tokens, and no merge."""
        if not self.complete:
            self.backend.model = self._model(range(len(self.names)))
        return self.tokenizer

    def _model(self, some: Iterable[int], merges: Iterable = ()) -> BPE:
        names = self.names
        pairs = [(names[a], names[b]) for a, b, _ in merges]
        return BPE(vocab={names[i]: int(self.ids[i]) for i in some}, merges=pairs, **self.how)


def _first(name: str, how: dict[str, Any]) -> bool:
    """Whether a token may stand for characters that have none of their own."""
    return name == how.get("unk_token") or bool(_BYTE.fullmatch(name))


def _alike(*said: str) -> bool:
    """Whether two descriptions cut and decode alike: the same but for what bears on offsets, and
    for which added tokens are special, as the configuration may say.
    """
    one, other = (json.loads(text, object_hook=_bearing) for text in said)
    for told in (one, other):
        if told["decoder"] and told["decoder"]["type"] == "ByteLevel":
            told["decoder"] = "ByteLevel"  # its settings are for the way there
    return one == other


def _bearing(told: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in told.items() if name not in ("special", "trim_offsets")}


def _words(backend: Tokenizer, text: str) -> set[str]:
    """What the pre-tokenizer leaves whole, by a backend that knows only letters."""
    found = backend.encode(text, add_special_tokens=False)
    words: dict[tuple, str] = {}
    for letter, word in zip(found.tokens, found.word_ids, strict=True):
        words[word] = words.get(word, "") + letter
    return set(words.values())


def _parts(file: Path) -> dict[str, np.ndarray]:
    """Names and ids of all tokens, merges as numbers of names (left, right, made), and the file
    with the added tokens alone. Raises: ValueError or LookupError where it is no plain BPE.
    """
    told = json.loads(file.read_bytes())
    model = told["model"]
    vocab, merges = model.pop("vocab"), model.pop("merges")
    odd = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    # else a word may be a token of its own, and a letter of it none
    odd = odd or (model.get("ignore_merges") and "ByteLevel" not in str(told["pre_tokenizer"]))
    if model.pop("type") != "BPE" or model.get("dropout") or odd:
        raise ValueError("no plain BPE")
    number = {name: i for i, name in enumerate(vocab)}
    pairs = (one.split(" ") if isinstance(one, str) else one for one in merges)
    left, right = zip(*pairs, strict=True)
    made = [map(number.__getitem__, names) for names in (left, right, map(add, left, right))]
    how = {name: value for name, value in model.items() if value is not None}
    few = {name: i for name, i in vocab.items() if _first(name, how)}
    few |= {token["content"]: token["id"] for token in told["added_tokens"]}
    told["model"] = {"type": "BPE", **model, "vocab": few, "merges": []}
    return {
        "template": _written(told),
        "how": _written(how),
        "names": _written([*vocab]),
        "ids": np.array([*vocab.values()], np.int64),
        "merges": np.stack([np.fromiter(one, np.int32, len(left)) for one in made], 1),
    }


@contextmanager
def _uncollected() -> Iterator[None]:
    """Of millions of new objects, the garbage collector looks for circles in vain, for seconds."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _written(value: object) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _read(array: np.ndarray) -> Any:
    return json.loads(bytes(array))


def _framed(folder: Path, frame: bytes) -> PreTrainedTokenizerBase:
    """The tokenizer that transformers makes of a folder whose tokenizer.json is `frame`."""
    with tempfile.TemporaryDirectory() as aside:
        for path in folder.iterdir():
            if path.name != "tokenizer.json" and path.suffix not in _WEIGHTS:
                (Path(aside) / path.name).symlink_to(path.resolve())
        (Path(aside) / "tokenizer.json").write_bytes(frame)
        tokenizer = AutoTokenizer.from_pretrained(aside, trust_remote_code=False)
    tokenizer.name_or_path = str(folder)
    return tokenizer
