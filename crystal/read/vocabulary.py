"""What a tokenizer means: the bytes of its tokens, checked, and prompts as token ids.

A token's bytes are guessed from its string in the vocabulary and compared, for every id, with what
the tokenizer decodes in context. Where they differ, decoding is right; where it depends on the
tokens beside it, the tokenizer is refused. So is a chat template that does not render words of ours
whole, white space at their ends apart, or leaves the assistant's turn closed.
"""

from __future__ import annotations

import datetime
import itertools
import pickle
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import files
from ..ask.prompts import CHAT, FORMS, joined
from ..errors import CrystalError, known
from ..texts import reason

END = object()  # in place of bytes: a token that ends the answer
VOID = object()  # an id that stands for no text (padding of the output layer)
CHAIN = 32  # tokens in a row, in which each must decode to its own bytes
_TAILS = [bytes(t) for n in (1, 2, 3) for t in itertools.product(b"\x80\x90\xa0", repeat=n)]
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_HINT = "choose a model with a byte-level BPE or SentencePiece tokenizer"
DAY = datetime.datetime(2024, 7, 26)  # for templates that name the date: else prompts would change
_USER, _ASSISTANT = "\ue000what the user says\ue001", "\ue002what the assistant says\ue003"
_CODES = [f"%{c}" for c in "aAbBcdDeFfGHhIjlmMpRSTuUVwWxXyYzZ"] + [f"%-{c}" for c in "dHIjmMSy"]
# Stands before a template that asks for the day: a macro hides the function of its name. The end
# of its line is taken away, so the template begins a line, as it did.
_NOW = "{% macro strftime_now(format) %}{{ format|replace('%%', '\x00')" + "".join(
    f"|replace({code!r}, {DAY.strftime(code)!r})" for code in _CODES
)
_NOW += "|replace('\x00', '%') }}{% endmacro %}\n"
_RAW = "ask in completion form: --form completion"


# -- the bytes of every token


def _alphabet() -> dict[str, int]:
    """Of byte-level BPE: printable bytes are themselves, the others are moved to U+0100 and on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(moved)}


ALPHABET = _alphabet()


def token_pieces(tokenizer, ends: set[int], width: int) -> list[object]:
    """Of every id up to `width` the bytes, END for those in `ends`, VOID where there is no token.

    Raises: CrystalError for a vocabulary that is neither byte-level nor SentencePiece, or whose
    tokens do not decode to bytes of their own.
    """
    spell, pieces = _rule(tokenizer), [VOID] * width
    for text, i in tokenizer.get_vocab().items():
        if i < width:
            pieces[i] = END if i in ends else spell(text)
    return _InContext(tokenizer, pieces).corrected()


def _rule(tokenizer) -> Callable[[str], bytes]:
    """How the decoder spells a token."""
    decoder = pickle.dumps(tokenizer.backend_tokenizer.decoder)  # holds its description as JSON
    kinds = set(re.findall(r'"type": ?"(\w+)"', decoder.decode("utf-8", "replace")))
    for kind, spell in _SPELLERS.items():
        if kind in kinds:
            return spell
    found = ", ".join(sorted(kinds)) or "none"
    what = f"the tokenizer is neither byte-level nor SentencePiece (decoder: {found})"
    raise CrystalError(what, where=tokenizer.name_or_path, hint=_HINT)


def _byte_level(text: str) -> bytes:
    """A token with a character that is not of the alphabet is plain text."""
    found = [ALPHABET.get(c) for c in text]
    return text.encode() if None in found else bytes(found)


def _sentencepiece(text: str) -> bytes:
    return bytes([int(text[3:5], 16)]) if _BYTE.fullmatch(text) else _spaced(text)


def _spaced(text: str) -> bytes:
    return text.replace("\u2581", " ").encode()


_SPELLERS = {"ByteLevel": _byte_level, "ByteFallback": _sentencepiece, "Metaspace": _spaced}


class _InContext:
    """Pieces against what their tokenizer decodes."""

    def __init__(self, tokenizer, pieces: list[object]) -> None:
        self.tokenizer, self.pieces = tokenizer, pieces
        self.texts = [i for i, piece in enumerate(pieces) if isinstance(piece, bytes)]
        self.byte = {pieces[i][0]: i for i in reversed(self.texts) if len(pieces[i]) == 1}

    def corrected(self) -> list[object]:
        """The pieces, or what they decode to where that is something else."""
        if self.texts:
            a, _ = self.anchors = self._anchors()
            suspects = self._wrong(self._chains()) + self._wrong(self._completed())
            alone = [[a, i, a] for i in sorted({i for row in suspects for i in row})]
            for _, i, _ in self._wrong(alone):
                self.pieces[i] = self._decoded(i)
            for row in self._wrong(suspects):
                self._refuse(next(i for n, i in enumerate(row, 1) if self._wrong([row[:n]])))
        return self.pieces

    def _decode(self, rows: list[list[int]]) -> list[str]:
        return self.tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)

    def _text(self, ids: list[int]) -> str:
        return b"".join([self.pieces[i] for i in ids]).decode("utf-8", "replace")

    def _wrong(self, rows: list[list[int]]) -> list[list[int]]:
        """Rows that do not decode to the bytes of their tokens."""
        found = zip(rows, self._decode(rows), strict=True)
        return [row for row, text in found if text != self._text(row)]

    def _anchors(self) -> tuple[int, int]:
        """Tokens of plain letters, to stand beside others; one twice where there is one."""
        name, pieces = self.tokenizer.convert_ids_to_tokens, self.pieces
        plain = [i for i in self.texts if re.fullmatch(rb"[!-~]{1,8}", pieces[i])]
        plain.sort(key=lambda i: (not pieces[i].isalpha(), len(pieces[i]), i))
        same = (i for i in plain[:256] if name(i).encode() == pieces[i])
        sound = (i for i in same if not self._wrong([[i, i]]))
        if (first := next(sound, None)) is None:
            what = "no token decodes to plain letters wherever it stands, so none can be checked"
            raise CrystalError(what, where=self.tokenizer.name_or_path, hint=_HINT)
        return first, next(sound, first)

    def _chains(self) -> list[list[int]]:
        """Every token of whole characters, in rows, in an order drawn once."""
        whole = np.array([i for i in self.texts if _whole(self.pieces[i])])
        drawn = np.random.Generator(np.random.Philox(0)).permutation(whole).tolist()
        return [[self.anchors[0], *drawn[at : at + CHAIN]] for at in range(0, len(drawn), CHAIN)]

    def _completed(self) -> list[list[int]]:
        """Every other token, among single bytes that make it whole characters, if any do."""
        rows, a = [], self.anchors[0]
        for i in self.texts:
            if not _whole(piece := self.pieces[i]):
                before, after = ([self.byte.get(b) for b in half] for half in _completion(piece))
                row = [a, *before, i, *after, a]
                rows.append([a, i, a] if None in row else row)
        return rows

    def _decoded(self, i: int) -> bytes:
        """What a token decodes to; refused unless that is whole and the same beside each anchor."""
        found = {self._between([a, i, b]) for a in self.anchors for b in self.anchors}
        text = found.pop() if len(found) == 1 else None
        first, last = self.anchors
        if text is None or "\ufffd" in text or self._between([first, i, i, last]) != text * 2:
            self._refuse(i)
        return text.encode()

    def _between(self, ids: list[int]) -> str | None:
        """What is decoded between the first and last token; None if these change."""
        text, first, last = self._decode([ids])[0], self._text(ids[:1]), self._text(ids[-1:])
        inner = text[len(first) : len(text) - len(last)]
        return inner if text == first + inner + last else None

    def _refuse(self, i: int) -> None:
        token = self.tokenizer.convert_ids_to_tokens(i)
        what = f"what token {i} ({token!r}) decodes to depends on the tokens beside it"
        raise CrystalError(what, where=self.tokenizer.name_or_path, hint=_HINT)


def _whole(piece: bytes) -> bool:
    return piece.decode(errors="ignore").encode() == piece


def _completion(piece: bytes) -> tuple[bytes, bytes]:
    """Bytes to put before and after a piece for whole characters; none where none do."""
    lost = len(piece) - len(piece.lstrip(bytes(range(0x80, 0xC0))))
    before = {1: b"\xc3", 2: b"\xe1", 3: b"\xf1"}.get(lost, b"")
    ways = ((before, after) for after in (b"", *_TAILS) if _whole(before + piece + after))
    return next(ways, (b"", b""))


# -- prompts as token ids


def end_ids(model, tokenizer) -> frozenset[int]:
    """Ids that end an answer, as the tokenizer and the model's two configurations name them."""
    ends: list[object] = [tokenizer.eos_token_id]
    for config in (model.config, model.generation_config):
        eos = getattr(config, "eos_token_id", None)
        ends += eos if isinstance(eos, list | tuple) else [eos]
    if odd := [i for i in ends if i is not None and type(i) is not int]:
        what, hint = f"eos_token_id holds {odd[0]!r:.60}, no id of a token", "write its number"
        where = f"{tokenizer.name_or_path}, config.json or generation_config.json"
        raise CrystalError(what, where=where, hint=hint)
    return frozenset(i for i in ends if i is not None)


@dataclass(frozen=True)
class Encoder:
    """Prompts of one tokenizer."""

    tokenizer: object
    ends: Set[int]  # ids that end an answer
    where: str  # the checkpoint, for errors
    prepare: Callable[[str], None] = lambda text: None  # see `Cutter`

    def encode(self, text: str, form: str, reply: str = "") -> tuple[int, ...]:
        """Token ids of a prompt in a form, and of `reply`, which begins the answer.

        Completion form: text and reply, `joined`, without what the tokenizer adds at the end of a
        text. Chat form: the user's message in the template, then the reply where the template puts
        an assistant's message. Of several beginnings of sequence one is left.
        Raises: CrystalError for an unknown form, no template, a template that is refused, a prompt
        that ends in an end token.
        """
        known(form, FORMS, "form")
        if not files.text(text + reply):
            what = "the prompt is not text in UTF-8"
            raise self._refused(what, "write prompt and reply as UTF-8")
        ids = self._chat(text, reply) if form == CHAT else self._completion(joined(text, reply))
        while len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id:
            ids = ids[1:]
        if ids != [self.tokenizer.bos_token_id]:
            self._check_open(ids, self._marks if form == CHAT and not reply else frozenset())
        return tuple(ids)

    def _completion(self, text: str) -> list[int]:
        """Some tokenizers add an end of sequence behind the text's ids."""
        bare = self._ids(text)
        ids = self.tokenizer(text)["input_ids"]
        if not bare:
            return [i for i in ids[:1] if i == self.tokenizer.bos_token_id]
        until = (n for n in range(len(bare), len(ids) + 1) if ids[n - len(bare) : n] == bare)
        return ids[: next(until, len(ids))]

    def _chat(self, text: str, reply: str) -> list[int]:
        user, asked = self._as_rendered(text), self._asked
        if reply:
            return self._ids((self._turn or asked).replace(_USER, user) + reply)
        begins = asked == self._closed and self._turn.startswith(asked)
        if begins and self._turn[len(asked) :].strip():
            what = "the chat template does not open the assistant's turn"
            hint = f"begin the answer with --reply, or {_RAW}"
            raise self._refused(f"{what} (it ignores add_generation_prompt)", hint)
        self._check_open(self._ids(asked.rstrip()), self._marks)
        return self._ids(asked.replace(_USER, user))

    def _ids(self, text: str) -> list[int]:
        self.prepare(text)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _check_open(self, ids: list[int], marks: Set[int]) -> None:
        """marks: ids that may end a prompt, though they end an answer."""
        if ids and ids[-1] in self.ends - marks:
            token = self.tokenizer.convert_ids_to_tokens(ids[-1])
            what = f"the prompt ends in {token!r}, which ends an answer"
            raise self._refused(what, f"leave it out, or {_RAW}")

    # -- the template, tried on a message of a user and one of an assistant

    def _as_rendered(self, text: str) -> str:
        """A user's text as the template renders it; white space at its ends may go."""
        rendered = self._rendered(text)
        for kept in (text, text.strip(), text.rstrip(), text.lstrip()):
            if rendered == self._asked.replace(_USER, kept):
                return kept
        raise self._refused(f"the chat template changes the user's text {text[:60]!r}")

    @cached_property
    def _asked(self) -> str:
        """Our user's message, up to where an answer begins."""
        return self._rendered(_USER)

    @cached_property
    def _closed(self) -> str:
        return self._rendered(_USER, opening=False)

    @cached_property
    def _turn(self) -> str:
        """Up to our assistant's message; "" where the template renders none."""
        try:
            whole = self._rendered(_USER, _ASSISTANT, opening=False)
        except CrystalError:
            return ""
        begin, found, _ = whole.partition(_ASSISTANT)
        return begin if found and _USER in begin else ""

    @cached_property
    def _marks(self) -> frozenset[int]:
        """Ids of the generation prompt: some models list them as ends, of a user's turn."""
        asked, closed = self._asked, self._closed
        added = asked.removeprefix(closed) if asked.startswith(closed) else ""
        return frozenset(self._ids(added)) - {self.tokenizer.eos_token_id}

    @cached_property
    def _parts(self) -> bool:
        """Whether a message is a list of parts, as templates for images want it."""
        if not self.tokenizer.chat_template:
            raise self._refused("the tokenizer has no chat template")
        failed = None
        for parts in (False, True):
            try:
                if _USER in self._rendered(_USER, parts=parts):
                    return parts
            except CrystalError as error:
                failed = failed or error
        raise failed or self._refused("the chat template leaves the user's text out")

    @cached_property
    def _template(self) -> str:
        template = self.tokenizer.get_chat_template()
        return _NOW + template if "strftime_now" in template else template

    def _rendered(self, *texts: str, opening: bool = True, parts: bool | None = None) -> str:
        """A user's message and, of two texts, an assistant's; opening: of the next answer."""
        listed = self._parts if parts is None else parts
        contents = [[{"type": "text", "text": text}] if listed else text for text in texts]
        turns = zip(("user", "assistant"), contents)
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            how = {"add_generation_prompt": opening, "chat_template": self._template}
            return self.tokenizer.apply_chat_template(messages, tokenize=False, **how)
        except Exception as error:  # a template is a program of its own, and raises what it likes
            what = f"the chat template cannot be rendered: {reason(error)}"
            raise self._refused(what) from error

    def _refused(self, what: str, hint: str = _RAW) -> CrystalError:
        return CrystalError(what, where=self.where, hint=hint)
