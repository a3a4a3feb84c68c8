"""Prompts as token ids: raw text, or a user's message in the chat template; and an answer that is
begun.

What is asked must be what the user wrote, and the model must be about to answer. So a chat template
is tried on words of ours before it is used: it must render a user's text whole, white space at its
ends apart, and leave the assistant's turn open. A template that does otherwise is refused in a
sentence.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property

from ..ask.prompts import CHAT, FORMS, joined
from ..errors import CrystalError, known

DAY = datetime.datetime(
    2024, 7, 26
)  # told to templates that tell the date, lest a prompt change overnight
_USER, _ASSISTANT = "\ue000what the user says\ue001", "\ue002what the assistant says\ue003"
_NOW = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_RAW = "ask in completion form: --form completion"


def end_ids(model, tokenizer) -> frozenset[int]:
    """Ids that end an answer, as the tokenizer and the model's two configurations name them."""
    ends = {tokenizer.eos_token_id}
    for config in (model.config, model.generation_config):
        eos = getattr(config, "eos_token_id", None)
        ends |= {*eos} if isinstance(eos, list | tuple) else {eos}
    return frozenset(ends - {None})


@dataclass(frozen=True)
class Encoder:
    """Prompts of one tokenizer. ends: ids that end an answer. where: the checkpoint, for what is
    refused.
    """

    tokenizer: object
    ends: Set[int]
    where: str

    def encode(self, text: str, form: str, reply: str = "") -> tuple[int, ...]:
        """Token ids of a prompt in a form, and of `reply`, which begins the answer.

        Completion form: text and reply, joined by one space unless the text ends in white space, as
        the tokenizer begins a text; what it puts behind a text is left out. Chat form: the user's
        message in the template, then the reply where the template puts an assistant's message. A
        beginning of sequence that template and tokenizer both write is there once.
        Raises: CrystalError for an unknown form, a tokenizer without a template, a template that
        does not render the text whole or open the assistant's turn, a prompt that ends in an end
        token.
        """
        known(form, FORMS, "form")
        ids = self._chat(text, reply) if form == CHAT else self._completion(joined(text, reply))
        while len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id:
            ids = ids[1:]
        if ids != [self.tokenizer.bos_token_id]:
            self._awaits(ids, self._template.marks if form == CHAT and not reply else frozenset())
        return tuple(ids)

    @cached_property
    def _template(self) -> Template:
        return Template(self.tokenizer, self.where)

    def _completion(self, text: str) -> list[int]:
        """The tokenizer's ids up to the text's last one: some add an end of sequence behind it."""
        ids, bare = self.tokenizer(text)["input_ids"], _ids(self.tokenizer, text)
        if not bare:
            return [i for i in ids[:1] if i == self.tokenizer.bos_token_id]
        until = (n for n in range(len(bare), len(ids) + 1) if ids[n - len(bare) : n] == bare)
        return ids[: next(until, len(ids))]

    def _chat(self, text: str, reply: str) -> list[int]:
        said = self._template.said(text)
        if reply:
            return _ids(self.tokenizer, self._template.begun.replace(_USER, said) + reply)
        asked = self._template.opened
        self._awaits(_ids(self.tokenizer, asked.rstrip()), self._template.marks)
        return _ids(self.tokenizer, asked.replace(_USER, said))

    def _awaits(self, ids: list[int], marks: Set[int]) -> None:
        """Refuse a prompt after whose last token nothing is to be said; marks: ids of a generation
        prompt.
        """
        if ids and ids[-1] in self.ends - {*marks}:
            token = self.tokenizer.convert_ids_to_tokens(ids[-1])
            raise CrystalError(
                f"the prompt ends in {token!r}, which ends an answer",
                where=self.where,
                mend=f"leave it out, or {_RAW}",
            )


@dataclass(frozen=True)
class Template:
    """A chat template, tried on a message of a user and one of an assistant."""

    tokenizer: object
    where: str

    def said(self, text: str) -> str:
        """A user's text as the template renders it: whole, but for white space at its ends.

        Raises: CrystalError for a template that does not.
        """
        rendered = self._rendered(self._message("user", text))
        for said in (text, text.strip(), text.rstrip(), text.lstrip()):
            if rendered == self.asked.replace(_USER, said):
                return said
        raise CrystalError(
            f"the chat template changes the user's text {text[:60]!r}", where=self.where, mend=_RAW
        )

    @cached_property
    def asked(self) -> str:
        """The template around our user's message, up to where an answer begins."""
        return self._rendered(self._message("user", _USER))

    @cached_property
    def opened(self) -> str:
        """The same. Raises: CrystalError if the assistant's turn is not open at its end."""
        header = (
            self._turn.removeprefix(self._closed) if self._turn.startswith(self._closed) else ""
        )
        if self.asked == self._closed and header.strip():
            raise CrystalError(
                "the chat template does not open the assistant's turn "
                "(it ignores add_generation_prompt)",
                where=self.where,
                mend=f"begin the answer with --reply, or {_RAW}",
            )
        return self.asked

    @cached_property
    def begun(self) -> str:
        """The template up to where our assistant's message begins, if it renders one; else as it
        asks for one.
        """
        return self._turn or self.opened

    @cached_property
    def marks(self) -> frozenset[int]:
        """Ids of the generation prompt: some models list its marks among their ends, as they end a
        user's turn.
        """
        added = self.asked.removeprefix(self._closed) if self.asked.startswith(self._closed) else ""
        return frozenset(_ids(self.tokenizer, added)) - {self.tokenizer.eos_token_id}

    @cached_property
    def _closed(self) -> str:
        return self._rendered(self._message("user", _USER), opening=False)

    @cached_property
    def _turn(self) -> str:
        """Up to our assistant's message; empty where the template renders none."""
        both = [self._message(*said) for said in (("user", _USER), ("assistant", _ASSISTANT))]
        try:
            begin, found, _ = self._rendered(*both, opening=False).partition(_ASSISTANT)
        except CrystalError:
            return ""
        return begin if found and _USER in begin else ""

    @cached_property
    def _in_parts(self) -> bool:
        """Whether a message's content must be a list of parts, as templates for images want it."""
        if not self.tokenizer.chat_template:
            raise CrystalError("the tokenizer has no chat template", where=self.where, mend=_RAW)
        failed = None
        for parts in (False, True):
            try:
                if _USER in self._rendered(_message("user", _USER, parts)):
                    return parts
            except CrystalError as error:
                failed = failed or error
        raise failed or CrystalError(
            "the chat template leaves the user's text out", where=self.where, mend=_RAW
        )

    @cached_property
    def _text(self) -> str:
        """The template itself; where it asks for the day, it is told DAY."""
        return _NOW.sub(lambda now: repr(DAY.strftime(now[2])), self.tokenizer.get_chat_template())

    def _message(self, role: str, text: str) -> dict:
        return _message(role, text, self._in_parts)

    def _rendered(self, *messages: dict, opening: bool = True) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                [*messages], tokenize=False, add_generation_prompt=opening, chat_template=self._text
            )
        except Exception as error:  # a template is a program of its own, and raises what it likes
            said = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
            raise CrystalError(
                f"the chat template cannot be rendered: {said}", where=self.where, mend=_RAW
            ) from error


def _message(role: str, text: str, parts: bool) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}] if parts else text}


def _ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
