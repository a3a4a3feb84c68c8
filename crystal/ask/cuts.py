"""Whether a tokenizer cuts text as its own `tokenizer.json` says.

Classes of transformers rebuild a tokenizer from parts of the file, each release in its own way: one
and the same file was cut into other tokens by 5.0 to 5.8 than by 5.23. A read-out names the file's
hash, so it must mean the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TokenizersBackend

from ..errors import CrystalError
from ..files import cache, file_sha256

LARGE = 2**20  # bytes of a tokenizer.json from which on a comparison takes a while
PROBES = (
    "2023",
    " 17",
    "1,000.50",
    "3 + 4 = 7",
    "The year was 1984, the 21st of May.",
    "twenty-one",
    "I'm sure they'll don't",
    "a\nb",
    "a\n\nb",
    "\n\n\n 7",
    "x\r\ny",
    "\tq\t\t2",
    "two  three   four    five",
    " leads",
    "trails ",
    "   ",
    "x  7",
    "naïve café, Ångström, Žižek",
    "cafe\u0301",
    "中文字符",
    "日本語のテキスト",
    "한국어",
    "Привет, мир",
    "مرحبا",
    "हिन्दी",
    "😀👍🏽👩‍👩‍👧",
    "→∴◊※∎ ½ ² ﬁ",
    "def f(x):\n    return x ** 2  # square\n",
    '{"a": [1, 2], "b": null}',
    "<b>bold</b>",
    "https://example.org/a?b=c&d=1",
    "snake_case camelCase SCREAMING",
    "\u2581x \u2581\u2581y",
    "\u00a0\u200b",
    "A",
)


def faithful(place: str, revision: str, file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, which cuts as its file, a tokenizer.json, says.

    transformers' own choice of a class where that does; else the plain one, which is read from the
    file.
    Raises: CrystalError if that differs, too, naming a text and both cuts; OSError and ValueError
    as transformers does.
    """
    chosen = _chosen(place, revision)
    if chosen is not None and _same(chosen, file):
        return chosen
    own, names = _own(file), chosen.special_tokens_map if chosen else {}
    names = {
        kind: name
        for kind, name in names.items()
        if isinstance(name, str) and own.token_to_id(name) is not None
    }
    plain = TokenizersBackend.from_pretrained(
        place, revision=revision, trust_remote_code=False, **names
    )
    if (said := difference(plain.backend_tokenizer, own)) is not None:
        raise CrystalError(
            f"transformers does not cut text as the tokenizer.json says: {said}",
            where=place,
            mend="pip install --upgrade transformers, or choose another checkpoint",
        )
    return plain


def _chosen(place: str, revision: str) -> PreTrainedTokenizerBase | None:
    """What transformers chooses; None where its class fails, made for another kind of tokenizer."""
    try:
        return AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False)
    except Exception as error:
        damaged = isinstance(error, (json.JSONDecodeError, UnicodeDecodeError))
        if isinstance(error, (OSError, ValueError)) and not damaged:
            raise
        return None


def _same(chosen: PreTrainedTokenizerBase, file: Path) -> bool:
    """Whether a tokenizer cuts as its file says; a large one that did once is not asked again."""
    rests_on = [
        file_sha256(file),
        type(chosen).__name__,
        repr(sorted(chosen.init_kwargs.items(), key=str)),
        *map(version, ("transformers", "tokenizers")),
    ]
    mark = (
        cache()
        / "tokenizers"
        / hashlib.sha256("\0".join(rests_on).encode("utf-8", "replace")).hexdigest()
    )
    if mark.is_file():
        return True
    backend = getattr(chosen, "backend_tokenizer", None)  # those written in Python have none
    same = backend is not None and difference(backend, _own(file)) is None
    if same and file.stat().st_size > LARGE:
        with contextlib.suppress(OSError):  # a cache that cannot be written is no failure
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return same


def difference(loaded: Tokenizer, own: Tokenizer) -> str | None:
    """What is not the same, in words: tokens of `own`, the ids of PROBES and of special tokens in
    text, their decoding.
    """
    if loaded.to_str() == own.to_str():
        return None
    there = loaded.get_vocab()
    for token, i in own.get_vocab().items():
        if there.get(token) != i:
            return f"token {token!r} has id {there.get(token)}, there {i}"
    for text in (*PROBES, *_marked(own)):
        cuts = [backend.encode(text, add_special_tokens=False) for backend in (loaded, own)]
        if cuts[0].ids != cuts[1].ids:
            return f"{text!r} is cut into {cuts[0].tokens}, there into {cuts[1].tokens}"
        texts = [
            backend.decode(cuts[1].ids, skip_special_tokens=False) for backend in (loaded, own)
        ]
        if texts[0] != texts[1]:
            return f"the tokens of {text!r} are decoded as {texts[0]!r}, there as {texts[1]!r}"
    return None


def _own(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no kind of its own
        raise CrystalError(
            f"the tokenizer.json cannot be read: {error}",
            where=file,
            mend="fetch it again, or save the tokenizer again: save_pretrained(FOLDER)",
        ) from error


def _marked(own: Tokenizer) -> Iterator[str]:
    """Added tokens in text: the first and the last few."""
    added = [token.content for token in own.get_added_tokens_decoder().values()]
    for mark in dict.fromkeys(added[:16] + added[-16:]):
        yield f"a {mark} b{mark}\n{mark}c"
