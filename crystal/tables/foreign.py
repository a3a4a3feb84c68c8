"""Files of other tools, answer by answer: lm-evaluation-harness, inspect_ai, OpenAI, replies.

None of the tools need be installed.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from .. import texts
from ..errors import CrystalError
from . import sheets
from .sheets import at, json_lines, parsed, rows, some

ONE_GROUP = r"give one with one group that fits the whole of every custom_id, such as '(.*)-\d+'"
AGAIN = "run lm_eval again with --log_samples"


class Answer(NamedTuple):
    where: str  # file and line, or file and sample
    prompt: str
    text: str | None = None  # as the tool kept it, unfiltered; None: a refusal, no content
    score: float | None = None  # log-likelihood of the option `text`, nats; None: a reply
    task: str | None = None  # what the log calls it
    ladder: str | None = None
    stage: str | None = None
    cluster: str | None = None
    identity: str | None = None  # the tool's own name of this reply, unique over files
    failed: str | None = None  # why there is no reply; such a line is not an answer
    cut: bool = False  # at the limit of tokens
    decoding: tuple[tuple[str, str], ...] = ()  # names and values, as logged


class Named(NamedTuple):
    """Field, column or regular expression of who was asked what; None: the format's own."""

    prompt: str | None = None
    cluster: str | None = None

    def of(self, fields: Mapping, own: str, where: str) -> dict[str, str | None]:
        """Prompt and cluster by their fields, the prompt else by the field `own`."""
        cluster = named(fields, self.cluster, where) if self.cluster else None
        return {"prompt": named(fields, self.prompt or own, where), "cluster": cluster}


# -- fields of a record


def as_dict(value: Any) -> dict:
    """A JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def part(record: Mapping, name: str, where: str, kind: type = dict) -> Any:
    """The object (or list) called `name` in a record, empty if missing."""
    value = kind() if (found := record.get(name)) is None else found
    if not isinstance(value, kind):
        what = f"{name} is {texts.shown(value)}, not {'an object' if kind is dict else 'a list'}"
        raise CrystalError(what, where=where, hint="let the tool write its log again")
    return value


def objects(record: Mapping, name: str, where: str) -> list[dict]:
    items = part(record, name, where, list)
    return [part({f"an item of {name}": item}, f"an item of {name}", where) for item in items]


def named(fields: Mapping, name: str, where: str) -> str:
    """A name out of a record, as `texts.name` compares it; whole numbers are names, too."""
    hint = f"choose another field among: {some(map(str, fields), 12)}"
    if not (found := _text(fields.get(name)) or "").strip():
        what = f"{name} is {texts.shown(fields[name])!r}" if name in fields else f"no {name}"
        raise CrystalError(f"{what}, where a name was looked for", where=where, hint=hint)
    return sheets.given(found, where, hint)


def _text(value: Any) -> str | None:
    """Text as it is, a whole number as text; None: neither."""
    text = value if isinstance(value, str) else texts.written(value)
    return text if text is value or text.lstrip("-").isdigit() else None


def reply_text(value: Any, where: str, between: str = "\n") -> str | None:
    """A reply: text, a whole number, parts of which the text counts, or nothing."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        found = [one.get("text") for one in value if one.get("type") in ("text", "output_text")]
        if all(isinstance(text, str) for text in found):
            return between.join(found)
    if value is not None and _text(value) is None:
        what = f"a reply is {texts.shown(value)}, not text"
        raise CrystalError(what, where=where, hint="write replies as text")
    return _text(value)


def _decoding(settings: Mapping) -> tuple[tuple[str, str], ...]:
    values = (one if isinstance(one, str) else reprlib.repr(one) for one in settings.values())
    return tuple(sorted(zip(map(texts.short, settings), map(texts.short, values))))


def _logged(path: Path) -> Iterator[tuple[str, dict]]:
    """Place and object of every line of a log."""
    with open(path, "rb") as file:
        for number, row in json_lines(file, path):
            yield f"{path}, line {number}", row


def lm_eval(path: Path, by: Named) -> Iterator[Answer]:
    """Per-sample log of lm-evaluation-harness (`--log_samples`), a document a line; as of 0.4.13.

    Replies before any filter, or the scores of options, but those given no context. A document
    stands there once a filter and is read once. Its prompt is its doc_id, or the field `by.prompt`
    of the document, else of the line.
    """
    match = re.fullmatch(r"samples_(.+)_\d{4}-\d\d-\d\dT.*", path.stem)
    task = texts.whole(match[1]) if match else None
    seen: dict[tuple[str, str], None] = {}
    for where, row in _logged(path):
        key = (texts.short(str(row.get("filter"))), named(row, "doc_id", where))
        if key in seen:
            what = f"document {key[1]} is there twice"
            raise CrystalError(what, where=where, hint="import the file of one run")
        seen[key] = None
        if key[0] != next(iter(seen))[0]:
            continue
        fields = {**row, **as_dict(row.get("doc")), "doc_id": row["doc_id"]}
        names = by.of(fields, "doc_id", where)
        for answer in _lm_eval_answers(row, where):
            yield answer._replace(task=task, **names)


def _lm_eval_answers(row: Mapping, where: str) -> Iterator[Answer]:
    asked, resps = row.get("arguments"), row.get("resps")
    if isinstance(asked, dict) and all(isinstance(one, dict) for one in asked.values()):
        asked = [list(one.values()) for one in asked.values()]  # before 0.4.3: lists
    sound = isinstance(asked, list) and isinstance(resps, list) and len(asked) == len(resps)
    if not (sound and all(isinstance(one, list) for one in (*asked, *resps))):
        raise CrystalError("arguments and resps are not those of a sample", where=where, hint=AGAIN)
    for arguments, replies in zip(asked, resps, strict=True):
        if len(arguments) < 2:
            what = "loglikelihood_rolling scores whole texts, neither a reply nor an option"
            hint = "make the task generate_until or multiple_choice"
            raise CrystalError(what, where=where, hint=hint)
        if isinstance(arguments[1], dict):
            settings = {name: x for name, x in arguments[1].items() if name != "until"}
            decoding = _decoding({"temperature": 0.0, **settings})  # lm_eval's, where none is said
            for reply in replies:
                yield Answer(where, "", reply_text(reply, where), decoding=decoding)
        elif arguments[0]:
            first = replies[0] if replies else None
            score = first[0] if isinstance(first, list) and first else None
            if (found := texts.number(score)) != found and score != "nan":
                what = f"{texts.shown(replies)} is not a log-likelihood"
                raise CrystalError(what, where=where, hint=AGAIN)
            yield Answer(where, "", reply_text(arguments[1], where), found)


def inspect(path: Path, by: Named) -> Iterator[Answer]:
    """Log of inspect_ai in JSON: all choices of every sample's output; as of 0.3.285.

    A prompt is a sample's id (epochs are repeats), or the field `by.prompt` of its metadata. The
    reasoning is not read.
    """
    if (log := path.read_bytes()).startswith(b"PK"):
        hint = f"inspect log convert {quote(str(path))} --to json --output-dir json; import that"
        raise CrystalError("the log is packed as an archive", where=path, hint=hint)
    header = parsed(log, path, str(path))
    if (status := header.get("status", "success")) != "success":
        what = f"the run is not whole, its status is {texts.shown(status)}"
        hint = f"inspect eval-retry {quote(str(path))}, and import the log that it writes"
        raise CrystalError(what, where=path, hint=hint)
    samples = objects(header, "samples", str(path))
    spec, plan = (part(header, name, str(path)) for name in ("eval", "plan"))
    settings = part(spec, "model_generate_config", str(path)) | part(plan, "config", str(path))
    task = named(spec, "task", str(path)).rpartition("/")[2] if spec.get("task") else None
    for sample in samples:
        number, epoch = (texts.shown(sample.get(name)) for name in ("id", "epoch"))
        where = f"{path}, sample {number} epoch {epoch}"
        fields = {**part(sample, "metadata", where), "id": sample.get("id")}
        names = by.of(fields, "id", where)
        here = Answer(where, task=task, decoding=_decoding(settings), **names)
        run = sample.get("uuid") or f"{spec.get('eval_id')} {fields['id']} {sample.get('epoch')}"
        error, invalid = sample.get("error"), sample.get("invalidation")
        output = {} if error or invalid else part(sample, "output", where)
        if not (choices := objects(output, "choices", where)):
            failed = as_dict(error).get("message") or error
            failed = failed or ("declared invalid" if invalid else "no output")
            yield here._replace(identity=texts.shown(run), failed=texts.shown(failed))
        for index, choice in enumerate(choices):
            content = part(choice, "message", where).get("content")
            if isinstance(content, str) and content.startswith("attachment://"):
                attached = part(sample, "attachments", where)
                content = attached.get(content.removeprefix("attachment://"), content)
            cut = choice.get("stop_reason") in ("max_tokens", "model_length")
            yield here._replace(text=reply_text(content, where), identity=f"{run} {index}", cut=cut)


def openai_batch(path: Path, by: Named) -> Iterator[Answer]:
    """Output of an OpenAI batch, or a server's like it: chat, plain completions or responses.

    A prompt is a custom_id, or what the group of the regular expression `by.prompt` takes of it.
    """
    patterns = {name: pattern for name, pattern in by._asdict().items() if pattern}
    for where, row in _logged(path):
        custom = named(row, "custom_id", where)
        taken = {name: _group(pattern, custom, where) for name, pattern in patterns.items()}
        here = Answer(where, custom)._replace(**taken)
        response = part(row, "response", where)
        error = row.get("error") or as_dict(response.get("body")).get("error")
        error = error or (status if (status := response.get("status_code")) != 200 else None)
        run = f"{row['id']} {custom}" if row.get("id") else None
        if error or not response:
            failed = texts.shown(as_dict(error).get("message") or error or "no response")
            yield here._replace(identity=run, failed=failed)
            continue
        for index, (text, cut) in enumerate(_openai_texts(part(response, "body", where), where)):
            yield here._replace(text=text, identity=run and f"{run} {index}", cut=cut)


def _openai_texts(body: Mapping, where: str) -> Iterator[tuple[str | None, bool]]:
    """Each reply of a body, and whether it was cut at the limit of tokens."""
    items, choices = objects(body, "output", where), objects(body, "choices", where)
    for choice in choices:
        text = choice["text"] if "text" in choice else part(choice, "message", where).get("content")
        yield reply_text(text, where), choice.get("finish_reason") == "length"
    if items and not choices:
        messages = (item for item in items if item.get("type") == "message")
        parts = [one for item in messages for one in objects(item, "content", where)]
        yield reply_text(parts, where, ""), body.get("status") == "incomplete"
    if not (items or choices):
        hint = "import a batch of /v1/chat/completions, /v1/completions or /v1/responses"
        raise CrystalError("the body has neither choices nor output", where=where, hint=hint)


def _group(pattern: str, custom: str, where: str) -> str:
    wrong = "it does not fit, or its group is empty"
    try:
        if (match := re.fullmatch(pattern, custom)) and (found := texts.name(match[1] or "")):
            return found
    except (re.error, IndexError, ValueError) as error:
        wrong = str(error)
    what = f"the regular expression {pattern!r} takes no name out of custom_id {custom!r:.60}"
    raise CrystalError(f"{what}: {wrong}", where=where, hint=ONE_GROUP)


# -- plain replies


def replies(path: Path, by: Named) -> Iterator[Answer]:
    """A table, a reply a row: reply, prompt (or `by.prompt`); cluster, ladder, stage, task."""
    own = {name: name for name in ("ladder", "stage", "task")}
    own |= {} if by.cluster else {"unit": "cluster", "cluster": "cluster"}  # unit: as once called
    for number, row in rows(path):
        where = at(path, number)
        if "reply" not in row:
            hint = "name the column of replies reply"
            raise CrystalError(f"no reply among {some(row, 12)}", where=where, hint=hint)
        here = {name: named(row, column, where) for column, name in own.items() if column in row}
        here |= {name: x for name, x in by.of(row, "prompt", where).items() if x is not None}
        yield Answer(where, text=reply_text(row["reply"], where), **here)


READERS: dict[str, Callable[[Path, Named], Iterator[Answer]]] = {
    "lm-eval": lm_eval, "inspect": inspect, "openai-batch": openai_batch, "replies": replies,
}  # fmt: skip
